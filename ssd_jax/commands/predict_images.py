"""Find the images of ``ssd-jax predict``, and choose the output file of each."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ssd_jax.data.folder import list_files
from ssd_jax.data.image import EXTENSIONS
from ssd_jax.data.image_formats import check_is_file
from ssd_jax.errors import UserError, call_all
from ssd_jax.files import append_to_file_name

_JPEG_SUFFIXES = (".jpg", ".jpeg")


class InputImage(NamedTuple):
    """An image to predict."""

    file: Path
    relative: Path
    """Path relative to the folder that the user named, or the name of the file."""


class InputImages(NamedTuple):
    """The images to predict."""

    targets: dict[Path, Path]
    """Output file of each image."""
    skipped: list[str]
    """One line for each folder and each reason for which files in it are not read."""


def find_images(paths: Sequence[Path], out: Path) -> InputImages:
    """Return the images in files and folders, with their output files and a list of what was skipped.

    Images in a folder keep their paths relative to it. If two images would have the same output file, all images keep
    their paths relative to the folder that contains all of them.

    Args:
        paths: Folders, which are searched with their subfolders, and files, which are read whatever their names are.
        out: The output folder, whose files are left out.

    Raises:
        UserError: If paths do not exist or are named pipes or devices, or if folders have no images. The message names
            all of them.
    """
    images: dict[str, InputImage] = {}
    skipped: list[str] = []
    for found, lines in call_all(*(partial(_find_in_path, path, out) for path in paths)):
        skipped += lines
        for image in found:
            images.setdefault(os.path.abspath(image.file), image)
    return InputImages(choose_output_files(list(images.values()), out), list(dict.fromkeys(skipped)))


def choose_output_files(images: Sequence[InputImage], out: Path) -> dict[Path, Path]:
    """Return a different output file for each image."""
    targets = [make_picture_path(out, image.relative) for image in images]
    if len({_comparable(target) for target in targets}) < len(targets):
        targets = [make_picture_path(out, file) for file in remove_common_folder([image.file for image in images])]
    chosen: dict[Path, Path] = {}
    used: set[str] = set()
    for image, target in zip(images, targets, strict=True):
        number, first = 2, target
        while _comparable(target) in used:  # a.png and a.png.jpg in one folder
            target = first.with_name(append_to_file_name(first.stem, f"_{number}{first.suffix}"))
            number += 1
        used.add(_comparable(target))
        chosen[image.file] = target
    return chosen


def remove_common_folder(files: Sequence[Path]) -> list[Path]:
    """Return the paths of files relative to the innermost folder that contains all of them.

    If there is no such folder, because the files are on several drives of Windows, the paths begin with the letters of
    the drives.
    """
    absolute = [file.absolute() for file in files]
    try:
        common = os.path.commonpath([file.parent for file in absolute])
    except ValueError:
        return [Path(file.drive.rstrip(":"), *file.parts[1:]) for file in absolute]
    return [Path(os.path.relpath(file, common)) for file in absolute]


def make_picture_path(out: Path, relative: Path) -> Path:
    """Return the output file of an image: a.png.jpg for a.png, so that a.png and a.jpg have different output files."""
    stem, suffix = relative.name, ".jpg"
    if relative.suffix.lower() in _JPEG_SUFFIXES:
        stem, suffix = relative.stem, relative.suffix
    return out / relative.with_name(append_to_file_name(stem, suffix))


def list_first(names: Sequence[str], count: int = 3) -> str:
    """Return the first few of some names, separated by commas."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _find_in_path(path: Path, out: Path) -> tuple[list[InputImage], list[str]]:
    """Return the images in a file or a folder, and one line for each reason for which files are not read."""
    if not path.is_dir():
        check_is_file(path)
        return [InputImage(path, Path(path.name))], []
    found, lines = _find_in_folder(path, out)
    if not found:
        raise UserError(f"{path} contains no images ({' '.join(EXTENSIONS)}). {' '.join(lines)}".rstrip())
    return found, lines


def _find_in_folder(folder: Path, out: Path) -> tuple[list[InputImage], list[str]]:
    """Return the images in a folder, and one line for each reason for which other files in it are not read."""
    listing = list_files(folder)
    files = list(_leave_out(listing.files, folder, out))
    names = [name for name in files if name.lower().endswith(EXTENSIONS)]
    others = [name for name in files if not name.lower().endswith(EXTENSIONS)]
    lines = []
    if others:
        text = (
            "1 file that is not an image by its name"
            if len(others) == 1
            else (f"{len(others)} files that are not images by their names")
        )
        lines.append(f"{folder}: skipped {text}: {list_first(others)}")
    if listing.hidden:
        text = "1 hidden file or folder" if listing.hidden == 1 else f"{listing.hidden} hidden files and folders"
        lines.append(f"{folder}: skipped {text}")
    if listing.unread:
        lines.append(f"{folder}: skipped {len(listing.unread)} that cannot be read: {list_first(listing.unread)}")
    return [InputImage(folder / name, Path(name)) for name in names], lines


def _leave_out(names: Iterable[str], folder: Path, out: Path) -> Iterable[str]:
    """Return the names of the files in a folder that are not in the output folder."""
    resolved_out = out.resolve()
    return (name for name in names if not (folder / name).resolve().is_relative_to(resolved_out))


def _comparable(path: Path) -> str:
    return str(path).casefold()  # names that differ only in case are the same on many systems
