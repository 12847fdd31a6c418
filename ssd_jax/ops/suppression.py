"""Exact greedy non-maximum suppression with fixed shapes.

Reference: Caffe's ApplyNMSFast, src/caffe/util/bbox_util.cpp of github.com/weiliu89/caffe, branch ssd.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ssd_jax.ops.boxes import pairwise_iou

# Number of candidates processed at a time. It changes the speed, not the result. Of 64, 128, 256 and 512 this was the
# fastest on a CPU, where most images are done after two to six blocks.
_BLOCK = 128


class KeptPairs(NamedTuple):
    """Pairs of box and class kept by `multiclass_nms`, by descending score, padded to k with zeros.

    Equal scores are ordered by box, then by class.
    """

    boxes: Int32[Array, " k"]
    """Row of the box in the input."""
    classes: Int32[Array, " k"]
    """Column of the class in the scores."""
    valid: Bool[Array, " k"]
    """False for padding."""


class _State(NamedTuple):
    best: Array  # (n,) best score of each box among its classes not processed yet; 0 for none
    last: tuple[Array, Array]  # score and index of the last pair processed; later pairs in the order are not yet
    counts: Array  # (c,) candidates processed in each class
    boxes: Array  # (k,) boxes of the pairs kept
    classes: Array  # (k,) classes of the pairs kept
    num_kept: Array  # ()


def nms(
    boxes: Float[Array | np.ndarray, "m 4"],
    scores: Float[Array | np.ndarray, " m"],
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Apply greedy non-maximum suppression to boxes of one class.

    A box is kept unless a box of higher score that was itself kept overlaps it with an IoU above `iou_threshold`.

    Args:
        boxes: Boxes, xyxy, in any unit.
        scores: Probabilities. Scores of 0 and below, -inf and NaN mark padding, which is never kept.
        iou_threshold: An IoU of exactly this value does not suppress (Caffe; SSD uses 0.45).
        max_outputs: k, the maximum number of boxes to keep: those of highest score.

    Returns:
        The indices (k,) of the boxes kept, by descending score, ties by ascending index, padded with zeros; and a mask
        (k,) that is False for padding.
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
) -> KeptPairs:
    """Apply non-maximum suppression within each class and keep the best pairs of box and class.

    The pairs are processed in the order of their scores, a block at a time, until the k-th is kept: apart from the
    maximum of each row, the work does not grow with n * c. No class is sorted, and no mask is n x n.

    Args:
        boxes: Boxes, xyxy, in any unit.
        scores: Score of each box for each class. NaN is never kept, and may hide the other classes of its box.
        iou_threshold: An IoU of exactly this value does not suppress.
        max_outputs: k, the maximum number of pairs to keep over all classes: those of highest score.
        score_threshold: Scores up to and including this value are padding. At least 0.
        top_k: Number of best scores of each class that take part; None for all.
        eligible: Boxes that may be kept and may suppress others. The other boxes still count for `top_k`.

    Returns:
        Exactly k pairs, padded with zeros.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    (n, c), k = scores.shape, max_outputs
    if scores.size == 0:  # gathering from an empty array fails
        return KeptPairs(jnp.zeros(k, jnp.int32), jnp.zeros(k, jnp.int32), jnp.zeros(k, bool))
    rows_per_block = min(_BLOCK, n)
    pairs_per_block = min(_BLOCK, rows_per_block * c)

    def above_threshold(scores: Array) -> Array:
        return jnp.where(scores > score_threshold, scores, 0)  # comparing with NaN is False, so NaN becomes padding

    def is_unfinished(state: _State) -> Array:
        return (state.num_kept < k) & (jnp.max(state.best) > 0)

    def process_block(state: _State) -> _State:
        # The best pairs lie in the rows of the largest maxima; equal maxima go to the lower rows. The rows are sorted
        # so that equal scores go to the lower row, too: top_k breaks ties by the lower index.
        rows = jnp.sort(lax.top_k(state.best, rows_per_block)[1])
        pairs = rows[:, None] * c + jnp.arange(c, dtype=jnp.int32)
        remaining = _scores_after(above_threshold(scores[rows]), pairs, *state.last)
        top, order = lax.top_k(remaining.ravel(), pairs_per_block)
        chosen = pairs.ravel()[order]
        # Not top[-1]: XLA turns top_k into a full sort if a slice of the result is used as well.
        lowest = jnp.min(top)
        last = (lowest, jnp.max(jnp.where(top == lowest, chosen, -1)))
        best = state.best.at[rows].set(jnp.max(_scores_after(remaining, pairs, *last), axis=1))

        candidates, classes = chosen // c, chosen % c
        same_class = classes[:, None] == classes
        valid = top > 0
        if top_k is not None and top_k < n:
            rank = state.counts[classes] + jnp.sum(jnp.triu(same_class, k=1), axis=0, dtype=jnp.int32)
            valid &= rank < top_k
        if eligible is not None:
            valid &= jnp.asarray(eligible)[candidates]

        is_same_class = (state.classes[:, None] == classes) & (jnp.arange(k)[:, None] < state.num_kept)
        suppressed = is_same_class & (pairwise_iou(boxes[state.boxes], boxes[candidates]) > iou_threshold)
        within_block = same_class & (pairwise_iou(boxes[candidates], boxes[candidates]) > iou_threshold)
        keep = _greedy_keep_mask(within_block, valid & ~jnp.any(suppressed, axis=0))
        slots = jnp.where(keep, state.num_kept + jnp.cumsum(keep, dtype=jnp.int32) - 1, k)
        return _State(
            best,
            last,
            state.counts.at[classes].add(1),
            state.boxes.at[slots].set(candidates, mode="drop"),
            state.classes.at[slots].set(classes, mode="drop"),
            state.num_kept + jnp.sum(keep, dtype=jnp.int32),
        )

    none = jnp.zeros(k, jnp.int32)
    before_all = (jnp.array(jnp.inf, scores.dtype), jnp.int32(-1))
    # This is the only computation on the whole array: a copy of it with the threshold applied would take longer.
    best = above_threshold(jnp.max(scores, axis=1))
    start = _State(best, before_all, jnp.zeros(c, jnp.int32), none, none, jnp.int32(0))
    end = lax.while_loop(is_unfinished, process_block, start)
    return KeptPairs(end.boxes, end.classes, jnp.arange(k) < end.num_kept)


def _scores_after(
    scores: Float[Array, "m c"], pairs: Int32[Array, "m c"], last_score: Array, last_pair: Array
) -> Float[Array, "m c"]:
    """Set scores to 0 unless they come after the last pair in the order of scores, ties by pair."""
    return jnp.where((scores < last_score) | ((scores == last_score) & (pairs > last_pair)), scores, 0)


def _greedy_keep_mask(suppresses: Bool[Array, "m m"], valid: Bool[Array, " m"]) -> Bool[Array, " m"]:
    """Return which of m boxes, in order of descending score, the greedy algorithm keeps.

    The result is the only fixed point of the rule that j is kept if it is valid and no kept i < j suppresses it. Each
    round settles all boxes whose suppressors are settled, so at least one more, from the left; a few rounds suffice.
    """
    suppresses = jnp.triu(suppresses, k=1)

    def settle(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = pair
        return valid & ~jnp.any(suppresses & keep[:, None], axis=0), keep

    return lax.while_loop(lambda pair: jnp.any(pair[0] != pair[1]), settle, (valid, jnp.zeros_like(valid)))[0]
