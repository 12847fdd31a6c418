"""Tests of the coverage of objects by default boxes. The expected IoU is the maximum over all default boxes."""

import dataclasses

import numpy as np
import pytest

from ssd_jax import config
from ssd_jax.config import Config, Data
from ssd_jax.data.check.box_coverage import (
    PUBLISHED,
    Coverage,
    best_iou,
    coverage_by_class,
    coverage_by_published_boxes,
    coverage_by_size,
    measure_box_coverage,
    size_bins,
    suggest_box_change,
)
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.ops.default_boxes import make_default_boxes

BOX_CONFIGS = {
    "ssd300": config.SSD300_VOC_BOXES,  # with its fixed steps, some centres are outside the image
    "ssd512": config.SSD512_COCO_BOXES,
    "corners": dataclasses.replace(config.SSD300_VOC_BOXES, clip="corners"),
    "sizes": dataclasses.replace(config.SSD300_COCO_BOXES, clip="sizes"),
    "center_size": dataclasses.replace(config.SSD300_VOC_BOXES, clip="center_size"),
}


def compute_max_iou(box, box_config):
    """Return the highest IoU of a box with any default box, computed in float64."""
    cx, cy, w, h = make_default_boxes(box_config).astype(np.float64).T
    x1, y1, x2, y2 = (float(edge) for edge in box)
    width = np.clip(np.minimum(x2, cx + w / 2) - np.maximum(x1, cx - w / 2), 0, None)
    height = np.clip(np.minimum(y2, cy + h / 2) - np.maximum(y1, cy - h / 2), 0, None)
    intersection = width * height
    union = w * h + (x2 - x1) * (y2 - y1) - intersection
    return np.where(union > 0, intersection / np.where(union > 0, union, 1), 0).max()


@pytest.mark.parametrize("name", BOX_CONFIGS)
def test_best_iou_equals_the_maximum_over_all_default_boxes(name):
    """Use more objects than fit into one chunk, including very small, very long and empty boxes."""
    rng = np.random.default_rng(0)
    center, extent = rng.random((300, 2)), rng.random((300, 2)) ** 3
    boxes = np.concatenate([center - extent / 2, center + extent / 2], axis=1).clip(0, 1)
    odd = [[0, 0, 1, 1], [0, 0, 0.01, 0.01], [0.99, 0.99, 1, 1], [0, 0.4, 1, 0.41], [0.5, 0.5, 0.5, 0.6]]
    boxes = np.concatenate([boxes, odd]).astype(np.float32)
    result = best_iou(boxes, BOX_CONFIGS[name])
    checked = [*range(0, 250, 5), *range(250, len(boxes))]
    expected = [compute_max_iou(boxes[k], BOX_CONFIGS[name]) for k in checked]
    np.testing.assert_allclose(result[checked], expected, atol=2e-6)
    assert result[-1] == 0


@pytest.mark.parametrize("name", ["ssd300", "corners"])
def test_best_iou_is_one_for_a_default_box_and_empty_for_no_boxes(name):
    cx, cy, w, h = make_default_boxes(BOX_CONFIGS[name])[4000]
    assert best_iou(np.array([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]]), BOX_CONFIGS[name]) > 0.9999
    assert best_iou(np.zeros((0, 4), np.float32), BOX_CONFIGS[name]).shape == (0,)


def test_coverage_is_counted_by_class_and_by_size():
    unmatched = np.array([True, False, True, False])
    by_class = coverage_by_class(unmatched, np.array([1, 1, 3, 3], np.int32), ("cat", "dog", "bird"))
    assert by_class == {"cat": Coverage(2, 1), "dog": Coverage(0, 0), "bird": Coverage(2, 1)}
    assert [str(coverage) for coverage in by_class.values()] == ["50.0%", "-", "50.0%"]
    sides = np.array([15.9, 16, 127, 128]) / 300
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    bins = size_bins(boxes, 300)
    assert bins.tolist() == [0, 1, 3, 4]
    by_size = coverage_by_size(unmatched, bins)
    assert by_size["below 16 px"] == Coverage(1, 1) and by_size["64 to 128 px"] == Coverage(1, 1)
    assert by_size["32 to 64 px"] == Coverage(0, 0) and by_size["128 and more px"] == Coverage(1, 0)


def test_measure_box_coverage_counts_only_objects_used_in_training():
    """Use two large objects, and three of 1 x 1 px that match no default box, in an image of 100 x 100 px.

    One of the small objects is difficult, and another one is a crowd.
    """
    boxes = [[0, 0, 60, 60], [5, 5, 6, 6], [7, 7, 8, 8], [9, 9, 10, 10], [-20, 0, 30, 50]]
    flags = {"difficult": [False, False, True, False, False], "crowd": [False, False, False, True, False]}
    source = FolderSource([make_annotation("a", "a.jpg", (100, 100), boxes, [1, 1, 1, 1, 2], **flags)], ("cat", "dog"))
    for train_on_difficult, count in ((True, 4), (False, 3)):
        data = Data(train_on_difficult=train_on_difficult)
        coverage = measure_box_coverage(source, Config(data=data))
        assert coverage.all == (count, count - 2) and coverage.by_class["dog"] == (1, 0)
        assert set(coverage.published) == set(PUBLISHED)
        np.testing.assert_allclose(coverage.boxes[-1], [0, 0, 0.3, 0.5])


def make_random_squares(side_px, count=50, image_size=300):
    rng = np.random.default_rng(1)
    side = side_px / image_size
    corner = rng.random((count, 2)) * (1 - side)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (make_random_squares(60), "nothing to change"),
        (
            make_random_squares(17),
            "SSD300, COCO's boxes",
        ),  # the smallest default box is 30 px wide for VOC, 21 px for COCO
        (
            make_random_squares(11),
            "larger input",
        ),  # in an input of 512 px, these have 19 px; COCO's smallest default box is 20 px wide
        (make_random_squares(3), "smallest default box (30 px of 300)"),
        (np.array([[0.1, 0.5, 0.9, 0.52]] * 20, np.float32), "aspect_ratios"),
        (np.zeros((0, 4), np.float32), "without objects"),
    ],
)
def test_suggest_box_change_depends_on_the_objects(boxes, words):
    box_config = config.SSD300_VOC_BOXES
    own = Coverage(len(boxes), int((best_iou(boxes, box_config) < 0.5).sum()))
    assert words in suggest_box_change(own, coverage_by_published_boxes(boxes, 0.5), boxes, box_config)
