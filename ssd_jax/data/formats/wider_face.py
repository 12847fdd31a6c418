"""Read the annotation files of WIDER FACE, with one .txt file for many images of faces.

Format: http://shuoyang1213.me/WIDERFACE. The path of an image is followed by the number of its faces, and by a line for
each face: left, top, width, height and six attributes. An image without faces has the number 0 and a line of zeros.
Faces that are marked as invalid count as difficult.

Tried on: the part of WIDER FACE in SihanWang-WHU/Face_Detection (1,041 images), and the test files of Datumaro
(openvinotoolkit/datumaro, widerface_dataset).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat
from ssd_jax.data.formats.table import parse_floats, read_tolerant_text
from ssd_jax.data.image import EXTENSIONS
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

CLASS_NAME = "face"
_INVALID = 7  # position of the attribute


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of each image of a file."""
    objects, name = ObjectList(file, problems), ""
    expected, first = 0, 0
    for number, line in enumerate([*read_tolerant_text(file, problems).splitlines(), ""], start=1):
        text, where = line.strip(), f"line {number}"
        if text.lower().endswith(EXTENSIONS):
            if name:
                yield _finish(name, objects, expected, first, file, problems)
            objects, name, expected, first = ObjectList(file, problems), text, -1, number
        elif text and expected < 0 and name:
            expected = int(text) if text.isdecimal() and len(text) < 9 else 0
        elif text:
            with problems.collect_errors(Kind.MALFORMED, file):
                if not name:
                    raise UserError(f"{file}: {where} precedes the name of an image. Correct it.")
                left, top, width, height, *others = parse_floats(text.split(), file, where, minimum=4)
                if expected == 0 and not any((left, top, width, height)):
                    continue
                difficult = len(others) > _INVALID - 4 and others[_INVALID - 4] == 1
                objects.add(where, CLASS_NAME, (left, top, left + width, top + height), difficult=difficult)
    if name:
        yield _finish(name, objects, expected, first, file, problems)


def _finish(name: str, objects: ObjectList, expected: int, first: int, file: Path, problems: Problems) -> Record:
    """Return the record of an image, after comparing the stated number of faces with the number of lines."""
    found = objects.finish()
    if expected >= 0 and len(found) != expected:
        text = f"line {first} ({name}) is followed by {len(found)} faces, but states {expected}. Correct it."
        problems.add(Kind.MALFORMED, file, text)
    return Record(name, found)


def _count(content: bytes) -> int:
    return len(re.findall(rb"(?im)\.(?:jpe?g|png)\s*$", content))


FORMAT = RecordFormat("wider_face", "WIDER FACE's .txt files", read, count=_count)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
