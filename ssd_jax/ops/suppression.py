"""Exact greedy non-maximum suppression with fixed shapes.

Reference: Caffe's ApplyNMSFast, src/caffe/util/bbox_util.cpp of github.com/weiliu89/caffe, branch ssd.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from ssd_jax.ops.boxes import pairwise_iou

# Numbers of candidates that are sorted at a time, and that are compared with each other at a time. They change the
# speed, not the result. On a CPU, 384 and 96 were faster than other pairs from 128 to 640 and 64 to 128. Most images
# need one or two sorts.
_SORTED = 384
_BLOCK = 96


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


class _Kept(NamedTuple):
    counts: Array  # (c,) number of candidates processed in each class
    boxes: Array  # (k,) boxes of the kept pairs
    classes: Array  # (k,) classes of the kept pairs
    corners: Array  # (4, k) coordinates of these boxes
    number: Array  # () number of kept pairs


class _State(NamedTuple):
    best: Array  # (n,) best score of each box among its pairs that are not processed yet; 0 if there are none
    last: tuple[Array, Array]  # score and index of the last pair that is processed, in the order of processing
    kept: _Kept


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

    The pairs are sorted and processed in blocks, in order of descending score, until k pairs are kept. So the work does
    not grow with n * c, apart from the maximum of each row of the scores. There is no n x n mask.

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
    # Below, the scores of a class and the coordinates are neighbours in memory, as vector instructions need them.
    boxes, class_scores = jnp.asarray(boxes), jnp.asarray(scores).T
    (c, n), k = class_scores.shape, max_outputs
    if class_scores.size == 0:  # gathering from an empty array fails
        return KeptPairs(jnp.zeros(k, jnp.int32), jnp.zeros(k, jnp.int32), jnp.zeros(k, bool))
    sorted_rows = min(_SORTED, n)
    sorted_pairs = min(_SORTED, sorted_rows * c)
    block = min(_BLOCK, sorted_pairs)

    def apply_threshold(scores: Array) -> Array:
        return jnp.where(scores > score_threshold, scores, 0)  # a comparison with NaN is False, so NaN becomes 0

    def is_unfinished(state: _State) -> Array:
        return (state.kept.number < k) & (state.last[0] > 0)

    def process_best_pairs(state: _State) -> _State:
        # The best pairs lie in the rows with the largest maxima. Among equal values, top_k puts the lower index first,
        # here and below; the rows are sorted so that pairs of equal score are ordered by row, too.
        rows = jnp.sort(lax.top_k(state.best, sorted_rows)[1])
        pairs = rows[:, None] * c + jnp.arange(c, dtype=jnp.int32)
        remaining = _zero_processed_scores(apply_threshold(class_scores[:, rows].T), pairs, *state.last)
        # Without the barrier, XLA turns top_k into a full sort, because parts of its result are used.
        top, order = lax.optimization_barrier(lax.top_k(remaining.ravel(), sorted_pairs))
        chosen = pairs.ravel()[order]
        lowest = jnp.min(top)
        last = (lowest, jnp.max(jnp.where(top == lowest, chosen, -1)))
        best = state.best.at[rows].set(jnp.max(_zero_processed_scores(remaining, pairs, *last), axis=1))
        # If the blocks need padding, all pairs are among these, and no others follow.
        top, chosen = (jnp.pad(array, (0, -sorted_pairs % block)) for array in (top, chosen))
        valid = top > 0
        if eligible is not None:
            valid &= jnp.asarray(eligible)[chosen // c]
        candidates = (chosen // c, chosen % c, boxes[chosen // c].T, valid)

        def is_block_left(loop: tuple[Array, _Kept]) -> Array:
            start, kept = loop
            return (start < len(top)) & (kept.number < k) & (top[start] > 0)

        def process_block(loop: tuple[Array, _Kept]) -> tuple[Array, _Kept]:
            start, kept = loop
            parts = tuple(lax.dynamic_slice_in_dim(array, start, block, axis=-1) for array in candidates)
            # The barrier keeps XLA from reading each part again for each pair of candidates.
            return start + block, add_block(kept, *lax.optimization_barrier(parts))

        _, kept = lax.while_loop(is_block_left, process_block, (jnp.int32(0), state.kept))
        return _State(best, last, kept)

    def add_block(kept: _Kept, candidates: Array, classes: Array, corners: Array, valid: Array) -> _Kept:
        same_class = classes[:, None] == classes
        if top_k is not None and top_k < n:
            rank = kept.counts[classes] + jnp.sum(jnp.triu(same_class, k=1), axis=0, dtype=jnp.int32)
            valid &= rank < top_k
        is_same_class = (kept.classes[:, None] == classes) & (jnp.arange(k)[:, None] < kept.number)
        suppressed = is_same_class & (pairwise_iou(kept.corners.T, corners.T) > iou_threshold)
        within_block = same_class & (pairwise_iou(corners.T, corners.T) > iou_threshold)
        keep = _compute_greedy_keep_mask(within_block, valid & ~jnp.any(suppressed, axis=0))
        slots = jnp.where(keep, kept.number + jnp.cumsum(keep, dtype=jnp.int32) - 1, k)
        return _Kept(
            kept.counts.at[classes].add(1),
            kept.boxes.at[slots].set(candidates, mode="drop"),
            kept.classes.at[slots].set(classes, mode="drop"),
            kept.corners.at[:, slots].set(corners, mode="drop"),
            kept.number + jnp.sum(keep, dtype=jnp.int32),
        )

    none = jnp.zeros(k, jnp.int32)
    nothing_kept = _Kept(jnp.zeros(c, jnp.int32), none, none, jnp.zeros((4, k), boxes.dtype), jnp.int32(0))
    before_all = (jnp.array(jnp.inf, class_scores.dtype), jnp.int32(-1))
    # Only this maximum uses the whole array. Applying the threshold to all scores first would take longer.
    best = apply_threshold(jnp.max(class_scores, axis=0))
    kept = lax.while_loop(is_unfinished, process_best_pairs, _State(best, before_all, nothing_kept)).kept
    return KeptPairs(kept.boxes, kept.classes, jnp.arange(k) < kept.number)


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
