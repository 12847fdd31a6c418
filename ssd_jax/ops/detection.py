"""Turn the network's predictions into detections, as Caffe's DetectionOutput layer does.

Reference: src/caffe/layers/detection_output_layer.cpp of github.com/weiliu89/caffe, branch ssd;
the default values are those of section 3.7 of the paper, https://arxiv.org/abs/1512.02325.
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
    """Detections of one image, in order of descending score, padded with zeros to k rows.

    Equal scores are ordered by index of the default box, then by class. For a batch, every array has an additional
    first axis.
    """

    boxes: Float32[Array, "k 4"]
    """Boxes, xyxy, normalised, clipped to the image."""
    scores: Float32[Array, " k"]
    """Probability of the class of each detection."""
    labels: Int32[Array, " k"]
    """Classes from 1 to C; 0 for padding."""
    valid: Bool[Array, " k"]
    """True for detections, False for padding."""


def detect(
    offsets: Float[Array | np.ndarray, "n 4"],
    logits: Float[Array | np.ndarray, "n c"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    config: Detect = Detect(),
    boxes_per_map: Sequence[int] = (),
) -> Detections:
    """Return the detections of one image: decoded predictions after non-maximum suppression in each class.

    Softmax turns the logits into scores. For each class except background, the boxes that score above
    `config.score_threshold`, at most the best `config.top_k` of them, enter non-maximum suppression. With
    `config.top_k_per="map"`, the `config.top_k` best scores of each feature map enter it instead, whatever their
    classes. The best `config.max_detections` (k) detections of all classes are returned. A box or score that is not
    finite is never a detection.

    Everything is computed in float32, whatever the types of the inputs. For a batch, bind `variances` and `config` as
    constants and use `jax.vmap` with axes `(0, 0, None)` within `jax.jit`.

    Args:
        offsets: Predicted offsets relative to the default boxes, as `encode_boxes` defines them.
        logits: Predicted logits of c classes; class 0 is background.
        default_boxes: Default boxes, cxcywh, normalised.
        variances: Variances that the offsets are encoded with.
        config: Thresholds and limits. Static under `jax.jit`.
        boxes_per_map: Number of default boxes of each feature map, in the order of the feature maps
            (`DefaultBoxes.boxes_per_map`). It is only used with `config.top_k_per="map"`. Static under `jax.jit`.

    Returns:
        The detections, padded with zeros to exactly k rows.

    Raises:
        ValueError: If `boxes_per_map` is used and does not add up to n.
    """
    boxes, scores = compute_boxes_and_scores(offsets, logits, default_boxes, variances, config)
    return select_detections(boxes, scores, config, boxes_per_map)


def compute_boxes_and_scores(
    offsets: Float[Array | np.ndarray, "n 4"],
    logits: Float[Array | np.ndarray, "n c"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    config: Detect = Detect(),
) -> tuple[Float32[Array, "n 4"], Float32[Array, "n o"]]:
    """Return the box of each default box, and its score for each class except background: the first half of `detect`.

    The arguments are those of `detect`. The boxes are xyxy, normalised, and not clipped to the image.
    """
    offsets, logits = jnp.asarray(offsets, jnp.float32), jnp.asarray(logits, jnp.float32)
    default_boxes = jnp.asarray(default_boxes, jnp.float32)
    boxes = decode_boxes(offsets, default_boxes, variances, config.log_scale_bounds)
    # With the boxes on the last axis, a CPU computes the scores of many boxes at once.
    return boxes, jax.nn.softmax(logits.T, axis=0)[1:].T


def select_detections(
    boxes: Float32[Array | np.ndarray, "n 4"],
    scores: Float32[Array | np.ndarray, "n o"],
    config: Detect = Detect(),
    boxes_per_map: Sequence[int] = (),
) -> Detections:
    """Return the detections of one image, given all boxes and scores: the second half of `detect`.

    Args:
        boxes: Boxes, xyxy, normalised, as `compute_boxes_and_scores` returns them.
        scores: Scores of the classes, without background.
        config: Thresholds and limits. Static under `jax.jit`.
        boxes_per_map: Number of default boxes of each feature map, as for `detect`. Static under `jax.jit`.

    Returns:
        The detections, padded with zeros to exactly k rows.

    Raises:
        ValueError: If `boxes_per_map` is used and does not add up to n.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    usable = jnp.all(jnp.isfinite(boxes), axis=1)  # before the boxes are clipped, which hides infinite ones
    if config.clip_before_nms:
        boxes = jnp.clip(boxes, 0, 1)
    top_k: int | None = config.top_k
    if config.top_k_per == "map":
        scores = jnp.where(scores > config.score_threshold, scores, 0)  # top_k ranks NaN highest
        scores, top_k = _keep_best_per_map(scores, config.top_k, boxes_per_map), None
    if config.drop_empty:
        usable &= jnp.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    kept = multiclass_nms(
        boxes, scores, config.nms_iou_threshold, config.max_detections, config.score_threshold, top_k, usable
    )
    return Detections(
        jnp.where(kept.valid[:, None], jnp.clip(boxes[kept.boxes], 0, 1), 0),
        jnp.where(kept.valid, scores[kept.boxes, kept.classes], 0),
        jnp.where(kept.valid, kept.classes + 1, 0),
        kept.valid,
    )


def _keep_best_per_map(
    scores: Float32[Array, "n o"], top_k: int, boxes_per_map: Sequence[int]
) -> Float32[Array, "n o"]:
    """Return the scores, with all except the `top_k` best scores of each feature map (over all classes) set to 0."""
    if sum(boxes_per_map) != len(scores):
        raise ValueError(
            f"boxes_per_map {tuple(boxes_per_map)} does not add up to {len(scores)}, the number of default boxes"
        )
    kept = []
    for map_scores in jnp.split(scores, np.cumsum(boxes_per_map)[:-1]):
        best, pairs = lax.top_k(map_scores.ravel(), min(top_k, map_scores.size))
        kept.append(jnp.zeros(map_scores.size, map_scores.dtype).at[pairs].set(best).reshape(map_scores.shape))
    return jnp.concatenate(kept)
