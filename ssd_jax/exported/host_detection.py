"""Non-maximum suppression for programs without it, by the operations of this package."""

from collections.abc import Callable
from functools import cache

import jax
import msgspec
import numpy as np
from jax import Array
from jaxtyping import Float32

from ssd_jax.config import DefaultBoxes, Detect
from ssd_jax.exported.metadata import Metadata
from ssd_jax.exported.program import PaddedDetections
from ssd_jax.ops.detection import Detections, select_detections
from ssd_jax.runtime import compilation


def select_on_host(
    boxes: Float32[np.ndarray, "b n 4"], scores: Float32[np.ndarray, "b n c"], metadata: Metadata
) -> PaddedDetections:
    """Return the detections in a batch of images, given all boxes and scores.

    Args:
        boxes: Boxes, xyxy, normalised to the image, not clipped to it.
        scores: Scores of the classes, without background.
        metadata: Metadata of the file, whose config has the thresholds and limits.
    """
    detect = msgspec.convert(metadata.config["detect"], Detect)
    default_boxes = msgspec.convert(metadata.config["model"]["default_boxes"], DefaultBoxes)
    with compilation.compilation_cache(min_seconds=0.0):
        detections = _make_select_fn(detect, default_boxes.boxes_per_map)(boxes, scores)
    return PaddedDetections(*map(np.asarray, detections))


@cache
def _make_select_fn(detect: Detect, boxes_per_map: tuple[int, ...]) -> Callable[[np.ndarray, np.ndarray], Detections]:
    def select(boxes: Array, scores: Array) -> Detections:
        return select_detections(boxes, scores, detect, boxes_per_map)

    return jax.jit(jax.vmap(select), compiler_options=compilation.compiler_options())
