"""``ssd-jax export-weights``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax import files
from ssd_jax.data.class_names import format_names
from ssd_jax.errors import UserError
from ssd_jax.inference import detector
from ssd_jax.runtime import sharding
from ssd_jax.weights.exporting import check_boxes_for_torchvision, export_layout, to_layout, torchvision_code
from ssd_jax.weights.formats.torch_file import write_safetensors


@dataclass(frozen=True)
class ExportOptions:
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    out: Path
    """File to write, such as ssd300.safetensors."""
    layout: Literal["torchvision", "ssd.pytorch"] = "torchvision"
    """Whose keys it gets."""
    checkpoint: Literal["best", "last"] = "best"


def export_weights(argv: Sequence[str]) -> None:
    """export-weights RUN --out FILE.safetensors: a run's weights for torchvision or ssd.pytorch."""
    options = tyro.cli(ExportOptions, args=list(argv), prog="export-weights", description=export_weights.__doc__)
    if options.out.exists():
        raise UserError(f"--out {options.out}: is there already. Name another file")
    if options.out.suffix != ".safetensors":
        raise UserError(f"--out {options.out}: what is written is safetensors. Let the name end in .safetensors")
    config = detector.read_detector_config(options.run)
    model = config.model
    layout = export_layout(model, options.layout)
    if options.layout == "torchvision":
        check_boxes_for_torchvision(model.default_boxes)
    params, step = detector.restore_params(options.run, config, options.checkpoint)
    with files.user_errors_on_write(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(options.out, to_layout(sharding.fetch(params), layout))
    print(f"{options.out}: step {step} of {options.run} as {layout.title}. Label 0 is background, then:")
    print(format_names(f"{len(model.class_names)} classes", model.class_names))
    if options.layout == "ssd.pytorch":
        print(f"  It expects RGB minus {model.mean}, over {model.std}, and these default boxes: {model.default_boxes}")
    if options.layout == "torchvision":
        print(f"In Python:\n\n{torchvision_code(config, str(options.out))}")
