"""Check a data set before training: find its problems, count its objects, and measure the fit of the default boxes."""

import hashlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssd_jax.config import Config, Data
from ssd_jax.data.check.box_coverage import BoxCoverage, measure_box_coverage
from ssd_jax.data.check.contents import Place, SplitCount, check_contents, count_images_and_objects
from ssd_jax.data.check.recommendation import Recommendation, find_accelerator, recommend_config
from ssd_jax.data.formats.open import missing_split_message, open_source
from ssd_jax.data.image import collect_image_notes, image_format, mode_and_orientation
from ssd_jax.data.problems import Kind, Problem, Problems
from ssd_jax.data.source import Source, keep_trainable_objects
from ssd_jax.data.splits import select_required_splits
from ssd_jax.runtime import progress


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
    recommendation: Recommendation | None
    """The config that fits the data set best; None if the config is one for published data, see `recommend_config`."""
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
    check_object_counts(splits, config.data, problems)
    counts = {split: count_images_and_objects(source) for split, source in splits.items()}
    check_contents(splits, counts, config, problems)
    check_repeated_files(splits, problems)
    digests: dict[str, bytes] = {}
    if read_images:
        total = sum(map(len, splits.values()))
        with progress.show_progress("reading images", total, enabled=show_progress) as task:
            digests = check_images(splits, problems, task.update)
    train = splits[config.data.train_split]
    recommendation = recommend_config(train, config, has_accelerator=find_accelerator())
    return DataSetCheck(
        splits, problems.collected, counts, measure_box_coverage(train, config), recommendation, digests
    )


def open_splits(config: Config, problems: Problems) -> dict[str, Source]:
    """Open the train, val and test splits of a config with the classes of the train split, and return them by name.

    If the val split is missing and training would need it, a problem is added. The test split may be missing.

    Raises:
        UserError: If the train split cannot be opened.
    """
    data, required = config.data, select_required_splits(config)
    splits = {data.train_split: open_source(required, data.train_split, config.model.class_names, problems)}
    names = splits[data.train_split].class_names
    is_needed = {data.val_split: config.train.eval_every != 0, data.test_split: False}
    for split, needed in is_needed.items():
        if split in splits or not (needed or missing_split_message(required, split) is None):
            continue
        with problems.collect_errors(Kind.UNUSABLE_SPLIT, data.root):
            splits[split] = open_source(required, split, names, problems)
    # If a folder without splits is split by hash, each problem of the folder is found once for each split.
    problems.collected = list(dict.fromkeys(problems.collected))
    return splits


def check_object_counts(splits: dict[str, Source], data: Data, problems: Problems) -> None:
    """Add a problem for each image of which training uses more than ``data.max_objects`` objects."""
    for split, source in splits.items():
        for annotation in source.annotations():
            count = len(keep_trainable_objects(annotation, data.train_on_difficult).labels)
            if count > data.max_objects:
                text = f"{count} objects, of which {data.max_objects} fit (data.max_objects), in {split}"
                problems.add(Kind.TOO_MANY, annotation.file, text)


class _CheckedImage(NamedTuple):
    digest: bytes | None
    problems: list[Problem]


def _group_by_file(splits: dict[str, Source]) -> dict[str, list[Place]]:
    """Return the places of each image in the splits, by the path of its file."""
    places: dict[str, list[Place]] = {}
    for split, source in splits.items():
        for index, annotation in enumerate(source.annotations()):
            places.setdefault(annotation.file, []).append(Place(split, source, index))
    return places


def check_repeated_files(splits: dict[str, Source], problems: Problems) -> None:
    """Add a problem for each image file that is in two splits, or in one split more than once.

    There is only one problem for two splits of which one contains all images of the other, as ``val: images/train`` in
    a YAML file says. A copy without the repeated images would have an empty split.
    """
    places = _group_by_file(splits)
    same = _find_contained_split(places)
    if same is not None:
        inner, outer = same
        text = (
            f"all images of the split '{inner}' are in '{outer}', too, so the metrics would be too high. Use separate "
            f"images, or a part for each: --data.train_split '{outer}[:90%]' --data.val_split '{outer}[90%:]'"
        )
        problems.add(Kind.SAME_SPLITS, next(iter(places)), text)
    for own in places.values():
        names = list(dict.fromkeys(place.split for place in own))
        if same is not None and set(same) >= set(names) and len(own) == len(names):
            continue
        if len(names) > 1:
            _add_repetition(own, Kind.TWO_SPLITS, f"is in {' and '.join(names)}", problems)
        elif len(own) > 1:
            _add_repetition(own, Kind.TWICE, f"is in {names[0]} {len(own)} times", problems)


