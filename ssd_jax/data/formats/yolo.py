"""Labels in YOLO's text files: one for each image, one line for each object.

Format: https://docs.ultralytics.com/datasets/detect. A line is the number of a class, then x and y of
the centre, width and height, as shares of the upright image; in memory boxes become xyxy in pixels. A
polygon (class, then x and y of three points or more) becomes the box around it. The numbers of the
classes are known to this module alone: a YAML file or a list of names says what they stand for.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ssd_jax.config import Data
from ssd_jax.data.image import EXTENSIONS, image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import (
    FolderSource,
    RawObject,
    annotation_from_objects,
    hash_split,
    is_split_name,
    join_names,
    path_suffixes,
    read_text,
    split_aliases,
)
from ssd_jax.errors import UserError

_WHOLE = ""  # in place of a split's name: all images, to be divided
_IMAGE_FOLDERS = ("images", "JPEGImages")  # their labels are in labels/ beside them
_YAML = (".yaml", ".yml")
_NAME_LISTS = ("classes.txt", "names.txt", "*.names", "_darknet.labels")
_BEYOND = 0.01  # Ultralytics' tolerance; what lies farther from [0, 1] is no share of an image
_ROUNDING = 1e-4  # an edge at the border is written with as few as four decimals


class _Classes(NamedTuple):
    file: Path
    """What names them."""
    names: dict[int, str]
    keypoints: bool = False
    """Whether lines go on after the box."""


class _Line(NamedTuple):
    number: int
    """Of the class."""
    box: tuple[float, float, float, float]
    """Centre x, centre y, width, height; shares of the image."""


def is_yolo(root: Path) -> bool:
    """Whether root is a YAML file, or a folder that holds one which names classes, or YOLO's labels."""
    if _yaml_files(root):
        return True
    return any(_has_labels(root, place) for places in _folder_splits(root).values() for place in places)


def yolo_splits(root: Path) -> tuple[str, ...]:
    """Names of the splits that `open_yolo` can open."""
    splits = _splits(root)
    if set(splits) == {_WHOLE}:
        return ("train", "val")
    return tuple(name for name, places in splits.items() if all(place.exists() for place in places))


def open_yolo(
    data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None
) -> FolderSource:
    """One split of a folder in YOLO's format; reads all its labels, and of images the headers.

    A YAML file, in the folder or given as data.root, names classes and splits; each split is a folder
    of images, a .txt list of them, or several. Without one, classes are named by ``classes.txt``,
    ``*.names`` or ``_darknet.labels``, and splits are ``images/<split>``, ``<split>/images``, lists
    ``<split>.txt``, folders ``<split>`` of images and labels, or else train and val by a hash of the
    image's id (`hash_split`). Labels lie in ``labels`` where the image's path has ``images``, or beside
    the image. An image without a label file, or with an empty one, is one without objects.

    class_names: the classes, in the order of their labels. Empty: the data set's, by their numbers.
    problems: collects what is wrong instead of stopping at it.

    Raises UserError, naming the file, for a split that is not there or has no label file at all,
    classes that nothing names, and, unless they are collected, for a line that is malformed, a class
    without a name, an image that can't be read, and a list's image or a label's image that is missing.
    """
    root, problems = Path(data.root), problems or Problems()
    splits, classes = _splits(root), _classes(root)
    name = _choose(root, splits, split)
    places = splits[name] if name in splits else splits[_WHOLE]
    images = _images(root if root.is_dir() else root.parent, name, places, problems)
    label_files = {image: _label_file(image) for image in images.values()}
    unlabelled = [image for image, label_file in label_files.items() if label_file is None]
    if unlabelled:
        would_be = f"That of {unlabelled[0]} would be {' or '.join(map(str, _label_files(unlabelled[0])))}."
        if len(unlabelled) == len(images):
            raise UserError(f"{root}: none of the {len(images)} images of '{split}' has a label file. {would_be}")
        if 2 * len(unlabelled) > len(images):
            text = f"{len(unlabelled)} of {len(images)} images have no label file. {would_be}"
            problems.add(Kind.FEW_LABELS, places[0], text)
    if name not in splits:
        images = _hashed_half(images, name, data.val_fraction)
    if not images:
        raise UserError(f"{root}: the split '{split}' holds no images. Other splits: {join_names(yolo_splits(root))}.")
    names = tuple(class_names) or tuple(classes.names.values())
    labels = {name: label for label, name in enumerate(names, start=1)}
    annotations = []
    for image_id, image in images.items():
        label_file = label_files[image]
        if label_file is None:
            problems.add(Kind.NO_LABELS, image, "")
        with problems.collecting(Kind.UNREADABLE, image):
            size = image_size(image)
            objects = _read_objects(label_file, classes, size, problems) if label_file else []
            annotations.append(
                annotation_from_objects(image_id, str(image), size, objects, labels, problems, file=label_file or image)
            )
    return FolderSource(annotations, names, problems.notes())


