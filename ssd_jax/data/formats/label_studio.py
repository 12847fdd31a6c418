"""Read the exports of Label Studio as JSON and JSON-MIN, with one file for many images.

Format: https://labelstud.io/guide/export. Boxes are percentages of the image size; a rotated box, an ellipse or a
polygon becomes the box around it. Key points and brush masks are left out. Of several annotations of one task, the
latest that was not cancelled is used. Label Studio puts eight characters before the names of uploaded images; images
are found with and without them.

Tried on: an export of 2026 as JSON with 121 images (brunocouto/Desafio-5-senai-), and the JSON-MIN file that Label
Studio's own converter (label-studio-sdk 2.1.2) writes from it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from ssd_jax.data.folder import spelling_key
from ssd_jax.data.formats.documents import read_json
from ssd_jax.data.formats.outlines import Box, box_around_ellipse, box_around_points, box_around_rotated_box
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat, convert_entry, iterate_entries, parse_size
from ssd_jax.data.image import EXTENSIONS
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

_PREFIX = re.compile(r"[0-9a-f]{8}[-_](?=.)")
_SIDES = ("original_width", "original_height")
_NO_BOXES = ("keypointlabels", "brushlabels", "videorectangle", "taxonomy", "textarea")


class _Value(msgspec.Struct):
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    radiusX: float | None = None  # noqa: N815
    radiusY: float | None = None  # noqa: N815
    rotation: float = 0
    points: list[list[float]] = []


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of each annotated task of a file."""
    content = read_json(file, Any)
    for position, task in iterate_entries([content] if isinstance(content, dict) else content, file, "the document"):
        with problems.collect_errors(Kind.MALFORMED, file):
            data = task.get("data")
            name = _image_name(data if isinstance(data, dict) else task)
            if not name:
                raise UserError(f"{file}: task {task.get('id', position)} names no image. Export the file again.")
            results = _find_results(task, name, file, problems)
            if results is None:
                group = "tasks are not annotated and were left out"
                problems.add(Kind.UNANNOTATED, file, f"({name})", group)
                continue
            objects = ObjectList(file, problems)
            for number, result in enumerate(_join_regions(results)):
                _add_result(objects, result, f"{name}: region {number}", file, problems)
            sizes = (parse_size(entry.get("original_width"), entry.get("original_height")) for entry in results)
            size = next(filter(None, sizes), None)
            plain = _PREFIX.sub("", name.rpartition("/")[2], count=1)
            yield Record(name, objects.finish(), size, other_names=(plain,), is_relative=True)


def _image_name(data: Mapping[str, Any]) -> str:
    """Return the path or name of the image of a task, from the URL by which Label Studio serves it."""
    texts = [value for value in data.values() if isinstance(value, str)]
    paths = [unquote(text.partition("?d=")[2] or text).partition("?")[0] for text in texts]
    return next((path for path in paths if spelling_key(path).endswith(EXTENSIONS)), "")


def _find_results(task: Mapping[str, Any], name: str, file: Path, problems: Problems) -> list[dict[str, Any]] | None:
    """Return the regions of a task, or None if the task is not annotated."""
    if "annotations" not in task and "completions" not in task:  # JSON-MIN, which lists annotated tasks only
        lists = (value for key, value in task.items() if isinstance(value, list) and key != "predictions")
        return [entry for entries in lists for entry in entries if isinstance(entry, dict)]
    annotations = [a for a in task.get("annotations") or task.get("completions") or [] if isinstance(a, dict)]
    annotations = [a for a in annotations if not (a.get("was_cancelled") or a.get("skipped"))]
    if not annotations:
        return None
    if len(annotations) > 1:
        group = "tasks have several annotations, of which the latest is used"
        problems.add(Kind.SECOND_VALUE, file, f"{name} ({len(annotations)} annotations)", group)
    latest = max(annotations, key=lambda a: (bool(a.get("ground_truth")), str(a.get("created_at", ""))))
    results = latest.get("result") or []
    return [entry for entry in results if isinstance(entry, dict)] if isinstance(results, list) else []


def _join_regions(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry for each region. The box and the class of a region may be in two entries with the same id."""
    regions: dict[object, dict[str, Any]] = {}
    for position, entry in enumerate(results):
        value = entry.get("value", entry)
        key = str(entry["id"]) if "id" in entry and "value" in entry else position
        if isinstance(value, dict):
            sides: dict[str, Any] = {
                side: entry[side] for side in ("original_width", "original_height") if side in entry
            }
            own = regions.setdefault(key, {})
            own.update(value)
            own.update(sides)
            own.setdefault("type", str(entry.get("type", "")))
    return list(regions.values())


def _add_result(objects: ObjectList, region: Mapping[str, Any], where: str, file: Path, problems: Problems) -> None:
    """Add the object of a region, with its box as fractions of the image size."""
    labels = next((v for k, v in region.items() if k.endswith("labels") and isinstance(v, list) and v), None)
    kind = next((k for k in region if k in _NO_BOXES), "")
    has_shape = any(key in region for key in ("x", "points"))
    if kind or not has_shape:
        objects.leave_out(where, kind or region.get("type") or "no box")
        return
    with problems.collect_errors(Kind.MALFORMED, file):
        value = convert_entry(dict(region), _Value, file, where)
        if labels and len(labels) > 1:
            problems.add(Kind.SECOND_VALUE, file, f"{where} ({', '.join(map(str, labels))})")
        size = parse_size(region.get("original_width"), region.get("original_height")) or (100, 100)
        box = _shape_box(value, size)
        outline = "polygon" if value.points else "ellipse" if value.radiusX is not None else ""
        outline = outline or ("rotated box" if value.rotation % 360 else "")
        fractions = box and (box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1])
        objects.add(where, labels[0] if labels else None, fractions, outline=outline)


def _shape_box(value: _Value, size: tuple[int, int]) -> Box | None:
    """Return the box around a shape in pixels of an image of (width, height), or None if a number is missing."""
    to_x, to_y = size[0] / 100, size[1] / 100
    if value.points:
        return box_around_points([[point[0] * to_x, point[1] * to_y] for point in value.points if len(point) == 2])
    if value.x is None or value.y is None:
        return None
    x, y = value.x * to_x, value.y * to_y
    if value.radiusX is not None and value.radiusY is not None:
        return box_around_ellipse(x, y, value.radiusX * to_x, value.radiusY * to_y, value.rotation)
    if value.width is None or value.height is None:
        return None
    box = x, y, x + value.width * to_x, y + value.height * to_y
    return box_around_rotated_box(box, value.rotation, (x, y))


def _count(content: bytes) -> int:
    return max(content.count(b'"annotations"'), content.count(b'"annotator"'))


FORMAT = RecordFormat("label_studio", "Label Studio's .json exports (JSON or JSON-MIN)", read, count=_count)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
