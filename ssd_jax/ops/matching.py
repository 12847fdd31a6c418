"""Matching: which default box is to find which object, and the targets that follow from it.

Two steps (paper section 2.2 "Matching strategy"; Caffe's MatchBBox, src/caffe/util/bbox_util.cpp):

1. bipartite: again and again the pair (object, default box) of highest IoU among those still free is
   matched, so that every object that overlaps anything gets exactly one box, whatever the threshold;
2. per prediction: each default box left takes the object it overlaps most, if IoU >= iou_threshold.

Equal IoUs go to the lower default box, then to the lower object. Pairs with IoU <= 1e-6 never match.

Step 1 is a loop over objects in Caffe. Here it is deferred acceptance: every object without a box
proposes, some of them at a time, to the best box that would take it; a box keeps the proposal of
highest IoU. Both sides rank pairs by the same order, so the stable matching is unique, in whatever
order they propose: it is the greedy one. All propose at once at first; where no two objects want
the same box, there is no round beyond that.

Many ports give each object its best box and let a later object overwrite an earlier one; the earlier
may then end up with no box at all.

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

# Caffe drops smaller overlaps before it matches.
_MIN_IOU = 1e-6
# Refused objects that ask in one round. The order in which they ask does not matter; with all of them, a round would
# cost g x n comparisons, and in crowded images there are many rounds.
_ASK_AT_A_TIME = 8


class Targets(NamedTuple):
    """What the network should say about each default box of one image (or of a batch, b in front)."""

    offsets: Float[Array, "n 4"]
    """Encoded relative to the default box; 0 where the label is 0."""
    labels: Int[Array, " n"]
    """Class 1..C of the matched object; 0: background."""


def match(
    gt_boxes: Float[Array | np.ndarray, "g 4"],
    gt_labels: Int[Array | np.ndarray, " g"],
    default_boxes: Float[Array | np.ndarray, "n 4"],
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    config: Match = Match(),
) -> Targets:
    """Targets of one image.

    Args:
      gt_boxes: xyxy, normalised. Boxes without area match nothing.
      gt_labels: 1..C; rows with label 0 are padding and match nothing, wherever they stand.
      default_boxes: cxcywh, normalised.
      variances: of encode_boxes.
      iou_threshold: match_iou_threshold, inclusive as in Caffe (the paper: "higher than").
    """
    gt_boxes, gt_labels = jnp.asarray(gt_boxes), jnp.asarray(gt_labels)
    iou = pairwise_iou(gt_boxes, cxcywh_to_xyxy(default_boxes))
    objects = assign_objects(jnp.where(gt_labels[:, None] > 0, iou, 0), config.iou_threshold)
    matched = objects >= 0
    # Row g stands for "no object", so that an image without a single row needs no case of its own.
    gt_boxes = jnp.pad(gt_boxes, ((0, 1), (0, 0)))
    gt_labels = jnp.pad(gt_labels, (0, 1))
    offsets = encode_boxes(gt_boxes[objects], default_boxes, variances)
    return Targets(jnp.where(matched[:, None], offsets, 0), gt_labels[objects])


def assign_objects(iou: Float[Array | np.ndarray, "g n"], iou_threshold: float = 0.5) -> Int[Array, " n"]:
    """The object (row of iou) that each default box (column) is matched to; -1: none."""
    iou = jnp.asarray(iou)
    best_iou, best_object = _max_and_first_index(iou, axis=0)
    objects = jnp.where((best_iou >= iou_threshold) & (best_iou > _MIN_IOU), best_object, -1)
    return objects.at[_bipartite(iou)].set(jnp.arange(len(iou), dtype=jnp.int32), mode="drop")


def _bipartite(iou: Float[Array, "g n"]) -> Int[Array, " g"]:
    """The default box that each object gets, no box twice; n for an object that gets none."""
    num_objects, num_boxes = iou.shape
    order = jnp.arange(num_objects, dtype=jnp.int32)

    def ask(iou: Array) -> tuple[Array, Array]:
        best_iou, best_box = _max_and_first_index(iou, axis=1)
        return best_iou, jnp.where(best_iou > _MIN_IOU, best_box, num_boxes)

    def ask_again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        values, boxes, refused = state
        keeps = jnp.where(refused, num_boxes, boxes)
        held = jnp.zeros(num_boxes, iou.dtype).at[keeps].set(values, mode="drop")
        holder = jnp.full(num_boxes, num_objects, jnp.int32).at[keeps].set(order, mode="drop")
        (asking,) = jnp.nonzero(refused, size=min(_ASK_AT_A_TIME, num_objects), fill_value=num_objects)
        rows = iou.at[asking].get(mode="clip")
        # What a box holds only gets better, so one that would refuse now need never be asked.
        accepts = jnp.where(asking[:, None] < holder, rows >= held, rows > held)
        new_values, new_boxes = ask(jnp.where(accepts, rows, 0))
        values, boxes = values.at[asking].set(new_values, mode="drop"), boxes.at[asking].set(new_boxes, mode="drop")
        return values, boxes, _is_outbid(values, boxes) & (boxes < num_boxes)

    values, boxes = ask(iou)
    state = values, boxes, _is_outbid(values, boxes) & (boxes < num_boxes)
    return jax.lax.while_loop(lambda state: state[2].any(), ask_again, state)[1]


def _is_outbid(values: Float[Array, " g"], boxes: Int[Array, " g"]) -> Bool[Array, " g"]:
    """Whether another object asks for the same box with a higher IoU, or an equal one and a lower number."""
    order = jnp.arange(len(boxes))
    better = jnp.where(order < order[:, None], values >= values[:, None], values > values[:, None])
    return (better & (boxes == boxes[:, None])).any(axis=1)


def _max_and_first_index(values: Float[Array, "g n"], axis: int) -> tuple[Float[Array, " _"], Int[Array, " _"]]:
    """Maximum of non-negative values along axis, and the lowest index that has it; 0, 0 along an empty axis.

    Two maxima of floats: XLA's argmax, and its minimum of integers, are not vectorised on a CPU and take
    several times as long. float32 holds an index below 2**24 exactly.
    """
    best = values.max(axis, initial=0)
    index = jax.lax.broadcasted_iota(jnp.float32, values.shape, axis)
    first = -jnp.where(values == jnp.expand_dims(best, axis), -index, -jnp.inf).max(axis, initial=-(2.0**24))
    return best, first.astype(jnp.int32)
