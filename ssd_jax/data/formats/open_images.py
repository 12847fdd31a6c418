"""Read the boxes of Open Images and of its subsets, with one .csv file per split.

Format: https://storage.googleapis.com/openimages/web/download_v7.html. Boxes are fractions of the image size, in the
order XMin, XMax, YMin, YMax. Classes are codes such as /m/01g317; a file such as
``oidv7-class-descriptions-boxable.csv`` in the same folder or in the one above gives their names. Groups of objects
(IsGroupOf) count as crowds. Images that are not in the folder are left out with a warning, since the files usually name
more images than were downloaded.

Tried on: 15,918 boxes of Open Images 5 with placeholders for the images (sysaster/dataset), and the test files of
Datumaro (openvinotoolkit/datumaro, Open Images 6).
"""

from collections.abc import Iterator
from pathlib import Path

from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat
from ssd_jax.data.formats.table import parse_floats, read_rows, read_tolerant_text
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

_COLUMNS = ("imageid", "labelname", "xmin", "ymin", "xmax", "ymax")
_NAME_FILES = ("*class*description*.csv", "classes.csv")


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of each image of a file."""
    names = _read_class_names(file, problems)
    rows = read_rows(read_tolerant_text(file, problems), file)
    _, header = next(rows)
    columns = {name.lower(): position for position, name in enumerate(header)}
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise UserError(f"{file}: the columns {', '.join(missing)} are missing. Download the file again.")
    objects: dict[str, ObjectList] = {}
    for number, row in rows:
        where = f"line {number}"
        with problems.collect_errors(Kind.MALFORMED, file):
            if len(row) < len(header):
                raise UserError(f"{file}: {where} has {len(row)} of {len(header)} columns. Download the file again.")
            image, code, *fields = (row[columns[name]] for name in _COLUMNS)
            left, top, right, bottom = parse_floats(fields, file, where)
            crowd = "isgroupof" in columns and row[columns["isgroupof"]] == "1"
            own = objects.setdefault(image, ObjectList(file, problems))
            own.add(where, names.get(code, code), (left, top, right, bottom), crowd=crowd)
    for image, own in objects.items():
        yield Record(image, own.finish(), is_relative=True)


def _read_class_names(file: Path, problems: Problems) -> dict[str, str]:
    """Return the class names by their codes, from the closest file that lists them; empty if there is none."""
    for place in (file.parent, file.parent.parent, file.parent.parent / "metadata"):
        for pattern in _NAME_FILES:
            for other in sorted(place.glob(pattern)):
                rows = (row for _, row in read_rows(read_tolerant_text(other, problems), other))
                return {row[0]: row[1] for row in rows if len(row) == 2 and row[0].startswith("/")}
    return {}


def _count(content: bytes) -> int:
    return len({line.partition(b",")[0] for line in content.splitlines()}) - 1


FORMAT = RecordFormat("open_images", "Open Images' .csv files of boxes", read, count=_count, may_lack_images=True)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
