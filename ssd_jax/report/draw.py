"""Drawing of boxes on images, contact sheets, and figures of runs and data sets.

Boxes are xyxy in pixels of the image that they are drawn on. matplotlib is used without pyplot, so that the state of
a notebook's own plots does not change.
"""

import bisect
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8
from PIL import Image, ImageDraw, ImageFont

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
        names: Name of each box. Characters that the available fonts lack are drawn as empty squares.
        scores: Score of each box. Boxes with higher scores are drawn on top.
        colours: Colour of each name, from `class_colours`, so that all images of a set use the same colours. None:
            the names in this image get colours in alphabetical order.
        scale: Factor by which the image is enlarged first, so that labels cover less of a small image.

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
        drawing.rectangle(boxes[i], outline=colours[names[i]], width=max(1, round(side / 280)))
    # Labels are drawn after all boxes, so that no line crosses them. The label with the best score is placed first.
    is_crowded = len(visible) > CROWD
    if is_crowded and scores is None:
        visible = np.random.default_rng(0).permutation(visible).tolist()  # so that labels lie in all parts of the image
    labels = _Labels(drawing, canvas.size, may_cover=not is_crowded)
    for i in reversed(visible):
        score = "" if scores is None else f" {scores[i]:.2f}"
        text = " ".join(escape_text(names[i]).split())
        font = _load_font(max(11, round(side / 42)), text.isascii())
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

    def draw(self, box: Rectangle, name: str, score: str, font: ImageFont.FreeTypeFont, colour: Colour) -> None:
        """Draw the label of a box, if there is room for it."""
        padding, height = round(font.size) // 5, sum(font.getmetrics())
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
        self._drawing.text((place[0] + padding, place[1]), text, fill=ink, font=font)

    def _has_room(self, box: Rectangle, name: str, font: ImageFont.FreeTypeFont, limit: float, height: int) -> bool:
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


@functools.lru_cache
def _load_font(size: int, ascii_only: bool) -> ImageFont.FreeTypeFont:
    """Return Pillow's font, or matplotlib's font for texts with non-ASCII characters, which Pillow's font lacks."""
    if ascii_only:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # as a size is given
        return font
    import matplotlib  # not at the top, because few images need it

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


@functools.lru_cache(maxsize=1 << 14)  # measuring takes longer than drawing, and many labels are equal
def _measure_text(text: str, font: ImageFont.FreeTypeFont) -> float:
    """Return the width of a text in pixels."""
    return font.getlength(text)


@functools.lru_cache(maxsize=1 << 14)
def _estimate_width(text: str, font: ImageFont.FreeTypeFont) -> float:
    """Return the sum of the widths of the characters of a text in pixels, which leaves out kerning."""
    return sum(_measure_text(character, font) for character in text)


def _make_label_text(name: str, score: str, font: ImageFont.FreeTypeFont, limit: float) -> str:
    """Return name and score as one text, with the name cut to fit into ``limit`` pixels, or "" if nothing fits."""
    return _fit_text(name + score, lambda count: name[:count].rstrip() + "…" + score, _LONGEST, font, limit)


def _fit_text(text: str, cut: Callable[[int], str], most: int, font: ImageFont.FreeTypeFont, limit: float) -> str:
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


# ---- contact sheet ----

CAPTION = 18
"""Height of a caption in pixels."""