# ---- which files ----


def _yaml_files(root: Path) -> list[Path]:
    """root itself, or those in it that name classes."""
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
    raise UserError(f"{root}: its classes and splits are in any of {names}. Name one, with --data.root FILE.")


def _splits(root: Path) -> dict[str, list[Path]]:
    """Where the images of each split are: folders, and .txt lists. `_WHOLE` where there are no splits."""
    file = _yaml_file(root)
    if file is None:
        return _folder_splits(root)
    content = _read_yaml(file)
    # An empty entry is one left out.
    named = {key: content[key] for key in content if is_split_name(key) and content[key] not in ("", "null", "~")}
    if not named:
        return _folder_splits(file.parent)
    bases = [file.parent / str(content.get("path", "")), file.parent]
    return {
        key: [_place(bases, str(place)) for place in (places if isinstance(places, list) else [places])]
        for key, places in named.items()
    }


def _place(bases: Sequence[Path], entry: str) -> Path:
    """What a YAML file means by a path; where nothing is there, the first thing it may mean.

    Roboflow writes ``../train/images`` for the folder beside the file; and ``path`` counts, for
    Ultralytics, from a folder that holds all data sets.
    """
    entry = _forward(entry)
    readings = [_join(base, text) for text in (entry, re.sub(r"^(\.\./)+", "", entry)) for base in bases]
    return next((path for path in readings if path.exists()), readings[0])


def _forward(path: str) -> str:
    """A path that was perhaps written on Windows."""
    return path.replace("\\", "/")


def _join(*parts: str | Path) -> Path:
    """Without dots, so that an image has one path only."""
    return Path(os.path.normpath(os.path.join(*parts)))


def _folder_splits(root: Path) -> dict[str, list[Path]]:
    """The splits of a folder without a YAML file, as `_splits`."""
    if not root.is_dir():
        return {}
    layouts = (
        {folder.name: folder for folder in root.glob("images/*/")},
        {folder.parent.name: folder for folder in root.glob("*/images/")},
        {file.stem: file for file in root.glob("*.txt")},
        {folder.name: folder for folder in root.glob("*/")},
    )
    for layout in layouts:
        names = sorted(name for name in layout if is_split_name(name) and _holds_images(root, layout[name]))
        if names:
            return {name: [layout[name]] for name in names}
    whole = root / "images" if (root / "images").is_dir() else root
    return {_WHOLE: [whole]} if _holds_images(root, whole) else {}


def _holds_images(root: Path, place: Path) -> bool:
    if place.is_file():
        return any(line.lower().endswith(EXTENSIONS) for _, line in _list_lines(place)[:1])
    return next(_files(root, place, EXTENSIONS), None) is not None


def _has_labels(root: Path, place: Path) -> bool:
    if place.is_file():
        return True  # nothing else lists images under the name of a split
    return any(_looks_like_labels(file) for folder in _label_folders(place) for file in _files(root, folder, (".txt",)))


def _looks_like_labels(file: Path) -> bool:
    """By its first line; beside labels lie classes.txt and all kinds of README."""
    with file.open("rb") as stream:
        fields = stream.readline(1000).split()
    return len(fields) >= 5 and all(re.fullmatch(rb"[-+.\deE]+", field) for field in fields)


