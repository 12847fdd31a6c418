"""Read projects of Supervisely, with one .json file per image in folders ``ann`` beside folders ``img``.

Format: https://docs.supervisely.com/data-organization/00_ann_format_navi. Polygons, lines and bitmaps become the box
around them; points are left out. A tag of an image that is the name of a split, such as ``train``, is its split.

Tried on: 6 images with bitmaps of 2020 (supervisely-ecosystem/lemons-annotated).
"""

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ssd_jax.data.folder import Folder
from ssd_jax.data.formats.documents import read_json
from ssd_jax.data.formats.outlines import Box, box_around_points
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat, convert_entry, parse_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.split_names import is_plain_split_name
from ssd_jax.errors import UserError

_PNG_HEADER = 24  # bytes up to the height in the header of a PNG file


class _Points(msgspec.Struct):
    exterior: list[list[float]] = []


class _Bitmap(msgspec.Struct):
    origin: list[float]
    data: str


class _Object(msgspec.Struct):
    classTitle: str | int | None = None  # noqa: N815
    geometryType: str = "rectangle"  # noqa: N815
    points: _Points | None = None
    bitmap: _Bitmap | None = None


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of an annotation file."""
    content = read_json(file, Any)
    entries = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{file}: not in Supervisely's format, since 'objects' is no list. Export the project again.")
    objects = ObjectList(file, problems)
    for number, entry in enumerate(entries):
        where = f"objects[{number}]"
        with problems.collect_errors(Kind.MALFORMED, file):
            shape = convert_entry(entry, _Object, file, where)
            if shape.geometryType in ("point", "graph"):
                objects.leave_out(where, shape.geometryType)
                continue
            outline = "" if shape.geometryType == "rectangle" else shape.geometryType
            objects.add(where, shape.classTitle, _shape_box(shape, file, where), outline=outline)
    size = content.get("size") if isinstance(content.get("size"), dict) else {}
    yield Record("", objects.finish(), parse_size(size.get("width"), size.get("height")), _find_split(content))


def _shape_box(shape: _Object, file: Path, where: str) -> Box | None:
    if shape.bitmap is None:
        return box_around_points(shape.points.exterior) if shape.points else None
    try:
        packed = base64.b64decode(shape.bitmap.data)
        header = zlib.decompressobj().decompress(packed, _PNG_HEADER)
        width, height = struct.unpack(">II", header[16:_PNG_HEADER])
        left, top = shape.bitmap.origin
    except (binascii.Error, zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{file}: {where} has a malformed bitmap ({error}). Export the project again.") from None
    return left, top, left + width, top + height


def _find_split(content: Mapping[str, Any]) -> str:
    tags = content.get("tags")
    names = [tag.get("name") for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    return next((name for name in names if isinstance(name, str) and is_plain_split_name(name)), "")


def _class_names(folder: Folder) -> list[str]:
    """Return the class names in the file ``meta.json`` of a project; empty if there is none."""
    for file in folder.with_extension("meta.json"):
        try:
            classes = read_json(folder.full_path(file), Any)["classes"]
            return [entry["title"] for entry in classes if isinstance(entry["title"], str)]
        except (UserError, KeyError, TypeError):
            continue
    return []


FORMAT = RecordFormat(
    "supervisely",
    "Supervisely's .json files in ann/, and images in img/",
    read,
    is_for_one_image=True,
    class_names=_class_names,
)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
