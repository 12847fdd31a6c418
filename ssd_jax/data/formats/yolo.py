"""Read data sets in YOLO's text format, with one label file per image and one line per object.

Format: https://docs.ultralytics.com/datasets/detect. `ssd_jax.data.formats.yolo_labels` describes the lines. Class
numbers are converted to class names, which are read from a YAML file or from a list of names.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from ssd_jax.config import Data
from ssd_jax.data.folder import (
    AmbiguousPathError,
    Folder,
    group_by_stem,
    list_files,
    lowest,
    parent,
    spelling_key,
    stem,
)
from ssd_jax.data.formats.layout import describe_layout, folder_distance, is_side_folder
from ssd_jax.data.formats.other_formats import (
    find_sidecar_files,
    name_other_files,
    name_other_format,
    report_sidecar_files,
)
from ssd_jax.data.formats.reader import SplitBuilder
from ssd_jax.data.formats.signs import find_sign
from ssd_jax.data.formats.yolo_classes import read_classes
from ssd_jax.data.formats.yolo_labels import have_keypoints, looks_like_label_file, read_objects
from ssd_jax.data.formats.yolo_yaml import find_yaml_file, find_yaml_places, join_paths
from ssd_jax.data.image import EXTENSIONS, image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, join_names, read_text
from ssd_jax.data.split_names import is_split_name, split_kind, split_of_path
from ssd_jax.errors import UserError
from ssd_jax.portability import make_relative_path

LAYOUT = "a .yaml file with the key 'names', or .txt labels with the names of the images"

_IMAGE_FOLDERS = ("images", "jpegimages")  # folders whose labels may be in a folder labels/ with the same parent
_SNIFFED_FILES = 20  # label files that are examined to recognise the format
_KEYPOINT_FILES = 200  # label files that are examined to recognise keypoints
_MANY_UNLABELLED = 0.1  # share of images without a label file above which there is a warning


def count_annotated(folder: Folder) -> int:
    """Return the number of images with a label file. A YAML file that names classes counts as one image at least."""
    if folder.path.is_file():
        return int(folder.path.suffix.lower() in (".yaml", ".yml"))
    files = [file for file in folder.with_extension(".txt") if folder.images_named(stem(file))]
    if any(looks_like_label_file(folder.full_path(file)) for file in islice(files, _SNIFFED_FILES)):
        return len(files)
    has_lists = bool(_find_lists(folder)) and not folder.with_extension(".xml")  # VOC has such lists, too
    return int(has_lists or _has_yaml_file(folder))


def _has_yaml_file(folder: Folder) -> bool:
    try:
        return find_yaml_file(folder) is not None
    except UserError:
        return True  # opening the data set reports the error


def split_names(folder: Folder, data: Data) -> tuple[str, ...]:
    """Return the names of the splits of a data set; empty if it has none."""
    return tuple(_find_splits(folder))


def open_split(folder: Folder, data: Data, split: str, class_names: Sequence[str], problems: Problems) -> FolderSource:
    """Open a split of a folder in YOLO's format, reading all its label files and the headers of its images.

    Classes and splits: a YAML file names the classes and the splits; each split is a folder of images, a .txt list of
    images, or a list of such folders and files. Without a YAML file, classes are named by ``classes.txt``,
    ``names.txt``, ``*.names`` or ``_darknet.labels``, and a split consists of the images in folders with its name, such
    as ``images/train``, ``train/images`` or ``train``, or in a list such as ``train.txt``.

    Labels: the path of a label file is that of the image, with the folder ``images`` or ``JPEGImages`` replaced
    by ``labels``; or the label file is in the folder of the image, or in the closest other folder (see
    `ssd_jax.data.formats.layout`). An image without a label file, or with an empty one, has no objects.

    Args:
        folder: The folder of the data set, or of its YAML file.
        data: Options of the data set.
        split: Name of the split, or an empty text for all images.
        class_names: Class names in the order of their labels. Empty: the class names of the data set, in the order of
            their numbers.
        problems: Object that collects errors and warnings.

    Raises:
        UserError: If the split has no label file at all, or if no file names the classes. If ``problems`` raises
            errors, also if a line is malformed, a class has no name, an image is unreadable, or an image of a list is
            missing.
    """
    classes = read_classes(folder, problems)
    finder = _LabelFinder(folder)
    splits = _find_splits(folder)
    places = splits[split] if split else [folder.root]
    images = _find_images(folder, split, places, problems)
    labels: dict[Path, Path | None] = {}
    for image in images:
        with problems.collect_errors(Kind.MALFORMED, image):
            labels[image] = finder.find(image)
    if not split:
        labels = _keep_labelled_folders(labels, folder, problems)
    labels = _leave_out_masks(labels, problems)
    labels = _leave_out_other_formats(labels, folder, problems)
    _check_label_files(folder, split, places, labels, finder, problems)
    label_files = [file for file in labels.values() if file]
    text = "the labels are boxes with keypoints; the keypoints are ignored"
    if not classes.has_keypoints and have_keypoints(islice(label_files, _KEYPOINT_FILES)):
        classes = classes._replace(has_keypoints=True)
        text = text.replace("are", "look like", 1)
    if classes.has_keypoints:
        problems.add(Kind.LAYOUT, folder.root, text, group=text)
    builder = SplitBuilder(class_names or tuple(classes.names.values()), problems, box_format="cxcywh", place=places[0])
    ids = _image_ids(folder, {image: images[image] for image in labels}, listed=any(map(os.path.isfile, places)))
    for image, label_file in labels.items():
        if label_file is None:
            problems.add(Kind.NO_LABELS, image, "")
        with problems.collect_errors(Kind.UNREADABLE, image):
            size = image_size(image)
            objects = read_objects(label_file, classes, size, problems) if label_file else []
            builder.add(ids[image], image, size, objects, file=label_file or image)
    _report_yaml_places(folder, classes.file, problems)
    _report_unused(folder, splits, split, labels, finder, problems)
    return builder.build()


# ---- finding splits ----


def _find_splits(folder: Folder) -> dict[str, list[Path]]:
    """Return the folders and .txt lists with the images of each split, by the name of the split; empty without splits.

    Splits of a YAML file that do not exist are left out, except for train.
    """
    splits = {name: [place.path for place in places] for name, places in find_yaml_places(folder).items()}
    if not any(_all_exist(places) for places in splits.values()):
        return _find_folder_splits(folder) or splits
    return {key: places for key, places in splits.items() if split_kind(key) == "train" or _all_exist(places)}


def _all_exist(places: Iterable[Path]) -> bool:
    return all(os.path.exists(place) for place in places)


def _find_folder_splits(folder: Folder) -> dict[str, list[Path]]:
    """Return the folders or the .txt list of each split, as `_find_splits` does, for a folder without a YAML file."""
    splits: dict[str, dict[Path, None]] = {}
    for place in sorted(set(map(parent, folder.images))):
        name = split_of_path(place)
        if name is not None and not is_side_folder(place):
            top = place.split("/")[: place.split("/").index(name) + 1]
            splits.setdefault(name, {})[folder.full_path("/".join(top))] = None
    lists = _find_lists(folder)
    if lists and len(lists) >= len(splits):  # in CVAT's exports, the images of all lists are in obj_train_data
        return {name: [folder.full_path(file)] for name, file in lists.items()}
    return {name: list(places) for name, places in splits.items()}


def _find_lists(folder: Folder) -> dict[str, str]:
    """Return the relative paths of the .txt files with the name of a split and a first line that names an image."""
    files = [file for file in folder.with_extension(".txt") if is_split_name(stem(file))]
    files = [file for file in files if _lists_images(folder.full_path(file))]
    depth = min((file.count("/") for file in files), default=0)
    return {stem(file): file for file in files if file.count("/") == depth}


def _lists_images(file: Path) -> bool:
    if find_sign(file) is not None:
        return False  # such as WIDER FACE's annotations
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return stream.readline(4000).strip().lower().endswith(EXTENSIONS)
    except OSError:
        return False


# ---- images ----


def _find_images(folder: Folder, split: str, places: Sequence[Path], problems: Problems) -> dict[Path, Path]:
    """Return the path of each image of a split, with the place that contains or lists it.

    The images of a folder are sorted; those of a list are in the order of the list.
    """
    images: dict[Path, Path] = {}
    for place in places:
        if os.path.isdir(place):
            images |= dict.fromkeys(_images_in(folder, place), place)
        elif os.path.isfile(place) and place.name.lower().endswith(EXTENSIONS):
            images[place] = place.parent
        elif _is_list(place):
            images |= dict.fromkeys(_read_image_list(folder, place, problems), place.parent)
        else:
            raise UserError(
                f"{folder.path}: '{split}' in the YAML file is neither a folder nor a .txt list of images: {place}. "
                "Correct it; paths are relative to 'path', or to the YAML file."
            )
    if not images:
        what = f"the split '{split}'" if split else "it"
        raise UserError(f"{folder.path}: {what} contains no images.")
    return images


def _is_list(place: Path) -> bool:
    return os.path.isfile(place) and place.suffix.lower() == ".txt"


def _images_in(folder: Folder, place: Path) -> list[Path]:
    if place.is_relative_to(folder.root):
        prefix = place.relative_to(folder.root).as_posix()
        inside = "" if prefix == "." else f"{prefix}/"
        return [folder.full_path(image) for image in folder.images if image.startswith(inside)]
    return [place / file for file in list_files(place).files if file.lower().endswith(EXTENSIONS)]


def _read_image_list(folder: Folder, file: Path, problems: Problems) -> list[Path]:
    """Return the paths of the existing images in a list.

    The list may have been made on another machine, so an image is also found by the end of its path. A missing image
    becomes a problem.
    """
    images = []
    lines = enumerate(read_text(file).splitlines(), start=1)
    for number, line in ((number, line.strip()) for number, line in lines if line.strip()):
        exact = join_paths(file.parent, line.replace("\\", "/"))
        if os.path.isfile(exact):
            images.append(exact)
            continue
        tail = folder.find_image(line)
        if tail is None:
            closest = folder.image_with_most_similar_name(line)
            hint = f" The most similar name is {closest}." if closest else ""
            text = f"the image '{line}' is missing.{hint} Add it, or remove the line from the list."
            problems.add(Kind.MISSING, f"{file} line {number}", text)
        else:
            images.append(folder.full_path(tail))
    return images


def _image_ids(folder: Folder, images: Mapping[Path, Path], *, listed: bool) -> dict[Path, str]:
    """Return an id for each image: its path relative to its place (see `_find_images`), without extension.

    If all images of a place that is not a list are in its subfolder ``images``, the path is relative to the subfolder.
    """
    starts = {}
    for place in set(images.values()):
        own = [image for image, other in images.items() if other == place]
        inner = place / "images"
        starts[place] = inner if not listed and all(image.is_relative_to(inner) for image in own) else place
    ids = [os.path.splitext(make_relative_path(image, starts[place]))[0] for image, place in images.items()]
    if len(set(ids)) < len(ids):  # some images differ only by their extension or their folder
        ids = [make_relative_path(image, folder.root) for image in images]
    return dict(zip(images, ids, strict=True))


# ---- label files ----


class _LabelFinder:
    """Finds the label files of images.

    Args:
        folder: Folder of the data set.
    """

    def __init__(self, folder: Folder):
        self._folder = folder
        self._by_stem = group_by_stem(folder.with_extension(".txt"))

    def expected_files(self, image: Path) -> list[Path]:
        """Return the usual paths of the label file of an image."""
        parts = image.parent.parts
        folders = [image.parent]
        for position in reversed(range(len(parts))):
            if parts[position].lower() in _IMAGE_FOLDERS:
                folders.insert(0, Path(*parts[:position], "labels", *parts[position + 1 :]))
                break
        return [folder / f"{image.stem}.txt" for folder in folders]

    def find(self, image: Path) -> Path | None:
        """Return the label file of an image, or None if there is none.

        Raises:
            UserError: If the label files in two folders fit equally well.
        """
        usual = next((file for file in self.expected_files(image) if os.path.isfile(file)), None)
        if usual is not None or not image.is_relative_to(self._folder.root):
            return usual
        place = image.parent.relative_to(self._folder.root).as_posix().removeprefix(".")
        own_split = split_of_path(place)
        same_name = self._by_stem.get(spelling_key(image.stem)) or self._by_stem.get(spelling_key(image.name), [])
        candidates = [
            file for file in same_name if split_of_path(parent(file)) in (own_split, None) or own_split is None
        ]
        candidates = [file for file in candidates if self._is_label_file(self._folder.full_path(file))]
        if not candidates:
            return None
        try:
            return self._folder.full_path(lowest(candidates, lambda file: folder_distance(place, parent(file))))
        except AmbiguousPathError as error:
            raise UserError(
                f"{image}: its label file may be any of {join_names(error.choices)}. Remove or rename the folders that "
                "do not belong to the images."
            ) from None

    def _is_label_file(self, path: Path) -> bool:
        return looks_like_label_file(path) or path.stat().st_size == 0

    def unused(self, used: Iterable[Path]) -> list[Path]:
        """Return the label files that are not among the given ones.

        Files in other folders than the given ones count only if there is an image of the same name.
        """
        known = set(used)
        places = {file.parent for file in known}
        files = (self._folder.full_path(file) for files in self._by_stem.values() for file in files)
        return sorted(
            file
            for file in files
            if file not in known
            and (file.parent in places or self._folder.images_named(file.stem))
            and looks_like_label_file(file)
        )


def _keep_labelled_folders(
    labels: dict[Path, Path | None], folder: Folder, problems: Problems
) -> dict[Path, Path | None]:
    """Return the images in folders that contain a labelled image, and in a folder ``images`` at the top.

    Images in other folders may be results or drawings. They become a problem.
    """
    places = {image.parent for image, file in labels.items() if file is not None}
    top = folder.root / "images"
    kept = {image: file for image, file in labels.items() if image.parent in places or image.is_relative_to(top)}
    others: dict[Path, int] = {}
    for image in labels:
        if image not in kept:
            others[image.parent] = others.get(image.parent, 0) + 1
    for place, count in others.items():
        problems.add(Kind.PASSED_OVER, place, f"contains {count} images, but no image with a label file")
    return kept or labels


def _leave_out_masks(labels: dict[Path, Path | None], problems: Problems) -> dict[Path, Path | None]:
    """Return the images without those that share their label file with a closer image.

    An image that shares it is a mask or a drawing if it is in the same folder as the other image, or in a folder with
    such a name. Otherwise it is another image, and the label file is not its own.
    """
    owners: dict[Path, Path] = {}
    for image, file in labels.items():
        if file is not None:
            owner = owners.setdefault(file, image)
            if _closeness_key(file, image) < _closeness_key(file, owner):
                owners[file] = image
    kept: dict[Path, Path | None] = {}
    for image, file in labels.items():
        owner = image if file is None else owners[file]
        if owner == image:
            kept[image] = file
        elif owner.parent == image.parent or is_side_folder(image.parent.name):
            problems.add(Kind.SAME_NAME, image, f"has the same name as {owner.name}, so it is taken for a mask")
        else:
            kept[image] = None
    return kept


def _leave_out_other_formats(
    labels: dict[Path, Path | None], folder: Folder, problems: Problems
) -> dict[Path, Path | None]:
    """Return the images without those that have no label file, but an annotation file of a program such as labelme.

    Such an image has objects, and must not count as an image without objects.
    """
    unlabelled = {
        image.relative_to(folder.root).as_posix(): image
        for image, file in labels.items()
        if file is None and image.is_relative_to(folder.root)
    }
    found = find_sidecar_files(folder, unlabelled)
    report_sidecar_files(folder, found, problems)
    left_out = {unlabelled[image] for image in found}
    return {image: file for image, file in labels.items() if image not in left_out} or labels


def _closeness_key(label_file: Path, image: Path) -> tuple[tuple[int, int], bool, str]:
    distance = folder_distance(label_file.parent.as_posix(), image.parent.as_posix())
    return distance, image.suffix.lower() not in (".jpg", ".jpeg"), image.name


def _check_label_files(
    folder: Folder,
    split: str,
    places: Sequence[Path],
    labels: Mapping[Path, Path | None],
    finder: _LabelFinder,
    problems: Problems,
) -> None:
    """Add a problem if many images have no label file.

    Raises:
        UserError: If no image has a label file.
    """
    unlabelled = [image for image, file in labels.items() if file is None]
    if not unlabelled:
        return
    expected = " or ".join(map(str, finder.expected_files(unlabelled[0])))
    expected = f"The label file of {unlabelled[0]} would be {expected}."
    if len(unlabelled) == len(labels):
        of_split = f" of '{split}'" if split else ""
        others = name_other_format(folder) or name_other_files(folder)
        text = f"none of the {len(labels)} images{of_split} has a label file. {expected} {others}"
        raise UserError(f"{folder.path}: {text.rstrip()}")
    if len(unlabelled) > _MANY_UNLABELLED * len(labels):
        text = f"{len(unlabelled)} of {len(labels)} images have no label file. {expected}"
        problems.add(Kind.FEW_LABELS, places[0], text)


def _report_yaml_places(folder: Folder, file: Path, problems: Problems) -> None:
    """Add problems for the paths in a YAML file that do not exist as they are written."""
    for name, places in find_yaml_places(folder).items():
        for place in places:
            if split_kind(name) == "test" and not os.path.exists(place.path):
                continue  # Roboflow names test even if it was not exported
            if not os.path.exists(place.path):
                text = f"the split '{name}' is in {place.path}, which does not exist"
                problems.add(Kind.MISSING_SPLIT, file, text)
            elif place.is_moved:
                problems.add(
                    Kind.NAME_DIFFERS, file, f"'{place.entry}' is {make_relative_path(place.path, folder.root)}"
                )


def _report_unused(
    folder: Folder,
    splits: Mapping[str, Sequence[Path]],
    split: str,
    labels: Mapping[Path, Path | None],
    finder: _LabelFinder,
    problems: Problems,
) -> None:
    """Add problems for label files without an image, and for labelled images that are in no split."""
    in_splits: set[Path] = set()
    silent = Problems(raise_errors=False)
    for name, places in splits.items():
        if all(os.path.isdir(place) or _is_list(place) for place in places):
            in_splits |= set(_find_images(folder, name, places, silent))
    used = [file for file in labels.values() if file is not None]
    others = {file for image in in_splits if (file := finder.find(image)) is not None}
    for file in finder.unused(used):
        if file in others:
            continue
        named = [folder.full_path(image) for image in folder.images_named(file.stem)]
        own = [image for image in named if finder.find(image) == file]
        if named and splits:
            problems.add(Kind.IN_NO_SPLIT, (own or named)[0], "")
        elif not named:
            text = f"its image is missing: no image is named '{file.stem}'"
            problems.add(Kind.NO_IMAGE, file, text)
    label_files = [make_relative_path(file, folder.root) for file in used]
    images = [make_relative_path(image, folder.root) for image, file in labels.items() if file is not None]
    layout = describe_layout(label_files, images, "YOLO labels")
    if layout:
        problems.add(Kind.LAYOUT, folder.root, layout, group=layout)
