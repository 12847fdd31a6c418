"""Read the JSON files of labelme and of programs with the same format, with one file per image.

Format: https://github.com/wkentaro/labelme. The files are beside their images, or in any other folder. A rectangle has
two corners; other shapes become the box around them. Points are left out.

Tried on: 18 files of labelme 3.16 (Tony607/labelme2coco), 25 files of labelme 5.11 without their images
(Emadamx/ACV-HW4-pen-detection), and the examples of labelme 4.0 and 5.7 (wkentaro/labelme).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ssd_jax.data.formats.documents import read_json
from ssd_jax.data.formats.outlines import Box, box_around_points
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat, convert_entry, parse_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError


class _Shape(msgspec.Struct):
    label: str | int | float | None = None
    points: list[list[float]] = []
    shape_type: str | None = "polygon"
    difficult: bool | None = False
    """Flag of X-AnyLabeling."""


class _File(msgspec.Struct):
    shapes: list[Any] = []
    imagePath: str | None = ""  # noqa: N815
    imageWidth: Any = None  # noqa: N815
    imageHeight: Any = None  # noqa: N815


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of a labelme file."""
    try:
        content = read_json(file, _File)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: not in labelme's format: {error}. Export the file again.") from None
    objects = ObjectList(file, problems)
    for number, entry in enumerate(content.shapes):
        where = f"shapes[{number}]"
        with problems.collect_errors(Kind.MALFORMED, file):
            shape = convert_entry(entry, _Shape, file, where)
            kind = shape.shape_type or "polygon"
            if kind == "point" or (len(shape.points) == 1 and kind != "circle"):
                objects.leave_out(where, "point")
                continue
            outline = "" if kind == "rectangle" and len(shape.points) == 2 else kind
            objects.add(where, shape.label, _shape_box(shape), outline=outline, difficult=bool(shape.difficult))
    yield Record(content.imagePath or "", objects.finish(), parse_size(content.imageWidth, content.imageHeight))


def _shape_box(shape: _Shape) -> Box | None:
    """Return the box around a shape. A circle is stated by its centre and a point on it."""
    if shape.shape_type == "circle" and len(shape.points) == 2 and all(len(point) == 2 for point in shape.points):
        (x, y), edge = shape.points
        radius = math.dist((x, y), edge)
        return x - radius, y - radius, x + radius, y + radius
    return box_around_points(shape.points)


FORMAT = RecordFormat("labelme", "labelme's .json files, and images with the same names", read, is_for_one_image=True)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
