"""Diagnosis of a metric: curves, confusions and errors by type and by image.

`diagnose` takes the same arguments as the metrics: the detections and the annotations of a split, in pixels of the
original images. Objects that are difficult (VOC) or crowds (COCO) are ignored, as in the VOC metric: a detection on
an ignored object is neither correct nor an error. Only `compute_tide_errors` follows COCO, where difficult objects
count like any other.
"""

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import compute_precision_recall, match_coco
from ssd_jax.metrics.voc_matching import ClassMatches, compute_inclusive_iou, match_classes

SCORE = 0.5
"""Minimum score of the detections that are shown and classified one by one. The APs use all detections."""
IOU = 0.5
"""Minimum IoU of a detection and the object that is matched with the detection."""
BACKGROUND_IOU = 0.1
"""A detection whose IoU with every object that is not ignored is lower than this value is a background error."""


class ErrorType(enum.StrEnum):
    """Outcome of a detection or of an object: TIDE's six types of errors, and two outcomes that are not errors."""

    CLASSIFICATION = "classification"
    """The detection is on an object of another class."""
    LOCALIZATION = "localization"
    """The detection is of the right class, but its IoU with the object is only 0.1 to 0.5."""
    BOTH = "both"
    """The detection is of another class, and its IoU with the object is only 0.1 to 0.5."""
    DUPLICATE = "duplicate"
    """The detection is on an object that a better detection has been matched with."""
    BACKGROUND = "background"
    """The detection has an IoU below 0.1 with every object that is not ignored."""
    MISSED = "missed"
    """No detection was matched with the object."""
    CORRECT = "correct"
    """The detection is on an object of its class."""
    IGNORED = "ignored"
    """The detection is on an ignored object."""


ERRORS = tuple(kind for kind in ErrorType if kind not in (ErrorType.CORRECT, ErrorType.IGNORED))
"""TIDE's six types of errors."""


class Curve(NamedTuple):
    """Precision and recall of one class after each detection, best first."""

    precision: Float64[np.ndarray, " j"]
    recall: Float64[np.ndarray, " j"]
    shown: int
    """Number of detections with a score of at least SCORE. The operating point is at the last of these detections."""


class NearObject(NamedTuple):
    """Object near a detection that is matched with no object."""

    object_index: int
    """Position of the object."""
    iou: float
    """IoU of the detection and the object, which is from BACKGROUND_IOU to IOU."""


class ImageDiagnosis(NamedTuple):
    """Outcomes of the detections and of the objects of one image."""

    shown: tuple[int, ...]
    """Positions of the classified detections, best first: those with a score of at least SCORE."""
    outcomes: tuple[ErrorType, ...]
    """Outcome of each detection in ``shown``."""
    objects: tuple[int | None, ...]
    """Position of the object that each detection in ``shown`` is matched with. None for all outcomes except CORRECT and
    CLASSIFICATION."""
    unmatched: tuple[int, ...]
    """Positions of the objects that are neither ignored nor matched with a detection."""
    nearest: tuple[NearObject | None, ...] = ()
    """Nearest object of each detection in ``shown`` with the outcome LOCALIZATION (of its class) or BOTH. None for all
    other outcomes."""

    @property
    def loose(self) -> dict[int, float]:
        """Dict from each unmatched object on which there is a loose box of its class to the highest IoU of such a box.

        These objects are found, although not accurately, so they are not missed.
        """
        found: dict[int, float] = {}
        for outcome, near in zip(self.outcomes, self.nearest, strict=True):
            if outcome is ErrorType.LOCALIZATION and near is not None:
                found[near.object_index] = max(near.iou, found.get(near.object_index, 0.0))
        return {target: found[target] for target in self.unmatched if target in found}

    @property
    def missed(self) -> tuple[int, ...]:
        """Positions of the unmatched objects on which there is not even a loose box of their class."""
        loose = self.loose
        return tuple(target for target in self.unmatched if target not in loose)

    def count_errors(self) -> dict[ErrorType, int]:
        """Return a dict from each type of error that occurs in the image to the number of errors."""
        counts = {kind: self.outcomes.count(kind) for kind in ERRORS} | {ErrorType.MISSED: len(self.missed)}
        return {kind: count for kind, count in counts.items() if count}


