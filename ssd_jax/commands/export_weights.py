"""``ssd-jax export-weights``: write a run's weights for torchvision or ssd.pytorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import parse_options


@dataclass(frozen=True)
class ExportOptions:
    """Write the weights of a run to a safetensors file, with the keys of torchvision or ssd.pytorch."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    out: Path
    """File to write, such as ssd300.safetensors."""
    layout: Literal["torchvision", "ssd.pytorch"] = "torchvision"
    """Project whose parameter names are used as keys."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax export-weights`` with the arguments ``argv``."""
    options = parse_options(ExportOptions, "export-weights", argv)
    from ssd_jax.data.class_names import format_names
    from ssd_jax.weights.exporting import export_weights, make_torchvision_code

    config, step, mapping = export_weights(options.run, options.out, options.layout, options.checkpoint)
    model = config.model
    print(f"{options.out}: step {step} of {options.run} as {mapping.title}. Label 0 is background, followed by:")
    print(format_names(f"{len(model.class_names)} classes", model.class_names))
    if options.layout == "ssd.pytorch":
        print(f"  Preprocessing: RGB minus {model.mean}, divided by {model.std}. Default boxes: {model.default_boxes}")
    if options.layout == "torchvision":
        print(f"In Python:\n\n{make_torchvision_code(config, str(options.out))}")
