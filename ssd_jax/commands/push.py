"""``ssd-jax push``: upload a trained detector to the Hugging Face Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import parse_options


@dataclass(frozen=True)
class PushOptions:
    """Upload a trained detector to the Hugging Face Hub: config.json, model.safetensors, README.md with a card, and a
    picture with detections. Log in with `hf auth login` first, or set HF_TOKEN."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, model folder, weight file, name that `ssd-jax models` lists, or hf://USER/NAME."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """Repository on the Hub. It is created if it does not exist."""
    private: bool = False
    """Create a private repository."""
    license: str = ""
    """License of the weights for the card, as the Hub names it, such as mit or cc-by-4.0."""
    picture: bool = True
    """Upload the picture with detections that evaluate drew. It shows images of the data set."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to upload. best: the one with the highest mAP (area) on the val split. last: the latest one."""
    dry_run: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write the files to this folder, and upload nothing."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax push`` with the arguments ``argv``."""
    options = parse_options(PushOptions, "push", argv)
    from ssd_jax.model_zoo.publishing import push

    pushed = push(
        options.model,
        options.repository,
        private=options.private,
        license_id=options.license,
        picture=options.picture,
        checkpoint=options.checkpoint,
        dry_run=options.dry_run,
    )
    listing = ", ".join(f"{name} ({size / 1e6:.2g} MB)" for name, size in pushed.sizes.items())
    print(f"{pushed.page or options.dry_run}: {listing}")
    if not pushed.has_accuracy:
        print(f"The card has no metrics of these weights. To measure them: ssd-jax evaluate {options.model}")
    if pushed.page:
        print(f"To use it: ssd-jax predict hf://{options.repository} IMAGES")
    else:
        print("Nothing was uploaded. Without --dry-run, these files are uploaded")
