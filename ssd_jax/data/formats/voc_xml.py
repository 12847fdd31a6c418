"""Parse annotation files in the format of PASCAL VOC.

Many programs write this format, each with its own deviations: a namespace, objects inside of an <objects> element,
``Unspecified`` in place of a flag, a polygon in place of a box, or an encoding that is not UTF-8.
"""

import codecs
import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from ssd_jax.data.image import image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import RawObject
from ssd_jax.errors import UserError, convert_errors
from ssd_jax.files import convert_read_errors

ADVICE_NO_OBJECTS = "for an image without objects, write <annotation></annotation>"

_UNKNOWN_CHARACTER = "\ufffd"
_BOX_TAGS = ("bndbox", "box", "polygon", "xmin", "x1", "points")  # elements that contain the coordinates of an object


class VocAnnotation(NamedTuple):
    """Content of an annotation file in VOC's format."""

    filename: str
    """File name of the image; empty if the file does not state it."""
    size: tuple[int, int] | None
    """Width and height of the image in pixels; None if missing or invalid."""
    objects: tuple[RawObject, ...]
    """Valid objects in the order of the file."""


def parse_voc_xml(file: Path, problems: Problems | None = None) -> VocAnnotation:
    """Return the content of a VOC annotation file. Boxes are as in the file, not clipped to the image.

    Args:
        file: XML file.
        problems: Object that collects malformed objects. By default, the first malformed object raises an error.

    Raises:
        UserError: If the file cannot be read or is not well-formed, or if an object is malformed and
            ``problems`` raises errors. The message names the file and the line or object.
    """
    problems = problems or Problems()
    root = read_xml_root(file)
    if root.tag != "annotation":
        raise UserError(
            f"{file}: the root element is <{root.tag}>, not <annotation> as in VOC's "
            "format. Remove the file, or export the annotations as Pascal VOC."
        )
    width, height = (_parse_size(root.findtext(f"size/{side}")) for side in ("width", "height"))
    objects = []
    for number, node in enumerate(root.iter("object"), start=1):
        with problems.collect_errors(Kind.MALFORMED, file):
            objects.append(_parse_object(file, number, node, problems))
    if next(root.iter("object"), None) is None and any(node.tag in _BOX_TAGS for node in root.iter()):
        text = (
            "contains boxes, but no <object>. Write each box as <object><name>...</name><bndbox>...</bndbox></object>"
        )
        problems.add(Kind.NOTHING_READ, file, text)
    size = (width, height) if min(width, height) > 0 else None
    filename = (root.findtext("filename") or "").strip()
    return VocAnnotation("" if _UNKNOWN_CHARACTER in filename else filename, size, tuple(objects))


def read_xml_root(file: Path) -> ElementTree.Element:
    """Return the root element of an XML file, without the namespaces of its elements.

    A byte that is not UTF-8 in a file that declares no other encoding becomes `_UNKNOWN_CHARACTER`, since it may be in
    an element that is not used, such as <path>.

    Raises:
        UserError: If the file cannot be read, or is not well-formed.
    """
    with convert_read_errors(file):
        data = file.read_bytes()
    try:
        try:
            root = ElementTree.fromstring(data)
        except (ValueError, LookupError):
            # Python's XML parser does not know the multi-byte encodings of Asia, but Python's text decoder does.
            with convert_errors(f"{file}: can't be read as XML", "Save it as UTF-8.", catch=(ValueError, LookupError)):
                root = ElementTree.fromstring(_decode_as_declared(data))
        except ElementTree.ParseError:
            text = data.decode(errors="replace")
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _UNKNOWN_CHARACTER not in text:
                raise
            root = ElementTree.fromstring(re.sub(r"^\ufeff?\s*<\?xml[^>]*\?>", "", text))
    except ElementTree.ParseError as error:
        text = f"not well-formed XML ({error}). Correct that line" if data else "empty. Copy it again"
        raise UserError(f"{file}: {text}; {ADVICE_NO_OBJECTS}.") from error
    for node in root.iter():
        if isinstance(node.tag, str):
            node.tag = node.tag.rpartition("}")[2]
    return root


