"""Confidence intervals of the VOC metrics and of COCO AP, by resampling the images of a split.

Detections are matched with objects only once. A resample then counts the matches of an image as often as the image was
drawn.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from ssd_jax.metrics.average_precision import RECALL_POINTS, CocoEvaluation
from ssd_jax.metrics.voc_matching import ClassMatches

RESAMPLES = 1000
"""Default number of bootstrap resamples."""
COCO_RESAMPLES = 250
"""Number of the resamples from which the interval of COCO AP is computed, because each costs as much as ten of VOC."""
COCO_RECALL_POINTS = np.linspace(0, 1, 101)
"""The 101 recalls at which COCO reads the precision, as the floats that pycocotools computes."""
_BLOCK = 4_000_000
"""Number of detections times resamples that are processed at once, which limits the memory."""


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


class Intervals(NamedTuple):
    """95 % bootstrap intervals of metrics. With fewer than two images or no objects, an interval is None."""

    map_11point: Interval | None
    map_area: Interval | None
    coco_ap: Interval | None
    classes_11point: tuple[Interval | None, ...]
    classes_area: tuple[Interval | None, ...]
    resamples: int
    """Number of resamples, which is 0 if there are fewer than two images."""


class CocoClassMatches(NamedTuple):
    """Detections of one category in a split by COCO's rules, best first, at each of t IoU thresholds."""

    images: Int64[np.ndarray, " j"]
    """Position in the split of the image that each detection belongs to."""
    correct: Bool[np.ndarray, "t j"]
    """Whether each detection is correct."""
    counted: Bool[np.ndarray, "t j"]
    """Whether each detection is correct or wrong. The others are on crowds."""
    objects: Int64[np.ndarray, " i"]
    """Number of objects in each image of the split, without crowds."""


def match_coco_classes(evaluation: CocoEvaluation) -> list[CocoClassMatches]:
    """Return the matches of each category, from which `bootstrap` computes the intervals of COCO AP.

    Detections beyond the best 100 of a category in an image are left out, as in COCO AP.

    Args:
        evaluation: Result of `match_coco`.
    """
    thresholds = [float(iou) for iou in evaluation.matched.params.iou_thrs]
    detections, objects = evaluation.detections, evaluation.objects
    correct, counted = np.zeros((2, len(thresholds), len(detections)), bool)
    is_object = np.zeros(len(objects), bool)
    for t, iou in enumerate(thresholds):
        found = evaluation.matched.image_diagnostics(iou_thr=iou)
        # Detections and objects are numbered from 1. Those that are ignored are not in the dicts.
        ids = np.fromiter(found["dt_status"], np.int64) - 1
        counted[t, ids] = True
        correct[t, ids] = np.fromiter((status == "tp" for status in found["dt_status"].values()), bool, len(ids))
        is_object[np.fromiter(found["gt_status"], np.int64) - 1] = True
    used = np.flatnonzero(counted.any(axis=0))
    # COCO sorts by score, and leaves equal scores in the order of the images.
    used = used[np.lexsort((detections[used, 0], -detections[used, 5]))]
    categories = detections[used, 6]
    result = []
    for category in range(1, evaluation.categories + 1):
        rows = used[categories == category]
        own = objects[is_object & (objects[:, 1] == category), 0] - 1
        images = detections[rows, 0].astype(np.int64) - 1
        per_image = np.bincount(own, minlength=evaluation.images)
        result.append(CocoClassMatches(images, correct[:, rows], counted[:, rows], per_image))
    return result


