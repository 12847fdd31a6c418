"""``ssd-jax show``: draw an image as it was augmented in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax import files
from ssd_jax.commands.options import OUT_ADVICE, parse_options
from ssd_jax.errors import UserError, escape_text

_PICTURE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class ShowOptions:
    """Draw an image with its boxes, next to the augmented image that was used in a training epoch."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    image: str
    """Id of an image of the train split: the file name without its extension in VOC and YOLO, the file_name in COCO."""
    epoch: int
    """Epoch, starting from 0."""
    out: Path | None = None
    """Output file. Default: RUN/shown/<image>_epoch<epoch>.jpg."""
    data_root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Folder of the data set, if it has moved."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax show`` with the arguments ``argv``."""
    options = parse_options(ShowOptions, "show", argv)
    from ssd_jax.data.run_splits import open_split, with_data_root
    from ssd_jax.runs.run_folder import read_config
    from ssd_jax.training import replay

    if options.out is not None and options.out.suffix.lower() not in _PICTURE_EXTENSIONS:
        raise UserError(f"--out {options.out}: use a name that ends with .jpg or .png")
    config = read_config(options.run)
    if options.data_root is not None:
        config = with_data_root(config, options.data_root)
    source = open_split(config, config.data.train_split)
    augmented = replay.replay_image(config, source, options.image, options.epoch)
    safe_id = files.replace_forbidden_characters(options.image)  # an id may be a path
    name = files.append_to_file_name(safe_id, f"_epoch{options.epoch}.jpg")
    out = options.out or options.run / "shown" / name
    picture = replay.draw_comparison(source, augmented)
    with files.convert_write_errors(out, OUT_ADVICE):
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out, quality=92)
    unused = len(source.annotation(augmented.index).labels) - int((augmented.labels > 0).sum())
    text = f"{options.image}, epoch {options.epoch}: step {augmented.step} of {config.train.steps}. Written: {out}"
    print(escape_text(text))
    if unused:
        print(f"Objects that were not trained on: {unused}. They lie outside the augmented image, or are difficult.")
