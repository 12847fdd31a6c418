"""How good detections are: the VOC metric, in numpy, and COCO's twelve numbers, by hotcoco.

Both take the detections of a whole split, one ImageDetections for each Annotation, in pixels of
the original images. What comes back holds only dicts, strings, numbers and None, so it can be
written as JSON as it stands; None is a number that does not exist, such as the AP of a class
that the split does not contain.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from hotcoco import COCO, COCOeval
from jaxtyping import Bool, Float, Float64, Int, Int64

from ssd_jax.data.source import Annotation, CocoTruth
from ssd_jax.inference.detections import ImageDetections


class ScoredBoxes(NamedTuple):
    """Detections of one class in one image."""

    boxes_px: Float[np.ndarray, "k 4"]
    scores: Float[np.ndarray, " k"]


class TrueBoxes(NamedTuple):
    """Ground truth of one class in one image."""

    boxes_px: Float[np.ndarray, "g 4"]
    ignored: Bool[np.ndarray, " g"]
    """VOC's difficult: finding it is neither right nor wrong."""


class ClassMatches(NamedTuple):
    """Detections of one class over a split, but for those on ignored objects: best first, equal scores by image."""

    scores: Float64[np.ndarray, " j"]
    correct: Bool[np.ndarray, " j"]
    images: Int64[np.ndarray, " j"]
    """Position of each detection's image in the split."""
    objects: Int64[np.ndarray, " i"]
    """To find in each image of the split: without the ignored ones."""


class VocClass(TypedDict):
    """One class of a VocResult."""

    objects: int
    """That had to be found: without the ignored ones."""
    ignored_objects: int
    """Difficult or crowd."""
    detections: int
    ap_11point: float | None
    ap_area: float | None


class VocResult(TypedDict):
    """The means leave out classes without objects; None where no class has any."""

    voc_map_11point: float | None
    voc_map_area: float | None
    voc_iou_threshold: float
    voc_classes: dict[str, VocClass]


# ---- VOC ----


