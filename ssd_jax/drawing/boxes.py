"""Boxes and their labels, drawn on images. Boxes are xyxy in pixels of the image that they are drawn on."""

import bisect
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from ssd_jax.drawing.fonts import TextFont, choose_font
from ssd_jax.errors import escape_text

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""Corners x1, y1, x2, y2 in whole pixels. The pixel (x2, y2) belongs to the rectangle."""

CROWD = 50
"""Number of boxes up to which every box of an image has a label, and lines and letters have their usual size."""
LABELLED_AREA = 0.15
"""Share of an image with more than `CROWD` boxes that labels may cover."""
_LONGEST = 100
"""Number of characters to which a name is cut if its label does not fit into the image."""

# Neighbouring colours differ in hue, and none is so dark or pale that it looks like a shadow or a highlight.
PALETTE: tuple[Colour, ...] = (
    (230, 25, 75),  # red
    (0, 130, 200),  # blue
    (255, 215, 0),  # yellow
    (60, 180, 75),  # green
    (240, 50, 230),  # magenta
    (70, 240, 240),  # cyan
    (245, 130, 48),  # orange
    (145, 60, 220),  # violet
    (190, 240, 70),  # lime
    (250, 150, 180),  # pink
    (0, 150, 140),  # teal
    (170, 110, 40),  # brown
    (150, 170, 255),  # periwinkle
    (160, 160, 0),  # olive
    (255, 180, 120),  # apricot
    (120, 220, 170),  # mint
    (180, 20, 20),  # maroon
    (60, 70, 240),  # indigo
    (220, 160, 255),  # lavender
    (130, 150, 170),  # slate
)


def class_colours(class_names: Iterable[str]) -> dict[str, Colour]:
    """Return a colour for each class. After the twenty colours of PALETTE, the colours repeat."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(class_names)}


# ---- boxes ----


def draw_boxes(
    image: UInt8[np.ndarray, "h w 3"],
    boxes_px: Float[np.ndarray, "k 4"],
    names: Sequence[str],
    scores: Float[np.ndarray, " k"] | None = None,
    *,
    colours: Mapping[str, Colour] | None = None,
    scale: float = 1.0,
    line_width: int | None = None,
    show_labels: bool = True,
    show_scores: bool = True,
) -> Image.Image:
    """Draw boxes on an image, each labelled with its name and, if given, its score.

    Labels are placed so that they cover as little of other labels as possible, and always inside the image. Lines and
    letters grow with the image. Boxes outside of the image and boxes with non-finite numbers are left out.

    With more than `CROWD` boxes, lines are thinner and letters smaller, the more boxes there are. Labels are then
    drawn only where they cover no other label, the best scores first, and only until they cover `LABELLED_AREA` of the
    image. The time grows linearly with the number of boxes.

    Args:
        image: RGB image.
        boxes_px: Boxes as xyxy in pixels of ``image``. Corners may be swapped.
        names: Name of each box, in any script. Characters that no available font has are drawn as empty squares.
        scores: Score of each box. Boxes with higher scores are drawn on top.
        colours: Colour of each name, from `class_colours`, so that all images of a set use the same colours. None:
            the names in this image get colours in alphabetical order.
        scale: Factor by which the image is enlarged first, so that labels cover less of a small image.
        line_width: Width of the lines in pixels. None: they grow with the image.
        show_labels: Whether to draw labels.
        show_scores: Whether the labels contain the scores.

    Returns:
        A new image; ``image`` is not changed.

    Raises:
        ValueError: If the number of names or scores differs from that of boxes.
        KeyError: If ``colours`` has no colour for a name.
    """
    if len(names) != len(boxes_px) or (scores is not None and len(scores) != len(boxes_px)):
        raise ValueError(
            f"got {len(boxes_px)} boxes, {len(names)} names and {'no' if scores is None else len(scores)} scores"
        )
    colours = class_colours(sorted(set(names))) if colours is None else colours
    canvas = Image.fromarray(image)
    if scale != 1:
        size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
        canvas = canvas.resize(size, Image.Resampling.BICUBIC)
    boxes = _clip_to_image(boxes_px * scale, canvas.size)
    order = range(len(names)) if scores is None else np.argsort(scores, kind="stable").tolist()
    visible = [i for i in order if i in boxes]
    drawing = ImageDraw.Draw(canvas)
    side = math.sqrt(canvas.width * canvas.height) * min(1, math.sqrt(CROWD / max(1, len(visible))))
    for i in visible:
        drawing.rectangle(boxes[i], outline=colours[names[i]], width=line_width or max(1, round(side / 280)))
    if not show_labels:
        return canvas
    # Labels are drawn after all boxes, so that no line crosses them. The label with the best score is placed first.
    is_crowded = len(visible) > CROWD
    if is_crowded and scores is None:
        visible = np.random.default_rng(0).permutation(visible).tolist()  # so that labels lie in all parts of the image
    labels = _Labels(drawing, canvas.size, may_cover=not is_crowded)
    for i in reversed(visible):
        score = "" if scores is None or not show_scores else f" {scores[i]:.2f}"
        text = " ".join(escape_text(names[i]).split())
        font = choose_font(text, max(11, round(side / 42)))
        labels.draw(boxes[i], text, score, font, colours[names[i]])
    return canvas


