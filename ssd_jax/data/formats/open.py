"""Find the format of the data set that `config.Data` names, and open its splits with the module for this format.

`ssd_jax.data.formats.recognition` recognises the format of a folder, and says how to add a format.
"""

import contextlib
import dataclasses
import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from ssd_jax.config import Data
from ssd_jax.data.folder import Folder
from ssd_jax.data.formats import minival
from ssd_jax.data.formats.other_formats import name_image_without_ending
from ssd_jax.data.formats.reader import PUBLISHED, WHOLE
from ssd_jax.data.formats.recognition import find_outer_data_set, import_folder_format_module, recognise_format
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, Source, join_names
from ssd_jax.data.split_names import find_split_name, is_split_name, split_by_hash, split_kind
from ssd_jax.data.splits import JoinedSource, Term, parse_split, slice_positions
from ssd_jax.errors import UserError


@runtime_checkable
class FormatModule(Protocol):
    """Interface of a module that reads data sets that are not folders."""

    def split_names(self, data: Data) -> tuple[str, ...]:
        """Return the names of the splits that `open_split` can open."""
        ...

    def open_split(
        self, data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None
    ) -> Source:
        """Open the split with one of the names in `split_names`. See `open_source` for the arguments and errors."""
        ...


def _import_format_module(name: str) -> FormatModule:
    return cast(FormatModule, importlib.import_module(f"ssd_jax.data.formats.{name}"))


