"""Tests of greedy non-maximum suppression against a plain loop, and on boxes whose result is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from ssd_jax.ops.suppression import multiclass_nms, nms

jit_nms = jax.jit(nms, static_argnames=("iou_threshold", "max_outputs"))
jit_multiclass_nms = jax.jit(
    multiclass_nms, static_argnames=("iou_threshold", "max_outputs", "score_threshold", "top_k")
)


def run_nms(boxes, scores, iou_threshold=0.45, max_outputs=100):
    """Return the indices of the kept boxes without padding, after checking the padding."""
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    indices, valid = jit_nms(boxes, scores, iou_threshold, max_outputs)
    assert indices.shape == valid.shape == (max_outputs,)
    indices, valid = np.asarray(indices), np.asarray(valid)
    assert not indices[~valid].any()
    assert not valid[valid.sum() :].any()  # padding comes last
    return indices[valid].tolist()


def run_multiclass_nms(boxes, scores, max_outputs=100, top_k=None, eligible=None, score_threshold=0.0):
    """Return the kept pairs (box index, class) without padding, after checking the padding."""
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    kept = jax.tree.map(
        np.asarray, jit_multiclass_nms(boxes, scores, 0.45, max_outputs, score_threshold, top_k, eligible)
    )
    count = kept.valid.sum()
    assert not any(field[count:].any() for field in kept), "padding must be zero, and at the end"
    return list(zip(kept.boxes[:count].tolist(), kept.classes[:count].tolist(), strict=True))


def make_random_boxes(rng, count, side=0.3):
    center, size = rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, side, (count, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=1).astype(np.float32)


def make_row_of_boxes(count, shift):
    """Return boxes of width 1. Each is shifted to the right by ``shift`` relative to the previous box."""
    left = np.arange(count) * shift
    return np.stack([left, np.zeros(count), left + 1, np.ones(count)], axis=1)


def make_boxes_of_widths(*widths):
    """Return boxes of height 1 and the given widths with a common left edge, so that each IoU is a ratio of widths."""
    return [[0, 0, width, 1] for width in widths]


@pytest.mark.parametrize(
    ("count", "side", "iou_threshold"),
    [(1, 0.3, 0.45), (255, 0.9, 0.45), (601, 0.1, 0.0), (601, 0.4, 0.45), (601, 0.9, 0.45), (601, 0.4, 0.7)],
)
def test_nms_equals_a_plain_loop(count, side, iou_threshold):
    rng = np.random.default_rng(count)
    boxes, scores = make_random_boxes(rng, count, side), rng.uniform(0, 1, count).astype(np.float32)
    expected = reference.greedy_nms(boxes.tolist(), scores, iou_threshold)
    assert run_nms(boxes, scores, iou_threshold, 601) == expected


def test_nms_with_max_outputs_equals_a_plain_loop():
    # The highest max_outputs is reached after several blocks of candidates.
    rng = np.random.default_rng(3)
    boxes, scores = make_random_boxes(rng, 601, 0.15), rng.uniform(0, 1, 601).astype(np.float32)
    expected = reference.greedy_nms(boxes.tolist(), scores, 0.45)
    assert len(expected) > 400
    for max_outputs in (5, 256, 400):
        assert run_nms(boxes, scores, 0.45, max_outputs) == expected[:max_outputs]


def test_nms_with_many_ties_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    boxes, scores = make_random_boxes(rng, 601), rng.integers(-1, 4, 601) / 4
    assert run_nms(boxes, scores, max_outputs=601) == reference.greedy_nms(boxes.tolist(), scores, 0.45)


def test_nms_ignores_the_overlap_with_a_suppressed_box():
    # Neighbours have an IoU of 0.7 / 1.3, the first and the third box of 0.4 / 1.6. The first suppresses the second, so
    # the third is kept.
    assert run_nms(make_row_of_boxes(3, 0.3), [0.9, 0.8, 0.7]) == [0, 2]
    assert run_nms(make_row_of_boxes(3, 0.3), [0.8, 0.9, 0.7]) == [1]


def test_nms_of_a_long_chain_keeps_every_second_box():
    # Each round of the greedy algorithm determines only one box, and the chain extends over several blocks.
    scores = np.linspace(1, 0.1, 601)
    assert run_nms(make_row_of_boxes(601, 0.3), scores, max_outputs=601) == list(range(0, 601, 2))
    assert run_nms(make_row_of_boxes(601, 0.3), scores[::-1], max_outputs=601) == list(range(600, -1, -2))


def test_nms_suppresses_across_blocks():
    # Only the first and the last of 601 boxes overlap.
    boxes = np.concatenate([make_row_of_boxes(600, 2), [[0, 0, 1, 0.9]]])
    assert run_nms(boxes, np.linspace(1, 0.1, 601), max_outputs=601) == list(range(600))


@pytest.mark.parametrize(
    ("widths", "iou_threshold"),
    [((2, 1), 0.5), ((20, 9), 0.45), ((1, 1), 1.0)],
)
def test_nms_does_not_suppress_at_exactly_the_threshold(widths, iou_threshold):
    # The ratio of widths and the threshold are rounded to the same float32.
    assert run_nms(make_boxes_of_widths(*widths), [0.9, 0.8], iou_threshold) == [0, 1]
    assert run_nms(
        make_boxes_of_widths(*widths), [0.9, 0.8], float(np.nextafter(np.float32(iou_threshold), np.float32(0)))
    ) == [0]


def test_nms_suppresses_only_above_the_threshold():
    assert run_nms(make_boxes_of_widths(1000, 449), [0.9, 0.8]) == [0, 1]
    assert run_nms(make_boxes_of_widths(1000, 451), [0.9, 0.8]) == [0]


def test_nms_prefers_the_lower_index_among_equal_scores():
    assert run_nms(make_boxes_of_widths(1, 1, 1), [0.5, 0.5, 0.5]) == [0]
    assert run_nms(make_row_of_boxes(4, 2), [0.5, 0.7, 0.5, 0.7]) == [1, 3, 0, 2]


def test_nms_treats_zero_negative_and_nan_scores_as_padding():
    scores = [0.0, -1.0, -np.inf, np.nan, 0.5, -0.0]
    assert run_nms(make_row_of_boxes(6, 2), scores) == [4]
    assert run_nms(make_boxes_of_widths(1, 1, 1, 1, 1, 1), scores) == [4]  # boxes of padding suppress no other box
    assert run_nms(make_row_of_boxes(3, 2), [0, -np.inf, np.nan]) == []


def test_nms_keeps_a_box_after_several_blocks_of_nan_scores():
    assert run_nms(make_row_of_boxes(601, 2), [np.nan] * 600 + [0.5], max_outputs=601) == [600]


def test_nms_returns_at_most_max_outputs():
    boxes, scores = make_row_of_boxes(5, 2), [0.1, 0.2, 0.3, 0.4, 0.5]
    assert run_nms(boxes, scores, max_outputs=3) == [4, 3, 2]
    assert run_nms(boxes, scores, max_outputs=5) == [4, 3, 2, 1, 0]
    assert run_nms(boxes, scores, max_outputs=9) == [4, 3, 2, 1, 0]
    assert run_nms(boxes, scores, max_outputs=0) == []


def test_nms_without_boxes_returns_padding():
    assert run_nms(np.zeros((0, 4)), np.zeros(0), max_outputs=3) == []


def test_nms_keeps_boxes_without_area():
    assert run_nms([[0.5, 0.5, 0.5, 0.5]] * 2 + [[0, 0, 1, 1], [0.2, 0, 0.2, 1]], [0.4, 0.3, 0.9, 0.8]) == [2, 3, 0, 1]


SHAPES = [(1, 1), (300, 4), (40, 9), (300, 1), (7, 200)]  # boxes, classes
LEVELS = [None, 3, 1]  # number of different scores; None if all scores differ
LIMITS = [(1.0, None), (0.1, None), (1.0, 25)]  # fraction of scores above 0, top_k
FAST_CASES = [
    ((1, 1), None, (1.0, None)),
    ((300, 4), None, (1.0, None)),
    ((300, 4), 3, (1.0, 25)),
    ((300, 4), 1, (0.1, None)),
    ((40, 9), 1, (1.0, None)),
    ((300, 1), 3, (1.0, None)),
    ((7, 200), 3, (1.0, None)),
    ((7, 200), None, (1.0, 25)),
]
CASES = [
    pytest.param(*case, marks=() if case in FAST_CASES else pytest.mark.slow, id="-".join(map(str, case)))
    for case in itertools.product(SHAPES, LEVELS, LIMITS)
]


@pytest.mark.parametrize(("shape", "levels", "limits"), CASES)
def test_multiclass_nms_equals_a_plain_loop(shape, levels, limits):
    """Some cases have few boxes with many classes, others have many boxes with few classes.

    Blocks of candidates end among equal scores, within the classes of a box, and between boxes.
    """
    (count, classes), (share, top_k) = shape, limits
    rng = np.random.default_rng(count)
    boxes, scores = make_random_boxes(rng, count, 0.6), rng.uniform(0.01, 1, (count, classes)).astype(np.float32)
    if levels is not None:
        scores = np.ceil(scores * levels) / levels
    scores = np.where(rng.random(scores.shape) < share, scores, 0)
    expected = reference.greedy_multiclass_nms(boxes.tolist(), scores.tolist(), 0.45, top_k)
    assert run_multiclass_nms(boxes, scores, 200, top_k) == expected[:200]
    if len(expected) > 200:
        assert run_multiclass_nms(boxes, scores, 1500, top_k) == expected


def test_multiclass_nms_ineligible_boxes_count_for_top_k_but_do_not_suppress():
    rng = np.random.default_rng(1)
    boxes, scores = make_random_boxes(rng, 300, 0.6), rng.uniform(0, 1, (300, 3)).astype(np.float32)
    eligible = rng.random(300) < 0.5
    expected = reference.greedy_multiclass_nms(boxes.tolist(), scores.tolist(), 0.45, 100, eligible)
    assert run_multiclass_nms(boxes, scores, 300, 100, eligible) == expected
    assert run_multiclass_nms(
        make_boxes_of_widths(1, 1, 1), [[0.9], [0.8], [0.7]], 3, 2, np.array([False, True, True])
    ) == [(1, 0)]
    assert run_multiclass_nms(make_boxes_of_widths(1, 1), [[0.9], [0.8]], 3, 1, np.array([False, True])) == []


def test_multiclass_nms_treats_classes_separately():
    assert run_multiclass_nms(make_boxes_of_widths(1, 1), [[0.9, 0.6], [0.8, 0.7]]) == [(0, 0), (1, 1)]
    scores = np.zeros((601, 2))
    scores[:, 0], scores[600, 1] = np.linspace(1, 0.1, 601), 0.05
    assert run_multiclass_nms(make_row_of_boxes(601, 2), scores, 700, 300) == [(i, 0) for i in range(300)] + [(600, 1)]


def test_multiclass_nms_treats_scores_at_the_threshold_and_nan_as_padding():
    scores = [[0.5, 0.25], [0.25, 0.75], [np.nan, np.nan], [0.2, 0.25]]
    assert run_multiclass_nms(make_row_of_boxes(4, 2), scores, score_threshold=0.25) == [(1, 1), (0, 0)]
    assert run_multiclass_nms(make_row_of_boxes(4, 2), scores) == [(1, 1), (0, 0), (0, 1), (1, 0), (3, 1), (3, 0)]
    for classes in (2, 150):  # XLA's maximum propagates NaN or drops it, depending on the shape
        # The rows of NaN fill more than one block.
        many_scores = np.where(np.arange(600)[:, None] < 599, np.nan, np.linspace(0.2, 0.1, classes))
        assert run_multiclass_nms(make_row_of_boxes(600, 2), many_scores) == [
            (599, c) for c in range(min(classes, 100))
        ]


def test_multiclass_nms_processes_a_box_of_many_classes_in_several_blocks():
    scores = np.linspace(1, 0.5, 600).reshape(2, 300)
    assert run_multiclass_nms(make_boxes_of_widths(1, 1), scores, 600) == [(0, c) for c in range(300)]


def test_nms_under_vmap_equals_single_images():
    # One image has only padding, and one needs many blocks.
    rng = np.random.default_rng(2)
    boxes = np.stack([make_random_boxes(rng, 600, side) for side in (0.3, 0.3, 0.9)])
    scores = rng.uniform(0, 1, (3, 600)).astype(np.float32) * np.array([[1], [0], [1]], np.float32)
    indices, valid = jax.jit(jax.vmap(lambda b, s: nms(b, s, 0.45, 50)))(jnp.asarray(boxes), jnp.asarray(scores))
    for i in range(3):
        expected = reference.greedy_nms(boxes[i].tolist(), scores[i], 0.45)[:50]
        assert indices[i][valid[i]].tolist() == expected
