"""Write data sets as folders of annotation files: VOC, COCO and YOLO.

Coordinates are written with as many decimals as they have, so that reading them gives the same boxes. A writer gets one
image after another and keeps none of them in memory.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Protocol, runtime_checkable
from xml.sax.saxutils import escape

import numpy as np
import yaml

from ssd_jax.data.source import Annotation, clip_box
from ssd_jax.data.split_names import split_kind
from ssd_jax.errors import escape_text
from ssd_jax.files import close_after_errors, convert_write_errors, write_text

_MAX_ID = 2**53  # a larger integer may lose digits in other programs


class Entry(NamedTuple):
    """An image of a data set to write."""

    annotation: Annotation
    labels: Sequence[int]
    """Label of each box in the classes of the new data set."""
    image: str
    """Path of the image in the folder of images, with ``/`` between its parts. No two differ only by their endings."""
    scores: Sequence[float] | None = None
    """Score of each box, if the boxes are detections. YOLO's format has none."""

    @property
    def stem(self) -> str:
        """Path of the image without its ending."""
        return os.path.splitext(self.image)[0]

    @property
    def scores_or_none(self) -> Sequence[float | None]:
        """Score of each box; None for boxes that are not detections."""
        return [None] * len(self.labels) if self.scores is None else self.scores


@runtime_checkable
class FolderWriter(Protocol):
    """Interface of the writers."""

    states_sizes: bool
    """Whether the annotations state the sizes of the images."""
    notes: dict[str, int]
    """Number of objects of which something could not be written, by a phrase that says what."""

    def image_folder(self, split: str) -> Path:
        """Return the folder for the images of a split."""
        ...

    def start_split(self, split: str) -> None:
        """Begin a split; the name is empty for a data set without splits.

        Raises:
            UserError: If a file cannot be written, as in the other methods.
        """
        ...

    def write(self, entry: Entry) -> None:
        """Write the annotation of an image."""
        ...

    def finish_split(self) -> None:
        """End the split."""
        ...

    def close(self) -> None:
        """Close all files after an error, and remove temporary ones."""
        ...


def exact_edges(annotation: Annotation) -> list[list[Decimal]]:
    """Return the edges of each box as the shortest decimal numbers that are read as the same 32-bit numbers."""
    return [[Decimal(_format_float(edge)) for edge in box] for box in annotation.boxes_px]


def _format_float(value: np.float32) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else np.format_float_positional(value, trim="-")


def _to_number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _count_note(notes: dict[str, int], phrase: str, number: int) -> None:
    if number:
        notes[phrase] = notes.get(phrase, 0) + number


def _write_file(file: Path, text: str) -> None:
    """Write a text file, in a folder that may not exist yet."""
    with convert_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


class VocWriter:
    """Writer of ``Annotations/*.xml``, ``JPEGImages/`` and the lists ``ImageSets/Main/*.txt``."""

    states_sizes = True

    def __init__(self, out: Path, class_names: Sequence[str]):
        self._out, self._class_names = out, class_names
        self.notes: dict[str, int] = {}
        self._list: IO[str] | None = None

    def image_folder(self, split: str) -> Path:
        return self._out / "JPEGImages"

    def start_split(self, split: str) -> None:
        if split:
            place = self._out / "ImageSets" / "Main"
            with convert_write_errors(place):
                place.mkdir(parents=True, exist_ok=True)
                self._list = (place / f"{split}.txt").open("w", encoding="utf-8", newline="\n")

    def write(self, entry: Entry) -> None:
        if self._list is not None:
            with convert_write_errors(Path(self._list.name)):
                self._list.write(f"{entry.stem}\n")
        _count_note(
            self.notes,
            "crowds are marked as difficult, since VOC has no crowds",
            int(entry.annotation.crowd.sum()),
        )
        _write_file(self._out / "Annotations" / f"{entry.stem}.xml", _format_xml(entry, self._class_names))

    def finish_split(self) -> None:
        if self._list is not None:
            with convert_write_errors(Path(self._list.name)):
                self._list.close()
            self._list = None

    def close(self) -> None:
        if self._list is not None:
            close_after_errors(self._list)


