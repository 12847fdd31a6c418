"""Convert any data set that can be read into another format.

A new folder is built beside its final place, under a name that ends in ``.unfinished``, and renamed at the end, so that
a conversion that was interrupted does not look complete.
"""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_defined_splits
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import Annotation, Source
from ssd_jax.data.split_names import split_by_hash, split_kind
from ssd_jax.data.writers.folders import CocoWriter, Entry, FolderWriter, VocWriter, YoloWriter
from ssd_jax.data.writers.images import ImageMode, ImagePlacer, NameBook
from ssd_jax.errors import UserError
from ssd_jax.files import convert_write_errors, make_safe_file_name, write_text

Target = Literal["voc", "coco", "yolo", "tfds"]
_MARK = "convert.json"
"""File in an unfinished folder by which it is recognised as one of this program."""
_ADVICE = "Name a new folder with --out."


class Conversion(NamedTuple):
    """Result of a conversion."""

    counts: dict[str, tuple[int, int]]
    """Number of images and objects by split. The name is empty for a data set without splits."""
    notes: list[str]
    """Sentences about what could not be written as it is in the original."""
    root: str
    """Value of ``data.root`` for the new data set."""


def convert_data_set(
    data: Data,
    target: Target,
    out: Path,
    *,
    images: ImageMode = "hardlink",
    problems: Problems | None = None,
    progress: Callable[[int], object] = lambda count: None,
    started: Callable[[int], object] = lambda count: None,
) -> Conversion:
    """Write a data set in another format.

    All splits that the data set defines are written, with their class names, boxes and flags. A data set without splits
    stays without; for tensorflow-datasets, which needs splits, val is held out of train as in training.

    Args:
        data: Options of the data set, such as ``data.root``.
        target: Format to write.
        out: New folder. An empty folder is replaced.
        images: How images are put into the folder. They are always copied into ArrayRecord files.
        problems: Object that collects the warnings and notes of the data set.
        progress: Function that is called with the number of images that were just written.
        started: Function that is called with the number of all images before the first one is written.

    Raises:
        UserError: If the data set has an error, so that objects would be missing from the copy, or if the folder is
            not empty or cannot be written.
    """
    problems = problems or Problems(raise_errors=False)
    check_new_folder(out, Path(data.root))
    sources = open_defined_splits(data, problems)
    problems.collected = list(dict.fromkeys(problems.collected))  # splits may share files
    problems.raise_collected_errors()
    if target == "tfds" and "" in sources:
        positions = _hold_out(sources[""], data.val_fraction)
        sources = {split: sources[""] for split in positions}
    else:
        positions = {split: list(range(len(source))) for split, source in sources.items()}
    class_names, category_ids = _join_classes(list(sources.values()))
    started(sum(map(len, positions.values())))
    names = _name_splits(list(sources), target)
    work = out.with_name(f"{out.name}.unfinished")
    key = _fingerprint(data, target, class_names, sources) if target == "tfds" else ""
    _prepare_work_folder(work, key)
    try:
        if target == "tfds":
            return _convert_to_records(sources, positions, names, class_names, work, out, data, progress)
        writer = _open_writer(target, work, class_names, category_ids)
        placer = ImagePlacer(images, states_sizes=writer.states_sizes)
        try:
            _write_folders(writer, placer, sources, names, class_names, progress)
        except BaseException:
            writer.close()  # an open file cannot be removed on Windows
            raise
    except BaseException:
        if target != "tfds":
            shutil.rmtree(work, ignore_errors=True)
        raise
    _move_into_place(work, out)
    notes = [f"{count} {phrase}" for phrase, count in writer.notes.items()]
    if placer.copied:
        notes.append(f"{placer.copied} images were copied, since they cannot be linked to this folder")
    if placer.encoded:
        notes.append(f"{placer.encoded} images were written as PNG files")
    return Conversion(_count(sources, positions, names), notes, str(out))


def check_new_folder(out: Path, root: Path) -> None:
    """Check that a folder for a converted data set is new or empty, and not inside the original.

    Raises:
        UserError: If it is not.
    """
    with convert_write_errors(out, _ADVICE):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out: {out} is not empty. {_ADVICE}")
    if root.is_dir() and out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"--out: {out} is inside the data set, {root}. {_ADVICE}")


def _open_writer(target: Target, out: Path, class_names: Sequence[str], category_ids: Sequence[int]) -> FolderWriter:
    if target == "coco":
        return CocoWriter(out, class_names, category_ids)
    return VocWriter(out, class_names) if target == "voc" else YoloWriter(out, class_names)


def _write_folders(
    writer: FolderWriter,
    placer: ImagePlacer,
    sources: Mapping[str, Source],
    names: Mapping[str, str],
    class_names: Sequence[str],
    progress: Callable[[int], object],
) -> None:
    """Write all splits. An image that is in several splits of a VOC folder is written once."""
    books: dict[Path, NameBook] = {}
    counts = Counter(annotation.file for source in sources.values() for annotation in source.annotations())
    shared = {file for file, count in counts.items() if count > 1}
    del counts
    known: dict[tuple[Path, str], tuple[str, Annotation]] = {}
    for split, source in sources.items():
        new_label = _map_labels(source, class_names)
        folder = writer.image_folder(names[split])
        with convert_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        writer.start_split(names[split])
        for index in range(len(source)):
            annotation = source.annotation(index)
            labels = [new_label[label] for label in annotation.labels.tolist()]
            key = folder, annotation.file
            earlier = known.get(key)
            if earlier is not None and _has_same_objects(annotation, earlier[1]):
                image = earlier[0]
            else:
                stem = books.setdefault(folder, NameBook()).choose(annotation)
                image = placer.place(source, index, annotation, folder, stem)
                if annotation.file in shared:
                    known[key] = image, annotation
            writer.write(Entry(annotation, labels, image))
            progress(1)
        writer.finish_split()


