"""Check a data set before training: find its problems, count its objects, and measure the fit of the default boxes."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ssd_jax.config import Config, Data
from ssd_jax.data.check.box_coverage import BoxCoverage, measure_box_coverage
from ssd_jax.data.formats.open import missing_split_message, open_source
from ssd_jax.data.image import collect_image_notes, mode_and_orientation
from ssd_jax.data.problems import Kind, Problem, Problems
from ssd_jax.data.source import Source, keep_trainable_objects


class SplitCount(NamedTuple):
    """Numbers of images and objects in a split."""

    images: int
    """Number of images."""
    background: int
    """Number of images without objects, or with crowd objects only."""
    objects: dict[str, int]
    """Number of objects of each class, without crowd objects."""


class DataSetCheck(NamedTuple):
    """Result of checking a data set."""

    splits: dict[str, Source]
    """The splits that were checked, by name."""
    problems: list[Problem]
    """Problems of all splits."""
    counts: dict[str, SplitCount]
    """Numbers of images and objects in each split, by its name."""
    coverage: BoxCoverage
    """Fit of the config's default boxes to the objects of the train split."""
    digests: dict[str, bytes]
    """Hash of the pixels of each usable image, by the path of its file. Empty if no images were read."""


def check_data_set(
    config: Config, *, read_images: bool = True, show_progress: bool = False, problems: Problems | None = None
) -> DataSetCheck:
    """Check the data set of a config, and return the result.

    Args:
        config: Config whose data set and default boxes are checked.
        read_images: Whether to decode every image, and to look for images with equal pixels.
        show_progress: Whether to show a progress bar while images are read.
        problems: Object that collects the problems. Pass one to get the problems even if the data set cannot be
            opened and this function raises an error.

    Raises:
        UserError: If there is no train split with usable annotations.
    """
    problems = Problems(raise_errors=False) if problems is None else problems
    splits = open_splits(config, problems)
    check_annotations(splits, config.data, problems)
    digests: dict[str, bytes] = {}
    if read_images:
        total = sum(map(len, splits.values()))
        with tqdm(total=total, unit="image", dynamic_ncols=True, disable=not show_progress) as bar:
            digests = check_images(splits, problems, bar.update)
    counts = {split: count_images_and_objects(source) for split, source in splits.items()}
    coverage = measure_box_coverage(splits[config.data.train_split], config)
    return DataSetCheck(splits, problems.collected, counts, coverage, digests)


def open_splits(config: Config, problems: Problems) -> dict[str, Source]:
    """Open the train, val and test splits of a config with the classes of the train split, and return them by name.

    If the val split is missing and training would need it, a problem is added. The test split may be missing.

    Raises:
        UserError: If the train split cannot be opened.
    """
    data = config.data
    splits = {data.train_split: open_source(data, data.train_split, config.model.class_names, problems)}
    names = splits[data.train_split].class_names
    is_needed = {data.val_split: config.train.eval_every > 0, data.test_split: False}
    for split, needed in is_needed.items():
        if split in splits or not (needed or missing_split_message(data, split) is None):
            continue
        with problems.collect_errors(Kind.MISSING, data.root):
            splits[split] = open_source(data, split, names, problems)
    # If a folder without splits is split by hash, each problem of the folder is found once for each split.
    problems.collected = list(dict.fromkeys(problems.collected))
    return splits


def check_annotations(splits: dict[str, Source], data: Data, problems: Problems) -> None:
    """Add problems for images with too many objects, and for class names that differ only in spelling.

    An image has too many objects if training uses more than ``data.max_objects`` of them.
    """
    for split, source in splits.items():
        for annotation in source.annotations():
            count = len(keep_trainable_objects(annotation, data.train_on_difficult).labels)
            if count > data.max_objects:
                text = f"{count} objects, of which {data.max_objects} fit (data.max_objects), in {split}"
                problems.add(Kind.TOO_MANY, annotation.file, text)
    by_spelling: dict[str, str] = {}
    for name in next(iter(splits.values())).class_names:
        spelling = "".join(letter for letter in name.casefold() if letter.isalnum()) or name
        if spelling in by_spelling:
            text = f"'{by_spelling[spelling]}' and '{name}' are two classes. If they mean the same, give them one name."
            problems.add(Kind.SIMILAR_NAMES, data.root, text)
        by_spelling.setdefault(spelling, name)


