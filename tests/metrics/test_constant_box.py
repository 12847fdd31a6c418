"""Tests of the constant boxes: slow obvious code, and degenerate splits."""

import numpy as np
import pytest
from helpers.reference import voc_iou
from helpers.splits import make_image_detections, make_random_split, make_test_annotation

from ssd_jax.data.source import make_annotation
from ssd_jax.metrics import average_precision, constant_box

NAMES = ("ant", "bee", "cat")


def compute_mean_boxes_slowly(annotations, label):
    """Return the mean of the relative boxes of a class, clipped to the image, or None."""
    boxes = []
    for a in annotations:
        for box, own, difficult, crowd in zip(a.boxes_px, a.labels, a.difficult, a.crowd, strict=True):
            if own == label and not difficult and not crowd:
                sizes = (a.width, a.height, a.width, a.height)
                boxes.append([min(max(v / size, 0), 1) for v, size in zip(box.tolist(), sizes, strict=True)])
    return [sum(values) / len(boxes) for values in zip(*boxes, strict=True)] if boxes else None


@pytest.mark.parametrize("seed", range(3))
def test_compute_mean_boxes_equals_slow_code(seed):
    _, annotations = make_random_split(seed)
    actual = constant_box.compute_mean_boxes(annotations, 4)
    for label in (1, 2, 3):
        np.testing.assert_allclose(actual[label - 1], compute_mean_boxes_slowly(annotations, label), rtol=1e-6)
    assert np.isnan(actual[3]).all()


def test_constant_boxes_follow_the_size_of_each_image():
    training = [make_annotation("a", "a.jpg", (100, 50), [(10, 10, 30, 20), (30, 20, 50, 40)], [2, 2])]
    boxes = constant_box.compute_mean_boxes(training, 3)
    images = [make_annotation("b", "b.jpg", (200, 200), [], []), make_annotation("c", "c.jpg", (10, 10), [], [])]
    first, second = constant_box.detect_constant_boxes(boxes, images)
    np.testing.assert_allclose(first.boxes_px, [[40, 60, 80, 120]])  # the mean is 0.2, 0.3, 0.4, 0.6
    np.testing.assert_allclose(second.boxes_px, [[2, 3, 4, 6]])
    assert first.labels.tolist() == [2] and first.scores.tolist() == [1]


@pytest.mark.parametrize("seed", range(3))
def test_evaluate_constant_boxes_equals_the_metrics_of_such_detections(seed):
    _, annotations = make_random_split(seed, images=30)
    rows, correct, objects = [], 0, 0
    for a in annotations:
        rows.append([])
        for label in (1, 2, 3):
            relative = compute_mean_boxes_slowly(annotations, label)
            box = [v * size for v, size in zip(relative, (640, 480, 640, 480), strict=True)]
            rows[-1].append((box, 1.0, label))
            overlaps = [
                (voc_iou([float(np.float32(v)) for v in box], g), ignored)
                for g, own, ignored in zip(a.boxes_px.tolist(), a.labels, a.difficult | a.crowd, strict=True)
                if own == label
            ]
            best, ignored = max(overlaps, key=lambda pair: pair[0], default=(0, False))
            correct += best >= 0.5 and not ignored
            objects += sum(not i for _, i in overlaps)
    detections = [make_image_detections(*image) for image in rows]
    voc = average_precision.evaluate_voc(detections, annotations, NAMES)
    actual = constant_box.evaluate_constant_boxes("train", annotations, annotations, NAMES)
    assert actual.voc_map_area == pytest.approx(voc["voc_map_area"])
    assert actual.voc_map_11point == pytest.approx(voc["voc_map_11point"])
    assert actual.coco_ap == pytest.approx(average_precision.evaluate_coco(detections, annotations, NAMES)["coco_ap"])
    assert actual.recall == pytest.approx(correct / objects)


def test_precision_and_recall_of_constant_boxes_equal_hand_computed_numbers():
    """The mean ant is in the left half. It finds one of the two ants of three images."""
    training = [make_annotation("a", "a.jpg", (10, 10), [(0, 0, 5, 10)], [1])]
    measured = [
        make_annotation("b", "b.jpg", (10, 10), [(0, 0, 5, 9)], [1]),
        make_annotation("c", "c.jpg", (10, 10), [(5, 0, 10, 10)], [1]),
        make_annotation("d", "d.jpg", (10, 10), [], []),
    ]
    result = constant_box.evaluate_constant_boxes("train", training, measured, NAMES)
    assert (result.split, result.precision, result.recall) == ("train", pytest.approx(1 / 3), 1 / 2)
    assert result.voc_map_area == pytest.approx(1 / 2)


@pytest.mark.parametrize("annotations", [[], [make_test_annotation()], [make_test_annotation([(0, 0, 9, 9)], [1])]])
def test_constant_boxes_of_an_empty_train_split_find_nothing(annotations):
    result = constant_box.evaluate_constant_boxes("train", [], annotations, NAMES)
    has_objects = bool(annotations) and len(annotations[0].labels) > 0
    assert result == ("train", *[0.0 if has_objects else None] * 3, None, 0.0 if has_objects else None)
