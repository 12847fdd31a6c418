"""Tests of precision-recall curves, confusion matrices and errors.

The expected values come from reference code, hand computation and hotcoco.
"""

import numpy as np
import pytest
from helpers import reference
from helpers.splits import make_image_detections, make_random_split, make_test_annotation, select_class
from hotcoco import COCO, COCOeval

from ssd_jax.metrics import diagnosis

A, B, C = (0, 0, 99, 99), (200, 200, 299, 299), (400, 300, 499, 399)
NOWHERE = (500, 10, 599, 99)
NAMES = ("ant", "bee", "cat")


# ---- curves ----


@pytest.mark.parametrize("seed", range(4))
def test_curves_equal_those_of_the_reference_implementation(seed):
    detections, annotations = make_random_split(seed)
    curves = diagnosis.diagnose(detections, annotations, NAMES).curves
    for label, curve in enumerate(curves, start=1):
        assert curve is not None
        scored, true = select_class(label, detections, annotations)
        precision, recall = reference.voc_precision_recall(
            [list(zip(*d, strict=True)) for d in scored], [list(zip(*t, strict=True)) for t in true], 0.5
        )
        # The reference repeats a point for a detection on an ignored object; the curve has no point for it.
        points = list(dict.fromkeys(zip(precision, recall, strict=True)))
        actual = list(dict.fromkeys(zip(curve.precision.tolist(), curve.recall.tolist(), strict=True)))
        np.testing.assert_allclose([p for p in actual if any(p)], [p for p in points if any(p)])


def test_operating_point_of_a_curve_is_the_last_shown_detection():
    """The scores are 0.9 (correct), 0.5 (wrong) and 0.4 (correct, but not shown). Precision and recall are 1/2."""
    detections = [make_image_detections((A, 0.9, 1), (NOWHERE, 0.5, 1), (B, 0.4, 1))]
    ant, bee, _ = diagnosis.diagnose(detections, [make_test_annotation([A, B], [1, 1])], NAMES).curves
    assert ant is not None and ant.shown == 2
    assert (ant.precision[1], ant.recall[1]) == (0.5, 0.5)
    assert bee is None


# ---- image by image ----


def test_diagnose_image_classifies_each_detection():
    """The detections are a duplicate, a correct one, one of a wrong class, two on background, and an ignored one.

    The detections are not sorted by score. One on background has a score below 0.5 and is not classified.
    """
    truth = make_test_annotation([A, B, C], [1, 2, 1], difficult=[False, False, True])
    detections = make_image_detections(
        (A, 0.6, 1), ((0, 0, 99, 89), 0.8, 1), (B, 0.7, 3), (NOWHERE, 0.5, 2), (NOWHERE, 0.49, 2), (C, 0.9, 2)
    )
    result = diagnosis.diagnose_image(detections, truth)
    assert result.shown == (5, 1, 2, 0, 3)
    assert result.outcomes == ("ignored", "correct", "classification", "duplicate", "background")
    assert result.objects == (None, 0, 1, None, None)
    assert result.missed == ()
    assert result.count_errors() == {"classification": 1, "duplicate": 1, "background": 1}


def test_objects_without_detections_are_missed_unless_they_are_ignored():
    truth = make_test_annotation([A, B, C], [1, 2, 3], crowd=[False, True, False])
    result = diagnosis.diagnose_image(make_image_detections((A, 0.4, 1)), truth)
    assert result == ((), (), (), (0, 2), ()) and result.missed == (0, 2)
    assert result.count_errors() == {"missed": 2}
    assert diagnosis.diagnose_image(make_image_detections(), make_test_annotation()).count_errors() == {}


def test_diagnose_image_counts_the_last_pixel_in_the_iou():
    """A detection of 10 x 5 of the 10 x 10 pixels of an object has an IoU of 0.5, so it is correct.

    A detection of 10 x 4 of these pixels has an IoU of 0.4 and is a localization error.
    """
    truth = make_test_annotation([(0, 0, 9, 9)], [1])
    assert diagnosis.diagnose_image(make_image_detections(((0, 0, 9, 4), 0.9, 1)), truth).outcomes == ("correct",)
    assert diagnosis.diagnose_image(make_image_detections(((0, 0, 9, 3), 0.9, 1)), truth).outcomes == ("localization",)


