"""Tests of precision-recall curves, intervals, confusion matrices and errors.

The expected values come from reference code, hand computation and hotcoco.
"""

import numpy as np
import pytest
from helpers import reference
from hotcoco import COCO, COCOeval

from ssd_jax.data.source import Annotation, make_annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics import average_precision, diagnosis
from ssd_jax.metrics.average_precision import ClassMatches
from ssd_jax.metrics.diagnosis import Interval


def make_test_annotation(boxes=(), labels=(), difficult=None, crowd=None) -> Annotation:
    lists = (None if part is None else np.asarray(part).tolist() for part in (boxes, labels, difficult, crowd))
    return make_annotation("a", "a.jpg", (640, 480), *lists)


def make_image_detections(*rows) -> ImageDetections:
    """Return the detections of an image from rows of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


A, B, C = (0, 0, 99, 99), (200, 200, 299, 299), (400, 300, 499, 399)
NOWHERE = (500, 10, 599, 99)
NAMES = ("ant", "bee", "cat")


def make_random_split(seed: int, images: int = 12) -> tuple[list[ImageDetections], list[Annotation]]:
    """Return random detections and annotations with integer coordinates and different scores.

    IoUs near the threshold are common.
    """
    rng = np.random.default_rng(seed)
    detections, annotations = [], []
    scores = iter(rng.permutation(images * 12) / (images * 12))
    for _ in range(images):
        g = rng.integers(0, 6)
        corner = rng.integers(0, 40, (g, 2))
        boxes = np.concatenate([corner, corner + rng.integers(5, 20, (g, 2))], 1)
        labels = rng.integers(1, 4, g)
        annotations.append(make_test_annotation(boxes, labels, rng.random(g) < 0.25, rng.random(g) < 0.1))
        copies = rng.integers(0, g, 8) if g else np.zeros(0, int)
        noise = rng.integers(0, 40, (4, 2))
        near = boxes[copies] + rng.integers(-2, 3, (len(copies), 4))
        of = np.where(rng.random(len(copies)) < 0.7, labels[copies], rng.integers(1, 4, len(copies)))
        rows = [
            *zip(near, of, strict=True),
            *zip(np.concatenate([noise, noise + 9], 1), rng.integers(1, 4, 4), strict=True),
        ]
        detections.append(make_image_detections(*((box, next(scores), label) for box, label in rows)))
    return detections, annotations


def match_all_classes(detections, annotations) -> list[ClassMatches]:
    return [
        average_precision.match_class(*average_precision.select_class(label, detections, annotations))
        for label in (1, 2, 3)
    ]


# ---- curves ----


@pytest.mark.parametrize("seed", range(4))
def test_curves_equal_those_of_the_reference_implementation(seed):
    detections, annotations = make_random_split(seed)
    curves = diagnosis.diagnose(detections, annotations, NAMES, resamples=2).curves
    for label, curve in enumerate(curves, start=1):
        assert curve is not None
        scored, true = average_precision.select_class(label, detections, annotations)
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


# ---- bootstrap ----


@pytest.mark.parametrize("seed", range(6))
def test_compute_resampled_ap_equals_the_ap_of_the_resampled_split(seed):
    """The resampled split contains each image as often as it was drawn."""
    detections, annotations = make_random_split(seed)
    times = np.random.default_rng(100 + seed).multinomial(12, np.full(12, 1 / 12), 8).T
    for label, matches in enumerate(match_all_classes(detections, annotations), start=1):
        actual = diagnosis.compute_resampled_ap(matches, times)
        for r in range(8):
            drawn = [i for i in range(12) for _ in range(times[i, r])]
            resampled = [detections[i] for i in drawn], [annotations[i] for i in drawn]
            split = average_precision.select_class(label, *resampled)
            for row, eleven_point in enumerate((True, False)):
                expected = average_precision.voc_average_precision(*split, eleven_point=eleven_point)
                np.testing.assert_allclose(actual[row, r], expected, rtol=1e-12)


def test_compute_resampled_ap_uses_the_recall_points_of_numpy():
    """Three of ten objects are detected. Their recall of 3/10 does not reach the point 0.30000000000000004."""
    matches = ClassMatches(np.array([0.9, 0.8, 0.7]), np.ones(3, bool), np.zeros(3, np.int64), np.array([10]))
    np.testing.assert_allclose(diagnosis.compute_resampled_ap(matches, np.array([[1, 2]])), [[3 / 11] * 2, [0.3] * 2])


def test_bootstrap_interval_is_close_to_that_of_a_plain_loop():
    """The function and the loop draw different resamples, so the limits of the intervals differ slightly."""
    detections, annotations = make_random_split(3, images=20)
    actual = diagnosis.bootstrap(match_all_classes(detections, annotations), resamples=2000)
    rng, means = np.random.default_rng(99), []
    for _ in range(200):
        drawn = rng.integers(0, 20, 20)
        result = average_precision.evaluate_voc([detections[i] for i in drawn], [annotations[i] for i in drawn], NAMES)
        means.append((result["voc_map_11point"], result["voc_map_area"]))
    for interval, values in zip((actual.map_11point, actual.map_area), np.transpose(means), strict=True):
        np.testing.assert_allclose(interval, np.percentile(values, (2.5, 97.5)), atol=0.04)
        assert interval is not None and interval.high - interval.low > 0.1


def test_bootstrap_can_draw_more_resamples_than_fit_into_one_block():
    matches = match_all_classes(*make_random_split(1))
    one, many = diagnosis.bootstrap(matches, 1), diagnosis.bootstrap(matches, 130)
    assert one.map_area is not None and one.map_area.low == one.map_area.high
    assert many.map_area is not None and many.map_area.low < many.map_area.high
    assert (one.resamples, many.resamples) == (1, 130)
    assert many.map_area != diagnosis.bootstrap(matches, 50).map_area
    assert many == diagnosis.bootstrap(matches, 130) != diagnosis.bootstrap(matches, 130, seed=1)


def test_intervals_have_zero_width_if_all_or_no_objects_are_detected():
    annotations = [make_test_annotation([A], [1]), make_test_annotation([B], [1]), make_test_annotation()]
    none_detected = diagnosis.diagnose([make_image_detections()] * 3, annotations, NAMES).intervals
    assert none_detected.map_11point == none_detected.map_area == Interval(0, 0)
    all_detected = diagnosis.diagnose(
        [make_image_detections((A, 0.9, 1)), make_image_detections((B, 0.8, 1)), make_image_detections()],
        annotations,
        NAMES,
    ).intervals
    assert all_detected.map_11point == all_detected.map_area == Interval(1, 1)
    assert all_detected.classes_area == (Interval(1, 1), None, None)


@pytest.mark.parametrize("images", [0, 1])
def test_intervals_are_none_with_fewer_than_two_images(images):
    intervals = diagnosis.diagnose(
        [make_image_detections((A, 0.9, 1))] * images, [make_test_annotation([A], [1])] * images, NAMES
    ).intervals
    assert intervals == (None, None, (None,) * 3, (None,) * 3, 0)


def test_intervals_are_none_without_objects():
    intervals = diagnosis.diagnose(
        [make_image_detections((A, 0.9, 1))] * 2, [make_test_annotation()] * 2, NAMES
    ).intervals
    assert intervals.map_area is None and intervals.classes_11point == (None,) * 3


def test_class_without_objects_in_a_resample_is_left_out_of_the_mean():
    """All ants are detected, and the only bee is missed. The mAP is 1/2, or 1 in resamples without the bee."""
    annotations = [
        make_test_annotation([A], [1]),
        make_test_annotation([A], [1]),
        make_test_annotation([A, B], [1, 2]),
    ]
    intervals = diagnosis.diagnose([make_image_detections((A, 0.9, 1))] * 3, annotations, NAMES).intervals
    assert intervals.map_area == Interval(0.5, 1)
    assert intervals.classes_area == (Interval(1, 1), Interval(0, 0), None)


def test_interval_tree_names_the_classes():
    intervals = diagnosis.Intervals(
        Interval(0.1, 0.2), Interval(0.3, 0.4), (Interval(0.5, 0.6), None), (Interval(0.7, 0.8), None), 9
    )
    assert diagnosis.make_interval_tree(intervals, ["ant", "bee"]) == {
        "resamples": 9,
        "map_11point": [0.1, 0.2],
        "map_area": [0.3, 0.4],
        "classes": {
            "ant": {"ap_11point": [0.5, 0.6], "ap_area": [0.7, 0.8]},
            "bee": {"ap_11point": None, "ap_area": None},
        },
    }


def make_synthetic_class(rng: np.random.Generator, images: int) -> ClassMatches:
    """Return random matches: 1.2 objects and 0.5 wrong detections per image. 90 % of the objects are detected."""
    objects = rng.poisson(1.2, images)
    rights, wrongs = (np.repeat(np.arange(images), n) for n in (rng.binomial(objects, 0.9), rng.poisson(0.5, images)))
    scores = np.concatenate([rng.beta(3, 2, len(rights)), rng.beta(1, 3, len(wrongs))])
    order = np.argsort(-scores)
    correct = np.arange(len(scores)) < len(rights)
    return ClassMatches(scores[order], correct[order], np.concatenate([rights, wrongs])[order], objects)


def test_95_percent_of_the_intervals_contain_the_true_ap():
    """The true AP is that of 100,000 images. On average, 95 of 100 intervals contain it (standard deviation 2.2)."""
    rng = np.random.default_rng(5)
    everything = make_synthetic_class(rng, 100_000)
    truth = diagnosis.compute_resampled_ap(everything, np.ones((100_000, 1), int))[1, 0]
    intervals_with_truth, intervals_with_ap = 0, 0
    for _ in range(100):
        sample = make_synthetic_class(rng, 80)
        interval = diagnosis.bootstrap([sample], resamples=200).map_area
        point = diagnosis.compute_resampled_ap(sample, np.ones((80, 1), int))[1, 0]
        assert interval is not None
        intervals_with_truth += interval.low <= truth <= interval.high
        intervals_with_ap += interval.low <= point <= interval.high
    assert 88 <= intervals_with_truth <= 99
    assert intervals_with_ap == 100


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
    assert result.outcomes == ("ignored", "correct", "class", "duplicate", "background")
    assert result.objects == (None, 0, 1, None, None)
    assert result.missed == ()
    assert result.count_errors() == {"class": 1, "duplicate": 1, "background": 1}


def test_objects_without_detections_are_missed_unless_they_are_ignored():
    truth = make_test_annotation([A, B, C], [1, 2, 3], crowd=[False, True, False])
    result = diagnosis.diagnose_image(make_image_detections((A, 0.4, 1)), truth)
    assert result == ((), (), (), (0, 2))
    assert result.count_errors() == {"missed": 2}
    assert diagnosis.diagnose_image(make_image_detections(), make_test_annotation()).count_errors() == {}


def test_diagnose_image_counts_the_last_pixel_in_the_iou():
    """A detection of 10 x 5 of the 10 x 10 pixels of an object has an IoU of 0.5, so it is correct.

    A detection of 10 x 4 of these pixels has an IoU of 0.4 and is a location error.
    """
    truth = make_test_annotation([(0, 0, 9, 9)], [1])
    assert diagnosis.diagnose_image(make_image_detections(((0, 0, 9, 4), 0.9, 1)), truth).outcomes == ("correct",)
    assert diagnosis.diagnose_image(make_image_detections(((0, 0, 9, 3), 0.9, 1)), truth).outcomes == ("location",)


def test_detection_with_low_iou_is_a_location_both_or_background_error():
    """A detection of 10 x 1 of the 10 x 10 pixels of an object has an IoU of 0.1 and is a location error.

    A detection that overlaps only an ignored object, with an IoU from 0.1 to 0.5, is a background error.
    """
    truth = make_test_annotation([(0, 0, 9, 9), (50, 50, 59, 59)], [1, 2], difficult=[False, True])
    detections = make_image_detections(
        ((0, 0, 9, 0), 0.9, 1), ((0, 0, 9, 3), 0.8, 2), ((0, 0, 8, 0), 0.7, 1), ((50, 50, 59, 52), 0.6, 2)
    )
    result = diagnosis.diagnose_image(detections, truth)
    assert result.outcomes == ("location", "both", "background", "background")
    assert result.count_errors() == {"location": 1, "both": 1, "background": 2, "missed": 1}


def test_all_detections_on_an_ignored_object_are_ignored():
    truth = make_test_annotation([A], [1], difficult=[True])
    assert diagnosis.diagnose_image(make_image_detections((A, 0.9, 1), (A, 0.8, 2)), truth).outcomes == ("ignored",) * 2


@pytest.mark.parametrize("seed", range(6))
def test_diagnose_image_equals_the_reference_implementation(seed):
    detections, annotations = make_random_split(seed, images=30)
    kinds = set()
    for d, a in zip(detections, annotations, strict=True):
        result = diagnosis.diagnose_image(d, a)
        outcomes, missed = reference.classify_detections(*d, a.boxes_px, a.labels, a.difficult | a.crowd, 0.5, 0.5)
        assert list(zip(result.shown, result.outcomes, result.objects, strict=True)) == outcomes
        assert list(result.missed) == missed
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
    result = diagnosis.diagnose(detections, annotations, NAMES, resamples=2)
    for label in (1, 2, 3):
        objects = sum(int(((a.labels == label) & ~a.difficult & ~a.crowd).sum()) for a in annotations)
        assert result.confusion[label - 1].sum() == objects
    counted = sum(result != "ignored" for image in result.images for result in image.outcomes)
    assert result.confusion[:, :-1].sum() == counted
    errors = sum(sum(image.count_errors().values()) for image in result.images)
    assert errors == result.confusion.sum() - np.trace(result.confusion)


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
    actual = diagnosis.diagnose(detections, annotations, NAMES, resamples=2).confusion
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
        ("location", [(LOOSE, 0.9, 1), ((0, 0, 30, 100), 0.8, 1)], [(SQUARE, 1), (OTHER, 1)], 51 / 101, 2),
        # The only ant was detected twice as a bee. With one of them corrected, the AP of ant is 1, and the mean is 1/2.
        ("class", [(SQUARE, 0.9, 2), ((0, 0, 100, 99), 0.8, 2)], [(SQUARE, 1), (OTHER, 2)], 1 / 2, 2),
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
