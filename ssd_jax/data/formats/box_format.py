"""Recognise boxes whose four numbers have another meaning than the format of the data set says.

Scripts that convert data sets often confuse corners, sizes and centres: they write x1, y1, x2, y2 into ``bbox`` of
a COCO file, whose numbers are left, top, width and height. Such boxes are still boxes, but in the wrong places.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from ssd_jax.data.problems import Kind, Problems

FORMATS: Mapping[str, str] = {
    "xyxy": "x1, y1, x2, y2",
    "xywh": "left, top, width, height",
    "cxcywh": "x_center, y_center, width, height",
}
"""Meanings of the four numbers of a box."""

_MIN_BOXES = 10  # fewer boxes may fit a wrong meaning by chance
_MIN_MISFITS = 0.2  # fraction of the boxes that do not fit the stated meaning
_MAX_MISFITS = 0.01  # fraction of the boxes that do not fit the true meaning
_MARGIN = 0.01  # of the image side by which boxes may reach beyond the image, as careless labels do


def find_box_format(
    boxes: Float[np.ndarray, "g 4"], sizes: Float[np.ndarray, "g 2"], stated: str
) -> tuple[str, int] | None:
    """Return the meaning that the numbers of boxes probably have, if it is not the stated one.

    It is a meaning by which nearly all boxes are inside their images, while many are not by the stated one.

    Args:
        boxes: Boxes, xyxy in pixels, as they result from the stated meaning. Their corners may be swapped.
        sizes: Width and height of the image of each box.
        stated: Meaning that the format of the data set defines, one of `FORMATS`.

    Returns:
        The probable meaning and the number of boxes that do not fit the stated one; None if the latter is plausible.
    """
    misfits = int((~_fits(boxes, sizes)).sum())
    if len(boxes) < _MIN_BOXES or misfits < _MIN_MISFITS * len(boxes):
        return None
    numbers = _from_corners(boxes, stated)
    for name in FORMATS:
        if name != stated and (~_fits(_to_corners(numbers, name), sizes)).mean() <= _MAX_MISFITS:
            return name, misfits
    return None


def check_box_format(
    boxes: Float[np.ndarray, "g 4"], sizes: Float[np.ndarray, "g 2"], stated: str, problems: Problems, file: object
) -> None:
    """Add a problem if the numbers of boxes probably have another meaning, see `find_box_format`.

    Raises:
        UserError: If they have, and ``problems`` raises errors.
    """
    found = find_box_format(boxes, sizes, stated)
    if found is not None:
        name, misfits = found
        text = (
            f"{misfits} of {len(boxes)} boxes are not inside their images, but they are if their numbers are "
            f"{FORMATS[name]} instead of {FORMATS[stated]}. Convert them to {FORMATS[stated]}."
        )
        problems.add(Kind.BOX_FORMAT, file, text)


def _fits(corners: Float[np.ndarray, "g 4"], sizes: Float[np.ndarray, "g 2"]) -> Bool[np.ndarray, " g"]:
    """Return whether each box has an area and is inside its image, except for a margin."""
    low, high = corners[:, :2], corners[:, 2:]
    return np.all((high > low) & (low >= -_MARGIN * sizes) & (high <= (1 + _MARGIN) * sizes), axis=1)


def _from_corners(corners: Float[np.ndarray, "g 4"], name: str) -> Float[np.ndarray, "g 4"]:
    low, high = corners[:, :2], corners[:, 2:]
    first = {"xyxy": low, "xywh": low, "cxcywh": (low + high) / 2}[name]
    return np.concatenate([first, high if name == "xyxy" else high - low], axis=1)


def _to_corners(numbers: Float[np.ndarray, "g 4"], name: str) -> Float[np.ndarray, "g 4"]:
    first, last = numbers[:, :2], numbers[:, 2:]
    low = first - last / 2 if name == "cxcywh" else first
    return np.concatenate([low, last if name == "xyxy" else low + last], axis=1)
