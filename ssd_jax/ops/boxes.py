"""Box arithmetic: the two ways to write a box, overlap, and the offsets that the network predicts.

``xyxy`` is left, top, right, bottom; ``cxcywh`` is centre, width, height; both normalised, so that
the image spans [0, 1] along either axis. All functions are pure, jit-able and differentiable.

The offsets t of a box g relative to a default box d, with variances v (paper equation 2, and
Caffe's EncodeBBox with CENTER_SIZE, src/caffe/util/bbox_util.cpp):

    t_x = (g_cx - d_cx) / d_w / v_x        t_w = ln(g_w / d_w) / v_w
    t_y = (g_cy - d_cy) / d_h / v_y        t_h = ln(g_h / d_h) / v_h

The variances are not in the paper. They scale the offsets to about unit variance; torchvision's
weights (10, 10, 5, 5) are their inverses.

Reference: Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg, "SSD: Single Shot MultiBox Detector",
https://arxiv.org/abs/1512.02325, 2016.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Of the image's side: far below a pixel, so only a box without width or height is touched.
_MIN_SIDE = 1e-6


def cxcywh_to_xyxy(boxes_cxcywh: Float[Array | np.ndarray, "n 4"]) -> Float[Array, "n 4"]:
    """Corners of boxes given by centre and size."""
    center, size = jnp.split(jnp.asarray(boxes_cxcywh), 2, axis=-1)
    return jnp.concatenate([center - size / 2, center + size / 2], axis=-1)


def xyxy_to_cxcywh(boxes: Float[Array | np.ndarray, "n 4"]) -> Float[Array, "n 4"]:
    """Centre and size of boxes given by their corners."""
    low, high = jnp.split(jnp.asarray(boxes), 2, axis=-1)
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def pairwise_iou(a: Float[Array | np.ndarray, "m 4"], b: Float[Array | np.ndarray, "n 4"]) -> Float[Array, "m n"]:
    """Intersection over union (Jaccard overlap) of every box of a with every box of b, both xyxy.

    A box without area overlaps nothing, itself included: 0, not NaN, with a finite gradient.
    Edges are without width: no "+1" of pixel-based code (Caffe's JaccardOverlap, normalized=true).
    """
    # One (m, n) array per coordinate: an axis of 4 at the end would defeat vectorisation.
    ax1, ay1, ax2, ay2 = (column[:, None] for column in jnp.asarray(a).T)
    bx1, by1, bx2, by2 = (column[None, :] for column in jnp.asarray(b).T)
    width = jnp.maximum(jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), 0)
    height = jnp.maximum(jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1), 0)
    intersection = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    # The divisor, not the quotient, is replaced: a NaN in the branch not taken would reach the gradient.
    return jnp.where(union > 0, intersection, 0) / jnp.where(union > 0, union, 1)


def encode_boxes(
    gt: Float[Array | np.ndarray, "n 4"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
) -> Float[Array, "n 4"]:
    """Offsets that turn each default box (cxcywh) into the ground-truth box (xyxy) of the same row.

    Widths and heights below a millionth of the image, of either box, count as that, so the offsets
    of a box without area are finite: large and negative. Caffe stops the program at such a box.
    """
    gt_center, gt_size = jnp.split(xyxy_to_cxcywh(gt), 2, axis=-1)
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
    """Boxes (xyxy) that the offsets make of the default boxes (cxcywh): the inverse of encode_boxes.

    log_scale_bounds: least and greatest ln(width / default box's width), and of the heights; None is
    no bound. Caffe has none, and very large offsets make a box of infinite size.

    Not clipped to the image.
    """
    offsets = jnp.asarray(offsets)
    shift, log_scale = jnp.split(offsets * jnp.asarray(variances, offsets.dtype), 2, axis=-1)
    log_scale = jnp.clip(log_scale, *log_scale_bounds)
    center, size = jnp.split(jnp.asarray(default_boxes), 2, axis=-1)
    return cxcywh_to_xyxy(jnp.concatenate([center + shift * size, size * jnp.exp(log_scale)], axis=-1))
