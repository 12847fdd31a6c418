"""Read label files in the format of KITTI's object detection, with one .txt file per image.

Format: the development kit of KITTI, readme.txt. A line has 15 values: class, truncation, occlusion, angle, the box as
left, top, right and bottom edge in pixels, and seven values in 3D, which are ignored; a 16th value is a score.
Regions of the class DontCare, where objects are not labelled, are left out with a warning. If there are images of
several cameras, those in ``image_2`` belong to ``label_2``.

Tried on: three label files of KITTI itself (000000 of open-mmlab/OpenPCDet, 000007 and 000277 of
hiqdevlord/deep-perception) with placeholders of the images, the label files of lgsvl/second-ros, a file of
Wu-didi/visual-pointcloud, and the test files of Datumaro (openvinotoolkit/datumaro).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ssd_jax.data.folder import Folder, parent
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat
from ssd_jax.data.formats.signs import find_files
from ssd_jax.data.formats.table import parse_floats, read_tolerant_text
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

_VALUES = 15


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of a label file."""
    objects = ObjectList(file, problems)
    for number, line in enumerate(read_tolerant_text(file, problems).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"line {number}"
        if fields[0].lower() == "dontcare":
            objects.leave_out(where, "DontCare")
            continue
        with problems.collect_errors(Kind.MALFORMED, file):
            if len(fields) not in (_VALUES, _VALUES + 1):
                raise UserError(f"{file}: {where} has {len(fields)} values instead of {_VALUES}. Correct it.")
            left, top, right, bottom = parse_floats(fields[4:8], file, where)
            objects.add(where, fields[0], (left, top, right, bottom))
    yield Record("", objects.finish())


def find_label_files(folder: Folder, reader: str) -> list[str]:
    """Return the files that a module reads, and the empty .txt files in the same folders, which have no objects."""
    files = find_files(folder, reader)
    known, places = set(files), {parent(file) for file in files}
    others = (file for file in folder.with_extension(".txt") if parent(file) in places and file not in known)
    empty = [file for file in others if os.path.getsize(folder.full_path(file)) == 0]
    return sorted([*files, *empty])


FORMAT = RecordFormat(
    "kitti",
    "KITTI's .txt labels with 15 values in a line, and images with the same names",
    read,
    is_for_one_image=True,
    find=lambda folder: find_label_files(folder, "kitti"),
)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
