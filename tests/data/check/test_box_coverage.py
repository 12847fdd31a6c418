"""Default boxes against objects: the quick way equals a look at every box."""

import dataclasses

import numpy as np
import pytest

from ssd_jax import config
from ssd_jax.data.check.box_coverage import (
    Coverage,
    advice,
    best_iou,
    compare_box_configs,
    coverage_by_class,
    coverage_by_size,
    size_bin,
)  # fmt: skip
from ssd_jax.ops.default_boxes import make_default_boxes

LAYOUTS = {
    "ssd300": config.SSD300_VOC_BOXES,  # its fixed steps put centres beyond the border
    "ssd512": config.SSD512_COCO_BOXES,
    "ssd500": config.SSD500_VOC_BOXES,  # clipped at the corners
    "sizes": dataclasses.replace(config.SSD300_COCO_BOXES, clip="sizes"),
    "center_size": dataclasses.replace(config.SSD300_VOC_BOXES, clip="center_size"),
}


def iou_of_all(box, layout):
    """In float64, one default box at a time in numpy's rows."""
    cx, cy, w, h = make_default_boxes(layout).astype(np.float64).T
    x1, y1, x2, y2 = (float(edge) for edge in box)
    across = np.clip(np.minimum(x2, cx + w / 2) - np.maximum(x1, cx - w / 2), 0, None)
    down = np.clip(np.minimum(y2, cy + h / 2) - np.maximum(y1, cy - h / 2), 0, None)
    shared = across * down
    union = w * h + (x2 - x1) * (y2 - y1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0).max()


@pytest.mark.parametrize("name", LAYOUTS)
def test_best_iou_is_that_of_all_default_boxes(name):
    rng = np.random.default_rng(0)
    center, extent = rng.random((150, 2)), rng.random((150, 2)) ** 3
    boxes = np.concatenate([center - extent / 2, center + extent / 2], axis=1).clip(0, 1)
    odd = [[0, 0, 1, 1], [0, 0, 0.01, 0.01], [0.99, 0.99, 1, 1], [0, 0.4, 1, 0.41], [0.5, 0.5, 0.5, 0.6]]
    boxes = np.concatenate([boxes, odd]).astype(np.float32)
    found = best_iou(boxes, LAYOUTS[name])
    np.testing.assert_allclose(found, [iou_of_all(box, LAYOUTS[name]) for box in boxes], atol=2e-6)
    assert found[-1] == 0


def test_a_default_box_fits_itself_and_no_objects_are_none():
    cx, cy, w, h = make_default_boxes(config.SSD300_VOC_BOXES)[4000]
    assert best_iou(np.array([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]]), config.SSD300_VOC_BOXES) > 0.9999
    assert best_iou(np.zeros((0, 4), np.float32), config.SSD300_VOC_BOXES).shape == (0,)


def test_shares_count_by_class_and_by_size():
    below = np.array([True, False, True, False])
    by_class = coverage_by_class(below, np.array([1, 1, 3, 3], np.int32), ("cat", "dog", "bird"))
    assert by_class == {"cat": Coverage(2, 1), "dog": Coverage(0, 0), "bird": Coverage(2, 1)}
    assert [str(share) for share in by_class.values()] == ["50.0%", "-", "50.0%"]
    sides = np.array([15.9, 16, 127, 128]) / 300
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    bins = size_bin(boxes, 300)
    assert bins.tolist() == [0, 1, 3, 4]
    by_size = coverage_by_size(below, bins)
    assert by_size["below 16 px"] == Coverage(1, 1) and by_size["64 to 128 px"] == Coverage(1, 1)
    assert by_size["32 to 64 px"] == Coverage(0, 0) and by_size["128 and more px"] == Coverage(1, 0)


def squares(side_px, count=50, image_size=300):
    rng = np.random.default_rng(1)
    side = side_px / image_size
    corner = rng.random((count, 2)) * (1 - side)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def told(boxes, layout):
    others = compare_box_configs(boxes, 0.5)
    own = Coverage(len(boxes), int((best_iou(boxes, layout) < 0.5).sum()))
    return advice(own, others, boxes, layout)


def test_advice_follows_the_objects():
    assert "nothing to change" in told(squares(60), config.SSD300_VOC_BOXES)
    # 16 px of 300 fit no box of VOC's, whose smallest is 30, but one of COCO's of 21.
    assert "SSD300, COCO's boxes" in told(squares(17), config.SSD300_VOC_BOXES)
    # 11 px of 300 are 19 px of 512, where COCO's smallest is 20.
    assert "larger input" in told(squares(11), config.SSD300_VOC_BOXES)
    assert "smaller than the smallest default box (30 px of 300)" in told(squares(3), config.SSD300_VOC_BOXES)
    long = np.array([[0.1, 0.5, 0.9, 0.52]] * 20, np.float32)
    assert "aspect_ratios" in told(long, config.SSD300_VOC_BOXES)
    assert "without objects" in told(np.zeros((0, 4), np.float32), config.SSD300_VOC_BOXES)
