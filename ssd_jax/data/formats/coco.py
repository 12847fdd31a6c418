"""Boxes in COCO's JSON: one file for all images of a split.

Format: https://cocodataset.org/#format-data, object detection. Boxes are left, top, width, height in
pixels from 0; in memory they become xyxy. A file without ``annotations``, as COCO's image_info_test-dev2017.json,
lists images to detect in.
"""

import codecs
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ssd_jax.config import Data
from ssd_jax.data.formats import minival
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import (
    CocoTruth,
    FolderSource,
    RawObject,
    Source,
    annotation_from_objects,
    hash_split,
    is_split_name,
    join_names,
    path_suffixes,
    split_aliases,
    warn_if_normalised,
)
from ssd_jax.data.splits import JoinedSource, Term
from ssd_jax.errors import UserError

_ROBOFLOW = "_annotations.coco.json"


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: float
    height: float


class _Object(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int | None = None
    area: float | None = None
    iscrowd: int | bool = 0


class _Category(msgspec.Struct):
    id: int
    name: str
    supercategory: str | None = None


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Object] | None = None


def is_coco(root: Path) -> bool:
    """Whether root is a COCO file, or a folder that holds some where `open_coco` looks for them."""
    return any(
        file.name.startswith("instances_") or file.name == _ROBOFLOW or _looks_like_coco(file)
        for file in _files(root).values()
    )


def why_not_coco(root: Path) -> str:
    """What is wrong with the first .json file of root that is none of COCO's; empty where there is none."""
    for file in _json_files(root):
        try:
            _read(file, Problems())
        except UserError as error:
            return str(error)
    return ""


def coco_splits(root: Path) -> tuple[str, ...]:
    """Names of the splits that a COCO folder, or a single file, has."""
    files = _files(root)
    made = tuple(split for split in minival.SPLITS if minival.find_parts(split, files))
    return ("train", "val") if _unnamed(files) else (*files, *made)


