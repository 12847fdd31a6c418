"""Read tables of boxes (CSV), with one row for each object.

Columns are recognised by the names in the first row, in any order: ``filename,width,height,class,xmin,ymin,xmax,ymax``
as in TensorFlow's object detection tutorials, or other usual names. Left, top, width and height of a box may be given
as ``x,y,w,h``. Without names, the order of the columns is recognised by their number: 8 columns as above, or the 6
columns ``path,x1,y1,x2,y2,class`` of keras-retinanet and torchvision's tutorials. A row with empty box columns stands
for an image without objects.

Tried on: the tables of datitran/raccoon_dataset and of EdjeElectronics' tutorial (xml_to_csv.py), the export of
Roboflow of c-palma0/facemask-data, and the test files of Datumaro (openvinotoolkit/datumaro, kaggle_dataset;
cvat-ai/datumaro, vott_csv_dataset).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ssd_jax.data.folder import Folder
from ssd_jax.data.formats.records import ObjectList, Record, RecordFormat, parse_size
from ssd_jax.data.formats.signs import find_files
from ssd_jax.data.formats.table import parse_floats, read_rows, read_tolerant_text
from ssd_jax.data.image import EXTENSIONS
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.split_names import is_plain_split_name
from ssd_jax.errors import UserError

_IMAGE = ("filename", "file", "image", "imagename", "imagefile", "imagepath", "filepath", "path", "img", "imgpath",
          "fname", "imageid", "imgname")  # fmt: skip
_OTHER_NAMES = {
    "class": ("class", "label", "name", "classname", "labelname", "category", "categoryname", "object", "type"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "split": ("split", "set", "subset"),
}
_BOX_NAMES = {
    "left": ("xmin", "x1", "left", "xtl", "bboxxmin", "bboxx1"),
    "top": ("ymin", "y1", "top", "ytl", "bboxymin", "bboxy1"),
    "right": ("xmax", "x2", "right", "xbr", "bboxxmax", "bboxx2"),
    "bottom": ("ymax", "y2", "bottom", "ybr", "bboxymax", "bboxy2"),
}
_SIZED_BOX_NAMES = {
    "left": (*_BOX_NAMES["left"], "x", "bboxx"),
    "top": (*_BOX_NAMES["top"], "y", "bboxy"),
    "box_width": ("w", "bboxwidth", "boxwidth", "bboxw", "width"),
    "box_height": ("h", "bboxheight", "boxheight", "bboxh", "height"),
}
_DEFAULT_CLASS = "object"
_HEADERLESS = {
    8: ("image", "width", "height", "class", "left", "top", "right", "bottom"),
    6: ("image", "left", "top", "right", "bottom", "class"),
}


class Layout(NamedTuple):
    """The meaning of the columns of a table."""

    columns: Mapping[str, int]
    """Position of each column by its meaning: image, class, width, height, split, left, top, right, bottom; or
    box_width and box_height in place of right and bottom."""
    has_header: bool


def find_layout(row: Sequence[str]) -> Layout | None:
    """Return the meaning of the columns of a table from its first row; None if the table has no boxes of images."""
    names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in row]
    image = _find(names, _IMAGE)
    if image is not None and not row[image].lower().endswith(EXTENSIONS):
        for box_names in (_BOX_NAMES, _SIZED_BOX_NAMES):
            box = _find_all(names, box_names)
            if len(box) == len(box_names):
                others = _find_all(names, _OTHER_NAMES)
                taken = {*box.values(), image}
                free = {key: position for key, position in others.items() if position not in taken}
                return Layout({"image": image, **free, **box}, True)
    order = _HEADERLESS.get(len(row), ())
    if order and row[0].lower().endswith(EXTENSIONS):
        return Layout({name: position for position, name in enumerate(order)}, False)
    return None


def _find(names: Sequence[str], options: Sequence[str]) -> int | None:
    return next((names.index(option) for option in options if option in names), None)


def _find_all(names: Sequence[str], meanings: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the positions of the columns whose names are among the options of a meaning, by the meaning."""
    found = {meaning: _find(names, options) for meaning, options in meanings.items()}
    return {meaning: position for meaning, position in found.items() if position is not None}


def read(file: Path, problems: Problems) -> Iterator[Record]:
    """Yield the record of each image of a table, with the objects of all its rows."""
    rows = list(read_rows(read_tolerant_text(file, problems), file))
    layout = find_layout(rows[0][1]) if rows else None
    if layout is None:
        raise UserError(f"{file}: it has no columns for the image and its box. Name the columns in the first row.")
    columns = layout.columns
    images: dict[str, tuple[ObjectList, Mapping[str, str]]] = {}
    for number, row in rows[layout.has_header :]:
        where = f"line {number}"
        if len(row) <= max(columns.values()) and any(row[columns["image"] + 1 :]):
            text = f"{where} has {len(row)} columns, but {max(columns.values()) + 1} are needed. Correct it."
            problems.add(Kind.MALFORMED, file, text)
            continue
        cells = {name: row[position] if position < len(row) else "" for name, position in columns.items()}
        if not cells["image"]:
            problems.add(Kind.MALFORMED, file, f"{where} names no image. Add its file name, or remove the line.")
            continue
        objects, _ = images.setdefault(cells["image"], (ObjectList(file, problems), cells))
        _add_row(objects, cells, file, where, problems)
    if "class" not in columns:
        text = f"it has no column for the class, so all objects are of the class '{_DEFAULT_CLASS}'"
        problems.add(Kind.LAYOUT, file, text, group=f"tables have no column for the class; it is '{_DEFAULT_CLASS}'")
    for image, (objects, first) in images.items():
        size = parse_size(first.get("width"), first.get("height"))
        split = first.get("split", "")
        yield Record(image, objects.finish(), size, split if is_plain_split_name(split) else "")


def _add_row(objects: ObjectList, cells: Mapping[str, str], file: Path, where: str, problems: Problems) -> None:
    sides = ("right", "bottom") if "right" in cells else ("box_width", "box_height")
    edges = [cells[side] for side in ("left", "top", *sides)]
    if not any(edges):
        return  # an image without objects
    with problems.collect_errors(Kind.MALFORMED, file):
        left, top, right, bottom = parse_floats(edges, file, where)
        if "right" not in cells:
            right, bottom = left + right, top + bottom
        objects.add(where, cells.get("class", _DEFAULT_CLASS), (left, top, right, bottom))


def _find_tables(folder: Folder) -> list[str]:
    """Return the tables of a folder that have boxes; a classes.csv or a table of results has none."""
    tables = []
    for file in find_files(folder, "csv"):
        try:
            text = read_tolerant_text(folder.full_path(file), Problems(raise_errors=False))
            _, first = next(read_rows(text, folder.full_path(file)), (0, []))
        except UserError:
            continue
        if first and find_layout(first) is not None:
            tables.append(file)
    return tables


def _count(content: bytes) -> int:
    return len({re.split(rb"[,;\t]", line, maxsplit=1)[0] for line in content.splitlines()})


FORMAT = RecordFormat("csv", "a .csv table with a row for each box", read, find=_find_tables, count=_count)
LAYOUT, count_annotated = FORMAT.layout, FORMAT.count_annotated
split_names, open_split = FORMAT.split_names, FORMAT.open_split
