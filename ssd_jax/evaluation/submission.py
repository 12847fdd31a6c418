"""Files of detections in the formats that the servers of COCO and of PASCAL VOC take.

COCO: one JSON list, https://cocodataset.org/#format-results, with the image and category ids of the
data set; boxes are left, top, width, height in pixels from 0. Named as its server asks,
``detections_<split>_<algorithm>_results.json``.

VOC: a text file for each class, ``comp4_det_<split>_<class>.txt``, of lines "image confidence left top
right bottom" (the development kit of 2012, sections 4.2 and 4.3; comp4: trained on data of any kind). Boxes are in
the pixels that the annotation files count in, which the network has learned, and nothing is added: in the kit's own
files the first pixel is 1, and the last lies inside the box.

All digits are written, so that the numbers made from these files are those that were measured.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError
from ssd_jax.files import user_errors_on_write, write_text
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import xyxy_to_xywh


def write_results(
    folder: Path, split: str, algorithm: str, source: Source, detections: Sequence[ImageDetections]
) -> list[Path]:
    """Writes COCO's file for a source with COCO's ids, each image's its own, else VOC's; returns what was written.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        split: its name, for the files' names, which are without the folder of VOC2012/test.
        algorithm: what the detections are by, for the name of COCO's file.
        source: the split.
        detections: one for each image of it, in its order.

    Raises:
        UserError: as `check_names`, or the folder can't be written.
    """
    check_names(source)
    split = re.sub(r"[^+]*/", "", split)
    annotations = list(source.annotations())
    if source.category_ids is not None and _numbered(annotations):
        text = _coco_text(annotations, source.category_ids, detections)
        texts = {f"detections_{split}_{algorithm}_results.json": text}
    else:
        by_class = _voc_texts(annotations, source.class_names, detections)
        texts = {f"comp4_det_{split}_{name}.txt": text for name, text in by_class}
    with user_errors_on_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = {folder / _file_name(name): text for name, text in texts.items()}
    for file, text in files.items():
        write_text(file, text)
    return list(files)


def check_names(source: Source) -> None:
    """Raises UserError where VOC's files can't tell the images or classes of a source apart, for COCO's do not fit.

    To be asked before the work: an id with a blank would shift the columns, and two classes may be one file.
    """
    annotations = list(source.annotations())
    if source.category_ids is not None and _numbered(annotations):
        return
    parted = next((a.image_id for a in annotations if len(a.image_id.split()) != 1), None)
    if parted is not None:
        raise UserError(
            f"the image '{parted}' has a blank in its name, and VOC's result files are columns between blanks. "
            "Rename it with its annotation, or do without --results"
        )
    files: dict[str, str] = {}
    for name in source.class_names:
        other = files.setdefault(_file_name(name), name)
        if other != name:
            raise UserError(
                f"VOC's result files of the classes '{other}' and '{name}' would have the same name. Rename one of "
                "them, or do without --results"
            )


def _numbered(annotations: Sequence[Annotation]) -> bool:
    """Whether each has a number of its own: splits joined from several COCO files may not."""
    numbers = {annotation.number for annotation in annotations}
    return None not in numbers and len(numbers) == len(annotations)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)


def _coco_text(
    annotations: Sequence[Annotation], category_ids: Sequence[int], detections: Sequence[ImageDetections]
) -> str:
    """A line for each detection; classes that the data set does not have are left out."""
    entries = _coco_entries(annotations, category_ids, detections)
    return "[\n" + ",\n".join(msgspec.json.encode(entry).decode() for entry in entries) + "\n]\n"


def _coco_entries(
    annotations: Sequence[Annotation], category_ids: Sequence[int], detections: Sequence[ImageDetections]
) -> Iterator[dict[str, Any]]:
    for annotation, found in zip(annotations, detections, strict=True):
        boxes = xyxy_to_xywh(found.boxes_px).tolist()
        for box, score, label in zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True):
            category_id = category_ids[label - 1]
            if category_id >= 0:
                yield {"image_id": annotation.number, "category_id": category_id, "bbox": box, "score": score}


def _voc_texts(
    annotations: Sequence[Annotation], class_names: Sequence[str], detections: Sequence[ImageDetections]
) -> Iterator[tuple[str, str]]:
    """Name of each class, and its file: empty where nothing was found."""
    for label, name in enumerate(class_names, start=1):
        lines = []
        for annotation, found in zip(annotations, detections, strict=True):
            mine = found.labels == label
            for score, box in zip(found.scores[mine].tolist(), found.boxes_px[mine].tolist(), strict=True):
                # Nine digits tell any two numbers of float32 apart.
                lines.append(" ".join([annotation.image_id, *(f"{value:.9g}" for value in (score, *box))]) + "\n")
        yield name, "".join(lines)
