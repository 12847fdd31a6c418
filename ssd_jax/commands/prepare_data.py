"""``ssd-jax prepare-data``: prepare a public data set for reading without TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax.commands.options import parse_options
from ssd_jax.config import Data


@dataclass(frozen=True)
class PrepareOptions:
    """Prepare a data set of tensorflow-datasets. This needs TensorFlow; reading the prepared data set does not."""

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="tfds:NAME")]
    """Name of the data set, such as tfds:voc/2007 or tfds:coco/2017."""
    archives: Path
    """Folder with the archives of the data set, under their original names."""
    tfds_dir: Annotated[str, tyro.conf.arg(name="data.tfds_dir")] = Data.tfds_dir
    """Folder for prepared data sets. Default: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    any_checksum: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Accept archives whose checksums tfds does not know."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax prepare-data`` with the arguments ``argv``."""
    options = parse_options(PrepareOptions, "prepare-data", argv)
    from ssd_jax.data.formats.prepare import prepare_tfds

    builder = prepare_tfds(Data(root=options.root, tfds_dir=options.tfds_dir), options.archives, options.any_checksum)
    splits = ", ".join(f"{name} ({info.num_examples} images)" for name, info in builder.info.splits.items())
    folder = f" --data.tfds_dir {options.tfds_dir}" if options.tfds_dir else ""
    print(f"Prepared: {builder.data_dir}: {splits}. Next: ssd-jax train CONFIG --data.root {options.root}{folder}")
