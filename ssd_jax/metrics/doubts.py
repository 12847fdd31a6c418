"""Doubts about annotations: boxes that may be missing, empty, of the wrong class, loose or annotated twice.

`find_doubts` compares the detections in a split with its annotations. Wherever the two disagree, either the detector or
the annotation is wrong. Each disagreement becomes a doubt, whose score estimates the probability that it is the
annotation, see `ssd_jax.metrics.doubt_score`. Objects that are difficult (VOC) or crowds (COCO) are never doubted, nor
is what the detector finds on them.

The detector must not have been trained on the same annotations, or it repeats their mistakes; see
`ssd_jax.auditing.folds`.
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64

from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.diagnosis import BACKGROUND_IOU, IOU, ErrorType
from ssd_jax.metrics.doubt_score import Finding, score_duplicates, score_findings, score_unusual_boxes
from ssd_jax.metrics.voc_matching import compute_inclusive_iou

LOWEST_SCORE = 0.05
"""Minimum score of a doubt."""
LOWEST_DETECTION_SCORE = 0.05
"""Minimum score of the detections that can lead to a doubt. Lower ones only show that a box may not be empty."""
OVERLAPPED_IOU = 0.2
"""IoU with another box from which a box is only compared with such boxes. Non-maximum suppression can hide its object.
"""
EMPTY_SCORE = 0.1
"""Score that all detections on a box are below if nothing is found in the box."""
LOOSE_RANGE = (0.35, 0.65)
"""Range of the IoU of a loose box and the detection of its object. At a lower IoU, they are mostly on two objects that
overlap, of which one has no box."""


class DoubtKind(enum.StrEnum):
    """Kinds of doubts about an annotation."""

    MISSING = "missing label"
    """There is a detection, but no box."""
    EMPTY = "nothing found"
    """There is a box, but nothing is detected in it."""
    CLASS = "other class"
    """The detection on the box is of another class."""
    LOOSE = "loose box"
    """The detection is of the same class, but its IoU with the box is only in `LOOSE_RANGE`."""
    DUPLICATE = "duplicate"
    """Two boxes are on the same object."""

    @property
    def error(self) -> ErrorType:
        """TIDE's type of the error that the detector has made if the annotation is right after all."""
        return _ERRORS[self]


_ERRORS = {
    DoubtKind.MISSING: ErrorType.BACKGROUND,
    DoubtKind.EMPTY: ErrorType.MISSED,
    DoubtKind.CLASS: ErrorType.CLASSIFICATION,
    DoubtKind.LOOSE: ErrorType.LOCALIZATION,
    DoubtKind.DUPLICATE: ErrorType.MISSED,
}


class Doubt(NamedTuple):
    """A doubt about the annotation of an image."""

    kind: DoubtKind
    score: float
    """Estimated probability that the annotation is wrong."""
    image: int
    """Position of the image in the split."""
    object_index: int | None
    """Position of the doubted box in the annotation. None for a missing label."""
    detection: int | None
    """Position of the detection in the detections of the image. None for an empty box and a duplicate."""
    iou: float | None = None
    """IoU of the box and the detection, or of the two boxes of a duplicate. None for missing and empty boxes."""
    twin: int | None = None
    """Position of the box on the same object that is kept. None for all kinds except duplicates."""


class Disagreement(NamedTuple):
    """A detection that disagrees with the annotation about what there is."""

    kind: DoubtKind
    """MISSING or CLASS."""
    detection: int
    """Position of the detection."""
    object_index: int | None = None
    """Position of the object of another class. None for a missing label."""
    is_beside: bool = False
    """Whether the detection overlaps an object by an IoU of at least 0.1, but less than it needs to be on it."""


class Comparison(NamedTuple):
    """Comparison of the detections in an image with its annotation.

    Detections and objects are given by their positions. Detections on ignored objects, and those that only repeat a
    better detection, are left out.
    """

    agreed: dict[int, int]
    """Dict from each object that is detected with its class to the detection. Their IoU is at least the lower end of
    `LOOSE_RANGE`."""
    disagreements: tuple[Disagreement, ...]
    """The detections that disagree, best first."""
    twins: dict[int, int]
    """Dict from each object that may be a duplicate to the object with about the same box that is kept."""
    support: Float32[np.ndarray, " g"]
    """Best score of the detections on each object, in which detections of its neighbours are not counted."""
    iou: Float64[np.ndarray, "k g"]
    """IoU of each detection with each object."""


