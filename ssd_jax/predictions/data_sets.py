"""Detections as data sets in COCO's, YOLO's and VOC's format, to correct in a labelling tool and to train on.

Each data set is a folder of its own with the annotations, and links to the images where the file system has links, or
else copies. `ssd_jax.data` reads these folders.
"""

import contextlib
import os
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import msgspec
import yaml
from PIL import Image

from ssd_jax.data.image import EXTENSIONS
from ssd_jax.errors import escape_text
from ssd_jax.files import append_to_file_name, convert_write_errors, write_bytes, write_text
from ssd_jax.portability import link_or_copy
from ssd_jax.predictions.formats import COCO_FILE, COCO_FOLDER, VOC_FOLDER, YOLO_FOLDER
from ssd_jax.predictions.prediction import OUT_ADVICE, Prediction, PredictionWriter, close_after_errors, save_image


class DataSetWriter(PredictionWriter):
    """Base class of the writers of data sets, which provides the images.

    Args:
        name: Name of the folder of the data set.
        image_folder: Name of the folder of its images.
    """

    def __init__(self, out: Path, class_names: tuple[str, ...], name: str, image_folder: str) -> None:
        super().__init__(out / name, class_names)
        self._images = self.out / image_folder
        self._used: set[str] = set()
        with convert_write_errors(self.out, OUT_ADVICE):
            self._images.mkdir(parents=True, exist_ok=True)

    def _provide_image(self, prediction: Prediction) -> Path:
        """Put the image of a prediction into the data set, and return its path relative to the folder of images.

        The paths of two images differ in more than their endings, so that each can have its own label file.
        """
        relative = self._choose_name(prediction)
        file = self._images / relative
        if prediction.source is None or relative.suffix.lower() != prediction.source.suffix.lower():
            # The boxes are in pixels of the full size, and the pixels may be those of a reduced one.
            save_image(file, Image.fromarray(prediction.pixels).resize(prediction.detections.size), quality=95)
            return relative
        with convert_write_errors(file, OUT_ADVICE):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            link_or_copy(prediction.source, file, "symlink")
        return relative

    def _choose_name(self, prediction: Prediction) -> Path:
        """Return a name with the ending of the image file, or .jpg if the image has to be written."""
        target, source = prediction.target, prediction.source
        if prediction.frame is not None:  # frames differ in their numbers, and a camera has no last one
            return target.with_suffix(".jpg")
        ending = source.suffix if source is not None and source.suffix.lower() in EXTENSIONS else ".jpg"
        stem = target.stem  # a for a.jpg, and a.png for a.png
        if stem.lower().endswith(ending.lower()):
            stem = stem[: -len(ending)]
        number, first = 2, stem
        while target.with_name(stem).as_posix().casefold() in self._used:
            stem = append_to_file_name(first, f"_{number}")
            number += 1
        self._used.add(target.with_name(stem).as_posix().casefold())
        return target.with_name(append_to_file_name(stem, ending))


class CocoWriter(DataSetWriter):
    """Writer of ``coco/annotations.json``, with categories, images, and the scores of the annotations.

    The list of annotations is written to a second temporary file, because it is behind that of the images.
    """

    def __init__(self, out: Path, class_names: tuple[str, ...]) -> None:
        super().__init__(out, class_names, COCO_FOLDER, "images")
        self._file = self.out / COCO_FILE
        self._temporary = [self.out / f"{COCO_FILE}.{part}.tmp" for part in ("images", "boxes")]
        with convert_write_errors(self._file, OUT_ADVICE):
            self._image_stream, self._box_stream = (file.open("wb") for file in self._temporary)
        categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
        self._image_count = self._box_count = 0
        self._put(self._image_stream, b'{"categories": ' + _encode(categories) + b',\n"images": [')

    def write(self, prediction: Prediction) -> None:
        self._image_count += 1
        width, height = prediction.detections.size
        name = self._provide_image(prediction).as_posix()
        record = {"id": self._image_count, "file_name": name, "width": width, "height": height}
        self._put(self._image_stream, (b",\n" if self._image_count > 1 else b"\n") + _encode(record))
        for row in prediction.detections.to_coco(self._image_count):
            self._box_count += 1
            area = row["bbox"][2] * row["bbox"][3]
            record = {"id": self._box_count, **row, "area": area, "iscrowd": 0}
            self._put(self._box_stream, (b",\n" if self._box_count > 1 else b"\n") + _encode(record))

    def finish(self) -> None:
        self._put(self._image_stream, b'\n],\n"annotations": [')
        with convert_write_errors(self._file, OUT_ADVICE):
            self._box_stream.close()
            with self._temporary[1].open("rb") as boxes:
                shutil.copyfileobj(boxes, self._image_stream)
            self._image_stream.write(b"\n]}\n")
            self._image_stream.close()
            os.replace(self._temporary[0], self._file)

    def close(self) -> None:
        for stream, file in zip((self._image_stream, self._box_stream), self._temporary, strict=True):
            close_after_errors(stream)
            file.unlink(missing_ok=True)

    def _put(self, stream: Any, content: bytes) -> None:
        with convert_write_errors(self._file, OUT_ADVICE):
            stream.write(content)


