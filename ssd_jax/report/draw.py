"""Pictures for people: boxes on images, contact sheets, curves of a run.

Boxes are xyxy in pixels of the image that they are drawn on. Nothing here touches global state:
matplotlib is used without pyplot, so a notebook's own plots stay as they are.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""x1 y1 x2 y2 in whole pixels, the last one inside."""

# Neighbours in the list lie far apart in hue, and none is so dark or pale that it passes for a
# shadow or a light in a photograph.
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
    """A colour for each class, by its position; the twenty of PALETTE come round again."""
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
    """The image with its boxes, each labelled with its name and, if given, its score.

    Labels are laid where they hide no other label, as far as there is room, and always inside the
    picture. Lines and letters grow with the picture. Boxes outside of it or with numbers that are
    not finite are left out.

    Args:
        image: RGB.
        boxes_px: xyxy, pixels of ``image``; corners may be swapped.
        names: one for each box. Letters that no font at hand has come out as empty squares.
        scores: one for each box; boxes with low scores are drawn first, below the others.
        colours: of each name, from class_colours, so that all pictures of a set agree; if not
            given, the names in this picture are coloured in alphabetical order.
        scale: enlarges the picture first, so that labels on small ones hide less.

    Raises:
        ValueError: not as many names or scores as boxes.
        KeyError: ``colours`` lacks a name.
    """
    if len(names) != len(boxes_px) or (scores is not None and len(scores) != len(boxes_px)):
        raise ValueError(
            f"{len(boxes_px)} boxes, {len(names)} names, scores: {None if scores is None else len(scores)}"
        )
    colours = class_colours(sorted(set(names))) if colours is None else colours
    canvas = Image.fromarray(image)
    if scale != 1:
        size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
        canvas = canvas.resize(size, Image.Resampling.BICUBIC)
    order = range(len(names)) if scores is None else np.argsort(scores, kind="stable").tolist()
    boxes = {i: box for i in order if (box := _visible_pixels(boxes_px[i] * scale, canvas.size))}
    pen = ImageDraw.Draw(canvas)
    side = math.sqrt(canvas.width * canvas.height)
    for i, box in boxes.items():
        pen.rectangle(box, outline=colours[names[i]], width=max(1, round(side / 280)))
    # Labels after all boxes, so that no line crosses them; the best score chooses its place first.
    taken: list[Rectangle] = []
    for i in reversed(boxes):
        score = "" if scores is None else f" {scores[i]:.2f}"
        _draw_label(pen, boxes[i], names[i], score, max(11, round(side / 42)), colours[names[i]], taken)
    return canvas


def _visible_pixels(box_px: Float[np.ndarray, "4"], size: tuple[int, int]) -> Rectangle | None:
    """The box cut to a picture of width and height ``size``; None if there is nothing to see."""
    if not np.isfinite(box_px).all():
        return None
    (x1, x2), (y1, y2) = np.sort(box_px[[0, 2]]), np.sort(box_px[[1, 3]])
    width, height = size
    if x2 < 0 or y2 < 0 or x1 >= width or y1 >= height:
        return None
    left, right = (round(float(np.clip(x, 0, width - 1))) for x in (x1, x2))
    top, bottom = (round(float(np.clip(y, 0, height - 1))) for y in (y1, y2))
    return left, top, right, bottom


def _draw_label(
    pen: ImageDraw.ImageDraw,
    box: Rectangle,
    name: str,
    score: str,
    font_size: int,
    colour: Colour,
    taken: list[Rectangle],
) -> None:
    """Writes name and score on a ground of the box's colour, and adds the place to ``taken``."""
    name = _in_one_line(name)
    font = _font(font_size, name.isascii())
    padding = font_size // 5
    width, height = pen.im.size
    text = _shorten(name, score, font, width - 2 * padding)
    label = (math.ceil(font.getlength(text)) + 2 * padding, sum(font.getmetrics()))
    if not text or label[1] > height:
        return
    place = _least_hidden(_label_places(box, label, (width, height)), taken)
    taken.append(place)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    pen.rectangle(place, fill=colour)
    pen.text((place[0] + padding, place[1]), text, fill="black" if luminance > 120 else "white", font=font)


def _in_one_line(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split())


@functools.lru_cache
def _font(size: int, ascii_only: bool) -> ImageFont.FreeTypeFont:
    """Pillow's own font; it has no letter outside of ASCII, for those the one that matplotlib brings."""
    if ascii_only:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # what a size given means
        return font
    import matplotlib  # not above: a picture seldom needs it

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _shorten(name: str, score: str, font: ImageFont.FreeTypeFont, limit: float) -> str:
    """Name and score within ``limit`` pixels; the name gives way, and if nothing fits the text is empty."""
    texts = [name + score, *(name[:end].rstrip() + "…" + score for end in range(min(len(name) - 1, 100), 0, -1))]
    return next((text.strip() for text in texts if font.getlength(text) <= limit), "")


