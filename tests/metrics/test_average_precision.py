"""Tests of VOC metrics against hand-computed values and plain loops, and of COCO metrics against pycocotools."""

import contextlib
import io
import json
from collections import Counter

import hotcoco
import numpy as np
import pytest
from helpers import reference
from helpers.splits import select_class
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics import average_precision
from ssd_jax.metrics.voc_matching import ScoredBoxes, TrueBoxes, match_class, match_classes


def make_scored_boxes(*rows):
    """Return detections of one class from rows of (x1, y1, x2, y2, score)."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return ScoredBoxes(table[:, :4], table[:, 4])


def make_true_boxes(*rows):
    """Return objects of one class from rows of (x1, y1, x2, y2, ignored)."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return TrueBoxes(table[:, :4], table[:, 4].astype(bool))


def make_annotation(boxes=(), labels=(), difficult=None, crowd=None, area=None):
    """Return the annotation of an image of 640 x 480 px. By default, the area of an object is that of the box."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    box_area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Annotation(
        image_id="a",
        file="a.jpg",
        width=640,
        height=480,
        boxes_px=boxes,
        labels=np.array(labels, np.int32),
        difficult=np.zeros(len(boxes), bool) if difficult is None else np.array(difficult, bool),
        crowd=np.zeros(len(boxes), bool) if crowd is None else np.array(crowd, bool),
        area_px=box_area if area is None else np.array(area, np.float32),
    )


def make_image_detections(boxes=(), scores=(), labels=()):
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


A, B, C = (0, 0, 9, 9), (100, 100, 109, 109), (200, 200, 209, 209)
NOWHERE = (400, 400, 409, 409)


def compute_both_aps(detections, truth, **kwargs):
    """Return the 11-point AP and the area AP."""
    return tuple(
        average_precision.voc_average_precision(detections, truth, eleven_point=e, **kwargs) for e in (True, False)
    )


# ---- VOC, hand-computed ----


def test_voc_average_precision_equals_hand_computed_values():
    """In order of descending score, the detections are A, a wrong box and C. The object B is missed.

    Precision is 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3. The best precision is 1 at the recalls 0 to 0.3 (four points), 2/3
    at 0.4 to 0.6 (three points), and 0 from 0.7 on. The 11-point AP is (4 + 3 * 2/3) / 11 = 6/11, and the area AP is
    1/3 * 1 + 1/3 * 2/3 = 5/9.
    """
    detections = [make_scored_boxes((*A, 0.9), (*NOWHERE, 0.8)), make_scored_boxes((*C, 0.7))]
    truth = [make_true_boxes((*A, 0), (*B, 0)), make_true_boxes((*C, 0))]
    assert compute_both_aps(detections, truth) == pytest.approx((6 / 11, 5 / 9), rel=1e-12)


def test_area_ap_uses_the_monotone_curve():
    """A wrong and then two correct detections give precision 0, 1/2, 2/3. The area AP uses 2/3 at both recalls."""
    detections = [make_scored_boxes((*NOWHERE, 0.9), (*A, 0.8), (*B, 0.7))]
    assert compute_both_aps(detections, [make_true_boxes((*A, 0), (*B, 0))]) == pytest.approx((2 / 3, 2 / 3))


def test_ap_is_one_if_all_objects_are_detected_and_zero_if_none_are():
    truth = [make_true_boxes((*A, 0), (*B, 0)), make_true_boxes()]
    assert compute_both_aps([make_scored_boxes((*A, 0.1), (*B, 0.2)), make_scored_boxes()], truth) == (1.0, 1.0)
    assert compute_both_aps([make_scored_boxes(), make_scored_boxes()], truth) == (0.0, 0.0)


def test_last_pixel_of_a_box_counts_in_the_iou():
    """The IoU of 10 x 10 pixels and their upper half is 50 / 100. Without the last pixels, it would be 36 / 81."""
    assert compute_both_aps([make_scored_boxes((0, 0, 9, 4, 0.9))], [make_true_boxes((*A, 0))]) == (1.0, 1.0)


def test_detection_with_an_iou_below_the_threshold_is_wrong():
    assert compute_both_aps([make_scored_boxes((0, 0, 9, 3, 0.9))], [make_true_boxes((*A, 0))]) == (0.0, 0.0)


def test_iou_threshold_is_inclusive():
    """The IoU of boxes with 10 x 6 and 10 x 8 pixels is 60 / 80."""
    detections, truth = [make_scored_boxes((0, 0, 9, 5, 0.9))], [make_true_boxes((0, 0, 9, 7, 0))]
    assert compute_both_aps(detections, truth, iou_threshold=0.75) == (1.0, 1.0)
    assert compute_both_aps(detections, truth, iou_threshold=0.7500001) == (0.0, 0.0)


def test_second_detection_of_an_object_is_wrong_even_if_it_fits_better():
    """The loose box has the highest score and is correct, the exact box is wrong, and B is detected correctly.

    Precision is 1, 1/2, 2/3 at recall 1/2, 1/2, 1. The 11-point AP has six points of 1 (recall 0 to 0.5) and five of
    2/3. The area AP is 1/2 + 1/2 * 2/3.
    """
    detections = [make_scored_boxes((0, 0, 9, 7, 0.9), (*A, 0.8), (*B, 0.7))]
    truth = [make_true_boxes((*A, 0), (*B, 0))]
    assert compute_both_aps(detections, truth) == pytest.approx(((6 + 5 * 2 / 3) / 11, 5 / 6))


def test_detection_is_compared_only_with_the_object_of_the_highest_iou():
    """Each detection has its highest IoU with A. The second one also fits the neighbour, which is still missed."""
    neighbour = (0, 2, 9, 11)  # IoU with A 80 / 120
    detections = [make_scored_boxes((*A, 0.9), (0, 0, 9, 8, 0.8))]  # IoU with A 0.9, with the neighbour 70 / 120
    assert compute_both_aps(detections, [make_true_boxes((*A, 0), (*neighbour, 0))]) == pytest.approx((6 / 11, 1 / 2))


def test_detections_on_a_difficult_object_are_ignored():
    truth = [make_true_boxes((*A, 1), (*B, 0))]
    assert compute_both_aps([make_scored_boxes((*A, 0.9), (*A, 0.8), (*B, 0.7))], truth) == (1.0, 1.0)


def test_detection_is_ignored_if_a_difficult_object_has_the_highest_iou():
    """The IoU is 0.9 with the difficult object and 0.8 with the ordinary one, so the detection is ignored."""
    truth = [make_true_boxes((0, 0, 9, 8, 1), (0, 0, 9, 7, 0))]
    assert compute_both_aps([make_scored_boxes((*A, 0.9))], truth) == (0.0, 0.0)


def test_detection_with_equal_ious_is_matched_with_the_first_object():
    """Two objects have the same box. Both detections are compared with the first object, which may be difficult."""
    detections = [make_scored_boxes((*A, 0.9), (*A, 0.8))]
    assert compute_both_aps(detections, [make_true_boxes((*A, 0), (*A, 0))]) == pytest.approx((6 / 11, 1 / 2))
    assert compute_both_aps(detections, [make_true_boxes((*A, 1), (*A, 0))]) == (0.0, 0.0)


def test_ap_without_objects_is_nan():
    assert np.isnan(compute_both_aps([make_scored_boxes((*A, 0.9))], [make_true_boxes((*A, 1))])).all()
    assert np.isnan(compute_both_aps([make_scored_boxes((*A, 0.9))], [make_true_boxes()])).all()
    assert np.isnan(compute_both_aps([], [])).all()


def test_detections_with_equal_scores_keep_their_order():
    """With one object, the AP is 1 if the correct detection comes first, and 1/2 if the wrong one comes first."""
    truth = [make_true_boxes(), make_true_boxes((*A, 0))]
    right_first = (
        [make_true_boxes((*A, 0)), make_true_boxes()],
        [make_scored_boxes((*A, 0.5)), make_scored_boxes((*NOWHERE, 0.5))],
    )
    assert compute_both_aps(right_first[1], right_first[0]) == (1.0, 1.0)
    assert compute_both_aps([make_scored_boxes((*NOWHERE, 0.5)), make_scored_boxes((*A, 0.5))], truth) == (0.5, 0.5)
    assert compute_both_aps([make_scored_boxes((*A, 0.5), (*NOWHERE, 0.5))], [make_true_boxes((*A, 0))]) == (1.0, 1.0)
    assert compute_both_aps([make_scored_boxes((*NOWHERE, 0.5), (*A, 0.5))], [make_true_boxes((*A, 0))]) == (0.5, 0.5)


def test_11_point_ap_uses_the_recall_points_of_numpy():
    """Three of ten objects are detected. Their recall, 3/10, is smaller than the point 0.30000000000000004.

    The points 0, 0.1 and 0.2 are reached with precision 1, so AP is 3/11. With exact decimals, it would be 4/11.
    """
    boxes = [(20 * i, 0, 20 * i + 9, 9) for i in range(10)]
    detections = [make_scored_boxes(*((*box, 0.9) for box in boxes[:3]))]
    assert compute_both_aps(detections, [make_true_boxes(*((*box, 0) for box in boxes))]) == pytest.approx(
        (3 / 11, 0.3)
    )


def test_boxes_without_area_cause_no_division_by_zero():
    """A box with swapped corners may have no area: here, x2 - x1 + 1 = 0."""
    assert compute_both_aps(
        [make_scored_boxes((5, 5, 4, 4, 0.9), (*A, 0.8))], [make_true_boxes((5, 5, 4, 4, 0), (*A, 0))]
    ) == pytest.approx(((6 * 0.5) / 11, 0.25))


def test_voc_metrics_reject_different_numbers_of_images():
    with pytest.raises(ValueError, match=r"1 images.* 2"):
        average_precision.voc_average_precision([make_scored_boxes()], [make_true_boxes(), make_true_boxes()])
    with pytest.raises(ValueError, match=r"1 images.* 0"):
        average_precision.evaluate_voc([make_image_detections()], [], ("a",))


@pytest.mark.parametrize("label", [0, 2, -1])
@pytest.mark.parametrize("evaluate", [average_precision.evaluate_voc, average_precision.evaluate_coco])
def test_metrics_reject_labels_without_a_class_name(evaluate, label):
    with pytest.raises(ValueError, match=f"label {label} .*1 to 1"):
        evaluate([make_image_detections([A], [0.9], [label])], [make_annotation()], ("a",))
    with pytest.raises(ValueError, match=f"label {label} .*1 to 1"):
        evaluate([make_image_detections()], [make_annotation([A], [label])], ("a",))


# ---- VOC, random against the loops ----


def make_random_split(rng, images, classes):
    """Return random detections and annotations with integer coordinates and few different scores.

    Ties and IoUs on the threshold are therefore common.
    """
    detections, annotations = [], []
    for _ in range(images):
        g = rng.integers(0, 6)
        corner = rng.integers(0, 40, (g, 2))
        boxes = np.concatenate([corner, corner + rng.integers(5, 20, (g, 2))], 1)
        labels = rng.integers(1, classes + 1, g)
        annotations.append(make_annotation(boxes, labels, rng.random(g) < 0.3, rng.random(g) < 0.1))
        copies = rng.integers(0, g, 8) if g else np.zeros(0, int)
        noise = rng.integers(0, 40, (4, 2))
        detection_boxes = np.concatenate(
            [boxes[copies] + rng.integers(-2, 3, (len(copies), 4)), np.concatenate([noise, noise + 9], 1)]
        )
        k = len(detection_boxes)
        detection_labels = np.concatenate([labels[copies], rng.integers(1, classes + 1, 4)])
        detections.append(make_image_detections(detection_boxes, rng.integers(1, 8, k) / 8, detection_labels))
    return detections, annotations


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("iou_threshold", [0.5, 0.7])
def test_evaluate_voc_equals_the_reference_implementation(seed, iou_threshold):
    names = ("ant", "bee", "cat")
    detections, annotations = make_random_split(np.random.default_rng(seed), 10, 3)
    result = average_precision.evaluate_voc(detections, annotations, names, iou_threshold)
    maps = {"ap_11point": [], "ap_area": []}
    for label, name in enumerate(names, start=1):
        loops = reference.voc_precision_recall(
            [[(b, s) for b, s, lab in zip(*d, strict=True) if lab == label] for d in detections],
            [
                [
                    (b, d or c)
                    for b, d, c, lab in zip(a.boxes_px, a.difficult, a.crowd, a.labels, strict=True)
                    if lab == label
                ]
                for a in annotations
            ],
            iou_threshold,
        )
        for key, eleven_point in (("ap_11point", True), ("ap_area", False)):
            expected = reference.voc_ap(*loops, eleven_point)
            assert 0 < expected < 1
            assert result["voc_classes"][name][key] == pytest.approx(expected, rel=1e-12)
            maps[key].append(expected)
    assert result["voc_map_11point"] == pytest.approx(sum(maps["ap_11point"]) / 3, rel=1e-12)
    assert result["voc_map_area"] == pytest.approx(sum(maps["ap_area"]) / 3, rel=1e-12)


def test_match_classes_equals_the_matches_of_each_class_alone():
    names = tuple("abcdefgh")  # some classes have no detections or no objects
    detections, annotations = make_random_split(np.random.default_rng(0), 12, 6)
    matches = match_classes(detections, annotations, names)
    for label in range(1, len(names) + 1):
        alone = match_class(*select_class(label, detections, annotations))
        for actual, expected in zip(matches[label - 1], alone, strict=True):
            np.testing.assert_array_equal(actual, expected)
    assert sum(len(one.scores) for one in matches) > 50 and not len(matches[-1].scores)


# ---- VOC, many small random cases against the loops ----


def make_random_class(rng):
    """Return random detections and objects of one class in one to four images.

    Coordinates are integers in a small range, and there are four different scores, so ties are common.
    """
    detections, truth = [], []
    difficult_share = rng.choice([0.0, 0.3, 1.0], p=[0.4, 0.5, 0.1])
    for _ in range(rng.integers(1, 5)):
        corner = rng.integers(0, 8, (rng.integers(0, 4), 2))
        objects = np.concatenate([corner, corner + rng.integers(1, 9)], 1)
        objects = np.concatenate([objects, objects[: rng.integers(0, 2)]])  # sometimes the first object is repeated
        near = np.repeat(objects, 2, 0) + rng.integers(-2, 3, (2 * len(objects), 4))
        boxes = np.concatenate([objects, near, [[40, 40, 49, 49]]])
        boxes = boxes[rng.integers(0, len(boxes), rng.integers(0, 7))]
        scores = rng.integers(1, 5, len(boxes)) / 4
        detections.append(ScoredBoxes(boxes.astype(np.float32), scores.astype(np.float32)))
        truth.append(TrueBoxes(objects.astype(np.float32), rng.random(len(objects)) < difficult_share))
    return detections, truth


def check_hard_cases(detections, truth):
    """Yield the names of properties that implementations often get wrong, and whether a case has each property."""
    levels = [set(image.scores.tolist()) for image in detections]
    yield "equal scores in two images", any(a & b for i, a in enumerate(levels) for b in levels[:i])
    detected = [[tuple(box) for box in image.boxes_px.tolist()] for image in detections]
    objects = [[tuple(box) for box in image.boxes_px.tolist()] for image in truth]
    images = list(zip(detected, objects, strict=True))
    yield "equal scores in an image", any(len(s) < len(f) for s, f in zip(levels, detected, strict=True))
    yield "equal boxes of two detections", any(len(set(f)) < len(f) for f in detected)
    yield "equal boxes of two objects", any(len(set(o)) < len(o) for o in objects)
    yield "detections in an image without objects", any(f and not o for f, o in images)
    yield "objects without detections", any(o and not f for f, o in images)
    difficult = [{o for o, d in zip(os, t.ignored, strict=True) if d} for os, t in zip(objects, truth, strict=True)]
    ordinary = [{o for o, d in zip(os, t.ignored, strict=True) if not d} for os, t in zip(objects, truth, strict=True)]
    yield "difficult and ordinary objects", any(difficult) and any(ordinary)
    yield "difficult and ordinary object with equal boxes", any(d & o for d, o in zip(difficult, ordinary, strict=True))
    yield "no object to find", not any(ordinary)
    ious = [sorted((reference.voc_iou(f, o) for o in os), reverse=True) for fs, os in images for f in fs]
    yield "IoU on the threshold", any(iou[:1] == [0.5] for iou in ious)
    yield "two objects fit equally", any(len(iou) > 1 and iou[0] == iou[1] >= 0.5 for iou in ious)


@pytest.mark.parametrize("cases", [800, pytest.param(4000, marks=pytest.mark.slow)])
def test_voc_average_precision_equals_the_reference_on_random_cases(cases):
    rng, seen, values = np.random.default_rng(0), Counter(), Counter()
    for case in range(cases):
        detections, truth = make_random_class(rng)
        has = dict(check_hard_cases(detections, truth))
        seen.update({name: int(there) for name, there in has.items()})
        result = compute_both_aps(detections, truth)
        if has["no object to find"]:
            assert np.isnan(result).all()
            continue
        curve = reference.voc_precision_recall(*(
            [list(zip(*image, strict=True)) for image in images] for images in (detections, truth)
        ), 0.5)  # fmt: skip
        expected = reference.voc_ap(*curve, True), reference.voc_ap(*curve, False)
        assert result == pytest.approx(expected, rel=1e-12), f"case {case}: {detections} {truth}"
        values.update(expected)
    assert len(seen) == 11 and min(seen.values()) >= cases // 20, seen
    assert len(values) > cases // 10, "there are many different results"


# ---- evaluate_voc ----


def evaluate_small_split():
    """Return the VOC metrics of two images and three classes.

    One of two ants is detected, so the APs are 6/11 and 1/2. The only bee is difficult. There are no cats.
    """
    annotations = [
        make_annotation([A, B, C], [1, 1, 2], difficult=[0, 0, 1]),
        make_annotation([A], [1], crowd=[1]),
    ]
    detections = [make_image_detections([A, C], [0.9, 0.8], [1, 2]), make_image_detections([A], [0.95], [1])]
    return average_precision.evaluate_voc(detections, annotations, ("ant", "bee", "cat"))


def test_evaluate_voc_returns_counts_and_means():
    result = evaluate_small_split()
    assert result["voc_classes"] == {
        "ant": {
            "objects": 2,
            "ignored_objects": 1,
            "detections": 2,
            "ap_11point": pytest.approx(6 / 11),
            "ap_area": pytest.approx(0.5),
        },
        "bee": {"objects": 0, "ignored_objects": 1, "detections": 1, "ap_11point": None, "ap_area": None},
        "cat": {"objects": 0, "ignored_objects": 0, "detections": 0, "ap_11point": None, "ap_area": None},
    }
    assert (result["voc_map_11point"], result["voc_map_area"]) == pytest.approx((6 / 11, 0.5))


def test_metrics_can_be_written_as_json():
    result = {
        **evaluate_small_split(),
        **average_precision.evaluate_coco([make_image_detections()], [make_annotation()], ("ant",)),
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_evaluate_voc_returns_none_for_an_empty_split():
    result = average_precision.evaluate_voc([], [], ("ant",))
    assert result["voc_map_11point"] is None
    assert result["voc_map_area"] is None


# ---- COCO ----


def compute_pycocotools_metrics(detections, annotations, categories, image_ids):
    """Return the twelve metrics that pycocotools computes from detections and annotations."""
    truth, results = [], []
    for image_id, a, d in zip(image_ids, annotations, detections, strict=True):
        for i in range(len(a.labels)):
            x1, y1, x2, y2 = (float(v) for v in a.boxes_px[i])
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image_id,
                    "category_id": categories[a.labels[i] - 1],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(a.area_px[i]),
                    "iscrowd": int(a.crowd[i]),
                }
            )
        for box, score, label in zip(*d, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            results.append([image_id, x1, y1, x2 - x1, y2 - y1, float(score), categories[label - 1]])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i, "width": 640, "height": 480} for i in image_ids],
            "categories": [{"id": c, "name": str(c)} for c in categories],
            "annotations": truth,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(np.array(results).reshape(-1, 7)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def make_random_coco_split(rng, images, classes):
    """Return random detections and annotations with crowds, ties, and objects of all sizes.

    Coordinates are not integers, and the areas of objects are smaller than those of the boxes.
    """
    detections, annotations = [], []
    for _ in range(images):
        g = rng.integers(0, 12)
        corner = rng.uniform(0, 400, (g, 2))
        boxes = np.concatenate([corner, corner + np.exp(rng.uniform(2, 5.5, (g, 2)))], 1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1) * rng.uniform(0.4, 1, g)
        labels = rng.integers(1, classes + 1, g)
        annotations.append(make_annotation(boxes, labels, rng.random(g) < 0.2, rng.random(g) < 0.1, area))
        copies = rng.integers(0, g, 140) if g else np.zeros(0, int)  # more than the 100 detections that count
        sides = (boxes[:, 2:] - boxes[:, :2])[copies]
        shift = rng.normal(0, 0.1, (len(copies), 4)) * np.tile(sides, 2)
        noise = rng.uniform(0, 300, (5, 2))
        k = len(copies) + 5
        detections.append(
            make_image_detections(
                np.concatenate([boxes[copies] + shift, np.concatenate([noise, noise + 50], 1)]),
                np.round(rng.random(k), 2),
                np.concatenate([labels[copies], rng.integers(1, classes + 1, 5)]),
            )
        )
    return detections, annotations


@pytest.mark.parametrize("seed", range(4))
def test_evaluate_coco_equals_pycocotools_exactly(seed):
    detections, annotations = make_random_coco_split(np.random.default_rng(seed), 12, 3)
    result = average_precision.evaluate_coco(detections, annotations, ("a", "b", "c"))
    stats = compute_pycocotools_metrics(detections, annotations, [1, 2, 3], range(1, 13))
    assert list(result) == list(average_precision.COCO_KEYS)
    assert (stats > 0).all() and (stats < 1).all()
    assert list(result.values()) == list(stats)


def test_evaluate_coco_orders_equal_scores_by_image_id():
    """All scores are equal, and image ids are descending, so the last image comes first, as in pycocotools."""
    detections, annotations = make_random_coco_split(np.random.default_rng(5), 6, 2)
    detections = [d._replace(scores=np.full_like(d.scores, 0.5)) for d in detections]
    categories, image_ids = [90, 17], [600, 500, 400, 300, 200, 139]
    result = average_precision.evaluate_coco(detections, annotations, ("a", "b"), categories, image_ids)
    assert list(result.values()) == list(compute_pycocotools_metrics(detections, annotations, categories, image_ids))
    assert result != average_precision.evaluate_coco(detections, annotations, ("a", "b"))


def test_evaluate_coco_does_not_ignore_difficult_objects():
    annotations = [make_annotation([A, B], [1, 1], difficult=[True, False])]
    assert (
        average_precision.evaluate_coco([make_image_detections([A], [0.9], [1])], annotations, ("a",))["coco_ar1"]
        == 0.5
    )


def test_evaluate_coco_ignores_detections_on_a_crowd():
    annotations = [make_annotation([A, (50, 50, 250, 250)], [1, 1], crowd=[False, True])]
    detections = [make_image_detections([(60, 60, 80, 80), A], [0.9, 0.8], [1, 1])]
    assert average_precision.evaluate_coco(detections, annotations, ("a",))["coco_ap"] == pytest.approx(1)


def test_evaluate_coco_returns_none_for_sizes_without_objects():
    """The only object has 9 x 9 px, which is small in COCO's sense."""
    result = average_precision.evaluate_coco(
        [make_image_detections([A], [0.9], [1])], [make_annotation([A], [1])], ("a",)
    )
    absent = [key for key, value in result.items() if value is None]
    assert absent == ["coco_ap_medium", "coco_ap_large", "coco_ar_medium", "coco_ar_large"]


