"""Greedy non-maximum suppression, exact, with fixed shapes.

Reference: Caffe's ApplyNMSFast, src/caffe/util/bbox_util.cpp of github.com/weiliu89/caffe, branch ssd.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32

from ssd_jax.boxes import pairwise_iou

# Candidates taken at a time. It changes the speed, not the answer: 256 was the fastest of 128, 256 and 512
# on a CPU, where most images are done after one to four blocks.
_BLOCK = 256


class _State(NamedTuple):
    remaining: Array  # (m,) scores, 0 once taken
    kept: Array  # (max_outputs,) indices
    found: Array  # (), how many are kept


def nms(
    boxes: Float[Array | np.ndarray, "m 4"],
    scores: Float[Array | np.ndarray, " m"],
    iou_threshold: float,
    max_outputs: int,
    labels: Int[Array | np.ndarray, " m"] | None = None,
) -> tuple[Int32[Array, " k"], Bool[Array, " k"]]:
    """Keep a box unless one of higher score that was itself kept overlaps it with IoU > iou_threshold.

    Args:
      boxes: xyxy, in any unit.
      scores: probabilities. 0 and below, -inf and NaN mark padding, which is never kept.
      iou_threshold: an IoU of exactly this does not suppress (Caffe; SSD uses 0.45).
      max_outputs: k; at most this many are kept, those of highest score.
      labels: where given, only boxes of the same label suppress each other.

    Returns:
      indices (k,): the boxes kept, by descending score, ties by ascending index; then zeros.
      valid (k,): True for the former.

    Memory is of order m + block * (block + k), not m * m, and the work ends with the k-th box kept,
    so all classes of an image, tens of thousands of candidates, go through in one call.
    """
    boxes, scores = jnp.asarray(boxes), jnp.asarray(scores)
    labels = jnp.zeros(scores.shape, jnp.int32) if labels is None else jnp.asarray(labels)
    if scores.size == 0:  # nothing to gather from
        return jnp.zeros(max_outputs, jnp.int32), jnp.zeros(max_outputs, bool)
    block = min(_BLOCK, scores.size)

    def more(state: _State) -> Array:
        return (state.found < max_outputs) & (jnp.max(state.remaining) > 0)

    def suppressed_by(by: Array, candidates: Array) -> Array:
        overlap = pairwise_iou(boxes[by], boxes[candidates]) > iou_threshold
        return overlap & (labels[by][:, None] == labels[candidates])

    def keep_block(state: _State) -> _State:
        # top_k breaks ties by the lower index; a sort of all m would cost more than all else here.
        top_scores, candidates = lax.top_k(state.remaining, block)
        earlier = jnp.arange(max_outputs)[:, None] < state.found
        free = ~jnp.any(suppressed_by(state.kept, candidates) & earlier, axis=0)
        keep = _greedy(suppressed_by(candidates, candidates), free & (top_scores > 0))
        slots = jnp.where(keep, state.found + jnp.cumsum(keep, dtype=jnp.int32) - 1, max_outputs)
        return _State(
            state.remaining.at[candidates].set(0),
            state.kept.at[slots].set(candidates, mode="drop"),
            state.found + jnp.sum(keep, dtype=jnp.int32),
        )

    # NaN compares false, so it becomes padding too.
    start = _State(jnp.where(scores > 0, scores, 0), jnp.zeros(max_outputs, jnp.int32), jnp.int32(0))
    end = lax.while_loop(more, keep_block, start)
    return end.kept, jnp.arange(max_outputs) < end.found


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