def open_coco(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> Source:
    """One split of a COCO folder: ``annotations/instances_<split>*.json`` (or ``image_info_<split>*.json``,
    without objects), ``<split>.json`` there or in the folder itself, or ``<split>/_annotations.coco.json``. A single
    JSON file of another name, or given as data.root, is divided into train and val by a hash of the images' names
    (`hash_split`). ``trainval35k`` and ``minival`` are found in the files of 2017 or of 2014 (`minival.py`).

    Images are looked for beside the JSON, in folders named like it or like the split, and in
    ``images/``.

    class_names: the classes, in the order of their labels. Empty: the file's categories by their id. The source's
        category_ids holds -1 for a class that the file does not have.
    problems: collects what is wrong instead of stopping at it.

    Raises UserError, naming the file, for a split that is not there and a file that is no JSON, and,
    unless they are collected, for an image or key that is not there, an id that is used twice or
    unknown, a bbox that is not four numbers, and a class that is not in class_names.
    """
    files = _files(Path(data.root))
    parts = minival.find_parts(split, files)
    if not parts:
        return _open_file(data, files, split, None, class_names, problems)
    joined: list[tuple[Term, Source, range]] = []
    for part in parts:
        own = Problems(raise_errors=problems is None or problems.raise_errors)  # each source tells of its own file
        source = _open_file(data, files, split, part, class_names, own)
        if problems is not None:
            problems.collected += own.collected
        joined.append((Term("", part.file, "", ""), source, range(len(source))))
        class_names = source.class_names
    return source if len(joined) == 1 else JoinedSource(joined)


def _open_file(
    data: Data,
    files: dict[str, Path],
    split: str,
    part: minival.Part | None,
    class_names: Sequence[str],
    problems: Problems | None,
) -> FolderSource:
    """What one file has of a split: that part of it; None: what `open_coco` finds by the split's name."""
    root, problems = Path(data.root), problems or Problems()
    name = part.file if part else _choose(root, files, split)
    file = files[name] if name else next(iter(files.values()))
    content, positions = _read(file, problems)
    images = content.images if name else _hashed_half(content.images, split, data.val_fraction)
    if part and part.minival is not None:
        images = [image for image in images if (image.id in minival.minival_ids()) == part.minival]
    if not images:
        raise UserError(f"{file}: the split '{split}' holds no images. Other splits: {join_names(coco_splits(root))}.")
    categories = _categories(file, content)
    names = tuple(class_names) or tuple(category.name for category in categories)
    labels = {name: label for label, name in enumerate(names, start=1)}
    objects = _objects_by_image(file, content, positions, problems)
    where = _ImageFolders(root, file, name or split)
    annotations = []
    for image in images:
        warn_if_normalised(objects[image.id], problems, file=file, where=f"{image.file_name}: ")
        with problems.collecting(Kind.MISSING, file):
            path, size = where.find(image.file_name), (int(image.width), int(image.height))
            annotations.append(
                annotation_from_objects(
                    image.file_name, path, size, objects[image.id], labels, problems, file=file, number=image.id
                )
            )
    by_name = {category.name: category.id for category in categories}
    category_ids = [by_name.get(name, -1) for name in names]
    notes = [*problems.notes(), *_note_on_zero(content)]
    return FolderSource(annotations, names, notes, category_ids, _truth(content), content.annotations is not None)


# ---- which file ----


def _files(root: Path) -> dict[str, Path]:
    """JSON files of annotations, by the name of what they hold: train2017, val, ..."""
    found = _json_files(root)
    if not root.is_dir():
        return {file.stem: file for file in found}
    folders = {f.name: f / _ROBOFLOW for f in sorted(root.iterdir()) if (f / _ROBOFLOW).is_file()}
    instances = dict(sorted((_after("image_info_", found) | _after("instances_", found)).items()))
    # Beside instances_* COCO keeps captions and keypoints of the same images.
    return folders or instances or {f.stem: f for f in found if _looks_like_coco(f)}


def _json_files(root: Path) -> list[Path]:
    """root itself, or those in it and in annotations/."""
    if root.is_file():
        return [root] if root.suffix == ".json" else []
    return sorted([*(root / "annotations").glob("*.json"), *root.glob("*.json")])


def _after(prefix: str, files: Iterable[Path]) -> dict[str, Path]:
    return {file.stem.removeprefix(prefix): file for file in files if file.name.startswith(prefix)}


def _looks_like_coco(file: Path) -> bool:
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return b'"images"' in content and b'"categories"' in content


def _unnamed(files: dict[str, Path]) -> bool:
    """Whether there is one file, and its name is not that of a split."""
    return len(files) == 1 and not any(map(is_split_name, files))


def _choose(root: Path, files: dict[str, Path], split: str) -> str | None:
    """The name of the split's file; None: the only file is to be divided."""
    if not files:
        raise UserError(f"{root}: there is no COCO file in it, in annotations/, or in a folder for each split.")
    if _unnamed(files) and split in ("train", "val"):
        return None
    for spelling in split_aliases(split):
        if spelling in files and not _unnamed(files):
            return spelling
        dated = [name for name in files if re.fullmatch(re.escape(spelling) + r"[-_]?\d+", name)]
        if len(dated) > 1:
            raise UserError(f"{root}: the split '{split}' could be any of {join_names(dated)}. Name one of them.")
        if dated:
            return dated[0]
    raise UserError(f"{root}: there is no split '{split}'. Its splits: {join_names(coco_splits(root))}.")


def _hashed_half(images: list[_Image], split: str, val_fraction: float) -> list[_Image]:
    held = hash_split([image.file_name for image in images], val_fraction)
    return [image for image, val in zip(images, held, strict=True) if val == (split == "val")]


# ---- what it says ----


def _read(file: Path, problems: Problems) -> tuple[_File, Sequence[int]]:
    """What the file says, and the position of each annotation in it."""
    try:
        data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        try:
            content = msgspec.json.decode(data, type=_File)
            positions: Sequence[int] = range(len(content.annotations or ()))
        except msgspec.ValidationError as error:
            with problems.collecting(Kind.MALFORMED, file):
                text = f"not in COCO's format: {error} (counted from 0). Correct that entry."
                raise UserError(f"{file}: {text}") from error
            content, positions = _whole_entries(file, msgspec.json.decode(data), problems)
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror}). Check its permissions.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a JSON file: {error}{_seen_there(data, error)}") from error
    for what, ids in (("images", content.images), ("categories", content.categories)):
        for number in [number for number, count in Counter(entry.id for entry in ids).items() if count > 1]:
            text = f"the id {number} stands for two {what}. Ids must be unique: change one."
            problems.add(Kind.MALFORMED, file, text)
    for image in content.images:
        if image.width < 1 or image.height < 1:
            text = f"image {image.id} ({image.file_name}) is stated as {image.width:g} x {image.height:g} pixels. "
            problems.add(Kind.MALFORMED, file, text + "Write its true width and height.")
    return content, positions


def _seen_there(data: bytes, error: Exception) -> str:
    """The end of a message that names a byte: the line, what stands there, and what to do."""
    named = re.search(r"\(byte (\d+)\)", str(error))
    if named is None:
        return ". Export or copy it again."
    at = int(named[1])
    text = " ".join(data[max(at - 30, 0) : at + 10].decode(errors="replace").split())
    number = data.startswith((b"NaN", b"Infinity"), at)
    advice = "JSON has no NaN or Infinity: write a number." if number else "Export or copy it again."
    line = 1 + data.count(b"\n", 0, at)
    return f", in line {line}: ... {text} ... {advice}"


