"""Define and collect the problems of a data set. Training stops at the first error; a check collects all problems."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

from ssd_jax.errors import UserError


class Severity(Enum):
    """Severity of a problem."""

    ERROR = "error"
    """Training does not start. However, an image that is found to be unusable only during training is skipped."""
    WARNING = "warning"
    """Training continues, but some of the data may be wrong or unused."""
    NOTE = "note"
    """The problem is handled without losing any data."""


class Kind(Enum):
    """Kind of problem: its title, its severity, and the text that training prints after the number of such problems."""

    MALFORMED = ("malformed", Severity.ERROR, "")
    MISSING = ("missing file", Severity.ERROR, "")
    UNKNOWN_CLASS = ("unknown class", Severity.ERROR, "")
    UNREADABLE = ("unusable image", Severity.ERROR, "")
    OUT_OF_IMAGE = ("out of image", Severity.WARNING, "boxes reach beyond their image; training uses the part inside")
    NO_AREA = ("no area", Severity.WARNING, "boxes have no area inside their image and were left out")
    SIZE_DIFFERS = ("other size", Severity.WARNING, "images have another size than their annotation states")
    DUPLICATE = ("duplicate", Severity.WARNING, "boxes repeat another box of their class and count twice")
    TOO_MANY = (
        "too many objects",
        Severity.WARNING,
        "images have more than data.max_objects objects; training drops the rest",
    )
    SIMILAR_NAMES = ("similar names", Severity.WARNING, "class names differ only in case, spaces or punctuation")
    TWO_SPLITS = ("in two splits", Severity.WARNING, "images are in two splits")
    TWICE = ("twice in a split", Severity.WARNING, "images are repeated")
    UNANNOTATED = ("no annotation", Severity.WARNING, "images have no annotation file and were left out")
    FEW_LABELS = ("few label files", Severity.WARNING, "folders lack label files for many of their images")
    IN_NO_SPLIT = ("in no split", Severity.WARNING, "annotated images are in no list of a split, and are not used")
    SAME_NAME = ("same name", Severity.WARNING, "images have the name of another image and were left out")
    NO_IMAGE = ("no image", Severity.WARNING, "label files have no image and were left out")
    REPEATED_ID = ("repeated id", Severity.WARNING, "ids of annotations are repeated")
    JOINED = ("joined records", Severity.WARNING, "images have several records, whose objects were joined")
    NOTHING_READ = ("nothing read", Severity.WARNING, "files have content, but no object could be read from them")
    TWO_FORMATS = ("two formats", Severity.WARNING, "folders have annotations in two formats")
    MISSING_SPLIT = ("missing split", Severity.WARNING, "splits are named, but do not exist")
    PASSED_OVER = ("passed over", Severity.WARNING, "files or folders cannot be read and were passed over")
    LAYOUT = ("layout", Severity.NOTE, "folders have an unusual layout")
    HELD_OUT = ("val held out", Severity.NOTE, "")
    NAME_DIFFERS = ("other spelling", Severity.NOTE, "file names are spelled in another way than in the annotations")
    FIELD_IGNORED = ("ignored field", Severity.NOTE, "fields have an unknown value and are ignored")
    NO_LABELS = ("no label file", Severity.NOTE, "images have no label file and count as images without objects")
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


class Problems:
    """Collection of the problems that are found while a data set is read.

    Args:
        raise_errors: Whether to raise a UserError for the first problem that is an error, as training does. If False,
            errors are collected, too, as in a check.
    """

    def __init__(self, *, raise_errors: bool = True) -> None:
        self.raise_errors = raise_errors
        self.collected: list[Problem] = []

    def add(self, kind: Kind, file: object, text: str) -> None:
        """Collect a problem, or raise a UserError for it.

        Raises:
            UserError: If the problem is an error, and ``raise_errors`` is set.
        """
        if self.raise_errors and kind.severity is Severity.ERROR:
            raise UserError(f"{file}: {text}")
        self.collected.append(Problem(kind, str(file), text))

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
        """Return a sentence for each collected kind of warning or note, with the paths of the first five files."""
        by_kind: dict[Kind, list[str]] = {}
        for problem in self.collected:
            if problem.kind.training_note:
                by_kind.setdefault(problem.kind, []).append(f"{problem.file}{problem.text and ' '}{problem.text}")
        return [f"{len(places)} {kind.training_note}: {_join_first_five(places)}" for kind, places in by_kind.items()]


def _join_first_five(places: Sequence[str]) -> str:
    return "; ".join(places[:5]) + ("; ..." if len(places) > 5 else "")