def _label_places(box: Rectangle, label: tuple[int, int], size: tuple[int, int]) -> list[Rectangle]:
    """Where a label of width and height may lie, best place first, moved into the picture."""
    (x1, y1, x2, y2), (w, h) = box, label
    above, below, left, right = y1 - h, y2 + 1, x1, x2 - w + 1
    corners = [(left, above), (right, above), (left, below), (right, below)]
    corners += [(x2 + 1, y1), (x1 - w, y1), (left, y1), (left, y2 - h + 1)]
    inside = [(min(max(x, 0), size[0] - w), min(max(y, 0), size[1] - h)) for x, y in corners]
    return [(x, y, x + w - 1, y + h - 1) for x, y in inside]


def _least_hidden(places: Sequence[Rectangle], taken: Sequence[Rectangle]) -> Rectangle:
    """The place that shares fewest pixels with those taken; the first of equals."""

    def shared(place: Rectangle) -> int:
        widths = (min(place[2], other[2]) - max(place[0], other[0]) + 1 for other in taken)
        heights = (min(place[3], other[3]) - max(place[1], other[1]) + 1 for other in taken)
        return sum(max(w, 0) * max(h, 0) for w, h in zip(widths, heights, strict=True))

    return min(places, key=shared)


# ---- contact sheet ----

CAPTION = 18
"""Height of the strip that a caption adds below a picture, pixels."""


