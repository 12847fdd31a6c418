"""A baseline that does not look at the images: the mean box of each class, in every image.

It shows how easy a data set is. If all objects are large and in the middle, this baseline finds many of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ssd_jax.data.source import Annotation, normalised_boxes
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import evaluate_coco, evaluate_voc
from ssd_jax.metrics.voc_matching import match_classes


class ConstantBox(NamedTuple):
    """Metrics of the constant boxes in a split."""

    split: str
    """Split from whose objects the boxes were computed."""
    voc_map_11point: float | None
    voc_map_area: float | None
    coco_ap: float | None
    precision: float | None
    """Share of the constant boxes that are correct at IoU 0.5. None if there are no boxes."""
    recall: float | None
    """Share of the objects that a constant box finds. None if there are no objects."""


def compute_mean_boxes(annotations: Sequence[Annotation], classes: int) -> Float64[np.ndarray, "c 4"]:
    """Return the mean box of each class, xyxy relative to the image, or nan for a class without objects.

    Objects that are difficult or crowds are left out.

    Args:
        annotations: Annotations of a split.
        classes: Number of classes.
    """
    kept = [~(annotation.difficult | annotation.crowd) for annotation in annotations]
    # The empty arrays in front are for a split without images.
    boxes = [np.zeros((0, 4)), *(normalised_boxes(a)[keep] for a, keep in zip(annotations, kept, strict=True))]
    labels = [np.zeros(0, int), *(a.labels[keep] for a, keep in zip(annotations, kept, strict=True))]
    sums, counts = np.zeros((classes, 4)), np.bincount(np.concatenate(labels) - 1, minlength=classes)
    np.add.at(sums, np.concatenate(labels) - 1, np.concatenate(boxes))
    return np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)


def detect_constant_boxes(
    mean_boxes: Float64[np.ndarray, "c 4"], annotations: Sequence[Annotation]
) -> list[ImageDetections]:
    """Return one detection of each class that has a mean box, with the score 1, in every image.

    Args:
        mean_boxes: Result of `compute_mean_boxes`.
        annotations: Annotations of the images. Only their sizes are used.
    """
    known = ~np.isnan(mean_boxes[:, 0])
    boxes, labels = mean_boxes[known], (1 + np.flatnonzero(known)).astype(np.int32)
    scores = np.ones(len(labels), np.float32)
    return [
        ImageDetections((boxes * ([a.width, a.height] * 2)).astype(np.float32), scores, labels) for a in annotations
    ]


def evaluate_constant_boxes(
    split: str,
    training: Sequence[Annotation],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
) -> ConstantBox:
    """Compute the metrics of the constant boxes in a split.

    All boxes of a class have the same score, so they count in the order of the images.

    Args:
        split: Name of the split of ``training``.
        training: Annotations from which the mean boxes are computed.
        annotations: Annotations of the measured split.
        class_names: Names of the labels 1 to C.
    """
    detections = detect_constant_boxes(compute_mean_boxes(training, len(class_names)), annotations)
    voc = evaluate_voc(detections, annotations, class_names)
    matches = match_classes(detections, annotations, class_names)
    correct = sum(int(one.correct.sum()) for one in matches)
    boxes, objects = sum(len(one.scores) for one in matches), sum(int(one.objects.sum()) for one in matches)
    return ConstantBox(
        split,
        voc["voc_map_11point"],
        voc["voc_map_area"],
        evaluate_coco(detections, annotations, class_names)["coco_ap"],
        correct / boxes if boxes else None,
        correct / objects if objects else None,
    )
