"""Recognise the annotation files of formats that cannot be read, to name them in a message."""

import re
from itertools import islice

from ssd_jax.data.folder import Folder

_SIGNS = (
    ("CVAT for images 1.1 (XML)", ".xml", rb"<annotations>.*<(version|meta|image)\b", "VOC, COCO or YOLO"),
    ("labelme (JSON)", ".json", rb'"shapes"\s*:.*"imagePath"|"imagePath"\s*:.*"shapes"', "VOC or COCO"),
    ("VGG Image Annotator (JSON)", ".json", rb'"_via_settings"|"region_attributes"', "COCO"),
    ("Supervisely (JSON)", ".json", rb'"classTitle"', "VOC, COCO or YOLO"),
    ("VoTT (JSON)", ".json", rb'"assets"\s*:.*"tags"|"tags"\s*:.*"assets"|"regions"\s*:.*"asset"', "VOC"),
    ("Datumaro (JSON)", ".json", rb'"items"\s*:.*"attr"|"infos"?\s*:.*"items"', "VOC, COCO or YOLO"),
    ("CreateML (JSON)", ".json", rb'"coordinates"\s*:\s*\{', "VOC or COCO"),
    ("Label Studio (JSON)", ".json", rb'"(rectanglelabels|from_name)"', "COCO, Pascal VOC or YOLO"),
    ("a spreadsheet (CSV)", ".csv", rb"(?i)xmin|bbox", "VOC, COCO or YOLO"),
)  # fmt: skip
"""Name of each format, extension and pattern of its files, and formats that its tool can export instead."""
_MAX_FILES = 5  # of one extension that are examined
_MAX_BYTES = 100_000


def name_other_format(folder: Folder) -> str:
    """Return a sentence that names the format of a folder's annotation files and the way out; empty if unknown."""
    for name, extension, pattern, exports in _SIGNS:
        for file in islice(folder.with_extension(extension), _MAX_FILES):
            try:
                with folder.full_path(file).open("rb") as stream:
                    start = stream.read(_MAX_BYTES)
            except OSError:
                continue
            if re.search(pattern, start, re.DOTALL):
                return f"{file} is in the format of {name}, which is not read. Export the data set as {exports}."
    return ""
