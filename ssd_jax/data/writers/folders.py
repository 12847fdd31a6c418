"""Write data sets as folders of annotation files: VOC, COCO and YOLO.

Coordinates are written with as many decimals as they have, so that reading them gives the same boxes. A writer gets one
image after another and keeps none of them in memory.
"""

import json
import shutil
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable
from xml.sax.saxutils import escape

import numpy as np
import yaml

from ssd_jax.data.source import Annotation, clip_box
from ssd_jax.data.split_names import split_kind
from ssd_jax.errors import escape_text
from ssd_jax.files import convert_write_errors, write_text

_MAX_ID = 2**53  # a larger integer may lose digits in other programs


class Entry(NamedTuple):
    """An image of a data set to write."""

    annotation: Annotation
    labels: Sequence[int]
    """Label of each box in the classes of the new data set."""
    stem: str
    """Name of the image without extension, which no other image has."""


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
        """Begin a split; the name is empty for a data set without splits."""
        ...

    def write(self, entry: Entry, image_name: str) -> None:
        """Write the annotation of an image."""
        ...

    def finish_split(self) -> None:
        """End the split."""
        ...

    def finish(self, splits: Sequence[str]) -> None:
        """End the data set with all its splits."""
        ...

    def close(self) -> None:
        """Close all files after an error."""
        ...


def exact_edges(annotation: Annotation) -> list[list[Decimal]]:
    """Return the edges of each box as the shortest decimal numbers that are read as the same 32-bit numbers."""
    return [[Decimal(_format_float(edge)) for edge in box] for box in annotation.boxes_px]


def _format_float(value: np.float32) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else np.format_float_positional(value, trim="-")


def _count_note(notes: dict[str, int], phrase: str, number: int) -> None:
    if number:
        notes[phrase] = notes.get(phrase, 0) + number


class VocWriter:
    """Writer of ``Annotations/*.xml``, ``JPEGImages/`` and the lists ``ImageSets/Main/*.txt``."""

    states_sizes = True

    def __init__(self, out: Path, class_names: Sequence[str], category_ids: Sequence[int]):
        self._out, self._class_names = out, class_names
        self.notes: dict[str, int] = {}
        self._list: IO[str] | None = None
        self._written: set[str] = set()
        with convert_write_errors(out):
            (out / "Annotations").mkdir(parents=True)

    def image_folder(self, split: str) -> Path:
        return self._out / "JPEGImages"

    def start_split(self, split: str) -> None:
        if split:
            place = self._out / "ImageSets" / "Main"
            with convert_write_errors(place):
                place.mkdir(parents=True, exist_ok=True)
                self._list = (place / f"{split}.txt").open("w", encoding="utf-8", newline="\n")

    def write(self, entry: Entry, image_name: str) -> None:
        if self._list is not None:
            self._list.write(f"{entry.stem}\n")
        annotation = entry.annotation
        rows = zip(
            exact_edges(annotation), entry.labels, annotation.difficult.tolist(), annotation.crowd.tolist(), strict=True
        )
        _count_note(self.notes, "crowds are marked as difficult, since VOC has no crowds", int(annotation.crowd.sum()))
        objects = "".join(
            f"  <object>\n    <name>{_xml(self._class_names[label - 1])}</name>\n    <pose>Unspecified</pose>\n"
            f"    <truncated>0</truncated>\n    <difficult>{int(difficult or crowd)}</difficult>\n    <bndbox>\n"
            f"      <xmin>{x1:f}</xmin>\n      <ymin>{y1:f}</ymin>\n"
            f"      <xmax>{x2:f}</xmax>\n      <ymax>{y2:f}</ymax>\n"
            "    </bndbox>\n  </object>\n"
            for (x1, y1, x2, y2), label, difficult, crowd in rows
        )
        text = (
            f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{_xml(image_name)}</filename>\n  <size>\n"
            f"    <width>{annotation.width}</width>\n    <height>{annotation.height}</height>\n    <depth>3</depth>\n"
            f"  </size>\n  <segmented>0</segmented>\n{objects}</annotation>\n"
        )
        file = self._out / "Annotations" / f"{entry.stem}.xml"
        with convert_write_errors(file):
            file.write_text(text, encoding="utf-8", newline="\n")

    def finish_split(self) -> None:
        if self._list is not None:
            self._list.close()
            self._list = None

    def finish(self, splits: Sequence[str]) -> None:
        pass

    def close(self) -> None:
        self.finish_split()


def _xml(text: str) -> str:
    """Return a text for an XML file. Characters that XML forbids are escaped."""
    return escape(escape_text(text))


