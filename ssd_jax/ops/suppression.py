"""Exact greedy non-maximum suppression with fixed shapes.

Reference: Caffe's ApplyNMSFast, src/caffe/util/bbox_util.cpp of github.com/weiliu89/caffe, branch ssd.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ssd_jax.ops.boxes import pairwise_iou

# Number of candidates processed at a time. It changes the speed, not the result. Of 64, 128, 256 and 512, 128 was the
# fastest on a CPU. Most images need two to six blocks.
_BLOCK = 128


class KeptPairs(NamedTuple):
    """Pairs of box and class kept by `multiclass_nms`, in order of descending score, padded with zeros to k pairs.

    Equal scores are ordered by index of the box, then by class.
    """

    boxes: Int32[Array, " k"]
    """Index of the box in the input."""
    classes: Int32[Array, " k"]
    """Index of the class: its column in the scores."""
    valid: Bool[Array, " k"]
    """True for kept pairs, False for padding."""


class _State(NamedTuple):
    best: Array  # (n,) best score of each box among its pairs that are not processed yet; 0 if there are none
    last: tuple[Array, Array]  # score and index of the last pair that is processed, in the order of processing
    counts: Array  # (c,) number of candidates processed in each class
    boxes: Array  # (k,) boxes of the kept pairs
    classes: Array  # (k,) classes of the kept pairs
    num_kept: Array  # () number of kept pairs


def nms(
    boxes: Float[Array | np.ndarray, "m 4"],
    scores: Float[Array | np.ndarray, " m"],
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Return the indices of the boxes of one class that greedy non-maximum suppression keeps.

    A box is kept unless a kept box of higher score overlaps it with an IoU above `iou_threshold`.

    Args:
        boxes: Boxes, xyxy, in any unit.
        scores: Scores, such as probabilities. A score of 0 or below, or NaN, marks padding, which is never kept.
        iou_threshold: A box is suppressed if its IoU with a kept box is above this value. SSD uses 0.45.
        max_outputs: Maximum number of boxes to keep, k. The boxes with the highest scores are kept.

    Returns:
        The indices (k,) of the kept boxes in order of descending score, equal scores in order of ascending index,
        padded with zeros; and a mask (k,) that is False for padding.
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
    """Return the best pairs of box and class that greedy non-maximum suppression within each class keeps.

    The pairs are processed in blocks, in order of descending score, until k pairs are kept. So the work does not grow
    with n * c, apart from the maximum of each row of the scores. Classes are not sorted, and there is no n x n mask.

    Args:
        boxes: Boxes, xyxy, in any unit.
        scores: Score of each box for each class. A pair whose score is NaN is never kept, and other pairs of the same
            box can be lost.
        iou_threshold: A box is suppressed if its IoU with a kept box of the same class is above this value.
        max_outputs: Maximum number of pairs to keep over all classes, k. The pairs with the highest scores are kept.
        score_threshold: Pairs with this score or a lower one are ignored. At least 0.
        top_k: Number of pairs of each class that take part, those with the highest scores; None for all.
        eligible: True for boxes that may be kept and may suppress others; None if this is true of all boxes. The other
            boxes still count for `top_k`.

    Returns:
        The kept pairs, padded with zeros to exactly k pairs.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    (n, c), k = scores.shape, max_outputs
    if scores.size == 0:  # gathering from an empty array fails
        return KeptPairs(jnp.zeros(k, jnp.int32), jnp.zeros(k, jnp.int32), jnp.zeros(k, bool))
    rows_per_block = min(_BLOCK, n)
    pairs_per_block = min(_BLOCK, rows_per_block * c)

    def apply_threshold(scores: Array) -> Array:
        return jnp.where(scores > score_threshold, scores, 0)  # a comparison with NaN is False, so NaN becomes 0

    def is_unfinished(state: _State) -> Array:
        return (state.num_kept < k) & (jnp.max(state.best) > 0)

    def process_block(state: _State) -> _State:
        # The best pairs lie in the rows with the largest maxima. Among equal values, top_k puts the lower index first,
        # here and below; the rows are sorted so that pairs of equal score are ordered by row, too.
        rows = jnp.sort(lax.top_k(state.best, rows_per_block)[1])
        pairs = rows[:, None] * c + jnp.arange(c, dtype=jnp.int32)
        remaining = _zero_processed_scores(apply_threshold(scores[rows]), pairs, *state.last)
        top, order = lax.top_k(remaining.ravel(), pairs_per_block)
        chosen = pairs.ravel()[order]
        # This equals top[-1], but XLA turns top_k into a full sort if a slice of its result is used.
        lowest = jnp.min(top)
        last = (lowest, jnp.max(jnp.where(top == lowest, chosen, -1)))
        best = state.best.at[rows].set(jnp.max(_zero_processed_scores(remaining, pairs, *last), axis=1))

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
        keep = _compute_greedy_keep_mask(within_block, valid & ~jnp.any(suppressed, axis=0))
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
    # Only this maximum uses the whole array. Applying the threshold to all scores first would take longer.
    best = apply_threshold(jnp.max(scores, axis=1))
    start = _State(best, before_all, jnp.zeros(c, jnp.int32), none, none, jnp.int32(0))
    end = lax.while_loop(is_unfinished, process_block, start)
    return KeptPairs(end.boxes, end.classes, jnp.arange(k) < end.num_kept)


def _zero_processed_scores(
    scores: Float[Array, "m c"], pairs: Int32[Array, "m c"], last_score: Array, last_pair: Array
) -> Float[Array, "m c"]:
    """Return the scores, with the scores of pairs that are already processed set to 0.

    Pairs are processed in order of descending score, and pairs of equal score in order of ascending index. The given
    last pair and all pairs before it are processed.
    """
    return jnp.where((scores < last_score) | ((scores == last_score) & (pairs > last_pair)), scores, 0)


def _compute_greedy_keep_mask(suppresses: Bool[Array, "m m"], valid: Bool[Array, " m"]) -> Bool[Array, " m"]:
    """Return a mask of the boxes that the greedy algorithm keeps, given m boxes in order of descending score.

    The result is the only fixed point of this rule: box j is kept if it is valid and no kept box i < j suppresses it.
    In each round, the decision about a box becomes final if the decisions about all of its possible suppressors are
    final. So each round makes at least one more decision final, and few rounds are usually enough.
    """
    suppresses = jnp.triu(suppresses, k=1)

    def update_mask(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        keep, _ = pair
        return valid & ~jnp.any(suppresses & keep[:, None], axis=0), keep

    return lax.while_loop(lambda pair: jnp.any(pair[0] != pair[1]), update_mask, (valid, jnp.zeros_like(valid)))[0]
