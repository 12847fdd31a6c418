"""The VOC metric, computed with numpy, and the twelve COCO metrics, computed with hotcoco.

`evaluate_voc` and `evaluate_coco` take the detections and the annotations of a split, in pixels of the original
images. Their results hold only dicts, strings, numbers and None, so that they can be written as JSON. None means that a
metric is undefined, such as the AP of a class without objects.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from hotcoco import COCO, COCOeval
from jaxtyping import Float, Float64, Int, Int64

from ssd_jax.data.source import Annotation, CocoTruth
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.voc_matching import ClassMatches, ScoredBoxes, TrueBoxes, match_class, match_classes


class VocClass(TypedDict):
    """VOC metrics of one class."""

    objects: int
    """Number of objects, without ignored objects."""
    ignored_objects: int
    """Number of difficult objects and crowds."""
    detections: int
    """Number of detections, including those on ignored objects."""
    ap_11point: float | None
    """Mean precision at eleven recalls, as in VOC2007. None if the class has no objects."""
    ap_area: float | None
    """Area under the precision-recall curve, as in VOC since 2010. None if the class has no objects."""


class VocResult(TypedDict):
    """VOC metrics of a split. The means leave out classes without objects, and are None if the split has no objects."""

    voc_map_11point: float | None
    voc_map_area: float | None
    voc_iou_threshold: float
    voc_classes: dict[str, VocClass]


# ---- VOC ----


def compute_precision_recall(
    matches: ClassMatches,
) -> tuple[Float64[np.ndarray, " j"], Float64[np.ndarray, " j"]] | None:
    """Return precision and recall after each detection, best first, or None if the class has no objects."""
    objects = int(matches.objects.sum())
    if objects == 0:
        return None
    correct = np.cumsum(matches.correct)
    return correct / np.arange(1, len(correct) + 1), correct / objects


RECALL_POINTS = np.arange(0, 1.1, 0.1)
"""The eleven recalls of VOC2007, 0 to 1. Some of these floats are slightly above the decimal numbers: a recall of 0.3
does not reach the point 0.30000000000000004. Published results were computed with these points, so they are kept."""


def _compute_eleven_point_ap(precision: Float64[np.ndarray, " j"], recall: Float64[np.ndarray, " j"]) -> float:
    """Return the mean precision at the eleven RECALL_POINTS: the highest precision at each point or a larger recall."""
    return float(np.mean([precision[recall >= point].max(initial=0.0) for point in RECALL_POINTS]))


def _compute_area_ap(precision: Float64[np.ndarray, " j"], recall: Float64[np.ndarray, " j"]) -> float:
    """Return the area under the monotone curve: the highest precision at each recall or a larger one."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def voc_average_precision(
    detections: Sequence[ScoredBoxes],
    ground_truth: Sequence[TrueBoxes],
    iou_threshold: float = 0.5,
    eleven_point: bool = True,
) -> float:
    """Compute the average precision of one class over a split, as the PASCAL VOC development kit does.

    Boxes are xyxy in pixels of the original image, and their last pixel belongs to them: the width is x2 - x1 + 1.
    The detections of all images are processed by descending score; ties keep their order. Each detection is compared
    with the object of its image with the highest IoU, which may be an ignored one. It is correct if that IoU is at
    least ``iou_threshold`` and no earlier detection hit the same object, and wrong otherwise. A detection on an
    ignored object is neither correct nor wrong.

    Args:
        detections: Detections of each image.
        ground_truth: Objects of the same images, in the same order.
        iou_threshold: Smallest IoU of a correct detection.
        eleven_point: True for the mean over eleven recalls, as in VOC2007. False for the area under the monotone
            curve, as in VOC since 2010.

    Returns:
        AP in [0, 1], or nan if the class has no objects. A mean over classes should leave out such a class.

    Raises:
        ValueError: If the two sequences have different lengths.

    References:
        Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section
        4.2; VOCevaldet.m and VOCap.m of the development kits of 2007 and 2012.
    """
    if len(detections) != len(ground_truth):
        raise ValueError(f"got detections of {len(detections)} images, but ground truth of {len(ground_truth)}")
    curve = compute_precision_recall(match_class(detections, ground_truth, iou_threshold))
    if curve is None:
        return float("nan")
    return _compute_eleven_point_ap(*curve) if eleven_point else _compute_area_ap(*curve)


def _compute_mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, or None if all values are None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _check_inputs(
    detections: Sequence[ImageDetections], annotations: Sequence[Annotation], class_names: Sequence[str]
) -> None:
    """Raise ValueError if the numbers of detections and annotations differ, or if a label has no name."""
    if len(detections) != len(annotations):
        raise ValueError(f"got detections of {len(detections)} images, but annotations of {len(annotations)}")
    for labels in (*(d.labels for d in detections), *(a.labels for a in annotations)):
        wrong = labels[(labels < 1) | (labels > len(class_names))]
        if len(wrong):
            raise ValueError(f"label {wrong[0]} is not in the range 1 to {len(class_names)}; remove padding")


