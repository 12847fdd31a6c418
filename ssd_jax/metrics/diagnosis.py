"""Why a metric is what it is: curves, intervals, mix-ups, errors by kind, errors by image.

Takes what the metrics take: the detections of a whole split, one ImageDetections for each
Annotation, in pixels of the original images. Objects that VOC calls difficult and COCO's crowds are
ignored, as in VOC's numbers: neither right nor wrong. Only TIDE's errors follow COCO, to whom
difficult objects are ordinary.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float64, Int, Int64

from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import (
    RECALL_POINTS,
    ClassMatches,
    match_class,
    match_coco,
    pairwise_iou_inclusive,
    precision_recall,
    select_class,
)

SCORE = 0.5
"""Detections are explained one by one from this score up; AP counts all."""
IOU = 0.5
RESAMPLES = 1000


class Curve(NamedTuple):
    """Precision and recall of one class after each detection, best first."""

    precision: Float64[np.ndarray, " j"]
    recall: Float64[np.ndarray, " j"]
    shown: int
    """How many of the detections score SCORE or more: the operating point is the last of them."""


class Interval(NamedTuple):
    low: float
    high: float


class Intervals(NamedTuple):
    """Bootstrap intervals of VOC's numbers; None where there is nothing to resample."""

    map_11point: Interval | None
    map_area: Interval | None
    classes_11point: tuple[Interval | None, ...]
    classes_area: tuple[Interval | None, ...]
    resamples: int


Verdict = Literal["right", "wrong class", "found already", "nothing there", "ignored"]
Fault = Literal["missed", "wrong class", "found already", "nothing there"]


class ImageVerdict(NamedTuple):
    """What became of the detections from a score up, and of the objects, in one image."""

    shown: tuple[int, ...]
    """Positions of those detections, best first."""
    verdicts: tuple[Verdict, ...]
    """Of each of them."""
    objects: tuple[int | None, ...]
    """Position of the object that each of them is on, be it right or of another class."""
    missed: tuple[int, ...]
    """Positions of the objects that no detection is on."""

    def faults(self) -> dict[Fault, int]:
        """How many of each kind; kinds that do not occur are left out."""
        counts = {kind: self.verdicts.count(kind) for kind in get_args(Fault)} | {"missed": len(self.missed)}
        return {kind: count for kind, count in counts.items() if count}


class TideError(NamedTuple):
    """One of TIDE's kinds of error."""

    gain: float
    """By how much COCO's AP at IoU 0.5 would rise if these errors alone were mended."""
    errors: int


class Diagnosis(NamedTuple):
    curves: tuple[Curve | None, ...]
    """Of each class; None for one without objects to find."""
    intervals: Intervals
    confusion: Int64[np.ndarray, "c c"]
    """Rows are what is there, columns what was found; labels in order, what is nothing last."""
    tide: dict[str, TideError]
    """By the names of TIDE_KINDS."""
    images: tuple[ImageVerdict, ...]


def diagnose(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    resamples: int = RESAMPLES,
) -> Diagnosis:
    """Everything that a report tells beyond the metrics.

    Args:
        detections: one for each image.
        annotations: of the same images, in the same order.
        class_names: name of label 1, 2, ... C.
        resamples: of the bootstrap.

    Raises:
        ValueError: detections and annotations are not of the same number of images, or a label
            has no name.
    """
    tide = tide_errors(detections, annotations, class_names)  # checks the arguments, too
    labels = range(1, len(class_names) + 1)
    judged = [match_class(*select_class(label, detections, annotations), IOU) for label in labels]
    images = tuple(judge_image(d, a) for d, a in zip(detections, annotations, strict=True))
    return Diagnosis(
        curves=tuple(_curve(one) for one in judged),
        intervals=bootstrap(judged, resamples),
        confusion=confusion_matrix(images, detections, annotations, len(class_names)),
        tide=tide,
        images=images,
    )


def _curve(judged: ClassMatches) -> Curve | None:
    curve = precision_recall(judged)
    return None if curve is None else Curve(*curve, shown=int((judged.scores >= SCORE).sum()))


# ---- bootstrap ----


