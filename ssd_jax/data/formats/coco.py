"""Read data sets in COCO's JSON format, with one annotation file for all images of a split.

Format: https://cocodataset.org/#format-data, object detection. A box is given by left, top, width and height in pixels,
counted from 0, and is converted to xyxy. A file without ``annotations``, such as COCO's image_info_test-dev2017.json,
lists images whose boxes are not public.
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
from ssd_jax.data.formats.reader import HASHED_SPLITS, SplitBuilder, missing_split_error, select_by_hash
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import (
    CocoTruth,
    FolderSource,
    RawObject,
    Source,
    add_problem_if_normalised,
    is_split_name,
    join_names,
    path_suffixes,
    split_aliases,
)
from ssd_jax.data.splits import JoinedSource, Term
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors

LAYOUT = ".json files with the key 'images' in annotations/, in a folder for each split, or in the folder itself"

_ROBOFLOW_FILE = "_annotations.coco.json"


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


def matches(root: Path) -> bool:
    """Return whether a path is a COCO file, or a folder that contains COCO files."""
    return any(
        file.name.startswith("instances_") or file.name == _ROBOFLOW_FILE or _looks_like_coco_file(file)
        for file in _annotation_files(root).values()
    )


def find_error_message(root: Path) -> str:
    """Return the error message about the first .json file that is not a valid COCO file, or an empty string."""
    for file in _json_files(root):
        try:
            _read_file(file, Problems())
        except UserError as error:
            return str(error)
    return ""


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits of a COCO folder or file."""
    return _find_split_names(_annotation_files(Path(data.root)))


def _find_split_names(files: dict[str, Path]) -> tuple[str, ...]:
    derived = tuple(split for split in minival.SPLITS if minival.find_parts(split, files))
    return HASHED_SPLITS if _is_split_by_hash(files) else (*files, *derived)