def _format_xml(entry: Entry, class_names: Sequence[str]) -> str:
    """Return the content of VOC's annotation file of an image. Difficult objects include crowds."""
    annotation, image = entry.annotation, PurePosixPath(entry.image)
    difficult = (annotation.difficult | annotation.crowd).tolist()
    rows = zip(exact_edges(annotation), entry.labels, difficult, entry.scores_or_none, strict=True)
    objects = "".join(
        f"  <object>\n    <name>{_xml(class_names[label - 1])}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>0</truncated>\n    <difficult>{int(is_difficult)}</difficult>\n"
        + ("" if score is None else f"    <confidence>{score:.4f}</confidence>\n")
        + f"    <bndbox>\n      <xmin>{x1:f}</xmin>\n      <ymin>{y1:f}</ymin>\n"
        f"      <xmax>{x2:f}</xmax>\n      <ymax>{y2:f}</ymax>\n    </bndbox>\n  </object>\n"
        for (x1, y1, x2, y2), label, is_difficult, score in rows
    )
    return (
        f"<annotation>\n  <folder>{_xml(('JPEGImages' / image.parent).as_posix())}</folder>\n"
        f"  <filename>{_xml(image.name)}</filename>\n  <size>\n"
        f"    <width>{annotation.width}</width>\n    <height>{annotation.height}</height>\n    <depth>3</depth>\n"
        f"  </size>\n  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _xml(text: str) -> str:
    """Return a text for an XML file. Characters that XML forbids are escaped."""
    return escape(escape_text(text))


class CocoWriter:
    """Writer of ``annotations/instances_<split>.json`` and ``images/<split>/``.

    Difficult objects have the key ``ignore``, as in MMDetection's conversion of VOC. The list of annotations is behind
    that of the images, so it is first written to a second temporary file.

    Args:
        out: Folder of the data set.
        class_names: Class names in the order of their labels.
        category_ids: COCO's id of each class; its label by default.
        annotation_folder: Path of the folder of the .json files, relative to ``out``.
    """

    states_sizes = True

    def __init__(
        self,
        out: Path,
        class_names: Sequence[str],
        category_ids: Sequence[int] | None = None,
        annotation_folder: str = "annotations",
    ):
        self._out, self._annotations = out, out / annotation_folder
        self._category_ids = category_ids or range(1, len(class_names) + 1)
        categories = [{"id": number, "name": n} for number, n in zip(self._category_ids, class_names, strict=True)]
        self._categories = json.dumps(categories)
        self.notes: dict[str, int] = {}
        self._streams: tuple[IO[str], ...] = ()

    def image_folder(self, split: str) -> Path:
        return self._out / "images" / split

    def start_split(self, split: str) -> None:
        self._image_count = self._box_count = self._last_id = 0
        self._own_ids: set[int] = set()
        self._file = self._annotations / (f"instances_{split}.json" if split else "annotations.json")
        with convert_write_errors(self._file):
            self._annotations.mkdir(parents=True, exist_ok=True)
            self._images = self._file.with_suffix(".images.tmp").open("w", encoding="utf-8", newline="\n")
            self._streams = (self._images,)
            self._boxes = self._file.with_suffix(".boxes.tmp").open("w", encoding="utf-8", newline="\n")
            self._streams = self._images, self._boxes
            self._images.write(f'{{"info": {{}}, "licenses": [], "categories": {self._categories},\n"images": [')

    def write(self, entry: Entry) -> None:
        annotation = entry.annotation
        number = self._choose_id(annotation.number)
        image = {"id": number, "file_name": entry.image, "width": annotation.width, "height": annotation.height}
        areas = [Decimal(_format_float(area)) for area in annotation.area_px]
        flags = annotation.difficult.tolist(), annotation.crowd.tolist()
        texts = []
        for (x1, y1, x2, y2), area, label, difficult, crowd, score in zip(
            exact_edges(annotation), areas, entry.labels, *flags, entry.scores_or_none, strict=True
        ):
            self._box_count += 1
            box = {"id": self._box_count, "image_id": number, "category_id": self._category_ids[label - 1]}
            box |= {"bbox": list(map(_to_number, (x1, y1, x2 - x1, y2 - y1))), "area": _to_number(area)}
            box |= {"iscrowd": int(crowd)} | ({"ignore": 1} if difficult else {})
            texts.append(json.dumps(box if score is None else box | {"score": score}))
        with convert_write_errors(self._file):
            self._images.write((",\n" if self._image_count else "\n") + json.dumps(image))
            if texts:
                self._boxes.write((",\n" if self._box_count > len(texts) else "\n") + ",\n".join(texts))
        self._image_count += 1

    def _choose_id(self, number: int | None) -> int:
        """Return the id of an image: its own number in the original data set if it is free, or else the next free one.

        Only own numbers are stored, because the others follow each other.
        """
        if number is None or abs(number) > _MAX_ID or number in self._own_ids or 0 < number <= self._last_id:
            number = self._last_id + 1
            while number in self._own_ids:
                number += 1
            self._last_id = number
        else:
            self._own_ids.add(number)
        return number

    def finish_split(self) -> None:
        with convert_write_errors(self._file):
            self._boxes.close()
            self._images.write('\n],\n"annotations": [')
            with Path(self._boxes.name).open(encoding="utf-8") as boxes:
                shutil.copyfileobj(boxes, self._images)
            self._images.write("\n]}\n")
            self._images.close()
            os.replace(self._images.name, self._file)
            os.unlink(self._boxes.name)

    def close(self) -> None:
        for stream in self._streams:
            close_after_errors(stream)
            with contextlib.suppress(OSError):
                os.unlink(stream.name)


class YoloWriter:
    """Writer of ``labels/<split>/*.txt``, ``images/<split>/``, ``data.yaml`` and ``classes.txt``.

    ``classes.txt`` is left out if a class name cannot be a line of it. All images of a data set without splits are
    called ``train`` in ``data.yaml``, because other programs require this key.
    """

    states_sizes = False

    def __init__(self, out: Path, class_names: Sequence[str]):
        self._out, self._class_names = out, class_names
        self.notes: dict[str, int] = {}
        self._splits: list[str] = []

    def image_folder(self, split: str) -> Path:
        return self._out / "images" / split

    def start_split(self, split: str) -> None:
        self._labels = self._out / "labels" / split
        self._splits.append(split)
        kinds = [split_kind(name) or name for name in self._splits]
        keys = kinds if len(set(kinds)) == len(kinds) else self._splits
        places = {
            key or "train": "/".join(filter(None, ("images", name)))
            for key, name in zip(keys, self._splits, strict=True)
        }
        settings = {**places, "names": dict(enumerate(self._class_names))}
        with convert_write_errors(self._labels):
            self._labels.mkdir(parents=True, exist_ok=True)
        write_text(self._out / "data.yaml", yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
        if all(n == n.strip() and n.isprintable() and not n.startswith("#") for n in self._class_names):
            write_text(self._out / "classes.txt", "".join(f"{name}\n" for name in self._class_names))

    def write(self, entry: Entry) -> None:
        annotation = entry.annotation
        width, height = size = annotation.width, annotation.height
        lines = []
        _count_note(self.notes, "crowds were left out, since YOLO has no crowds", int(annotation.crowd.sum()))
        difficult = annotation.difficult & ~annotation.crowd
        _count_note(self.notes, "difficult objects lost this flag, which YOLO has not", int(difficult.sum()))
        for edges, label, crowd in zip(exact_edges(annotation), entry.labels, annotation.crowd.tolist(), strict=True):
            box = [float(edge) for edge in edges]
            inside = clip_box(box, size)
            if crowd or inside is None:
                continue
            _count_note(self.notes, "boxes were cut at the border of their image", int(list(inside) != box))
            x1, y1, x2, y2 = inside
            numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            lines.append(f"{label - 1} " + " ".join(f"{number:.10g}" for number in numbers) + "\n")
        _write_file(self._labels / f"{entry.stem}.txt", "".join(lines))

    def finish_split(self) -> None:
        pass

    def close(self) -> None:
        pass
