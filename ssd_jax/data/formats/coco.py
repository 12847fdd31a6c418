"""Read data sets in COCO's JSON format, with one annotation file for all images of a split.

Boxes are converted to xyxy. `ssd_jax.data.formats.coco_file` reads the annotation files.
"""

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ssd_jax.config import Data
from ssd_jax.data.folder import AmbiguousPathError, Folder, parent, path_tails, spelling_key, stem
from ssd_jax.data.formats import minival
from ssd_jax.data.formats.coco_file import (
    CocoFile,
    class_categories,
    read_coco_file,
    stated_size,
    take_objects_by_image,
)
from ssd_jax.data.formats.documents import read_json
from ssd_jax.data.formats.layout import folder_distance
from ssd_jax.data.formats.other_formats import report_unused_folders
from ssd_jax.data.formats.reader import PUBLISHED, SplitBuilder
from ssd_jax.data.image import image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import CocoTruth, FolderSource, RawObject, Source, add_problem_if_normalised, join_names
from ssd_jax.data.split_names import is_split_name, split_kind, split_of_path
from ssd_jax.data.splits import JoinedSource, Term
from ssd_jax.errors import UserError
from ssd_jax.files import convert_to_utf8
from ssd_jax.portability import make_relative_path

LAYOUT = ".json files with the keys 'images' and 'categories'"

_COCO_KEY = re.compile(rb"""["'](images|annotations)["']""")  # also in a printed Python dict
_ROBOFLOW_FILE = "_annotations.coco.json"
_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_")  # files beside COCO's instances_* files


def count_annotated(folder: Folder) -> int:
    """Return the approximate number of images in the COCO files of a folder."""
    if _published_files(folder):
        return PUBLISHED
    return sum(map(_count_images, map(folder.full_path, _json_files(folder))))


def find_error_message(folder: Folder) -> str:
    """Return the error message about the first .json file that is not a valid COCO file, or an empty string."""
    for file in _json_files(folder):
        try:
            content = convert_to_utf8(folder.full_path(file).read_bytes())
            if content and not stem(file).startswith("instances_") and not _COCO_KEY.search(content):
                continue
        except OSError:
            continue
        try:
            read_coco_file(folder.full_path(file), Problems())
        except UserError as error:
            return str(error)
    return ""


def find_record(folder: Folder, image: str) -> bool:
    """Return whether a COCO file in a folder, or in a folder directly in it, names an image."""
    name = image.rpartition("/")[2].encode(errors="surrogateescape")
    files = [folder.full_path(file) for file in _json_files(folder) if file.count("/") < 2]
    return any(_count_images(file) and name in convert_to_utf8(file.read_bytes()) for file in files)


def list_named_images(folder: Folder) -> list[str]:
    """Return the spelling keys of the names of all images in the COCO files of a folder, without their folders."""
    files = [file for file in map(folder.full_path, _json_files(folder)) if _count_images(file)]
    return sorted(set().union(*map(_named_images, files)))


def split_names(folder: Folder, data: Data) -> tuple[str, ...]:
    """Return the names of the splits of a COCO folder or file; empty for a single file with another name."""
    files = _annotation_files(folder)
    if len(files) == 1 and not any(map(is_split_name, files)):
        return ()
    derived = tuple(split for split in minival.SPLITS if minival.find_parts(split, files))
    return (*files, *derived)


