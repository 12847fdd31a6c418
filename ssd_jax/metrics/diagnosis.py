"""Diagnosis of a metric: curves, confidence intervals, confusions and errors by type and by image.

`diagnose` takes the same arguments as the metrics: the detections and the annotations of a split, in pixels of the
original images. Objects that are difficult (VOC) or crowds (COCO) are ignored, as in the VOC metric: a detection on
an ignored object is neither correct nor an error. Only `compute_tide_errors` follows COCO, where difficult objects
count like any other.
"""

import enum
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64

from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import (
    RECALL_POINTS,
    ClassMatches,
    compute_inclusive_iou,
    compute_precision_recall,
    match_class,
    match_coco,
    select_class,
)

SCORE = 0.5
"""Minimum score of the detections that are shown and classified one by one. The APs use all detections."""
IOU = 0.5
"""Minimum IoU of a detection and the object that is matched with the detection."""
BACKGROUND_IOU = 0.1
"""A detection whose IoU with every object that is not ignored is lower than this value is a background error."""
RESAMPLES = 1000
"""Default number of bootstrap resamples."""


class ErrorType(enum.StrEnum):
    """Outcome of a detection or of an object: TIDE's six types of errors, and two outcomes that are not errors."""

    CLASS = "class"
    """The detection is on an object of another class."""
    LOCATION = "location"
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


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


class Intervals(NamedTuple):
    """95 % bootstrap intervals of the VOC metrics. With fewer than two images or no objects, an interval is None."""

    map_11point: Interval | None
    map_area: Interval | None
    classes_11point: tuple[Interval | None, ...]
    classes_area: tuple[Interval | None, ...]
    resamples: int
    """Number of resamples, which is 0 if there are fewer than two images."""


class ImageDiagnosis(NamedTuple):
    """Outcomes of the detections and of the objects of one image."""

    shown: tuple[int, ...]
    """Positions of the classified detections, best first: those with a score of at least SCORE."""
    outcomes: tuple[ErrorType, ...]
    """Outcome of each detection in ``shown``."""
    objects: tuple[int | None, ...]
    """Position of the object that each detection in ``shown`` is matched with. None for all outcomes except CORRECT and
    CLASS."""
    missed: tuple[int, ...]
    """Positions of the objects that are neither ignored nor matched with a detection."""

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
    """Curves, intervals and errors of a split, which the report shows in addition to the metrics."""

    curves: tuple[Curve | None, ...]
    """Curve of each class. None for a class without objects."""
    intervals: Intervals
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
    resamples: int = RESAMPLES,
) -> Diagnosis:
    """Return the curves, intervals and errors that the report shows in addition to the metrics.

    Args:
        detections: Detections of each image.
        annotations: Annotations of the same images, in the same order.
        class_names: Names of the labels 1 to C.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: If the numbers of detections and annotations differ, or a label has no name.
    """
    tide = compute_tide_errors(detections, annotations, class_names)  # also checks the arguments
    matches = match_classes(detections, annotations, class_names)
    images = tuple(diagnose_image(d, a) for d, a in zip(detections, annotations, strict=True))
    return Diagnosis(
        curves=tuple(_make_curve(one) for one in matches),
        intervals=bootstrap(matches, resamples),
        confusion=compute_confusion_matrix(images, detections, annotations, len(class_names)),
        tide=tide,
        images=images,
    )


def match_classes(
    detections: Sequence[ImageDetections], annotations: Sequence[Annotation], class_names: Sequence[str]
) -> list[ClassMatches]:
    """Return the result of `match_class` for each class, in the order of the labels."""
    labels = range(1, len(class_names) + 1)
    return [match_class(*select_class(label, detections, annotations), IOU) for label in labels]


def _make_curve(matches: ClassMatches) -> Curve | None:
    curve = compute_precision_recall(matches)
    return None if curve is None else Curve(*curve, shown=int((matches.scores >= SCORE).sum()))


# ---- bootstrap ----


