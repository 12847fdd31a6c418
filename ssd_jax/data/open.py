"""From the config's data part to a source: finds out what kind of folder it names."""

from collections.abc import Sequence
from pathlib import Path

from ssd_jax.config import Data
from ssd_jax.data.coco import coco_splits, is_coco, open_coco
from ssd_jax.data.shapes import SPLITS, ShapesSource
from ssd_jax.data.source import Source
from ssd_jax.data.voc import is_voc, open_voc, voc_splits
from ssd_jax.errors import UserError


def open_source(data: Data, split: str, class_names: Sequence[str] = ()) -> Source:
    """A split of the data set that data names; annotations are read now, images when asked for.

    class_names: the classes in the order of their labels, as a checkpoint has them. Empty: those of
        the data set.

    Raises UserError for a folder that is none, a format that isn't found, a split that isn't there,
    a file that is malformed or missing, and a class that is not in class_names.
    """
    match find_format(data):
        case "shapes":
            return _with_classes(ShapesSource(data.shapes, split), class_names)
        case "coco":
            return open_coco(data, split, class_names)
        case _:
            return open_voc(data, split, class_names)


def split_names(data: Data) -> tuple[str, ...]:
    """The splits that `open_source` can open."""
    match find_format(data):
        case "shapes":
            return SPLITS
        case "coco":
            return coco_splits(Path(data.root))
        case _:
            return voc_splits(Path(data.root))


def is_generated(data: Data) -> bool:
    """Whether there is no folder: generated pictures."""
    return data.format == "shapes" or (data.format == "auto" and data.root == "shapes")


def find_format(data: Data) -> str:
    """shapes, coco or voc: data.format, or for auto what data.root looks like."""
    if is_generated(data):
        return "shapes"
    if not data.root:
        raise UserError("data.root is empty: name the folder of your pictures and boxes with --data.root FOLDER.")
    root = Path(data.root)
    if not root.exists():
        raise UserError(
            f"data.root: there is no folder '{root}'. Name the folder with --data.root FOLDER, or give the word shapes "
            "for generated pictures."
        )
    if data.format != "auto":
        return data.format
    if is_coco(root):
        return "coco"
    if is_voc(root):
        return "voc"
    raise UserError(
        f"data.root: '{root}' is neither a VOC folder (.xml files in Annotations/, a folder for each split, or beside "
        "the images) nor a COCO one (.json files with the key 'images' in annotations/, a folder for each split, or "
        f"the folder itself).{_likely(root)}"
    )


def _likely(root: Path) -> str:
    """What the folder may be instead, as a sentence; empty where nothing is known."""
    if root.is_file():
        return " It is a file: if it is an archive, unpack it and name the folder."
    for folder in sorted(f for f in root.iterdir() if f.is_dir()):
        if is_coco(folder) or is_voc(folder):
            return f" Is it '{folder}'?"
    if any(root.glob("*.yaml")) or any(root.rglob("labels/**/*.txt")):
        return " These look like YOLO's labels, which are not read: export them as VOC or COCO."
    return ""


def _with_classes(source: ShapesSource, class_names: Sequence[str]) -> ShapesSource:
    if class_names and tuple(class_names) != source.class_names:
        raise UserError(
            f"shapes: its classes are {', '.join(source.class_names)}, not {', '.join(class_names)}. "
            "Name the data that the model was trained on."
        )
    return source