def _has_same_objects(one: Annotation, other: Annotation) -> bool:
    return np.array_equal(one.boxes_px, other.boxes_px) and np.array_equal(one.labels, other.labels)


def _convert_to_records(
    sources: Mapping[str, Source],
    positions: Mapping[str, Sequence[int]],
    names: Mapping[str, str],
    class_names: Sequence[str],
    work: Path,
    out: Path,
    data: Data,
    progress: Callable[[int], object],
) -> Conversion:
    from ssd_jax.data.writers.array_records import ArrayRecordWriter

    stem = re.sub(r"[^a-z0-9]+", "_", Path(data.root).name.lower()).strip("_")
    name = stem if re.match(r"[a-z]", stem) else f"set_{stem}".rstrip("_")
    writer = ArrayRecordWriter(work, name, class_names)
    for split, source in sources.items():
        writer.write_split(names[split], source, _map_labels(source, class_names), positions[split], progress)
    writer.finish()
    _move_into_place(work, out)
    notes = [f"{count} {phrase}" for phrase, count in writer.notes.items()]
    if writer.encoded:
        notes.append(
            f"{writer.encoded} images were written as PNG, since they were rotated, not RGB, or no JPEG or PNG"
        )
    return Conversion(_count(sources, positions, names), notes, f"tfds:{name}")


# ---- classes, splits and counts ----


def _join_classes(sources: Sequence[Source]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the class names of all splits, and a COCO category id for each: the original one if it is unique."""
    names = tuple(dict.fromkeys(name for source in sources for name in source.class_names))
    ids: dict[str, set[int]] = {name: set() for name in names}
    for source in sources:
        for name, number in zip(source.class_names, source.category_ids or (), strict=False):
            ids[name].add(number)
    numbers = [next(iter(own)) for own in ids.values() if len(own) == 1]
    is_unique = len(numbers) == len(names) == len(set(numbers)) and min(numbers, default=-1) >= 0
    return names, tuple(numbers) if is_unique else tuple(range(1, len(names) + 1))


def _map_labels(source: Source, class_names: Sequence[str]) -> dict[int, int]:
    new = {name: label for label, name in enumerate(class_names, start=1)}
    return {label: new[name] for label, name in enumerate(source.class_names, start=1)}


def _name_splits(splits: Sequence[str], target: Target) -> dict[str, str]:
    """Return the names of the splits in the new data set; for tensorflow-datasets, only letters, digits and ``_``."""
    kinds = [split_kind(split) for split in splits]
    names: dict[str, str] = {}
    for split, kind in zip(splits, kinds, strict=True):
        name = make_safe_file_name(split) if split else ""
        if target == "tfds":
            name = kind if kind and kinds.count(kind) == 1 else re.sub(r"\W", "_", name)
        while name in names.values():
            name += "_2"
        names[split] = name
    return names


def _hold_out(source: Source, fraction: float) -> dict[str, list[int]]:
    in_val = split_by_hash([annotation.image_id for annotation in source.annotations()], fraction)
    parts = {"train": False, "val": True}
    return {split: [k for k, val in enumerate(in_val) if val == is_val] for split, is_val in parts.items()}


def _count(
    sources: Mapping[str, Source], positions: Mapping[str, Sequence[int]], names: Mapping[str, str]
) -> dict[str, tuple[int, int]]:
    return {
        names[split]: (len(positions[split]), sum(len(source.annotation(k).labels) for k in positions[split]))
        for split, source in sources.items()
    }


# ---- the unfinished folder ----


def _fingerprint(data: Data, target: str, class_names: Sequence[str], sources: Mapping[str, Source]) -> str:
    """Return a hash of all annotations, by which an interrupted conversion of the same data set is recognised."""
    digest = hashlib.blake2b(repr((os.path.abspath(data.root), target, class_names)).encode(errors="replace"))
    for split, source in sources.items():
        digest.update(split.encode())
        for annotation in source.annotations():
            digest.update(repr((annotation.file, annotation.labels.tolist())).encode(errors="replace"))
            digest.update(annotation.boxes_px.tobytes())
    return digest.hexdigest()[:32]


def _prepare_work_folder(work: Path, key: str) -> None:
    """Make an unfinished folder, or keep that of an interrupted conversion with the same key.

    Raises:
        UserError: If there is a folder of this name that is not an unfinished conversion.
    """
    mark = work / _MARK
    with convert_write_errors(work, _ADVICE):
        if work.exists():
            if not mark.exists() and any(work.iterdir()):
                raise UserError(
                    f"{work} exists, and is not an unfinished conversion. Remove it, or name another --out."
                )
            if mark.exists() and key and json.loads(mark.read_text("utf-8")).get("key") == key:
                return
            shutil.rmtree(work)
        work.mkdir(parents=True)
    write_text(mark, json.dumps({"key": key}))


def _move_into_place(work: Path, out: Path) -> None:
    with convert_write_errors(out, _ADVICE):
        (work / _MARK).unlink()
        if out.exists():
            out.rmdir()
        os.replace(work, out)


def describe_next(target: Target, conversion: Conversion, out: Path) -> str:
    """Return the options that name a converted data set in other commands."""
    folder = f" --data.tfds_dir {out}" if target == "tfds" else ""
    return f"--data.root {conversion.root}{folder}"