def with_caption(picture: Image.Image, text: str) -> Image.Image:
    """The picture, and below it a strip with the text; of a long one the end, where paths differ."""
    font = _font(13, text.isascii())
    strip = Image.new("RGB", (picture.width, CAPTION), (40, 40, 40))
    shown = _shorten_left(_in_one_line(text), font, picture.width - 4)
    ImageDraw.Draw(strip).text((2, CAPTION // 2), shown, fill=(225, 225, 225), font=font, anchor="lm")
    whole = Image.new("RGB", (picture.width, picture.height + CAPTION))
    whole.paste(picture)
    whole.paste(strip, (0, picture.height))
    return whole


def _shorten_left(text: str, font: ImageFont.FreeTypeFont, limit: float) -> str:
    """The text within ``limit`` pixels; its beginning gives way, and if nothing fits it is empty."""
    texts = [text, *("…" + text[-length:].lstrip() for length in range(min(len(text) - 1, 200), 0, -1))]
    return next((shown for shown in texts if font.getlength(shown) <= limit), "")


def grid(
    images: Sequence[Image.Image], columns: int, *, gap: int = 4, background: Colour = (40, 40, 40)
) -> Image.Image:
    """The images in rows, each in the middle of a cell as large as the largest needs.

    Raises:
        ValueError: no images, or columns below 1.
    """
    if not images or columns < 1:
        raise ValueError(f"{len(images)} images in {columns} columns: at least one of each is needed")
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
"""One record of log.jsonl or row of results.csv: ``step`` and what was measured at it."""

Axes = Any
"""matplotlib's; its import is put off, so it is no more than a name here."""

LOSS_CURVES = {"loss": "loss", "conf_loss": "confidence", "loc_loss": "location"}
RATE_CURVES = {"learning_rate": "learning rate"}
METRIC_CURVES = {"voc_map_11point": "VOC mAP, 11-point", "voc_map_area": "VOC mAP, area", "coco_ap": "COCO AP"}


def draw_curves(rows: Sequence[Row], path: str | Path) -> None:
    """Writes a picture of a run: the parts of the loss, the learning rate and mAP over steps.

    Rows hold numbers (log.jsonl) or their text (results.csv), and need not have every value; a
    panel without any says so. Where there are many points of the loss, they are pale behind
    their running mean. Its scale is logarithmic: a loss falls by factors.

    Args:
        rows: with ``step``, and any of the keys of LOSS_CURVES, RATE_CURVES and METRIC_CURVES.
        path: a file whose ending names the format, such as ``curves.png``.
    """
    # Here, for they take half a second to load, and detection draws no curves. No pyplot: it
    # would pick a backend and keep the figure for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    loss, rate, metric = figure.subplots(1, 3)
    _draw_panel(loss, "loss", rows, LOSS_CURVES, smooth=True)
    _draw_panel(rate, "learning rate", rows, RATE_CURVES)
    _draw_panel(metric, "mAP on the validation split", rows, METRIC_CURVES)
    _scale_log(loss)
    rate.set_ylim(bottom=0)
    metric.set_ylim(0, 1)
    figure.savefig(path)


def draw_data_set(
    counts: Mapping[str, Mapping[str, int]],
    boxes_px: Float[np.ndarray, "g 4"],
    below: Bool[np.ndarray, " g"],
    shapes_px: Float[np.ndarray, "k 2"],
    path: str | Path,
) -> None:
    """Writes a picture of a data set: objects of each class by split, sizes of boxes, and their shapes.

    Args:
        counts: of each split the objects of each class.
        boxes_px: xyxy, pixels of the network's input, of the split that is trained on.
        below: which of them no default box fits; drawn in red.
        shapes_px: width and height of the default boxes, each shape once.
        path: a file whose ending names the format, such as ``data.png``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = _most_and_rarest({name: sum(c[name] for c in counts.values()) for name in next(iter(counts.values()))})
    figure = Figure(figsize=(17, max(5.0, 1.5 + 0.2 * len(classes))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    bars, sizes, shapes = figure.subplots(1, 3)
    left = np.zeros(len(classes))
    for split, of_class in counts.items():
        values = [of_class[name] for name in classes]
        bars.barh(classes, values, left=left, label=split)
        left += values
    bars.invert_yaxis()
    bars.legend()
    bars.set_title("objects of each class")
    extents = np.maximum(boxes_px[:, 2:] - boxes_px[:, :2], 0.5)
    sides = np.sqrt(extents.prod(axis=1))
    edges = np.geomspace(2, max(sides.max(initial=0), shapes_px.max()) * 1.1, 40)
    sizes.hist([sides[~below], sides[below]], edges, stacked=True, color=["C0", "C3"], label=["", "out of reach"])
    for side in np.unique(np.sqrt(shapes_px.prod(axis=1)).round(1)):
        sizes.axvline(side, color="gray", linewidth=0.7, linestyle=":")
    sizes.set_title("root of area of boxes, px of the network's input\n(dotted: default boxes)")
    shown = np.random.default_rng(0).permutation(len(extents))[:5000]  # more only make a blot
    for mask, colour, label in ((~below, "C0", "within reach"), (below, "C3", "out of reach")):
        w, h = extents[shown[mask[shown]]].T
        shapes.plot(w, h, ".", color=colour, alpha=0.35, markersize=4, label=label)
    shapes.plot(*shapes_px.T, "k+", markersize=8, label="default boxes")
    shapes.set_title("width (across) and height of boxes,\npx of the network's input")
    shapes.legend()
    for axes in (sizes, shapes):
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    shapes.set_yscale("log")
    _plain_ticks(shapes.yaxis)
    for axes in (bars, sizes, shapes):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def _most_and_rarest(counts: Mapping[str, int], shown: int = 40) -> list[str]:
    """Class names in their order; of more than ``shown`` the most frequent and the rarest, by frequency."""
    if len(counts) <= shown:
        return list(counts)
    names = sorted(counts, key=lambda name: -counts[name])
    return [*names[: shown // 2], *names[-shown // 2 :]]


def _draw_panel(axes: Axes, title: str, rows: Sequence[Row], curves: Mapping[str, str], smooth: bool = False) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    for number, (key, label) in enumerate(curves.items()):
        steps, values = _curve(rows, key)
        if len(steps) == 0:
            continue
        style = {"color": f"C{number}", "marker": "." if len(steps) <= 40 else None}
        if smooth and len(steps) > 40:
            axes.plot(steps, values, linewidth=0.8, alpha=0.25, **style)
            values = _running_mean(values)
        axes.plot(steps, values, label=label, linewidth=1.8, **style)
    if not axes.lines:
        axes.tick_params(labelbottom=False, labelleft=False)
        axes.text(0.5, 0.5, "nothing logged yet", transform=axes.transAxes, ha="center", va="center", color="gray")
    elif len(curves) > 1:
        axes.legend()


def _curve(rows: Sequence[Row], key: str) -> tuple[Float64[np.ndarray, " r"], Float64[np.ndarray, " r"]]:
    """Steps and values of the rows that have the key; a CSV's empty cell is no value."""
    points = [(float(row["step"]), float(row[key])) for row in rows if row.get(key) not in (None, "")]
    table = np.array(points, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _running_mean(values: Float64[np.ndarray, " r"]) -> Float64[np.ndarray, " r"]:
    """Over 1/40 of the run around each point, over less at the ends."""
    kernel = np.ones(2 * (len(values) // 80) + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _scale_log(axes: Axes) -> None:
    """A logarithmic y axis, labelled in plain numbers, where there is something positive to show."""
    if not any((line.get_ydata() > 0).any() for line in axes.lines):
        return
    axes.set_yscale("log")
    _plain_ticks(axes.yaxis)


def _plain_ticks(axis: Any) -> None:
    """1, 2, 5, 10, ... in plain numbers along a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
