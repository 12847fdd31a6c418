"""Define, collect and summarise the problems of a data set.

A fault of a labelling tool or of a script is often found in hundreds of files. A summary therefore has one line for all
problems that are alike, in training as in a check.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

from ssd_jax.errors import UserError
from ssd_jax.plurals import format_count


class Severity(Enum):
    """Severity of a problem."""

    ERROR = "error"
    """Training does not start. However, an image that is found to be unusable only during training is skipped."""
    WARNING = "warning"
    """Training continues, but some of the data may be wrong or unused."""
    NOTE = "note"
    """The problem is handled without losing any data."""


class Kind(Enum):
    """Kind of problem: its title, its severity, and the text that follows the number of such problems in a summary.

    If this text is empty, as for most errors, a summary contains the text of the first of several like problems.
    """

    MALFORMED = ("malformed", Severity.ERROR, "")
    MISSING = ("missing file", Severity.ERROR, "")
    UNKNOWN_CLASS = ("unknown class", Severity.ERROR, "")
    UNREADABLE = ("unusable image", Severity.ERROR, "")
    UNUSABLE_SPLIT = ("unusable split", Severity.ERROR, "")
    NO_OBJECTS = ("no objects", Severity.ERROR, "")
    BOX_FORMAT = ("other box format", Severity.ERROR, "")
    OUT_OF_IMAGE = ("out of image", Severity.WARNING, "boxes reach beyond their image; training uses the part inside")
    SWAPPED = ("swapped corners", Severity.WARNING, "boxes have swapped corners, which were put in order")
    NO_AREA = ("no area", Severity.WARNING, "boxes have no area inside their image and were left out")
    SIZE_DIFFERS = ("other size", Severity.WARNING, "images have another size than their annotation states")
    DUPLICATE = (
        "duplicate",
        Severity.WARNING,
        "boxes repeat another box of their class and count twice; check-data --fix removes them",
    )
    TOO_MANY = (
        "too many objects",
        Severity.WARNING,
        "images have more than data.max_objects objects; training drops the rest; increase --data.max_objects",
    )
    SIMILAR_NAMES = (
        "similar names",
        Severity.WARNING,
        "pairs of class names differ only in case, spaces or punctuation",
    )
    TWO_SPLITS = (
        "in two splits",
        Severity.WARNING,
        "images are in two splits, so that metrics are too high; check-data --fix keeps one",
    )
    SAME_SPLITS = ("same splits", Severity.WARNING, "")
    TWICE = ("twice in a split", Severity.WARNING, "images are repeated; check-data --fix keeps one")
    UNANNOTATED = ("no annotation", Severity.WARNING, "images have no annotation file and were left out")
    FEW_LABELS = ("few label files", Severity.WARNING, "folders lack label files for many of their images")
    IN_NO_SPLIT = ("in no split", Severity.WARNING, "annotated images are in no split that is used")
    SAME_NAME = ("same name", Severity.WARNING, "images have the name of another image and were left out")
    NO_IMAGE = ("no image", Severity.WARNING, "label files have no image and were left out")
    REPEATED_ID = ("repeated id", Severity.WARNING, "files contain ids of annotations twice")
    JOINED = ("joined records", Severity.WARNING, "images have several records, whose objects were joined")
    NOTHING_READ = ("nothing read", Severity.WARNING, "files have content, but no object could be read from them")
    SECOND_VALUE = (
        "second value",
        Severity.WARNING,
        "objects have a second box or name, which is not used; write an object for each box",
    )
    OTHER_FORMAT = (
        "other format",
        Severity.WARNING,
        "images have an annotation file only in another format and were left out",
    )
    NO_BOX = ("not a box", Severity.WARNING, "shapes or labels are not boxes and were left out")
    OTHER_ENCODING = (
        "other encoding",
        Severity.WARNING,
        "files are not in UTF-8 and were read as Windows-1252; check the class names",
    )
    TWO_FORMATS = ("two formats", Severity.WARNING, "")
    UNUSED_SPLIT = ("unused split", Severity.WARNING, "splits are not used")
    MISSING_SPLIT = ("missing split", Severity.WARNING, "splits are named but do not exist")
    PASSED_OVER = ("passed over", Severity.WARNING, "files or folders cannot be read and were passed over")
    MANY_EMPTY = ("many images without objects", Severity.WARNING, "")
    NO_BEST = ("no best checkpoint", Severity.WARNING, "")
    NOT_IN_TRAIN = ("class without objects", Severity.WARNING, "classes have no object in the train split")
    ONE_OBJECT = ("class with one object", Severity.WARNING, "classes have only one object in the train split")
    BACKGROUND_CLASS = (
        "background class",
        Severity.WARNING,
        "classes are named like the background, which the network has anyway; they are learned like any other class, "
        "so remove them unless they mark real objects",
    )
    SLIVER = (
        "sliver",
        Severity.WARNING,
        "boxes are narrower or lower than a pixel and probably wrong; training uses them",
    )
    LAYOUT = ("layout", Severity.NOTE, "")
    CROWD = ("crowds", Severity.NOTE, "")
    OUTLINES = (
        "outlines",
        Severity.NOTE,
        "images have outlines or rotated boxes; the upright box around each is used",
    )
    HELD_OUT = ("val held out", Severity.NOTE, "")
    NAME_DIFFERS = ("other spelling", Severity.NOTE, "file names are spelled in another way than in the annotations")
    FIELD_IGNORED = ("ignored field", Severity.NOTE, "fields have an unknown value and are ignored")
    OTHER_TYPE = ("other file type", Severity.NOTE, "files are of another type than their name says")
    NO_LABELS = ("no label file", Severity.NOTE, "images have no label file and count as background")
    INCOMPLETE = ("incomplete image", Severity.NOTE, "images were completed")
    ROTATED = ("rotated by EXIF", Severity.NOTE, "images are rotated by their EXIF orientation")
    NOT_RGB = ("not RGB", Severity.NOTE, "images are converted to RGB")

    def __init__(self, title: str, severity: Severity, training_note: str) -> None:
        self.title, self.severity, self.training_note = title, severity, training_note


class Problem(NamedTuple):
    """A problem in one file."""

    kind: Kind
    file: str
    """Path of the file or folder, perhaps followed by the number of a line."""
    text: str
    """Description of the problem and, for an error, advice on how to correct it."""
    group: str = ""
    """Phrase or name that is the same for problems that are alike, such as ``PNG files are named .jpg`` or the name of
    an unknown class. If empty, errors are alike if their texts differ only in numbers and names of files, and warnings
    and notes are alike if they are of the same kind."""


class Problems:
    """Collection of the problems that are found while a data set is read.

    Args:
        raise_errors: Whether to raise a UserError for the first problem that is an error, as training does. If False,
            errors are collected, too, as in a check.
    """

    def __init__(self, *, raise_errors: bool = True) -> None:
        self.raise_errors = raise_errors
        self.collected: list[Problem] = []

    def add(self, kind: Kind, file: object, text: str, group: str = "") -> None:
        """Collect a problem, or raise a UserError for it. See `Problem` for the arguments.

        Raises:
            UserError: If the problem is an error, and ``raise_errors`` is set.
        """
        if self.raise_errors and kind.severity is Severity.ERROR:
            raise UserError(f"{file}: {text}")
        self.collected.append(Problem(kind, str(file), text, group))

    @contextmanager
    def collect_errors(self, kind: Kind, file: object) -> Iterator[None]:
        """Convert a UserError that is raised in the ``with`` block into a problem, and continue after the block.

        Args:
            kind: Kind of the problem.
            file: File that the block reads.

        Raises:
            UserError: If the block raises it, and ``raise_errors`` is set.
        """
        try:
            yield
        except UserError as error:
            if self.raise_errors:
                raise
            self.collected.append(Problem(kind, str(file), " ".join(error.args).removeprefix(f"{file}: ")))

    def notes(self) -> list[str]:
        """Return a line for all warnings and notes that are alike, see `summarise_problems`."""
        return summarise_problems(p for p in self.collected if p.kind.severity is not Severity.ERROR)

    def raise_collected_errors(self) -> None:
        """Raise one UserError for all collected errors, with a line for all errors that are alike.

        Raises:
            UserError: If an error was collected.
        """
        errors = [p for p in self.collected if p.kind.severity is Severity.ERROR]
        lines = summarise_problems(errors)
        if len(lines) > _MAX_LINES:
            lines[_MAX_LINES:] = [f"and {len(lines) - _MAX_LINES} other lines like these."]
        if len(lines) < len(errors):
            lines.append(f"ssd-jax check-data lists each of these {len(errors)} errors.")
        if lines:
            raise UserError(*lines)


# ---- summaries ----

_MAX_LINES = 10
_MAX_PLACES = 3
_VARIABLE_PARTS = re.compile(
    r"""'[^']*'|"[^"]*"|\S*[/\\]\S*|\S+\.\w{2,4}\b|[-+]?\d[\d.]*(?:e[-+]?\d+)?|\bnan\b|\binf\b""", re.IGNORECASE
)
"""Parts of a text that may differ between like errors: quoted names, paths, names of files, and numbers."""