def test_detection_with_low_iou_is_a_localization_both_or_background_error():
    """A detection of 10 x 1 of the 10 x 10 pixels of an object has an IoU of 0.1 and is a localization error.

    A detection that overlaps only an ignored object, with an IoU from 0.1 to 0.5, is a background error.
    """
    truth = make_test_annotation([(0, 0, 9, 9), (50, 50, 59, 59)], [1, 2], difficult=[False, True])
    detections = make_image_detections(
        ((0, 0, 9, 0), 0.9, 1), ((0, 0, 9, 3), 0.8, 2), ((0, 0, 8, 0), 0.7, 1), ((50, 50, 59, 52), 0.6, 2)
    )
    result = diagnosis.diagnose_image(detections, truth)
    assert result.outcomes == ("localization", "both", "background", "background")
    assert result.nearest == ((0, 0.1), (0, 0.4), None, None)
    assert result.loose == {0: 0.1}
    assert result.count_errors() == {"localization": 1, "both": 1, "background": 2}, "the object is not missed"


def test_loose_box_is_reported_with_the_highest_iou_of_its_unmatched_object():
    """Three loose boxes are on object 0, and one is on object 1, which a better detection is matched with."""
    truth = make_test_annotation([(0, 0, 9, 9), (50, 0, 59, 9), (100, 0, 109, 9)], [1, 1, 1])
    detections = make_image_detections(
        ((0, 0, 9, 2), 0.9, 1), ((0, 0, 9, 3), 0.8, 1), ((0, 0, 9, 1), 0.7, 1), ((50, 0, 59, 9), 0.6, 1),
        ((50, 0, 59, 2), 0.55, 1),
    )  # fmt: skip
    result = diagnosis.diagnose_image(detections, truth)
    assert result.loose == {0: pytest.approx(0.4)}
    assert (result.unmatched, result.missed) == ((0, 2), (2,))
    assert result.count_errors() == {"localization": 4, "missed": 1}


def test_best_images_have_the_smallest_share_of_errors_and_then_most_objects():
    """The third image has one correct detection and one missed object, so that half of its outcomes are errors."""
    annotations = [
        make_test_annotation([A], [1]), make_test_annotation(), make_test_annotation([A, B], [1, 2]),
        make_test_annotation([A, B], [1, 2]), make_test_annotation([B], [2]),
    ]  # fmt: skip
    one, both = make_image_detections((A, 0.9, 1)), make_image_detections((A, 0.9, 1), (B, 0.8, 2))
    found = [one, make_image_detections(), one, both, make_image_detections((B, 0.6, 2))]
    images = [diagnosis.diagnose_image(d, a) for d, a in zip(found, annotations, strict=True)]
    assert diagnosis.find_best_images(images, 9) == [3, 0, 4]
    assert diagnosis.find_best_images(images, 1) == [3]
    assert diagnosis.find_best_images([], 3) == []
    three = diagnosis.diagnose_image(both, make_test_annotation([A, B, C], [1, 2, 3]))
    assert diagnosis.find_best_images([images[2], three, *images], 9) == [5, 2, 6, 1]
    assert diagnosis.count_found_objects(images) == 5


def test_all_detections_on_an_ignored_object_are_ignored():
    truth = make_test_annotation([A], [1], difficult=[True])
    assert diagnosis.diagnose_image(make_image_detections((A, 0.9, 1), (A, 0.8, 2)), truth).outcomes == ("ignored",) * 2


