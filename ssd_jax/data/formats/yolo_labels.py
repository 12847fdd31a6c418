"""Parse the label files of YOLO's text format.

A line contains the number of a class, followed by one of these, normalised to the upright image:

- centre x, centre y, width and height of a box;
- such a box and keypoints, each with two or three numbers, which are ignored;
- x and y of at least three points of a polygon, which is converted to its bounding box.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ssd_jax.data.formats.yolo_classes import Classes
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import RawObject, read_text
from ssd_jax.errors import UserError
from ssd_jax.files import convert_to_utf8

_TOLERANCE = 0.01  # coordinates may be outside [0, 1] by this much, as in Ultralytics' software
_ROUNDING = 1e-4  # maximum rounding error of normalised coordinates, which are written with at least four decimals
_MAX_FIRST_LINE = 1000  # bytes
_MAX_SIDES = 50  # sides of a polygon that are examined


class _Label(NamedTuple):
    """Content of a line of a label file."""

    class_number: int
    box: tuple[float, float, float, float]
    """Centre x, centre y, width and height, normalised to the image."""


def looks_like_label_file(file: Path) -> bool:
    """Return whether the first line of a file is a label, as in label files but not in classes.txt or README files."""
    try:
        with file.open("rb") as stream:
            fields = convert_to_utf8(stream.read(_MAX_FIRST_LINE)).split(b"\n")[0].split()
    except OSError:
        return False
    return len(fields) >= 5 and all(_is_number(field) for field in fields)


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def have_keypoints(files: Iterable[Path]) -> bool:
    """Return whether the lines of label files look like boxes with keypoints instead of polygons.

    They do if all lines have the same number of values, the first four values of each line are a box inside the image,
    and one of the following holds: all other points are inside of their boxes; the number of values is odd, and each
    point has a visibility; or the lines would be polygons that cross themselves.
    """
    rows: list[list[float]] = []
    for file in files:
        try:
            lines = convert_to_utf8(file.read_bytes()).splitlines()
            rows += [[float(field) for field in line.split()[1:]] for line in lines if line.strip()]
        except (OSError, ValueError):
            return False
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or min(lengths) < 6 or not all(map(_starts_with_box, rows)):
        return False
    if any(all(_points_in_box(row, step) for row in rows) for step in (2, 3)):
        return True
    if len(rows[0]) % 2 and all(map(_has_visibilities, rows)):
        return True
    return any(len(row) % 2 == 0 and _crosses_itself(row) for row in rows)


def _starts_with_box(values: list[float]) -> bool:
    x, y, width, height = values[:4]
    edges = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
    return all(-_TOLERANCE <= edge <= 1 + _TOLERANCE for edge in edges)


def _has_visibilities(values: Sequence[float]) -> bool:
    """Return whether the values after a box are points, each with a visibility of 0, 1 or 2."""
    return len(values) > 4 and (len(values) - 4) % 3 == 0 and set(values[6::3]) <= {0.0, 1.0, 2.0}


def _points_in_box(values: list[float], step: int) -> bool:
    """Return whether the keypoints after a box are in it; with ``step`` 3, each has a visibility of 0, 1 or 2."""
    x, y, width, height = values[:4]
    points = values[4:]
    if len(points) % step or (step == 3 and not _has_visibilities(values)):
        return False
    pairs = [(px, py) for px, py in zip(points[::step], points[1::step], strict=True) if (px, py) != (0, 0)]
    return all(abs(px - x) <= width / 2 + _TOLERANCE and abs(py - y) <= height / 2 + _TOLERANCE for px, py in pairs)


def _crosses_itself(values: list[float]) -> bool:
    """Return whether two sides of the polygon with these points (x, y, x, y, ...) cross each other."""
    points = list(zip(values[::2], values[1::2], strict=True))
    sides = list(zip(points, points[1:] + points[:1], strict=True))

    def turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    return any(
        turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0
        for (a, b), (c, d) in itertools.combinations(sides[:_MAX_SIDES], 2)
    )


def read_objects(file: Path, classes: Classes, size: tuple[int, int], problems: Problems) -> list[RawObject]:
    """Return the objects of a label file. A malformed line or a class without a name becomes a problem.

    Args:
        file: Label file.
        classes: Classes of the data set.
        size: Width and height of the upright image in pixels.
        problems: Object that collects the problems.
    """
    objects = []
    outlines = 0
    text = ""
    with problems.collect_errors(Kind.MALFORMED, file):
        text = read_text(file)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        with problems.collect_errors(Kind.MALFORMED, file):
            label = _parse_line(file, number, line, classes)
            outlines += not classes.has_keypoints and len(line.split()) > 5
            if label.class_number in classes.names:
                x, y, width, height = label.box
                (left, right), (top, bottom) = _edges_px(x, width, size[0]), _edges_px(y, height, size[1])
                name = classes.names[label.class_number]
                objects.append(RawObject(f"line {number}", name, (left, top, right, bottom)))
            else:
                problems.add(
                    Kind.UNKNOWN_CLASS,
                    file,
                    f"line {number} has the class {label.class_number}, which has no name in {classes.file} (it names "
                    f"{min(classes.names)} to {max(classes.names)}). Correct the number, or add the name.",
                    group=str(label.class_number),
                )
    if outlines:
        problems.add(Kind.OUTLINES, file, f"({outlines} with corners or polygons)")
    return objects


def _parse_line(file: Path, number: int, line: str, classes: Classes) -> _Label:
    """Return the content of a line of a label file.

    Raises:
        UserError: If the line is malformed; the message names the file and the line.
    """
    where = f"{file}: line {number}"
    fields = line.split()
    try:
        label, *values = map(float, fields)
    except ValueError as error:
        raise UserError(
            f"{where} contains a value that is not a number ({error}). Write the number of the class in "
            f"{classes.file}, then centre x, centre y, width and height, separated by spaces."
        ) from None
    if not all(map(math.isfinite, (label, *values))):
        raise UserError(f"{where} contains NaN or infinity: '{line.strip()}'. Write numbers, or remove the line.")
    if label < 0 or label != int(label):
        raise UserError(f"{where} starts with {fields[0]}, but a class number is an integer of at least 0. Correct it.")
    if len(values) == 5:
        raise UserError(
            f"{where} has 6 numbers, like a detection, whose last number is a confidence. A label has 5. To train on "
            "these boxes, remove the last column."
        )
    if len(values) == 4 or (classes.has_keypoints and len(values) > 4):
        x, y, width, height = values[:4]
    elif len(values) >= 6 and len(values) % 2 == 0:
        (left, right), (top, bottom) = ((min(v), max(v)) for v in (values[::2], values[1::2]))
        x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    else:
        if _has_visibilities(values):
            count = (len(values) - 4) // 3
            raise UserError(
                f"{where} has {len(fields)} numbers, like a box with {count} keypoints. Write kpt_shape: [{count}, 3] "
                "into the YAML file that names the classes; the keypoints are ignored."
            )
        raise UserError(
            f"{where} has {len(fields)} numbers. A box has 5 (class, centre x, centre y, width, height); a polygon "
            "has the class and two numbers for each of at least 3 points. Correct the line, or remove it."
        )
    outside = [v for v in (x, y, width, height) if not -_TOLERANCE <= v <= 1 + _TOLERANCE]
    if outside:
        advice = (
            "If these are pixels, divide x and width by the image's width, and y and height by its height"
            if max(outside) > 1
            else "Correct it"
        )
        raise UserError(f"{where} contains {outside[0]:g}, but normalised coordinates are from 0 to 1. {advice}.")
    return _Label(int(label), (x, y, width, height))


def _edges_px(centre: float, extent: float, pixels: int) -> tuple[float, float]:
    """Return the two edges of a box in x or in y, in pixels.

    An edge that is within the rounding error of the image border is moved to the border.

    Args:
        centre: Centre of the box in x or y, normalised.
        extent: Width or height of the box, normalised.
        pixels: Width or height of the image in pixels.
    """
    ends = centre - extent / 2, centre + extent / 2
    low, high = (min(max(end, 0.0), 1.0) if -_ROUNDING < end < 1 + _ROUNDING else end for end in ends)
    return low * pixels, high * pixels
