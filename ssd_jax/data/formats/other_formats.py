"""Name the annotation files that are not read, and the format that they are in, in a message."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from ssd_jax.data.folder import Folder, group_by_stem, parent, spelling_key, stem
from ssd_jax.data.formats.signs import SIGNS, find_sign
from ssd_jax.data.image import image_format
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError
from ssd_jax.files import convert_to_utf8

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_MAX_FILES = 5  # of one extension that are examined
_MAX_BYTES = 100_000
_LFS_POINTER = b"version https://git-lfs"
_ROOT_TAG = re.compile(rb"<([A-Za-z_][\w:.-]*)")
_MAX_NAMED = 3  # files in a message


def name_other_format(folder: Folder) -> str:
    """Return a sentence that names the format of a folder's annotation files and the way out; empty if unknown."""
    for file in islice(folder.with_extension(".txt", ".xml", ".json", ".csv"), _MAX_FILES):
        if _read_start(folder, file).startswith(_LFS_POINTER):
            return f"{file} is only a pointer of Git LFS. Fetch the files with: git lfs pull"
    for extension in dict.fromkeys(sign.extension for sign in SIGNS):
        for file in islice(folder.with_extension(extension), _MAX_FILES):
            sign = find_sign(folder.full_path(file))
            if sign is not None and not sign.reader:
                return f"{file} is in the format of {sign.title}, which is not read. Export it as {sign.exports}."
            if sign is not None and sign.reader == "csv":
                names = "filename, class, xmin, ymin, xmax and ymax"
                return f"{file} is a table, but its columns are not recognised. Name them {names} in the first row."
    for file in islice(folder.with_extension(".xml"), 1):
        tag = _ROOT_TAG.search(_read_start(folder, file).replace(b"\0", b""))
        if tag is not None:
            return (
                f"{file} has the root element <{tag[1].decode()}>, not <annotation> as in VOC's format. Export the "
                "annotations as Pascal VOC."
            )
    return ""


def name_other_files(folder: Folder) -> str:
    """Return a sentence about files of a folder that may contain annotations, but are not read; empty without any."""
    archives = folder.with_extension(*_ARCHIVES)
    if archives:
        return f"It contains the archive {archives[0]}. Unpack it, and remove the archive."
    known = {spelling_key(stem(image)) for image in folder.images}
    images = set(folder.images)
    others = [file for file in folder.listing.files if file not in images]
    others.sort(key=lambda file: not any(spelling_key(stem(file)).startswith(key) for key in known))
    if not others:
        return ""
    more = len(others) - _MAX_NAMED
    names = ", ".join(others[:_MAX_NAMED]) + (f" and {more} other files" if more > 0 else "")
    return (
        f"Beside images, it contains {names}. An annotation file has the name of its image: a.jpg and a.xml or a.txt."
    )


def name_image_without_ending(folder: Folder) -> str:
    """Return a sentence, preceded by a space, about the first file that is an image, but has no ending; or nothing."""
    for file in folder.listing.files:
        if "." not in file.rpartition("/")[2]:
            with contextlib.suppress(UserError):
                name = image_format(folder.full_path(file))
                return f" The file {file} is an image, but its name has no ending. Add '.{name.lower()}' to it."
    return ""


def find_sidecar_files(folder: Folder, images: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Find annotation files of single images in other .json formats than that of the data set, such as labelme's.

    Args:
        folder: Folder of the data set.
        images: Relative paths of images without an annotation file in the format of the data set.

    Returns:
        The relative path of the annotation file and the name of its format, by image.
    """
    by_stem = group_by_stem(folder.with_extension(".json"))
    found: dict[str, tuple[str, str]] = {}
    for image in images if by_stem else ():
        name = image.rpartition("/")[2]
        for file in by_stem.get(spelling_key(stem(image)), by_stem.get(spelling_key(name), [])):
            sign = find_sign(folder.full_path(file))
            if sign is not None:
                found[image] = file, sign.title
    return found


def report_sidecar_files(folder: Folder, found: Mapping[str, tuple[str, str]], problems: Problems) -> None:
    """Add a problem for each image that `find_sidecar_files` found."""
    for image, (file, format_name) in found.items():
        group = f"images have an annotation file only in the format of {format_name} and were left out"
        problems.add(Kind.OTHER_FORMAT, folder.full_path(image), f"({file})", group)


def report_unused_folders(folder: Folder, images: Iterable[str], problems: Problems) -> None:
    """Add a problem for each folder that contains some of the given images, which no annotation file names."""
    for place, count in Counter(map(parent, images)).items():
        text = f"has {count} images that no annotation file names"
        problems.add(Kind.UNANNOTATED, folder.full_path(place), text, "folders contain images that are left out")


def _read_start(folder: Folder, file: str) -> bytes:
    try:
        with folder.full_path(file).open("rb") as stream:
            return convert_to_utf8(stream.read(_MAX_BYTES))
    except OSError:
        return b""