class CocoWriter:
    """Writer of ``annotations/instances_<split>.json`` and ``images/<split>/``.

    Difficult objects have the key ``ignore``, as in MMDetection's conversion of VOC.
    """

    states_sizes = True

    def __init__(self, out: Path, class_names: Sequence[str], category_ids: Sequence[int]):
        self._out, self._category_ids = out, category_ids
        categories = [{"id": number, "name": n} for number, n in zip(category_ids, class_names, strict=True)]
        self._categories = json.dumps(categories)
        self.notes: dict[str, int] = {}
        self._count = self._boxes = 0
        self._streams: tuple[IO[str], ...] = ()
        self._numbers: set[int] = set()
        with convert_write_errors(out):
            (out / "annotations").mkdir(parents=True)

    def image_folder(self, split: str) -> Path:
        return self._out / "images" / split if split else self._out / "images"

    def start_split(self, split: str) -> None:
        self._count = self._boxes = 0
        self._numbers = set()
        name = f"instances_{split}.json" if split else "annotations.json"
        self._file = self._out / "annotations" / name
        with convert_write_errors(self._file):
            self._images: IO[str] = self._file.with_suffix(".tmp").open("w", encoding="utf-8")
            self._objects: IO[str] = self._file.with_suffix(".boxes.tmp").open("w", encoding="utf-8")
            self._streams = self._images, self._objects
            self._images.write(f'{{"info": {{}}, "licenses": [], "categories": {self._categories},\n"images": [')

    def write(self, entry: Entry, image_name: str) -> None:
        annotation = entry.annotation
        self._count += 1
        number = annotation.number
        if number is None or number in self._numbers or abs(number) > _MAX_ID:
            number = self._count
            while number in self._numbers:
                number += 1
        self._numbers.add(number)
        image = {"id": number, "file_name": image_name, "width": annotation.width, "height": annotation.height}
        self._images.write((",\n" if self._count > 1 else "\n") + json.dumps(image))
        flags = zip(annotation.difficult.tolist(), annotation.crowd.tolist(), annotation.area_px, strict=True)
        for (x1, y1, x2, y2), label, (difficult, crowd, area) in zip(
            exact_edges(annotation), entry.labels, flags, strict=True
        ):
            self._boxes += 1
            entry_text = (
                f'"id": {self._boxes}, "image_id": {number}, "category_id": {self._category_ids[label - 1]}, '
                f'"bbox": [{x1:f}, {y1:f}, {x2 - x1:f}, {y2 - y1:f}], "area": {_format_float(area)}, '
                f'"iscrowd": {int(crowd)}'
            ) + (', "ignore": 1' if difficult else "")
            self._objects.write((",\n" if self._boxes > 1 else "\n") + f"{{{entry_text}}}")

    def finish_split(self) -> None:
        with convert_write_errors(self._file):
            self._objects.close()
            self._images.write('\n],\n"annotations": [')
            with self._file.with_suffix(".boxes.tmp").open(encoding="utf-8") as boxes:
                shutil.copyfileobj(boxes, self._images)
            self._images.write("\n]}\n")
            self._images.close()
            self._file.with_suffix(".boxes.tmp").unlink()
            self._file.with_suffix(".tmp").replace(self._file)

    def finish(self, splits: Sequence[str]) -> None:
        pass

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


class YoloWriter:
    """Writer of ``labels/<split>/*.txt``, ``images/<split>/`` and ``data.yaml``."""

    states_sizes = False

    def __init__(self, out: Path, class_names: Sequence[str], category_ids: Sequence[int]):
        self._out, self._class_names = out, class_names
        self.notes: dict[str, int] = {}
        self._labels = out / "labels"

    def image_folder(self, split: str) -> Path:
        return self._out / "images" / split if split else self._out / "images"

    def start_split(self, split: str) -> None:
        self._labels = self._out / "labels" / split if split else self._out / "labels"
        with convert_write_errors(self._labels):
            self._labels.mkdir(parents=True)

    def write(self, entry: Entry, image_name: str) -> None:
        annotation = entry.annotation
        size = annotation.width, annotation.height
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
            numbers = (x1 + x2) / 2 / size[0], (y1 + y2) / 2 / size[1], (x2 - x1) / size[0], (y2 - y1) / size[1]
            lines.append(f"{label - 1} " + " ".join(f"{number:.10g}" for number in numbers) + "\n")
        file = self._labels / f"{entry.stem}.txt"
        with convert_write_errors(file):
            file.write_text("".join(lines), encoding="utf-8", newline="\n")

    def finish_split(self) -> None:
        pass

    def finish(self, splits: Sequence[str]) -> None:
        kinds = [split_kind(split) or split for split in splits]
        keys = kinds if len(set(kinds)) == len(kinds) else list(splits)
        places = {key: f"images/{split}" for key, split in zip(keys, splits, strict=True) if split}
        content: dict[str, Any] = {"path": ".", **places, "names": dict(enumerate(self._class_names))}
        write_text(self._out / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))

    def close(self) -> None:
        pass