def add_caption(image: Image.Image, text: str) -> Image.Image:
    """Return an image with a caption below it. A long text is cut at its beginning, because paths differ at the end."""
    font = _load_font(13, text.isascii())
    strip = Image.new("RGB", (image.width, CAPTION), (40, 40, 40))
    shown = _shorten_at_the_left(escape_text(text), font, image.width - 4)
    ImageDraw.Draw(strip).text((2, CAPTION // 2), shown, fill=(225, 225, 225), font=font, anchor="lm")
    combined = Image.new("RGB", (image.width, image.height + CAPTION))
    combined.paste(image)
    combined.paste(strip, (0, image.height))
    return combined


def _shorten_at_the_left(text: str, font: ImageFont.FreeTypeFont, limit: float) -> str:
    """Return a text cut at its beginning to fit into ``limit`` pixels, or "" if nothing fits."""
    return _fit_text(text, lambda count: "…" + text[-count:].lstrip(), 200, font, limit)


def grid(
    images: Sequence[Image.Image], columns: int, *, gap: int = 4, background: Colour = (40, 40, 40)
) -> Image.Image:
    """Return a sheet with images in rows. All cells have the same size; each image lies in the middle of its cell.

    Args:
        images: The images, row by row.
        columns: Number of images per row.
        gap: Space between the cells in pixels.
        background: Colour of the space around the images.

    Raises:
        ValueError: If there are no images, or ``columns`` is below 1.
    """
    if not images or columns < 1:
        raise ValueError(f"got {len(images)} images and {columns} columns, expected at least one of each")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(i.width for i in images) + gap, max(i.height for i in images) + gap
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), background)
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        x, y = column * width + gap, row * height + gap
        sheet.paste(image, (x + (width - gap - image.width) // 2, y + (height - gap - image.height) // 2))
    return sheet


# ---- figures ----

Row = Mapping[str, Any]
"""One record of log.jsonl or one row of results.csv: ``step`` and the values at that step."""

Axes = Any
"""Stand-in for matplotlib's class ``Axes``, because matplotlib is imported only when a figure is drawn."""

LOSS_CURVES = {"loss": "loss", "conf_loss": "confidence", "loc_loss": "location"}
RATE_CURVES = {"learning_rate": "learning rate"}
METRIC_CURVES = {"voc_map_11point": "VOC mAP, 11-point", "voc_map_area": "VOC mAP, area", "coco_ap": "COCO AP"}


def draw_curves(rows: Sequence[Row], path: str | Path) -> None:
    """Draw the losses, the learning rate and the mAP of a run over its steps.

    Values may be numbers or text, and rows may lack values. A panel without values says so. If there
    are many points of a loss, they are drawn pale behind their running mean. The scale of the loss is logarithmic.

    Args:
        rows: Rows with ``step`` and any of the keys of LOSS_CURVES, RATE_CURVES and METRIC_CURVES.
        path: File to write. Its suffix selects the format.
    """
    with _write_figure(path, 16, 4.5) as figure:
        loss, rate, metric = figure.subplots(1, 3)
        _draw_panel(loss, "loss", rows, LOSS_CURVES, smooth=True)
        _draw_panel(rate, "learning rate", rows, RATE_CURVES)
        _draw_panel(metric, "mAP on the validation split", rows, METRIC_CURVES)
        _use_log_scale(loss)
        rate.set_ylim(bottom=0)
        metric.set_ylim(0, 1)


def draw_data_set(
    counts: Mapping[str, Mapping[str, int]],
    boxes_px: Float[np.ndarray, "g 4"],
    unmatched: Bool[np.ndarray, " g"],
    shapes_px: Float[np.ndarray, "k 2"],
    path: str | Path,
) -> None:
    """Draw the number of objects per class and split, and the sizes and shapes of the boxes of a data set.

    Args:
        counts: Number of objects per class, for each split.
        boxes_px: Boxes of the train split as xyxy, in pixels of the input of the network.
        unmatched: For each box, whether no default box matches it. Such boxes are drawn in red.
        shapes_px: Width and height of each different shape of the default boxes, in the same pixels.
        path: File to write. Its suffix selects the format.
    """
    classes = _choose_most_and_least_frequent(
        {name: sum(c[name] for c in counts.values()) for name in next(iter(counts.values()))}
    )
    with _write_figure(path, 17, max(5.0, 1.5 + 0.2 * len(classes))) as figure:
        bars, sizes, shapes = figure.subplots(1, 3)
        left = np.zeros(len(classes))
        for split, count_of_class in counts.items():
            values = [count_of_class[name] for name in classes]
            bars.barh(range(len(classes)), values, left=left, label=split)
            left += values
        bars.set_yticks(range(len(classes)), [_shorten_for_axis(escape_text(name)) for name in classes])
        bars.invert_yaxis()
        bars.legend()
        bars.set_title("objects per class")
        extents = np.maximum(boxes_px[:, 2:] - boxes_px[:, :2], 0.5)
        sides = np.sqrt(extents.prod(axis=1))
        edges = np.geomspace(2, max(sides.max(initial=0), shapes_px.max()) * 1.1, 40)
        sizes.hist(
            [sides[~unmatched], sides[unmatched]], edges, stacked=True, color=["C0", "C3"], label=["", "unmatched"]
        )
        for side in np.unique(np.sqrt(shapes_px.prod(axis=1)).round(1)):
            sizes.axvline(side, color="gray", linewidth=0.7, linestyle=":")
        sizes.set_title("square root of the box area, input pixels\n(dotted: default boxes)")
        shown = np.random.default_rng(0).permutation(len(extents))[:5000]  # more points would only overlap
        for mask, colour, label in ((~unmatched, "C0", "matched"), (unmatched, "C3", "unmatched")):
            w, h = extents[shown[mask[shown]]].T
            shapes.plot(w, h, ".", color=colour, alpha=0.35, markersize=4, label=label)
        shapes.plot(*shapes_px.T, "k+", markersize=8, label="default boxes")
        shapes.set_title("width (horizontal) and height of the boxes,\ninput pixels")
        shapes.legend()
        for axes in (sizes, shapes):
            axes.set_xscale("log")
            _set_plain_ticks(axes.xaxis)
        shapes.set_yscale("log")
        _set_plain_ticks(shapes.yaxis)
        for axes in (bars, sizes, shapes):
            axes.grid(alpha=0.3)


@contextmanager
def _write_figure(path: str | Path, width: float, height: float) -> Iterator[Any]:
    """Return a context manager with a matplotlib figure, which is written to a file after the ``with`` block.

    All text of the figure is literal: ``$``, ``_`` and ``^`` are no formula. Characters that the font lacks become
    empty squares, without warnings.

    Args:
        path: File to write. Its suffix selects the format.
        width: Width in inches.
        height: Height in inches.
    """
    # Imported here because it takes half a second. pyplot would select a backend and keep the figure in memory.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing|Matplotlib currently does not support")
        figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path)


def _choose_most_and_least_frequent(counts: Mapping[str, int], shown: int = 40) -> list[str]:
    """Return the class names in order; if there are more than ``shown``, only the most and the least frequent ones."""
    if len(counts) <= shown:
        return list(counts)
    names = sorted(counts, key=lambda name: -counts[name])
    return [*names[: shown // 2], *names[-shown // 2 :]]


def _shorten_for_axis(name: str, shown: int = 40) -> str:
    """Return a class name cut to ``shown`` characters, because a long name would leave no room for the bars."""
    return name if len(name) <= shown else name[: shown - 1] + "…"


def _draw_panel(axes: Axes, title: str, rows: Sequence[Row], curves: Mapping[str, str], smooth: bool = False) -> None:
    """Draw one or several curves into a panel, or a note if there are no values."""
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    for number, (key, label) in enumerate(curves.items()):
        steps, values = _read_curve(rows, key)
        if len(steps) == 0:
            continue
        style = {"color": f"C{number}", "marker": "." if len(steps) <= 40 else None}
        if smooth and len(steps) > 40:
            axes.plot(steps, values, linewidth=0.8, alpha=0.25, **style)
            values = _compute_running_mean(values)
        axes.plot(steps, values, label=label, linewidth=1.8, **style)
    if not axes.lines:
        axes.tick_params(labelbottom=False, labelleft=False)
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", va="center", color="gray")
    elif len(curves) > 1:
        axes.legend()


def _read_curve(rows: Sequence[Row], key: str) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """Return the steps and values of the rows that have a value for ``key``. Empty cells of a CSV file are left out."""
    points = [(float(row["step"]), float(row[key])) for row in rows if row.get(key) not in (None, "")]
    table = np.array(points, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _compute_running_mean(values: Float64[np.ndarray, " r"]) -> Float64[np.ndarray, " r"]:
    """Return the mean of the values around each value: about 1/40 of all values, and fewer at both ends."""
    kernel = np.ones(2 * (len(values) // 80) + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _use_log_scale(axes: Axes) -> None:
    """Make the y axis logarithmic if a line has positive values."""
    if not any((line.get_ydata() > 0).any() for line in axes.lines):
        return
    axes.set_yscale("log")
    _set_plain_ticks(axes.yaxis)


def _set_plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, ... with plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