class TideError(NamedTuple):
    """Number of errors of one of TIDE's types, and the AP that these errors cost."""

    gain: float
    """Increase of COCO's AP at IoU 0.5 if only the errors of this type were corrected."""
    errors: int
    """Number of errors of this type."""


class Diagnosis(NamedTuple):
    """Curves and errors of a split, which the report shows in addition to the metrics."""

    curves: tuple[Curve | None, ...]
    """Curve of each class. None for a class without objects."""
    confusion: Int64[np.ndarray, "c c"]
    """Confusion matrix. A row is a class of objects and a column a class of detections, in the order of the labels. The
    last row holds detections without an object, and the last column holds objects without a detection."""
    tide: dict[ErrorType, TideError]
    """Number and cost of the errors of each of TIDE's six types."""
    images: tuple[ImageDiagnosis, ...]
    """Diagnosis of each image of the split, in order."""


def diagnose(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
) -> Diagnosis:
    """Return the curves and errors that the report shows in addition to the metrics.

    Args:
        detections: Detections of each image.
        annotations: Annotations of the same images, in the same order.
        class_names: Names of the labels 1 to C.

    Raises:
        ValueError: If the numbers of detections and annotations differ, or a label has no name.
    """
    tide = compute_tide_errors(detections, annotations, class_names)  # also checks the arguments
    matches = match_classes(detections, annotations, class_names, IOU)
    images = tuple(diagnose_image(d, a) for d, a in zip(detections, annotations, strict=True))
    return Diagnosis(
        curves=tuple(_make_curve(one) for one in matches),
        confusion=compute_confusion_matrix(images, detections, annotations, len(class_names)),
        tide=tide,
        images=images,
    )


def _make_curve(matches: ClassMatches) -> Curve | None:
    curve = compute_precision_recall(matches)
    return None if curve is None else Curve(*curve, shown=int((matches.scores >= SCORE).sum()))


# ---- image by image ----


def diagnose_image(
    detections: ImageDetections, annotation: Annotation, score: float = SCORE, iou_threshold: float = IOU
) -> ImageDiagnosis:
    """Classify the detections of an image and find the objects without a detection.

    In order of descending score, each detection is matched with an object of any class: of the objects that are not
    matched yet, the one with the highest IoU, if this IoU is at least ``iou_threshold`` (IoU as in VOC). A detection
    that reaches the threshold only with objects that are already matched is a duplicate. A detection that reaches it
    with no object has the outcome LOCALIZATION, BOTH or BACKGROUND, depending on its IoUs. An ignored object can be
    matched with any number of detections; all of them are ignored.

    Args:
        detections: Detections of the image.
        annotation: Annotation of the image.
        score: Smallest score of a detection to be classified.
        iou_threshold: Smallest IoU of a match.
    """
    order = np.argsort(-detections.scores, kind="stable")
    shown = order[detections.scores[order] >= score].tolist()
    iou = compute_inclusive_iou(detections.boxes_px[shown], annotation.boxes_px)
    ignored = annotation.difficult | annotation.crowd
    unmatched = np.ones(len(annotation.labels), bool)
    outcomes: list[ErrorType] = []
    objects: list[int | None] = []
    nearest: list[NearObject | None] = []
    for i, overlaps in zip(shown, iou, strict=True):
        same_class = annotation.labels == detections.labels[i]
        fits = overlaps >= iou_threshold
        candidates = np.flatnonzero(fits & unmatched)
        best = int(candidates[overlaps[candidates].argmax()]) if len(candidates) else None
        nearby = None
        if best is None:
            near = (overlaps >= BACKGROUND_IOU) & ~ignored
            if fits.any():
                outcome = ErrorType.DUPLICATE
            elif (near & same_class).any():
                outcome, nearby = ErrorType.LOCALIZATION, _find_nearest(overlaps, near & same_class)
            elif near.any():
                outcome, nearby = ErrorType.BOTH, _find_nearest(overlaps, near)
            else:
                outcome = ErrorType.BACKGROUND
        elif ignored[best]:
            outcome, best = ErrorType.IGNORED, None
        else:
            outcome = ErrorType.CORRECT if same_class[best] else ErrorType.CLASSIFICATION
            unmatched[best] = False
        outcomes.append(outcome)
        objects.append(best)
        nearest.append(nearby)
    left = np.flatnonzero(unmatched & ~ignored).tolist()
    return ImageDiagnosis(tuple(shown), tuple(outcomes), tuple(objects), tuple(left), tuple(nearest))


