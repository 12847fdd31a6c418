"""Match ground-truth boxes to default boxes and build the targets of training.

Caffe's MatchBBox (src/caffe/util/bbox_util.cpp) finds the bipartite part of the matching by a loop over objects. Here
it is found by deferred acceptance (Gale and Shapley): every object without a box proposes to the best box that would
take it, and a box keeps the proposal of highest IoU. Both sides rank pairs by the same order, so the stable matching
is unique whatever the order of the proposals, and equals the greedy one. All objects propose at once in the first
round, and no further round is needed unless two objects want the same box.

Many ports give each object its best box and let a later object overwrite an earlier one; the earlier one may then end
up without a box.

References:
    Liu et al., "SSD: Single Shot MultiBox Detector", https://arxiv.org/abs/1512.02325, 2016.
    Gale, Shapley, "College Admissions and the Stability of Marriage", Amer. Math. Monthly 69, 1962.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ssd_jax.config import Match
from ssd_jax.ops.boxes import cxcywh_to_xyxy, encode_boxes, pairwise_iou

# Caffe ignores pairs up to this IoU.
_MIN_IOU = 1e-6
# Number of rejected objects that propose again in one round. The result does not depend on it. If all of them did, a
# round would cost g x n comparisons, and crowded images need many rounds.
_PROPOSALS_PER_ROUND = 8


class Targets(NamedTuple):
    """Training targets of the default boxes of one image. A batch has an axis b in front."""

    offsets: Float[Array, "n 4"]
    """Offsets of the matched object as `encode_boxes` defines them; 0 where the label is 0."""
    labels: Int[Array, " n"]
    """Class of the matched object, from 1 to C; 0 for background."""


def match(
    gt_boxes: Float[Array | np.ndarray, "g 4"],
    gt_labels: Int[Array | np.ndarray, " g"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    config: Match = Match(),
) -> Targets:
    """Match the objects of one image to its default boxes and encode the targets.

    The matching is that of `assign_objects`. For a batch use `jax.vmap` with axes `(0, 0, None)`.

    Args:
        gt_boxes: Ground-truth boxes, xyxy, normalised. Boxes without area match nothing.
        gt_labels: Classes from 1 to C. Rows with label 0, in any place, are padding and match nothing.
        default_boxes: Default boxes, cxcywh, normalised.
        variances: Divisors of the encoded offsets, see `encode_boxes`.
        config: The IoU threshold.

    Returns:
        The encoded offsets and the label of each default box.
    """
    gt_boxes, gt_labels = jnp.asarray(gt_boxes), jnp.asarray(gt_labels)
    iou = pairwise_iou(gt_boxes, cxcywh_to_xyxy(default_boxes))
    objects = assign_objects(jnp.where(gt_labels[:, None] > 0, iou, 0), config.iou_threshold)
    matched = objects >= 0
    # Row g stands for "no object", so that g = 0 needs no special case.
    gt_boxes = jnp.pad(gt_boxes, ((0, 1), (0, 0)))
    gt_labels = jnp.pad(gt_labels, (0, 1))
    offsets = encode_boxes(gt_boxes[objects], default_boxes, variances)
    return Targets(jnp.where(matched[:, None], offsets, 0), gt_labels[objects])


def assign_objects(iou: Float[Array | np.ndarray, "g n"], iou_threshold: float = 0.5) -> Int[Array, " n"]:
    """Assign objects to default boxes by their IoU, in two steps.

    1. Bipartite: the pair (object, default box) of highest IoU among those still free is matched, again and again, so
       that every object that overlaps anything gets exactly one box, whatever the threshold.
    2. Per prediction: each remaining default box takes the object that it overlaps most, if their IoU is at least
       `iou_threshold`.

    Equal IoUs go to the lower default box, then to the lower object. Pairs with an IoU of 1e-6 or less never match.
    (Paper, section 2.2 "Matching strategy"; Caffe's MatchBBox.)

    Args:
        iou: IoU of g objects (rows) with n default boxes (columns).
        iou_threshold: Lowest IoU of step 2. It is inclusive as in Caffe; the paper says "higher than".

    Returns:
        The object of each default box, -1 for none.
    """
    iou = jnp.asarray(iou)
    best_iou, best_object = _max_and_first_index(iou, axis=0)
    objects = jnp.where((best_iou >= iou_threshold) & (best_iou > _MIN_IOU), best_object, -1)
    return objects.at[_match_bipartite(iou)].set(jnp.arange(len(iou), dtype=jnp.int32), mode="drop")


def _match_bipartite(iou: Float[Array, "g n"]) -> Int[Array, " g"]:
    """Return the default box of each object, no box twice; n for an object without one."""
    num_objects, num_boxes = iou.shape
    order = jnp.arange(num_objects, dtype=jnp.int32)

    def propose(iou: Array) -> tuple[Array, Array]:
        best_iou, best_box = _max_and_first_index(iou, axis=1)
        return best_iou, jnp.where(best_iou > _MIN_IOU, best_box, num_boxes)

    def next_round(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        values, boxes, rejected = state
        kept = jnp.where(rejected, num_boxes, boxes)
        kept_iou = jnp.zeros(num_boxes, iou.dtype).at[kept].set(values, mode="drop")
        kept_object = jnp.full(num_boxes, num_objects, jnp.int32).at[kept].set(order, mode="drop")
        (proposers,) = jnp.nonzero(rejected, size=min(_PROPOSALS_PER_ROUND, num_objects), fill_value=num_objects)
        rows = iou.at[proposers].get(mode="clip")
        # The proposal that a box keeps only improves, so a box that would reject an object now can be skipped for good.
        accepts = jnp.where(proposers[:, None] < kept_object, rows >= kept_iou, rows > kept_iou)
        new_values, new_boxes = propose(jnp.where(accepts, rows, 0))
        values = values.at[proposers].set(new_values, mode="drop")
        boxes = boxes.at[proposers].set(new_boxes, mode="drop")
        return values, boxes, _is_outbid(values, boxes) & (boxes < num_boxes)

    values, boxes = propose(iou)
    state = values, boxes, _is_outbid(values, boxes) & (boxes < num_boxes)
    return jax.lax.while_loop(lambda state: state[2].any(), next_round, state)[1]


def _is_outbid(values: Float[Array, " g"], boxes: Int[Array, " g"]) -> Bool[Array, " g"]:
    """Return whether another object proposes to the same box with a higher IoU, or an equal one and a lower index."""
    order = jnp.arange(len(boxes))
    better = jnp.where(order < order[:, None], values >= values[:, None], values > values[:, None])
    return (better & (boxes == boxes[:, None])).any(axis=1)


def _max_and_first_index(values: Float[Array, "g n"], axis: int) -> tuple[Float[Array, " _"], Int[Array, " _"]]:
    """Return the maximum of non-negative values along an axis and its lowest index; 0 and 0 along an empty axis.

    XLA does not vectorise argmax or an integer minimum on a CPU, so they take several times as long as these two maxima
    of floats. float32 holds an index below 2**24 exactly.
    """
    best = values.max(axis, initial=0)
    index = jax.lax.broadcasted_iota(jnp.float32, values.shape, axis)
    first = -jnp.where(values == jnp.expand_dims(best, axis), -index, -jnp.inf).max(axis, initial=-(2.0**24))
    return best, first.astype(jnp.int32)
