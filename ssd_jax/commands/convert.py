"""``ssd-jax convert``: write a data set in another format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import parse_options
from ssd_jax.config import Data
from ssd_jax.errors import UserError
from ssd_jax.plurals import format_count
from ssd_jax.runtime.progress import hide_progress, show_progress


@dataclass(frozen=True)
class ConvertOptions:
    """Write a data set in any format that is read as VOC, COCO, YOLO, or ArrayRecord files of tensorflow-datasets."""

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the data set, or any other value of --data.root."""
    to: Literal["voc", "coco", "yolo", "tfds"]
    """Format to write. tfds: an ArrayRecord set for slow or shared disks, read with --data.root tfds:NAME; if it is
    interrupted, the same command goes on."""
    out: Path
    """New folder for the data set."""
    images: Literal["hardlink", "copy", "symlink"] = "hardlink"
    """How images are put into the folder. A hard link needs no space; where it is not possible, images are copied."""
    format: Annotated[str, tyro.conf.arg(name="data.format")] = Data.format
    """Format of the data set, if it is not recognised."""
    tfds_dir: Annotated[str, tyro.conf.arg(name="data.tfds_dir")] = Data.tfds_dir
    """Folder of prepared data sets, to convert one of them."""
    quiet: bool = False
    """Show no progress: print only results, warnings and errors."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax convert`` with the arguments ``argv``."""
    options = parse_options(ConvertOptions, "convert", argv)
    from ssd_jax.data.formats.recognition import FOLDER_FORMATS
    from ssd_jax.data.problems import Problems
    from ssd_jax.data.writers.conversion import convert_data_set, describe_next

    if options.format not in ("auto", *FOLDER_FORMATS):
        raise UserError(f"--data.format: '{options.format}' is no format of a folder: {', '.join(FOLDER_FORMATS)}.")
    data = Data(root=options.root, format=options.format, tfds_dir=options.tfds_dir)  # type: ignore[arg-type]
    problems = Problems(raise_errors=False)
    with hide_progress(options.quiet), show_progress("converting", stage="reading annotations") as task:

        def start(total: int) -> None:
            task.total = total

        conversion = convert_data_set(
            data, options.to, options.out, images=options.images, problems=problems, progress=task.update, started=start
        )
    for note in (*problems.notes(), *conversion.notes):
        print(f"note: {note}")
    counts = ", ".join(
        f"{f'{split}: ' if split else ''}{format_count(images, 'images')} with {format_count(objects, 'objects')}"
        for split, (images, objects) in conversion.counts.items()
    )
    print(f"Written to {options.out}: {counts}")
    print(f"Next: ssd-jax check-data own_data {describe_next(options.to, conversion, options.out)}")
