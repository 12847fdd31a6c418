"""Draw the images with the most errors for the report page, with their annotations and their detections."""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.diagnosis import ErrorType, ImageDiagnosis
from ssd_jax.report.draw import Colour, draw_boxes

IMAGE_SIDE = 640
"""Longest side of an embedded image in pixels. A wide screen shows two such images side by side."""

# page.css contains the same colours, for the legend.
CORRECT: Colour = (45, 190, 165)
ERROR: Colour = (240, 60, 45)
MISSED: Colour = (255, 180, 0)
IGNORED: Colour = (150, 150, 150)

# draw_boxes chooses colours by label and draws no text for a blank label.
_CORRECT_LABEL, _IGNORED_LABEL = "", " "


class ErrorImage(NamedTuple):
    """An image that the report shows, with its errors."""

    image_id: str
    objects: int
    """Number of objects that are not ignored."""
    errors: dict[ErrorType, int]
    truth: bytes | None
    """The image with its annotation, as a JPEG file. None if the image cannot be read."""
    detections: bytes | None
    """The image with its detections, as a JPEG file. None if the image cannot be read."""


def draw_error_image(source: Source, index: int, detections: ImageDetections, diagnosis: ImageDiagnosis) -> ErrorImage:
    """Draw the annotation and the detections of an image.

    Boxes are coloured by their outcome. Only errors have a label.

    Args:
        source: The split.
        index: Position of the image.
        detections: Detections of the image.
        diagnosis: Outcomes of the detections and objects of the image.
    """
    annotation = source.annotation(index)
    objects = int((~(annotation.difficult | annotation.crowd)).sum())
    drawn = ErrorImage(annotation.image_id, objects, diagnosis.count_errors(), None, None)
    try:
        image = source.image(index)
    except UserError:  # the image cannot be read, which was reported before
        return drawn
    names, shown = source.class_names, detections.boxes_px[list(diagnosis.shown)]
    return drawn._replace(
        truth=_draw_as_jpeg(image, annotation.boxes_px, make_truth_labels(annotation, diagnosis, names), MISSED),
        detections=_draw_as_jpeg(image, shown, make_detection_labels(detections, annotation, diagnosis, names), ERROR),
    )


def make_truth_labels(annotation: Annotation, diagnosis: ImageDiagnosis, names: Sequence[str]) -> list[str]:
    """Return a label for each object: its class and "missed" or the IoU of a loose box, otherwise a blank label."""
    ignored = annotation.difficult | annotation.crowd
    loose, labels = diagnosis.loose, []
    for i, label in enumerate(annotation.labels):
        if ignored[i]:
            labels.append(_IGNORED_LABEL)
        elif i in loose:
            labels.append(f"{names[label - 1]}, loose box only, IoU {_format_iou(loose[i])}")
        else:
            labels.append(f"{names[label - 1]}, {ErrorType.MISSED}" if i in diagnosis.unmatched else _CORRECT_LABEL)
    return labels


def make_detection_labels(
    detections: ImageDetections, annotation: Annotation, diagnosis: ImageDiagnosis, names: Sequence[str]
) -> list[str]:
    """Return a label for each shown detection: class, score and error if it is wrong, otherwise a blank label."""
    labels = []
    for i, outcome, target, near in zip(
        diagnosis.shown, diagnosis.outcomes, diagnosis.objects, diagnosis.nearest, strict=True
    ):
        if outcome is ErrorType.CORRECT:
            labels.append(_CORRECT_LABEL)
        elif outcome is ErrorType.IGNORED:
            labels.append(_IGNORED_LABEL)
        else:
            reason: str = outcome
            if target is not None:
                reason += f": is {names[annotation.labels[target] - 1]}"
            elif near is not None:
                kind = "loose" if outcome is ErrorType.LOCALIZATION else names[annotation.labels[near.object_index] - 1]
                reason += f": {kind}, IoU {_format_iou(near.iou)}"
            labels.append(f"{names[detections.labels[i] - 1]} {detections.scores[i]:.2f}, {reason}")
    return labels


def _format_iou(iou: float) -> str:
    """Return an IoU with two digits, rounded down, so that an IoU just below the threshold does not look correct."""
    return f"{math.floor(100 * iou + 1e-9) / 100:.2f}"


def _draw_as_jpeg(
    image: UInt8[np.ndarray, "h w 3"], boxes_px: Float[np.ndarray, "k 4"], labels: Sequence[str], colour: Colour
) -> bytes:
    """Return an image with boxes as a JPEG file. Boxes with a label text are drawn last, in the given colour."""
    order = sorted(range(len(labels)), key=lambda i: labels[i].strip() != "")
    colours = dict.fromkeys(labels, colour) | {_CORRECT_LABEL: CORRECT, _IGNORED_LABEL: IGNORED}
    scale = IMAGE_SIDE / max(image.shape[:2])
    picture = draw_boxes(image, boxes_px[order], [labels[i] for i in order], colours=colours, scale=scale)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()