@pytest.mark.parametrize("seed", range(6))
def test_diagnose_image_equals_the_reference_implementation(seed):
    detections, annotations = make_random_split(seed, images=30)
    kinds = set()
    for d, a in zip(detections, annotations, strict=True):
        result = diagnosis.diagnose_image(d, a)
        outcomes, unmatched, nearest = reference.classify_detections(
            *d, a.boxes_px, a.labels, a.difficult | a.crowd, 0.5, 0.5
        )
        assert list(zip(result.shown, result.outcomes, result.objects, strict=True)) == outcomes
        assert list(result.unmatched) == unmatched
        assert [near and near.object_index for near in result.nearest] == [near and near[0] for near in nearest]
        np.testing.assert_allclose(*([near[1] for near in rows if near] for rows in (result.nearest, nearest)))
        kinds |= set(result.outcomes)
    assert len(kinds) == 7


def test_worst_images_are_sorted_by_error_count_and_ties_keep_their_order():
    errors = (1, 3, 0, 3, 2)
    images = [diagnosis.ImageDiagnosis((), (), (), tuple(range(n))) for n in errors]
    assert diagnosis.find_worst_images(images, 10) == [1, 3, 4, 0]
    assert diagnosis.find_worst_images(images, 2) == [1, 3]
    assert diagnosis.find_worst_images([], 2) == []


# ---- confusion ----


def test_confusion_matrix_equals_hand_computed_counts():
    """The ant is detected twice, and the bee is detected as a cat.

    The cat is detected only with a score below 0.5, so it is missed, and a bee is detected on background.
    """
    annotations = [make_test_annotation([A, B], [1, 2]), make_test_annotation([C], [3])]
    detections = [
        make_image_detections((A, 0.9, 1), (B, 0.8, 3), (A, 0.7, 1)),
        make_image_detections((NOWHERE, 0.9, 2), (C, 0.3, 3)),
    ]
    assert diagnosis.diagnose(detections, annotations, NAMES).confusion.tolist() == [
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
        [1, 1, 0, 0],
    ]


@pytest.mark.parametrize("seed", range(4))
def test_confusion_matrix_sums_equal_the_numbers_of_objects_and_detections(seed):
    detections, annotations = make_random_split(seed, images=30)
    result = diagnosis.diagnose(detections, annotations, NAMES)
    for label in (1, 2, 3):
        objects = sum(int(((a.labels == label) & ~a.difficult & ~a.crowd).sum()) for a in annotations)
        assert result.confusion[label - 1].sum() == objects
    counted = sum(result != "ignored" for image in result.images for result in image.outcomes)
    assert result.confusion[:, :-1].sum() == counted
    errors = sum(sum(image.count_errors().values()) for image in result.images)
    loose = sum(len(image.loose) for image in result.images)
    assert loose and errors + loose == result.confusion.sum() - np.trace(result.confusion)


def test_confusion_matrix_equals_that_of_hotcoco_if_no_object_is_ignored():
    """Detections are close to an object or far from all objects, so it does not matter that only VOC's IoU adds 1."""
    rng = np.random.default_rng(2)
    detections, annotations, rows, objects = [], [], [], []
    for image in range(40):
        corners = np.array([(x, y) for x in (0, 200, 400) for y in (0, 200)])[rng.random(6) < 0.7]
        boxes = np.concatenate([corners, corners + rng.integers(60, 120, corners.shape)], 1)
        labels = rng.integers(1, 4, len(boxes))
        annotations.append(make_test_annotation(boxes, labels))
        copies = rng.integers(0, len(boxes), 6) if len(boxes) else np.zeros(0, int)
        near = boxes[copies] + rng.integers(-3, 4, (len(copies), 4))
        of = np.where(rng.random(len(copies)) < 0.7, labels[copies], rng.integers(1, 4, len(copies)))
        listed = [*zip(near, rng.random(len(copies)), of, strict=True), ((560, 420, 600, 460), rng.random(), 1)]
        detections.append(make_image_detections(*listed))
        rows += [[image, b[0], b[1], b[2] - b[0], b[3] - b[1], np.float32(s), c] for b, s, c in listed]
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            objects.append({
                "id": len(objects) + 1, "image_id": image, "category_id": label, "bbox": sides, "iscrowd": 0,
                "area": sides[2] * sides[3],
            })  # fmt: skip
    truth = COCO({
        "images": [{"id": i, "width": 640, "height": 480} for i in range(40)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)],
        "annotations": objects,
    })  # fmt: skip
    evaluation = COCOeval(truth, truth.load_res(np.array(rows, np.float64)), "bbox")
    expected = evaluation.confusion_matrix(iou_thr=0.5, min_score=0.5)["matrix"]
    actual = diagnosis.diagnose(detections, annotations, NAMES).confusion
    assert actual.tolist() == expected.tolist()
    assert (actual > 0).sum() > 12, "most of the 15 cells that can be filled are filled"


