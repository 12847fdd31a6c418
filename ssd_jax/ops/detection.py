"""From the network's output to detections: Caffe's DetectionOutput layer.

Reference: src/caffe/layers/detection_output_layer.cpp of github.com/weiliu89/caffe, branch ssd;
numbers from section 3.7 of the paper, https://arxiv.org/abs/1512.02325.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32

from ssd_jax.config import Detect
from ssd_jax.ops.boxes import decode_boxes
from ssd_jax.ops.suppression import multiclass_nms


class Detections(NamedTuple):
    """Of one image, by descending score; ties by default box, then by class. Padded to k with zeros."""

    boxes: Float32[Array, "k 4"]
    """xyxy, normalised, clipped to the image."""
    scores: Float32[Array, " k"]
    labels: Int32[Array, " k"]
    """1..C; 0 is padding."""
    valid: Bool[Array, " k"]


def detect(
    offsets: Float[Array | np.ndarray, "n 4"],
    logits: Float[Array | np.ndarray, "n c"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    config: Detect = Detect(),
    boxes_per_map: Sequence[int] = (),
) -> Detections:
    """Detections of one image: softmax, decoding, then non-maximum suppression of each class.

    Of every class but background (0), the boxes that score above config.score_threshold, at most
    the config.top_k best, enter NMS; the config.max_detections (k) best of all classes are kept.
    With config.top_k_per "map" the config.top_k best of each feature map enter, whatever their classes.

    Args:
      offsets: predicted, relative to default_boxes.
      logits: c classes, background first.
      default_boxes: cxcywh, normalised.
      variances: as the offsets were encoded with.
      config: static under jit.
      boxes_per_map: how many of default_boxes belong to each feature map, in their order
        (config.DefaultBoxes.boxes_per_map); looked at with config.top_k_per "map" alone. Static under jit.

    Computes in float32 whatever the inputs' type. For a batch: ``jax.vmap(detect, (0, 0, None, None, None))``
    within jit, variances and config bound as constants.

    Raises ValueError where boxes_per_map is needed and does not add up to n.
    """
    offsets, logits = jnp.asarray(offsets, jnp.float32), jnp.asarray(logits, jnp.float32)
    default_boxes = jnp.asarray(default_boxes, jnp.float32)
    boxes = decode_boxes(offsets, default_boxes, variances, config.log_scale_bounds)
    if config.clip_before_nms:
        boxes = jnp.clip(boxes, 0, 1)
    scores = jax.nn.softmax(logits)[:, 1:]
    top_k: int | None = config.top_k
    if config.top_k_per == "map":
        scores = jnp.where(scores > config.score_threshold, scores, 0)  # NaN would be among the best
        scores, top_k = _best_of_maps(scores, config.top_k, boxes_per_map), None
    not_empty = jnp.all(boxes[:, 2:] > boxes[:, :2], axis=1) if config.drop_empty else None
    kept = multiclass_nms(
        boxes, scores, config.nms_iou_threshold, config.max_detections, config.score_threshold, top_k, not_empty
    )
    return Detections(
        jnp.where(kept.valid[:, None], jnp.clip(boxes[kept.boxes], 0, 1), 0),
        jnp.where(kept.valid, scores[kept.boxes, kept.classes], 0),
        jnp.where(kept.valid, kept.classes + 1, 0),
        kept.valid,
    )


def _best_of_maps(scores: Float32[Array, "n o"], top_k: int, boxes_per_map: Sequence[int]) -> Float32[Array, "n o"]:
    """Of each feature map the top_k best scores, whatever their boxes and classes; 0 for the others."""
    if sum(boxes_per_map) != len(scores):
        raise ValueError(f"boxes_per_map {tuple(boxes_per_map)} must add up to the {len(scores)} default boxes")
    chosen = []
    for of_map in jnp.split(scores, np.cumsum(boxes_per_map)[:-1]):
        best, pairs = lax.top_k(of_map.ravel(), min(top_k, of_map.size))
        chosen.append(jnp.zeros(of_map.size, of_map.dtype).at[pairs].set(best).reshape(of_map.shape))
    return jnp.concatenate(chosen)
