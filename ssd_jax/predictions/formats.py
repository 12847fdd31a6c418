"""Names of what ``ssd-jax predict`` can write. This module imports next to nothing, so that ``--help`` is fast."""

from typing import Literal, get_args

from ssd_jax.data.earlier_output import JSON_FILE

Format = Literal["pictures", "json", "coco", "csv", "yolo", "voc", "crops"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Formats that ``--save`` can name."""

CSV_FILE = "predictions.csv"
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


def describe_written(formats: tuple[Format, ...], pictures: str = "images") -> str:
    """Return a list of what is written for some formats, such as "predictions.json, and coco/annotations.json".

    Args:
        formats: The formats.
        pictures: What has boxes: "images" or "videos", or both.
    """
    texts = WRITTEN | {"pictures": f"the {pictures} with their boxes"}
    names = [text for name, text in texts.items() if name in formats]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"
