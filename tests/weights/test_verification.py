"""Tests of comparing detections with those of the reference, and of formatting the comparisons."""

import sys

import helpers.published_keys as published
import numpy as np
import pytest
from helpers.published_files import save_safetensors

from ssd_jax.commands.verify import format_comparisons
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.weights.torch_reference import Detection
from ssd_jax.weights.verification import Comparison, compare_detections, make_sample_image, verify_weights

BOXES = [(0.1, 0.1, 0.3, 0.4), (0.2, 0.3, 0.6, 0.8), (0.0, 0.0, 1.0, 1.0), (0.5, 0.5, 0.53, 0.53)]
EXPECTED = [
    Detection(2, 0.9, BOXES[0]),
    Detection(1, 0.8, BOXES[1]),
    Detection(1, 0.8 - 5e-7, BOXES[2]),
    Detection(2, 0.3, BOXES[3]),
]
WIDTH, HEIGHT = 200, 100


def make_detections(*order: int, shift: float = 0.0, score_shift: float = 0.0) -> ImageDetections:
    """Return the detections of EXPECTED with the given indices, after shifting boxes (in pixels) and scores."""
    chosen = [EXPECTED[i] for i in order]
    boxes = np.array([d.box for d in chosen], np.float32).reshape(-1, 4) * [WIDTH, HEIGHT, WIDTH, HEIGHT] + shift
    scores = np.array([d.score + score_shift for d in chosen], np.float32)
    return ImageDetections(boxes.astype(np.float32), scores, np.array([d.label for d in chosen], np.int32))


@pytest.mark.parametrize(
    ("actual", "mismatches"),
    [
        (make_detections(0, 1, 2, 3), 0),
        (make_detections(0, 2, 1, 3), 0),  # the scores of detections 1 and 2 differ by less than 1e-5
        (make_detections(0, 1, 3, 2), 1),  # detections 2 and 3 are swapped
        (make_detections(0, 1, 2), 1),
        (make_detections(1, 2, 3), 1),
        (make_detections(), 4),
        (make_detections(0, 1, 2, 3, 3), 1),
        (make_detections(0, 1, 2, 3, shift=0.009), 0),
        (make_detections(0, 1, 2, 3, shift=0.011), 8),
        (make_detections(0, 1, 2, 3, score_shift=9e-6), 0),
        (make_detections(0, 1, 2, 3, score_shift=2e-5), 8),
    ],
)
def test_compare_detections_counts_mismatches(actual, mismatches):
    number, boxes, scores = compare_detections(actual, EXPECTED, WIDTH, HEIGHT)
    assert number.difference == mismatches and number.passed == (mismatches == 0)
    assert boxes.passed and scores.passed, "only detections in both lists are compared"


def test_compare_detections_compares_labels():
    other = make_detections(0, 1, 2, 3)._replace(labels=np.array([1, 1, 1, 2], np.int32))
    assert compare_detections(other, EXPECTED, WIDTH, HEIGHT)[0].difference == 2


def test_compare_detections_passes_for_two_empty_lists():
    assert all(comparison.passed for comparison in compare_detections(make_detections(), [], WIDTH, HEIGHT))


def test_comparison_with_nan_fails():
    assert not Comparison("conv1_1", (1,), 1.0, float("nan"), 1.0).passed


def test_format_comparisons_returns_a_row_per_comparison_and_marks_failures():
    lines = format_comparisons(
        [Comparison("conv1_1", (2, 3), 0.5, 1e-6, 5e-5), Comparison("scores", (4,), 1.0, 2e-5, 1e-5)]
    ).splitlines()
    assert lines[0].split() == ["shape", "largest", "difference", "relative", "tolerance"]
    assert lines[1].split() == ["conv1_1", "2", "x", "3", "0.5", "1.00e-06", "2.0e-06", "5.0e-05"]
    assert lines[2].split()[:6] == ["scores", "4", "1", "2.00e-05", "2.0e-05", "1.0e-05"]
    assert "<--" in lines[2] and "<--" not in lines[1]


def test_verify_weights_requires_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    file = save_safetensors(tmp_path / "file", published.make_random_ssd_pytorch(6, 21, 0.125))
    with pytest.raises(UserError, match=r"torch.*\[parity\]"):
        verify_weights(file, make_sample_image())


def test_make_sample_image_returns_the_same_image_on_every_call():
    image = make_sample_image()
    assert image.shape == (375, 500, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, make_sample_image())