def _clip_to_image(boxes_px: Float[np.ndarray, "k 4"], size: tuple[int, int]) -> dict[int, Rectangle]:
    """Return the boxes that are visible in an image of width and height ``size`` by their positions, clipped to it."""
    first, second = boxes_px[:, :2], boxes_px[:, 2:]
    low, high = np.minimum(first, second), np.maximum(first, second)
    visible = np.isfinite(boxes_px).all(axis=1) & (high >= 0).all(axis=1) & (low < size).all(axis=1)
    corners = np.concatenate([low, high], axis=1)[visible]
    whole = np.rint(np.clip(corners, 0, np.subtract((*size, *size), 1))).astype(int)
    return dict(zip(np.flatnonzero(visible).tolist(), map(tuple, whole.tolist()), strict=True))


class _Labels:
    """The labels of an image. A label is drawn on a background with the colour of its box.

    Args:
        drawing: The drawing of the image.
        size: Width and height of the image.
        may_cover: Whether labels may cover each other. If not, labels without room are left out.
    """

    def __init__(self, drawing: ImageDraw.ImageDraw, size: tuple[int, int], *, may_cover: bool) -> None:
        self._drawing, self._size, self._may_cover = drawing, size, may_cover
        self._cover = np.zeros(size[::-1], np.uint8)
        """Number of labels that cover each pixel."""
        self._room = LABELLED_AREA * self._cover.size

    def draw(self, box: Rectangle, name: str, score: str, font: TextFont, colour: Colour) -> None:
        """Draw the label of a box, if there is room for it."""
        padding, height = font.size // 5, font.height
        limit = self._size[0] - 2 * padding
        if height > self._size[1] or not (self._may_cover or self._has_room(box, name, font, limit, height)):
            return
        text = _make_label_text(name, score, font, limit)
        width = math.ceil(_measure_text(text, font)) + 2 * padding
        if not text:
            return
        place = _choose_place(_list_label_places(box, (width, height), self._size), self._cover, self._may_cover)
        if place is None:
            return
        _crop(self._cover, place)[:] += 1
        self._room -= width * height
        luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        self._drawing.rectangle(place, fill=colour)
        ink = "black" if luminance > 120 else "white"
        font.draw(self._drawing, (place[0] + padding, place[1]), text, ink)

    def _has_room(self, box: Rectangle, name: str, font: TextFont, limit: float, height: int) -> bool:
        """Return whether there may be room for the label of a box, without measuring its text, which takes longer.

        Each place of a label contains the place of a narrower label. The width is therefore estimated a little too low.
        """
        if self._room <= 0:
            return False
        width = _estimate_width(name[:_LONGEST], font)
        # Kerning moves letters together, and a text that is cut to fit lacks a letter and a space.
        narrow = max(1, int(0.9 * width if width < limit else 0.9 * limit - 3 * font.size))
        places = _list_label_places(box, (narrow, height), self._size)
        return not all(_crop(self._cover, place).any() for place in places)


@functools.lru_cache(maxsize=1 << 14)  # measuring takes longer than drawing, and many labels are equal
def _measure_text(text: str, font: TextFont) -> float:
    """Return the width of a text in pixels."""
    return font.measure(text)


@functools.lru_cache(maxsize=1 << 14)
def _estimate_width(text: str, font: TextFont) -> float:
    """Return the sum of the widths of the characters of a text in pixels, which leaves out kerning."""
    return sum(_measure_text(character, font) for character in text)


def _make_label_text(name: str, score: str, font: TextFont, limit: float) -> str:
    """Return name and score as one text, with the name cut to fit into ``limit`` pixels, or "" if nothing fits."""
    return fit_text(name + score, lambda count: name[:count].rstrip() + "…" + score, _LONGEST, font, limit)


def fit_text(text: str, cut: Callable[[int], str], most: int, font: TextFont, limit: float) -> str:
    """Return a text if it fits into ``limit`` pixels, or else the longest cut text that fits, or "" if none does.

    Args:
        text: The whole text.
        cut: Function that returns the text cut to a number of its characters.
        most: Maximum number of characters of a cut text.
        font: Font of the text.
        limit: Maximum width of the text in pixels.
    """
    if _measure_text(text, font) <= limit:
        return text.strip()
    counts = range(1, min(len(text) - 1, most) + 1)
    fitting = bisect.bisect_right(counts, limit, key=lambda count: _measure_text(cut(count), font))
    return cut(fitting).strip() if fitting else ""


def _list_label_places(box: Rectangle, label: tuple[int, int], size: tuple[int, int]) -> list[Rectangle]:
    """Return possible places for a label of the given width and height inside the image, best first."""
    (x1, y1, x2, y2), (w, h) = box, label
    above, below, left, right = y1 - h, y2 + 1, x1, x2 - w + 1
    corners = [(left, above), (right, above), (left, below), (right, below)]
    corners += [(x2 + 1, y1), (x1 - w, y1), (left, y1), (left, y2 - h + 1)]
    inside = [(min(max(x, 0), size[0] - w), min(max(y, 0), size[1] - h)) for x, y in corners]
    return [(x, y, x + w - 1, y + h - 1) for x, y in inside]


def _choose_place(places: Sequence[Rectangle], cover: UInt8[np.ndarray, "h w"], may_cover: bool) -> Rectangle | None:
    """Return the first of the places that cover other labels the least.

    Args:
        places: Possible places of a label.
        cover: Number of labels that cover each pixel.
        may_cover: Whether the label may cover other labels. If not, and all places would, the result is None.
    """
    free = next((place for place in places if not _crop(cover, place).any()), None)
    if free is not None or not may_cover:
        return free
    return min(places, key=lambda place: int(_crop(cover, place).sum()))


def _crop(pixels: UInt8[np.ndarray, "h w"], part: Rectangle) -> UInt8[np.ndarray, "a b"]:
    """Return a view of the pixels in a rectangle."""
    return pixels[part[1] : part[3] + 1, part[0] : part[2] + 1]
