"""Recognise the annotation files of formats that cannot be read, to name them in a message."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from itertools import islice

from ssd_jax.data.folder import Folder, group_by_stem, spelling_key, stem
from ssd_jax.data.image import image_format
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError
from ssd_jax.files import convert_to_utf8

_SIGNS = (
    ("CVAT for images 1.1 (XML)", ".xml", rb"<annotations>.*<(version|meta|image)\b", "VOC, COCO or YOLO"),
    ("labelme (JSON)", ".json", rb'"shapes"\s*:.*"imagePath"|"imagePath"\s*:.*"shapes"', "VOC or COCO"),
    ("VGG Image Annotator (JSON)", ".json", rb'"_via_settings"|"region_attributes"', "COCO"),
    ("Supervisely (JSON)", ".json", rb'"classTitle"', "VOC, COCO or YOLO"),
    ("VoTT (JSON)", ".json", rb'"assets"\s*:.*"tags"|"tags"\s*:.*"assets"|"regions"\s*:.*"asset"', "VOC"),
    ("Datumaro (JSON)", ".json", rb'"categories"\s*:\s*\{.*"items"\s*:|"items"\s*:.*"attr"', "VOC, COCO or YOLO"),
    ("CreateML (JSON)", ".json", rb'"coordinates"\s*:\s*\{', "VOC or COCO"),
    ("Label Studio (JSON)", ".json", rb'"(rectanglelabels|from_name)"', "COCO, Pascal VOC or YOLO"),
    ("Ultralytics (NDJSON)", ".ndjson", rb'"type"\s*:', "YOLO"),
    ("SageMaker Ground Truth (manifest)", ".manifest", rb'"source-ref"', "COCO"),
    ("KITTI (text)", ".txt", rb"(?m)^[A-Za-z]\S* -?\d\S* -?\d\S*( -?\d\S*){12,13}\s*$", "VOC, COCO or YOLO"),
    ("DOTA (text)", ".txt", rb"(?m)^\s*(-?\d\S*\s+){8}[^\s\d]\S*(\s+\d)?\s*$", "VOC, COCO or YOLO"),
    ("Keras YOLOv3 (text)", ".txt", rb"(?mi)^[^\n]*\.(jpe?g|png|bmp)(\s+-?\d+(,-?\d+){4})+\s*$", "VOC, COCO or YOLO"),
    ("a spreadsheet (CSV)", ".csv", rb"(?i)xmin|bbox", "VOC, COCO or YOLO"),
)  # fmt: skip
"""Name of each format, extension and pattern of its files, and formats that its tool can export instead."""
_MAX_FILES = 5  # of one extension that are examined
_MAX_BYTES = 100_000


_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_ROOT_TAG = re.compile(rb"<([A-Za-z_][\w:.-]*)")
_MAX_NAMED = 3  # files in a message


def name_other_format(folder: Folder) -> str:
    """Return a sentence that names the format of a folder's annotation files and the way out; empty if unknown."""
    for name, extension, pattern, exports in _SIGNS:
        for file in islice(folder.with_extension(extension), _MAX_FILES):
            if _shows(pattern, _read_start(folder, file)):
                return f"{file} is in the format of {name}, which is not read. Export the data set as {exports}."
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
    """Find annotation files of single images in formats that cannot be read, such as labelme's.

    Args:
        folder: Folder of the data set.
        images: Relative paths of images without an annotation file that can be read.

    Returns:
        The relative path of the annotation file and the name of its format, by image.
    """
    by_stem = group_by_stem(folder.with_extension(".json"))
    found: dict[str, tuple[str, str]] = {}
    for image in images if by_stem else ():
        name = image.rpartition("/")[2]
        for file in by_stem.get(spelling_key(stem(image)), by_stem.get(spelling_key(name), [])):
            start = _read_start(folder, file)
            format_name = next((n for n, ending, sign, _ in _SIGNS if ending == ".json" and _shows(sign, start)), None)
            if format_name is not None:
                found[image] = file, format_name
    return found


def report_sidecar_files(folder: Folder, found: Mapping[str, tuple[str, str]], problems: Problems) -> None:
    """Add a problem for each image that `find_sidecar_files` found."""
    for image, (file, format_name) in found.items():
        group = f"images have an annotation file only in the format of {format_name} and were left out"
        problems.add(Kind.OTHER_FORMAT, folder.full_path(image), f"({file})", group)


def _shows(sign: bytes, start: bytes) -> bool:
    return re.search(sign, start, re.DOTALL) is not None


def _read_start(folder: Folder, file: str) -> bytes:
    try:
        with folder.full_path(file).open("rb") as stream:
            return convert_to_utf8(stream.read(_MAX_BYTES))
    except OSError:
        return b""
