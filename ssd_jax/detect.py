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
) -> Detections:
    """Detections of one image: softmax, decoding, then non-maximum suppression of each class.

    Of every class but background (0), the boxes that score above config.score_threshold, at most
    the config.top_k best, enter NMS; the config.max_detections (k) best of all classes are kept.

    Args:
      offsets: predicted, relative to default_boxes.
      logits: c classes, background first.
      default_boxes: cxcywh, normalised.
      variances: as the offsets were encoded with.
      config: static under jit.

    Computes in float32 whatever the inputs' type. For a batch: ``jax.vmap(detect, (0, 0, None, None, None))``
    within jit, variances and config bound as constants.
    """
    offsets, logits = jnp.asarray(offsets, jnp.float32), jnp.asarray(logits, jnp.float32)
    default_boxes = jnp.asarray(default_boxes, jnp.float32)
    boxes = decode_boxes(offsets, default_boxes, variances)  # clipped only at the end, as in Caffe
    scores = jax.nn.softmax(logits)[:, 1:].T
    # Zeros, nms's padding, before top_k: nearly all of a trained net's scores, several times faster so.
    scores = jnp.where(scores > config.score_threshold, scores, 0)
    scores, indices = lax.top_k(scores, min(config.top_k, scores.shape[1]))
    labels = jnp.broadcast_to(jnp.arange(1, len(scores) + 1, dtype=jnp.int32)[:, None], scores.shape)
    scores, indices, labels = scores.ravel(), indices.ravel(), labels.ravel()  # by class: so ties go by class
    kept, valid = nms(boxes[indices], scores, config.nms_iou_threshold, config.max_detections, labels)
    return Detections(
        jnp.where(valid[:, None], jnp.clip(boxes[indices[kept]], 0, 1), 0),
        jnp.where(valid, scores[kept], 0),
        jnp.where(valid, labels[kept], 0),
        valid,
    )