def _whole_entries(file: Path, content: Any, problems: Problems) -> tuple[_File, Sequence[int]]:
    """As `_read`, of a file with malformed entries those that are not; all but the first of the others become
    problems."""
    kept: dict[str, dict[int, Any]] = {}
    told = False
    for key, kind in (("images", _Image), ("annotations", _Object), ("categories", _Category)):
        kept[key] = {}
        entries = content.get(key) if isinstance(content, dict) else None
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            try:
                kept[key][number] = msgspec.convert(entry, kind)
            except msgspec.ValidationError as error:
                if told:
                    problems.add(Kind.MALFORMED, file, f"{key}[{number}]: {error}. Correct that entry.")
                told = True
    return _File(**{key: list(entries.values()) for key, entries in kept.items()}), list(kept["annotations"])


def _categories(file: Path, content: _File) -> list[_Category]:
    """By id, without those that only name a group of others (Roboflow writes such)."""
    used = {entry.category_id for entry in content.annotations or ()}
    groups = {c.supercategory for c in content.categories if c.supercategory != c.name}
    kept = sorted((c for c in content.categories if c.id in used or c.name not in groups), key=lambda c: c.id)
    twice = [name for name, count in Counter(c.name for c in kept).items() if count > 1]
    if twice:
        raise UserError(f"{file}: two categories are called '{twice[0]}'. Rename or merge them.")
    if not kept:
        raise UserError(f"{file}: 'categories' is empty. List the classes there.")
    return kept


def _objects_by_image(
    file: Path, content: _File, positions: Iterable[int], problems: Problems
) -> dict[int, list[RawObject]]:
    objects: dict[int, list[RawObject]] = {image.id: [] for image in content.images}
    files = {image.id: image.file_name for image in content.images}
    names = {category.id: category.name for category in content.categories}
    for number, entry in zip(positions, content.annotations or (), strict=True):
        where = f"annotations[{number}]"
        if entry.image_id not in objects:
            text = f"{where} is of image {entry.image_id}, which 'images' doesn't list."
            problems.add(Kind.MALFORMED, file, text)
        elif entry.category_id not in names:
            text = f"{where} has category_id {entry.category_id}, which 'categories' doesn't list. Known: "
            problems.add(Kind.UNKNOWN_CLASS, file, text + f"{join_names(names)}.")
        else:
            left, top, width, height = entry.bbox
            objects[entry.image_id].append(
                RawObject(
                    f"{where} of {files[entry.image_id]}",
                    names[entry.category_id],
                    (left, top, left + width, top + height),
                    crowd=bool(entry.iscrowd),
                    area_px=_area(entry),
                )
            )
    return objects


def _area(entry: _Object) -> float:
    return entry.bbox[2] * entry.bbox[3] if entry.area is None else entry.area


def _truth(content: _File) -> CocoTruth:
    """Of all images of the file, whatever the split."""
    entries = content.annotations or ()
    return CocoTruth(
        np.array([entry.image_id for entry in entries], np.int64),
        np.array([entry.category_id for entry in entries], np.int64),
        np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4),
        np.array([_area(entry) for entry in entries], np.float64),
        np.array([entry.iscrowd for entry in entries], bool),
    )


def _note_on_zero(content: _File) -> list[str]:
    """pycocotools marks a detection with the id of what it found, and reads 0 as nothing."""
    if all(entry.id != 0 for entry in content.annotations or ()):
        return []
    return ["an annotation has the id 0, which pycocotools never counts as found; in the numbers here it counts as any"]


# ---- where the images are ----


class _ImageFolders:
    """Finds images by their file_name; lists each folder once rather than asking for each file."""

    def __init__(self, root: Path, file: Path, name: str):
        top = root.parent if root.is_file() else root
        plain = name.rstrip("0123456789-_")
        folders = [file.parent, top / name, top / plain, top / "images" / name, top / "images" / plain]
        folders += [top / name.replace("test-dev", "test")]  # COCO's test-dev is a part of test
        folders += [top / "images", top / "Images", top / "JPEGImages", top / "data", top]
        self._file = file
        self._folders = list(dict.fromkeys(str(folder) for folder in folders))
        self._listings: dict[str, frozenset[str]] = {}

    def find(self, file_name: str) -> str:
        for tail, folder in itertools.product(path_suffixes(file_name), self._folders):
            path = os.path.join(folder, tail)
            if os.path.basename(path) in self._listing(os.path.dirname(path)):
                return path
        searched = join_names(folder for folder in self._folders if os.path.isdir(folder))
        raise UserError(
            f"{self._file}: its image '{file_name}' is in none of {searched}. Put it there, or take it out of the file."
        )

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            self._listings[folder] = frozenset(os.listdir(folder) if os.path.isdir(folder) else ())
        return self._listings[folder]