def _find_contained_split(places: Mapping[str, Sequence[Place]]) -> tuple[str, str] | None:
    """Return the names of a split and of another split that contains all its images, or None.

    Args:
        places: Places of each image file.
    """
    files: dict[str, set[str]] = {}
    for file, own in places.items():
        for place in own:
            files.setdefault(place.split, set()).add(file)
    pairs = itertools.permutations(files, 2)
    return next(((inner, outer) for inner, outer in pairs if files[inner] <= files[outer]), None)


def check_images(splits: dict[str, Source], problems: Problems, progress: Callable[[int], object]) -> dict[str, bytes]:
    """Decode every image file once, and add problems for images that are unusable, rotated, not RGB or repeated.

    An image is repeated if another file has the same pixels.

    Args:
        splits: The splits by name.
        problems: Object that collects the problems.
        progress: Function that is called with the number of images that were just checked.

    Returns:
        Hash of the pixels of each usable image, by the path of its file.
    """
    places = _group_by_file(splits)

    def check_file(file: str) -> _CheckedImage:
        place = places[file][0]
        return _check_image(place.source, place.position, file)

    digests: dict[str, bytes] = {}
    first_file: dict[bytes, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for file, checked in zip(places, threads.map(check_file, places), strict=True):
            progress(len(places[file]))
            problems.collected += checked.problems
            own = places[file]
            own_splits = list(dict.fromkeys(place.split for place in own))
            if checked.digest is None:
                continue
            digests[file] = checked.digest
            twin = first_file.setdefault(checked.digest, file)
            if twin != file:
                twin_splits = list(dict.fromkeys(place.split for place in places[twin]))
                kind = Kind.TWICE if set(own_splits) == set(twin_splits) else Kind.TWO_SPLITS
                text = f"({own_splits[0]}) has the same pixels as {twin} ({twin_splits[0]})"
                _add_repetition([own[0], places[twin][0]], kind, text, problems)
    return digests


def _sort_objects(place: Place) -> list[tuple[str, list[float]]]:
    """Return the class and the box of each object in a fixed order, with boxes rounded to a tenth of a pixel."""
    annotation = place.annotation()
    names = [place.source.class_names[label - 1] for label in annotation.labels]
    return sorted(zip(names, annotation.boxes_px.round(1).tolist(), strict=True))


def _add_repetition(places: Sequence[Place], kind: Kind, text: str, problems: Problems) -> None:
    """Add a problem for an image that is in several places, and say whether its objects differ between them."""
    first, *others = (_sort_objects(place) for place in places)
    has_same_objects = all(objects == first for objects in others)
    start = kind.training_note.partition(";")[0]
    group = "" if has_same_objects else f"{start}, with other objects; check-data --fix joins the objects"
    problems.add(kind, places[0].annotation().file, text, group)


_USUAL_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}


def _check_extension(file: str, problems: Problems) -> None:
    """Add a problem if the name of an image file says that it is of another type than it is."""
    extension = Path(file).suffix.lower()
    file_type = image_format(file)
    is_known = any(extension in extensions for extensions in _USUAL_EXTENSIONS.values())
    if is_known and extension not in _USUAL_EXTENSIONS.get(file_type, (extension,)):
        problems.add(Kind.OTHER_TYPE, file, f"({file_type})", f"{file_type} files are named {extension}")


def _check_image(source: Source, index: int, file: str) -> _CheckedImage:
    problems = Problems(raise_errors=False)
    with problems.collect_errors(Kind.UNREADABLE, file):
        with collect_image_notes() as notes:
            pixels = source.image(index)
        for note in notes:
            problems.add(Kind.INCOMPLETE, file, note)
        if Path(file).is_file():  # generated images and images in a record have no file
            mode, orientation = mode_and_orientation(file)
            _check_extension(file, problems)
            if orientation != 1:
                problems.add(Kind.ROTATED, file, f"(orientation {orientation})")
            if mode != "RGB":
                problems.add(Kind.NOT_RGB, file, f"({mode})")
        shape = np.array(pixels.shape, np.int64).tobytes()
        digest = hashlib.blake2b(shape + pixels.tobytes(), digest_size=16).digest()
        return _CheckedImage(digest, problems.collected)
    return _CheckedImage(None, problems.collected)
