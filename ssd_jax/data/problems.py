"""Kinds of problems of a data set. Training stops at the first error, a check collects all of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

from ssd_jax.errors import UserError


class Severity(Enum):
    """Severity of a problem."""

    ERROR = "error"
    """Training stops at the start. An image that turns out to be unreadable later is skipped."""
    WARNING = "warning"
    """Training continues and prints how it handles the problem."""
    NOTE = "note"
    """The problem is handled without any loss."""


class Kind(Enum):
    """Kind of a problem: its title, its severity, and the sentence that training prints about it."""

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
    FEW_LABELS = ("few label files", Severity.WARNING, "folders have label files for less than half of their images")
    NO_LABELS = ("no label file", Severity.NOTE, "images have no label file and count as images without objects")
    ROTATED = ("rotated by EXIF", Severity.NOTE, "images are rotated by their EXIF orientation")
    NOT_RGB = ("not RGB", Severity.NOTE, "images are converted to RGB")

    def __init__(self, title: str, severity: Severity, training_note: str) -> None:
        self.title, self.severity, self.training_note = title, severity, training_note


class Problem(NamedTuple):
    """A problem of one file."""

    kind: Kind
    file: str
    text: str
    """Description of the problem and, for an error, the remedy."""


class Problems:
    """Collects problems while a data set is read.

    Args:
        raise_errors: Raise a UserError for the first problem that is an error, as training needs it. False: collect
            it and continue, as a check needs it.
    """

    def __init__(self, *, raise_errors: bool = True) -> None:
        self.raise_errors = raise_errors
        self.collected: list[Problem] = []

    def add(self, kind: Kind, file: object, text: str) -> None:
        """Collect a problem.

        Raises:
            UserError: If the problem is an error, and errors are raised.
        """
        if self.raise_errors and kind.severity is Severity.ERROR:
            raise UserError(f"{file}: {text}")
        self.collected.append(Problem(kind, str(file), text))

    @contextmanager
    def collecting(self, kind: Kind, file: object) -> Iterator[None]:
        """Collect a UserError of the ``with`` block, which reads a file or an entry of it, as a problem.

        Raises:
            UserError: If the block raised it, and errors are raised.
        """
        try:
            yield
        except UserError as error:
            if self.raise_errors:
                raise
            self.collected.append(Problem(kind, str(file), str(error).removeprefix(f"{file}: ")))

    def notes(self) -> list[str]:
        """Return one sentence for each kind of warning and note, with the first few files named."""
        by_kind: dict[Kind, list[str]] = {}
        for problem in self.collected:
            if problem.kind.training_note:
                by_kind.setdefault(problem.kind, []).append(f"{problem.file}{problem.text and ' '}{problem.text}")
        return [f"{len(places)} {kind.training_note}: {_first_few(places)}" for kind, places in by_kind.items()]


def _first_few(places: Sequence[str]) -> str:
    return "; ".join(places[:5]) + ("; ..." if len(places) > 5 else "")