def open_split(folder: Folder, data: Data, split: str, class_names: Sequence[str], problems: Problems) -> Source:
    """Open a split of a COCO folder.

    The annotation file of a split is a JSON file with the name of the split, such as
    ``annotations/instances_train2017.json``, ``train.json`` or ``train/labels.json``; or
    ``annotations/image_info_test2017.json`` (images whose boxes are not public). ``trainval35k`` and ``minival`` are
    made from COCO's files of 2017 or 2014, see `ssd_jax.data.formats.minival`.

    Images may be in any folder. They are looked for in the usual folders first: in the folder of the annotation file,
    in folders with the name of the split, in ``images/``, ``Images/``, ``JPEGImages/`` and ``data/``, and in the folder
    itself. Several records of one image are joined.

    Args:
        folder: The folder, or the folder of a JSON file.
        data: Options of the data set.
        split: Name of the split, or an empty text for all images.
        class_names: Class names in the order of their labels. Empty: the names of the file's categories in the order
            of their ids. A class that is not in the file has the id -1 in the source's ``category_ids``.
        problems: Object that collects errors and warnings.

    Raises:
        UserError: If the file is not valid JSON, or contains no images. If ``problems`` raises errors, also if
            an image or a key is missing, an id is unknown or not unique, a bbox is invalid, or a class is not in
            ``class_names``.
    """
    files = _annotation_files(folder)
    _report_unused(folder, problems)
    parts = minival.find_parts(split, files)
    if not parts:
        return _open_file(
            folder, files[split] if split else next(iter(files.values())), split, None, class_names, problems
        )
    joined: list[tuple[Term, Source, range]] = []
    for part in parts:
        # Problems are collected separately for each file, so that the notes of a source are only about its own file.
        part_problems = Problems(raise_errors=problems.raise_errors)
        source = _open_file(folder, files[part.file], part.file, part, class_names, part_problems)
        problems.collected += part_problems.collected
        joined.append((Term("", part.file, "", ""), source, range(len(source))))
        class_names = source.class_names
    return source if len(joined) == 1 else JoinedSource(joined)


class _Record(NamedTuple):
    """An image, with the positions in the file of its records."""

    path: str
    positions: list[int]


def _open_file(
    folder: Folder,
    file: Path,
    split: str,
    part: minival.Part | None,
    class_names: Sequence[str],
    problems: Problems,
) -> FolderSource:
    """Return a source with the images of a file, or with the images that a part takes from it."""
    content = read_coco_file(file, problems)
    positions = list(range(len(content.images)))
    if part is not None and part.minival is not None:
        positions = [i for i in positions if (content.image_ids[i] in minival.minival_ids()) == part.minival]
    if not positions:
        raise UserError(f"{file}: it contains no images of the split '{split}'. Choose another split, or add images.")
    categories = class_categories(file, content)
    names = tuple(class_names) or tuple(category.name for category in categories.values())
    records = _find_images(folder, file, split, content, positions, problems)
    first = {position: own[0] for _, own in records for position in own}
    truth = _coco_truth(content, first)
    objects, crowds = take_objects_by_image(content), 0
    builder = SplitBuilder(names, problems, box_format="xywh", place=file)
    for path, own in records:
        image = content.images[own[0]]
        with problems.collect_errors(Kind.UNREADABLE, path):
            size = stated_size(image) or image_size(path)
            raw = [
                RawObject(
                    f"annotations[{entry.position}] of {image.file_name}",
                    content.categories[entry.category].name,
                    (entry.bbox[0], entry.bbox[1], entry.bbox[0] + entry.bbox[2], entry.bbox[1] + entry.bbox[3]),
                    difficult=entry.is_ignored,
                    crowd=entry.is_crowd,
                    area_px=abs(entry.area),
                )
                for position in own
                for entry in objects.pop(position)
            ]
            add_problem_if_normalised(raw, problems, file=file, where=f"{image.file_name}: ")
            builder.add(image.file_name, path, size, raw, file=file, number=content.image_ids[own[0]])
            crowds += sum(entry.crowd for entry in raw)
    if crowds:
        text = f"{crowds} of the {len(truth.crowd)} objects are marked as crowds (iscrowd); they are not trained on"
        problems.add(Kind.CROWD, file, text)
    ids_by_name = {category.name: category.id for category in content.categories}
    return builder.build(
        notes=content.notes,
        category_ids=[ids_by_name.get(name, -1) for name in names],
        coco_truth=truth,
        annotated=content.annotated,
    )


