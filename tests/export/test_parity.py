"""Tests of the comparison of a file with the original, on lists of detections that are made by hand."""

import dataclasses

import numpy as np
import pytest
from helpers.tiny_detector import CONFIG

from ssd_jax.config import Detect
from ssd_jax.export.parity import compare_detections, format_parity, is_within_tolerance
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections

LIMITS = dataclasses.replace(CONFIG, detect=Detect(score_threshold=0.1, max_detections=9))


def make_detections(*rows: tuple[float, int, float]) -> ImageDetections:
    """Return detections with these scores and labels, and boxes of 20 px that begin at the third number."""
    boxes = np.array([[x, 5, x + 20, 25] for _, _, x in rows], np.float32).reshape(-1, 4)
    return ImageDetections(boxes, np.array([r[0] for r in rows], np.float32), np.array([r[1] for r in rows], np.int32))


IMAGE = make_detections((0.9, 1, 0), (0.8, 2, 0), (0.5, 1, 40), (0.3, 1, 80))


def test_equal_detections_have_no_difference():
    parity = compare_detections([IMAGE, NO_DETECTIONS], [IMAGE, NO_DETECTIONS], LIMITS)
    assert (parity.pictures, parity.detections, parity.boxes, parity.scores) == (2, 4, 0, 0)
    assert parity.same_order and parity.alone == parity.near == 0 and is_within_tolerance(parity)


@pytest.mark.parametrize(
    ("box", "score", "is_within"), [(0.05, 0, True), (0.2, 0, False), (0, 5e-5, True), (0, 3e-4, False)]
)
def test_largest_differences_of_boxes_and_scores_are_found_and_limited(box, score, is_within):
    other = make_detections((0.9, 1, 0), (0.8 - score, 2, 0 - box), (0.5, 1, 40), (0.3, 1, 80))
    parity = compare_detections([IMAGE], [other], LIMITS)
    assert parity.boxes == pytest.approx(box, abs=1e-6) and parity.scores == pytest.approx(score, abs=1e-6)
    assert parity.same_order and is_within_tolerance(parity) is is_within


def test_other_order_of_equal_scores_is_noticed_and_allowed():
    one = make_detections((0.9, 1, 0), (0.50001, 1, 40), (0.5, 1, 80))
    other = make_detections((0.9, 1, 0), (0.50001, 1, 80), (0.5, 1, 40))
    parity = compare_detections([one], [other], LIMITS)
    assert not parity.same_order and parity.alone == 0 and is_within_tolerance(parity)
    assert parity.scores == pytest.approx(1e-5, abs=1e-6) and parity.boxes == 0


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("extra", "is_near"),
    [
        ((0.2, 1, 60), False),
        ((0.10005, 1, 60), True),  # the threshold is 0.1
        ((0.50005, 1, 200), True),  # a box of the same class with this score may have suppressed it
        ((0.50005, 2, 200), False),
        ((0.9, 2, 0.0), False),  # another class at the same place
    ],
)
def test_detection_of_one_program_only_counts_unless_its_score_is_a_tie(extra, is_near, swap):
    pair = [IMAGE], [make_detections(*zip(IMAGE.scores, IMAGE.labels, IMAGE.boxes_px[:, 0], strict=True), extra)]
    parity = compare_detections(*(pair[::-1] if swap else pair), LIMITS)
    assert (parity.alone, parity.near) == ((0, 1) if is_near else (1, 0))
    assert is_within_tolerance(parity) is is_near and not parity.same_order
    assert f"{parity.alone} detections of only one" in format_parity(parity)
    assert "1 detections of only one" in (text := format_parity(parity, is_int8=True)) and "rounding" not in text


def test_last_of_the_largest_number_of_detections_may_be_another_of_equal_score():
    first = [(0.9, 1, 0), (0.8, 1, 30), (0.7, 1, 60), (0.6, 1, 90)]
    one, other = make_detections(*first, (0.4, 1, 120)), make_detections(*first, (0.40005, 2, 150))
    limited = dataclasses.replace(LIMITS, detect=Detect(score_threshold=0.1, max_detections=5))
    parity = compare_detections([one], [other], limited)
    assert (parity.alone, parity.near) == (0, 2)
    assert compare_detections([one], [other], LIMITS).alone == 2


def test_two_detections_of_one_program_are_not_paired_with_the_same():
    one = make_detections((0.9, 1, 0), (0.8, 1, 0.05))
    parity = compare_detections([one], [make_detections((0.9, 1, 0))], LIMITS)
    assert parity.alone == 1


@pytest.mark.parametrize(("shift", "is_near"), [(0.0, True), (0.01, False)])
def test_detection_whose_overlap_equals_the_threshold_of_nms_is_a_tie(shift, is_near):
    """Two boxes of 20 px overlap with an IoU of 0.45 if the second one is shifted by 20 * 0.55 / 1.45."""
    extra = make_detections(*zip(IMAGE.scores, IMAGE.labels, IMAGE.boxes_px[:, 0], strict=True), (0.2, 1, 80))
    extra.boxes_px[-1, ::2] += 20 * 0.55 / 1.45 + shift
    parity = compare_detections([IMAGE], [extra], LIMITS)
    assert (parity.alone, parity.near) == ((0, 1) if is_near else (1, 0))
