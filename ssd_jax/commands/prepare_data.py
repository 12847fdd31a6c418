"""``ssd-jax prepare-data``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax.config import Data


@dataclass(frozen=True)
class PrepareOptions:
    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="tfds:NAME")]
    """A set of tensorflow-datasets, such as tfds:voc/2007 or tfds:coco/2017."""
    archives: Path
    """Folder with the set's archives, under their original names."""
    tfds_dir: Annotated[str, tyro.conf.arg(name="data.tfds_dir")] = Data.tfds_dir
    """Where prepared sets are. Default: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    any_checksum: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take archives other than those whose checksums tfds knows."""


def prepare_data(argv: Sequence[str]) -> None:
    """prepare-data tfds:NAME --archives FOLDER: write a public set for reading without TensorFlow; this needs it."""
    from ssd_jax.data.formats.prepare import prepare_tfds  # not above: nothing else waits for tensorflow-datasets

    options = tyro.cli(PrepareOptions, args=list(argv), prog="prepare-data", description=prepare_data.__doc__)
    builder = prepare_tfds(Data(root=options.root, tfds_dir=options.tfds_dir), options.archives, options.any_checksum)
    splits = ", ".join(f"{name} ({info.num_examples} images)" for name, info in builder.info.splits.items())
    where = f" --data.tfds_dir {options.tfds_dir}" if options.tfds_dir else ""
    print(f"Prepared: {builder.data_dir}: {splits}. Next: train.py CONFIG --data.root {options.root}{where}")
