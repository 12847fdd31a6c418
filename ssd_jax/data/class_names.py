"""Class names of public data sets, and functions that describe lists of class names.

The order of a list is the order of the labels: the first name has label 1.
"""

import textwrap
from collections.abc import Iterable, Sequence

from ssd_jax.errors import escape_text

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 classes of PASCAL VOC in alphabetical order."""
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO, ordered by category id."""
VOC_NAMES_IN_COCO = (
    ("aeroplane", "airplane"),
    ("diningtable", "dining table"),
    ("motorbike", "motorcycle"),
    ("pottedplant", "potted plant"),
    ("sofa", "couch"),
    ("tvmonitor", "tv"),
)
"""Classes of VOC that have another name in COCO, as pairs (name in VOC, name in COCO)."""


def describe_class_difference(
    old_names: Sequence[str],
    new_names: Sequence[str],
    *,
    old_place: str = "the checkpoint",
    new_place: str = "the data",
) -> str:
    """Return indented lines that describe how two lists of class names differ.

    Args:
        old_names: First list of class names.
        new_names: Second list of class names.
        old_place: Phrase that says where the first list comes from, such as ``the checkpoint``.
        new_place: Phrase that says where the second list comes from.

    Returns:
        The names that are in only one of the lists or, if there are none, both lists in their orders. The text is
        empty if the lists are equal.
    """
    lines = [
        format_names(f"only in {place}", only)
        for place, names, others in ((old_place, old_names, new_names), (new_place, new_names, old_names))
        if (only := [name for name in names if name not in others])
    ]
    if not lines and list(old_names) != list(new_names):
        lines = ["  the same names in another order"]
        lines += [format_names(f"in {old_place}", old_names), format_names(f"in {new_place}", new_names)]
    return "\n".join(lines)


def format_names(title: str, names: Iterable[str]) -> str:
    """Return the text "title: a, b, c" as an indented paragraph with lines of at most 110 characters."""
    return textwrap.fill(
        f"{title}: {', '.join(map(escape_text, names))}",
        width=110,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
