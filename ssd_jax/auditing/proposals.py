"""Files with the doubts of an audit: a table, and annotations with proposed corrections in COCO's format."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssd_jax.data.source import Annotation, Source
from ssd_jax.files import write_csv, write_text
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import xyxy_to_xywh
from ssd_jax.metrics.doubts import Doubt, DoubtKind, describe_doubt

PROPOSED_SCORE = 0.5
"""Minimum score of the doubts that change the proposed annotations."""

_COLUMNS = (
    "rank", "score", "kind", "doubt", "image", "file", "box", "class", "x1", "y1", "x2", "y2",
    "found_class", "found_score", "found_x1", "found_y1", "found_x2", "found_y2", "iou",
)  # fmt: skip


def write_doubts_csv(
    file: Path,
    doubts: Sequence[Doubt],
    annotations: Sequence[Annotation],
    detections: Sequence[ImageDetections],
    class_names: Sequence[str],
) -> None:
    """Write a table with one doubt per row, best first.

    ``box`` is the number of the doubted box in the annotation of its image, from 1. Boxes are xyxy in pixels.

    Args:
        file: CSV file to write.
        doubts: Doubts, best first.
        annotations: Annotation of each image.
        detections: Detections of each image.
        class_names: Names of the labels 1 to C.

    Raises:
        UserError: If the file cannot be written.
    """
    rows = []
    for rank, doubt in enumerate(doubts, start=1):
        annotation, found = annotations[doubt.image], detections[doubt.image]
        text = describe_doubt(doubt, annotation, found, class_names)
        row: list[object] = [rank, round(doubt.score, 3), doubt.kind.value, text, annotation.image_id, annotation.file]
        if doubt.object_index is None:
            row += [""] * 6
        else:
            j = doubt.object_index
            row += [j + 1, class_names[annotation.labels[j] - 1], *_round(annotation.boxes_px[j])]
        if doubt.detection is None:
            row += [""] * 6
        else:
            k = doubt.detection
            row += [class_names[found.labels[k] - 1], round(float(found.scores[k]), 3), *_round(found.boxes_px[k])]
        rows.append([*row, "" if doubt.iou is None else round(doubt.iou, 3)])
    write_csv(file, _COLUMNS, rows)


def _round(values: np.ndarray) -> list[float]:
    return [round(value, 1) for value in values.tolist()]


def make_proposals(
    source: Source, doubts: Sequence[Doubt], detections: Sequence[ImageDetections], root: str = ""
) -> dict[str, Any]:
    """Return annotations with proposed corrections, as the content of a file in COCO's format.

    All images and boxes of the split are in it. Doubts with a score of at least `PROPOSED_SCORE` change it: missing
    labels are added, other classes replaced, loose boxes moved to the detection, and duplicates left out. A box in
    which nothing is found stays, because it can be an object that is hard to find. The entry ``attributes`` of a box
    that is in doubt, which labelling tools show, has the kind, the score and the rank of the doubt.

    Args:
        source: The split.
        doubts: Doubts, best first.
        detections: Detections of each image.
        root: Folder that the names of the image files are relative to, if they are below it.
    """
    by_image: dict[int, list[tuple[int, Doubt]]] = {}
    for rank, doubt in enumerate(doubts, start=1):
        by_image.setdefault(doubt.image, []).append((rank, doubt))
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for i, annotation in enumerate(source.annotations()):
        name = _make_file_name(annotation.file, root)
        images.append({"id": i + 1, "file_name": name, "width": annotation.width, "height": annotation.height})
        for entry in _iterate_objects(annotation, detections[i], by_image.get(i, [])):
            objects.append({"id": len(objects) + 1, "image_id": i + 1, **entry})
    categories = [{"id": label, "name": name} for label, name in enumerate(source.class_names, start=1)]
    return {"images": images, "annotations": objects, "categories": categories}


def write_proposals(
    file: Path, source: Source, doubts: Sequence[Doubt], detections: Sequence[ImageDetections], root: str
) -> None:
    """Write the result of `make_proposals` to a JSON file.

    Raises:
        UserError: If the file cannot be written.
    """
    write_text(file, json.dumps(make_proposals(source, doubts, detections, root)) + "\n")


def _make_file_name(file: str, root: str) -> str:
    """Return the name of an image file for COCO: relative to a folder, with slashes, if the file is below it."""
    if root and Path(file).is_relative_to(root):
        return Path(file).relative_to(root).as_posix()
    return file


def _iterate_objects(
    annotation: Annotation, detections: ImageDetections, doubts: Sequence[tuple[int, Doubt]]
) -> Iterator[dict[str, Any]]:
    """Yield the entries of the objects of an image, with the corrections of its doubts, each given with its rank."""
    by_object = {doubt.object_index: (rank, doubt) for rank, doubt in doubts if doubt.object_index is not None}
    for j in range(len(annotation.labels)):
        box, label = annotation.boxes_px[j], int(annotation.labels[j])
        attributes: dict[str, Any] = {"difficult": True} if annotation.difficult[j] else {}
        if j in by_object:
            rank, doubt = by_object[j]
            attributes |= _make_attributes(rank, doubt)
            is_proposed = doubt.score >= PROPOSED_SCORE
            if is_proposed and doubt.kind is DoubtKind.DUPLICATE:
                continue
            if is_proposed and doubt.kind is DoubtKind.CLASS:
                label = int(detections.labels[doubt.detection])
            if is_proposed and doubt.kind is DoubtKind.LOOSE:
                box = detections.boxes_px[doubt.detection]
        yield _make_entry(box, label, bool(annotation.crowd[j]), attributes)
    for rank, doubt in doubts:
        if doubt.kind is DoubtKind.MISSING and doubt.score >= PROPOSED_SCORE:
            k = doubt.detection
            box = np.clip(detections.boxes_px[k], 0, [annotation.width, annotation.height] * 2)
            yield _make_entry(box, int(detections.labels[k]), False, _make_attributes(rank, doubt))


def _make_attributes(rank: int, doubt: Doubt) -> dict[str, Any]:
    return {"doubt": doubt.kind.value, "doubt_score": round(doubt.score, 3), "doubt_rank": rank}


def _make_entry(box: np.ndarray, label: int, is_crowd: bool, attributes: dict[str, Any]) -> dict[str, Any]:
    left, top, width, height = (round(value, 2) for value in xyxy_to_xywh(box[None])[0].tolist())
    return {
        "category_id": label,
        "bbox": [left, top, width, height],
        "area": round(width * height, 2),
        "iscrowd": int(is_crowd),
        "attributes": attributes,
    }
