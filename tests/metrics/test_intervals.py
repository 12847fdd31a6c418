"""Tests of the bootstrap intervals.

The expected values come from the metrics of splits that are really resampled, and from hand computation.
"""

import numpy as np
import pytest
from helpers.splits import make_image_detections, make_random_split, make_test_annotation, select_class

from ssd_jax.metrics import average_precision, intervals
from ssd_jax.metrics.average_precision import match_coco
from ssd_jax.metrics.intervals import Interval, Intervals
from ssd_jax.metrics.voc_matching import ClassMatches, match_classes

A, B, C = (0, 0, 99, 99), (200, 200, 299, 299), (400, 300, 499, 399)
NAMES = ("ant", "bee", "cat")


def compute_intervals(detections, annotations) -> Intervals:
    coco = intervals.match_coco_classes(match_coco(detections, annotations, NAMES))
    return intervals.bootstrap(match_classes(detections, annotations, NAMES), coco)


# ---- VOC ----


@pytest.mark.parametrize("seed", range(6))
def test_compute_resampled_ap_equals_the_ap_of_the_resampled_split(seed):
    """The resampled split contains each image as often as it was drawn."""
    detections, annotations = make_random_split(seed)
    times = np.random.default_rng(100 + seed).multinomial(12, np.full(12, 1 / 12), 8).T
    for label, matches in enumerate(match_classes(detections, annotations, NAMES), start=1):
        actual = intervals.compute_resampled_ap(matches, times)
        for r in range(8):
            drawn = [i for i in range(12) for _ in range(times[i, r])]
            resampled = [detections[i] for i in drawn], [annotations[i] for i in drawn]
            split = select_class(label, *resampled)
            for row, eleven_point in enumerate((True, False)):
                expected = average_precision.voc_average_precision(*split, eleven_point=eleven_point)
                np.testing.assert_allclose(actual[row, r], expected, rtol=1e-12)


def test_compute_resampled_ap_uses_the_recall_points_of_numpy():
    """Three of ten objects are detected. Their recall of 3/10 does not reach the point 0.30000000000000004."""
    matches = ClassMatches(np.array([0.9, 0.8, 0.7]), np.ones(3, bool), np.zeros(3, np.int64), np.array([10]))
    np.testing.assert_allclose(intervals.compute_resampled_ap(matches, np.array([[1, 2]])), [[3 / 11] * 2, [0.3] * 2])


def test_bootstrap_interval_is_close_to_that_of_a_plain_loop():
    """The function and the loop draw different resamples, so the limits of the intervals differ slightly."""
    detections, annotations = make_random_split(3, images=20)
    actual = intervals.bootstrap(match_classes(detections, annotations, NAMES), resamples=2000)
    rng, means = np.random.default_rng(99), []
    for _ in range(200):
        drawn = rng.integers(0, 20, 20)
        result = average_precision.evaluate_voc([detections[i] for i in drawn], [annotations[i] for i in drawn], NAMES)
        means.append((result["voc_map_11point"], result["voc_map_area"]))
    for interval, values in zip((actual.map_11point, actual.map_area), np.transpose(means), strict=True):
        np.testing.assert_allclose(interval, np.percentile(values, (2.5, 97.5)), atol=0.04)
        assert interval is not None and interval.high - interval.low > 0.1


def test_bootstrap_can_draw_more_resamples_than_fit_into_one_block():
    matches = match_classes(*make_random_split(1), NAMES)
    one, many = (intervals.bootstrap(matches, resamples=n) for n in (1, 130))
    assert one.map_area is not None and one.map_area.low == one.map_area.high
    assert many.map_area is not None and many.map_area.low < many.map_area.high
    assert (one.resamples, many.resamples) == (1, 130)
    assert many.map_area != intervals.bootstrap(matches, resamples=50).map_area
    assert many == intervals.bootstrap(matches, resamples=130) != intervals.bootstrap(matches, resamples=130, seed=1)


def test_intervals_have_zero_width_if_all_or_no_objects_are_detected():
    annotations = [make_test_annotation([A], [1]), make_test_annotation([B], [1]), make_test_annotation()]
    none_detected = compute_intervals([make_image_detections()] * 3, annotations)
    assert none_detected.map_11point == none_detected.map_area == Interval(0, 0)
    all_detected = compute_intervals(
        [make_image_detections((A, 0.9, 1)), make_image_detections((B, 0.8, 1)), make_image_detections()], annotations
    )
    assert all_detected.map_11point == all_detected.map_area == Interval(1, 1)
    assert all_detected.classes_area == (Interval(1, 1), None, None)


@pytest.mark.parametrize("images", [0, 1])
def test_intervals_are_none_with_fewer_than_two_images(images):
    result = compute_intervals([make_image_detections((A, 0.9, 1))] * images, [make_test_annotation([A], [1])] * images)
    assert result == (None, None, None, (None,) * 3, (None,) * 3, 0)


def test_intervals_are_none_without_objects():
    result = compute_intervals([make_image_detections((A, 0.9, 1))] * 2, [make_test_annotation()] * 2)
    assert result.map_area is None and result.classes_11point == (None,) * 3


