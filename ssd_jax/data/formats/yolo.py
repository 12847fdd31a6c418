"""Read data sets in YOLO's text format, with one label file per image and one line per object.

Format: https://docs.ultralytics.com/datasets/detect. A line contains the number of a class, followed by the centre x,
centre y, width and height of the box, normalised to the upright image. Boxes are converted to xyxy in pixels. A polygon
(the number of a class, followed by x and y of at least three points) is converted to its bounding box. Class numbers
are converted to class names, which are read from a YAML file or from a list of names.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ssd_jax.config import Data
from ssd_jax.data.formats.reader import HASHED_SPLITS, SplitBuilder, find_split, select_by_hash
from ssd_jax.data.image import EXTENSIONS, image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, RawObject, is_split_name, join_names, path_suffixes, read_text
from ssd_jax.errors import UserError

LAYOUT = "a .yaml file with the key 'names', or .txt labels in labels/ or next to the images"

_ALL_IMAGES = ""  # key in place of the name of a split, for the images of a folder that are to be split by hash
_IMAGE_FOLDERS = ("images", "JPEGImages")  # folders whose labels may be in a folder labels/ with the same parent
_YAML = (".yaml", ".yml")
_NAME_LISTS = ("classes.txt", "names.txt", "*.names", "_darknet.labels")
_TOLERANCE = 0.01  # coordinates may be outside [0, 1] by this much, as in Ultralytics' software
_ROUNDING = 1e-4  # maximum rounding error of normalised coordinates, which are written with at least four decimals


class _Classes(NamedTuple):
    file: Path
    """File that names the classes."""
    names: dict[int, str]
    """Class name by class number."""
    has_keypoints: bool = False
    """True if keypoints follow the box in each line."""


class _Label(NamedTuple):
    """Content of a line of a label file."""

    class_number: int
    box: tuple[float, float, float, float]
    """Centre x, centre y, width and height, normalised to the image."""


def matches(root: Path) -> bool:
    """Return whether a path is a YAML file, or a folder in YOLO's format.

    Such a folder contains a YAML file that names classes, or images with label files.
    """
    if _yaml_files(root):
        return True
    return any(_has_labels(root, place) for places in _find_folder_splits(root).values() for place in places)


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits that `open_split` can open."""
    splits = _find_splits(Path(data.root))
    if set(splits) == {_ALL_IMAGES}:
        return HASHED_SPLITS
    return tuple(name for name, places in splits.items() if all(place.exists() for place in places))