def _find_nearest(overlaps: Float64[np.ndarray, " g"], among: Bool[np.ndarray, " g"]) -> NearObject:
    """Return the object with the highest IoU among some of the objects of an image."""
    best = int(np.where(among, overlaps, -1).argmax())
    return NearObject(best, float(overlaps[best]))


def find_worst_images(images: Sequence[ImageDiagnosis], count: int) -> list[int]:
    """Return the positions of the ``count`` images with the most errors, worst first.

    Images with equally many errors keep their order. Images without errors are left out.
    """
    errors = [sum(image.count_errors().values()) for image in images]
    order = sorted(range(len(images)), key=lambda i: -errors[i])
    return [i for i in order[:count] if errors[i]]


def find_best_images(images: Sequence[ImageDiagnosis], count: int) -> list[int]:
    """Return the positions of the ``count`` images with the smallest share of errors, best first.

    The share is that among errors and correct detections. Of images with the same share, those with more correct
    detections come first. Images in which at least half are errors, or without correct detections, are left out.
    """
    keys = []
    for i, image in enumerate(images):
        correct, errors = image.outcomes.count(ErrorType.CORRECT), sum(image.count_errors().values())
        if errors < correct:
            keys.append((errors / (errors + correct), -correct, i))
    return [i for _, _, i in sorted(keys)[:count]]


def count_found_objects(images: Sequence[ImageDiagnosis]) -> int:
    """Return the number of objects with a correct detection that has a score of at least SCORE."""
    return sum(image.outcomes.count(ErrorType.CORRECT) for image in images)


def compute_confusion_matrix(
    images: Sequence[ImageDiagnosis],
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    classes: int,
) -> Int64[np.ndarray, "c c"]:
    """Return a matrix that counts how often objects of each class were detected as each class.

    Returns:
        A row for each class of objects and a column for each class of detections. The last row counts detections
        that are matched with no object, and the last column counts objects that are matched with no detection.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for image, image_detections, annotation in zip(images, detections, annotations, strict=True):
        for i, target in _iterate_matched_pairs(image):
            row = classes if target is None else annotation.labels[target] - 1
            column = classes if i is None else image_detections.labels[i] - 1
            matrix[row, column] += 1
    return matrix


def _iterate_matched_pairs(image: ImageDiagnosis) -> Iterator[tuple[int | None, int | None]]:
    """Yield pairs of the positions of a detection and its object. None stands for no object, or for no detection."""
    for i, outcome, target in zip(image.shown, image.outcomes, image.objects, strict=True):
        if outcome is not ErrorType.IGNORED:
            yield i, target
    for target in image.unmatched:
        yield None, target


# ---- TIDE ----

_HOTCOCO_NAMES = {
    ErrorType.CLASSIFICATION: "Cls",
    ErrorType.LOCALIZATION: "Loc",
    ErrorType.BOTH: "Both",
    ErrorType.DUPLICATE: "Dupe",
    ErrorType.BACKGROUND: "Bkg",
    ErrorType.MISSED: "Miss",
}


def compute_tide_errors(
    detections: Sequence[ImageDetections], annotations: Sequence[Annotation], class_names: Sequence[str]
) -> dict[ErrorType, TideError]:
    """Return, for each of TIDE's types, the number of errors and the AP that correcting these errors would gain.

    hotcoco computes the result. COCO's rules apply: all detections count (at most 100 per class and image), difficult
    objects are ordinary objects, and crowds are ignored.

    References:
        Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
    """
    evaluation = match_coco(detections, annotations, class_names)
    tide = evaluation.matched.tide_errors(pos_thr=IOU, bg_thr=BACKGROUND_IOU)
    gains, counts = tide["delta_ap"], tide["counts"]
    return {kind: TideError(float(gains[name]), int(counts[name])) for kind, name in _HOTCOCO_NAMES.items()}
