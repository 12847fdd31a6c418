"""Matching of detections with objects by the rules of VOC, for all classes and images of a split at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections


class ScoredBoxes(NamedTuple):
    """Detections of one class in one image. Boxes are xyxy."""

    boxes_px: Float[np.ndarray, "k 4"]
    scores: Float[np.ndarray, " k"]


class TrueBoxes(NamedTuple):
    """Ground truth of one class in one image. Boxes are xyxy."""

    boxes_px: Float[np.ndarray, "g 4"]
    ignored: Bool[np.ndarray, " g"]
    """Whether each object is difficult or a crowd. A detection on such an object is neither correct nor wrong."""


class ClassMatches(NamedTuple):
    """Detections of one class in a split, best first. Detections on ignored objects are left out."""

    scores: Float64[np.ndarray, " j"]
    correct: Bool[np.ndarray, " j"]
    """Whether each detection is correct."""
    images: Int64[np.ndarray, " j"]
    """Position in the split of the image that each detection belongs to."""
    objects: Int64[np.ndarray, " i"]
    """Number of objects in each image of the split, without ignored objects."""


def compute_inclusive_iou(
    boxes: Float[np.ndarray, "k 4"], others: Float[np.ndarray, "g 4"]
) -> Float64[np.ndarray, "k g"]:
    """Return the IoU of each pair of xyxy pixel boxes as VOC computes it: the width of a box is x2 - x1 + 1."""
    return _compute_paired_iou(boxes.T[:, :, None], others.T[:, None])


def _compute_paired_iou(
    boxes: Float[np.ndarray, "4 *#p"], others: Float[np.ndarray, "4 *#p"]
) -> Float64[np.ndarray, "*p"]:
    """Return the IoU of each box with the box at the same place of another array, as `compute_inclusive_iou` does.

    The coordinates are on the first axis, because numpy is slow if the last one is short.
    """
    boxes, others = boxes.astype(np.float64), others.astype(np.float64)  # exact at the threshold for whole pixels
    intersection = _compute_area(np.maximum(boxes[:2], others[:2]), np.minimum(boxes[2:], others[2:]))
    union = _compute_area(boxes[:2], boxes[2:]) + _compute_area(others[:2], others[2:]) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _compute_area(low: Float64[np.ndarray, "2 ..."], high: Float64[np.ndarray, "2 ..."]) -> Float64[np.ndarray, "..."]:
    """Return the number of pixels between two corners, whose own pixels are counted. It is 0 if a side is negative."""
    width, height = (high - low + 1).clip(0)
    return width * height


def _find_best_objects(
    boxes: Float[np.ndarray, "k 4"],
    objects: Float[np.ndarray, "g 4"],
    starts: Int64[np.ndarray, " k"],
    ends: Int64[np.ndarray, " k"],
) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Return the object with the highest IoU for each of k boxes, and this IoU.

    The first of several objects with equal IoU is returned, as in the development kit.

    Args:
        boxes: Boxes.
        objects: Boxes of objects.
        starts: First object that each box is compared with.
        ends: Last object that each box is compared with, plus 1. If it equals the first, the IoU is -inf.
    """
    columns, object_columns = np.ascontiguousarray(boxes.T), np.ascontiguousarray(objects.T)
    best, highest = starts.copy(), np.full(len(boxes), -np.inf)
    counts = ends - starts
    left = np.flatnonzero(counts > 0)
    # The n-th round compares all boxes with the n-th of their objects.
    for n in range(counts.max(initial=0)):
        left = left[counts[left] > n]
        iou = _compute_paired_iou(columns[:, left], object_columns[:, starts[left] + n])
        better = iou > highest[left]
        best[left[better]], highest[left[better]] = starts[left[better]] + n, iou[better]
    return best, highest


def _concatenate_images(
    images: Sequence[tuple[np.ndarray, ...]], *no_rows: np.ndarray
) -> tuple[list[np.ndarray], Int64[np.ndarray, " k"]]:
    """Return each field of all images as one array, and the position of the image of each row.

    Args:
        images: The fields of each image, with one row for each box.
        no_rows: An array without rows for each field, for a split without images.
    """
    fields = [np.concatenate(arrays) for arrays in zip(no_rows, *images, strict=True)]
    return fields, np.repeat(np.arange(len(images)), [len(image[0]) for image in images])