def find_doubts(
    detections: Sequence[ImageDetections], annotations: Sequence[Annotation], unread: frozenset[int] = frozenset()
) -> list[Doubt]:
    """Return the doubts about the annotations of a split, best first.

    There is at most one doubt about a box, the one with the highest score.

    Args:
        detections: Detections of each image, down to low scores, by a network that was not trained on the image.
        annotations: Annotations of the same images, in the same order.
        unread: Positions of images that the detector has not seen, because they cannot be read. They are left out.

    Returns:
        The doubts with a score of at least `LOWEST_SCORE`, by descending score.

    Raises:
        ValueError: If the numbers of detections and annotations differ.
    """
    if len(detections) != len(annotations):
        raise ValueError(f"got detections of {len(detections)} images, but annotations of {len(annotations)}")
    images = [
        (i, image_detections, annotation, compare_image(image_detections, annotation))
        for i, (image_detections, annotation) in enumerate(zip(detections, annotations, strict=True))
        if i not in unread
    ]
    doubts = [*_doubt_findings(images), *_doubt_boxes(images), *_doubt_duplicates(images)]
    doubts = [doubt for doubt in doubts if doubt.score >= LOWEST_SCORE]
    doubts.sort(key=lambda doubt: -doubt.score)
    best: dict[tuple[int, int | None, int | None], Doubt] = {}
    for doubt in doubts:
        place = (doubt.image, doubt.object_index, doubt.detection if doubt.object_index is None else None)
        best.setdefault(place, doubt)
    return list(best.values())


# ---- comparison of an image ----


def compare_image(detections: ImageDetections, annotation: Annotation) -> Comparison:
    """Compare the detections in an image with its annotation.

    1. In order of descending score, each detection is matched with an object of its class: of the objects that are not
       matched yet, the one with the highest IoU, if this IoU is at least 0.5; afterwards, detections and objects that
       are left are matched in the same way from the lower end of `LOOSE_RANGE` up.
    2. Each other detection disagrees with the annotation, unless it repeats a better detection or is on an ignored
       object. If its IoU with an object of another class is at least 0.5, and it is surer than the detection that is
       matched with the object, the class is in doubt; if it is on no object, a label may be missing.

    Args:
        detections: Detections of the image.
        annotation: Annotation of the image.
    """
    ignored = annotation.difficult | annotation.crowd
    order = np.argsort(-detections.scores, kind="stable").tolist()
    iou = compute_inclusive_iou(detections.boxes_px, annotation.boxes_px)
    among = compute_inclusive_iou(detections.boxes_px, detections.boxes_px)
    same_class = (detections.labels[:, None] == annotation.labels) & ~ignored
    agreed: dict[int, int] = {}
    for threshold in (IOU, LOOSE_RANGE[0]):
        _match_greedily(order, np.where(same_class & (iou >= threshold), iou, 0), agreed)
    matched = set(agreed.values())
    agreed_score = np.zeros(len(ignored), np.float32)
    agreed_score[list(agreed)] = detections.scores[list(agreed.values())]
    on_ignored = _find_on_ignored(detections.boxes_px, annotation.boxes_px[ignored], iou[:, ignored])
    disagreements = []
    for rank, i in enumerate(order):
        if detections.scores[i] < LOWEST_DETECTION_SCORE:
            break
        repeats = (among[i, order[:rank]] >= IOU).any() or (same_class[i] & (iou[i] >= LOOSE_RANGE[0])).any()
        if not (repeats or i in matched or on_ignored[i]):
            disagreements += _find_disagreement(i, float(detections.scores[i]), iou[i], agreed_score)
    unmatched = np.array([i not in matched for i in range(len(order))], bool)
    on_object = (iou >= IOU) | (same_class & (iou >= BACKGROUND_IOU) & unmatched[:, None])
    for j, i in agreed.items():
        on_object[i, j] = True
    support = np.where(on_object, detections.scores[:, None], 0).max(axis=0, initial=0).astype(np.float32)
    twins = _find_twins(annotation, ignored, agreed_score)
    return Comparison(agreed, tuple(disagreements), twins, support, iou)


def _match_greedily(order: Sequence[int], iou: Float64[np.ndarray, "k g"], matched: dict[int, int]) -> None:
    """Match detections with objects, best detections first, and add them to a dict from objects to detections.

    Args:
        order: Positions of the detections, best first.
        iou: IoU of each detection with each object, and 0 for pairs that must not be matched.
        matched: The pairs that are matched already.
    """
    used = set(matched.values())
    for i in order:
        candidates = [j for j in np.flatnonzero(iou[i]).tolist() if j not in matched]
        if candidates and i not in used:
            matched[max(candidates, key=lambda j: float(iou[i, j]))] = i


