"""Names of what ``ssd-jax predict`` can write. This module imports nothing, so that ``--help`` is fast."""

from typing import Literal, get_args

Format = Literal["pictures", "json", "coco", "csv", "yolo", "voc", "crops"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Formats that ``--save`` can name."""

JSON_FILE, CSV_FILE = "predictions.json", "predictions.csv"
COCO_FOLDER, YOLO_FOLDER, VOC_FOLDER, CROP_FOLDER = "coco", "yolo", "voc", "crops"
COCO_FILE = "annotations.json"
WRITTEN: dict[Format, str] = {
    "json": JSON_FILE,
    "csv": CSV_FILE,
    "coco": f"{COCO_FOLDER}/{COCO_FILE}",
    "yolo": f"{YOLO_FOLDER}/",
    "voc": f"{VOC_FOLDER}/",
    "crops": f"{CROP_FOLDER}/",
    "pictures": "the images with their boxes",
}
"""Description of the output of each format, for messages."""
MARKER = ".ssd_jax_predictions"
"""Name of an empty file in an output folder, by which later predictions and the readers of data sets recognise it."""
MARKERS = (JSON_FILE, MARKER)


def describe_written(formats: tuple[Format, ...], pictures: str = "images") -> str:
    """Return a list of what is written for some formats, such as "predictions.json, and coco/annotations.json".

    Args:
        formats: The formats.
        pictures: What has boxes: "images" or "videos", or both.
    """
    texts = WRITTEN | {"pictures": f"the {pictures} with their boxes"}
    names = [text for name, text in texts.items() if name in formats]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"