def _match(
    detections: Sequence[tuple[np.ndarray, ...]],
    truth: Sequence[tuple[np.ndarray, ...]],
    classes: int,
    iou_threshold: float,
) -> list[ClassMatches]:
    """Match detections with objects by the rules of `voc_average_precision`, all classes of a split at once.

    Args:
        detections: Boxes, scores and labels of the detections of each image.
        truth: Boxes, labels and a mask of the ignored objects of each image.
        classes: Number of classes. The labels are 1 to this number.
        iou_threshold: Smallest IoU of a correct detection.

    Returns:
        The matches of each class, in the order of the labels.
    """
    no_boxes, no_labels = np.zeros((0, 4)), np.zeros(0, np.int64)
    (boxes, scores, labels), images = _concatenate_images(detections, no_boxes, np.zeros(0), no_labels)
    (objects, object_labels, ignored), object_images = _concatenate_images(
        truth, no_boxes, no_labels, np.zeros(0, bool)
    )
    # Class after class, best first. The sort is stable, so equal scores stay in the order of the images and, within an
    # image, in the order of the detections.
    order = np.lexsort((-scores, labels))
    boxes, scores, labels, images = boxes[order], scores[order], labels[order], images[order]
    # A group holds the objects of one class in one image.
    groups, object_groups = labels * len(truth) + images, object_labels * len(truth) + object_images
    object_order = np.argsort(object_groups, kind="stable")
    sorted_groups = object_groups[object_order]
    starts, ends = (np.searchsorted(sorted_groups, groups, side) for side in ("left", "right"))
    best, iou = _find_best_objects(boxes, objects[object_order], starts, ends)
    hits = np.flatnonzero(iou >= iou_threshold)
    # Only the first detection that hits an object is correct, even if a later one fits better.
    correct = np.zeros(len(boxes), bool)
    correct[hits[np.unique(best[hits], return_index=True)[1]]] = True
    counts = np.ones(len(boxes), bool)
    counts[hits] = ~ignored[object_order][best[hits]]
    scores, labels, images, correct = scores[counts], labels[counts], images[counts], correct[counts]
    bounds = np.searchsorted(labels, np.arange(1, classes + 2))
    per_image = np.bincount(object_groups[~ignored], minlength=(classes + 1) * len(truth))
    per_image = per_image.reshape(classes + 1, len(truth))[1:]
    return [
        ClassMatches(scores[a:b], correct[a:b], images[a:b], objects_of_class)
        for a, b, objects_of_class in zip(bounds[:-1], bounds[1:], per_image, strict=True)
    ]


def match_class(
    detections: Sequence[ScoredBoxes], ground_truth: Sequence[TrueBoxes], iou_threshold: float = 0.5
) -> ClassMatches:
    """Match the detections of one class with the objects of this class, by the rules of `voc_average_precision`.

    Args:
        detections: Detections of each image.
        ground_truth: Objects of the same images, in the same order.
        iou_threshold: Smallest IoU of a correct detection.
    """
    return _match(
        [(d.boxes_px, d.scores, np.ones(len(d.scores), np.int64)) for d in detections],
        [(t.boxes_px, np.ones(len(t.ignored), np.int64), t.ignored) for t in ground_truth],
        1,
        iou_threshold,
    )[0]


def match_classes(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> list[ClassMatches]:
    """Return the result of `match_class` for each class of a split, in the order of the labels.

    Difficult objects and crowds are ignored.

    Args:
        detections: Detections of each image.
        annotations: Annotations of the same images, in the same order.
        class_names: Names of the labels 1 to C.
        iou_threshold: Smallest IoU of a correct detection.
    """
    truth = [(a.boxes_px, a.labels, a.difficult | a.crowd) for a in annotations]
    return _match(detections, truth, len(class_names), iou_threshold)
