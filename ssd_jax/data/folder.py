"""List the files of a data set folder, and find files whose paths are written in another way.

Annotations often name an image by a path that does not exist here: an absolute path on another machine, a name in
another Unicode form or in other letter case, or the name as it stands in a URL. `Folder` finds such files by the end
of their paths. All readers use it, so that all of them find the same files and pass over the same ones.
"""

import difflib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from ssd_jax.data.earlier_output import MARKER
from ssd_jax.data.image import EXTENSIONS
from ssd_jax.errors import format_error_reason

_LEFTOVERS = frozenset({
    "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir", "lost+found",
    "__pycache__",
})  # fmt: skip
"""Files and folders, in lower case, that operating systems and storage devices leave in folders. Files and folders
whose name starts with a dot are passed over, too."""
_OWN_OUTPUT = (
    {"check.json", "problems.csv"},  # of check-data
    {"config.json", "log.jsonl"},  # a run
    {MARKER},  # of predict
)
"""Files by which folders that this program wrote are recognised. Inside a data set, they are passed over."""
_MAX_VISITS = 4  # of one folder under different paths, so that folders that link to each other do not multiply
_MAX_DEPTH = 32


class Listing(NamedTuple):
    """Files in a folder and its subfolders."""

    files: tuple[str, ...]
    """Path of each regular file, relative to the folder, with ``/`` between its parts. Sorted."""
    unread: tuple[str, ...]
    """Paths that were passed over because they cannot be read, each with the reason in parentheses."""
    hidden: int
    """Number of files and folders that were passed over as hidden files, leftovers of an operating system, or output of
    this program."""


