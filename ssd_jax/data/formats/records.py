"""Read formats whose files consist of records: the name of an image, perhaps its size, and its objects.

A module for such a format only parses its files (`RecordFormat.read`). This module does what is common to them: it
finds the images, the splits and the class names, and reports what is missing, unused or repeated.

Splits: the split of a record is stated by the file, or is the name of the annotation file (``train.csv``), or of a
folder of the annotation file, or of the image as the file names it, or as it is found.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from ssd_jax.config import Data
from ssd_jax.data.folder import AmbiguousPathError, Folder, parent, spelling_key, split_path, stem
from ssd_jax.data.formats.layout import describe_layout, folder_distance
from ssd_jax.data.formats.other_formats import find_sidecar_files, report_sidecar_files, report_unused_folders
from ssd_jax.data.formats.outlines import Box
from ssd_jax.data.formats.reader import SplitBuilder
from ssd_jax.data.formats.signs import find_files, find_sign
from ssd_jax.data.image import image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, RawObject, add_problem_if_normalised, join_names
from ssd_jax.data.split_names import is_plain_split_name, is_split_name, split_kind, split_of_path
from ssd_jax.errors import UserError

T = TypeVar("T")
_MAX_SIDE = 10**6  # pixels; a larger size is a mistake


class Record(NamedTuple):
    """The annotation of an image in a file."""

    image: str
    """Name or path of the image as the file states it; empty if the file states none."""
    objects: tuple[RawObject, ...]
    size: tuple[int, int] | None = None
    """Width and height of the image in pixels; None if the file does not state them."""
    split: str = ""
    """Name of the split that the file states for the image."""
    other_names: tuple[str, ...] = ()
    """Other names that the image may have."""
    is_relative: bool = False
    """True if the boxes are fractions of the image size instead of pixels."""


@dataclass(frozen=True)
class RecordFormat:
    """A format that consists of records."""

    name: str
    """Name of the module."""
    layout: str
    """Description of the files, for the message about an unknown folder."""
    read: Callable[[Path, Problems], Iterable[Record]]
    """Function that yields the records of a file. It adds the problems of single objects to the given object, and
    raises a UserError if the whole file cannot be read."""
    is_for_one_image: bool = False
    """True if a file belongs to the image with the same name."""
    find: Callable[[Folder], list[str]] | None = None
    """Function that returns the relative paths of the annotation files. By default, `signs.find_files` does."""
    count: Callable[[bytes], int] | None = None
    """Function that returns the approximate number of images in the content of a file; 1 by default."""
    class_names: Callable[[Folder], Sequence[str]] | None = None
    """Function that returns the class names that the data set states; by default, those of the objects are used."""
    may_lack_images: bool = False
    """True if files usually name more images than a folder contains."""

    def find_files(self, folder: Folder) -> list[str]:
        """Return the relative paths of the annotation files, with those that are too damaged to be recognised."""
        files = self.find(folder) if self.find is not None else find_files(folder, self.name)
        return [*files, *_find_damaged_files(folder, files)] if self.is_for_one_image else files

    def count_annotated(self, folder: Folder) -> int:
        """Return the approximate number of annotated images, see `recognition.FolderFormatModule`."""
        files = self.find_files(folder)
        if self.count is None:
            return len(files)
        return sum(max(self.count(_read_bytes(folder.full_path(file))), 1) for file in files)

    def split_names(self, folder: Folder, data: Data) -> tuple[str, ...]:
        """Return the names of the splits, see `recognition.FolderFormatModule`."""
        return _read_record_set(self, folder).splits

    def open_split(
        self, folder: Folder, data: Data, split: str, class_names: Sequence[str], problems: Problems
    ) -> FolderSource:
        """Open a split, see `recognition.FolderFormatModule`.

        Raises:
            UserError: If the split is empty, or if no file contains an object. If ``problems`` raises errors, also if
                a file is malformed, an image is missing, or a class is not in ``class_names``.
        """
        return _read_record_set(self, folder).open(split, class_names, problems)


# ---- functions for the modules of the formats ----


def convert_entry(entry: Any, kind: type[T], file: Path, where: str) -> T:
    """Return an entry of a JSON document as a type that msgspec knows. Numbers may be written as texts.

    Raises:
        UserError: If the entry is not of this type; the message names the file and the place.
    """
    try:
        return msgspec.convert(entry, kind, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UserError(f"{file}: {where} is malformed: {error}. Correct it, or remove it.") from None


def parse_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the width and height in pixels that a file states, or None if they are missing or make no sense."""
    try:
        size = int(float(width or 0)), int(float(height or 0))
    except (ValueError, TypeError, OverflowError):
        return None
    return size if min(size) >= 1 and max(size) <= _MAX_SIDE else None


