"""Recognise the program that wrote an annotation file by the words that it contains.

Several formats share an extension: .json files are written by COCO's tools, labelme, Label Studio and many others.
Readers ask this module which files are theirs, and messages name the formats that no module reads.
"""

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ssd_jax.data.folder import Folder
from ssd_jax.files import convert_to_utf8


class Sign(NamedTuple):
    """The content by which the files of a format are recognised."""

    title: str
    """Name of the format for messages."""
    extension: str
    pattern: bytes
    """Regular expression that is found near the start or the end of a file."""
    reader: str = ""
    """Name of the module that reads the format; empty if no module does."""
    exports: str = ""
    """Formats that the program can export instead, if no module reads this one."""


_USUAL = "VOC, COCO or YOLO"
_IMAGE = rb"\.(?:jpe?g|png|bmp|webp|gif|tiff?)"
_NUMBER = rb"-?\d[\d.eE+-]*"
_CSV_HEADER = (
    rb"(?i)\A(?=[^\n]*(?:file|image|img|path|fname))(?=[^\n]*\b(?:x_?min|x_?1|xtl|left|x)\b)"
    rb"(?=[^\n]*\b(?:y_?min|y_?1|ytl|top|y)\b)"
)
_CSV_ROW = rb"(?im)^\"?[^\n,;\t]+" + _IMAGE + rb"[^\n,;\t]*[,;\t](?:[^,;\t\n]*[,;\t]){4,}[^,;\t\n]*$"

SIGNS = (
    Sign("CVAT for video 1.1 (XML)", ".xml", rb"<annotations>.*<track\b", "", "CVAT for images 1.1"),
    Sign("CVAT for images 1.1 (XML)", ".xml", rb"<annotations>.*<(?:version|meta|image)\b", "cvat"),
    Sign("Label Studio (JSON)", ".json", rb'"(?:rectangle|polygon|ellipse|brush)labels"|"from_name"', "label_studio"),
    Sign("VGG Image Annotator 3 (JSON)", ".json", rb'"vid_list"|"fid_list"', "", "COCO"),
    Sign("VGG Image Annotator (JSON)", ".json", rb'"_via_settings"|"region_attributes"|"file_attributes"', "via"),
    Sign("labelme (JSON)", ".json", rb'"shapes"\s*:.*"imagePath"|"imagePath"\s*:.*"shapes"', "labelme"),
    Sign("Supervisely (JSON)", ".json", rb'"classTitle"|"geometryType"', "supervisely"),
    Sign("Supervisely (JSON)", ".json", rb'"size"\s*:\s*\{\s*"(?:height|width)".*"objects"\s*:', "supervisely"),
    Sign("CreateML (JSON)", ".json", rb'"coordinates"\s*:\s*\{', "createml"),
    Sign(
        "VoTT (JSON)", ".json", rb'"assets"\s*:.*"tags"|"tags"\s*:.*"assets"|"regions"\s*:.*"asset"', "", "VOC or CSV"
    ),
    Sign("Datumaro (JSON)", ".json", rb'"categories"\s*:\s*\{.*"items"\s*:|"items"\s*:.*"attr"', "", _USUAL),
    Sign("Ultralytics (NDJSON)", ".ndjson", rb'"type"\s*:', "", "YOLO"),
    Sign("SageMaker Ground Truth (manifest)", ".manifest", rb'"source-ref"', "", "COCO"),
    Sign("TFRecord", ".tfrecord", rb"", "", _USUAL),
    Sign("TFRecord", ".tfrecords", rb"", "", _USUAL),
    Sign("Python's pickle", ".pkl", rb"", "", _USUAL),
    Sign("Python's pickle", ".pickle", rb"", "", _USUAL),
    Sign("NumPy", ".npy", rb"", "", _USUAL),
    Sign("MATLAB", ".mat", rb"", "", _USUAL),
    Sign("Parquet", ".parquet", rb"", "", f"{_USUAL}, or CSV"),
    Sign("Excel", ".xlsx", rb"", "", "CSV"),
    Sign(
        "KITTI (text)",
        ".txt",
        rb"(?m)^[A-Za-z_\x80-\xff]\S*(?: " + _NUMBER + rb"){14,15}\s*$",
        "kitti",
    ),
    Sign("DOTA (text)", ".txt", rb"(?m)^[ \t]*(?:" + _NUMBER + rb"[ \t]+){8}(?![-+.\d])\S+(?:[ \t]+\d)?\s*$", "dota"),
    Sign(
        "WIDER FACE (text)",
        ".txt",
        rb"(?i)\A\s*[^\n]*" + _IMAGE + rb"\s*\n\s*\d+\s*\n(?:[ \t]*" + _NUMBER + rb"){4}",
        "wider_face",
    ),
    Sign("Keras YOLOv3 (text)", ".txt", rb"(?mi)^[^\n]*" + _IMAGE + rb"(?:\s+-?\d+(?:,-?\d+){4})+\s*$", "", _USUAL),
    Sign("Open Images (CSV)", ".csv", rb"(?i)\A[^\n]*ImageID[^\n]*LabelName[^\n]*\bXMin", "open_images"),
    Sign("VGG Image Annotator (CSV)", ".csv", rb"region_shape_attributes", "via"),
    Sign("a table of boxes (CSV)", ".csv", _CSV_HEADER, "csv"),
    Sign("a table of boxes (CSV)", ".csv", _CSV_ROW, "csv"),
    Sign("a spreadsheet (CSV)", ".csv", rb"(?i)bbox|box", "", _USUAL),
)
"""The first sign that fits a file is that of its format."""
_END_BYTES = 50_000  # that are examined at each end of a file
_READERS = {sign.title: sign.reader for sign in SIGNS}


def find_sign(file: Path) -> Sign | None:
    """Return the sign that fits a file, or None if no sign does or the file cannot be read."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return _find_sign(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=200_000)
def _find_sign(file: Path, size: int, _: int) -> Sign | None:
    extension = file.suffix.lower()
    signs = [sign for sign in SIGNS if sign.extension == extension]
    ends = _read_ends(file, size) if signs else b""
    return next((sign for sign in signs if re.search(sign.pattern, ends, re.DOTALL)), None)


def _read_ends(file: Path, size: int) -> bytes:
    """Return the start and the end of a file, in UTF-8, or nothing if the file cannot be read."""
    try:
        with file.open("rb") as stream:
            start = stream.read(2 * _END_BYTES)
            if size <= 2 * _END_BYTES:
                return convert_to_utf8(start)
            stream.seek(size - _END_BYTES)
            return convert_to_utf8(start[:_END_BYTES]) + b"\n" + stream.read(_END_BYTES)
    except OSError:
        return b""


def find_files(folder: Folder, reader: str, files: Iterable[str] | None = None) -> list[str]:
    """Return the relative paths of the files that a module reads.

    Args:
        folder: Folder of the data set. If it is the folder of a single file, only this file is examined.
        reader: Name of the module.
        files: Relative paths of the files to examine. By default, all files.
    """
    extensions = tuple({sign.extension for sign in SIGNS if sign.reader == reader})
    if folder.path.is_file():
        files = [folder.path.name]
    elif files is None:
        files = folder.listing.files
    candidates = (file for file in files if file.lower().endswith(extensions))
    return [file for file in candidates if (sign := find_sign(folder.full_path(file))) and sign.reader == reader]
