"""What is said of two lists of detections."""

import numpy as np
import pytest

from ssd_jax.inference.detections import ImageDetections
from ssd_jax.weights.torch_reference import Found
from ssd_jax.weights.verification import compare_found

BOXES = [(0.1, 0.1, 0.3, 0.4), (0.2, 0.3, 0.6, 0.8), (0.0, 0.0, 1.0, 1.0), (0.5, 0.5, 0.53, 0.53)]
THEIRS = [Found(2, 0.9, BOXES[0]), Found(1, 0.8, BOXES[1]), Found(1, 0.8 - 5e-7, BOXES[2]), Found(2, 0.3, BOXES[3])]
WIDTH, HEIGHT = 200, 100


def ours(*order: int, shift: float = 0.0, more: float = 0.0) -> ImageDetections:
    """THEIRS in this order; boxes moved by so many pixels, scores raised."""
    chosen = [THEIRS[i] for i in order]
    boxes = np.array([f.box for f in chosen], np.float32).reshape(-1, 4) * [WIDTH, HEIGHT, WIDTH, HEIGHT] + shift
    scores = np.array([f.score + more for f in chosen], np.float32)
    return ImageDetections(boxes.astype(np.float32), scores, np.array([f.label for f in chosen], np.int32))


@pytest.mark.parametrize(
    ("found", "strangers"),
    [
        (ours(0, 1, 2, 3), 0),
        (ours(0, 2, 1, 3), 0),  # scores closer than 1e-5
        (ours(0, 1, 3, 2), 1),  # out of order
        (ours(0, 1, 2), 1),
        (ours(1, 2, 3), 1),
        (ours(), 4),
        (ours(0, 1, 2, 3, 3), 1),
        (ours(0, 1, 2, 3, shift=0.009), 0),
        (ours(0, 1, 2, 3, shift=0.011), 8),
        (ours(0, 1, 2, 3, more=9e-6), 0),
        (ours(0, 1, 2, 3, more=2e-5), 8),
    ],
)
def test_detections_that_differ(found, strangers):
    number, boxes, scores = compare_found(found, THEIRS, WIDTH, HEIGHT)
    assert number.difference == strangers and number.holds == (strangers == 0)
    assert boxes.holds and scores.holds, "of those in both"


def test_a_label_is_part_of_a_detection():
    other = ours(0, 1, 2, 3)._replace(labels=np.array([1, 1, 1, 2], np.int32))
    assert compare_found(other, THEIRS, WIDTH, HEIGHT)[0].difference == 2


def test_nothing_on_both_sides():
    assert all(row.holds for row in compare_found(ours(), [], WIDTH, HEIGHT))
