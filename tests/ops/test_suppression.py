"""Greedy NMS against a plain loop, and on boxes made so that the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from ssd_jax.ops.suppression import multiclass_nms, nms

compiled = jax.jit(nms, static_argnames=("iou_threshold", "max_outputs"))
compiled_of_classes = jax.jit(
    multiclass_nms, static_argnames=("iou_threshold", "max_outputs", "score_threshold", "top_k")
)


def kept(boxes, scores, iou_threshold=0.45, max_outputs=100):
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    indices, valid = compiled(boxes, scores, iou_threshold, max_outputs)
    assert indices.shape == valid.shape == (max_outputs,)
    indices, valid = np.asarray(indices), np.asarray(valid)
    assert not indices[~valid].any()
    assert not valid[valid.sum() :].any()  # the valid ones come first
    return indices[valid].tolist()


def kept_of_classes(boxes, scores, max_outputs=100, top_k=None, eligible=None, score_threshold=0.0):
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    kept = jax.tree.map(
        np.asarray, compiled_of_classes(boxes, scores, 0.45, max_outputs, score_threshold, top_k, eligible)
    )
    count = kept.valid.sum()
    assert not any(field[count:].any() for field in kept), "padding is zeros, and last"
    return list(zip(kept.boxes[:count].tolist(), kept.classes[:count].tolist(), strict=True))


def random_boxes(rng, count, side=0.3):
    center, size = rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, side, (count, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=1).astype(np.float32)


def row_of_boxes(count, shift):
    """Boxes of width 1, each moved right by shift."""
    left = np.arange(count) * shift
    return np.stack([left, np.zeros(count), left + 1, np.ones(count)], axis=1)


def spans(*widths):
    """Boxes of height 1 from 0 to each width: the IoU of two is the quotient of their widths."""
    return [[0, 0, width, 1] for width in widths]


@pytest.mark.parametrize(
    ("count", "side", "iou_threshold"),
    [(1, 0.3, 0.45), (255, 0.9, 0.45), (601, 0.1, 0.0), (601, 0.4, 0.45), (601, 0.9, 0.45), (601, 0.4, 0.7)],
)
def test_agrees_with_plain_loop(count, side, iou_threshold):
    rng = np.random.default_rng(count)
    boxes, scores = random_boxes(rng, count, side), rng.uniform(0, 1, count).astype(np.float32)
    expected = reference.greedy_nms(boxes.tolist(), scores, iou_threshold)
    assert kept(boxes, scores, iou_threshold, 601) == expected


def test_many_agree_with_plain_loop_cut_to_the_best():
    # The cut falls inside a block, at its end, and in a later one.
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(rng, 601, 0.15), rng.uniform(0, 1, 601).astype(np.float32)
    expected = reference.greedy_nms(boxes.tolist(), scores, 0.45)
    assert len(expected) > 400
    for max_outputs in (5, 256, 400):
        assert kept(boxes, scores, 0.45, max_outputs) == expected[:max_outputs]


def test_many_ties_agree_with_plain_loop():
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 601), rng.integers(-1, 4, 601) / 4
    assert kept(boxes, scores, max_outputs=601) == reference.greedy_nms(boxes.tolist(), scores, 0.45)


def test_a_suppressed_box_suppresses_nothing():
    # Neighbours overlap by 0.7 / 1.3, next but one by 0.4 / 1.6: the first removes the second, so the third stays.
    assert kept(row_of_boxes(3, 0.3), [0.9, 0.8, 0.7]) == [0, 2]
    assert kept(row_of_boxes(3, 0.3), [0.8, 0.9, 0.7]) == [1]


def test_long_chain_alternates():
    # Settles one box a round, and crosses blocks.
    scores = np.linspace(1, 0.1, 601)
    assert kept(row_of_boxes(601, 0.3), scores, max_outputs=601) == list(range(0, 601, 2))
    assert kept(row_of_boxes(601, 0.3), scores[::-1], max_outputs=601) == list(range(600, -1, -2))


def test_suppressed_across_blocks():
    # The first box covers the last of 601; those between lie apart.
    boxes = np.concatenate([row_of_boxes(600, 2), [[0, 0, 1, 0.9]]])
    assert kept(boxes, np.linspace(1, 0.1, 601), max_outputs=601) == list(range(600))


@pytest.mark.parametrize(
    ("widths", "iou_threshold"),
    [((2, 1), 0.5), ((20, 9), 0.45), ((1, 1), 1.0)],
)
def test_iou_on_the_threshold_does_not_suppress(widths, iou_threshold):
    # Both quotient and threshold are the float32 nearest to the same number.
    assert kept(spans(*widths), [0.9, 0.8], iou_threshold) == [0, 1]
    assert kept(spans(*widths), [0.9, 0.8], float(np.nextafter(np.float32(iou_threshold), np.float32(0)))) == [0]


def test_sides_of_the_threshold():
    assert kept(spans(1000, 449), [0.9, 0.8]) == [0, 1]
    assert kept(spans(1000, 451), [0.9, 0.8]) == [0]


def test_ties_go_to_the_lower_index():
    assert kept(spans(1, 1, 1), [0.5, 0.5, 0.5]) == [0]
    assert kept(row_of_boxes(4, 2), [0.5, 0.7, 0.5, 0.7]) == [1, 3, 0, 2]


def test_zero_scores_negative_and_nan_are_padding():
    scores = [0.0, -1.0, -np.inf, np.nan, 0.5, -0.0]
    assert kept(row_of_boxes(6, 2), scores) == [4]
    assert kept(spans(1, 1, 1, 1, 1, 1), scores) == [4]  # padding suppresses nothing
    assert kept(row_of_boxes(3, 2), [0, -np.inf, np.nan]) == []


def test_more_nan_than_a_block_hide_no_box():
    assert kept(row_of_boxes(601, 2), [np.nan] * 600 + [0.5], max_outputs=601) == [600]


def test_max_outputs():
    boxes, scores = row_of_boxes(5, 2), [0.1, 0.2, 0.3, 0.4, 0.5]
    assert kept(boxes, scores, max_outputs=3) == [4, 3, 2]
    assert kept(boxes, scores, max_outputs=5) == [4, 3, 2, 1, 0]
    assert kept(boxes, scores, max_outputs=9) == [4, 3, 2, 1, 0]
    assert kept(boxes, scores, max_outputs=0) == []


def test_without_boxes():
    assert kept(np.zeros((0, 4)), np.zeros(0), max_outputs=3) == []


def test_boxes_without_area_overlap_nothing():
    assert kept([[0.5, 0.5, 0.5, 0.5]] * 2 + [[0, 0, 1, 1], [0.2, 0, 0.2, 1]], [0.4, 0.3, 0.9, 0.8]) == [2, 3, 0, 1]


@pytest.mark.parametrize("levels", [None, 3, 1], ids=["distinct", "three_levels", "all_tied"])
@pytest.mark.parametrize(("count", "classes"), [(1, 1), (300, 4), (40, 9), (300, 1), (7, 200)])
@pytest.mark.parametrize(("share", "top_k"), [(1.0, None), (0.1, None), (1.0, 25)])
def test_classes_agree_with_plain_loop(count, classes, levels, share, top_k):
    """Blocks end among ties, within a row and between rows; few boxes and many classes, and the reverse."""
    rng = np.random.default_rng(count)
    boxes, scores = random_boxes(rng, count, 0.6), rng.uniform(0.01, 1, (count, classes)).astype(np.float32)
    if levels is not None:
        scores = np.ceil(scores * levels) / levels
    scores = np.where(rng.random(scores.shape) < share, scores, 0)
    expected = reference.greedy_multiclass_nms(boxes.tolist(), scores.tolist(), 0.45, top_k)
    for most in (200, 1500):
        assert kept_of_classes(boxes, scores, most, top_k) == expected[:most]


def test_boxes_not_eligible_count_for_top_k_and_suppress_nothing():
    rng = np.random.default_rng(1)
    boxes, scores = random_boxes(rng, 300, 0.6), rng.uniform(0, 1, (300, 3)).astype(np.float32)
    eligible = rng.random(300) < 0.5
    expected = reference.greedy_multiclass_nms(boxes.tolist(), scores.tolist(), 0.45, 100, eligible)
    assert kept_of_classes(boxes, scores, 300, 100, eligible) == expected
    assert kept_of_classes(spans(1, 1, 1), [[0.9], [0.8], [0.7]], 3, 2, np.array([False, True, True])) == [(1, 0)]
    assert kept_of_classes(spans(1, 1), [[0.9], [0.8]], 3, 1, np.array([False, True])) == []


def test_classes_do_not_suppress_each_other_and_top_k_is_of_each():
    assert kept_of_classes(spans(1, 1), [[0.9, 0.6], [0.8, 0.7]]) == [(0, 0), (1, 1)]
    scores = np.zeros((601, 2))
    scores[:, 0], scores[600, 1] = np.linspace(1, 0.1, 601), 0.05
    assert kept_of_classes(row_of_boxes(601, 2), scores, 700, 300) == [(i, 0) for i in range(300)] + [(600, 1)]


def test_scores_on_the_threshold_and_nan_are_padding():
    scores = [[0.5, 0.25], [0.25, 0.75], [np.nan, np.nan], [0.2, 0.25]]
    assert kept_of_classes(row_of_boxes(4, 2), scores, score_threshold=0.25) == [(1, 1), (0, 0)]
    assert kept_of_classes(row_of_boxes(4, 2), scores) == [(1, 1), (0, 0), (0, 1), (1, 0), (3, 1), (3, 0)]
    for classes in (2, 150):  # XLA's maximum passes NaN on, or drops it, as the shape will have it
        hundreds = np.where(np.arange(600)[:, None] < 599, np.nan, np.linspace(0.2, 0.1, classes))  # more than a block
        assert kept_of_classes(row_of_boxes(600, 2), hundreds) == [(599, c) for c in range(min(classes, 100))]


def test_a_box_of_many_classes_is_looked_at_in_block_after_block():
    scores = np.linspace(1, 0.5, 600).reshape(2, 300)
    assert kept_of_classes(spans(1, 1), scores, 600) == [(0, c) for c in range(300)]


def test_vmap_and_jit_give_each_image_its_own_answer():
    # Of unlike length: one image is all padding, one needs many blocks.
    rng = np.random.default_rng(2)
    boxes = np.stack([random_boxes(rng, 600, side) for side in (0.3, 0.3, 0.9)])
    scores = rng.uniform(0, 1, (3, 600)).astype(np.float32) * np.array([[1], [0], [1]], np.float32)
    indices, valid = jax.jit(jax.vmap(lambda b, s: nms(b, s, 0.45, 50)))(jnp.asarray(boxes), jnp.asarray(scores))
    for i in range(3):
        expected = reference.greedy_nms(boxes[i].tolist(), scores[i], 0.45)[:50]
        assert indices[i][valid[i]].tolist() == expected