def _find_images(
    folder: Folder, file: Path, split: str, content: CocoFile, positions: Iterable[int], problems: Problems
) -> list[_Record]:
    """Return the images of a file with their records. A missing image, or several records of one, is a problem."""
    image_files = _ImageFiles(folder, file, split)
    records: dict[str, list[int]] = {}  # texts need less memory than paths
    for position in positions:
        with problems.collect_errors(Kind.MISSING, file):
            path = str(image_files.find_path(content.images[position].file_name, problems))
            records.setdefault(path, []).append(position)
    for path, own in records.items():
        if len(own) > 1:
            problems.add(Kind.JOINED, path, f"has {len(own)} records in {file.name}")
    return [_Record(path, own) for path, own in records.items()]


def _coco_truth(content: CocoFile, first: dict[int, int]) -> CocoTruth:
    """Return all annotations of a file, including those of images that are not in the split.

    Args:
        content: Content of the file.
        first: Position of the first record of the same image, by the position of a record.
    """
    entries = content.objects
    return CocoTruth(
        np.array([content.image_ids[first.get(entry.image, entry.image)] for entry in entries], np.int64),
        np.array([content.categories[entry.category].id for entry in entries], np.int64),
        np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4),
        np.array([entry.area for entry in entries], np.float64),
        np.array([entry.is_crowd for entry in entries], bool),
    )


# ---- finding the file of a split ----


def _annotation_files(folder: Folder) -> dict[str, Path]:
    """Return a dict from the name of each split (train2017, val, ...) to the annotation file of the split."""
    if folder.path.is_file():
        return {_split_name(folder.path.name): folder.path}
    published = _published_files(folder)
    if published:
        return published
    files = [file for file in _json_files(folder) if _count_images(folder.full_path(file))]
    if not files:
        raise UserError(f"{folder.path}: no .json file has the keys 'images' and 'categories'. Add the annotations.")
    files = [file for file in files if not stem(file).startswith(_OTHER_TASKS)] or files
    by_name: dict[str, list[str]] = {}
    for file in files:
        by_name.setdefault(_split_name(file), []).append(file)
    by_name = {name: [f for f in same if stem(f).startswith("instances_")] or same for name, same in by_name.items()}
    if any(len(same) > 1 for same in by_name.values()):
        by_name = {os.path.splitext(file)[0]: [file] for same in by_name.values() for file in same}
    return {name: folder.full_path(file) for name, (file,) in by_name.items()}


def _report_unused(folder: Folder, problems: Problems) -> None:
    """Add problems for .json files that are not valid JSON, and for images that no annotation file names.

    The files may have been annotation files. COCO's own layout is not examined, because that would take a long time.
    """
    if folder.path.is_file() or _published_files(folder):
        return
    named: set[str] = set()
    for file in map(folder.full_path, _json_files(folder)):
        if _count_images(file):
            named |= _named_images(file)
            continue
        try:
            read_json(file, Any)
        except UserError as error:
            problems.add(Kind.NOTHING_READ, file, " ".join(error.args).removeprefix(f"{file}: "))
    unnamed = (image for image in folder.images if spelling_key(image.rpartition("/")[2]) not in named)
    report_unused_folders(folder, unnamed, problems)