def open_split(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> Source:
    """Open a split of a COCO folder or file.

    The annotation file of a split is ``annotations/instances_<split>*.json``,
    ``annotations/image_info_<split>*.json`` (images whose boxes are not public), ``<split>.json`` in ``annotations/``
    or in the folder itself, or ``<split>/_annotations.coco.json``. If there is a single file with another name, its
    images are assigned to train and val by `split_by_hash`. ``trainval35k`` and ``minival`` are made from COCO's files
    of 2017 or 2014, see `ssd_jax.data.formats.minival`.

    Images are looked for in the folder of the annotation file, in folders with the name of the split, in ``images/``,
    ``Images/``, ``JPEGImages/`` and ``data/``, and in the folder itself.

    Args:
        data: ``data.root`` is the folder or a JSON file.
        split: Name of the split.
        class_names: Class names in the order of their labels. Empty: the names of the file's categories in the order
            of their ids. A class that is not in the file has the id -1 in the source's ``category_ids``.
        problems: Object that collects errors and warnings. By default, the first error is raised.

    Raises:
        UserError: If the split does not exist, or its file is not valid JSON. If ``problems`` raises errors, also if
            an image or a key is missing, an id is unknown or not unique, a bbox is invalid, or a class is not in
            ``class_names``.
    """
    files = _annotation_files(Path(data.root))
    parts = minival.find_parts(split, files)
    if not parts:
        return _open_file(data, files, split, None, class_names, problems)
    joined: list[tuple[Term, Source, range]] = []
    for part in parts:
        # Problems are collected separately for each file, so that the notes of a source are only about its own file.
        part_problems = Problems(raise_errors=problems is None or problems.raise_errors)
        source = _open_file(data, files, split, part, class_names, part_problems)
        if problems is not None:
            problems.collected += part_problems.collected
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
    """Return a source with the images of a split from one file.

    If ``part`` is given, it defines the file and the images. Otherwise, the source has all images of the file with the
    name of the split. If there is only a single file with another name, `split_by_hash` selects its images.
    """
    root, problems = Path(data.root), problems or Problems()
    name = part.file if part else _find_file_key(root, files, split)
    file = files[name] if name else next(iter(files.values()))
    content, positions = _read_file(file, problems)
    images = content.images
    if name is None:
        images = select_by_hash(images, [image.file_name for image in images], split, data.val_fraction)
    if part and part.minival is not None:
        images = [image for image in images if (image.id in minival.minival_ids()) == part.minival]
    if not images:
        raise UserError(
            f"{file}: the split '{split}' contains no images. Other splits: {join_names(_find_split_names(files))}."
        )
    categories = _class_categories(file, content)
    names = tuple(class_names) or tuple(category.name for category in categories)
    objects = _objects_by_image(file, content, positions, problems)
    image_files = _ImageFiles(root, file, name or split)
    builder = SplitBuilder(names, problems)
    for image in images:
        add_problem_if_normalised(objects[image.id], problems, file=file, where=f"{image.file_name}: ")
        with problems.collect_errors(Kind.MISSING, file):
            path, size = image_files.find_path(image.file_name), (int(image.width), int(image.height))
            builder.add(image.file_name, path, size, objects[image.id], file=file, number=image.id)
    ids_by_name = {category.name: category.id for category in categories}
    return builder.build(
        notes=_notes_on_id_zero(content),
        category_ids=[ids_by_name.get(name, -1) for name in names],
        coco_truth=_coco_truth(content),
        annotated=content.annotations is not None,
    )


# ---- finding the file of a split ----


def _annotation_files(root: Path) -> dict[str, Path]:
    """Return a dict from the name of each split (train2017, val, ...) to the annotation file of the split."""
    json_files = _json_files(root)
    if not root.is_dir():
        return {file.stem: file for file in json_files}
    roboflow = {f.name: f / _ROBOFLOW_FILE for f in sorted(root.iterdir()) if (f / _ROBOFLOW_FILE).is_file()}
    published = dict(
        sorted((_files_with_prefix("image_info_", json_files) | _files_with_prefix("instances_", json_files)).items())
    )
    # Files with other names are used only if there is no instances_* or image_info_* file: the folder of COCO's
    # instances_* files also contains files with captions and keypoints of the same images.
    return roboflow or published or {f.stem: f for f in json_files if _looks_like_coco_file(f)}


def _json_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix == ".json" else []
    return sorted([*(root / "annotations").glob("*.json"), *root.glob("*.json")])


def _files_with_prefix(prefix: str, files: Iterable[Path]) -> dict[str, Path]:
    return {file.stem.removeprefix(prefix): file for file in files if file.name.startswith(prefix)}


def _looks_like_coco_file(file: Path) -> bool:
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return b'"images"' in content and b'"categories"' in content


def _is_split_by_hash(files: dict[str, Path]) -> bool:
    """Return whether the images are split by hash: there is only one file, and its name is not that of a split."""
    return len(files) == 1 and not any(map(is_split_name, files))


def _find_file_key(root: Path, files: dict[str, Path], split: str) -> str | None:
    """Return the key of a split's file in ``files``, or None if the images of the only file are split by hash."""
    if not files:
        raise UserError(
            f"{root}: no COCO file in the folder, in annotations/, or in a folder for each split. Add the .json files."
        )
    if _is_split_by_hash(files):
        if split in HASHED_SPLITS:
            return None
        raise missing_split_error(root, split, HASHED_SPLITS)
    for alias in split_aliases(split):
        if alias in files:
            return alias
        dated = [name for name in files if re.fullmatch(re.escape(alias) + r"[-_]?\d+", name)]
        if len(dated) > 1:
            raise UserError(f"{root}: the split '{split}' is ambiguous: {join_names(dated)}. Use one of these names.")
        if dated:
            return dated[0]
    raise missing_split_error(root, split, _find_split_names(files))


# ---- reading a file ----


def _read_file(file: Path, problems: Problems) -> tuple[_File, Sequence[int]]:
    """Return the valid entries of an annotation file, and the position in the file of each valid annotation."""
    with convert_read_errors(file):
        data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        try:
            content = msgspec.json.decode(data, type=_File)
            positions: Sequence[int] = range(len(content.annotations or ()))
        except msgspec.ValidationError as error:
            with problems.collect_errors(Kind.MALFORMED, file):
                text = f"not in COCO's format: {error} (counted from 0). Correct that entry."
                raise UserError(f"{file}: {text}") from error
            content, positions = _valid_entries(file, msgspec.json.decode(data), problems)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON: {error}{_json_error_context(data, error)}") from error
    for what, ids in (("images", content.images), ("categories", content.categories)):
        for number in [number for number, count in Counter(entry.id for entry in ids).items() if count > 1]:
            text = f"the id {number} occurs more than once in '{what}'. Ids must be unique; change one of them."
            problems.add(Kind.MALFORMED, file, text)
    for image in content.images:
        if image.width < 1 or image.height < 1:
            text = f"image {image.id} ({image.file_name}) has the size {image.width:g} x {image.height:g}. "
            problems.add(Kind.MALFORMED, file, text + "Write its width and height in pixels.")
    return content, positions


def _json_error_context(data: bytes, error: Exception) -> str:
    """Return the end of a message about invalid JSON: the line number, the text at the error, and advice."""
    match = re.search(r"\(byte (\d+)\)", str(error))
    if match is None:
        return ". Export or copy it again."
    position = int(match[1])
    text = " ".join(data[max(position - 30, 0) : position + 10].decode(errors="replace").split())
    is_number = data.startswith((b"NaN", b"Infinity"), position)
    advice = "JSON has no NaN or Infinity; write a number." if is_number else "Export or copy it again."
    line = 1 + data.count(b"\n", 0, position)
    return f", in line {line}: ... {text} ... {advice}"


def _valid_entries(file: Path, content: Any, problems: Problems) -> tuple[_File, Sequence[int]]:
    """Return the valid entries of a file with malformed entries, and the position of each valid annotation.

    Each malformed entry becomes a problem, except for the first, for which the caller has already added a problem.
    """
    kept: dict[str, dict[int, Any]] = {}
    first_seen = False
    for key, kind in (("images", _Image), ("annotations", _Object), ("categories", _Category)):
        kept[key] = {}
        entries = content.get(key) if isinstance(content, dict) else None
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            try:
                kept[key][number] = msgspec.convert(entry, kind)
            except msgspec.ValidationError as error:
                if first_seen:
                    problems.add(Kind.MALFORMED, file, f"{key}[{number}]: {error}. Correct that entry.")
                first_seen = True
    return _File(**{key: list(entries.values()) for key, entries in kept.items()}), list(kept["annotations"])


def _class_categories(file: Path, content: _File) -> list[_Category]:
    """Return those categories of an annotation file that are classes, in the order of their ids.

    A category is left out if it has no objects and is the supercategory of another category, as in Roboflow's exports.
    """
    used = {entry.category_id for entry in content.annotations or ()}
    groups = {c.supercategory for c in content.categories if c.supercategory != c.name}
    kept = sorted((c for c in content.categories if c.id in used or c.name not in groups), key=lambda c: c.id)
    repeated = [name for name, count in Counter(c.name for c in kept).items() if count > 1]
    if repeated:
        raise UserError(f"{file}: two categories have the name '{repeated[0]}'. Rename or merge them.")
    if not kept:
        raise UserError(f"{file}: 'categories' is empty. List the classes there.")
    return kept


def _objects_by_image(
    file: Path, content: _File, positions: Iterable[int], problems: Problems
) -> dict[int, list[RawObject]]:
    objects: dict[int, list[RawObject]] = {image.id: [] for image in content.images}
    file_names = {image.id: image.file_name for image in content.images}
    names = {category.id: category.name for category in content.categories}
    for number, entry in zip(positions, content.annotations or (), strict=True):
        where = f"annotations[{number}]"
        if entry.image_id not in objects:
            text = f"{where} has image_id {entry.image_id}, which is not in 'images'. "
            problems.add(Kind.MALFORMED, file, text + "Correct the id, or remove the annotation.")
        elif entry.category_id not in names:
            text = f"{where} has category_id {entry.category_id}, which is not in 'categories' ({join_names(names)}). "
            problems.add(Kind.UNKNOWN_CLASS, file, text + "Correct the id, or add the category.")
        else:
            left, top, width, height = entry.bbox
            objects[entry.image_id].append(
                RawObject(
                    f"{where} of {file_names[entry.image_id]}",
                    names[entry.category_id],
                    (left, top, left + width, top + height),
                    crowd=bool(entry.iscrowd),
                    area_px=_object_area(entry),
                )
            )
    return objects


def _object_area(entry: _Object) -> float:
    return entry.bbox[2] * entry.bbox[3] if entry.area is None else entry.area


def _coco_truth(content: _File) -> CocoTruth:
    """Return all annotations of a file, including those of images that are not in the split."""
    entries = content.annotations or ()
    return CocoTruth(
        np.array([entry.image_id for entry in entries], np.int64),
        np.array([entry.category_id for entry in entries], np.int64),
        np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4),
        np.array([_object_area(entry) for entry in entries], np.float64),
        np.array([entry.iscrowd for entry in entries], bool),
    )


