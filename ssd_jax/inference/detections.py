"""Detections of one image, as numpy arrays on the host."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32


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
