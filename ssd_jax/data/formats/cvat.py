"""Read the XML files that CVAT exports as "CVAT for images 1.1", with one file for many images.

Format: https://docs.cvat.ai/docs/manual/advanced/xml_format. Shapes other than upright boxes become the box around
them; points and tags of whole images are left out. The attribute ``subset`` of an image is its split.

Tried on: 195 images of CVAT 1.1 (PiotrZawiej/license_plate_detector), 12 images with boxes of 2023
(kbegiedza/deduplication), and the test files of Datumaro (cvat-ai/datumaro).
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from ssd_jax.data.folder import Folder
from ssd_jax.data.formats.outlines import Box, box_around_ellipse, box_around_points, box_around_rotated_box
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat, parse_size
from ssd_jax.data.formats.signs import find_files
from ssd_jax.data.formats.voc_xml import read_xml_root
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

_SHAPES = ("box", "polygon", "polyline", "ellipse", "mask", "cuboid", "skeleton")
_NO_BOXES = ("points", "tag")
_CORNERS = ("tl", "bl", "tr", "br")


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of each <image> of a file."""
    root = read_xml_root(file)
    for node in root.iter("image"):
        name = (node.get("name") or "").strip()
        if not name:
            text = f"<image id='{node.get('id')}'> has no name. Export the file again."
            problems.add(Kind.MALFORMED, file, text)
            continue
        objects = ObjectList(file, problems)
        for number, shape in enumerate(node, start=1):
            where = f"{name}: shape {number}"
            if shape.tag in _NO_BOXES:
                objects.leave_out(where, str(shape.tag))
            elif shape.tag in _SHAPES:
                _add_shape(objects, where, shape, file, problems)
        subset = node.get("subset") or ""
        split = "" if subset.lower() == "default" else subset
        yield Record(name, objects.finish(), parse_size(node.get("width"), node.get("height")), split)


def _add_shape(objects: ObjectList, where: str, shape: ElementTree.Element, file: Path, problems: Problems) -> None:
    kind = str(shape.tag)
    texts = {str(node.get("name")).lower(): (node.text or "").strip().lower() for node in shape.iter("attribute")}
    flags = {name for name, text in texts.items() if text in ("true", "1")}
    with problems.collect_errors(Kind.MALFORMED, file):
        try:
            box = _shape_box(shape)
            is_rotated = kind == "box" and float(shape.get("rotation") or 0) % 360 != 0
        except (TypeError, ValueError) as error:
            raise UserError(f"{file}: {where} has a missing or malformed number ({error}). Correct it.") from None
        objects.add(
            where,
            shape.get("label"),
            box,
            outline="rotated box" if is_rotated else "" if kind == "box" else kind,
            difficult="difficult" in flags,
            crowd=not flags.isdisjoint(("is_crowd", "iscrowd")),
        )


def _shape_box(shape: ElementTree.Element) -> Box | None:
    """Return the box around a shape. Raises TypeError or ValueError if a number is missing or malformed."""

    def number(name: str) -> float:
        return float(shape.get(name) or "")

    if shape.tag == "box":
        box = number("xtl"), number("ytl"), number("xbr"), number("ybr")
        return box_around_rotated_box(box, float(shape.get("rotation") or 0))
    if shape.tag == "ellipse":
        return box_around_ellipse(
            number("cx"), number("cy"), number("rx"), number("ry"), float(shape.get("rotation") or 0)
        )
    if shape.tag == "mask":
        left, top = number("left"), number("top")
        return left, top, left + number("width"), top + number("height")
    if shape.tag == "cuboid":
        return box_around_points([(number(f"x{c}{k}"), number(f"y{c}{k}")) for c in _CORNERS for k in (1, 2)])
    texts = [node.get("points") or "" for node in ([shape] if shape.tag != "skeleton" else shape.iter("points"))]
    pairs = [pair.split(",") for text in texts for pair in text.split(";") if pair]
    return box_around_points([[float(value) for value in pair] for pair in pairs])


def _class_names(folder: Folder) -> list[str]:
    """Return the class names that the files of a folder state, in their order."""
    names: dict[str, None] = {}
    for file in find_files(folder, "cvat"):
        try:
            root = read_xml_root(folder.full_path(file))
        except UserError:
            continue
        labels = root.findall("meta//labels/label")
        inner = {label.findtext("name") for label in labels if label.findtext("parent")}  # points of a skeleton
        own = ((label.findtext("name") or "").strip() for label in labels)
        names |= dict.fromkeys(name for name in own if name and name not in inner)
    return list(names)


def _count(content: bytes) -> int:
    return len(re.findall(rb"<image\b", content))


FORMAT = RecordFormat("cvat", ".xml files of CVAT for images", read, count=_count, class_names=_class_names)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