class ObjectList:
    """The objects of an image, which a reader adds one after another.

    Args:
        file: File that the objects are read from.
        problems: Object that collects malformed objects.
    """

    def __init__(self, file: Path, problems: Problems):
        self._file, self._problems = file, problems
        self._objects: list[RawObject] = []
        self._outlines: Counter[str] = Counter()

    def add(
        self,
        where: str,
        name: object,
        box: Box | None,
        *,
        outline: str = "",
        difficult: bool = False,
        crowd: bool = False,
    ) -> None:
        """Add an object.

        Args:
            where: Place in the file, for messages.
            name: Class name as read from the file.
            box: Box, xyxy; None if the numbers in the file are not a box.
            outline: Name of the shape, if it is not an upright box.
            difficult: Whether the object is difficult, as in VOC.
            crowd: Whether the object is a crowd, as in COCO.
        """
        with self._problems.collect_errors(Kind.MALFORMED, self._file):
            text = str(name).strip() if isinstance(name, str | int) else ""
            if not text:
                raise UserError(f"{self._file}: {where} has no class name. Add it, or remove the object.")
            if box is None or not all(-1e9 < edge < 1e9 for edge in box):
                raise UserError(f"{self._file}: {where} has no box of finite numbers. Correct it, or remove it.")
            if outline:
                self._outlines[outline] += 1
            self._objects.append(RawObject(where, text, box, difficult, crowd))

    def leave_out(self, where: str, what: str) -> None:
        """Add a warning about a shape that is not an object with a box, such as a point."""
        self._problems.add(Kind.NO_BOX, self._file, f"{where} ({what})")

    def finish(self) -> tuple[RawObject, ...]:
        """Return the objects, after adding a note about shapes that are not upright boxes."""
        if self._outlines:
            counts = ", ".join(f"{count} {name}" for name, count in sorted(self._outlines.items()))
            self._problems.add(Kind.OUTLINES, self._file, f"({counts})")
        return tuple(self._objects)


# ---- the records of a folder ----


def _find_damaged_files(folder: Folder, files: Sequence[str]) -> list[str]:
    """Return the files in no known format that are beside annotation files and have the name of an image.

    They are read, too, so that a truncated file is reported, instead of its image being left out.
    """
    if folder.path.is_file():
        return []
    known = set(files)
    places = {(parent(file), os.path.splitext(file)[1].lower()) for file in files}
    return [
        file
        for file in folder.with_extension(*{extension for _, extension in places})
        if file not in known
        and (parent(file), os.path.splitext(file)[1].lower()) in places
        and folder.images_named(stem(file))
        and find_sign(folder.full_path(file)) is None
    ]


class _Place(NamedTuple):
    """A record, and the places of its annotation file and its image."""

    record: Record
    file: str
    """Relative path of the annotation file."""
    image: str
    """Relative path of the image; empty if it is missing."""
    error: str
    """Message about a missing image."""
    split: str