class _CheckedImage(NamedTuple):
    digest: bytes | None
    problems: list[Problem]


def check_images(splits: dict[str, Source], problems: Problems, progress: Callable[[int], object]) -> dict[str, bytes]:
    """Decode every image file once, and add problems for images that are unusable, rotated, not RGB or repeated.

    An image is repeated if another file has the same pixels, or if its own file is listed twice.

    Args:
        splits: The splits by name.
        problems: Object that collects the problems.
        progress: Function that is called with the number of images that were just checked.

    Returns:
        Hash of the pixels of each usable image, by the path of its file.
    """
    places: dict[str, list[tuple[str, Source, int]]] = {}
    for split, source in splits.items():
        for index, annotation in enumerate(source.annotations()):
            places.setdefault(annotation.file, []).append((split, source, index))

    def check_file(file: str) -> _CheckedImage:
        _, source, index = places[file][0]
        return _check_image(source, index, file)

    digests: dict[str, bytes] = {}
    first_file: dict[bytes, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for file, checked in zip(places, threads.map(check_file, places), strict=True):
            progress(len(places[file]))
            problems.collected += checked.problems
            own_splits = [split for split, _, _ in places[file]]
            if len(set(own_splits)) > 1:
                problems.add(Kind.TWO_SPLITS, file, f"is in {' and '.join(dict.fromkeys(own_splits))}")
            elif len(own_splits) > 1:
                problems.add(Kind.TWICE, file, f"is in {own_splits[0]} {len(own_splits)} times")
            if checked.digest is None:
                continue
            digests[file] = checked.digest
            twin = first_file.setdefault(checked.digest, file)
            if twin != file:
                twin_splits = [split for split, _, _ in places[twin]]
                kind = Kind.TWICE if set(own_splits) == set(twin_splits) else Kind.TWO_SPLITS
                problems.add(kind, file, f"({own_splits[0]}) has the same pixels as {twin} ({twin_splits[0]})")
    return digests


def _check_image(source: Source, index: int, file: str) -> _CheckedImage:
    problems = Problems(raise_errors=False)
    with problems.collect_errors(Kind.UNREADABLE, file):
        with collect_image_notes() as notes:
            pixels = source.image(index)
        for note in notes:
            problems.add(Kind.INCOMPLETE, file, note)
        if Path(file).is_file():  # generated images and images in a record have no file
            mode, orientation = mode_and_orientation(file)
            if orientation != 1:
                problems.add(Kind.ROTATED, file, f"(orientation {orientation})")
            if mode != "RGB":
                problems.add(Kind.NOT_RGB, file, f"({mode})")
        shape = np.array(pixels.shape, np.int64).tobytes()
        digest = hashlib.blake2b(shape + pixels.tobytes(), digest_size=16).digest()
        return _CheckedImage(digest, problems.collected)
    return _CheckedImage(None, problems.collected)


def count_images_and_objects(source: Source) -> SplitCount:
    """Return the numbers of images, images without objects, and objects of each class in a split.

    Crowd objects are not counted.
    """
    counts = np.zeros(len(source.class_names), np.int64)
    background = 0
    for annotation in source.annotations():
        labels = annotation.labels[~annotation.crowd]
        counts += np.bincount(labels - 1, minlength=len(counts))
        background += len(labels) == 0
    return SplitCount(len(source), background, dict(zip(source.class_names, counts.tolist(), strict=True)))