def bootstrap(matches: Sequence[ClassMatches], resamples: int = RESAMPLES, seed: int = 0) -> Intervals:
    """Compute 95 % percentile intervals of the AP of each class and of the mean AP, by resampling the images.

    A resample draws as many images as the split has, with replacement, and counts an image as often as it was drawn.
    A class without objects in a resample is left out of the mean of that resample. The intervals show how much the
    metrics depend on the choice of the images, but not how much they depend on the seed of the training.

    Args:
        matches: Matches of each class, over the same images.
        resamples: Number of resamples. The more there are, the less random are the ends of the intervals.
        seed: Seed of the draws.

    Returns:
        The intervals. All are None if the split has fewer than two images.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    images = len(matches[0].objects) if matches else 0
    if images < 2:  # every resample would be the split itself
        no_intervals = (None,) * len(matches)
        return Intervals(None, None, no_intervals, no_intervals, 0)
    generator = np.random.default_rng(seed)
    blocks = []
    for start in range(0, resamples, 50):  # in blocks, to limit the memory for a frequent class
        drawn = generator.multinomial(images, np.full(images, 1 / images), min(50, resamples - start))
        times = np.ascontiguousarray(drawn.T, np.int32)
        blocks.append(np.stack([compute_resampled_ap(one, times) for one in matches]))
    eleven_point, area = np.concatenate(blocks, axis=2).swapaxes(0, 1)
    return Intervals(
        _compute_percentile_interval(_compute_mean_of_known(eleven_point)),
        _compute_percentile_interval(_compute_mean_of_known(area)),
        tuple(map(_compute_percentile_interval, eleven_point)),
        tuple(map(_compute_percentile_interval, area)),
        resamples,
    )


def make_interval_tree(intervals: Intervals, class_names: Sequence[str]) -> dict[str, Any]:
    """Return intervals as nested dicts, as ``evaluate`` writes them to metrics.json.

    Returns:
        ``resamples``; ``map_11point`` and ``map_area``; and ``classes``, a dict from each class name to a dict with
        ``ap_11point`` and ``ap_area``. An interval is a list [low, high], or None.
    """
    eleven_point, area = (
        [None if interval is None else list(interval) for interval in classes]
        for classes in (
            (intervals.map_11point, *intervals.classes_11point),
            (intervals.map_area, *intervals.classes_area),
        )
    )
    return {
        "resamples": intervals.resamples,
        "map_11point": eleven_point[0],
        "map_area": area[0],
        "classes": {
            name: {"ap_11point": one, "ap_area": other}
            for name, one, other in zip(class_names, eleven_point[1:], area[1:], strict=True)
        },
    }


def compute_resampled_ap(matches: ClassMatches, times: Int[np.ndarray, "i r"]) -> Float64[np.ndarray, "2 r"]:
    """Compute the AP of one class, by 11 points and by area, for each of several resamples of the images.

    The result equals `voc_average_precision` of a split that holds each image as often as it was drawn, in order.
    Both APs depend on the curve only at correct detections, because precision falls between them.

    Args:
        matches: Matches of one class.
        times: Number of times that each of the i images was drawn in each of the r resamples.

    Returns:
        11-point AP and area AP of each resample, nan for a resample without objects.
    """
    objects = matches.objects @ times
    correct = np.flatnonzero(matches.correct)
    if len(correct) == 0:
        return np.tile(np.where(objects > 0, 0.0, np.nan), (2, 1))
    # Row k of each array belongs to the k-th correct detection. reduceat sums the detections up to it that come after
    # the previous correct one.
    counted = times[matches.images[: correct[-1] + 1]]
    detections = np.cumsum(np.add.reduceat(counted, np.concatenate([[0], correct[:-1] + 1])), axis=0)
    hits = counted[correct]
    true_positives = np.cumsum(hits, axis=0)
    objects_or_one = np.maximum(objects, 1)
    envelope = np.maximum.accumulate((true_positives / np.maximum(detections, 1))[::-1])[::-1]
    area = (hits / objects_or_one * envelope).sum(axis=0)
    recall = true_positives / objects_or_one
    columns = np.arange(times.shape[1])
    at_points = []
    for point in RECALL_POINTS:
        first = (recall < point).sum(axis=0)  # recall rises from row to row
        reached = first < len(correct)
        at_points.append(np.where(reached, envelope[np.minimum(first, len(correct) - 1), columns], 0))
    return np.where(objects > 0, [np.mean(at_points, axis=0), area], np.nan)


def _compute_mean_of_known(values: Float64[np.ndarray, "c r"]) -> Float64[np.ndarray, " r"]:
    """Return the mean of each column over the classes whose value is not nan, or nan if all values are nan."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0))


