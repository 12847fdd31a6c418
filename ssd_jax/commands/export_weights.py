"""``ssd-jax export-weights``: write a run's weights for torchvision or ssd.pytorch, or as a model folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ssd_jax.commands.options import parse_options
from ssd_jax.errors import UserError
from ssd_jax.files import make_user_path
from ssd_jax.portability import quote_argument


@dataclass(frozen=True)
class ExportOptions:
    """Write the weights of a run to a safetensors file, with the keys of torchvision or ssd.pytorch, or write a model
    folder, which has only what is needed to detect objects."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder. For --layout ssd-jax, also a weight file, the name of a model (`ssd-jax models` lists them), or
    hf://USER/NAME."""
    out: Path
    """File to write, such as ssd300.safetensors, or model folder for the layout ssd-jax."""
    layout: Literal["torchvision", "ssd.pytorch", "ssd-jax"] = "torchvision"
    """Project whose parameter names are used as keys. ssd-jax: write a model folder with config.json,
    model.safetensors and README.md, which predict, evaluate and train.pretrained take like a run."""
    dtype: Literal["float16", "float32"] | None = None
    """Type of the parameters in a model folder. float16, the default, halves the size."""
    checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to load. best: the one with the highest mAP (area) on the val split. last: the latest one."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax export-weights`` with the arguments ``argv``."""
    options = parse_options(ExportOptions, "export-weights", argv)
    if options.layout == "ssd-jax":
        _write_model_folder(options)
        return
    if options.dtype is not None:
        raise UserError(f"--dtype is only for --layout ssd-jax. For {options.layout}, all weights are float32")
    from ssd_jax.data.class_names import format_names
    from ssd_jax.weights.exporting import export_weights, make_torchvision_code

    config, step, mapping = export_weights(make_user_path(options.run), options.out, options.layout, options.checkpoint)
    model = config.model
    print(f"{options.out}: step {step} of {options.run} as {mapping.title}. Label 0 is background, followed by:")
    print(format_names(f"{len(model.class_names)} classes", model.class_names))
    if options.layout == "ssd.pytorch":
        print(f"  Preprocessing: RGB minus {model.mean}, divided by {model.std}. Default boxes: {model.default_boxes}")
    if options.layout == "torchvision":
        print(f"In Python:\n\n{make_torchvision_code(config, str(options.out))}")


def _write_model_folder(options: ExportOptions) -> None:
    from ssd_jax.model_zoo.saving import save_model_folder

    dtype = options.dtype or "float16"
    folder = save_model_folder(options.run, options.out, dtype=dtype, checkpoint=options.checkpoint)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: model folder of {options.run} in {dtype}, {size / 1e6:.1f} MB")
    print(f"Its README.md describes the model. Next: ssd-jax predict {quote_argument(str(folder))} IMAGES")