def test_class_without_objects_in_a_resample_is_left_out_of_the_mean():
    """All ants are detected, and the only bee is missed. The mAP is 1/2, or 1 in resamples without the bee."""
    annotations = [
        make_test_annotation([A], [1]),
        make_test_annotation([A], [1]),
        make_test_annotation([A, B], [1, 2]),
    ]
    result = compute_intervals([make_image_detections((A, 0.9, 1))] * 3, annotations)
    assert result.map_area == Interval(0.5, 1)
    assert result.classes_area == (Interval(1, 1), Interval(0, 0), None)


def test_interval_tree_names_the_classes():
    result = intervals.Intervals(
        Interval(0.1, 0.2), Interval(0.3, 0.4), None, (Interval(0.5, 0.6), None), (Interval(0.7, 0.8), None), 9
    )
    assert intervals.make_interval_tree(result, ["ant", "bee"]) == {
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
    truth = intervals.compute_resampled_ap(everything, np.ones((100_000, 1), int))[1, 0]
    intervals_with_truth, intervals_with_ap = 0, 0
    for _ in range(100):
        sample = make_synthetic_class(rng, 80)
        interval = intervals.bootstrap([sample], resamples=200).map_area
        point = intervals.compute_resampled_ap(sample, np.ones((80, 1), int))[1, 0]
        assert interval is not None
        intervals_with_truth += interval.low <= truth <= interval.high
        intervals_with_ap += interval.low <= point <= interval.high
    assert 88 <= intervals_with_truth <= 99
    assert intervals_with_ap == 100


# ---- COCO ----


def make_resample(detections, annotations, times):
    """Return a split with each image as often as it was drawn."""
    drawn = [i for i in range(len(times)) for _ in range(times[i])]
    return [detections[i] for i in drawn], [annotations[i] for i in drawn]


@pytest.mark.parametrize("seed", range(6))
def test_compute_resampled_coco_ap_equals_the_ap_of_the_resampled_split(seed):
    """hotcoco measures the resampled split, in which some objects are crowds and some classes have no objects."""
    detections, annotations = make_random_split(seed)
    matches = intervals.match_coco_classes(match_coco(detections, annotations, NAMES))
    times = np.random.default_rng(100 + seed).multinomial(12, np.full(12, 1 / 12), 8).T
    classes = np.array([intervals.compute_resampled_coco_ap(one, times) for one in matches])
    assert not all(one.counted.all() for one in matches), "some detections are on crowds"
    for r in range(8):
        resampled = make_resample(detections, annotations, times[:, r])
        expected = average_precision.evaluate_coco(*resampled, NAMES)["coco_ap"]
        np.testing.assert_allclose(np.nanmean(classes[:, r]), expected, rtol=1e-9)


def test_coco_matches_have_the_objects_of_the_file_and_at_most_100_detections_of_an_image():
    """The 101st detection of the first image is not counted. The second image has a crowd."""
    boxes = [*((i, 0, i + 9, 9) for i in range(100)), C]
    rows = [(box, 0.9 - k / 1000, 1) for k, box in enumerate(boxes)]
    detections = [make_image_detections(*rows), make_image_detections((A, 0.95, 1), (B, 0.5, 1))]
    annotations = [
        make_test_annotation([boxes[0], boxes[100]], [1, 1]),
        make_test_annotation([A, B], [1, 1], crowd=[True, False]),
    ]
    ant, bee, _ = intervals.match_coco_classes(match_coco(detections, annotations, NAMES))
    assert ant.objects.tolist() == [2, 1] and bee.objects.tolist() == [0, 0]
    assert ant.images.tolist() == [0] * 100 + [1], "the best first, without the detection on the crowd"
    assert np.flatnonzero(ant.correct[0]).tolist() == [0, 100]
    assert len(bee.images) == 0


def test_coco_interval_is_close_to_that_of_a_plain_loop():
    detections, annotations = make_random_split(3, images=20)
    actual = compute_intervals(detections, annotations).coco_ap
    rng, values = np.random.default_rng(99), []
    for _ in range(200):
        times = rng.multinomial(20, np.full(20, 1 / 20))
        values.append(average_precision.evaluate_coco(*make_resample(detections, annotations, times), NAMES)["coco_ap"])
    assert actual is not None
    np.testing.assert_allclose(actual, np.percentile(values, (2.5, 97.5)), atol=0.04)
    assert actual.high - actual.low > 0.05


def test_coco_interval_is_one_if_all_objects_are_found_exactly_and_zero_without_detections():
    annotations = [make_test_annotation([A], [1]), make_test_annotation([B], [1])]
    exact = [make_image_detections((A, 0.9, 1)), make_image_detections((B, 0.8, 1))]
    assert compute_intervals(exact, annotations).coco_ap == Interval(1, 1)
    assert compute_intervals([make_image_detections()] * 2, annotations).coco_ap == Interval(0, 0)


def test_coco_interval_is_none_without_objects_or_with_one_image():
    assert compute_intervals([make_image_detections((A, 0.9, 1))] * 2, [make_test_annotation()] * 2).coco_ap is None
    assert compute_intervals([make_image_detections((A, 0.9, 1))], [make_test_annotation([A], [1])]).coco_ap is None


def test_bootstrap_does_not_depend_on_the_size_of_its_blocks(monkeypatch):
    detections, annotations = make_random_split(2)
    one = compute_intervals(detections, annotations)
    monkeypatch.setattr(intervals, "_BLOCK", 700)
    assert compute_intervals(detections, annotations) == one