def open_split(
    data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None
) -> FolderSource:
    """Open a split of a folder in YOLO's format, reading all its label files and the headers of its images.

    Classes and splits: a YAML file, in the folder or given as ``data.root``, names the classes and the splits; each
    split is a folder of images, a .txt list of images, or a list of such folders and files. Without a YAML file,
    classes are named by ``classes.txt``, ``names.txt``, ``*.names`` or ``_darknet.labels``, and a split is the folder
    ``images/<split>``, the folder ``<split>/images``, the list ``<split>.txt``, or the folder ``<split>`` with both
    images and labels. If there are no splits, images are assigned to train and val by `split_by_hash`.

    Labels: the path of a label file is that of the image, with the folder ``images`` or ``JPEGImages`` replaced
    by ``labels``; or the label file is in the folder of the image. An image without a label file, or with an empty one,
    has no objects.

    Args:
        data: ``data.root`` is the folder or its YAML file.
        split: Name of the split.
        class_names: Class names in the order of their labels. Empty: the class names of the data set, in the order of
            their numbers.
        problems: Object that collects errors and warnings. By default, the first error is raised.

    Raises:
        UserError: If the split does not exist or has no label file at all, or if no file names the classes. If
            ``problems`` raises errors, also if a line is malformed, a class has no name, an image is unreadable, or an
            image of a list or of a label file is missing.
    """
    root, problems = Path(data.root), problems or Problems()
    splits, classes = _find_splits(root), _read_classes(root)
    hashed = set(splits) == {_ALL_IMAGES}
    name = find_split(root, split, HASHED_SPLITS if hashed else tuple(splits))
    places = splits[_ALL_IMAGES if hashed else name]
    images = _find_images(root if root.is_dir() else root.parent, name, places, problems)
    label_files = {image: _find_label_file(image) for image in images.values()}
    unlabelled = [image for image, label_file in label_files.items() if label_file is None]
    if unlabelled:
        expected = " or ".join(map(str, _possible_label_files(unlabelled[0])))
        expected = f"The label file of {unlabelled[0]} would be {expected}."
        if len(unlabelled) == len(images):
            raise UserError(f"{root}: none of the {len(images)} images of '{split}' has a label file. {expected}")
        if 2 * len(unlabelled) > len(images):
            text = f"{len(unlabelled)} of {len(images)} images have no label file. {expected}"
            problems.add(Kind.FEW_LABELS, places[0], text)
    if hashed:
        images = dict(select_by_hash(list(images.items()), list(images), name, data.val_fraction))
    if not images:
        others = join_names(split_names(data))
        raise UserError(f"{root}: the split '{split}' contains no images. Other splits: {others}.")
    builder = SplitBuilder(class_names or tuple(classes.names.values()), problems)
    for image_id, image in images.items():
        label_file = label_files[image]
        if label_file is None:
            problems.add(Kind.NO_LABELS, image, "")
        with problems.collect_errors(Kind.UNREADABLE, image):
            size = image_size(image)
            objects = _read_objects(label_file, classes, size, problems) if label_file else []
            builder.add(image_id, image, size, objects, file=label_file or image)
    return builder.build()


# ---- finding splits ----


def _yaml_files(root: Path) -> list[Path]:
    """Return the YAML files that name classes in a folder. If the path is a YAML file itself, return only this file."""
    if root.is_file():
        return [root] if root.suffix in _YAML else []
    files = (file for file in sorted(root.glob("*")) if file.suffix in _YAML and file.is_file())
    return [file for file in files if re.search(rb"(?m)^(\xef\xbb\xbf)?names\s*:", file.read_bytes())]


def _yaml_file(root: Path) -> Path | None:
    files = _yaml_files(root)
    if len(files) < 2:
        return files[0] if files else None
    for file in files:
        if file.stem == "data":
            return file
    names = join_names(file.name for file in files)
    raise UserError(f"{root}: several YAML files name classes: {names}. Choose one with --data.root FILE.")


def _find_splits(root: Path) -> dict[str, list[Path]]:
    """Return the folders and .txt lists with the images of each split, by the name of the split.

    If there are no splits, the only key is `_ALL_IMAGES`.
    """
    file = _yaml_file(root)
    if file is None:
        return _find_folder_splits(root)
    content = _read_yaml(file)
    # An entry without a value counts as absent.
    named = {key: content[key] for key in content if is_split_name(key) and content[key] not in ("", "null", "~")}
    if not named:
        return _find_folder_splits(file.parent)
    bases = [file.parent / str(content.get("path", "")), file.parent]
    return {
        key: [_resolve_path(bases, str(place)) for place in (places if isinstance(places, list) else [places])]
        for key, places in named.items()
    }


def _resolve_path(bases: Sequence[Path], entry: str) -> Path:
    """Return the existing file or folder that a path in a YAML file refers to, or the literal path if none exists.

    Roboflow writes ``../train/images`` for ``train/images`` in the folder of the YAML file. In Ultralytics' software,
    ``path`` is relative to a folder that contains all data sets.
    """
    entry = entry.replace("\\", "/")
    candidates = [_join_paths(base, text) for text in (entry, re.sub(r"^(\.\./)+", "", entry)) for base in bases]
    return next((path for path in candidates if path.exists()), candidates[0])


def _join_paths(*parts: str | Path) -> Path:
    """Return joined paths without ``.`` and ``..``, so that each image has only one path."""
    return Path(os.path.normpath(os.path.join(*parts)))


