"""Find the inputs that a user named: files, folders, patterns, lists, addresses and cameras."""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from ssd_jax.data.earlier_output import make_output_search
from ssd_jax.data.folder import list_files
from ssd_jax.data.image import EXTENSIONS
from ssd_jax.data.image_formats import check_is_file
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors, convert_to_utf8, make_user_path, replace_forbidden_characters
from ssd_jax.plurals import format_count

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv"),
)
"""Endings of video files in lower case."""
LIST_EXTENSION = ".txt"
STANDARD_INPUT = "-"
_PATTERN_CHARACTERS = "*?["
_MAX_LIST_BYTES = 200_000_000

Kind = Literal["image", "address", "video", "camera"]


class Input(NamedTuple):
    """An image, a video or a camera, which has not been opened yet."""

    kind: Kind
    """``image`` and ``video``: a file. ``address``: an image at an http(s) address."""
    location: str
    """Path of a file, address, or number of a camera, as the user gave it."""
    relative: Path
    """Path relative to the folder that the user named, or the name of the file."""

    @property
    def is_file(self) -> bool:
        """Whether it is a file on this machine."""
        return self.kind in ("image", "video")

    @property
    def is_film(self) -> bool:
        """Whether it has frames: whether it is a video or a camera."""
        return self.kind in ("video", "camera")


class FoundInputs(NamedTuple):
    """The inputs that a user named."""

    inputs: list[Input]
    """The inputs in the order in which they were named. Each is there once."""
    skipped: list[str]
    """One line for each folder and each reason for which files in it are not read."""
    unusable: list[str]
    """One line for each source that names no inputs, such as one that does not exist."""


def find_inputs(sources: Sequence[str | Path], out: Path | None = None) -> FoundInputs:
    """Return the inputs that a user named.

    A source is one of these:

    - an image or video file; a file that has not the ending of a video or of a list is taken for an image;
    - a folder, whose images are found, also in its subfolders;
    - a pattern such as ``photos/**/*.jpg``, with ``*``, ``?`` and ``[...]``;
    - a text file that ends with ``.txt``, or ``-`` for the standard input, with one source on each line;
    - an address that begins with ``http://`` or ``https://``;
    - the number of a camera, such as ``0``.

    A path in a list is relative to the current folder or, if nothing is there, to the folder of the list. What it
    names need not exist; it is found out when it is read.

    A source is unusable if it does not exist or is no file, if it is a folder without images, a pattern that matches
    none, a list that cannot be read or is empty, or an address that cannot be one of an image. The inputs of the other
    sources are found nevertheless.

    Args:
        sources: The sources.
        out: An output folder, whose files are left out of folders and patterns. Other folders that ``ssd-jax predict``
            wrote are left out, too, if they are inside of a source.

    Raises:
        UserError: If no source names an input. The message has a line about each of them.
    """
    found: dict[str, Input] = {}
    parts = _find_all(map(str, sources), partial(_find, out=out))
    for item in parts.inputs:
        found.setdefault(os.path.abspath(item.location) if item.is_file else item.location, item)
    unusable = list(dict.fromkeys(parts.unusable))
    if not found:
        raise UserError(*unusable)
    return FoundInputs(list(found.values()), list(dict.fromkeys(parts.skipped)), unusable)


def _find_all(sources: Iterable[str], find: Callable[[str], FoundInputs]) -> FoundInputs:
    """Return the inputs of several sources together, given a function that finds those of one source."""
    total = FoundInputs([], [], [])
    for source in sources:
        try:
            part = find(source)
        except UserError as error:
            total.unusable.append(" ".join(error.args))
        else:
            total.inputs.extend(part.inputs)
            total.skipped.extend(part.skipped)
            total.unusable.extend(part.unusable)
    return total


def is_address(text: str) -> bool:
    """Return whether a source is an address, such as ``https://example.org/a.jpg``, rather than a path."""
    return "://" in text and urlsplit(text).scheme.isalpha()


