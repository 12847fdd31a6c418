"""Read the class names of a data set in YOLO's format, from a YAML file or from a list of names."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssd_jax.data.folder import Folder, parent
from ssd_jax.data.formats.documents import read_yaml
from ssd_jax.data.source import join_names, read_text
from ssd_jax.errors import UserError

_YAML = (".yaml", ".yml")
_NAME_LISTS = re.compile(r"(classes|names|class_names|labels)\.txt|.*\.names|_darknet\.labels", re.IGNORECASE)
_YAML_NAMES = re.compile(rb"(?m)^(\xef\xbb\xbf)?[\"']?names[\"']?\s*:")


class Classes(NamedTuple):
    """Classes of a data set."""

    file: Path
    """File that names the classes."""
    names: dict[int, str]
    """Class name by class number."""
    has_keypoints: bool = False
    """True if keypoints follow the box in each line of a label file."""


def find_yaml_file(folder: Folder) -> Path | None:
    """Return the YAML file that names the classes of a data set, or None if there is none.

    It is the path of the folder itself, if this is a YAML file, or the file that is the least deep in the folder.

    Raises:
        UserError: If several YAML files name classes, and none of them is called ``data``.
    """
    if folder.path.is_file():
        return folder.path if folder.path.suffix.lower() in _YAML else None
    files = [file for file in folder.with_extension(*_YAML) if _names_classes(folder.full_path(file))]
    depths = [file.count("/") for file in files]
    files = [file for file, depth in zip(files, depths, strict=True) if depth == min(depths)]
    if len(files) < 2:
        return folder.full_path(files[0]) if files else None
    if len({parent(file) for file in files}) == 1:
        for file in files:
            if Path(file).stem.lower() == "data":
                return folder.full_path(file)
    raise UserError(
        f"{folder.path}: several YAML files name classes: {join_names(files)}. Choose one with --data.root FILE."
    )


def _names_classes(file: Path) -> bool:
    try:
        return _YAML_NAMES.search(file.read_bytes()) is not None
    except OSError:
        return False


def read_description(file: Path) -> dict[str, Any]:
    """Return the content of a YAML file that describes a data set.

    Raises:
        UserError: If the file cannot be read, or does not name classes.
    """
    content = read_yaml(file)
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{file}: the key 'names' is missing. Write, for example, names: [cat, dog].")
    return content


def read_classes(folder: Folder) -> Classes:
    """Return the class names of a data set.

    Raises:
        UserError: If no file names the classes, if two files name different classes, or if two classes have the same
            name.
    """
    file = find_yaml_file(folder)
    content = {} if file is None else read_description(file)
    if file is not None:
        names = _class_names_in_yaml(file, content)
    else:
        files = [f for f in folder.listing.files if _NAME_LISTS.fullmatch(f.rpartition("/")[2])]
        lists = {path: _read_names(path) for path in map(folder.full_path, files)}
        if not lists:
            raise UserError(
                f"{folder.path}: no file names the classes, which are numbers in the labels. Write the names into "
                f"{folder.root / 'classes.txt'}, one per line, starting with class 0."
            )
        (file, names), *others = lists.items()
        for other, other_names in others:
            if other_names != names:
                raise UserError(
                    f"{file} and {other} name different classes, so the same number has two meanings. Correct the "
                    "labels and make the lists equal, or remove the wrong list."
                )
    repeated = [name for name, count in Counter(names.values()).items() if count > 1]
    if repeated:
        raise UserError(f"{file}: two classes have the name '{repeated[0]}'. Rename one of them.")
    return Classes(file, names, "kpt_shape" in content)


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
