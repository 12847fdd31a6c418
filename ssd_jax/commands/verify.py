"""``ssd-jax verify``: compare imported weights with torch, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssd_jax.commands.options import parse_options
from ssd_jax.errors import UserError

Scales = Literal["voc", "coco"]


@dataclass(frozen=True)
class VerifyOptions:
    """Compare the forward pass and the detections of imported weights with those of torch, layer by layer."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Weight file: .pth, .safetensors, .caffemodel or .h5."""
    image: Path | None = None
    """Image to compute on. Default: a generated one."""
    scales: Scales | None = None
    """Scales of the default boxes, as for import-weights."""
    channels: Literal["rgb", "bgr"] | None = None
    """Channel order of the file's first layer, as for import-weights."""


def run(argv: Sequence[str]) -> int:
    """Run the command. Return 1 if a difference exceeds its tolerance."""
    options = parse_options(VerifyOptions, "verify", argv)
    from ssd_jax.data.image import read_image
    from ssd_jax.weights.importing import import_weights
    from ssd_jax.weights.verification import compare

    image = generated_image() if options.image is None else read_image(options.image)
    bgr = None if options.channels is None else options.channels == "bgr"
    imported = import_weights(options.file, class_names=None, scales=options.scales, bgr=bgr)
    reference = run_reference_on_file(options.file, imported, image, options.scales, bgr)
    rows = compare(imported, reference, image)
    print(f"{options.file}: {imported.layout.title}, on an image of {image.shape[1]} x {image.shape[0]}")
    print(format_comparison(rows))
    failed = [row.name for row in rows if not row.holds]
    print(f"Exceeds tolerance: {', '.join(failed)}." if failed else "All differences are within their tolerances.")
    return 1 if failed else 0


def generated_image() -> Any:
    """Return an image with smooth colours as an array (375, 500, 3), the same every time."""
    import numpy as np
    from PIL import Image

    noise = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC))


def run_reference_on_file(file: Path, imported: Any, image: Any, scales: Scales | None, bgr: bool | None) -> Any:
    """Run the torch reference with the weights of a file.

    Args:
        file: The weight file.
        imported: Its result of ``import_weights``.
        image: An array (h, w, 3) of uint8.
        scales: Scales of the default boxes. None: those of the file or of its project.
        bgr: Whether the first layer expects BGR. None: as in the project.

    Raises:
        UserError: torch is not installed.
    """
    from ssd_jax.weights.formats.weight_file import read_weights
    from ssd_jax.weights.torch_reference import run_reference

    weights, layout, model = read_weights(file), imported.layout, imported.config.model
    # torchvision uses COCO's scales for any classes.
    coco = scales == "coco" if scales else layout.project == "torchvision" or len(model.class_names) in (80, 90)
    sources = layout.network.sources if layout.network and not scales else ()
    priors = [weights.priors[name] for source in sources if (name := f"{source}_mbox_priorbox") in weights.priors]
    if len(priors) < len(sources):
        priors = []
    try:
        return run_reference(layout.project, weights.tensors, image, model.image_size, coco, priors, bgr)
    except ImportError as error:
        raise UserError(
            f"verify needs torch and torchvision ({error}). In the checkout: pip install -e '.[parity]'"
        ) from None


def format_comparison(rows: Sequence[Any]) -> str:
    """Return a table with one line per comparison."""
    from tabulate import tabulate

    header = ("", "shape", "largest", "difference", "relative", "allowed", "")
    lines = [
        (
            row.name,
            " x ".join(map(str, row.shape)),
            f"{row.largest:.4g}",
            f"{row.difference:.2e}",
            f"{row.difference / row.largest if row.largest else row.difference:.1e}",
            f"{row.allowed:.1e}",
            "" if row.holds else "<-- too large",
        )
        for row in rows
    ]
    align = ("left", "right", "right", "right", "right", "right", "left")
    return tabulate(lines, header, tablefmt="plain", disable_numparse=True, colalign=align)
