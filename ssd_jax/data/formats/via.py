"""Read files of the VGG Image Annotator (VIA), with one .json or .csv file for many images.

Format: https://www.robots.ox.ac.uk/~vgg/software/via. Projects of VIA 2 and exported annotations of VIA 1 and 2 are
read, as JSON and as CSV. Polygons, circles, ellipses and lines become the box around them; points are left out. The
class is the attribute of the regions that is called class, label, name, type or category; otherwise, the attribute that
most regions have. Regions without attributes are of the class ``object``.

Tried on: annotations of VIA 1 (DarleneEustache/butterfly), and of VIA 2 (Jotanator/115CellCount, 10 images, and
satoru121/titanium_dataset, 67 images); projects of VIA 2 (shiibashi/board_ocr, 20 files, and
sohailakram6492/unet-semantic-segmentation); and tables of VIA 2 (egutierrezc93/example_data, dim2r/dicom_analysis,
pandian-ra/mlble_session2_assignment and nitinranjansharma/EIP4-Week1).
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ssd_jax.data.formats.documents import read_json
from ssd_jax.data.formats.outlines import Box, box_around_ellipse, box_around_points
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat, convert_entry
from ssd_jax.data.formats.table import read_rows, read_tolerant_text
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

_CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "object", "classname", "class_name", "object_name")
_DEFAULT_CLASS = "object"


class _Shape(msgspec.Struct):
    name: str = ""
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    all_points_x: list[float] = []
    all_points_y: list[float] = []
    cx: float | None = None
    cy: float | None = None
    r: float | None = None
    rx: float | None = None
    ry: float | None = None
    theta: float = 0


class _Region(NamedTuple):
    image: str
    where: str
    shape: Any
    attributes: Mapping[str, Any]


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of each image of a file."""
    entries = _read_table(file, problems) if file.suffix.lower() == ".csv" else _read_json(file, problems)
    images, regions = entries
    attribute = _find_class_attribute(file, regions, problems)
    objects = {image: ObjectList(file, problems) for image in images}
    for region in regions:
        with problems.collect_errors(Kind.MALFORMED, file):
            shape = convert_entry(region.shape, _Shape, file, region.where)
            if shape.name == "point":
                objects[region.image].leave_out(region.where, "point")
                continue
            name = _class_name(region, attribute, file, problems)
            outline = "" if shape.name == "rect" else shape.name or "unnamed shape"
            objects[region.image].add(region.where, name, _shape_box(shape), outline=outline)
    for image, own in objects.items():
        yield Record(image, own.finish())


def _read_json(file: Path, problems: Problems) -> tuple[list[str], list[_Region]]:
    """Return the names of the images of a .json file, and all regions."""
    content = read_json(file, Any)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise UserError(f"{file}: not in the format of the VGG Image Annotator. Export the annotations again.")
    images: dict[str, None] = {}
    regions: list[_Region] = []
    for key, entry in entries.items():
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            problems.add(Kind.MALFORMED, file, f"the entry '{key}' has no filename. Export the annotations again.")
            continue
        if "regions" not in entry:
            problems.add(Kind.MALFORMED, file, f"the entry '{key}' has no regions. Export the annotations again.")
            continue
        images[name] = None
        own = entry["regions"] or []
        for number, region in enumerate(own.values() if isinstance(own, dict) else own):
            where = f"{name}: regions[{number}]"
            if not isinstance(region, dict):
                problems.add(Kind.MALFORMED, file, f"{where} is not a region. Export the annotations again.")
                continue
            attributes = region.get("region_attributes")
            shape = region.get("shape_attributes")
            regions.append(_Region(name, where, shape, attributes if isinstance(attributes, dict) else {}))
    return list(images), regions


def _read_table(file: Path, problems: Problems) -> tuple[list[str], list[_Region]]:
    """Return the names of the images of a .csv file, and all regions."""
    rows = list(read_rows(read_tolerant_text(file, problems), file))
    header = [name.lstrip("#").strip() for name in rows[0][1]]
    needed = ("filename", "region_shape_attributes", "region_attributes")
    if not set(needed) <= set(header):
        raise UserError(f"{file}: one of the columns {', '.join(needed)} is missing. Export the annotations again.")
    images: dict[str, None] = {}
    regions: list[_Region] = []
    for number, row in rows[1:]:
        with problems.collect_errors(Kind.MALFORMED, file):
            where = f"line {number}"
            if len(row) < len(header):
                raise UserError(f"{file}: {where} has {len(row)} of {len(header)} columns. Correct it.")
            image, shape, attributes = (row[header.index(name)] for name in needed)
            images[image] = None
            try:
                contents = json.loads(shape or "{}"), json.loads(attributes or "{}")
            except (ValueError, RecursionError):
                raise UserError(f"{file}: {where} has attributes that are not JSON. Correct it.") from None
            if contents[0]:
                regions.append(_Region(image, where, contents[0], contents[1] if isinstance(contents[1], dict) else {}))
    return list(images), regions


def _find_class_attribute(file: Path, regions: list[_Region], problems: Problems) -> str:
    """Return the name of the attribute that contains the class; empty if the regions have no attributes."""
    counts = Counter(name for region in regions for name, value in region.attributes.items() if value not in ("", {}))
    usual = [name for name in counts if name.strip().lower() in _CLASS_ATTRIBUTES]
    usual.sort(key=lambda name: (-counts[name], _CLASS_ATTRIBUTES.index(name.strip().lower())))
    best = usual[0] if usual else max(counts, key=lambda name: counts[name], default="")
    if not best and regions:
        group = f"files have regions without attributes, which are of the class '{_DEFAULT_CLASS}'"
        problems.add(Kind.LAYOUT, file, f"its regions are of the class '{_DEFAULT_CLASS}'", group)
    elif len(counts) > 1:
        others = ", ".join(sorted(set(counts) - {best}))
        group = f"the class is read from the attribute '{best}'; not from {others}"
        problems.add(Kind.LAYOUT, file, group, group)
    return best


def _class_name(region: _Region, attribute: str, file: Path, problems: Problems) -> object:
    value = region.attributes.get(attribute) if attribute else _DEFAULT_CLASS
    if not isinstance(value, dict):
        return value
    chosen = [name for name, is_set in value.items() if is_set]  # a checkbox
    if len(chosen) > 1:
        problems.add(Kind.SECOND_VALUE, file, f"{region.where} ({', '.join(chosen)})")
    return chosen[0] if chosen else ""


def _shape_box(shape: _Shape) -> Box | None:
    """Return the box around a shape, or None if one of its numbers is missing."""
    if shape.all_points_x and len(shape.all_points_x) == len(shape.all_points_y):
        return box_around_points(list(zip(shape.all_points_x, shape.all_points_y, strict=True)))
    if shape.cx is not None and shape.cy is not None:
        radius_x = shape.r if shape.rx is None else shape.rx
        radius_y = shape.r if shape.ry is None else shape.ry
        if radius_x is None or radius_y is None:
            return None
        return box_around_ellipse(shape.cx, shape.cy, radius_x, radius_y, math.degrees(shape.theta))
    if shape.x is None or shape.y is None or shape.width is None or shape.height is None:
        return None
    return shape.x, shape.y, shape.x + shape.width, shape.y + shape.height


def _count(content: bytes) -> int:
    return content.count(b'"filename"') or len({line.partition(b",")[0] for line in content.splitlines()}) - 1


FORMAT = RecordFormat("via", ".json or .csv files of the VGG Image Annotator", read, count=_count)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