class _RecordSet:
    """The records of all annotation files of a folder.

    Args:
        form: Format of the files.
        folder: Folder of the data set.
    """

    def __init__(self, form: RecordFormat, folder: Folder):
        self._form, self._folder = form, folder
        if folder.path.is_file() and folder.root.name.lower().startswith(("annotation", "label")):
            self._folder = Folder(folder.root.parent)
        self._problems: dict[str, Problems] = {}
        self._places: list[_Place] = []
        self._spellings: dict[str, str] = {}
        self._files = [make_path(folder, self._folder, file) for file in form.find_files(folder)]
        for file in self._files:
            self._problems[file] = Problems(raise_errors=False)
            with self._problems[file].collect_errors(Kind.MALFORMED, self._folder.full_path(file)):
                for record in form.read(self._folder.full_path(file), self._problems[file]):
                    self._places.append(self._find_place(file, record))
        if any(place.split for place in self._places):
            self._places = [p if p.split else p._replace(split=self._name_other_split(p.file)) for p in self._places]
        self.splits = tuple(dict.fromkeys(place.split for place in self._places if place.split))

    def _find_place(self, file: str, record: Record) -> _Place:
        names = [name for name in (record.image, *record.other_names) if name]
        of_image = next((split for name in names if (split := split_of_path(parent("/".join(split_path(name)))))), "")
        split = record.split or self._split_of_file(file) or of_image or ""
        try:
            image = self._find_image(file, names, split)
        except UserError as error:
            return _Place(record, file, "", " ".join(error.args), split)
        return _Place(record, file, image, "", split or split_of_path(parent(image)) or "")

    def _split_of_file(self, file: str) -> str:
        """Return the name of the split of an annotation file: its own name, or that of a folder; empty without one."""
        name = stem(file)
        if not self._form.is_for_one_image and is_split_name(name):
            return name if is_plain_split_name(name) else split_kind(name) or name
        return split_of_path(parent(file)) or ""

    def _name_other_split(self, file: str) -> str:
        """Return the name of the split of a file without the name of a split, in a data set that has splits."""
        return (file.split("/")[0] if self._form.is_for_one_image and "/" in file else stem(file)) or "other"

    # ---- images ----

    def _find_image(self, file: str, names: Sequence[str], split: str) -> str:
        """Return the relative path of the image of a record.

        If the file belongs to one image, this is the image with the name of the file or, without one, the image that
        the record names. Otherwise, the record names the image, perhaps without its extension.
        """
        own_kind = split_kind(split)

        def rank(place: str) -> tuple[bool, tuple[int, int]] | None:
            kind = split_kind(split_of_path(place) or "")
            if own_kind is not None and kind not in (own_kind, None):
                return None  # an image of another split may have the same name
            return own_kind is not None and kind is None, folder_distance(parent(file), place)

        own = stem(file)
        try:
            if self._form.is_for_one_image:
                image = self._nearest(self._folder.images_named(own), rank, names)
                if image is not None:
                    self._spellings |= {file: image} if own not in (stem(image), image.rpartition("/")[2]) else {}
                    return image
            for name in names:
                image = self._folder.find_image(name, rank)
                if image is None:
                    image = self._nearest(self._folder.images_named((split_path(name) or [""])[-1]), rank, names)
                if image is not None:
                    return image
        except AmbiguousPathError as error:
            raise UserError(
                f"the image of {names[0] if names else own} may be any of {join_names(error.choices)}. Remove or "
                "rename the folders that do not belong to the annotations."
            ) from None
        wanted = names[0] if names else own
        closest = self._folder.image_with_most_similar_name(wanted)
        hint = f" The most similar name is {closest}." if closest else ""
        raise UserError(f"the image '{wanted}' is missing.{hint} Add it, or remove its annotation.")

    def _nearest(self, candidates: Iterable[str], rank: Callable[[str], Any], names: Sequence[str]) -> str | None:
        """Return the candidate in the folder with the lowest rank, preferably one with one of the given names."""
        named = {spelling_key(split_path(name)[-1]) for name in names if split_path(name)}
        ranked = [
            (place, spelling_key(image.rpartition("/")[2]) not in named, image)
            for image in candidates
            if (place := rank(parent(image))) is not None
        ]
        if not ranked:
            return None
        best = min(key[:2] for key in ranked)
        winners = [image for *key, image in ranked if tuple(key) == best]
        if len({parent(image) for image in winners}) > 1:
            raise AmbiguousPathError(winners)
        return winners[0]

    # ---- opening a split ----

    def open(self, split: str, class_names: Sequence[str], problems: Problems) -> FolderSource:
        places = [place for place in self._places if not split or place.split == split]
        files = dict.fromkeys([place.file for place in places])
        with_records = {place.file for place in self._places}
        for file in self._files:
            if split and file not in files and (file in with_records or self._split_of_file(file) not in (split, "")):
                continue
            for problem in self._problems[file].collected:
                problems.add(problem.kind, problem.file, problem.text, problem.group)
        names = tuple(class_names) or self._class_names()
        builder = SplitBuilder(names, problems, place=self._folder.root)
        by_image: dict[str, list[_Place]] = {}
        missing = []
        for place in places:
            if place.image:
                by_image.setdefault(place.image, []).append(place)
            elif self._form.may_lack_images:
                missing.append(place)
            else:
                problems.add(Kind.MISSING, self._folder.full_path(place.file), place.error)
        for place in missing:
            group = "annotated images are not in the folder and were left out"
            problems.add(Kind.NO_IMAGE, self._folder.full_path(place.file), f"({place.record.image})", group)
        ids = _make_image_ids(by_image)
        for image, own in by_image.items():
            self._add_image(builder, ids[image], image, own, problems)
        if not len(builder) and missing:
            text = f"none of the {len(missing)} annotated images is in the folder, such as {missing[0].record.image}. "
            raise UserError(f"{self._folder.path}: {text}Add the images.")
        if not places and not problems.collected:
            of_split = f"the split '{split}'" if split else "it"
            raise UserError(f"{self._folder.path}: {of_split} contains no annotated images. Add annotations.")
        self._report(files, by_image, problems)
        return builder.build()

    def _add_image(
        self, builder: SplitBuilder, image_id: str, image: str, own: Sequence[_Place], problems: Problems
    ) -> None:
        path, file = self._folder.full_path(image), self._folder.full_path(own[0].file)
        if len(own) > 1:
            text = f"has {len(own)} records in {join_names(dict.fromkeys(place.file for place in own))}"
            problems.add(Kind.JOINED, path, text)
        stated = own[0].record.size
        with problems.collect_errors(Kind.UNREADABLE, path):
            size = image_size(path, stated)
            if stated is not None and stated != size:
                text = f"{image} is stated as {stated[0]} x {stated[1]}, but is {size[0]} x {size[1]}. "
                problems.add(Kind.SIZE_DIFFERS, file, text + "Check that the boxes fit the image.")
            objects: list[RawObject] = []
            for place in own:
                found = list(place.record.objects)
                if place.record.is_relative:
                    found = [entry._replace(box_px=_scale(entry.box_px, size)) for entry in found]
                elif self._form.is_for_one_image:
                    add_problem_if_normalised(found, problems, file=file)
                else:
                    add_problem_if_normalised(found, problems, file=file, where=f"{image}: ")
                known = {(entry.name, entry.box_px) for entry in objects}  # two exports of the same annotations
                objects += [entry for entry in found if (entry.name, entry.box_px) not in known]
            builder.add(image_id, path, size, objects, file=file)

    def _class_names(self) -> tuple[str, ...]:
        stated = () if self._form.class_names is None else self._form.class_names(self._folder)
        found = {entry.name for place in self._places for entry in place.record.objects}
        names = (*dict.fromkeys(stated), *sorted(found.difference(stated)))
        if not names:
            problems = [problem for file in self._files for problem in self._problems[file].collected]
            reason = f" {problems[0].file}: {problems[0].text}" if problems else " Add boxes."
            raise UserError(
                f"{self._folder.path}: no annotation contains an object, so there is nothing to learn.{reason}"
            )
        return names

    def _report(self, files: Iterable[str], images: Iterable[str], problems: Problems) -> None:
        """Add problems for images without an annotation, and for names that differ; name unusual folders."""
        for file in files:
            if file in self._spellings:
                problems.add(Kind.NAME_DIFFERS, self._folder.full_path(file), f"({self._spellings[file]})")
        annotated = {place.image for place in self._places}
        folders = {parent(image) for image in annotated}
        others = [image for image in self._folder.images if image not in annotated]
        report_unused_folders(self._folder, (image for image in others if parent(image) not in folders), problems)
        unannotated = [image for image in others if parent(image) in folders]
        sidecars = find_sidecar_files(self._folder, unannotated)
        report_sidecar_files(self._folder, sidecars, problems)
        for image in unannotated:
            if image not in sidecars:
                group = "images have no annotation and were left out"
                problems.add(Kind.UNANNOTATED, self._folder.full_path(image), "", group)
        if self._form.is_for_one_image:
            layout = describe_layout(files, images, "annotation files")
            if layout:
                problems.add(Kind.LAYOUT, self._folder.root, layout, group=layout)