def _find_on_ignored(
    boxes_px: Float32[np.ndarray, "k 4"], ignored_px: Float32[np.ndarray, "g 4"], iou: Float64[np.ndarray, "k g"]
) -> Bool[np.ndarray, " k"]:
    """Return whether each detection is on an ignored object: by an IoU of at least 0.1, or with half of its area."""
    low = np.maximum(boxes_px[:, None, :2], ignored_px[:, :2])
    high = np.minimum(boxes_px[:, None, 2:], ignored_px[:, 2:])
    inside = (high - low).clip(0).prod(axis=2)
    area = (boxes_px[:, 2:] - boxes_px[:, :2]).prod(axis=1, keepdims=True)
    return ((iou >= BACKGROUND_IOU) | (inside >= 0.5 * area)).any(axis=1)


def _find_disagreement(
    detection: int, score: float, iou: Float64[np.ndarray, " g"], agreed_score: Float32[np.ndarray, " g"]
) -> list[Disagreement]:
    """Return how a detection disagrees with the objects of its image, none of which is of its class or ignored there.

    Args:
        detection: Position of the detection.
        score: Score of the detection.
        iou: IoU of the detection with each object.
        agreed_score: Score of the detection that is matched with each object, 0 if there is none.
    """
    target = int(iou.argmax()) if len(iou) else None
    if target is None or iou[target] < IOU:
        return [Disagreement(DoubtKind.MISSING, detection, is_beside=bool((iou >= BACKGROUND_IOU).any()))]
    return [Disagreement(DoubtKind.CLASS, detection, target)] if agreed_score[target] < score else []


def _find_twins(
    annotation: Annotation, ignored: Bool[np.ndarray, " g"], agreed_score: Float32[np.ndarray, " g"]
) -> dict[int, int]:
    """Return a dict from each object that may be a duplicate to the object with about the same box that is kept.

    If two objects have an IoU of at least 0.5, the function keeps the one that is detected with its class, or else the
    one with the higher score, or else the first one. If both are detected, they are two objects.
    """
    among = compute_inclusive_iou(annotation.boxes_px, annotation.boxes_px)
    order = np.argsort(-agreed_score, kind="stable").tolist()
    twins: dict[int, int] = {}
    for rank, j in enumerate(order):
        kept = [k for k in order[:rank] if among[j, k] >= IOU and k not in twins and not ignored[k]]
        if kept and not ignored[j] and agreed_score[j] < LOWEST_DETECTION_SCORE:
            twins[j] = max(kept, key=lambda k: float(among[j, k]))
    return twins


# ---- doubts of a split ----

_Image = tuple[int, ImageDetections, Annotation, Comparison]
"""Position of an image, its detections, its annotation, and their comparison."""


def _doubt_findings(images: Sequence[_Image]) -> list[Doubt]:
    """Return the doubts about missing labels and classes, with their scores."""
    findings: list[Finding] = []
    doubts: list[Doubt | None] = []
    for i, detections, _, comparison in images:
        for k in comparison.agreed.values():
            if detections.scores[k] >= LOWEST_DETECTION_SCORE:
                findings.append(Finding(float(detections.scores[k]), int(detections.labels[k]), ""))
                doubts.append(None)
        for kind, k, j, is_beside in comparison.disagreements:
            detail = "beside" if is_beside else kind
            findings.append(Finding(float(detections.scores[k]), int(detections.labels[k]), detail))
            doubts.append(Doubt(kind, 0.0, i, j, k, None if j is None else float(comparison.iou[k, j])))
    scores = score_findings(findings).tolist()
    return [d._replace(score=score) for d, score in zip(doubts, scores, strict=True) if d is not None]


def _doubt_boxes(images: Sequence[_Image]) -> list[Doubt]:
    """Return the doubts about boxes in which nothing is found and about loose boxes, with their scores."""
    empty: list[tuple[Doubt, int, float, float]] = []
    loose: list[tuple[Doubt, int, float, float]] = []
    for i, _, annotation, comparison in images:
        areas = (annotation.boxes_px[:, 2:] - annotation.boxes_px[:, :2]).prod(axis=1)
        groups = 2 * annotation.labels + _find_overlapped(annotation)
        for j in np.flatnonzero(~(annotation.difficult | annotation.crowd)).tolist():
            shape = int(groups[j]), float(areas[j])
            empty.append((Doubt(DoubtKind.EMPTY, 1.0, i, j, None), *shape, float(comparison.support[j])))
            if j in comparison.agreed:
                k = comparison.agreed[j]
                iou = float(comparison.iou[k, j])
                loose.append((Doubt(DoubtKind.LOOSE, float(comparison.support[j]), i, j, k, iou), *shape, iou))
    scored_empty = zip(_score_unusual(empty, _measure_empty_places(images)), empty, strict=True)
    return [
        *(doubt for doubt, (_, _, _, support) in scored_empty if support < EMPTY_SCORE),
        *(
            doubt
            for doubt in _score_unusual(loose, np.zeros(0))
            if doubt.iou is not None and doubt.iou < LOOSE_RANGE[1]
        ),
    ]


