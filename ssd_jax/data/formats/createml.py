"""Read JSON files in the format of Apple's Create ML, with one file for many images.

Format: https://developer.apple.com/documentation/createml/building-an-object-detector-data-source. The coordinates of
a box are its centre, width and height in pixels.

Tried on: an export of Roboflow (dhshin04/EggsByTheDozen), of which only two images are public, and the test files of
Datumaro (openvinotoolkit/datumaro).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ssd_jax.data.formats.documents import read_json
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat, convert_entry, iterate_entries
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

_IMAGE_KEYS = ("image", "imagefilename", "image_filename", "filename")


class _Coordinates(msgspec.Struct):
    x: float
    y: float
    width: float
    height: float


class _Box(msgspec.Struct):
    coordinates: _Coordinates
    label: str | int | float | None = None


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of each image of a Create ML file."""
    for position, entry in iterate_entries(read_json(file, Any), file, "the document"):
        with problems.collect_errors(Kind.MALFORMED, file):
            values = {key.lower(): value for key, value in entry.items()}
            name = next((value for key in _IMAGE_KEYS if isinstance(value := values.get(key), str) and value), "")
            if not name:
                raise UserError(f"{file}: entry {position} has no key 'image' with a file name. Add it.")
            if values.keys().isdisjoint(("annotations", "annotation")):
                raise UserError(f"{file}: {name} has no key 'annotations'. Add an empty list if it has no objects.")
            objects = ObjectList(file, problems)
            boxes = values.get("annotations", values.get("annotation")) or []
            for number, annotation in enumerate(boxes if isinstance(boxes, list) else [boxes]):
                where = f"{name}: annotations[{number}]"
                with problems.collect_errors(Kind.MALFORMED, file):
                    box = convert_entry(annotation, _Box, file, where)
                    x, y, width, height = msgspec.structs.astuple(box.coordinates)
                    edges = x - width / 2, y - height / 2, x + width / 2, y + height / 2
                    objects.add(where, box.label, edges)
            yield Record(name, objects.finish())


def _count(content: bytes) -> int:
    return content.count(b'"image')


FORMAT = RecordFormat("createml", "Create ML's .json files", read, count=_count)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