def _find(source: str, out: Path | None) -> FoundInputs:
    """Return the inputs of one source."""
    if source == STANDARD_INPUT:
        return _find_in_list(_read_standard_input(), "the standard input", Path(), out)
    if is_address(source):
        return FoundInputs([_make_address_input(source)], [], [])
    path = make_user_path(source)
    if os.path.isdir(path):  # Path.is_dir raises an error for names that are too long
        return _find_in_folder(path, out, may_be_empty=False)
    if os.path.isfile(path) and path.suffix.lower() == LIST_EXTENSION:
        return _find_in_list(_read_list(path), str(path), path.parent, out)
    if not os.path.lexists(path):
        if source.isdecimal():
            return FoundInputs([Input("camera", str(int(source)), Path(f"camera_{int(source)}"))], [], [])
        if any(character in source for character in _PATTERN_CHARACTERS):
            return _find_by_pattern(str(path), out)
    check_is_file(path)
    return FoundInputs([_make_file_input(path)], [], [])


def _make_file_input(path: Path) -> Input:
    return Input("video" if is_video(path.name) else "image", str(path), Path(path.name))


def _make_address_input(address: str) -> Input:
    """Return the input for an image at an address.

    Raises:
        UserError: If the address is not one of http or https, or has the name of a video.
    """
    parts = urlsplit(address)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise UserError(f"{address}: images are read only from addresses that begin with http:// or https://")
    name = replace_forbidden_characters(unquote(PurePosixPath(parts.path).name)).strip(". ")
    if is_video(name):
        raise UserError(f"{address}: videos are read only from files. Download it first")
    return Input("address", address, Path(name or replace_forbidden_characters(parts.hostname)))


def is_video(name: str) -> bool:
    """Return whether the name of a file is that of a video."""
    return name.lower().endswith(VIDEO_EXTENSIONS)


# ---- folders and patterns ----


def _find_in_folder(folder: Path, out: Path | None, *, may_be_empty: bool = True) -> FoundInputs:
    """Return the images in a folder, and one line for each reason for which other files in it are not read."""
    listing = list_files(folder, with_predictions=True)
    find_output_folder = make_output_search(folder)
    listed = [name for name in listing.files if not _is_inside(folder / name, out)]
    names = [name for name in listed if not find_output_folder(name)]
    images = [name for name in names if name.lower().endswith(EXTENSIONS)]
    others = [name for name in names if not name.lower().endswith(EXTENSIONS)]
    lines = [f"{folder}: skipped {_count_others(others)}"] if others else []
    if listing.hidden:
        text = "1 hidden file or folder" if listing.hidden == 1 else f"{listing.hidden} hidden files and folders"
        lines.append(f"{folder}: skipped {text}")
    lines += _describe_output_folders(folder, map(find_output_folder, listed))
    if listing.unread:
        lines.append(f"{folder}: skipped {len(listing.unread)} that cannot be read: {list_first(listing.unread)}")
    if not images and not may_be_empty:
        raise UserError(f"{folder} contains no images ({' '.join(EXTENSIONS)}). {' '.join(lines)}".rstrip())
    return FoundInputs([Input("image", str(folder / name), Path(name)) for name in images], lines, [])


def _describe_output_folders(source: str | Path, folders: Iterable[str | None]) -> list[str]:
    """Return a line about the output folders that are left out of a source, or none if there are no such folders."""
    names = list(dict.fromkeys(folder for folder in folders if folder))
    count = format_count(len(names), "folders that predict wrote")
    return [f"{source}: skipped {count}: {list_first(names)}"] if names else []