def _find_overlapped(annotation: Annotation) -> Bool[np.ndarray, " g"]:
    """Return whether each box overlaps another box by an IoU of at least `OVERLAPPED_IOU`."""
    among = compute_inclusive_iou(annotation.boxes_px, annotation.boxes_px)
    np.fill_diagonal(among, 0)
    return np.asarray((among >= OVERLAPPED_IOU).any(axis=1))


def _measure_empty_places(images: Sequence[_Image]) -> Float64[np.ndarray, " w"]:
    """Return the best score of the detections on each place that is known to be empty, 0 if there are none.

    The places are the boxes of the next image, scaled to the image, whose IoU with all boxes of the image is below 0.1.
    """
    scores = []
    for (_, detections, annotation, _), (_, _, other, _) in zip(images, [*images[1:], *images[:1]], strict=True):
        size, other_size = ([a.width, a.height] * 2 for a in (annotation, other))
        places = other.boxes_px * np.divide(size, other_size).astype(np.float32)
        near = compute_inclusive_iou(annotation.boxes_px, places).max(axis=0, initial=0)
        on_place = compute_inclusive_iou(detections.boxes_px, places) >= IOU
        best = np.where(on_place, detections.scores[:, None], 0).max(axis=0, initial=0)
        scores.append(best[near < BACKGROUND_IOU])
    return np.concatenate([np.zeros(0), *scores])


def _score_unusual(
    rows: Sequence[tuple[Doubt, int, float, float]], wrong_values: Float64[np.ndarray, " w"]
) -> list[Doubt]:
    """Return doubts, each with its score times the result of `score_unusual_boxes` for its group, area and value."""
    if not rows:
        return []
    groups, areas, values = (np.array(column) for column in zip(*(row[1:] for row in rows), strict=True))
    scores = score_unusual_boxes(groups.astype(np.int32), areas.astype(float), values.astype(float), wrong_values)
    return [row[0]._replace(score=row[0].score * float(score)) for row, score in zip(rows, scores, strict=True)]


def _doubt_duplicates(images: Sequence[_Image]) -> list[Doubt]:
    """Return the doubts about boxes on an object that has another box, with their scores."""
    doubts, agreed = [], []
    for i, _, annotation, comparison in images:
        among = compute_inclusive_iou(annotation.boxes_px, annotation.boxes_px)
        agreed += [float(comparison.iou[k, j]) for j, k in comparison.agreed.items()]
        for j, kept in comparison.twins.items():
            doubts.append(Doubt(DoubtKind.DUPLICATE, 0.0, i, j, None, float(among[j, kept]), kept))
    scores = score_duplicates(np.array([d.iou for d in doubts], float), np.array(agreed, float)).tolist()
    return [doubt._replace(score=score) for doubt, score in zip(doubts, scores, strict=True)]


# ---- text ----


def describe_doubt(
    doubt: Doubt, annotation: Annotation, detections: ImageDetections, class_names: Sequence[str]
) -> str:
    """Return a doubt in a few words, such as "RBC is found (0.98), but there is no box".

    Args:
        doubt: The doubt.
        annotation: Annotation of its image.
        detections: Detections of its image.
        class_names: Names of the labels 1 to C.
    """
    annotated = "" if doubt.object_index is None else class_names[annotation.labels[doubt.object_index] - 1]
    found = ""
    if doubt.detection is not None:
        found = (
            f"{class_names[detections.labels[doubt.detection] - 1]} is found ({detections.scores[doubt.detection]:.2f})"
        )
    match doubt.kind:
        case DoubtKind.MISSING:
            return f"{found}, but there is no box"
        case DoubtKind.EMPTY:
            return f"nothing is found in the box of {annotated}"
        case DoubtKind.CLASS:
            return f"{found} in the box of {annotated}"
        case DoubtKind.LOOSE:
            return f"{found}, but the IoU with the box is {doubt.iou:.2f}"
    assert doubt.twin is not None
    twin = class_names[annotation.labels[doubt.twin] - 1]
    return f"the box of {annotated} has an IoU of {doubt.iou:.2f} with a box of {twin}"
