"""``ssd-jax export-weights``: write a run's weights for torchvision or ssd.pytorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax import files
from ssd_jax.commands.options import parse_options
from ssd_jax.errors import UserError


@dataclass(frozen=True)
class ExportOptions:
    """Write the weights of a run to a safetensors file, with the keys of torchvision or ssd.pytorch."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    out: Path
    """File to write, such as ssd300.safetensors."""
    layout: Literal["torchvision", "ssd.pytorch"] = "torchvision"
    """Project whose keys are used."""
    checkpoint: Literal["best", "last"] = "best"
    """best: highest mAP (area) on the val split."""


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    options = parse_options(ExportOptions, "export-weights", argv)
    if options.out.exists():
        raise UserError(f"--out {options.out} exists already. Name another file")
    if options.out.suffix != ".safetensors":
        raise UserError(f"--out {options.out}: the format is safetensors. Use a name that ends with .safetensors")
    export_weights(options)


def export_weights(options: ExportOptions) -> None:
    """Write the file, and print how to use it."""
    from ssd_jax.data.class_names import format_names
    from ssd_jax.inference import detector
    from ssd_jax.runtime import sharding
    from ssd_jax.weights.exporting import check_boxes_for_torchvision, export_layout, to_layout, torchvision_code
    from ssd_jax.weights.formats.torch_file import write_safetensors

    config = detector.read_detector_config(options.run)
    model = config.model
    layout = export_layout(model, options.layout)
    if options.layout == "torchvision":
        check_boxes_for_torchvision(model.default_boxes)
    params, step = detector.restore_params(options.run, config, options.checkpoint)
    with files.user_errors_on_write(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(options.out, to_layout(sharding.fetch(params), layout))
    print(f"{options.out}: step {step} of {options.run} as {layout.title}. Label 0 is background, followed by:")
    print(format_names(f"{len(model.class_names)} classes", model.class_names))
    if options.layout == "ssd.pytorch":
        print(f"  Preprocessing: RGB minus {model.mean}, divided by {model.std}. Default boxes: {model.default_boxes}")
    if options.layout == "torchvision":
        print(f"In Python:\n\n{torchvision_code(config, str(options.out))}")
