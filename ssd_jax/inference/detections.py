"""Detections of one image, on the host."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32


class ImageDetections(NamedTuple):
    """What was detected in one image; only real detections, no padding."""

    boxes_px: Float32[np.ndarray, "k 4"]
    """xyxy, pixels of the original image."""
    scores: Float32[np.ndarray, " k"]
    labels: Int32[np.ndarray, " k"]
    """1..C."""


NO_DETECTIONS = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