def _find_folder_splits(root: Path) -> dict[str, list[Path]]:
    """Return the folder or .txt list of each split, as `_find_splits` does, for a folder without a YAML file."""
    if not root.is_dir():
        return {}
    layouts = (
        {folder.name: folder for folder in root.glob("images/*/")},
        {folder.parent.name: folder for folder in root.glob("*/images/")},
        {file.stem: file for file in root.glob("*.txt")},
        {folder.name: folder for folder in root.glob("*/")},
    )
    for layout in layouts:
        names = sorted(name for name in layout if is_split_name(name) and _has_images(root, layout[name]))
        if names:
            return {name: [layout[name]] for name in names}
    folder = root / "images" if (root / "images").is_dir() else root
    return {_ALL_IMAGES: [folder]} if _has_images(root, folder) else {}


def _has_images(root: Path, place: Path) -> bool:
    if place.is_file():
        return any(line.lower().endswith(EXTENSIONS) for _, line in _read_lines(place)[:1])
    return next(_iterate_files(root, place, EXTENSIONS), None) is not None


def _has_labels(root: Path, place: Path) -> bool:
    if place.is_file():
        return True  # no other format lists images in a file named like a split
    return any(
        _looks_like_label_file(file)
        for folder in _possible_label_folders(place)
        for file in _iterate_files(root, folder, (".txt",))
    )


def _looks_like_label_file(file: Path) -> bool:
    """Return whether the first line of a file is a label, as in label files but not in classes.txt or README files."""
    with file.open("rb") as stream:
        fields = stream.readline(1000).split()
    return len(fields) >= 5 and all(re.fullmatch(rb"[-+.\deE]+", field) for field in fields)


