"""Make tests/assets/tfds_prepared.tar.xz: the archives of helpers/tiny_archives.py as data sets prepared by tfds.

    python tests/assets/make_tfds_prepared.py

This script requires TensorFlow; the file in the repository was made with tfds 4.9.10 and TensorFlow 2.21. With this
file, tests can read data sets that TensorFlow has written, even if TensorFlow is not installed.
"""

import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from helpers.tiny_archives import write_coco_2017, write_voc_2007  # noqa: E402

from ssd_jax.config import Data  # noqa: E402
from ssd_jax.data.formats.prepare import prepare_tfds  # noqa: E402


def remove_owner_and_time(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return an archive entry without the owner and the time of the file."""
    entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime = 0, 0, "", "", 0
    return entry


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    archives, prepared = folder / "archives", folder / "prepared"
    archives.mkdir()
    write_voc_2007(archives)
    write_coco_2017(archives)
    for root in ("tfds:voc/2007", "tfds:coco/2017"):
        prepare_tfds(Data(root=root, tfds_dir=str(prepared)), archives, any_checksum=True)
    with tarfile.open(HERE / "tfds_prepared.tar.xz", "w:xz") as tar:
        for path in ("voc", "coco"):
            tar.add(prepared / path, path, filter=remove_owner_and_time)
