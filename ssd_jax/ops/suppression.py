"""Greedy non-maximum suppression, exact, with fixed shapes.

Reference: Caffe's ApplyNMSFast, src/caffe/util/bbox_util.cpp of github.com/weiliu89/caffe, branch ssd.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ssd_jax.ops.boxes import pairwise_iou

# Candidates taken at a time. It changes the speed, not the answer: of 64, 128, 256 and 512 this was the
# fastest on a CPU, where most images are done after two to six blocks.
_BLOCK = 128


class Kept(NamedTuple):
    """By descending score; ties by box, then by class. Padded to k with zeros."""

    boxes: Int32[Array, " k"]
    """Rows of the boxes given."""
    classes: Int32[Array, " k"]
    """Columns of the scores given."""
    valid: Bool[Array, " k"]


class _State(NamedTuple):
    best: Array  # (n,) of each box, the best score of a class not taken yet; 0 is none
    last: tuple[Array, Array]  # score and pair taken last: what comes after it is not taken yet
    counts: Array  # (c,) candidates taken, of each class
    boxes: Array  # (k,) kept
    classes: Array  # (k,) kept
    found: Array  # (), how many are kept


def nms(
    boxes: Float[Array | np.ndarray, "m 4"],
    scores: Float[Array | np.ndarray, " m"],
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Keep a box unless one of higher score that was itself kept overlaps it with IoU > iou_threshold.

    Args:
      boxes: xyxy, in any unit.
      scores: probabilities. 0 and below, -inf and NaN mark padding, which is never kept.
      iou_threshold: an IoU of exactly this does not suppress (Caffe; SSD uses 0.45).
      max_outputs: k; at most this many are kept, those of highest score.

    Returns:
      indices (k,): the boxes kept, by descending score, ties by ascending index; then zeros.
      valid (k,): True for the former.
    """
    kept = multiclass_nms(boxes, jnp.asarray(scores)[:, None], iou_threshold, max_outputs)
    return kept.boxes, kept.valid


def multiclass_nms(
    boxes: Float[Array | np.ndarray, "n 4"],
    scores: Float[Array | np.ndarray, "n c"],
    iou_threshold: float,
    max_outputs: int,
    score_threshold: float = 0,
    top_k: int | None = None,
    eligible: Bool[Array | np.ndarray, " n"] | None = None,
) -> Kept:
    """Non-maximum suppression within each class; of all classes, the best max_outputs pairs of box and class.

    As nms, and:

    Args:
      scores: of each box, for each class. NaN is never kept, and may hide the other classes of its box.
      score_threshold: lower scores, and this one, are padding. At least 0.
      top_k: of each class, only so many of the best scores enter; None is all of them.
      eligible: boxes that may be kept and may suppress others. The others count for top_k all the same.

    The pairs are taken in order of their scores, a block at a time, and the work ends with the k-th that is kept:
    beyond the maximum of each row, it does not grow with n * c. No class is sorted, and no mask is n x n.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    (n, c), k = scores.shape, max_outputs
    if scores.size == 0:  # nothing to gather from
        return Kept(jnp.zeros(k, jnp.int32), jnp.zeros(k, jnp.int32), jnp.zeros(k, bool))
    rows_a_block = min(_BLOCK, n)
    pairs_a_block = min(_BLOCK, rows_a_block * c)

    def above_threshold(scores: Array) -> Array:
        return jnp.where(scores > score_threshold, scores, 0)  # NaN compares false, so it becomes padding too

    def more(state: _State) -> Array:
        return (state.found < k) & (jnp.max(state.best) > 0)

    def take_block(state: _State) -> _State:
        # The best pairs lie in the rows of the best maxima; where scores tie, in the lower rows. Sorted, so
        # that a tie of two pairs goes to the lower row, too. top_k breaks ties by the lower index.
        rows = jnp.sort(lax.top_k(state.best, rows_a_block)[1])
        pairs = rows[:, None] * c + jnp.arange(c, dtype=jnp.int32)
        left = _after(above_threshold(scores[rows]), pairs, *state.last)
        top, order = lax.top_k(left.ravel(), pairs_a_block)
        taken = pairs.ravel()[order]
        # Not top[-1]: where a slice of it is wanted, too, XLA makes a whole sort of top_k.
        lowest = jnp.min(top)
        last = (lowest, jnp.max(jnp.where(top == lowest, taken, -1)))
        best = state.best.at[rows].set(jnp.max(_after(left, pairs, *last), axis=1))

        candidates, classes = taken // c, taken % c
        same_class = classes[:, None] == classes
        valid = top > 0
        if top_k is not None and top_k < n:
            rank = state.counts[classes] + jnp.sum(jnp.triu(same_class, k=1), axis=0, dtype=jnp.int32)
            valid &= rank < top_k
        if eligible is not None:
            valid &= jnp.asarray(eligible)[candidates]

        earlier = (state.classes[:, None] == classes) & (jnp.arange(k)[:, None] < state.found)
        of_earlier = earlier & (pairwise_iou(boxes[state.boxes], boxes[candidates]) > iou_threshold)
        of_block = same_class & (pairwise_iou(boxes[candidates], boxes[candidates]) > iou_threshold)
        keep = _greedy(of_block, valid & ~jnp.any(of_earlier, axis=0))
        slots = jnp.where(keep, state.found + jnp.cumsum(keep, dtype=jnp.int32) - 1, k)
        return _State(
            best,
            last,
            state.counts.at[classes].add(1),
            state.boxes.at[slots].set(candidates, mode="drop"),
            state.classes.at[slots].set(classes, mode="drop"),
            state.found + jnp.sum(keep, dtype=jnp.int32),
        )

    nothing = jnp.zeros(k, jnp.int32)
    before_all = (jnp.array(jnp.inf, scores.dtype), jnp.int32(-1))
    # Of the whole array nothing but this is computed: a copy of it without what is below the threshold takes longer.
    best = above_threshold(jnp.max(scores, axis=1))
    start = _State(best, before_all, jnp.zeros(c, jnp.int32), nothing, nothing, jnp.int32(0))
    end = lax.while_loop(more, take_block, start)
    return Kept(end.boxes, end.classes, jnp.arange(k) < end.found)


def _after(
    scores: Float[Array, "m c"], pairs: Int32[Array, "m c"], last_score: Array, last_pair: Array
) -> Float[Array, "m c"]:
    """The scores that come after the last one in the order of scores, ties by pair; 0 for the others."""
    return jnp.where((scores < last_score) | ((scores == last_score) & (pairs > last_pair)), scores, 0)


def _greedy(suppresses: Bool[Array, "m m"], valid: Bool[Array, " m"]) -> Bool[Array, " m"]:
    """Which of m boxes, in order of descending score, the greedy algorithm keeps.

    The answer is the one fixed point of: j is kept iff valid and no kept i < j suppresses it. Each
    round settles at least one box more, from the left, so the iteration reaches it: in a few
    rounds, not m, since a round settles all boxes whose suppressors are settled.
    """
    suppresses = jnp.triu(suppresses, k=1)

    def settle(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = pair
        return valid & ~jnp.any(suppresses & keep[:, None], axis=0), keep

    return lax.while_loop(lambda pair: jnp.any(pair[0] != pair[1]), settle, (valid, jnp.zeros_like(valid)))[0]
