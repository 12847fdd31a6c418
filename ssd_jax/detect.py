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

from ssd_jax.boxes import decode_boxes
from ssd_jax.config import Detect
from ssd_jax.nms import nms


class Detections(NamedTuple):
    """Of one image, by descending score; ties by class, then by default box. Padded to k with zeros."""

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
    variances: Sequence[float],
    config: Detect,
    boxes_per_map: Sequence[int] = (),
) -> Detections:
    """Detections of one image: softmax, decoding, then non-maximum suppression of each class.

    Of every class but background (0), the boxes that score above config.score_threshold, at most
    the config.top_k best, enter NMS; the config.max_detections (k) best of all classes are kept.
    With config.candidates "map" the config.top_k best of each feature map enter, whatever their classes.

    Args:
      offsets: predicted, relative to default_boxes.
      logits: c classes, background first.
      default_boxes: cxcywh, normalised.
      variances: as the offsets were encoded with.
      config: static under jit.
      boxes_per_map: how many of default_boxes belong to each feature map, in their order
        (config.DefaultBoxes.boxes_per_map); looked at with config.candidates "map" alone. Static under jit.

    Computes in float32 whatever the inputs' type. For a batch: ``jax.vmap(detect, (0, 0, None, None, None))``
    within jit, variances and config bound as constants.

    Raises ValueError where boxes_per_map is needed and does not add up to n.
    """
    offsets, logits = jnp.asarray(offsets, jnp.float32), jnp.asarray(logits, jnp.float32)
    default_boxes = jnp.asarray(default_boxes, jnp.float32)
    boxes = decode_boxes(offsets, default_boxes, variances, config.log_scale_bounds)
    if config.clip_before_nms:
        boxes = jnp.clip(boxes, 0, 1)
    scores = jax.nn.softmax(logits)[:, 1:].T
    # Zeros, nms's padding, before top_k: nearly all of a trained net's scores, several times faster so.
    scores = jnp.where(scores > config.score_threshold, scores, 0)
    if config.candidates == "map":
        scores, indices, labels = _best_of_maps(scores, config.top_k, boxes_per_map)
    else:
        scores, indices, labels = _best_of_classes(scores, config.top_k)
    if config.drop_empty:
        scores = jnp.where(jnp.all(boxes[:, 2:] > boxes[:, :2], axis=1)[indices], scores, 0)
    kept, valid = nms(boxes[indices], scores, config.nms_iou_threshold, config.max_detections, labels)
    return Detections(
        jnp.where(valid[:, None], jnp.clip(boxes[indices[kept]], 0, 1), 0),
        jnp.where(valid, scores[kept], 0),
        jnp.where(valid, labels[kept], 0),
        valid,
    )


class _Candidates(NamedTuple):
    """By class, then by default box where scores tie: nms keeps that order."""

    scores: Float32[Array, " m"]
    indices: Int32[Array, " m"]
    """Of the default box."""
    labels: Int32[Array, " m"]


def _best_of_classes(scores: Float32[Array, "o n"], top_k: int) -> _Candidates:
    """The top_k best boxes of each of o classes without background."""
    classes, n = scores.shape
    if top_k < n:
        scores, indices = lax.top_k(scores, top_k)
    else:  # all of them: nms finds the best by itself
        indices = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), scores.shape)
    labels = jnp.broadcast_to(jnp.arange(1, classes + 1, dtype=jnp.int32)[:, None], scores.shape)
    return _Candidates(scores.ravel(), indices.ravel(), labels.ravel())


def _best_of_maps(scores: Float32[Array, "o n"], top_k: int, boxes_per_map: Sequence[int]) -> _Candidates:
    """The top_k best pairs of class and box of each feature map."""
    classes, n = scores.shape
    if sum(boxes_per_map) != n:
        raise ValueError(f"boxes_per_map {tuple(boxes_per_map)} must add up to the {n} default boxes")
    best, pairs = [], []  # a pair is written as class * n + box
    for stop, count in zip(np.cumsum(boxes_per_map), boxes_per_map, strict=True):
        of_map, order = lax.top_k(scores[:, stop - count : stop].ravel(), min(top_k, classes * count))
        best.append(of_map)
        pairs.append(order // count * n + order % count + (stop - count))
    pair, score = lax.sort((jnp.concatenate(pairs), jnp.concatenate(best)), num_keys=1)
    return _Candidates(score, pair % n, pair // n + 1)
