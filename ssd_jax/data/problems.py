"""What can be wrong with a data set: one list of kinds, for training, which stops or goes on, and for a check."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

from ssd_jax.errors import UserError


class Severity(Enum):
    ERROR = "error"
    """Training stops at the start; an image that turns out unreadable later is passed over."""
    WARNING = "warning"
    """Training goes on, and what it does about it is told."""
    NOTE = "note"
    """Handled, nothing is lost."""


class Kind(Enum):
    """What is wrong, how bad it is, and what training does about it."""

    MALFORMED = ("malformed", Severity.ERROR, "")
    MISSING = ("missing file", Severity.ERROR, "")
    UNKNOWN_CLASS = ("unknown class", Severity.ERROR, "")
    UNREADABLE = ("unusable image", Severity.ERROR, "")
    OUT_OF_IMAGE = ("out of image", Severity.WARNING, "boxes reach beyond their image; training sees the part inside")
    NO_AREA = ("no area", Severity.WARNING, "boxes have no area inside their image and were left out")
    SIZE_DIFFERS = ("other size", Severity.WARNING, "images have another size than their annotation states")
    DUPLICATE = ("duplicate", Severity.WARNING, "boxes repeat another one of their class and count twice")
    TOO_MANY = ("too many objects", Severity.WARNING, "images have more than data.max_objects; training cuts them")
    SIMILAR_NAMES = ("similar names", Severity.WARNING, "classes differ only in capitals, blanks or marks")
    TWO_SPLITS = ("in two splits", Severity.WARNING, "images are in two splits")
    TWICE = ("twice in a split", Severity.WARNING, "images are there twice")
    UNANNOTATED = ("no annotation", Severity.WARNING, "images have no annotation file and were left out")
    FEW_LABELS = ("few label files", Severity.WARNING, "folders have label files for less than half of their images")
    NO_LABELS = ("no label file", Severity.NOTE, "images have no label file and count as images without objects")
    ROTATED = ("rotated by EXIF", Severity.NOTE, "images are rotated as their EXIF orientation says")
    NOT_RGB = ("not RGB", Severity.NOTE, "images are converted to RGB")

    def __init__(self, title: str, severity: Severity, in_training: str) -> None:
        self.title, self.severity, self.in_training = title, severity, in_training


class Problem(NamedTuple):
    kind: Kind
    file: str
    text: str
    """What is wrong in the file; for errors with what to do."""


class Problems:
    """Collects what readers find. With ``stop`` the first error is raised instead, as training wants it."""

    def __init__(self, *, raise_errors: bool = True) -> None:
        self.raise_errors = raise_errors
        self.collected: list[Problem] = []

    def add(self, kind: Kind, file: object, text: str) -> None:
        """Raises UserError if it is an error and these problems stop at one."""
        if self.raise_errors and kind.severity is Severity.ERROR:
            raise UserError(f"{file}: {text}")
        self.collected.append(Problem(kind, str(file), text))

    @contextmanager
    def collecting(self, kind: Kind, file: object) -> Iterator[None]:
        """Around what reads a file or an entry of it: a UserError is collected, and what follows goes on."""
        try:
            yield
        except UserError as error:
            if self.raise_errors:
                raise
            self.collected.append(Problem(kind, str(file), str(error).removeprefix(f"{file}: ")))

    def notes(self) -> list[str]:
        """A sentence for each kind found that is no error, with the first few named."""
        by_kind: dict[Kind, list[str]] = {}
        for problem in self.collected:
            if problem.kind.in_training:
                by_kind.setdefault(problem.kind, []).append(f"{problem.file}{problem.text and ' '}{problem.text}")
        return [f"{len(named)} {kind.in_training}: {_first_few(named)}" for kind, named in by_kind.items()]


def _first_few(named: Sequence[str]) -> str:
    return "; ".join(named[:5]) + ("; ..." if len(named) > 5 else "")
