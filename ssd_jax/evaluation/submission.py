"""Result files in the formats that the servers of COCO and PASCAL VOC accept.

COCO: one JSON list, https://cocodataset.org/#format-results, with the image and category ids of the data set. Boxes
are left, top, width, height in pixels, starting at 0. The file is named as the server requires,
``detections_<split>_<algorithm>_results.json``.

VOC: one text file per class, ``comp4_det_<split>_<class>.txt``, with lines "image confidence left top right bottom"
(development kit of 2012, sections 4.2 and 4.3; comp4 means that any training data is allowed). Boxes are in the
coordinates of the annotation files, which the network was trained on, and nothing is added to them. In the kit's own
files, the first pixel is 1, and the last pixel lies inside the box.

Numbers are written with all their digits, so that metrics computed from these files equal those of ``evaluate``.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError
from ssd_jax.files import append_to_file_name, convert_write_errors, write_text
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import xyxy_to_xywh


@dataclass(frozen=True)
class SubmissionWriter:
    """Writer of the result files for one split. Call `make_submission_writer` to create it."""

    annotations: Sequence[Annotation]
    class_names: Sequence[str]
    category_ids: Sequence[int] | None
    """COCO's id of each class, to write COCO's format. None for VOC's format."""

    def write(self, folder: Path, split: str, algorithm: str, detections: Sequence[ImageDetections]) -> list[Path]:
        """Write the detections of the split as result files.

        Args:
            folder: Folder for the files. It is created if it does not exist; files of the same names are replaced.
            split: Name of the split, used in the file names without folders: VOC2012/test becomes test.
            algorithm: Name of the method, used in the name of COCO's file.
            detections: Detections of each image of the split, in order.

        Returns:
            The files that were written.

        Raises:
            UserError: If the folder or a file cannot be written.
        """
        split = re.sub(r"[^+]*/", "", split)
        if self.category_ids is None:
            by_class = _iterate_voc_texts(self.annotations, self.class_names, detections)
            suffix, texts = ".txt", {f"comp4_det_{split}_{name}": text for name, text in by_class}
        else:
            text = _format_coco_text(self.annotations, self.category_ids, detections)
            suffix, texts = ".json", {f"detections_{split}_{algorithm}_results": text}
        with convert_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files = {
            folder / append_to_file_name(_replace_special_characters(name), suffix): text
            for name, text in texts.items()
        }
        for file, text in files.items():
            # An image id that is not UTF-8 is written as the bytes of the file name, which is what the server compares.
            write_text(file, text, errors="surrogateescape")
        return list(files)


def make_submission_writer(source: Source, annotations: Sequence[Annotation]) -> SubmissionWriter:
    """Return the writer for a split, after checking that the result format can name its images and classes.

    The format is COCO's if the data set has COCO's category ids and each image has a different id, and VOC's otherwise.

    Args:
        source: The split.
        annotations: Annotations of the split, in order.

    Raises:
        UserError: If the format is VOC's, and an image id contains a space or two classes would share a file.
    """
    if source.category_ids is not None and _has_unique_ids(annotations):
        return SubmissionWriter(annotations, source.class_names, source.category_ids)
    with_space = next((a.image_id for a in annotations if len(a.image_id.split()) != 1), None)
    if with_space is not None:
        raise UserError(
            f"image id '{with_space}' contains a space, which the VOC result format does not allow. Rename the image "
            "and its annotation, or drop --results"
        )
    class_of_file: dict[str, str] = {}
    for name in source.class_names:
        other = class_of_file.setdefault(_replace_special_characters(name), name)
        if other != name:
            raise UserError(
                f"the VOC result files of the classes '{other}' and '{name}' would have the same name. Rename one of "
                "the classes, or drop --results"
            )
    return SubmissionWriter(annotations, source.class_names, None)


def _has_unique_ids(annotations: Sequence[Annotation]) -> bool:
    """Return whether every image has a numeric id (``Annotation.number``) that no other image has.

    In a split that is joined from several COCO files, several images may have the same id.
    """
    numbers = {annotation.number for annotation in annotations}
    return None not in numbers and len(numbers) == len(annotations)


def _replace_special_characters(name: str) -> str:
    """Return a name in which every character except letters, digits and ``_.+-`` is replaced by ``_``."""
    return re.sub(r"[^\w.+-]", "_", name)


def _format_coco_text(
    annotations: Sequence[Annotation], category_ids: Sequence[int], detections: Sequence[ImageDetections]
) -> str:
    """Return the content of COCO's result file: a JSON list with one line per detection."""
    entries = _iterate_coco_entries(annotations, category_ids, detections)
    return "[\n" + ",\n".join(msgspec.json.encode(entry).decode() for entry in entries) + "\n]\n"


def _iterate_coco_entries(
    annotations: Sequence[Annotation], category_ids: Sequence[int], detections: Sequence[ImageDetections]
) -> Iterator[dict[str, Any]]:
    """Yield the entries of COCO's result file, without classes that the data set lacks (negative ids)."""
    for annotation, image_detections in zip(annotations, detections, strict=True):
        boxes = xyxy_to_xywh(image_detections.boxes_px).tolist()
        scores, labels = image_detections.scores.tolist(), image_detections.labels.tolist()
        for box, score, label in zip(boxes, scores, labels, strict=True):
            category_id = category_ids[label - 1]
            if category_id >= 0:
                yield {"image_id": annotation.number, "category_id": category_id, "bbox": box, "score": score}


def _iterate_voc_texts(
    annotations: Sequence[Annotation], class_names: Sequence[str], detections: Sequence[ImageDetections]
) -> Iterator[tuple[str, str]]:
    """Yield the name of each class and the content of its result file, which is empty if nothing was detected."""
    for label, name in enumerate(class_names, start=1):
        lines = []
        for annotation, (boxes, scores, labels) in zip(annotations, detections, strict=True):
            chosen = labels == label
            for score, box in zip(scores[chosen].tolist(), boxes[chosen].tolist(), strict=True):
                # Nine significant digits identify a float32.
                lines.append(" ".join([annotation.image_id, *(f"{value:.9g}" for value in (score, *box))]) + "\n")
        yield name, "".join(lines)
