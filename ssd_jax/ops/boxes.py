"""Box arithmetic: conversions between box formats, overlap, and the encoding of boxes as offsets.

Boxes come in two formats. `xyxy` is left, top, right, bottom; `cxcywh` is centre x, centre y, width, height.
Coordinates are normalised: the image spans [0, 1] along both axes. All functions are pure and differentiable, and work
under `jax.jit`.

Reference: Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg, "SSD: Single Shot MultiBox Detector",
https://arxiv.org/abs/1512.02325, 2016.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Smallest side that is encoded, as a fraction of the image's side. It is far below a pixel, so that only boxes without
# width or height are changed.
_MIN_SIDE = 1e-6


def cxcywh_to_xyxy(boxes_cxcywh: Float[Array | np.ndarray, "n 4"]) -> Float[Array, "n 4"]:
    """Convert boxes from cxcywh (centre and size) to xyxy (corners)."""
    center, size = jnp.split(jnp.asarray(boxes_cxcywh), 2, axis=-1)
    return jnp.concatenate([center - size / 2, center + size / 2], axis=-1)


def xyxy_to_cxcywh(boxes: Float[Array | np.ndarray, "n 4"]) -> Float[Array, "n 4"]:
    """Convert boxes from xyxy (corners) to cxcywh (centre and size)."""
    low, high = jnp.split(jnp.asarray(boxes), 2, axis=-1)
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def pairwise_iou(a: Float[Array | np.ndarray, "m 4"], b: Float[Array | np.ndarray, "n 4"]) -> Float[Array, "m n"]:
    """Return the intersection over union (IoU, Jaccard overlap) of each box of `a` with each box of `b`.

    Coordinates are continuous: unlike code for whole pixels, this function does not add 1 to widths and heights
    (Caffe's JaccardOverlap with normalized=true).

    Args:
        a: m boxes, xyxy, in any unit.
        b: n boxes, xyxy, in the unit of `a`.

    Returns:
        The IoU of box i of `a` with box j of `b` at [i, j], (m, n). A box without area has IoU 0 with every box,
        itself included, and a finite gradient.
    """
    # One (m, n) array per coordinate, because a last axis of length 4 would defeat vectorisation.
    ax1, ay1, ax2, ay2 = (column[:, None] for column in jnp.asarray(a).T)
    bx1, by1, bx2, by2 = (column[None, :] for column in jnp.asarray(b).T)
    width = jnp.maximum(jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), 0)
    height = jnp.maximum(jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1), 0)
    intersection = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    # The divisor is replaced and not the quotient, because a NaN in the unused branch would reach the gradient.
    return jnp.where(union > 0, intersection, 0) / jnp.where(union > 0, union, 1)


def encode_boxes(
    gt_boxes: Float[Array | np.ndarray, "n 4"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
) -> Float[Array, "n 4"]:
    r"""Encode ground-truth boxes as offsets relative to default boxes, row by row.

    The offsets $t$ of a box $g$ relative to a default box $d$ with variances $v$ are (paper, equation 2; Caffe's
    EncodeBBox with CENTER_SIZE, src/caffe/util/bbox_util.cpp):

    $$t_x = \frac{g_{cx} - d_{cx}}{d_w v_x} \qquad t_y = \frac{g_{cy} - d_{cy}}{d_h v_y}$$

    $$t_w = \frac{1}{v_w} \ln\frac{g_w}{d_w} \qquad t_h = \frac{1}{v_h} \ln\frac{g_h}{d_h}$$

    The paper does not mention the variances. They scale the offsets to about unit variance; torchvision's weights
    (10, 10, 5, 5) are their inverses.

    Args:
        gt_boxes: Ground-truth boxes, xyxy, normalised.
        default_boxes: Default box of each ground-truth box, cxcywh, normalised.
        variances: Divisors of the offsets: x, y, log width, log height.

    Returns:
        Offsets (n, 4) in the order x, y, log width, log height. A side below 1e-6 counts as 1e-6 in both boxes, so that
        the log offsets of a box without area are large and negative, but finite. Caffe aborts at such a box.
    """
    gt_center, gt_size = jnp.split(xyxy_to_cxcywh(gt_boxes), 2, axis=-1)
    center, size = jnp.split(jnp.asarray(default_boxes), 2, axis=-1)
    gt_size, size = jnp.maximum(gt_size, _MIN_SIDE), jnp.maximum(size, _MIN_SIDE)
    offsets = jnp.concatenate([(gt_center - center) / size, jnp.log(gt_size / size)], axis=-1)
    return offsets / jnp.asarray(variances, offsets.dtype)


def decode_boxes(
    offsets: Float[Array | np.ndarray, "n 4"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    log_scale_bounds: tuple[float | None, float | None] = (None, None),
) -> Float[Array, "n 4"]:
    """Decode offsets relative to default boxes into boxes: the inverse of `encode_boxes`.

    Args:
        offsets: Offsets as `encode_boxes` defines them.
        default_boxes: Default box of each row, cxcywh, normalised.
        variances: Variances that the offsets were encoded with.
        log_scale_bounds: Lower and upper bounds of ln(width / width of the default box) and of
            ln(height / height of the default box). None means no bound, as in Caffe; very large offsets then give boxes
            of infinite size.

    Returns:
        Boxes (n, 4), xyxy, normalised, not clipped to the image.
    """
    offsets = jnp.asarray(offsets)
    shift, log_scale = jnp.split(offsets * jnp.asarray(variances, offsets.dtype), 2, axis=-1)
    log_scale = jnp.clip(log_scale, *log_scale_bounds)
    center, size = jnp.split(jnp.asarray(default_boxes), 2, axis=-1)
    return cxcywh_to_xyxy(jnp.concatenate([center + shift * size, size * jnp.exp(log_scale)], axis=-1))