def test_evaluate_coco_returns_zero_without_detections_and_none_without_objects():
    without_detections = average_precision.evaluate_coco([make_image_detections()], [make_annotation([A], [1])], ("a",))
    assert without_detections["coco_ap"] == without_detections["coco_ar100"] == 0
    without_objects = average_precision.evaluate_coco(
        [make_image_detections([A], [0.9], [1])], [make_annotation()], ("a",)
    )
    assert set(without_objects.values()) == {None}
    assert set(average_precision.evaluate_coco([], [], ("a",)).values()) == {None}


def test_evaluate_coco_prints_nothing(capfd):
    average_precision.evaluate_coco([make_image_detections([A], [0.9], [1])], [make_annotation([A], [1])], ("a",))
    assert capfd.readouterr() == ("", "")


def test_evaluate_coco_rejects_arguments_of_different_lengths():
    with pytest.raises(ValueError, match=r"1 images.* 0"):
        average_precision.evaluate_coco([make_image_detections()], [], ("a",))
    with pytest.raises(ValueError):
        average_precision.evaluate_coco([make_image_detections()], [make_annotation()], ("a",), category_ids=[1, 2])
    with pytest.raises(ValueError):
        average_precision.evaluate_coco([make_image_detections()], [make_annotation()], ("a",), image_ids=[1, 2])


def test_coco_keys_have_the_same_order_as_the_metric_keys_of_hotcoco():
    """hotcoco's keys are AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm and ARl, in this order."""
    long = {"_small": "s", "_medium": "m", "_large": "l"}
    short = [key.removeprefix("coco_") for key in average_precision.COCO_KEYS]
    for word, letter in long.items():
        short = [name.replace(word, letter) for name in short]
    names = [name[:2].upper() + name[2:] for name in short]
    truth = hotcoco.COCO({"images": [], "annotations": [], "categories": []})
    assert names == hotcoco.COCOeval(truth, truth.load_res([]), "bbox").metric_keys()
