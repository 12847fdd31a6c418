"""Read the class names of a data set in YOLO's format, from a YAML file or from a list of names."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssd_jax.data.folder import Folder
from ssd_jax.data.formats.yolo_yaml import find_yaml_file, read_description
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import read_text
from ssd_jax.errors import UserError

_NAME_LISTS = re.compile(r"(classes|names|class_names|labels)\.txt|.*\.names|_darknet\.labels", re.IGNORECASE)


class Classes(NamedTuple):
    """Classes of a data set."""

    file: Path
    """File that names the classes."""
    names: dict[int, str]
    """Class name by class number."""
    has_keypoints: bool = False
    """True if keypoints follow the box in each line of a label file."""


def read_classes(folder: Folder, problems: Problems) -> Classes:
    """Return the class names of a data set.

    The names of a YAML file take precedence over a list. If the list has another spelling, or other names altogether,
    this is a problem. If both have one name under different numbers, it is an error, because labels may be shifted.

    Raises:
        UserError: If no file names the classes, if two files contradict each other, or if two classes have the same
            name.
    """
    file = find_yaml_file(folder)
    content = {} if file is None else read_description(file)
    files = [f for f in folder.listing.files if _NAME_LISTS.fullmatch(f.rpartition("/")[2])]
    lists = {path: _read_names(path) for path in map(folder.full_path, files)}
    if file is not None:
        names = _class_names_in_yaml(file, content)
        conflicts = [other for other, given in lists.items() if _have_moved_names(given, names)]
        for other, given in lists.items():
            for number in sorted(given.keys() & names):
                if given[number] != names[number]:
                    text = f"'{given[number]}' is '{names[number]}' in {file.name}, which is used"
                    problems.add(Kind.SIMILAR_NAMES, other, text, "class names differ from those of the YAML file")
    elif lists:
        (file, names), *others = lists.items()
        conflicts = [other for other, given in others if given != names]
    else:
        raise UserError(
            f"{folder.path}: no file names the classes, which are numbers in the labels. Write the names into "
            f"{folder.root / 'classes.txt'}, one per line, starting with class 0."
        )
    if conflicts:
        raise UserError(
            f"{file} and {conflicts[0]} name different classes, so the same number has two meanings. Correct the "
            "labels and make the names equal, or remove the wrong file."
        )
    repeated = [name for name, count in Counter(names.values()).items() if count > 1]
    if repeated:
        raise UserError(f"{file}: two classes have the name '{repeated[0]}'. Rename one of them.")
    return Classes(file, names, "kpt_shape" in content)


def _have_moved_names(names: Mapping[int, str], others: Mapping[int, str]) -> bool:
    """Return whether a name that two mappings share has different numbers in them."""
    return bool(
        {(name, number) for number, name in names.items() if name in others.values()}
        - {(name, number) for number, name in others.items()}
    )


def _read_names(file: Path) -> dict[int, str]:
    """Return the class names in a list. Each line contains a name, or each line contains its class number and a name.

    Raises:
        UserError: If a line is empty or is a comment.
    """
    names = [line.strip() for line in read_text(file).rstrip().splitlines()]
    for number, name in enumerate(names, start=1):
        if not name or name.startswith("#"):
            state = "is a comment" if name else "is empty"
            raise UserError(f"{file}: line {number} {state}. Write the name of a class on each line.")
    numbered = [re.fullmatch(rf"{number}(?:\s*[:,;]\s*|\s+)(\S.*)", name) for number, name in enumerate(names)]
    if names and all(numbered):
        names = [match[1] for match in numbered if match]
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