def _count_labels(labels: Sequence[np.ndarray], classes: int) -> list[int]:
    """Return how often each of the labels 1 to ``classes`` occurs in the images of a split."""
    flat = np.concatenate([np.zeros(0, np.int64), *labels])
    return np.bincount(flat, minlength=classes + 1)[1:].tolist()


def _make_voc_class(matches: ClassMatches, ignored_objects: int, detections: int) -> VocClass:
    """Return the metrics of a class from its matches and the numbers of its ignored objects and of its detections."""
    curve = compute_precision_recall(matches)
    return VocClass(
        objects=int(matches.objects.sum()),
        ignored_objects=ignored_objects,
        detections=detections,
        ap_11point=None if curve is None else _compute_eleven_point_ap(*curve),
        ap_area=None if curve is None else _compute_area_ap(*curve),
    )


def evaluate_voc(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> VocResult:
    """Compute VOC's mean average precision of a split, by 11 points and by area, and the AP of each class.

    See `voc_average_precision` for the rules. Crowds, which VOC does not have, are ignored like difficult objects.

    Args:
        detections: Detections of each image.
        annotations: Annotations of the same images, in the same order.
        class_names: Names of the labels 1 to C.
        iou_threshold: Smallest IoU of a correct detection.

    Raises:
        ValueError: If the numbers of detections and annotations differ, or a label has no name.
    """
    _check_inputs(detections, annotations, class_names)
    detected = _count_labels([d.labels for d in detections], len(class_names))
    ignored = _count_labels([a.labels[a.difficult | a.crowd] for a in annotations], len(class_names))
    matches = match_classes(detections, annotations, class_names, iou_threshold)
    classes = {
        name: _make_voc_class(*values)
        for name, values in zip(class_names, zip(matches, ignored, detected, strict=True), strict=True)
    }
    return VocResult(
        voc_map_11point=_compute_mean([c["ap_11point"] for c in classes.values()]),
        voc_map_area=_compute_mean([c["ap_area"] for c in classes.values()]),
        voc_iou_threshold=iou_threshold,
        voc_classes=classes,
    )


# ---- COCO ----

COCO_KEYS = (
    "coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large",
    "coco_ar1", "coco_ar10", "coco_ar100", "coco_ar_small", "coco_ar_medium", "coco_ar_large",
)  # fmt: skip
"""Names of the twelve COCO metrics in the order of pycocotools' COCOeval.stats."""


def xyxy_to_xywh(boxes_px: Float[np.ndarray, "k 4"]) -> Float64[np.ndarray, "k 4"]:
    """Convert xyxy boxes in pixels to COCO's format: left, top, width, height."""
    boxes = boxes_px.astype(np.float64)  # so that the subtraction of float32 corners is exact
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _to_coco_truth(
    annotations: Sequence[Annotation], class_ids: Int64[np.ndarray, " c"], ids: Int64[np.ndarray, " m"]
) -> CocoTruth:
    """Convert annotations to the entries of a COCO file."""
    # The empty arrays in front are for a split without images.
    labels = np.concatenate([np.zeros(0, np.int32), *(a.labels for a in annotations)])
    boxes = np.concatenate([np.zeros((0, 4)), *(a.boxes_px for a in annotations)])
    return CocoTruth(
        image_ids=np.repeat(ids, [len(a.labels) for a in annotations]),
        category_ids=class_ids[labels - 1],
        boxes_px_xywh=xyxy_to_xywh(boxes),
        area_px=np.concatenate([np.zeros(0), *(a.area_px for a in annotations)]),
        crowd=np.concatenate([np.zeros(0, bool), *(a.crowd for a in annotations)]),
    )


def _to_coco_rows(
    detections: Sequence[ImageDetections], class_ids: Int[np.ndarray, " c"], ids: Int[np.ndarray, " m"]
) -> Float64[np.ndarray, "k 7"]:
    """Return one row per detection: image id, left, top, width, height, score, category id."""
    rows = [
        np.column_stack([np.full(len(d.labels), i), xyxy_to_xywh(d.boxes_px), d.scores, class_ids[d.labels - 1]])
        for i, d in zip(ids, detections, strict=True)
    ]
    return np.concatenate([np.zeros((0, 7)), *rows])


class CocoEvaluation(NamedTuple):
    """Detections that are matched with objects by COCO's rules.

    Images and categories are numbered from 1 in the order of their ids, because hotcoco accepts no ids below 0 or above
    2^53. Only the order affects the results. Objects and detections are numbered from 1 in the order of their arrays.
    """

    matched: COCOeval
    """Object of hotcoco that computes the metrics from the matches."""
    objects: Int64[np.ndarray, "g 2"]
    """Image and category of each object, crowds included."""
    detections: Float64[np.ndarray, "k 7"]
    """Image, left, top, width, height, score and category of each detection."""
    images: int
    """Number of images."""
    categories: int
    """Number of categories."""


def match_coco(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
    truth: CocoTruth | None = None,
) -> CocoEvaluation:
    """Match detections with objects by COCO's rules. The arguments are those of `evaluate_coco`."""
    _check_inputs(detections, annotations, class_names)
    class_ids = np.array(range(1, len(class_names) + 1) if category_ids is None else category_ids, np.int64)
    ids = np.array(range(1, len(annotations) + 1) if image_ids is None else image_ids, np.int64)
    images = np.unique(ids)
    if len(class_ids) != len(class_names) or len(ids) != len(annotations) or len(images) != len(ids):
        raise ValueError(
            f"got {len(class_ids)} ids of {len(class_names)} classes, and {len(images)} different ids of "
            f"{len(annotations)} images"
        )
    if truth is None:
        truth = _to_coco_truth(annotations, class_ids, ids)
    categories = np.union1d(class_ids, truth.category_ids)
    in_split = np.isin(truth.image_ids, images)
    object_images = 1 + np.searchsorted(images, truth.image_ids[in_split])
    object_categories = 1 + np.searchsorted(categories, truth.category_ids[in_split])
    coco = COCO.from_arrays(
        images=[dict(id=i) for i in range(1, len(images) + 1)],
        # The names do not affect the metrics, and hotcoco refuses names with unpaired surrogates.
        categories=[dict(id=i, name=str(i)) for i in range(1, len(categories) + 1)],
        image_ids=object_images,
        category_ids=object_categories,
        boxes=truth.boxes_px_xywh[in_split],
        area=truth.area_px[in_split],
        iscrowd=truth.crowd[in_split],
    )
    rows = _to_coco_rows(detections, 1 + np.searchsorted(categories, class_ids), 1 + np.searchsorted(images, ids))
    evaluation = COCOeval(coco, coco.load_res(rows), "bbox")
    evaluation.evaluate()
    objects = np.stack([object_images, object_categories], axis=1)
    return CocoEvaluation(evaluation, objects, rows, len(images), len(categories))


def evaluate_coco(
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    image_ids: Sequence[int] | None = None,
    truth: CocoTruth | None = None,
) -> dict[str, float | None]:
    """Compute the twelve COCO metrics of boxes. The numbers equal those of pycocotools.

    These are AP over IoU 0.5 to 0.95, at 0.5, at 0.75, and of small, medium and large objects, and recall with 1, 10
    and 100 detections per image, and of small, medium and large objects. Small objects have an ``area_px`` below
    32^2. A detection on a crowd is ignored. Difficult objects count like any other, because pycocotools overwrites
    ``ignore`` with ``iscrowd``.

    Args:
        detections: Detections of each image.
        annotations: Annotations of the same images, in the same order.
        class_names: Names of the labels 1 to C.
        category_ids: Id of each class in the data set. None: the labels.
        image_ids: Id of each image in the data set. None: 1, 2, ... The ids only matter if detections in different
            images have the same score, as COCO takes the lower id first.
        truth: The objects as stated in the COCO file, identified by ``image_ids`` and ``category_ids``. It may also
            hold objects of other images. With it, the metrics are bitwise identical to those of pycocotools for that
            file, except for objects with id 0, which pycocotools never counts as detected. None: the objects of
            ``annotations``, whose float32 boxes differ from those of the file in the last digits.

    Returns:
        A dict from the names in COCO_KEYS to the metrics. A metric is None if the split has no objects that it counts;
        pycocotools returns -1.

    Raises:
        ValueError: If detections, annotations and image_ids, or class_names and category_ids, have different lengths,
            an image id occurs twice, or a label has no name.

    References:
        Lin et al., "Microsoft COCO: Common Objects in Context", arXiv 1405.0312, and
        cocodataset.org/#detection-eval.
    """
    return summarize_coco(match_coco(detections, annotations, class_names, category_ids, image_ids, truth))


def summarize_coco(evaluation: CocoEvaluation) -> dict[str, float | None]:
    """Return the metrics of `evaluate_coco` from the result of `match_coco`."""
    matched = evaluation.matched
    matched.accumulate()
    matched.summary_lines()  # fills stats as summarize() does, without printing
    return {key: None if v == -1 else float(v) for key, v in zip(COCO_KEYS, matched.stats, strict=True)}
