"""``ssd-jax verify``: compare imported weights with torch, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssd_jax.commands.options import parse_options


@dataclass(frozen=True)
class VerifyOptions:
    """Compare the forward pass and the detections of imported weights with those of torch, layer by layer."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Weight file: .pth, .safetensors, .caffemodel or .h5."""
    image: Path | None = None
    """Image to compare on. Default: a generated image."""
    scales: Literal["voc", "coco"] | None = None
    """Scales of the default boxes, as for import-weights."""
    channels: Literal["rgb", "bgr"] | None = None
    """Channel order of the file's first layer, as for import-weights."""


def run(argv: Sequence[str]) -> int:
    """Run ``ssd-jax verify``, and return the exit code: 1 if a difference exceeds its tolerance."""
    options = parse_options(VerifyOptions, "verify", argv)
    from ssd_jax.data.image import read_image
    from ssd_jax.weights.verification import make_sample_image, verify_weights

    image = make_sample_image() if options.image is None else read_image(options.image)
    bgr = None if options.channels is None else options.channels == "bgr"
    imported, comparisons = verify_weights(options.file, image, options.scales, bgr)
    print(f"{options.file}: {imported.mapping.title}, on an image of {image.shape[1]} x {image.shape[0]}")
    print(format_comparisons(comparisons))
    failed = [comparison.name for comparison in comparisons if not comparison.passed]
    if failed:
        print(f"Differences that exceed their tolerances: {', '.join(failed)}.")
    else:
        print("All differences are within their tolerances.")
    return 1 if failed else 0


def format_comparisons(comparisons: Sequence[Any]) -> str:
    """Return a text table with one line per compared layer."""
    from tabulate import tabulate

    header = ("", "shape", "largest", "difference", "relative", "tolerance", "")
    lines = [
        (
            row.name,
            " x ".join(map(str, row.shape)),
            f"{row.largest:.4g}",
            f"{row.difference:.2e}",
            f"{row.difference / row.largest if row.largest else row.difference:.1e}",
            f"{row.tolerance:.1e}",
            "" if row.passed else "<-- too large",
        )
        for row in comparisons
    ]
    align = ("left", "right", "right", "right", "right", "right", "left")
    return tabulate(lines, header, tablefmt="plain", disable_numparse=True, colalign=align)
