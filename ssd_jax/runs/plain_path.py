"""A path without special characters for a folder of any name, for libraries that do not take every path literally.

Orbax searches a checkpoint for files with a glob pattern that contains the path of the checkpoint, so that a folder
named ``exp[1]`` is not found: training saves its checkpoints, and none of them can be read. TensorStore requires paths
in UTF-8, and etils takes ``/gs/...`` and ``/s3/...`` for cloud storage. Orbax has no option that turns this off.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd_jax.files import convert_write_errors

_PLAIN = re.compile(r"(?!/(?:gs|s3|az|hf)/)[\w ./+=,@-]*", re.ASCII)


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Yield a path to a folder that has only letters, digits and a few other characters.

    This is the path itself if it has only such characters. Otherwise, it leads through a temporary symbolic link to the
    parent of the folder; the link is removed at the end of the ``with`` block.

    Args:
        folder: Absolute path of a folder, which need not exist. Its own name must have only such characters.

    Raises:
        UserError: If no temporary folder can be created.
    """
    if _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with convert_write_errors(Path(_temporary_root()), "Set TMPDIR to another folder."):
        temporary = tempfile.TemporaryDirectory(prefix="ssd_jax_", dir=_temporary_root())
    with temporary:
        link = Path(temporary.name) / "run"
        link.symlink_to(folder.parent, target_is_directory=True)
        yield link / folder.name


def _temporary_root() -> str:
    """Return the folder for temporary files, or /tmp if that folder has special characters in its path, too."""
    root = tempfile.gettempdir()
    return root if _PLAIN.fullmatch(root) else "/tmp"
