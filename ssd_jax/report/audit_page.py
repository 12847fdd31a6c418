"""The page of an audit: the doubts about the annotations of a split, with pictures."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ssd_jax import files
from ssd_jax.data.source import Annotation, Source
from ssd_jax.drawing.boxes import draw_boxes
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.doubts import Doubt, DoubtKind, describe_doubt
from ssd_jax.report.error_images import CORRECT, IGNORED, MISSED
from ssd_jax.report.template import render_page

SHOWN_DOUBTS = 100
"""Maximum number of doubts that the page shows."""
PICTURE_SIDE = 400
"""Side of a picture in pixels."""
CONTEXT = 2.2
"""Side of the part of an image that a picture shows, relative to the longest side of the boxes in doubt."""
SMALLEST_PART = 0.15
"""Smallest side of the part of an image that a picture shows, relative to the longest side of the image."""
LINE_WIDTH = 3
"""Width of the lines of a box in doubt and of a detection, in pixels of the picture."""
_OTHER_LABEL = " "  # draw_boxes draws no text for a blank label


class KindRow(NamedTuple):
    """One row of the table of kinds."""

    kind: DoubtKind
    doubts: int
    """Number of doubts of this kind."""
    expected: float
    """Expected number of wrong annotations among them: the sum of their scores."""


class DoubtCard(NamedTuple):
    """A doubt as the page shows it."""

    rank: int
    doubt: Doubt
    text: str
    """The doubt in words."""
    image_id: str
    picture: bytes | None
    """The part of the image around the doubt, as a JPEG file. None if the image cannot be read."""


def write_audit_page(
    file: Path,
    title: str,
    split: str,
    source: Source,
    detections: Sequence[ImageDetections],
    doubts: Sequence[Doubt],
    judge: str,
) -> None:
    """Write the page of an audit.

    Args:
        file: HTML file to write.
        title: Name of the run.
        split: Name of the split.
        source: The split.
        detections: Detections of each image of the split, in order.
        doubts: Doubts, best first.
        judge: Sentence that says which networks the annotations were compared with.

    Raises:
        UserError: If the file cannot be written.
    """
    annotations = list(source.annotations())
    cards = [
        _make_card(rank, doubt, source, annotations[doubt.image], detections[doubt.image])
        for rank, doubt in enumerate(doubts[:SHOWN_DOUBTS], start=1)
    ]
    files.write_text(
        file, render_page("audit.html.j2", make_audit_context(title, split, annotations, doubts, judge, cards))
    )


def make_audit_context(
    title: str,
    split: str,
    annotations: Sequence[Annotation],
    doubts: Sequence[Doubt],
    judge: str,
    cards: Sequence[DoubtCard] = (),
) -> dict[str, Any]:
    """Return the variables for the template of the page.

    Args:
        title: Name of the run.
        split: Name of the split.
        annotations: Annotation of each image of the split.
        doubts: All doubts, best first.
        judge: Sentence that says which networks the annotations were compared with.
        cards: The doubts that are shown.
    """
    return {
        "title": title,
        "split": split,
        "images": len(annotations),
        "boxes": sum(len(annotation.labels) for annotation in annotations),
        "doubts": len(doubts),
        "images_in_doubt": len({doubt.image for doubt in doubts}),
        "judge": judge,
        "kinds": count_kinds(doubts),
        "cards": cards,
    }


def count_kinds(doubts: Sequence[Doubt]) -> list[KindRow]:
    """Return the number of doubts of each kind and the expected number of wrong annotations, most of these first."""
    by_kind = {kind: [doubt.score for doubt in doubts if doubt.kind is kind] for kind in DoubtKind}
    rows = [KindRow(kind, len(scores), sum(scores)) for kind, scores in by_kind.items()]
    return sorted(rows, key=lambda row: -row.expected)


def _make_card(
    rank: int, doubt: Doubt, source: Source, annotation: Annotation, detections: ImageDetections
) -> DoubtCard:
    text = describe_doubt(doubt, annotation, detections, source.class_names)
    try:
        picture = draw_doubt(source.image(doubt.image), doubt, annotation, detections, source.class_names)
    except UserError:  # the image cannot be read, which was reported before
        picture = None
    return DoubtCard(rank, doubt, text, annotation.image_id, picture)


def draw_doubt(
    image: UInt8[np.ndarray, "h w 3"],
    doubt: Doubt,
    annotation: Annotation,
    detections: ImageDetections,
    class_names: Sequence[str],
) -> bytes:
    """Draw the part of an image around a doubt, with the box in doubt, the detection and all other boxes.

    Args:
        image: The image at its original size.
        doubt: The doubt.
        annotation: Annotation of the image.
        detections: Detections of the image.
        class_names: Names of the labels 1 to C.

    Returns:
        A JPEG file.
    """
    boxes, labels, colours = [], [], []
    for j in (doubt.twin, doubt.object_index):
        if j is not None:
            boxes.append(annotation.boxes_px[j])
            labels.append(class_names[annotation.labels[j] - 1])
            colours.append(MISSED)
    if doubt.detection is not None:
        k = doubt.detection
        boxes.append(detections.boxes_px[k])
        labels.append(f"{class_names[detections.labels[k] - 1]} {detections.scores[k]:.2f}")
        colours.append(CORRECT)
    left, top, right, bottom = choose_part(np.array(boxes), (image.shape[1], image.shape[0]))
    corner, scale = np.array([left, top, left, top], np.float32), PICTURE_SIDE / max(right - left, bottom - top)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    others = np.delete(annotation.boxes_px, [j for j in (doubt.twin, doubt.object_index) if j is not None], axis=0)
    grey = {_OTHER_LABEL: IGNORED}
    picture = draw_boxes(part, others - corner, [_OTHER_LABEL] * len(others), colours=grey, scale=scale, line_width=1)
    marked = (np.array(boxes, np.float32) - corner) * scale
    picture = draw_boxes(
        np.asarray(picture), marked, labels, colours=dict(zip(labels, colours, strict=True)), line_width=LINE_WIDTH
    )
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


def choose_part(boxes_px: Float[np.ndarray, "k 4"], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the corners x1, y1, x2, y2 of the square part of an image that shows boxes with what is around them.

    The part lies inside the image, and is smaller than a square only if the image is.

    Args:
        boxes_px: At least one box, xyxy in pixels.
        size: Width and height of the image in pixels.
    """
    limits = np.array([*size, *size], np.float32)
    clipped = np.clip(boxes_px, 0, limits)
    low, high = clipped[:, :2].min(axis=0), clipped[:, 2:].max(axis=0)
    side = max(CONTEXT * float((high - low).max()), SMALLEST_PART * max(size), 1)
    center = (low + high) / 2
    corners = []
    for middle, extent in zip(center.tolist(), size, strict=True):
        length = min(max(1, round(side)), extent)
        start = min(max(0, round(middle - length / 2)), extent - length)
        corners.append((start, start + length))
    (left, right), (top, bottom) = corners
    return left, top, right, bottom