def _iterate_files(root: Path, folder: Path, extensions: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files with given extensions in a folder and its subfolders, except hidden files (macOS's ._ files).

    If the folder is ``root``, its subfolders are not searched.
    """
    for parent, subfolders, names in os.walk(folder):
        if folder == root:
            subfolders.clear()
        for name in names:
            if name.lower().endswith(extensions) and not name.startswith("."):
                yield Path(parent, name)


# ---- images ----


def _find_images(folder: Path, name: str, places: Sequence[Path], problems: Problems) -> dict[str, Path]:
    """Return the path of each image of a split by its id. The images are sorted, or in the order of their list."""
    images: dict[Path, Path] = {}  # the folder that an image's id is relative to, by the path of the image
    for place in places:
        if place.is_dir():
            files = sorted(_iterate_files(folder, place, EXTENSIONS))
            _check_labels_without_image(folder, place, files, problems)
            images |= dict.fromkeys(files, place)
        elif place.is_file() and place.suffix == ".txt":
            images |= dict.fromkeys(_read_image_list(place, problems), place.parent)
        else:
            raise UserError(
                f"{folder}: '{name}' in the YAML file is neither a folder nor a .txt list of images: {place}. Correct "
                "it; paths are relative to 'path', or to the YAML file."
            )
    ids = [os.path.splitext(os.path.relpath(image, start))[0] for image, start in images.items()]
    if len(set(ids)) < len(ids):  # some images differ only by their extension or their folder
        ids = [os.path.relpath(image, folder) for image in images]
    return dict(zip((i.replace(os.sep, "/") for i in ids), images, strict=True))


def _read_image_list(file: Path, problems: Problems) -> list[Path]:
    """Return the paths of the existing images in a list.

    If a path does not exist, its first folders are ignored, since the list may have been made on another machine. A
    missing image becomes a problem.
    """
    images = []
    for number, line in _read_lines(file):
        paths = (_join_paths(file.parent, suffix) for suffix in path_suffixes(line))
        image = next((path for path in paths if path.is_file()), None)
        if image is None:
            text = f"the image '{line}' is missing. Add it, or remove the line from the list."
            problems.add(Kind.MISSING, f"{file} line {number}", text)
        else:
            images.append(image)
    return images


def _read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the number and the text of each non-blank line of a file."""
    lines = enumerate(read_text(file).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


# ---- labels ----


def _possible_label_folders(folder: Path) -> list[Path]:
    """Return the folders that may contain the labels of a folder of images.

    If the path contains ``images`` or ``JPEGImages``, the first folder is the path with the last of these names
    replaced by ``labels``. The last folder is the folder of images itself.
    """
    parts = folder.parts
    for position in reversed(range(len(parts))):
        if parts[position] in _IMAGE_FOLDERS:
            return [Path(*parts[:position], "labels", *parts[position + 1 :]), folder]
    return [folder]


def _possible_label_files(image: Path) -> list[Path]:
    return [folder / f"{image.stem}.txt" for folder in _possible_label_folders(image.parent)]


def _find_label_file(image: Path) -> Path | None:
    return next((file for file in _possible_label_files(image) if file.is_file()), None)


def _check_labels_without_image(root: Path, folder: Path, images: Iterable[Path], problems: Problems) -> None:
    """Add a problem for each label file whose image is missing in a folder of images."""
    stems = {image.with_suffix("") for image in images}
    for labels in _possible_label_folders(folder):
        for file in sorted(_iterate_files(root, labels, (".txt",))):
            image = folder / file.relative_to(labels).with_suffix("")
            if image not in stems and _looks_like_label_file(file):
                text = f"its image is missing: there is no {image} with {', '.join(EXTENSIONS)}. Add the image, or "
                problems.add(Kind.MISSING, file, text + "remove the label file.")


def _read_objects(file: Path, classes: _Classes, size: tuple[int, int], problems: Problems) -> list[RawObject]:
    """Return the objects of a label file. A malformed line or a class without a name becomes a problem."""
    objects = []
    text = ""
    with problems.collect_errors(Kind.MALFORMED, file):
        text = read_text(file)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        with problems.collect_errors(Kind.MALFORMED, file):
            label = _parse_line(file, number, line, classes)
            if label.class_number in classes.names:
                x, y, width, height = label.box
                (left, right), (top, bottom) = _edges_px(x, width, size[0]), _edges_px(y, height, size[1])
                name = classes.names[label.class_number]
                objects.append(RawObject(f"line {number}", name, (left, top, right, bottom)))
            else:
                problems.add(
                    Kind.UNKNOWN_CLASS,
                    file,
                    f"line {number} has the class {label.class_number}, which has no name in {classes.file} (it names "
                    f"{min(classes.names)} to {max(classes.names)}). Correct the number, or add the name.",
                )
    return objects


def _parse_line(file: Path, number: int, line: str, classes: _Classes) -> _Label:
    """Return the content of a line of a label file.

    Raises:
        UserError: If the line is malformed; the message names the file and the line.
    """
    where = f"{file}: line {number}"
    fields = line.split()
    try:
        label, *values = map(float, fields)
    except ValueError as error:
        raise UserError(
            f"{where} contains a value that is not a number ({error}). Write the number of the class in "
            f"{classes.file}, then centre x, centre y, width and height, separated by spaces."
        ) from None
    if not all(map(math.isfinite, (label, *values))):
        raise UserError(f"{where} contains NaN or infinity: '{line.strip()}'. Write numbers, or remove the line.")
    if label < 0 or label != int(label):
        raise UserError(f"{where} starts with {fields[0]}, but a class number is an integer of at least 0. Correct it.")
    if len(values) == 5:
        raise UserError(
            f"{where} has 6 numbers, like a detection, whose last number is a confidence. A label has 5. To train on "
            "these boxes, remove the last column."
        )
    if len(values) == 4 or (classes.has_keypoints and len(values) > 4):
        x, y, width, height = values[:4]
    elif len(values) >= 6 and len(values) % 2 == 0:
        (left, right), (top, bottom) = ((min(v), max(v)) for v in (values[::2], values[1::2]))
        x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    else:
        raise UserError(
            f"{where} has {len(fields)} numbers. A box has 5 (class, centre x, centre y, width, height); a polygon "
            "has the class and two numbers for each of at least 3 points. Correct the line, or remove it."
        )
    outside = [v for v in (x, y, width, height) if not -_TOLERANCE <= v <= 1 + _TOLERANCE]
    if outside:
        advice = (
            "If these are pixels, divide x and width by the image's width, and y and height by its height"
            if max(outside) > 1
            else "Correct it"
        )
        raise UserError(f"{where} contains {outside[0]:g}, but normalised coordinates are from 0 to 1. {advice}.")
    return _Label(int(label), (x, y, width, height))


def _edges_px(centre: float, extent: float, pixels: int) -> tuple[float, float]:
    """Return the two edges of a box in x or in y, in pixels.

    An edge that is within the rounding error of the image border is moved to the border.

    Args:
        centre: Centre of the box in x or y, normalised.
        extent: Width or height of the box, normalised.
        pixels: Width or height of the image in pixels.
    """
    ends = centre - extent / 2, centre + extent / 2
    low, high = (min(max(end, 0.0), 1.0) if -_ROUNDING < end < 1 + _ROUNDING else end for end in ends)
    return low * pixels, high * pixels


# ---- class names ----


def _read_classes(root: Path) -> _Classes:
    """Return the class names of a data set.

    Raises:
        UserError: If no file names the classes, if two files name different classes, or if two classes have the same
            name.
    """
    file = _yaml_file(root)
    content = {} if file is None else _read_yaml(file)
    if file is not None:
        names = _class_names_in_yaml(file, content)
    else:
        lists = {list_file: _read_names(list_file) for list_file in _class_list_files(root)}
        if not lists:
            raise UserError(
                f"{root}: no file names the classes, which are numbers in the labels. Write the names into "
                f"{root / 'classes.txt'}, one per line, starting with class 0."
            )
        (file, names), *others = lists.items()
        for other, other_names in others:
            if other_names != names:
                raise UserError(
                    f"{file} and {other} name different classes, so the same number has two meanings. Correct the "
                    "labels and make the lists equal, or remove the wrong list."
                )
    repeated = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"{file}: two classes have the name '{repeated}'. Rename one of them.")
    return _Classes(file, names, "kpt_shape" in content)


def _class_list_files(root: Path) -> list[Path]:
    """Return the files with lists of class names, in the folder itself and in the folders of labels.

    Some tools write these lists into the folders of labels.
    """
    places = [place for places in _find_folder_splits(root).values() for place in places if place.is_dir()]
    folders = [root, root / "labels", *(folder for place in places for folder in _possible_label_folders(place))]
    return [file for f in dict.fromkeys(folders) for pattern in _NAME_LISTS for file in sorted(f.glob(pattern))]


def _read_names(file: Path) -> dict[int, str]:
    names = [line.strip() for line in read_text(file).rstrip().splitlines()]
    if not all(names):
        raise UserError(f"{file}: line {names.index('') + 1} is empty. Write the name of a class on each line.")
    return dict(enumerate(names))


def _class_names_in_yaml(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Return the class names in a YAML file by their numbers. The value of the key ``names`` is a list or a mapping."""
    names = content["names"]
    try:
        entries = names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ())
        by_number = {int(number): name for number, name in entries}
    except ValueError:
        by_number = {}
    if not by_number or not all(isinstance(name, str) and name for name in by_number.values()):
        raise UserError(
            f"{file}: 'names' is neither a list of names nor a mapping from numbers to names. Write, for example, "
            "names: [cat, dog]."
        )
    if content.get("nc", str(len(by_number))) != str(len(by_number)):
        raise UserError(f"{file}: 'nc' is {content['nc']}, but there are {len(by_number)} names. Correct one of them.")
    return dict(sorted(by_number.items()))


def _read_yaml(file: Path) -> dict[str, Any]:
    """Return the content of a YAML file, with all scalars as strings because a class may be called 3, no or 1.10."""
    try:
        content = yaml.load(read_text(file), yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}. Correct it.") from error
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{file}: the key 'names' is missing. Write, for example, names: [cat, dog].")
    return content