def summarise_problems(problems: Iterable[Problem]) -> list[str]:
    """Return a line for all problems that are alike, with their number, the first three places, and the advice."""
    return [summarise_group(group) for group in group_problems(problems)]


def group_problems(problems: Iterable[Problem]) -> list[list[Problem]]:
    """Return lists of problems that are alike (see `Problem.group`), in the order of the first problem of each list."""
    groups: dict[tuple[Kind, str], list[Problem]] = {}
    for problem in problems:
        is_sentence_known = bool(problem.kind.training_note)
        key = problem.group or ("" if is_sentence_known else _VARIABLE_PARTS.sub("#", problem.text))
        groups.setdefault((problem.kind, key), []).append(problem)
    return list(groups.values())


def summarise_group(problems: Sequence[Problem]) -> str:
    """Return a line for problems that are alike, see `summarise_problems`."""
    first, count = problems[0], len(problems)
    sentence = first.kind.training_note and (first.group or first.kind.training_note)
    if sentence:
        places = [f"{p.file} {p.text}".strip() for p in problems[:_MAX_PLACES]]
        if len({p.file for p in problems}) == 1 < count:  # the path of a COCO file, for example, is not repeated
            places[1:] = [p.text for p in problems[1:_MAX_PLACES]]
        return f"{format_count(count, sentence)}: {_join_places(places, count)}"
    text = f"{first.file}: {first.text}".removesuffix(": ")
    if count == 1:
        return text
    others = _other_places(problems)
    return f"{count} times: {text} Also: {_join_places(others[: _MAX_PLACES - 1], len(others) + 1)}"


def _other_places(problems: Sequence[Problem]) -> list[str]:
    """Return the files of all problems except the first, or words of their texts if most are in the same file."""
    first = problems[0]
    files = list(dict.fromkeys(p.file for p in problems))
    if len(files) >= min(len(problems), _MAX_PLACES):
        return files[1:]
    places = [(problem.file, _first_difference(problem.text, first.text)) for problem in problems[1 : _MAX_PLACES + 1]]
    return [words if words and file == first.file else f"{file} {words}".strip() for file, words in places]


def _first_difference(text: str, other: str) -> str:
    """Return the first words of a text that differ from another text, and the word before if they are a number."""
    words, other_words = text.split(), other.split()
    differs = [k >= len(other_words) or word != other_words[k] for k, word in enumerate(words)]
    start = differs.index(True) if True in differs else len(words)
    stop = differs.index(False, start) if False in differs[start:] else len(words)
    if start and "".join(words[start:stop]).isdecimal():
        start -= 1
    return " ".join(words[start:stop])


def _join_places(places: Sequence[str], count: int) -> str:
    return "; ".join(places) + ("; ..." if count > _MAX_PLACES else "")
