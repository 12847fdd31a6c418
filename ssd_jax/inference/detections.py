"""Detections of one image, as numpy arrays on the host."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

DetectFn = Callable[[UInt8[np.ndarray, "b h w 3"], Int32[np.ndarray, " b"], Int32[np.ndarray, " b"]], Sequence[Any]]
"""A function ``detect(canvas, height, width)`` that detects objects in a batch of images, as of
`ssd_jax.inference.program.make_predict`. It returns boxes, scores, labels and a mask, as arrays of numpy or JAX."""


class ImageDetections(NamedTuple):
    """Detections of one image, without padding."""

    boxes_px: Float32[np.ndarray, "k 4"]
    """Boxes as xyxy in pixels of the original image."""
    scores: Float32[np.ndarray, " k"]
    """Scores in [0, 1]."""
    labels: Int32[np.ndarray, " k"]
    """Labels of the classes, 1 to C."""


NO_DETECTIONS = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
"""Value for an image without detections: three empty arrays."""


def to_image_detections(detections: Sequence[Any], slot: int, width: int, height: int) -> ImageDetections:
    """Return the detections of one image of a batch in pixels, without padding.

    Args:
        detections: ``Detections`` of a `PredictFn`, already on the host. This module does not import JAX, nor their
            type.
        slot: Position of the image in the batch.
        width: Width of the original image in pixels.
        height: Height of the original image in pixels.
    """
    boxes, scores, labels, valid = (np.asarray(field[slot]) for field in detections)
    to_pixels = np.array([width, height, width, height], np.float32)
    return ImageDetections(boxes[valid] * to_pixels, scores[valid], labels[valid])