_record_sets: WeakKeyDictionary[Folder, dict[str, _RecordSet]] = WeakKeyDictionary()


def _read_record_set(form: RecordFormat, folder: Folder) -> _RecordSet:
    """Return the records of a folder. The files are read only once for a `Folder`."""
    own = _record_sets.setdefault(folder, {})
    if form.name not in own:
        own[form.name] = _RecordSet(form, folder)
    return own[form.name]


def make_path(folder: Folder, other: Folder, file: str) -> str:
    """Return the path of a file relative to a folder that contains the folder to which the given path is relative."""
    return folder.full_path(file).relative_to(other.root).as_posix()


def _make_image_ids(images: Iterable[str]) -> dict[str, str]:
    """Return an id for each image: its name without extension, or as much of its path as makes all ids unique."""
    images = list(images)
    for make in (stem, lambda image: os.path.splitext(image)[0]):
        ids = [make(image) for image in images]
        if len(set(ids)) == len(images):
            return dict(zip(images, ids, strict=True))
    return {image: image for image in images}


def _scale(box: Box, size: tuple[int, int]) -> Box:
    return box[0] * size[0], box[1] * size[1], box[2] * size[0], box[3] * size[1]


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def iterate_entries(entries: Any, file: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the position and content of each entry of a list in a JSON document.

    Raises:
        UserError: If this is not a list of objects.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{file}: {what} is not a list of entries. Export the file again.")
    yield from enumerate(entries)
