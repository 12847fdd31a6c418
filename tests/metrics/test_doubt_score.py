"""Tests of the scores of doubts against slow, obvious computations."""

import numpy as np
import pytest

from ssd_jax.metrics.doubt_score import (
    Finding,
    score_duplicates,
    score_findings,
    score_unusual_boxes,
)


def test_score_findings_follows_the_formula_for_two_levels_of_scores():
    """With two different scores, the shares g and c are counted by hand."""
    sure = [Finding(0.9, 1, "")] * 90 + [Finding(0.9, 1, "missing")] * 10
    unsure = [Finding(0.3, 1, "")] * 30 + [Finding(0.3, 1, "missing")] * 70
    scores = score_findings([*sure, *unsure])
    # 120 detections agree, of which a quarter, 30, are taken: the first ones of score 0.9, which all agree.
    c = 30.5 / 31
    assert scores[95] == pytest.approx(0.9 * (1 - c) / c * 0.9 / 0.1)
    assert scores[195] == pytest.approx(0.3 * (1 - c) / c * 0.3 / 0.7)


def test_score_findings_are_at_most_the_scores_of_the_detections():
    rng = np.random.default_rng(0)
    findings = [
        Finding(float(rng.random()), int(rng.integers(1, 4)), str(rng.choice(["", "missing", "class"])))
        for _ in range(200)
    ]
    scores = score_findings(findings)
    assert (scores >= 0).all() and (scores <= [f.score for f in findings]).all()
    assert np.isfinite(scores).all()


def test_score_findings_trusts_a_kind_more_that_is_frequent_among_sure_detections():
    agreed = [Finding(0.9, 1, "")] * 80 + [Finding(0.2, 1, "")] * 20
    kinds = [Finding(0.9, 1, "class")] * 10 + [Finding(0.2, 1, "class")] * 5 + [Finding(0.2, 1, "missing")] * 50
    scores = score_findings([*kinds, *agreed])
    assert scores[12] > 2 * scores[20] > 0


def test_score_findings_of_nothing_are_empty():
    assert score_findings([]).shape == (0,)
    assert score_findings([Finding(0.9, 1, "")]).shape == (1,)


def score_unusual_slowly(labels, areas, values, wrong_values, compared=400):
    """Return the scores by comparing each box with all others of its class."""
    result = []
    for k in range(len(labels)):
        order = sorted((i for i in range(len(labels)) if labels[i] == labels[k]), key=lambda i: areas[i])
        place = order.index(k)
        low = min(max(place - compared // 2, 0), max(len(order) - compared, 0))
        near = order[low : low + compared]
        q = sum(values[i] <= values[k] for i in near) / len(near)
        r = (1 + sum(value >= values[k] for value in wrong_values)) / (1 + len(wrong_values))
        result.append(0.01 * r / (0.01 * r + 0.99 * q))
    return result


def test_score_unusual_boxes_equals_a_slow_computation():
    rng = np.random.default_rng(0)
    labels, areas, values = rng.integers(1, 3, 1200).astype(np.int32), rng.random(1200), rng.random(1200)
    values[labels == 2] = np.round(values[labels == 2], 1)  # equal values
    for wrong_values in (np.zeros(0), np.round(0.3 * rng.random(50), 1)):
        scores = score_unusual_boxes(labels, areas, values, wrong_values)
        assert scores == pytest.approx(score_unusual_slowly(labels, areas, values, wrong_values))


def test_score_duplicates_rises_with_the_iou():
    scores = score_duplicates(np.array([0.5, 0.8, 0.95]), np.array([0.7, 0.75, 0.9]))
    assert scores == pytest.approx([1 / 5, 3 / 5, 4 / 5])
    assert score_duplicates(np.array([0.9]), np.zeros(0)) == pytest.approx([0.5])