def _compute_percentile_interval(values: Float64[np.ndarray, " r"]) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of the values that are not nan, or None if all values are nan."""
    known = values[~np.isnan(values)]
    return Interval(*(float(v) for v in np.percentile(known, (2.5, 97.5)))) if len(known) else None


# ---- image by image ----


def diagnose_image(
    detections: ImageDetections, annotation: Annotation, score: float = SCORE, iou_threshold: float = IOU
) -> ImageDiagnosis:
    """Classify the detections of an image and find the objects without a detection.

    In order of descending score, each detection is matched with an object of any class: of the objects that are not
    matched yet, the one with the highest IoU, if this IoU is at least ``iou_threshold`` (IoU as in VOC). A detection
    that reaches the threshold only with objects that are already matched is a duplicate. A detection that reaches it
    with no object has the outcome LOCATION, BOTH or BACKGROUND, depending on its IoUs. An ignored object can be matched
    with any number of detections; all of them are ignored.

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
    for i, overlaps in zip(shown, iou, strict=True):
        same_class = annotation.labels == detections.labels[i]
        fits = overlaps >= iou_threshold
        candidates = np.flatnonzero(fits & unmatched)
        best = int(candidates[overlaps[candidates].argmax()]) if len(candidates) else None
        if best is None:
            near = (overlaps >= BACKGROUND_IOU) & ~ignored
            if fits.any():
                outcome = ErrorType.DUPLICATE
            elif (near & same_class).any():
                outcome = ErrorType.LOCATION
            else:
                outcome = ErrorType.BOTH if near.any() else ErrorType.BACKGROUND
        elif ignored[best]:
            outcome, best = ErrorType.IGNORED, None
        else:
            outcome = ErrorType.CORRECT if same_class[best] else ErrorType.CLASS
            unmatched[best] = False
        outcomes.append(outcome)
        objects.append(best)
    missed = np.flatnonzero(unmatched & ~ignored)
    return ImageDiagnosis(tuple(shown), tuple(outcomes), tuple(objects), tuple(map(int, missed)))


def find_worst_images(images: Sequence[ImageDiagnosis], count: int) -> list[int]:
    """Return the positions of the ``count`` images with the most errors, worst first.

    Images with equally many errors keep their order. Images without errors are left out.
    """
    errors = [sum(image.count_errors().values()) for image in images]
    order = sorted(range(len(images)), key=lambda i: -errors[i])
    return [i for i in order[:count] if errors[i]]


def compute_confusion_matrix(
    images: Sequence[ImageDiagnosis],
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    classes: int,
) -> Int64[np.ndarray, "c c"]:
    """Return a matrix that counts how often objects of each class were detected as each class.

    Returns:
        A row for each class of objects and a column for each class of detections. The last row counts detections
        that are matched with no object, and the last column counts missed objects.
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
    for target in image.missed:
        yield None, target


# ---- TIDE ----

_HOTCOCO_NAMES = {
    ErrorType.CLASS: "Cls",
    ErrorType.LOCATION: "Loc",
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
    tide = evaluation.tide_errors(pos_thr=IOU, bg_thr=BACKGROUND_IOU)
    gains, counts = tide["delta_ap"], tide["counts"]
    return {kind: TideError(float(gains[name]), int(counts[name])) for kind, name in _HOTCOCO_NAMES.items()}