def bootstrap(
    matches: Sequence[ClassMatches],
    coco_matches: Sequence[CocoClassMatches] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Intervals:
    """Compute 95 % percentile intervals of the AP of each class and of the means, by resampling the images.

    A resample draws as many images as the split has, with replacement, and counts an image as often as it was drawn.
    A class without objects in a resample is left out of the mean of that resample. The intervals show how much the
    metrics depend on the choice of the images, but not how much they depend on the seed of the training.

    Args:
        matches: Matches of each class by VOC's rules, over the same images.
        coco_matches: Matches of each category by COCO's rules, over the same images.
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
        return Intervals(None, None, None, no_intervals, no_intervals, 0)
    generator = np.random.default_rng(seed)
    most = max(*(len(one.images) for one in matches), *(len(one.images) for one in coco_matches), 1)
    block = min(50, max(1, _BLOCK // most))
    voc, coco = [], []
    for start in range(0, resamples, block):
        drawn = generator.multinomial(images, np.full(images, 1 / images), min(block, resamples - start))
        times = np.ascontiguousarray(drawn.T, np.int32)
        voc.append(np.stack([compute_resampled_ap(one, times) for one in matches]))
        if coco_matches and start < COCO_RESAMPLES:
            first = times[:, : COCO_RESAMPLES - start]
            coco.append(np.stack([compute_resampled_coco_ap(one, first) for one in coco_matches]))
    eleven_point, area = np.concatenate(voc, axis=2).swapaxes(0, 1)
    return Intervals(
        _compute_percentile_interval(_compute_mean_of_known(eleven_point)),
        _compute_percentile_interval(_compute_mean_of_known(area)),
        _compute_percentile_interval(_compute_mean_of_known(np.concatenate(coco, axis=1))) if coco else None,
        tuple(map(_compute_percentile_interval, eleven_point)),
        tuple(map(_compute_percentile_interval, area)),
        resamples,
    )


def list_ends(interval: Interval | None) -> list[float] | None:
    """Return the ends of an interval as a list, which JSON can hold."""
    return None if interval is None else list(interval)


def make_interval_tree(intervals: Intervals, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the intervals of the VOC metrics as nested dicts, as ``evaluate`` writes them to metrics.json.

    Returns:
        ``resamples``; ``map_11point`` and ``map_area``; and ``classes``, a dict from each class name to a dict with
        ``ap_11point`` and ``ap_area``. An interval is a list [low, high], or None.
    """
    return {
        "resamples": intervals.resamples,
        "map_11point": list_ends(intervals.map_11point),
        "map_area": list_ends(intervals.map_area),
        "classes": {
            name: {"ap_11point": list_ends(one), "ap_area": list_ends(other)}
            for name, one, other in zip(class_names, intervals.classes_11point, intervals.classes_area, strict=True)
        },
    }


# ---- resampled metrics ----


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
    envelope, recall = _compute_envelope_and_recall(hits, detections, objects)
    area = (hits / np.maximum(objects, 1) * envelope).sum(axis=0)
    return np.where(objects > 0, [_compute_mean_at_points(envelope, recall, RECALL_POINTS), area], np.nan)


def compute_resampled_coco_ap(matches: CocoClassMatches, times: Int[np.ndarray, "i r"]) -> Float64[np.ndarray, " r"]:
    """Compute the mean of COCO's AP over the IoU thresholds, for one category and each of several resamples.

    The result equals that of pycocotools for a split that holds each image as often as it was drawn, unless detections
    of different images have the same score.

    Args:
        matches: Matches of one category.
        times: Number of times that each of the i images was drawn in each of the r resamples.

    Returns:
        AP of each resample, nan for a resample without objects.
    """
    objects = matches.objects @ times
    total = np.zeros(times.shape[1])
    if matches.correct.any():
        last = int(np.flatnonzero(matches.correct.any(axis=0))[-1])
        drawn = times[matches.images[: last + 1]]
        everything = np.cumsum(drawn, axis=0)
        for correct, counted in zip(matches.correct[:, : last + 1], matches.counted[:, : last + 1], strict=True):
            rows = np.flatnonzero(correct)
            if len(rows):
                detections = everything if counted.all() else np.cumsum(drawn * counted[:, None], axis=0)
                envelope, recall = _compute_envelope_and_recall(drawn[rows], detections[rows], objects)
                total += _compute_mean_at_points(envelope, recall, COCO_RECALL_POINTS)
    return np.where(objects > 0, total / len(matches.correct), np.nan)


def _compute_envelope_and_recall(
    hits: Int[np.ndarray, "k r"], detections: Int[np.ndarray, "k r"], objects: Int[np.ndarray, " r"]
) -> tuple[Float64[np.ndarray, "k r"], Float64[np.ndarray, "k r"]]:
    """Return the highest precision at each recall or a larger one, and the recall, at each correct detection.

    Args:
        hits: Number of times that each correct detection was drawn, best first.
        detections: Number of detections up to each correct one.
        objects: Number of objects.
    """
    true_positives = np.cumsum(hits, axis=0)
    envelope = np.maximum.accumulate((true_positives / np.maximum(detections, 1))[::-1])[::-1]
    return envelope, true_positives / np.maximum(objects, 1)


def _compute_mean_at_points(
    envelope: Float64[np.ndarray, "k r"], recall: Float64[np.ndarray, "k r"], points: Float64[np.ndarray, " p"]
) -> Float64[np.ndarray, " r"]:
    """Return the mean of the highest precision at each point or a larger recall, for each resample."""
    reached = np.searchsorted(points, recall, side="right")  # number of points up to each recall
    return (envelope * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(points)


def _compute_mean_of_known(values: Float64[np.ndarray, "c r"]) -> Float64[np.ndarray, " r"]:
    """Return the mean of each column over the classes whose value is not nan, or nan if all values are nan."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0))


def _compute_percentile_interval(values: Float64[np.ndarray, " r"]) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of the values that are not nan, or None if all values are nan."""
    known = values[~np.isnan(values)]
    return Interval(*(float(v) for v in np.percentile(known, (2.5, 97.5)))) if len(known) else None
