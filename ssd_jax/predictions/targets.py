"""Choice of the output file of each picture and video."""

import os
from collections.abc import Sequence
from pathlib import Path

from ssd_jax.errors import UserError
from ssd_jax.files import append_to_file_name
from ssd_jax.inputs.finding import Input

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_VIDEO_SUFFIX = ".mp4"


def choose_targets(inputs: Sequence[Input], out: Path) -> list[Path]:
    """Return a different output file for each input, relative to the output folder.

    Inputs keep their paths relative to the folder that the user named. If two of them would have the same output file,
    all files keep their paths relative to the folder that contains all of them.

    Args:
        inputs: The inputs.
        out: The output folder.

    Raises:
        UserError: If an output file would replace an input.
    """
    targets = [make_target(item.relative, is_film=item.is_film) for item in inputs]
    if len(set(map(_comparable, targets))) < len(targets):
        files = [item for item in inputs if item.is_file]
        common = dict(zip(files, remove_common_folder([Path(item.location) for item in files]), strict=True))
        targets = [make_target(common.get(item, item.relative), is_film=item.is_film) for item in inputs]
    chosen: list[Path] = []
    used: set[str] = set()
    for item, target in zip(inputs, targets, strict=True):
        number, first = 2, target
        while _comparable(target) in used:  # a.png and a.png.jpg in one folder
            target = first.with_name(append_to_file_name(first.stem, f"_{number}{first.suffix}"))
            number += 1
        used.add(_comparable(target))
        chosen.append(target)
        if item.is_file and _is_same_file(Path(item.location), out / target):
            raise UserError(f"{item.location}: would be replaced by its own picture with boxes. Name another --out.")
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


def make_target(relative: Path, *, is_film: bool = False) -> Path:
    """Return the output file of an input: a.png.jpg for a.png, so that a.png and a.jpg have different output files.

    Args:
        relative: Path of the input.
        is_film: Whether it is a video or a camera.
    """
    stem, suffix = relative.name, _VIDEO_SUFFIX if is_film else ".jpg"
    if relative.suffix.lower() in ((_VIDEO_SUFFIX,) if is_film else _JPEG_SUFFIXES):
        stem, suffix = relative.stem, relative.suffix
    return relative.with_name(append_to_file_name(stem, suffix))


def make_frame_target(target: Path, frame: int) -> Path:
    """Return the output file of a frame, given that of its video."""
    return target.with_name(append_to_file_name(target.stem, f"_{frame:06}.jpg"))


def _comparable(path: Path) -> str:
    return str(path).casefold()  # names that differ only in case are the same on many systems


def _is_same_file(source: Path, target: Path) -> bool:
    try:
        return os.path.samefile(source, target)
    except OSError:  # one of them does not exist
        return False
