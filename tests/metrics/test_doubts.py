"""Tests of the doubts about annotations: hand-made detections for each kind, and sets without objects or detections."""

from collections.abc import Sequence

import numpy as np
import pytest

from ssd_jax.data.source import Annotation, make_annotation
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.metrics.diagnosis import ErrorType
from ssd_jax.metrics.doubts import Doubt, DoubtKind, compare_image, find_doubts

A, B, C = (10, 10, 40, 40), (60, 10, 90, 40), (10, 60, 40, 90)
A_SHIFTED = (20, 10, 50, 40)  # 20 of 40 columns in common with A: IoU 0.5 without, 0.51 with VOC's additional pixel
A_LOOSE = (22, 10, 52, 40)  # IoU 0.44 with A


def annotate(*rows: tuple[Sequence[float], int], difficult=None, crowd=None) -> Annotation:
    """Return the annotation of an image from rows of (box, label)."""
    boxes, labels = zip(*rows, strict=True) if rows else ((), ())
    return make_annotation("image", "image.jpg", (100, 100), boxes, labels, difficult, crowd)


def detect(*rows: tuple[Sequence[float], float, int]) -> ImageDetections:
    """Return the detections in an image from rows of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


def find_among_right_images(detections: ImageDetections, annotation: Annotation, right: int = 60) -> list[Doubt]:
    """Return the doubts about an image that follows images in which a sure detection agrees with each of two boxes.

    The first of two classes is in the first box, and the second one in the second box.
    """
    images = [annotate((A, 1), (B, 2))] * right
    found = [detect(((12, 10, 40, 40), 0.9, 1), (B, 0.9, 2))] * right
    doubts = find_doubts([*found, detections], [*images, annotation])
    return [doubt for doubt in doubts if doubt.image == right]


def test_find_doubts_finds_a_missing_label():
    (doubt,) = find_among_right_images(detect((A, 0.9, 1), (C, 0.95, 2), (B, 0.9, 2)), annotate((A, 1), (B, 2)))
    assert doubt[:1] + doubt[2:] == (DoubtKind.MISSING, 60, None, 1, None, None)
    assert 0.1 < doubt.score <= 0.95
    assert doubt.kind.error is ErrorType.BACKGROUND


def test_find_doubts_finds_a_box_in_which_nothing_is_found():
    (doubt,) = find_among_right_images(detect((B, 0.9, 2)), annotate((B, 2), (A, 1)))
    assert doubt[:1] + doubt[2:] == (DoubtKind.EMPTY, 60, 1, None, None, None)
    assert doubt.score == pytest.approx(0.01 / (0.01 + 0.99 / 61))  # 1 of 61 boxes of its class


def test_find_doubts_takes_a_faint_detection_as_evidence_if_empty_places_have_none():
    """At the places of the boxes of the next image, where nothing is, nothing is detected."""
    annotations = [annotate((A, 1)), annotate((C, 1))] * 30
    found = [detect((A, 0.9, 1)), detect((C, 0.9, 1))] * 30
    faint = find_doubts([*found, detect((A, 0.02, 1))], [*annotations, annotate((A, 1))])
    empty = find_doubts([*found, NO_DETECTIONS], [*annotations, annotate((A, 1))])
    assert [d.kind for d in empty] == [DoubtKind.EMPTY]
    assert not faint


def test_find_doubts_finds_another_class():
    (doubt,) = find_among_right_images(detect((A_SHIFTED, 0.95, 2), (A, 0.06, 1)), annotate((A, 1)))
    assert (doubt.kind, doubt.object_index, doubt.detection) == (DoubtKind.CLASS, 0, 0)
    assert doubt.iou == pytest.approx(21 / 41)
    assert doubt.score > 0.1


def test_find_doubts_does_not_doubt_a_class_that_is_detected_more_surely():
    """Neither detection of the second pair repeats the other one: both are on the box, at its two sides."""
    assert not find_among_right_images(detect((A_SHIFTED, 0.8, 2), (A, 0.85, 1)), annotate((A, 1)))
    at_the_left = (0, 10, 30, 40)
    for score, number in ((0.85, 0), (0.75, 1)):
        comparison = compare_image(detect((A_SHIFTED, 0.8, 2), (at_the_left, score, 1)), annotate((A, 1)))
        assert [d.kind for d in comparison.disagreements] == [DoubtKind.CLASS] * number


def test_find_doubts_finds_a_loose_box():
    (doubt,) = find_among_right_images(detect((A_LOOSE, 0.9, 1)), annotate((A, 1)))
    assert (doubt.kind, doubt.object_index, doubt.detection) == (DoubtKind.LOOSE, 0, 0)
    assert doubt.iou == pytest.approx(19 / 43)
    assert doubt.score == pytest.approx(0.9 * 0.01 / (0.01 + 0.99 / 61))


def test_find_doubts_takes_a_detection_with_a_low_iou_as_another_object():
    beside = (30, 10, 60, 40)  # IoU 0.22
    doubts = find_among_right_images(detect((beside, 0.95, 1)), annotate((A, 1)))
    assert DoubtKind.MISSING in {doubt.kind for doubt in doubts}
    assert DoubtKind.LOOSE not in {doubt.kind for doubt in doubts}


@pytest.mark.parametrize("label", [1, 2])
def test_find_doubts_finds_a_duplicate_of_any_class(label: int):
    twin = (11, 10, 40, 40)
    (doubt,) = find_among_right_images(detect((A, 0.9, 1)), annotate((twin, label), (A, 1)))
    assert (doubt.kind, doubt.detection) == (DoubtKind.DUPLICATE, None)
    assert {doubt.object_index, doubt.twin} == {0, 1}
    assert label == 1 or doubt.object_index == 0, "the box with the detected class is kept"
    assert doubt.iou == pytest.approx(30 / 31)


def test_find_doubts_accepts_two_objects_that_are_both_detected():
    boxes = (A, (10, 10, 40, 60))
    rows = [(box, 0.9, label) for box, label in zip(boxes, (1, 2), strict=True)]
    annotation = annotate(*zip(boxes, (1, 2), strict=True))
    assert compare_image(detect(*rows), annotation).twins == {}
    assert not find_among_right_images(detect(*rows), annotation)


def test_find_doubts_compares_overlapped_boxes_only_with_each_other():
    """Half of the overlapped boxes are not found, so another one is no reason for a doubt, but a free box is."""
    beside = (30, 10, 60, 40)  # IoU 0.22 with A
    images, found = [annotate((A, 1), (beside, 1))] * 30, [detect((A, 0.9, 1))] * 30
    doubts = find_doubts(
        [*found, *[detect((A, 0.9, 1), (C, 0.9, 1))] * 30, detect((A, 0.9, 1))],
        [*images, *[annotate((A, 1), (C, 1))] * 30, annotate((A, 1), (C, 1))],
    )
    assert [(d.kind, d.image, d.object_index) for d in doubts if d.score > 0.1] == [(DoubtKind.EMPTY, 60, 1)]


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_find_doubts_doubts_neither_ignored_objects_nor_detections_on_them(flag: str):
    inside = (12, 12, 20, 20)
    found = detect((A_LOOSE, 0.95, 1), (A_SHIFTED, 0.95, 2), (inside, 0.95, 2))
    assert find_among_right_images(found, annotate((A, 1)))
    assert not find_among_right_images(found, annotate((A, 1), **{flag: [True]}))
    assert not find_among_right_images(NO_DETECTIONS, annotate((A, 1), **{flag: [True]}))


def test_find_doubts_names_a_place_once():
    """Three detections on one object without a box are one missing label, and an object has at most one doubt."""
    doubts = find_among_right_images(
        detect((C, 0.95, 1), (C, 0.9, 2), ((11, 60, 41, 90), 0.8, 1), (A_LOOSE, 0.3, 1), (A_SHIFTED, 0.95, 2)),
        annotate((A, 1)),
    )
    assert sorted((d.kind, d.object_index) for d in doubts if d.object_index is None) == [(DoubtKind.MISSING, None)]
    (about_the_object,) = [d for d in doubts if d.object_index == 0]
    alone = find_among_right_images(detect((A_LOOSE, 0.3, 1)), annotate((A, 1)))
    assert about_the_object.score > max(d.score for d in alone), "the highest one of the class, not that of a loose box"
    assert about_the_object.kind is DoubtKind.CLASS


def test_find_doubts_orders_all_kinds_by_score():
    images = [annotate((A, 1), (B, 2))] * 40 + [annotate((A, 2)), annotate(), annotate((A, 1))]
    found = [detect((A, 0.9, 1), (B, 0.9, 2))] * 40 + [detect((A, 0.95, 1)), detect((B, 0.95, 2)), NO_DETECTIONS]
    doubts = find_doubts(found, images)
    assert {d.kind for d in doubts} == {DoubtKind.CLASS, DoubtKind.MISSING, DoubtKind.EMPTY}
    assert [d.score for d in doubts] == sorted((d.score for d in doubts), reverse=True)


def test_find_doubts_scores_sure_detections_higher_among_annotations_with_missing_labels():
    """Scores rise with the detection score, and their sum over the missing labels is near the number of these."""
    rng = np.random.default_rng(0)
    images, found, missing = [], [], 0
    for score in rng.uniform(0.05, 1, 2000):
        is_right = rng.random() < score  # a calibrated detector
        is_labelled = rng.random() < 0.8
        missing += is_right and not is_labelled
        images.append(annotate((A, 1)) if is_right and is_labelled else annotate())
        found.append(detect((A, score, 1)))
    doubts = [doubt for doubt in find_doubts(found, images) if doubt.kind is DoubtKind.MISSING]
    by_detection = sorted((float(found[d.image].scores[0]), d.score) for d in doubts)
    assert np.all(np.diff([score for _, score in by_detection]) >= 0)
    assert 0.6 * missing < sum(d.score for d in doubts) < 1.4 * missing


def test_find_doubts_leaves_out_unread_images():
    images, found = [annotate((A, 1))] * 30, [detect((A, 0.9, 1))] * 29 + [NO_DETECTIONS]
    assert [d.image for d in find_doubts(found, images)] == [29]
    assert not find_doubts(found, images, frozenset({29}))


@pytest.mark.parametrize("images", [0, 1, 5])
def test_find_doubts_accepts_sets_without_boxes_or_without_detections(images: int):
    assert find_doubts([NO_DETECTIONS] * images, [annotate()] * images) == []
    without_boxes = find_doubts([detect((A, 0.9, 1))] * images, [annotate()] * images)
    assert {d.kind for d in without_boxes} <= {DoubtKind.MISSING}
    nothing_found = find_doubts([NO_DETECTIONS] * images, [annotate((A, 1))] * images)
    assert nothing_found == [], "a detector that finds nothing says nothing about the boxes"


def test_find_doubts_rejects_lists_of_different_lengths():
    with pytest.raises(ValueError, match="1 images"):
        find_doubts([NO_DETECTIONS], [])


def test_compare_image_prefers_the_object_of_the_same_class():
    """The better detection takes the object of its class, although its IoU with the other object is higher."""
    comparison = compare_image(detect((A, 0.9, 1)), annotate((A, 2), ((13, 10, 43, 40), 1)))
    assert comparison.agreed == {1: 0}
    assert comparison.twins == {0: 1}
    assert comparison.disagreements == ()