def _named_images(file: Path) -> set[str]:
    """Return the spelling keys of the names of the images in a COCO file, without their folders."""
    return set(
        map(_name_key, re.findall(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', convert_to_utf8(file.read_bytes())))
    )


def _name_key(text: bytes) -> str:
    """Return the spelling key of the file name at the end of a path that is a JSON text."""
    try:
        return spelling_key(path_tails(msgspec.json.decode(text, type=str))[-1])
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        return ""


def _split_name(file: str) -> str:
    """Return the name of the split that an annotation file belongs to.

    It is part of the file name, or the name of the folder, or the whole file name without extension if neither is the
    name of a split.
    """
    name = stem(file).removeprefix("instances_").removeprefix("image_info_")
    own_folder = parent(file).rpartition("/")[2]
    if is_split_name(name):
        return name
    if is_split_name(own_folder) or file.endswith(_ROBOFLOW_FILE):
        return own_folder or name
    return split_of_path(parent(file)) or name


def _published_files(folder: Folder) -> dict[str, Path]:
    """Return the files of a folder in COCO's own layout by the name of their split.

    The files are recognised by their names, because reading them takes a long time.
    """
    place = folder.root / "annotations"
    if not place.is_dir() or folder.path.is_file():
        return {}
    files: dict[str, Path] = {}
    for prefix in ("image_info_", "instances_"):
        files |= {file.stem.removeprefix(prefix): file for file in place.glob(f"{prefix}*.json")}
    return dict(sorted(files.items())) if any(split_kind(name) and name[-4:].isdecimal() for name in files) else {}


def _json_files(folder: Folder) -> list[str]:
    if folder.path.is_file():
        return [folder.path.name] if folder.path.suffix.lower() == ".json" else []
    return list(folder.with_extension(".json"))


def _count_images(file: Path) -> int:
    """Return the approximate number of images in a COCO file, or 0 if a file does not look like one."""
    try:
        content = convert_to_utf8(file.read_bytes())
    except OSError:
        return 0
    return max(content.count(b'"file_name"'), 1) if b'"images"' in content and b'"categories"' in content else 0


# ---- finding images ----


class _ImageFiles:
    """Index of the image files of a split by ``file_name``. Each folder is listed only once, to save time.

    Args:
        folder: Folder of the data set.
        file: Annotation file of the split.
        split: Name of the split.
    """

    def __init__(self, folder: Folder, file: Path, split: str):
        top = file.parent.parent if folder.path.is_file() and file.parent.name == "annotations" else folder.root
        undated = split.rstrip("0123456789-_")
        folders = [file.parent, top / split, top / undated, top / "images" / split, top / "images" / undated]
        folders += [top / split.replace("test-dev", "test")]  # the images of test-dev are part of COCO's test images
        folders += [top / "images", top / "Images", top / "JPEGImages", top / "data", top]
        self._file, self._split = file, split
        self._folder = folder if top == folder.root else Folder(top)
        self._usual_folders = list(dict.fromkeys(map(str, folders)))
        self._listings: dict[str, frozenset[str]] = {}

    def find_path(self, file_name: str, problems: Problems) -> Path:
        for tail, place in itertools.product(path_tails(file_name), self._usual_folders):
            path = os.path.join(place, tail)
            if os.path.basename(path) in self._file_names(os.path.dirname(path)):
                return Path(path)
        own_kind = split_kind(self._split)
        start = make_relative_path(self._file.parent, self._folder.root).removeprefix(".")

        def rank(place: str) -> tuple[bool, tuple[int, int]] | None:
            kind = split_kind(split_of_path(place) or "")
            if own_kind is not None and kind not in (own_kind, None):
                return None  # an image of another split may have the same name; see below
            return kind is None, folder_distance(start, place)

        is_moved = False
        try:
            image = self._folder.find_image(file_name, rank)
            if image is None and spelling_key(path_tails(file_name)[-1]) not in self._named_by_other_files:
                image, is_moved = self._folder.find_image(file_name), True
        except AmbiguousPathError as error:
            raise UserError(
                f"{self._file}: the image '{file_name}' may be any of {join_names(error.choices)}. Remove or rename "
                "the folders that do not belong to the annotations."
            ) from None
        if image is None:
            raise UserError(self._missing_message(file_name))
        if is_moved or image.rpartition("/")[2] != path_tails(file_name)[-1]:
            problems.add(Kind.NAME_DIFFERS, self._file, f"'{file_name}' is {image}")
        return self._folder.full_path(image)

    @cached_property
    def _named_by_other_files(self) -> set[str]:
        """Spelling keys of the images that other annotation files name."""
        files = (self._folder.full_path(file) for file in _json_files(self._folder))
        others = (file for file in files if file != self._file and _count_images(file))
        return set().union(*map(_named_images, others))

    def _missing_message(self, file_name: str) -> str:
        closest = self._folder.image_with_most_similar_name(file_name)
        hint = f" The most similar name is {closest}." if closest else ""
        return (
            f"{self._file}: the image '{file_name}' is missing in {self._folder.root} and its subfolders.{hint} Add "
            "it, or remove it from the file."
        )

    def _file_names(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            self._listings[folder] = frozenset(os.listdir(folder) if os.path.isdir(folder) else ())
        return self._listings[folder]
