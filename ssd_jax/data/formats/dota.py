"""Read label files of rotated boxes in the format of DOTA, with one .txt file per image.

Format: https://captain-whu.github.io/DOTA/dataset.html. A line has the x and y of four corners in pixels, the class,
and perhaps a flag for difficult objects. The box around the corners is used. Roboflow calls this format "YOLOv5
oriented bounding boxes".

Tried on: the test files of Datumaro (openvinotoolkit/datumaro, roboflow_dataset/yolo_obb).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ssd_jax.data.formats.kitti import find_label_files
from ssd_jax.data.formats.outlines import box_around_points
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat
from ssd_jax.data.formats.table import parse_floats, read_tolerant_text
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

_HEADER = re.compile(r"(imagesource|gsd|acquisition dates)\s*:", re.IGNORECASE)


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of a label file."""
    objects = ObjectList(file, problems)
    for number, line in enumerate(read_tolerant_text(file, problems).splitlines(), start=1):
        fields = line.split()
        if not fields or _HEADER.match(line.strip()):
            continue
        where = f"line {number}"
        with problems.collect_errors(Kind.MALFORMED, file):
            if len(fields) < 9:
                raise UserError(f"{file}: {where} has {len(fields)} values instead of 9 or 10. Correct it.")
            values = parse_floats(fields[:8], file, where)
            box = box_around_points(list(zip(values[::2], values[1::2], strict=True)))
            is_upright = len(set(values[::2])) == len(set(values[1::2])) == 2
            difficult = len(fields) > 9 and fields[9] not in ("0", "0.0")
            objects.add(where, fields[8], box, outline="" if is_upright else "rotated box", difficult=difficult)
    yield Record("", objects.finish())


FORMAT = RecordFormat(
    "dota",
    "DOTA's .txt labels with four corners and a class in a line, and images with the same names",
    read,
    is_for_one_image=True,
    find=lambda folder: find_label_files(folder, "dota"),
)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
