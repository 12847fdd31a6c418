"""Match ground-truth boxes to default boxes and build the targets of training.

Caffe's MatchBBox (src/caffe/util/bbox_util.cpp) finds the bipartite part of the matching greedily, by a loop over
objects. Here, it is found by deferred acceptance (Gale and Shapley): every object without a box proposes to the best
box that would accept it, and a box keeps the proposal with the highest IoU. Objects and boxes rank pairs in the same
order, so there is only one stable matching, whatever the order of the proposals, and it equals the greedy matching. All
objects propose at once in the first round, and no further round is needed unless two objects propose to the same box.

In many ports, each object takes its best box, and a later object overwrites an earlier object, which may then end up
without a box.

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

# Pairs of an object and a default box with this IoU or a lower one never match, as in Caffe.
_MIN_IOU = 1e-6
# Maximum number of rejected objects that propose again in one round. The result does not depend on it. If all rejected
# objects proposed in every round, each round would cost g x n comparisons, and crowded images need many rounds.
_PROPOSALS_PER_ROUND = 8


class Targets(NamedTuple):
    """Training targets of the default boxes of one image. For a batch, each array has an additional first axis."""

    offsets: Float[Array, "n 4"]
    """Offsets of the matched object relative to the default box, as in `encode_boxes`; 0 where the label is 0."""
    labels: Int[Array, " n"]
    """Class of the matched object, from 1 to C; 0 for background."""


def match(
    gt_boxes: Float[Array | np.ndarray, "g 4"],
    gt_labels: Int[Array | np.ndarray, " g"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    config: Match = Match(),
) -> Targets:
    """Match the objects of one image to the default boxes and return the encoded targets.

    `assign_objects` describes the matching. For a batch, use `jax.vmap` with axes `(0, 0, None)`.

    Args:
        gt_boxes: Ground-truth boxes, xyxy, normalised. Boxes without area match nothing.
        gt_labels: Classes from 1 to C. Rows with label 0 are padding and match nothing, wherever they are.
        default_boxes: Default boxes, cxcywh, normalised.
        variances: Divisors of the encoded offsets, see `encode_boxes`.
        config: IoU threshold of the second step of the matching. Static under `jax.jit`.

    Returns:
        The encoded offsets and the label of each default box.
    """
    gt_boxes, gt_labels = jnp.asarray(gt_boxes), jnp.asarray(gt_labels)
    iou = pairwise_iou(gt_boxes, cxcywh_to_xyxy(default_boxes))
    objects = assign_objects(jnp.where(gt_labels[:, None] > 0, iou, 0), config.iou_threshold)
    matched = objects >= 0
    # An additional last row stands for "no object" (index -1), so that g = 0 needs no special case.
    gt_boxes = jnp.pad(gt_boxes, ((0, 1), (0, 0)))
    gt_labels = jnp.pad(gt_labels, (0, 1))
    offsets = encode_boxes(gt_boxes[objects], default_boxes, variances)
    return Targets(jnp.where(matched[:, None], offsets, 0), gt_labels[objects])


def assign_objects(iou: Float[Array | np.ndarray, "g n"], iou_threshold: float = 0.5) -> Int[Array, " n"]:
    """Return the index of the object that each default box is matched to, given the IoU of each pair.

    The matching has two steps (paper, section 2.2 "Matching strategy"; Caffe's MatchBBox):

    1. Bipartite: among the objects and default boxes that are not matched yet, the pair with the highest IoU is
       matched. This is repeated until no unmatched object overlaps an unmatched box. So an object is matched even if
       all its IoUs are below the threshold.
    2. Per prediction: each remaining default box takes the object that it overlaps most, if their IoU is at least
       `iou_threshold`.

    Among pairs of equal IoU, those with the default box of lower index come first, then those with the object of lower
    index. Pairs with an IoU of 1e-6 or less never match.

    Args:
        iou: IoU of g objects (rows) with n default boxes (columns).
        iou_threshold: Minimum IoU in step 2. A pair with exactly this IoU matches, as in Caffe; the paper says "higher
            than".

    Returns:
        The index of the object of each default box; -1 for a default box without an object.
    """
    iou = jnp.asarray(iou)
    best_iou, best_object = _find_max_and_first_index(iou, axis=0)
    objects = jnp.where((best_iou >= iou_threshold) & (best_iou > _MIN_IOU), best_object, -1)
    return objects.at[_match_bipartite(iou)].set(jnp.arange(len(iou), dtype=jnp.int32), mode="drop")


def _match_bipartite(iou: Float[Array, "g n"]) -> Int[Array, " g"]:
    """Return the index of the default box that each object is matched to, or n for an object without a box.

    A box is matched to at most one object.
    """
    num_objects, num_boxes = iou.shape
    order = jnp.arange(num_objects, dtype=jnp.int32)

    def propose(iou: Array) -> tuple[Array, Array]:
        best_iou, best_box = _find_max_and_first_index(iou, axis=1)
        return best_iou, jnp.where(best_iou > _MIN_IOU, best_box, num_boxes)

    def run_round(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        values, boxes, rejected = state
        kept = jnp.where(rejected, num_boxes, boxes)
        kept_iou = jnp.zeros(num_boxes, iou.dtype).at[kept].set(values, mode="drop")
        kept_object = jnp.full(num_boxes, num_objects, jnp.int32).at[kept].set(order, mode="drop")
        (proposers,) = jnp.nonzero(rejected, size=min(_PROPOSALS_PER_ROUND, num_objects), fill_value=num_objects)
        rows = iou.at[proposers].get(mode="clip")
        # A box replaces its proposal only by a better one, so a box that rejects an object now also rejects it later.
        accepts = jnp.where(proposers[:, None] < kept_object, rows >= kept_iou, rows > kept_iou)
        new_values, new_boxes = propose(jnp.where(accepts, rows, 0))
        values = values.at[proposers].set(new_values, mode="drop")
        boxes = boxes.at[proposers].set(new_boxes, mode="drop")
        return values, boxes, _find_outbid_objects(values, boxes) & (boxes < num_boxes)

    values, boxes = propose(iou)
    state = values, boxes, _find_outbid_objects(values, boxes) & (boxes < num_boxes)
    return jax.lax.while_loop(lambda state: state[2].any(), run_round, state)[1]


def _find_outbid_objects(values: Float[Array, " g"], boxes: Int[Array, " g"]) -> Bool[Array, " g"]:
    """Return a mask of the objects whose box has a better proposal from another object.

    A proposal is better if its IoU is higher, or if the IoUs are equal and the index of its object is lower.
    """
    order = jnp.arange(len(boxes))
    better = jnp.where(order < order[:, None], values >= values[:, None], values > values[:, None])
    return (better & (boxes == boxes[:, None])).any(axis=1)


def _find_max_and_first_index(values: Float[Array, "g n"], axis: int) -> tuple[Float[Array, " _"], Int[Array, " _"]]:
    """Return the maximum of non-negative values along an axis, and the lowest index where it occurs.

    Along an empty axis, the maximum is 0 and the index 2**24. XLA does not vectorise argmax or an integer minimum on a
    CPU, so they take several times as long as these two maxima of floats. float32 holds an index below 2**24 exactly.
    """
    best = values.max(axis, initial=0)
    index = jax.lax.broadcasted_iota(jnp.float32, values.shape, axis)
    first = -jnp.where(values == jnp.expand_dims(best, axis), -index, -jnp.inf).max(axis, initial=-(2.0**24))
    return best, first.astype(jnp.int32)