class YoloWriter(DataSetWriter):
    """Writer of a label file per image in ``yolo/labels``, with ``data.yaml`` and ``classes.txt``.

    ``classes.txt`` is left out if a class name cannot be a line of it.
    """

    def __init__(self, out: Path, class_names: tuple[str, ...]) -> None:
        super().__init__(out, class_names, YOLO_FOLDER, "images")
        settings = {"train": "images", "names": dict(enumerate(class_names))}
        write_text(self.out / "data.yaml", yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
        if all(name == name.strip() and name.isprintable() and not name.startswith("#") for name in class_names):
            write_text(self.out / "classes.txt", "".join(f"{name}\n" for name in class_names))

    def write(self, prediction: Prediction) -> None:
        lines = []
        width, height = prediction.detections.size
        for (x1, y1, x2, y2), label in zip(
            (d.box for d in prediction.detections), prediction.detections.labels.tolist(), strict=True
        ):
            box = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            lines.append(" ".join([str(label - 1), *(f"{value:.9g}" for value in box)]) + "\n")
        file = self.out / "labels" / _replace_ending(self._provide_image(prediction), ".txt")
        _write_in_folder(file, "".join(lines).encode())


class VocWriter(DataSetWriter):
    """Writer of an XML file per image in ``voc/Annotations``, with the images in ``voc/JPEGImages``.

    Coordinates have two decimals.
    """

    def __init__(self, out: Path, class_names: tuple[str, ...]) -> None:
        super().__init__(out, class_names, VOC_FOLDER, "JPEGImages")

    def write(self, prediction: Prediction) -> None:
        name = self._provide_image(prediction)
        root = ElementTree.Element("annotation")
        _add(root, "folder", (Path("JPEGImages") / name.parent).as_posix())
        _add(root, "filename", name.name)
        size = _add(root, "size")
        for side, length in zip(("width", "height", "depth"), (*prediction.detections.size, 3), strict=True):
            _add(size, side, str(length))
        _add(root, "segmented", "0")
        for detection in prediction.detections:
            node = _add(root, "object")
            _add(node, "name", detection.name)
            for flag, value in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
                _add(node, flag, value)
            _add(node, "confidence", f"{detection.score:.4f}")
            box = _add(node, "bndbox")
            for corner, number in zip(("xmin", "ymin", "xmax", "ymax"), detection.box, strict=True):
                _add(box, corner, f"{number:.2f}")
        ElementTree.indent(root)
        content = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        _write_in_folder(self.out / "Annotations" / _replace_ending(name, ".xml"), content + b"\n")


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    """Add an element to another one. Characters that XML forbids are escaped."""
    node = ElementTree.SubElement(parent, tag)
    node.text = None if text is None else escape_text(text)
    return node


def _encode(value: Any) -> bytes:
    """Return a value as JSON. A byte of a file name that is not UTF-8 is escaped as Python's json module does it."""
    with contextlib.suppress(UnicodeEncodeError):
        return msgspec.json.encode(value)
    import json  # slower, and needed for few names

    return json.dumps(value).encode()


def _replace_ending(image: Path, ending: str) -> Path:
    """Return the path of an image with another ending in place of the last one."""
    return image.with_name(append_to_file_name(image.stem, ending))


def _write_in_folder(file: Path, content: bytes) -> None:
    with convert_write_errors(file, OUT_ADVICE):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, content)
