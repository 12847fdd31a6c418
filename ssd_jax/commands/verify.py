"""``ssd-jax verify``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from ssd_jax.data.image import read_image
from ssd_jax.errors import UserError
from ssd_jax.weights.formats.weight_file import read_weights
from ssd_jax.weights.importing import Imported, import_weights
from ssd_jax.weights.origins import Scales
from ssd_jax.weights.torch_reference import Reference, run_reference
from ssd_jax.weights.verification import Row, compare


@dataclass(frozen=True)
class VerifyOptions:
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Weights: .pth, .safetensors, .caffemodel or .h5."""
    image: Path | None = None
    """Default: a generated picture."""
    scales: Scales | None = None
    """As of import-weights."""
    channels: Literal["rgb", "bgr"] | None = None
    """As of import-weights."""


def verify(argv: Sequence[str]) -> int:
    """verify FILE: our forward pass beside torch's, layer by layer, and the detections of both."""
    options = tyro.cli(VerifyOptions, args=list(argv), prog="verify", description=verify.__doc__)
    picture = generated_picture() if options.image is None else read_image(options.image)
    bgr = None if options.channels is None else options.channels == "bgr"
    imported = import_weights(options.file, class_names=None, scales=options.scales, bgr=bgr)
    reference = reference_of(options.file, imported, picture, options.scales, bgr)
    rows = compare(imported, reference, picture)
    print(f"{options.file}: {imported.layout.title}, on a picture of {picture.shape[1]} x {picture.shape[0]}")
    print(table(rows))
    failed = [row.name for row in rows if not row.holds]
    print(f"Not within what is allowed: {', '.join(failed)}." if failed else "All within what is allowed.")
    return 1 if failed else 0


def generated_picture() -> UInt8[np.ndarray, "375 500 3"]:
    """Smooth colours, the same every time."""
    noise = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC))


def reference_of(
    file: Path, imported: Imported, picture: UInt8[np.ndarray, "h w 3"], scales: Scales | None, bgr: bool | None
) -> Reference:
    """Raises UserError where torch is not installed."""
    weights, layout, model = read_weights(file), imported.layout, imported.config.model
    # torchvision's boxes are COCO's whatever the classes.
    coco = scales == "coco" if scales else layout.project == "torchvision" or len(model.class_names) in (80, 90)
    sources = layout.network.sources if layout.network and not scales else ()
    priors = [weights.priors[name] for source in sources if (name := f"{source}_mbox_priorbox") in weights.priors]
    if len(priors) < len(sources):
        priors = []
    try:
        return run_reference(layout.project, weights.tensors, picture, model.image_size, coco, priors, bgr)
    except ImportError as error:
        raise UserError(f"needs torch and torchvision ({error}); in the checkout: pip install -e '.[parity]'") from None


def table(rows: Sequence[Row]) -> str:
    """A line for each comparison."""
    width = max(len(row.name) for row in rows)
    head = f"{'':{width}}  {'shape':>16}  {'largest':>10}  {'difference':>10}  {'relative':>8}  {'allowed':>8}"
    return "\n".join([head, *(_line(row, width) for row in rows)])


def _line(row: Row, width: int) -> str:
    relative = row.difference / row.largest if row.largest else row.difference
    return (
        f"{row.name:{width}}  {' x '.join(map(str, row.shape)):>16}  {row.largest:10.4g}  {row.difference:10.2e}  "
        f"{relative:8.1e}  {row.allowed:8.1e}{'' if row.holds else '  <-- too large'}"
    )
