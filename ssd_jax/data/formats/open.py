"""From the config's data part to a source: finds out what kind of folder it names."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ssd_jax.config import Data
from ssd_jax.data.formats.coco import coco_splits, is_coco, open_coco, why_not_coco
from ssd_jax.data.formats.ilsvrc import ilsvrc_splits, is_ilsvrc, open_ilsvrc
from ssd_jax.data.formats.shapes import SPLITS, ShapesSource
from ssd_jax.data.formats.voc import is_voc, open_voc, voc_splits
from ssd_jax.data.formats.yolo import is_yolo, open_yolo, yolo_splits
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import Source, join_names, split_aliases
from ssd_jax.data.splits import JoinedSource, Term, parse_split, slice_positions
from ssd_jax.errors import UserError


class _Format(NamedTuple):
    """How folders of a format are read."""

    recognise: Callable[[Path], bool]
    splits: Callable[[Path], tuple[str, ...]]
    open: Callable[[Data, str, Sequence[str], Problems | None], Source]


# In the order in which a folder is looked at.
_FOLDERS = {
    "coco": _Format(is_coco, coco_splits, open_coco),
    "voc": _Format(is_voc, voc_splits, open_voc),
    "yolo": _Format(is_yolo, yolo_splits, open_yolo),
    "ilsvrc": _Format(is_ilsvrc, ilsvrc_splits, open_ilsvrc),
}


def open_source(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> Source:
    """A split of the data set that data names; annotations are read now, images when asked for.

    split: a name, or several joined and cut as in splits.py.
    class_names: the classes in the order of their labels, as a checkpoint has them. Empty: those of
        the data set; of joined ones those of the first, then what the others add.
    problems: collects what is wrong with single files and boxes, instead of stopping at it; the same
        thing twice, perhaps, of joined sets with different classes.

    Raises UserError for a folder that is none, a format that isn't found, a split that isn't there or
    is empty, and, unless they are collected, for a file that is malformed or missing, and a class
    that is not in class_names.
    """
    terms = parse_split(split)
    sources = [_open_term(data, term, class_names, problems) for term in terms]
    names = tuple(dict.fromkeys(name for source in sources for name in source.class_names))
    for k, (term, source) in enumerate(zip(terms, sources, strict=True)):
        if source.class_names != names:  # only where none were given: others add to its own
            sources[k] = _open_term(data, term, names, problems)
    taken = [slice_positions(term, len(source)) for term, source in zip(terms, sources, strict=True)]
    if not any(map(len, taken)):
        raise UserError(f"{data.root}: the split '{split}' holds no images.")
    if len(terms) == 1 and len(taken[0]) == len(sources[0]):
        return sources[0]
    return JoinedSource(list(zip(terms, sources, taken, strict=True)))


def _open_term(data: Data, term: Term, class_names: Sequence[str], problems: Problems | None) -> Source:
    data = _below(data, term.folder)
    found = find_format(data)
    if found == "shapes":
        return _with_classes(ShapesSource(data.shapes, term.name), class_names)
    if found == "tfds":
        from ssd_jax.data.formats.tfds import open_tfds  # not above: it takes longer to load than all of the rest

        return open_tfds(data, term.name, class_names, problems)
    return _FOLDERS[found].open(data, term.name, class_names, problems)


def _below(data: Data, folder: str) -> Data:
    return dataclasses.replace(data, root=f"{data.root}/{folder}") if folder else data


def split_names(data: Data) -> tuple[str, ...]:
    """The splits that `open_source` can open."""
    found = find_format(data)
    if found == "shapes":
        return SPLITS
    if found == "tfds":
        from ssd_jax.data.formats.tfds import tfds_splits

        return tfds_splits(data)
    return _FOLDERS[found].splits(Path(data.root))


def missing_split(data: Data, split: str) -> str | None:
    """A sentence about the first part of a split that isn't there; None where all are."""
    for term in parse_split(split):
        below = _below(data, term.folder)
        splits = split_names(below)
        if not set(split_aliases(term.name)) & set(splits):
            return f"{below.root} has no split '{term.name}' (it has: {join_names(splits)})."
    return None


def is_generated(data: Data) -> bool:
    """Whether there is no folder: generated pictures."""
    return data.format == "shapes" or (data.format == "auto" and data.root == "shapes")


def is_tfds(data: Data) -> bool:
    """Whether data.root names a tfds set, such as ``tfds:voc/2007`` or ``tfds:my_set/config:1.0.0``."""
    return data.format == "tfds" or data.root.startswith("tfds:")


def find_format(data: Data) -> str:
    """shapes, tfds, or a key of `_FOLDERS`: data.format, or for auto what data.root looks like."""
    if is_generated(data):
        return "shapes"
    if is_tfds(data):
        return "tfds"
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
    found = _recognised(root)
    if found is None:
        raise UserError(
            f"data.root: '{root}' is neither a VOC folder (.xml files in Annotations/, a folder for each split, or "
            "beside the images) nor a COCO one (.json files with the key 'images' in annotations/, a folder for each "
            "split, or the folder itself) nor YOLO's (a .yaml file with the key 'names', or .txt labels in labels/ or "
            f"beside the images).{_likely(root)}"
        )
    return found


def _recognised(root: Path) -> str | None:
    return next((name for name, form in _FOLDERS.items() if form.recognise(root)), None)


def _likely(root: Path) -> str:
    """What the folder may be instead, as a sentence; empty where nothing is known."""
    faulty = why_not_coco(root)
    faulty = faulty and f" If it is meant to be COCO's: {faulty}"
    if root.is_file():
        return faulty or " It is a file: if it is an archive, unpack it and name the folder."
    for folder in sorted(f for f in root.iterdir() if f.is_dir()):
        if _recognised(folder):
            return f" Is it '{folder}'?"
    return faulty


def _with_classes(source: ShapesSource, class_names: Sequence[str]) -> ShapesSource:
    if class_names and tuple(class_names) != source.class_names:
        raise UserError(
            f"shapes: its classes are {', '.join(source.class_names)}, not {', '.join(class_names)}. "
            "Name the data that the model was trained on."
        )
    return source