# ---- TIDE ----

LOOSE = (0, 0, 100, 30)
SQUARE, OTHER, FAR = (0, 0, 100, 100), (500, 300, 600, 400), (200, 200, 300, 300)


@pytest.mark.parametrize(
    ("kind", "detections", "objects", "gain", "errors"),
    [
        # COCO's AP has 101 recalls, of which 51 are at most 0.5. No detection is correct at first. Correcting one of
        # the two loose boxes detects one of two objects, so 51 points rise from 0 to 1.
        ("localization", [(LOOSE, 0.9, 1), ((0, 0, 30, 100), 0.8, 1)], [(SQUARE, 1), (OTHER, 1)], 51 / 101, 2),
        # The only ant was detected twice as a bee. With one of them corrected, the AP of ant is 1, and the mean is 1/2.
        ("classification", [(SQUARE, 0.9, 2), ((0, 0, 100, 99), 0.8, 2)], [(SQUARE, 1), (OTHER, 2)], 1 / 2, 2),
        # A wrong and a correct detection: without the wrong one, the precision rises from 1/2 to 1 everywhere.
        ("background", [(FAR, 0.9, 1), (SQUARE, 0.8, 1)], [(SQUARE, 1)], 1 / 2, 1),
        # A correct, a wrong and a correct detection: the 50 points beyond recall 0.5 rise from 2/3 to 1.
        (
            "duplicate",
            [(SQUARE, 0.9, 1), ((0, 0, 100, 99), 0.8, 1), (OTHER, 0.7, 1)],
            [(SQUARE, 1), (OTHER, 1)],
            50 / 303,
            1,
        ),
        # One of two objects is detected. Without the other object, 50 more points have precision 1.
        ("missed", [(SQUARE, 0.9, 1)], [(SQUARE, 1), (OTHER, 1)], 50 / 101, 1),
        # The first detection of a bee overlaps the ant loosely. Without it, the AP of bee rises from 1/2 to 1.
        ("both", [(LOOSE, 0.9, 2), (SQUARE, 0.8, 1), (OTHER, 0.7, 2)], [(SQUARE, 1), (OTHER, 2)], 1 / 4, 1),
    ],
)
def test_tide_errors_equal_hand_computed_gains(kind, detections, objects, gain, errors):
    boxes, labels = zip(*objects, strict=True)
    tide = diagnosis.compute_tide_errors(
        [make_image_detections(*detections)], [make_test_annotation(boxes, labels)], NAMES
    )
    assert tide[kind] == pytest.approx((gain, errors))
    assert list(tide) == list(diagnosis.ERRORS)


# ---- all ----


def test_diagnose_returns_no_errors_for_an_empty_split():
    result = diagnosis.diagnose([], [], NAMES)
    assert result.curves == (None,) * 3
    assert result.confusion.sum() == 0
    assert result.images == ()
    assert all(error == (0, 0) for error in result.tide.values())


def test_diagnose_rejects_different_numbers_of_images_and_labels_without_a_class_name():
    with pytest.raises(ValueError, match=r"1 images.* 0"):
        diagnosis.diagnose([make_image_detections()], [], NAMES)
    with pytest.raises(ValueError, match=r"label 4 .*1 to 3"):
        diagnosis.diagnose([make_image_detections((A, 0.9, 4))], [make_test_annotation()], NAMES)