def pairwise_iou_inclusive(a: Float[np.ndarray, "k 4"], b: Float[np.ndarray, "g 4"]) -> Float64[np.ndarray, "k g"]:
    """IoU of pixel boxes whose last pixel belongs to them: a width is x2 - x1 + 1."""
    a, b = a.astype(np.float64), b.astype(np.float64)  # exact on the threshold for whole pixels
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (high - low + 1).clip(0).prod(axis=2)
    areas_a, areas_b = ((box[:, 2:] - box[:, :2] + 1).clip(0).prod(axis=1) for box in (a, b))
    union = areas_a[:, None] + areas_b[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _judge_image(
    detections: ScoredBoxes, truth: TrueBoxes, iou_threshold: float
) -> tuple[Float64[np.ndarray, " j"], Bool[np.ndarray, " j"]]:
    """Scores of the detections that count, best first, and which of them are right."""
    order = np.argsort(-detections.scores, kind="stable")
    scores = detections.scores[order].astype(np.float64)
    correct = np.zeros(len(order), bool)
    if len(order) == 0 or len(truth.boxes_px) == 0:
        return scores, correct
    iou = pairwise_iou_inclusive(detections.boxes_px[order], truth.boxes_px)
    best = iou.argmax(axis=1)  # the first of equals, as the devkit
    hit = iou.max(axis=1) >= iou_threshold
    # Only the first detection to hit an object is right, even if a later one fits better.
    hits = np.flatnonzero(hit)
    correct[hits[np.unique(best[hits], return_index=True)[1]]] = True
    counts = ~(hit & truth.ignored[best])
    return scores[counts], correct[counts]


def match_class(
    detections: Sequence[ScoredBoxes], ground_truth: Sequence[TrueBoxes], iou_threshold: float = 0.5
) -> ClassMatches:
    """Which detections of one class are right, by the rules of voc_average_precision.

    Args:
        detections: one for each image.
        ground_truth: of the same images, in the same order.
        iou_threshold: smallest IoU of a right detection.
    """
    judged = [_judge_image(found, truth, iou_threshold) for found, truth in zip(detections, ground_truth, strict=True)]
    # An empty array in front: there may be no images.
    scores = np.concatenate([np.zeros(0), *(scores for scores, _ in judged)])
    correct = np.concatenate([np.zeros(0, bool), *(correct for _, correct in judged)])
    images = np.repeat(np.arange(len(judged)), [len(scores) for scores, _ in judged])
    order = np.argsort(-scores, kind="stable")
    objects = np.array([int((~truth.ignored).sum()) for truth in ground_truth], np.int64)
    return ClassMatches(scores[order], correct[order], images[order], objects)


def precision_recall(judged: ClassMatches) -> tuple[Float64[np.ndarray, " j"], Float64[np.ndarray, " j"]] | None:
    """Precision and recall after each detection, best first; None without objects to find."""
    objects = int(judged.objects.sum())
    if objects == 0:
        return None
    right = np.cumsum(judged.correct)
    return right / np.arange(1, len(right) + 1), right / objects


RECALL_POINTS = np.arange(0, 1.1, 0.1)
"""VOC2007's recalls, 0 to 1. The points are numpy's, so a few lie one rounding above the decimal number: three
objects found of ten do not reach the point 0.30000000000000004. The scores of the literature were made with these
points; they stay."""


def _eleven_point_ap(precision: Float64[np.ndarray, " j"], recall: Float64[np.ndarray, " j"]) -> float:
    """Mean of the best precision at recall >= 0, 0.1, ... 1."""
    return float(np.mean([precision[recall >= point].max(initial=0.0) for point in RECALL_POINTS]))


def _area_ap(precision: Float64[np.ndarray, " j"], recall: Float64[np.ndarray, " j"]) -> float:
    """Area under the curve of precision over recall, made monotone from the right."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def voc_average_precision(
    detections: Sequence[ScoredBoxes],
    ground_truth: Sequence[TrueBoxes],
    iou_threshold: float = 0.5,
    eleven_point: bool = True,
) -> float:
    """Average precision of one class over a split, as the PASCAL VOC development kit measures it.

    Boxes are xyxy in pixels of the original image, and their last pixel belongs to them: width is
    x2 - x1 + 1. Over all images, detections are taken by falling score (equal scores: in the order
    given). Each belongs to the object of its image with the highest IoU, ignored ones included. It
    is right if that IoU is at least ``iou_threshold`` and no earlier detection found the same
    object; otherwise wrong. One that belongs to an ignored object is neither.

    Args:
        detections: one for each image.
        ground_truth: of the same images, in the same order.
        iou_threshold: smallest IoU of a right detection.
        eleven_point: VOC2007's mean over eleven recalls; else the area under the monotone curve,
            as in VOC2010 and after.

    Returns:
        AP in [0, 1]; nan if there is no object to find. Leave such a class out of a mean.

    Raises:
        ValueError: the two sequences differ in length.

    References:
        Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section
        4.2; VOCevaldet.m and VOCap.m of the development kits of 2007 and 2012.
    """
    if len(detections) != len(ground_truth):
        raise ValueError(f"detections of {len(detections)} images, ground truth of {len(ground_truth)}")
    curve = precision_recall(match_class(detections, ground_truth, iou_threshold))
    if curve is None:
        return float("nan")
    return _eleven_point_ap(*curve) if eleven_point else _area_ap(*curve)


def _voc_class(detections: Sequence[ScoredBoxes], ground_truth: Sequence[TrueBoxes], iou_threshold: float) -> VocClass:
    curve = precision_recall(match_class(detections, ground_truth, iou_threshold))
    ignored = sum(int(truth.ignored.sum()) for truth in ground_truth)
    return VocClass(
        objects=sum(len(truth.ignored) for truth in ground_truth) - ignored,
        ignored_objects=ignored,
        detections=sum(len(found.scores) for found in detections),
        ap_11point=None if curve is None else _eleven_point_ap(*curve),
        ap_area=None if curve is None else _area_ap(*curve),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _check(
    detections: Sequence[ImageDetections], annotations: Sequence[Annotation], class_names: Sequence[str]
) -> None:
    if len(detections) != len(annotations):
        raise ValueError(f"detections of {len(detections)} images, annotations of {len(annotations)}")
    for labels in (*(d.labels for d in detections), *(a.labels for a in annotations)):
        wrong = labels[(labels < 1) | (labels > len(class_names))]
        if len(wrong):
            raise ValueError(f"label {wrong[0]}, labels are 1 to {len(class_names)}: was padding left in?")


def select_class(
    label: int, detections: Sequence[ImageDetections], annotations: Sequence[Annotation]
) -> tuple[list[ScoredBoxes], list[TrueBoxes]]:
    """What was found and what is there of one class, in each image; crowds are ignored like difficult objects."""
    found = [ScoredBoxes(d.boxes_px[d.labels == label], d.scores[d.labels == label]) for d in detections]
    truth = [TrueBoxes(a.boxes_px[a.labels == label], (a.difficult | a.crowd)[a.labels == label]) for a in annotations]
    return found, truth


def evaluate_voc(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> VocResult:
    """VOC's mean average precision of a split, both ways, and that of each class.

    See voc_average_precision for the rules. Crowd boxes, which VOC does not have, are ignored
    like difficult ones.

    Args:
        detections: one for each image.
        annotations: of the same images, in the same order.
        class_names: name of label 1, 2, ... C.
        iou_threshold: smallest IoU of a right detection.

    Raises:
        ValueError: detections and annotations are not of the same number of images, or a label
            has no name.
    """
    _check(detections, annotations, class_names)
    classes = {}
    for label, name in enumerate(class_names, start=1):
        classes[name] = _voc_class(*select_class(label, detections, annotations), iou_threshold)
    return VocResult(
        voc_map_11point=_mean([c["ap_11point"] for c in classes.values()]),
        voc_map_area=_mean([c["ap_area"] for c in classes.values()]),
        voc_iou_threshold=iou_threshold,
        voc_classes=classes,
    )


# ---- COCO ----

COCO_KEYS = (
    "coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large",
    "coco_ar1", "coco_ar10", "coco_ar100", "coco_ar_small", "coco_ar_medium", "coco_ar_large",
)  # fmt: skip
"""The twelve numbers in the order of pycocotools' COCOeval.stats."""


def xyxy_to_xywh(boxes_px: Float[np.ndarray, "k 4"]) -> Float64[np.ndarray, "k 4"]:
    """COCO's form of pixel boxes: left, top, width, height."""
    boxes = boxes_px.astype(np.float64)  # so that the subtraction of float32 corners is exact
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _truth_of(
    annotations: Sequence[Annotation], class_ids: Int64[np.ndarray, " c"], ids: Int64[np.ndarray, " m"]
) -> CocoTruth:
    """What a COCO file would say of these images."""
    # An empty array in front of each: numpy can't know the shape of no arrays.
    labels = np.concatenate([np.zeros(0, np.int32), *(a.labels for a in annotations)])
    boxes = np.concatenate([np.zeros((0, 4)), *(a.boxes_px for a in annotations)])
    return CocoTruth(
        image_ids=np.repeat(ids, [len(a.labels) for a in annotations]),
        category_ids=class_ids[labels - 1],
        boxes_px_xywh=xyxy_to_xywh(boxes),
        area_px=np.concatenate([np.zeros(0), *(a.area_px for a in annotations)]),
        crowd=np.concatenate([np.zeros(0, bool), *(a.crowd for a in annotations)]),
    )


def _coco_rows(
    detections: Sequence[ImageDetections], class_ids: Int[np.ndarray, " c"], ids: Int[np.ndarray, " m"]
) -> Float64[np.ndarray, "k 7"]:
    """Rows of image id, x, y, width, height, score, category id."""
    rows = [
        np.column_stack([np.full(len(d.labels), i), xyxy_to_xywh(d.boxes_px), d.scores, class_ids[d.labels - 1]])
        for i, d in zip(ids, detections, strict=True)
    ]
    return np.concatenate([np.zeros((0, 7)), *rows])


def match_coco(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
    truth: CocoTruth | None = None,
) -> COCOeval:
    """hotcoco's evaluation with detections and objects matched, to be asked further; arguments as of evaluate_coco.

    In it images and categories are numbered from 1 in the order of their ids: only the order of the
    ids bears on the numbers, and hotcoco takes none below 0 or above 2^53.
    """
    _check(detections, annotations, class_names)
    class_ids = np.array(range(1, len(class_names) + 1) if category_ids is None else category_ids, np.int64)
    ids = np.array(range(1, len(annotations) + 1) if image_ids is None else image_ids, np.int64)
    images = np.unique(ids)
    if len(class_ids) != len(class_names) or len(ids) != len(annotations) or len(images) != len(ids):
        raise ValueError(
            f"{len(class_ids)} ids of {len(class_names)} classes, {len(images)} different ids of {len(annotations)} "
            "images"
        )
    if truth is None:
        truth = _truth_of(annotations, class_ids, ids)
    categories = np.union1d(class_ids, truth.category_ids)
    names = dict(zip(class_ids.tolist(), class_names, strict=True))
    here = np.isin(truth.image_ids, images)
    coco = COCO.from_arrays(
        images=[dict(id=i) for i in range(1, len(images) + 1)],
        categories=[dict(id=i, name=names.get(int(c), str(c))) for i, c in enumerate(categories, start=1)],
        image_ids=1 + np.searchsorted(images, truth.image_ids[here]),
        category_ids=1 + np.searchsorted(categories, truth.category_ids[here]),
        boxes=truth.boxes_px_xywh[here],
        area=truth.area_px[here],
        iscrowd=truth.crowd[here],
    )
    rows = _coco_rows(detections, 1 + np.searchsorted(categories, class_ids), 1 + np.searchsorted(images, ids))
    evaluation = COCOeval(coco, coco.load_res(rows), "bbox")
    evaluation.evaluate()
    return evaluation


def evaluate_coco(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
    truth: CocoTruth | None = None,
) -> dict[str, float | None]:
    """COCO's twelve numbers for boxes, those that pycocotools prints, under the names of COCO_KEYS.

    AP over IoU 0.5 to 0.95, at 0.5, at 0.75, of small, medium and large objects; recall with 1, 10
    and 100 detections an image, of small, medium and large objects. A detection on a crowd box is
    ignored. Difficult is unknown to COCO (pycocotools overwrites ``ignore`` with ``iscrowd``):
    those objects count like any other. Small is below 32^2 px of the annotation's ``area_px``.

    Args:
        detections: one for each image.
        annotations: of the same images, in the same order.
        class_names: name of label 1, 2, ... C.
        category_ids: the data set's id of each class; labels if not given.
        image_ids: the data set's id of each image; 1, 2, ... if not given. Matters only where
            detections in different images have the same score: COCO takes the lower id first.
        truth: the objects as their COCO file has them, found by image_ids and category_ids; those of
            other images may be among them. If not given, the annotations' own, whose float32 boxes
            differ from the file's in the last digits. With it the numbers are pycocotools' of that
            file bit for bit, unless an annotation of it has the id 0: pycocotools uses the id to say
            that the object was found, and 0 to say that none was.

    Returns:
        None in place of pycocotools' -1, where no object is of the size asked for.

    Raises:
        ValueError: detections, annotations and image_ids, or class_names and category_ids, are not
            of the same number, an image id comes twice, or a label has no name.

    References:
        Lin et al., "Microsoft COCO: Common Objects in Context", arXiv 1405.0312, and
        cocodataset.org/#detection-eval.
    """
    evaluation = match_coco(detections, annotations, class_names, category_ids, image_ids, truth)
    evaluation.accumulate()
    evaluation.summary_lines()  # fills stats as summarize() does, without printing
    return {key: None if v == -1 else float(v) for key, v in zip(COCO_KEYS, evaluation.stats, strict=True)}