def _files(root: Path, folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    """All below a folder, but of root only its own; without hidden ones such as the ._ files of macOS."""
    for parent, below, names in os.walk(folder):
        if folder == root:
            below.clear()
        for name in names:
            if name.lower().endswith(endings) and not name.startswith("."):
                yield Path(parent, name)


# ---- images ----


def _choose(root: Path, splits: Mapping[str, list[Path]], split: str) -> str:
    """The name of the split; with `_WHOLE` there are two."""
    names = ("train", "val") if set(splits) == {_WHOLE} else tuple(splits)
    for spelling in split_aliases(split):
        if spelling in names:
            return spelling
    raise UserError(f"{root}: there is no split '{split}'. Its splits: {join_names(yolo_splits(root))}.")


def _hashed_half(images: dict[str, Path], name: str, val_fraction: float) -> dict[str, Path]:
    held = hash_split(list(images), val_fraction)
    return dict(image for image, val in zip(images.items(), held, strict=True) if val == (name == "val"))


def _images(folder: Path, name: str, places: Sequence[Path], problems: Problems) -> dict[str, Path]:
    """The images of a split by their ids; sorted, or in the order of their list."""
    found: dict[Path, Path] = {}  # each image, and what its id counts from
    for place in places:
        if place.is_dir():
            images = sorted(_files(folder, place, EXTENSIONS))
            _tell_orphans(folder, place, images, problems)
            found |= dict.fromkeys(images, place)
        elif place.is_file() and place.suffix == ".txt":
            found |= dict.fromkeys(_listed_images(place, problems), place.parent)
        else:
            raise UserError(
                f"{folder}: '{name}' of the YAML file is neither a folder nor a .txt list of images: {place}. Correct "
                "it; paths count from 'path', or else from the YAML file."
            )
    ids = [os.path.splitext(os.path.relpath(image, start))[0] for image, start in found.items()]
    if len(set(ids)) < len(ids):  # images that differ by their ending, or by their folder
        ids = [os.path.relpath(image, folder) for image in found]
    return dict(zip((i.replace(os.sep, "/") for i in ids), found, strict=True))


def _listed_images(file: Path, problems: Problems) -> list[Path]:
    """Images that a list names, once each. Lists that were made elsewhere start with folders that aren't here."""
    images = []
    for number, line in _list_lines(file):
        paths = (_join(file.parent, tail) for tail in path_suffixes(line))
        image = next((path for path in paths if path.is_file()), None)
        if image is None:
            text = f"there is no image '{line}'. Add it, or take the line out of the list."
            problems.add(Kind.MISSING, f"{file} line {number}", text)
        else:
            images.append(image)
    return images


def _list_lines(file: Path) -> list[tuple[int, str]]:
    """Lines that aren't blank, with their numbers."""
    lines = enumerate(read_text(file).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


# ---- labels ----


def _label_folders(folder: Path) -> list[Path]:
    """Where the labels of a folder of images may be: labels in place of the last images of its path, or there."""
    parts = folder.parts
    for position in reversed(range(len(parts))):
        if parts[position] in _IMAGE_FOLDERS:
            return [Path(*parts[:position], "labels", *parts[position + 1 :]), folder]
    return [folder]


def _label_files(image: Path) -> list[Path]:
    """What may be the label file of an image."""
    return [folder / f"{image.stem}.txt" for folder in _label_folders(image.parent)]


def _label_file(image: Path) -> Path | None:
    return next((file for file in _label_files(image) if file.is_file()), None)


def _tell_orphans(root: Path, folder: Path, images: Iterable[Path], problems: Problems) -> None:
    """Label files of a folder of images that belong to none of them."""
    taken = {image.with_suffix("") for image in images}
    for labels in _label_folders(folder):
        for file in sorted(_files(root, labels, (".txt",))):
            image = folder / file.relative_to(labels).with_suffix("")
            if image not in taken and _looks_like_labels(file):
                text = f"there is no image for it: no {image} with {', '.join(EXTENSIONS)}. Add the image, or remove "
                problems.add(Kind.MISSING, file, text + "the label file.")


def _read_objects(file: Path, classes: _Classes, size: tuple[int, int], problems: Problems) -> list[RawObject]:
    """The objects of a label file; lines that are malformed, and classes without a name, go to problems."""
    objects = []
    text = ""
    with problems.collecting(Kind.MALFORMED, file):
        text = read_text(file)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        with problems.collecting(Kind.MALFORMED, file):
            entry = _parse_line(file, number, line, classes)
            if entry.number in classes.names:
                x, y, width, height = entry.box
                (left, right), (top, bottom) = _edges(x, width, size[0]), _edges(y, height, size[1])
                objects.append(RawObject(f"line {number}", classes.names[entry.number], (left, top, right, bottom)))
            else:
                problems.add(
                    Kind.UNKNOWN_CLASS,
                    file,
                    f"line {number} is of class {entry.number}, which {classes.file} does not name (it names "
                    f"{min(classes.names)} to {max(classes.names)}). Correct the number, or add the name.",
                )
    return objects


def _parse_line(file: Path, number: int, line: str, classes: _Classes) -> _Line:
    """Raises UserError, naming file and line, for whatever is no label."""
    where = f"{file}: line {number}"
    fields = line.split()
    try:
        label, *values = map(float, fields)
    except ValueError as error:
        raise UserError(
            f"{where} holds something that is no number ({error}). Write the class's number in {classes.file}, then "
            "centre x, centre y, width and height, with blanks between."
        ) from None
    if not all(map(math.isfinite, (label, *values))):
        raise UserError(f"{where} holds NaN or infinity: '{line.strip()}'. Write numbers, or remove the line.")
    if label < 0 or label != int(label):
        raise UserError(f"{where} starts with {fields[0]}, but a class's number is 0 or another whole one. Correct it.")
    if len(values) == 5:
        raise UserError(
            f"{where} has 6 numbers, which is what detectors write: the last seems to be a confidence. Labels have 5. "
            "If these boxes are to be learnt from, remove the last column."
        )
    if len(values) == 4 or (classes.keypoints and len(values) > 4):
        x, y, width, height = values[:4]
    elif len(values) >= 6 and len(values) % 2 == 0:
        (left, right), (top, bottom) = ((min(v), max(v)) for v in (values[::2], values[1::2]))
        x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    else:
        raise UserError(
            f"{where} has {len(fields)} numbers. A box has 5 (class, centre x, centre y, width, height), a polygon "
            "1 and two for each of its points, of which there are 3 or more. Correct the line, or remove it."
        )
    outside = [v for v in (x, y, width, height) if not -_BEYOND <= v <= 1 + _BEYOND]
    if outside:
        advice = (
            "These may be pixels: divide x and width by the image's width, y and height by its height"
            if max(outside) > 1
            else "Correct it"
        )
        raise UserError(f"{where} holds {outside[0]:g}, but shares of the image lie between 0 and 1. {advice}.")
    return _Line(int(label), (x, y, width, height))


def _edges(centre: float, extent: float, pixels: int) -> tuple[float, float]:
    """Both ends of a side, in pixels. Ends that lie at the border but for rounding are put there."""
    ends = centre - extent / 2, centre + extent / 2
    low, high = (min(max(end, 0.0), 1.0) if -_ROUNDING < end < 1 + _ROUNDING else end for end in ends)
    return low * pixels, high * pixels


# ---- names of classes ----


def _classes(root: Path) -> _Classes:
    """Raises UserError where nothing names the classes, or two files name them differently."""
    file = _yaml_file(root)
    content = {} if file is None else _read_yaml(file)
    if file is not None:
        names = _yaml_names(file, content)
    else:
        lists = {found: _read_names(found) for found in _name_lists(root)}
        if not lists:
            raise UserError(
                f"{root}: the labels have numbers for classes, and nothing says what they mean. Write the names into "
                f"{root / 'classes.txt'}, one a line: the first is that of class 0."
            )
        (file, names), *others = lists.items()
        for other, different in others:
            if different != names:
                raise UserError(
                    f"{file} and {other} name different classes, so numbers in one folder mean other things than in "
                    "another. Correct the labels and make the lists equal, or remove the list that is wrong."
                )
    twice = next((name for name in names.values() if list(names.values()).count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{file}: two classes are called '{twice}'. Rename one.")
    return _Classes(file, names, "kpt_shape" in content)


def _name_lists(root: Path) -> list[Path]:
    """Lists of names in the folder, and, as some tools write them, beside the labels."""
    places = [place for places in _folder_splits(root).values() for place in places if place.is_dir()]
    folders = [root, root / "labels", *(folder for place in places for folder in _label_folders(place))]
    return [file for f in dict.fromkeys(folders) for pattern in _NAME_LISTS for file in sorted(f.glob(pattern))]


def _read_names(file: Path) -> dict[int, str]:
    names = [line.strip() for line in read_text(file).rstrip().splitlines()]
    if not all(names):
        raise UserError(f"{file}: line {names.index('') + 1} is empty. Each line names a class: fill it in.")
    return dict(enumerate(names))


def _yaml_names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """By number, from a list or a mapping."""
    names = content["names"]
    try:
        entries = names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ())
        by_number = {int(number): name for number, name in entries}
    except ValueError:
        by_number = {}
    if not by_number or not all(isinstance(name, str) and name for name in by_number.values()):
        raise UserError(
            f"{file}: 'names' is neither a list of names nor one name for each number. Write, say, names: [cat, dog]."
        )
    if content.get("nc", str(len(by_number))) != str(len(by_number)):
        raise UserError(f"{file}: 'nc' is {content['nc']}, but there are {len(by_number)} names. Correct one of them.")
    return dict(sorted(by_number.items()))


def _read_yaml(file: Path) -> dict[str, Any]:
    """Every scalar as it is written: classes may be called 3, no or 1.10."""
    try:
        content = yaml.load(read_text(file), yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}. Mend it.") from error
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{file}: it has no key 'names'. Write, say, names: [cat, dog].")
    return content