def bootstrap(judged: Sequence[ClassMatches], resamples: int = RESAMPLES, seed: int = 0) -> Intervals:
    """Percentile intervals (95 %) of each class's AP and of their mean, over resampled images.

    A resample draws as many images as the split has, with replacement, and counts an image as often
    as it was drawn. A class none of whose objects was drawn is left out of that resample's mean. The
    intervals tell how far the numbers depend on which images happen to be in the split; not how far
    they depend on the training's seed.

    Args:
        judged: of each class, over the same images.
        resamples: more of them make the ends of the intervals less random.
        seed: of the draws.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    images = len(judged[0].objects) if judged else 0
    if images < 2:  # every resample is the split itself
        nothing = (None,) * len(judged)
        return Intervals(None, None, nothing, nothing, 0)
    generator = np.random.default_rng(seed)
    blocks = []
    for start in range(0, resamples, 50):  # so many at once that a common class fits into memory
        drawn = generator.multinomial(images, np.full(images, 1 / images), min(50, resamples - start))
        times = np.ascontiguousarray(drawn.T, np.int32)
        blocks.append(np.stack([resampled_ap(one, times) for one in judged]))
    eleven_point, area = np.concatenate(blocks, axis=2).swapaxes(0, 1)
    return Intervals(
        _interval(_mean_of_known(eleven_point)),
        _interval(_mean_of_known(area)),
        tuple(map(_interval, eleven_point)),
        tuple(map(_interval, area)),
        resamples,
    )


def resampled_ap(judged: ClassMatches, times: Int[np.ndarray, "i r"]) -> Float64[np.ndarray, "2 r"]:
    """AP by 11 points and by area where each image counts so many times; nan without objects.

    What voc_average_precision says of a split that holds the images so many times, in order. Both
    APs depend on the curve only where a detection is right, as precision falls in between.

    Args:
        judged: one class.
        times: of each image, in each of r resamples.
    """
    objects = judged.objects @ times
    rights = np.flatnonzero(judged.correct)
    if len(rights) == 0:
        return np.tile(np.where(objects > 0, 0.0, np.nan), (2, 1))
    # Row k of each is at the k-th right detection; reduceat sums from the one before it up to it.
    counted = times[judged.images[: rights[-1] + 1]]
    seen = np.cumsum(np.add.reduceat(counted, np.concatenate([[0], rights[:-1] + 1])), axis=0)
    found = counted[rights]
    right = np.cumsum(found, axis=0)
    objects_or_one = np.maximum(objects, 1)
    envelope = np.maximum.accumulate((right / np.maximum(seen, 1))[::-1])[::-1]
    area = (found / objects_or_one * envelope).sum(axis=0)
    recall = right / objects_or_one
    columns = np.arange(times.shape[1])
    at_points = []
    for point in RECALL_POINTS:
        first = (recall < point).sum(axis=0)  # recall rises from row to row
        reached = first < len(rights)
        at_points.append(np.where(reached, envelope[np.minimum(first, len(rights) - 1), columns], 0))
    return np.where(objects > 0, [np.mean(at_points, axis=0), area], np.nan)


def _mean_of_known(values: Float64[np.ndarray, "c r"]) -> Float64[np.ndarray, " r"]:
    """Over classes; nan where none has a value."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0))


def _interval(values: Float64[np.ndarray, " r"]) -> Interval | None:
    known = values[~np.isnan(values)]
    return Interval(*(float(v) for v in np.percentile(known, (2.5, 97.5)))) if len(known) else None


# ---- image by image ----


def judge_image(
    detections: ImageDetections, annotation: Annotation, score: float = SCORE, iou_threshold: float = IOU
) -> ImageVerdict:
    """What became of each detection from ``score`` up, and which objects none is on.

    The detections, best first, each take the object that they overlap most of those not taken yet,
    whatever its class, from ``iou_threshold`` up (VOC's IoU). One that finds only taken objects there
    is "found already". Ignored objects are never taken up: a detection that overlaps one most is
    "ignored" itself.
    """
    order = np.argsort(-detections.scores, kind="stable")
    shown = order[detections.scores[order] >= score].tolist()
    iou = pairwise_iou_inclusive(detections.boxes_px[shown], annotation.boxes_px)
    ignored = annotation.difficult | annotation.crowd
    free = np.ones(len(annotation.labels), bool)
    verdicts: list[Verdict] = []
    objects: list[int | None] = []
    for i, overlaps in zip(shown, iou, strict=True):
        fits = overlaps >= iou_threshold
        candidates = np.flatnonzero(fits & free)
        best = int(candidates[overlaps[candidates].argmax()]) if len(candidates) else None
        if best is None:
            verdicts.append("found already" if fits.any() else "nothing there")
        elif ignored[best]:
            verdicts.append("ignored")
            best = None
        else:
            verdicts.append("right" if annotation.labels[best] == detections.labels[i] else "wrong class")
            free[best] = False
        objects.append(best)
    missed = np.flatnonzero(free & ~ignored)
    return ImageVerdict(tuple(shown), tuple(verdicts), tuple(objects), tuple(map(int, missed)))


def worst_images(images: Sequence[ImageVerdict], count: int) -> list[int]:
    """Positions of the images with most faults, the worst first, equal ones in order; those without are no bad ones."""
    faults = [sum(image.faults().values()) for image in images]
    order = sorted(range(len(images)), key=lambda i: -faults[i])
    return [i for i in order[:count] if faults[i]]


def confusion_matrix(
    images: Sequence[ImageVerdict],
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    classes: int,
) -> Int64[np.ndarray, "c c"]:
    """How often what was taken for what: a row for each class that is there, a column for each found.

    The last row is what was found where nothing is, or where the object was found already; the last
    column what was missed.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for image, found, annotation in zip(images, detections, annotations, strict=True):
        for i, there in _pairs(image):
            row = classes if there is None else annotation.labels[there] - 1
            column = classes if i is None else found.labels[i] - 1
            matrix[row, column] += 1
    return matrix


def _pairs(image: ImageVerdict) -> Iterator[tuple[int | None, int | None]]:
    """Detection and object, of whatever counts; None for what the other has no partner in."""
    for i, verdict, there in zip(image.shown, image.verdicts, image.objects, strict=True):
        if verdict != "ignored":
            yield i, there
    for there in image.missed:
        yield None, there


# ---- TIDE ----

TIDE_KINDS = {
    "class": "Cls",
    "location": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
"""Kind of error -> hotcoco's name of it."""


def tide_errors(
    detections: Sequence[ImageDetections], annotations: Sequence[Annotation], class_names: Sequence[str]
) -> dict[str, TideError]:
    """TIDE: errors of each kind, and what mending them would gain, as hotcoco computes it.

    COCO's rules: all detections (100 of a class in an image), difficult objects are ordinary ones,
    crowds are ignored; right from IoU 0.5, background below 0.1.

    References:
        Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
    """
    tide = match_coco(detections, annotations, class_names).tide_errors(pos_thr=IOU, bg_thr=0.1)
    gains, counts = tide["delta_ap"], tide["counts"]
    return {kind: TideError(float(gains[key]), int(counts[key])) for kind, key in TIDE_KINDS.items()}