def _decode_as_declared(data: bytes) -> str:
    """Return the text of an XML file in the encoding that it declares, without the declaration."""
    declaration = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""", data)
    if declaration is None:
        raise ValueError("unknown encoding")
    return data[declaration.end() :].decode(declaration[1].decode())


def _parse_size(text: str | None) -> int:
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):
        return 0  # an invalid size counts as missing, so the size of the image is used


def _parse_object(file: Path, number: int, node: ElementTree.Element, problems: Problems) -> RawObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{file}: object {number} has no <name>. Add the name of its class.")
    if _UNKNOWN_CHARACTER in name:
        raise UserError(
            f"{file}: object {number} has a <name> that is not in UTF-8, '{name}', and the file declares no other "
            'encoding. Save it as UTF-8, or declare its encoding in the first line: <?xml version="1.0" '
            'encoding="gb18030"?>.'
        )
    if node.find("bndbox") is None and node.find("polygon") is not None:
        box = _polygon_box(file, number, node)
        problems.add(Kind.OUTLINES, file, f"object {number} (polygon)")
    else:
        left, top, right, bottom = (
            _parse_number(file, number, node, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        box = (left, top, right, bottom)
    second = next((tag for tag in ("name", "bndbox") if len(node.findall(tag)) > 1), None)
    if second is not None:
        problems.add(Kind.SECOND_VALUE, file, f"object {number} (<{second}>)")
    is_difficult = _parse_difficult(file, number, node, problems)
    return RawObject(sys.intern(f"object {number}"), sys.intern(name), box, is_difficult)  # equal texts share memory


def _parse_difficult(file: Path, number: int, node: ElementTree.Element, problems: Problems) -> bool:
    text = (node.findtext("difficult") or "").strip() or "0"
    if text.lower() in ("true", "yes", "false", "no"):
        return text.lower() in ("true", "yes")
    try:
        return float(text) != 0
    except ValueError:
        problems.add(Kind.FIELD_IGNORED, file, f"object {number} has <difficult> '{text}', which counts as 0")
        return False


def _polygon_box(file: Path, number: int, node: ElementTree.Element) -> tuple[float, float, float, float]:
    """Return the box around the <polygon> of an object, whose points are <pt><x/><y/></pt> or <x1/><y1/>, ..."""
    values: dict[str, list[float]] = {"x": [], "y": []}
    for point in node.iterfind("polygon//*"):
        axis = re.fullmatch(r"([xy])\d*", str(point.tag))
        if axis is not None:
            values[axis[1]].append(_to_number(file, number, str(point.tag), point.text or ""))
    if len(values["x"]) < 2 or len(values["x"]) != len(values["y"]):
        raise UserError(f"{file}: object {number} has a <polygon> without two points. Add a <bndbox>.")
    return min(values["x"]), min(values["y"]), max(values["x"]), max(values["y"])


def _parse_number(file: Path, number: int, node: ElementTree.Element, path: str) -> float:
    text, tag = node.findtext(path), path.split("/")[-1]
    if text is None:
        raise UserError(f"{file}: object {number} has no <{tag}>. Add it, or remove the object.")
    return _to_number(file, number, tag, text)


def _to_number(file: Path, number: int, tag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{file}: object {number} has <{tag}> '{text.strip()}', which is not a number. Correct it.")
    return value


def header_or_stated_size(image: Path, content: VocAnnotation) -> tuple[int, int]:
    """Return the (width, height) in pixels from an image's header or, if it cannot be read, from the annotation file.

    Many tools write no <size> into the annotation file, or a wrong one. The <size> is therefore returned only if the
    image cannot be read. The loader reports such an image later, when it tries to read it.

    Raises:
        UserError: If the image cannot be read, and the annotation file does not state a size.
    """
    try:
        return image_size(image, content.size)
    except UserError:
        if content.size is None:
            raise
        return content.size