def open_source(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> Source:
    """Open a split of the data set that ``data`` names.

    If the data set is a folder, its annotation files are read by this function, and its images on access. A split may
    have another usual name in the data set (``valid`` for ``val``, see `ssd_jax.data.split_names`). If a folder has no
    splits, its images are divided into train and val by `split_by_hash`. If it has train, but no val, and
    ``data.val_split`` requires val, val is held out of train.

    Args:
        data: Options of the data set, such as ``data.root`` and ``data.format``.
        split: Name of a split, or a specification that joins and slices splits, see `ssd_jax.data.splits`.
        class_names: Class names in the order of their labels, as stored with a run. Empty: the classes of
            the data set. If splits are joined, the classes of the first split are followed by additional classes of
            the other splits.
        problems: Object that collects problems of files and boxes. By default, the first error is raised.

    Returns:
        The images and annotations of the split.

    Raises:
        UserError: If ``data.root`` does not exist or is in no known format, or if the split does not exist or is
            empty. If ``problems`` raises errors, also if a file is malformed or missing, or if a class is not in
            ``class_names``.
    """
    problems = problems or Problems()
    if split in (data.train_split, data.val_split) and _holds_out_of_joined_train(data):
        return _open_part_of_joined_train(data, split, class_names, problems)
    return _open_terms(data, split, class_names, problems)


def _open_terms(data: Data, split: str, class_names: Sequence[str], problems: Problems) -> Source:
    terms = parse_split(split)
    found = [_find_split(data, term) for term in terms]
    sources = [data_set.open(name, class_names, problems) for data_set, name in found]
    positions = [slice_positions(term, len(source)) for term, source in zip(terms, sources, strict=True)]
    if not any(map(len, positions)):
        raise UserError(f"{data.root}: the split '{split}' contains no images.")
    if len(terms) == 1 and len(positions[0]) == len(sources[0]):
        return sources[0]
    return JoinedSource(list(zip(terms, sources, positions, strict=True)))


def _holds_out_of_joined_train(data: Data) -> bool:
    """Return whether there is no val split, and ``data.train_split`` joins splits from which val can be held out."""
    train, val = parse_split(data.train_split), parse_split(data.val_split)
    if is_tfds(data) or len(train) < 2 or len(val) > 1 or val[0].folder or split_kind(val[0].name) != "val":
        return False
    try:
        if any(not data_set.has_split(name) for data_set, name in (_find_split(data, term) for term in train)):
            return False
    except UserError:
        return False  # opening the train split reports the error
    try:
        data_set, name = _find_split(data, val[0])
        return not data_set.has_split(name)
    except UserError:
        return True  # the folder contains data sets in subfolders, but is none itself


def _open_part_of_joined_train(data: Data, split: str, class_names: Sequence[str], problems: Problems) -> Source:
    whole = _open_terms(data, data.train_split, class_names, problems)
    ids = [annotation.image_id for annotation in whole.annotations()]
    in_val = split_by_hash(ids, data.val_fraction)
    wanted = [position for position, is_val in enumerate(in_val) if is_val == (split == data.val_split)]
    part = JoinedSource([(Term("", data.train_split, "", ""), whole, wanted)])
    text = _held_out_text(in_val, data.train_split, data.val_fraction)
    part.notes = (*part.notes, text)
    problems.add(Kind.HELD_OUT, data.root, text)
    return part


def _held_out_text(in_val: Sequence[bool], split: str, fraction: float) -> str:
    place = f" of '{split}'" if split else ""
    return (
        f"there is no val split: {sum(in_val)} of {len(in_val)} images{place} are held out for it "
        f"(--data.val_fraction {fraction:g})"
    )


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits that `open_source` can open. Raises UserError as `find_format` does."""
    return _open_data_set(data, "").available


def missing_split_message(data: Data, split: str) -> str | None:
    """Return a message about the first split in a specification that does not exist, or None if all splits exist."""
    if split == data.val_split and _holds_out_of_joined_train(data):
        return None
    for term in parse_split(split):
        data_set, name = _find_split(data, term)
        if not data_set.has_split(name):
            return data_set.missing_split_message(name)
    return None


def find_format(data: Data) -> str:
    """Return the name of a data set's format: ``shapes``, ``tfds`` or one of `recognition.FOLDER_FORMATS`.

    With ``data.format="auto"``, the format of a folder is recognised by its files.

    Raises:
        UserError: If ``data.root`` is empty, does not exist, or is in no known format.
    """
    return _open_data_set(data, "").format


def is_generated(data: Data) -> bool:
    """Return whether the images of a data set are generated (``shapes``) instead of read from files."""
    return data.format == "shapes" or (data.format == "auto" and data.root == "shapes")


def is_tfds(data: Data) -> bool:
    """Return whether ``data.root`` names a data set of tensorflow-datasets, such as ``tfds:voc/2007``."""
    return data.format == "tfds" or data.root.startswith("tfds:")


def open_defined_splits(data: Data, problems: Problems) -> dict[str, Source]:
    """Open all splits that a data set itself defines, by their names.

    If it has no splits, the only name is `WHOLE`. No images are held out for val. Splits that are made from others,
    such as COCO's minival, are left out.

    Raises:
        UserError: As `open_source` does.
    """
    data_set = _open_data_set(data, "")
    names = tuple(name for name in data_set.names if name not in minival.SPLITS)
    used = "+".join(names) if names and not any(set(name) & set("+/[]") for name in names) else data.train_split
    data_set = _open_data_set(dataclasses.replace(data, train_split=used, val_split=used, test_split=used), "")
    if data_set.divided == WHOLE:
        return {WHOLE: data_set.open_named(names[0] if names else WHOLE, (), problems)}
    return {name: data_set.open_named(name, (), problems) for name in names}


# ---- data sets ----


def _open_data_set(data: Data, subfolder: str) -> "_DataSet":
    """Return the data set in a subfolder of ``data.root``, or in ``data.root`` itself if ``subfolder`` is empty."""
    if is_generated(data) or is_tfds(data):
        part = dataclasses.replace(data, root=f"{data.root}/{subfolder}") if subfolder else data
        return _NamedDataSet(part)
    if not data.root:
        raise UserError("data.root is empty. Give the folder of images and annotations with --data.root FOLDER.")
    root = Path(data.root, subfolder)
    if not root.exists():
        raise UserError(
            f"data.root: the folder '{root}' does not exist. Give an existing folder with --data.root FOLDER, or "
            "--data.root shapes for generated images."
        )
    return _FolderDataSet(data, subfolder, Folder(root))


def _find_split(data: Data, term: Term) -> "tuple[_DataSet, str]":
    """Return the data set that a term names, and the name of the split in it.

    The term ``a/b`` stands for the split ``b`` of the data set in the subfolder ``a`` or, if there is no such split,
    for the split ``a/b`` of the data set in ``data.root``.
    """
    data_set = _open_data_set(data, term.folder)
    if term.folder and not data_set.has_split(term.name):
        outer, name = _open_data_set(data, ""), f"{term.folder}/{term.name}"
        with contextlib.suppress(UserError):
            if name in outer.names:
                return outer, name
    return data_set, term.name


class _DataSet:
    """A data set whose splits can be opened by the names that users give."""

    data: Data
    format: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits that the data set defines."""
        raise NotImplementedError

    @property
    def divided(self) -> str | None:
        """Name of the split that is divided into train and val (`WHOLE` for all images), or None."""
        return None

    @property
    def available(self) -> tuple[str, ...]:
        """Names of the splits that can be opened."""
        if self.divided is None:
            return self.names
        return ("train", "val") if self.divided == WHOLE else (*self.names, "val")

    def has_split(self, split: str) -> bool:
        return self._find(split) is not None or self._is_part(split)

    def open(self, split: str, class_names: Sequence[str], problems: Problems) -> Source:
        name = self._find(split)
        if self._is_part(split) and (name is None or name == self.divided):
            return self._open_part(split, class_names, problems)
        if name is None:
            raise UserError(self.missing_split_message(split))
        return self.open_named(name, class_names, problems)

    def missing_split_message(self, split: str) -> str:
        options = ("train_split", "val_split", "test_split")
        naming = (name for name in options if split in [term.name for term in parse_split(getattr(self.data, name))])
        option = next((f"--data.{name}" for name in naming), "--split")
        return f"{self.data.root}: there is no split '{split}'. Choose one with {option}: {join_names(self.available)}."

    def _find(self, split: str) -> str | None:
        names = self.names
        try:
            return find_split_name(split, names)
        except UserError as error:
            raise UserError(f"{self.data.root}: {error}") from None

    def _is_part(self, split: str) -> bool:
        """Return whether a split is one of the two parts of the split that is divided."""
        return self.divided is not None and split_kind(split) in ("train", "val")

    def _open_part(self, split: str, class_names: Sequence[str], problems: Problems) -> Source:
        raise NotImplementedError

    def open_named(self, name: str, class_names: Sequence[str], problems: Problems) -> Source:
        raise NotImplementedError


class _NamedDataSet(_DataSet):
    """A data set of tensorflow-datasets, or generated images."""

    def __init__(self, data: Data):
        self.data = data
        self.format = "shapes" if is_generated(data) else "tfds"
        self._module = _import_format_module(self.format)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return self._module.split_names(self.data)

    def open_named(self, name: str, class_names: Sequence[str], problems: Problems) -> Source:
        return self._module.open_split(self.data, name, class_names, problems)


class _FolderDataSet(_DataSet):
    """A data set that consists of files in a folder.

    Args:
        data: Options of the data set.
        subfolder: Path of the folder relative to ``data.root``; empty for ``data.root`` itself.
        folder: The folder.
    """

    def __init__(self, data: Data, subfolder: str, folder: Folder):
        self.data = dataclasses.replace(data, root=str(folder.path))
        self._folder, self._subfolder = folder, subfolder
        self.format, self._ignored_formats = recognise_format(self.data, folder)
        self._module = import_folder_format_module(self.format)
        is_whole = self.format in ("ilsvrc", "yolo") or subfolder or folder.path.is_file() or folder.images
        if not is_whole and self._module.count_annotated(folder):
            hint = name_image_without_ending(folder)
            outer = None if hint else find_outer_data_set(folder)
            hint = hint or (f" Did you mean '{outer}'?" if outer else " Give the folder that contains both.")
            raise UserError(f"{folder.path}: it contains annotations, but no images.{hint}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return self._module.split_names(self._folder, self.data)

    @cached_property
    def divided(self) -> str | None:
        if not self.names:
            return WHOLE
        if len(self.names) == 1 and split_kind(self.names[0]) is None:
            return WHOLE  # a list such as default.txt
        has_val = any(split_kind(name) == "val" for name in self.names)
        needs_val = any(
            term.folder == self._subfolder and split_kind(term.name) == "val"
            for term in parse_split(self.data.val_split)
        )
        return self._find("train") if needs_val and not has_val else None

    def open_named(self, name: str, class_names: Sequence[str], problems: Problems) -> Source:
        for other in self._ignored_formats:
            text = f"the folder has annotations in two formats; {self.format.upper()} is used, which has "
            text += f"at least as many annotated images as {other.upper()}. Choose with --data.format"
            problems.add(Kind.TWO_FORMATS, self._folder.path, text)
        for other in self._unused_splits:
            option = f"{split_kind(other) or 'train'}_split"
            text = f"'{other}' (to use it, add it to --data.{option}: '{getattr(self.data, option)}+{other}')"
            problems.add(Kind.UNUSED_SPLIT, self._folder.path, text)
        source = self._module.open_split(self._folder, self.data, name, class_names, problems)
        for path in self._folder.unread:
            problems.add(Kind.PASSED_OVER, self._folder.path, f"{path} was passed over")
        return source

    @cached_property
    def _unused_splits(self) -> list[str]:
        """Splits that no option names, and whose images are missing or are in no split that an option names.

        Lists in ``ImageSets`` are not examined, because the VOC reader reports each image that no used list contains.
        Neither are published data sets, because reading them takes long.
        """
        if self.divided == WHOLE:
            return []
        used = {self.divided}
        for option in (self.data.train_split, self.data.val_split, self.data.test_split):
            for term in parse_split(option):
                with contextlib.suppress(UserError):  # an ambiguous name; opening this split reports it
                    used |= {self._find(term.name), self._find(f"{term.folder}/{term.name}")}
        used_kinds = {split_kind(name) for name in used if name}
        # A run may have no use for val or test, but of two splits of one kind, it should use both.
        others = [
            name
            for name in self.names
            if name not in used and (split_kind(name) in used_kinds or not is_split_name(name))
        ]
        has_lists = any(file.startswith("ImageSets/") for file in self._folder.with_extension(".txt"))
        if not others or has_lists or self._module.count_annotated(self._folder) == PUBLISHED:
            return []
        in_used = set().union(*(self._image_files(name) for name in used if name))
        files = {name: self._image_files(name) for name in others}
        return [name for name in others if not files[name] or not files[name] <= in_used]

    def _image_files(self, split: str) -> set[str]:
        """Return the image files of a split that exists; empty if the split cannot be opened."""
        try:
            source = self._module.open_split(self._folder, self.data, split, (), Problems(raise_errors=False))
        except UserError:
            return set()
        return {annotation.file for annotation in source.annotations()}

    def _open_part(self, split: str, class_names: Sequence[str], problems: Problems) -> Source:
        assert self.divided is not None
        whole = self.open_named(self.divided, class_names, problems)
        assert isinstance(whole, FolderSource)
        in_val = split_by_hash([annotation.image_id for annotation in whole.annotations()], self.data.val_fraction)
        is_val = split_kind(split) == "val"
        part = whole.select(position for position, val in enumerate(in_val) if val == is_val)
        text = _held_out_text(in_val, self.divided, self.data.val_fraction)
        part.notes = (*part.notes, text)
        problems.add(Kind.HELD_OUT, self._folder.path, text)
        if not len(part):
            raise UserError(
                f"{self.data.root}: the split '{split}' is empty. A folder without splits needs at least two annotated "
                "images, for train and val."
            )
        return part