def _notes_on_id_zero(content: _File) -> list[str]:
    """Return a list with a note if an annotation has the id 0, or an empty list.

    pycocotools stores the id of the matched annotation with each detection, and treats the id 0 as no match.
    """
    if all(entry.id != 0 for entry in content.annotations or ()):
        return []
    return ["an annotation has the id 0, which pycocotools treats as never matched; here it is matched like any other"]


# ---- finding images ----


class _ImageFiles:
    """Index of the image files of a split by ``file_name``. Each folder is listed only once, to save time."""

    def __init__(self, root: Path, file: Path, name: str):
        top = root.parent if root.is_file() else root
        undated = name.rstrip("0123456789-_")
        folders = [file.parent, top / name, top / undated, top / "images" / name, top / "images" / undated]
        folders += [top / name.replace("test-dev", "test")]  # the images of test-dev are part of COCO's test images
        folders += [top / "images", top / "Images", top / "JPEGImages", top / "data", top]
        self._file = file
        self._folders = list(dict.fromkeys(str(folder) for folder in folders))
        self._listings: dict[str, frozenset[str]] = {}

    def find_path(self, file_name: str) -> str:
        for suffix, folder in itertools.product(path_suffixes(file_name), self._folders):
            path = os.path.join(folder, suffix)
            if os.path.basename(path) in self._file_names(os.path.dirname(path)):
                return path
        searched = join_names(folder for folder in self._folders if os.path.isdir(folder))
        raise UserError(
            f"{self._file}: the image '{file_name}' is missing in {searched}. Add it, or remove it from the file."
        )

    def _file_names(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            self._listings[folder] = frozenset(os.listdir(folder) if os.path.isdir(folder) else ())
        return self._listings[folder]
