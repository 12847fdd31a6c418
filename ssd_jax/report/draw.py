"""Contact sheets, and figures of runs and data sets.

matplotlib is used without pyplot, so that the state of a notebook's own plots does not change.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64
from PIL import Image, ImageDraw

from ssd_jax.drawing.boxes import Colour as Colour
from ssd_jax.drawing.boxes import class_colours as class_colours
from ssd_jax.drawing.boxes import draw_boxes as draw_boxes
from ssd_jax.drawing.boxes import fit_text
from ssd_jax.drawing.fonts import TextFont, choose_font, register_fonts
from ssd_jax.errors import escape_text

# ---- contact sheet ----

CAPTION = 18
"""Height of a caption in pixels."""


def add_caption(image: Image.Image, text: str) -> Image.Image:
    """Return an image with a caption below it. A long text is cut at its beginning, because paths differ at the end."""
    font = choose_font(text, 13)
    strip = Image.new("RGB", (image.width, CAPTION), (40, 40, 40))
    shown = _shorten_at_the_left(escape_text(text), font, image.width - 4)
    font.draw(ImageDraw.Draw(strip), (2, (CAPTION - font.height) // 2), shown, (225, 225, 225))
    combined = Image.new("RGB", (image.width, image.height + CAPTION))
    combined.paste(image)
    combined.paste(strip, (0, image.height))
    return combined


def _shorten_at_the_left(text: str, font: TextFont, limit: float) -> str:
    """Return a text cut at its beginning to fit into ``limit`` pixels, or "" if nothing fits."""
    return fit_text(text, lambda count: "…" + text[-count:].lstrip(), 200, font, limit)


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

    All text of the figure is literal: ``$``, ``_`` and ``^`` are no formula. Characters that the bundled fonts lack
    become empty squares, without warnings.

    Args:
        path: File to write. Its suffix selects the format.
        width: Width in inches.
        height: Height in inches.
    """
    # Imported here because it takes half a second. pyplot would select a backend and keep the figure in memory.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {"text.parse_math": False, "text.usetex": False, "font.family": register_fonts()}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
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
