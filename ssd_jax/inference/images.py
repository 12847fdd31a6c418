"""Images that a detector is called with, and the canvases that they are placed on."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ssd_jax.data.pixels import array_to_rgb, to_rgb
from ssd_jax.inference.results import ImageLike


def choose_canvas_side(image_side: int, max_side: int) -> int:
    """Return the side in pixels of the square canvas that an image is placed on.

    The side is the smallest of 640, 1280, 2560, ... that is at least ``image_side``, limited to ``max_side``. There are
    only a few different sides, so that images of all sizes need few compiled programs.

    Args:
        image_side: Longer side of the image in pixels.
        max_side: Upper limit of the result. Larger images are reduced to it.
    """
    side = 640
    while side < image_side:
        side *= 2
    return min(side, max_side)


def to_array(image: np.ndarray | Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return the RGB pixels of an array or a Pillow image.

    Raises:
        TypeError: If it is neither.
        ValueError: If an array has another shape or type.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise make_type_error(image)
    return array_to_rgb(image)


def get_image_name(image: ImageLike) -> str:
    """Return the path of an image, or "image" if it is in memory."""
    return str(image) if isinstance(image, str | Path) else "image"


def make_type_error(image: object) -> TypeError:
    """Return an error about an argument that is no image."""
    return TypeError(f"expected a path, an array of uint8 pixels or a PIL image, got {type(image).__name__}")
