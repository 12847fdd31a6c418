"""``ssd-jax show``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax import files
from ssd_jax.commands.options import OTHER_OUT
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.image import EXTENSIONS
from ssd_jax.data.run_splits import with_data_root
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder
from ssd_jax.training import replay


@dataclass(frozen=True)
class ShowOptions:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    image: str
    """Id of an image of the run's train split: a VOC or YOLO file's name without ending, a COCO file_name."""
    epoch: int
    """Pass over the train split, from 0."""
    out: Path | None = None
    """File of the picture; default RUN/shown/<image>_epoch<epoch>.jpg."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """The run's data at another place."""


def show(argv: Sequence[str]) -> None:
    """show RUN --image ID --epoch E: an image with its boxes, beside it what the network saw of it in that epoch."""
    options = tyro.cli(ShowOptions, args=list(argv), prog="show", description=show.__doc__)
    if options.out is not None and options.out.suffix.lower() not in EXTENSIONS:
        raise UserError(f"--out {options.out}: end its name in .jpg or .png")
    config = run_folder.read_config(options.run)
    if options.data_root is not None:
        config = with_data_root(config, options.data_root)
    source = open_source(config.data, config.data.train_split, config.model.class_names)
    seen = replay.replay_image(config, source, options.image, options.epoch)
    name = options.image.replace("/", "_")  # an id may be a path
    out = options.out or options.run / "shown" / f"{name}_epoch{options.epoch}.jpg"
    picture = replay.draw(source, seen)
    with files.user_errors_on_write(out, OTHER_OUT):
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out, quality=92)
    lost = len(source.annotation(seen.index).labels) - int((seen.labels > 0).sum())
    print(f"{options.image}, epoch {options.epoch}: step {seen.step} of {config.train.steps}. Written: {out}")
    if lost:
        print(f"{lost} of its objects the network did not see: outside the picture, or not to be trained on.")