def list_files(root: str | Path, with_predictions: bool = False) -> Listing:
    """List the files in a folder and its subfolders. Links to files and folders are followed.

    A folder that contains a link to one of its parents is listed once. Files that are not regular, such as named
    pipes, are passed over, because reading them may never end.

    Args:
        root: The folder.
        with_predictions: Whether to list the files in output folders of predict, too.
    """
    files, unread, hidden = [], [], 0
    visits: Counter[tuple[int, int]] = Counter()
    folders: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while folders:
        prefix, parents = folders.pop()
        path = os.path.join(root, prefix)
        try:
            status = os.stat(path)
            key = (status.st_dev, status.st_ino)
            visits[key] += 1
            if key in parents or visits[key] > _MAX_VISITS or prefix.count("/") > _MAX_DEPTH:
                continue
            names = os.listdir(path)
        except OSError as error:
            unread.append(f"{prefix or root} ({format_error_reason(error)})")
            continue
        own = {name for name in names if not (with_predictions and name == MARKER)}
        if prefix and any(marks <= own for marks in _OWN_OUTPUT):
            hidden += 1
            continue
        for name in names:
            if is_hidden(name):
                hidden += 1
                continue
            relative = prefix + name
            try:
                mode = os.stat(os.path.join(path, name)).st_mode
            except OSError as error:
                unread.append(f"{relative} ({format_error_reason(error)})")
                continue
            if stat.S_ISDIR(mode):
                folders.append((f"{relative}/", parents | {key}))
            elif stat.S_ISREG(mode):
                files.append(relative)
            else:
                unread.append(f"{relative} (not a regular file)")
    return Listing(tuple(sorted(files)), tuple(sorted(unread)), hidden)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder name is that of a hidden file or of a leftover of an operating system."""
    return name.startswith(".") or name.casefold() in _LEFTOVERS


def spelling_key(name: str) -> str:
    """Return a key that is equal for the different spellings of a file name.

    Spellings may differ in Unicode form, in letter case, in percent encoding, and in the query of a URL.
    """
    return unicodedata.normalize("NFC", unquote(name).partition("?")[0]).casefold()


def split_path(path: str) -> list[str]:
    """Return the parts of a path that may have been written on another machine, without its drive and empty parts."""
    parts = path.replace("\\", "/").split("/")
    return [part for part in parts if part not in ("", ".", "..") and not part.endswith(":")]


def path_tails(path: str) -> list[str]:
    """Return a path as in `split_path`, and the paths that remain when its first 1, 2, ... folders are removed."""
    parts = split_path(path)
    return ["/".join(parts[start:]) for start in range(len(parts))]


class AmbiguousPathError(Exception):
    """Raised if several files of a folder may be the file that a path refers to.

    Args:
        choices: Relative paths of these files.
    """

    def __init__(self, choices: Sequence[str]):
        super().__init__(", ".join(choices))
        self.choices = tuple(choices)


class Folder:
    """The folder of a data set, or the folder of its annotation file.

    The files are listed when they are needed for the first time, and only once.

    Args:
        path: Path of a folder or of a file. The root is the path itself or the parent of the file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.root = self.path if self.path.is_dir() else self.path.parent
        self._listing: Listing | None = None

    @property
    def listing(self) -> Listing:
        """All files of the folder."""
        if self._listing is None:
            self._listing = list_files(self.root)
        return self._listing

    @property
    def unread(self) -> tuple[str, ...]:
        """Paths that were passed over when the files were listed, see `Listing.unread`."""
        return self._listing.unread if self._listing is not None else ()

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Relative paths of all files with the extension of an image."""
        return self.with_extension(*EXTENSIONS)

    def with_extension(self, *extensions: str) -> tuple[str, ...]:
        """Return the relative paths of the files with given extensions (in lower case), in any letter case."""
        return tuple(file for file in self.listing.files if file.lower().endswith(extensions))

    def full_path(self, relative: str) -> Path:
        """Return the path of a file from its relative path."""
        return self.root / relative

    @cached_property
    def _images_by_key(self) -> dict[str, list[str]]:
        by_key: dict[str, list[str]] = {}
        for file in self.images:
            by_key.setdefault(spelling_key(file.rpartition("/")[2]), []).append(file)
        return by_key

    @cached_property
    def _images_by_stem(self) -> dict[str, list[str]]:
        return group_by_stem(self.images)

    def find_image(self, path: str, rank: Callable[[str], Any] = len) -> str | None:
        """Return the relative path of the image that a path in an annotation refers to, or None if there is none.

        The image has the file name of the path in any spelling. Of several images with this name, the one whose path
        ends with the most folders of the given path is returned; of these, the one with the lowest rank.

        Args:
            path: Path as written in an annotation, perhaps on another machine.
            rank: Function that returns a value for the relative path of a folder. Images are more likely to be in
                a folder with a lower value, and are not in a folder with the value None.

        Raises:
            AmbiguousPathError: If several images fit equally well.
        """
        parts = split_path(path)
        literal = path.split("/")
        if "\\" in path and spelling_key(literal[-1]) in self._images_by_key:
            parts = literal  # the backslash is a part of the file name
        keys = [spelling_key(part) for part in parts]
        candidates = self._images_by_key.get(keys[-1], []) if keys else []
        candidates = [candidate for candidate in candidates if rank(parent(candidate)) is not None]
        if len(candidates) < 2:
            return candidates[0] if candidates else None

        def order(candidate: str) -> tuple[int, bool, Any]:
            own = candidate.split("/")
            same_folders = common_tail([spelling_key(part) for part in own], keys)
            return -same_folders, own[-1] != parts[-1], rank(parent(candidate))

        return lowest(candidates, order)

    def images_named(self, stem: str) -> list[str]:
        """Return the relative paths of the images whose file name without extension has the same `spelling_key`.

        If there are none, the name may include the extension of the image, as in ``a.jpg.txt``.
        """
        key = spelling_key(stem)
        return self._images_by_stem.get(key) or self._images_by_key.get(key, [])

    def image_with_most_similar_name(self, path: str) -> str | None:
        """Return the image whose file name is most similar to that of a path, or None if no name is similar."""
        parts = split_path(path)
        matches = difflib.get_close_matches(spelling_key(parts[-1]), self._images_by_key, 1) if parts else []
        return self._images_by_key[matches[0]][0] if matches else None


def parent(path: str) -> str:
    """Return the relative path of the folder of a file; empty for a file in the root."""
    return path.rpartition("/")[0]


def stem(path: str) -> str:
    """Return the file name of a relative path without its extension."""
    return os.path.splitext(path.rpartition("/")[2])[0]


def lowest(candidates: Sequence[str], order: Callable[[str], Any]) -> str:
    """Return the candidate with the lowest value of a function.

    Raises:
        AmbiguousPathError: If several candidates have the lowest value.
    """
    values = [order(candidate) for candidate in candidates]
    best = min(values)
    winners = [candidate for candidate, value in zip(candidates, values, strict=True) if value == best]
    if len(winners) > 1:
        raise AmbiguousPathError(winners)
    return winners[0]


def group_by_stem(files: Iterable[str]) -> dict[str, list[str]]:
    """Return lists of relative paths, by the spelling key of their file name without extension."""
    by_stem: dict[str, list[str]] = {}
    for file in files:
        by_stem.setdefault(spelling_key(stem(file)), []).append(file)
    return by_stem


def common_tail(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the number of equal elements at the ends of two sequences."""
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        count += 1
    return count