def _find_by_pattern(pattern: str, out: Path | None) -> FoundInputs:
    """Return the images and videos that a pattern matches, and the images in folders that it matches."""
    inputs: list[Input] = []
    others: list[str] = []
    lines: list[str] = []
    root = _find_root(pattern)
    find_output_folder = make_output_search(root)
    output_folders = []
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):
        relative = match.relative_to(root)
        if folder := find_output_folder((relative / "_" if match.is_dir() else relative).as_posix()):
            output_folders.append(folder)
        elif match.is_dir():
            if "**" not in pattern:  # which also matches the files in the folder
                inside = _find_in_folder(match, out)
                inputs += [item._replace(relative=relative / item.relative) for item in inside.inputs]
                lines += inside.skipped
        elif match.name.lower().endswith((*EXTENSIONS, *VIDEO_EXTENSIONS)) and match.is_file():
            if not _is_inside(match, out):
                inputs.append(_make_file_input(match)._replace(relative=relative))
        else:
            others.append(match.name)
    lines = [f"{pattern}: skipped {_count_others(others)}", *lines] if others else lines
    lines += _describe_output_folders(pattern, output_folders)
    if not inputs:
        raise UserError(f"{pattern}: this pattern matches no images and no videos. {' '.join(lines)}".rstrip())
    return FoundInputs(inputs, lines, [])


def _find_root(pattern: str) -> Path:
    """Return the folder that a pattern begins with, before its first special character."""
    parts = Path(pattern).parts
    count = next(i for i, part in enumerate(parts) if any(character in part for character in _PATTERN_CHARACTERS))
    return Path(*parts[:count])


def _is_inside(file: Path, folder: Path | None) -> bool:
    if folder is None:
        return False
    # A data set in an output folder has links to images elsewhere.
    places = file.resolve(), file.parent.resolve() / file.name
    return any(place.is_relative_to(folder.resolve()) for place in places)


def _count_others(names: Sequence[str]) -> str:
    """Return a text that counts and names files that are not read."""
    text = f"{len(names)} files that are not images by their names"
    if len(names) == 1:
        text = "1 file that is not an image by its name"
    advice = " (to detect in a video, name the video itself)" if any(map(is_video, names)) else ""
    return f"{text}: {list_first(names)}{advice}"


def list_first(names: Sequence[str], count: int = 3) -> str:
    """Return the first few of some names, separated by commas."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


# ---- lists ----


def _read_list(path: Path) -> bytes:
    with convert_read_errors(path), path.open("rb") as stream:
        content = stream.read(_MAX_LIST_BYTES + 1)
    if len(content) > _MAX_LIST_BYTES:
        raise UserError(f"{path}: is larger than a list of images may be ({format_count(_MAX_LIST_BYTES, 'bytes')})")
    return content


def _read_standard_input() -> bytes:
    if sys.stdin is None:
        raise UserError("-: there is no standard input to read paths from")
    return sys.stdin.buffer.read()


def _find_in_list(content: bytes, name: str, folder: Path, out: Path | None) -> FoundInputs:
    """Return the inputs on the lines of a list.

    Args:
        content: Content of the list.
        name: Name of the list for messages.
        folder: Folder of the list.
        out: An output folder, whose files are left out of folders.
    """
    text = os.fsdecode(convert_to_utf8(content))
    # Other characters that end a line may be a part of a name.
    sources = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not sources or "\0" in text:
        problem = "is not a list of images" if sources else "lists no images"
        raise UserError(f"{name} {problem}. Write one path or address on each line")
    return _find_all(sources, partial(_find_listed, folder=folder, out=out))


def _find_listed(source: str, folder: Path, out: Path | None) -> FoundInputs:
    """Return the inputs of one line of a list."""
    if is_address(source):
        return FoundInputs([_make_address_input(source.strip())], [], [])
    written = [make_user_path(text) for text in (source, source.strip())]  # spaces at the end may belong to the name
    paths = [*written, *(folder / path for path in written)]
    path = next((path for path in paths if os.path.lexists(path)), paths[1])
    if os.path.isdir(path):
        return _find_in_folder(path, out, may_be_empty=False)
    return FoundInputs([_make_file_input(path)], [], [])
