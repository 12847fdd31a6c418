"""Curves of the report page as paths of SVG drawings."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ssd_jax.metrics.diagnosis import Curve


class PlotArea(NamedTuple):
    """Rectangle of an SVG drawing in which a curve is plotted, in units of the drawing."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


PLOT_AREA = PlotArea(22, 6, 170, 116)


class CurvePlot(NamedTuple):
    """A precision-recall curve as paths of an SVG drawing."""

    line: str
    """Path of the measured curve. Empty if there are no detections."""
    area: str
    """Path around the area that AP measures."""
    point: tuple[float, float] | None
    """Position of the operating point. None if no detection has a score of at least SCORE."""


class LinePlot(NamedTuple):
    """A value over the steps of a training as a path of an SVG drawing."""

    title: str
    line: str
    top: float
    """Value at the upper end of the vertical axis, which starts at 0."""
    last_step: int
    """Step at the right end of the horizontal axis, which starts at 0."""
    last: float
    """Last value."""
    mark: float | None
    """Horizontal position of the checkpoint. None if it is not on the axis."""


def make_curve_plot(curve: Curve) -> CurvePlot:
    """Return a precision-recall curve as SVG paths in PLOT_AREA."""
    area = PLOT_AREA
    points = np.column_stack([area.left + area.width * curve.recall, area.bottom - area.height * curve.precision])
    if not len(points):
        return CurvePlot("", "", None)
    # AP measures the area below the highest precision at any larger recall. The y axis points down.
    heights = np.minimum.accumulate(points[::-1, 1])[::-1]
    starts = np.concatenate([[area.left], points[:-1, 0]])
    steps = np.column_stack([starts, heights, points[:, 0], heights]).reshape(-1, 2)
    return CurvePlot(
        line=f"M{format_svg_points(points)}",
        area=f"M{area.left} {area.bottom}L{format_svg_points(steps)}V{area.bottom}Z",
        point=(float(points[curve.shown - 1, 0]), float(points[curve.shown - 1, 1])) if curve.shown else None,
    )


def make_line_plot(title: str, points: Float[np.ndarray, "p 2"], top: float | None, step: int) -> LinePlot:
    """Return a value over the steps of a training as an SVG path in PLOT_AREA.

    Args:
        title: Name of the value.
        points: Step and value of each point, at least one.
        top: Value at the upper end of the vertical axis. None: the highest value, rounded up to two digits.
        step: Step of the checkpoint.
    """
    if top is None:
        highest = max(float(points[:, 1].max()), 1e-9)
        unit = 10.0 ** (np.floor(np.log10(highest)) - 1)
        top = float(np.ceil(highest / unit) * unit)
    last_step = int(points[-1, 0])
    scale = np.array([PLOT_AREA.width / last_step, -PLOT_AREA.height / top])
    drawn = points * scale + np.array([PLOT_AREA.left, PLOT_AREA.bottom])
    mark = PLOT_AREA.left + PLOT_AREA.width * step / last_step if 0 < step <= last_step else None
    return LinePlot(title, f"M{format_svg_points(drawn)}", top, last_step, float(points[-1, 1]), mark)


def format_svg_points(points: Float[np.ndarray, "p 2"]) -> str:
    """Return points as "x y x y ..." for an SVG path, without points within a third of a unit of the previous one."""
    kept = [points[0]]
    for point in points[1:]:
        if np.abs(point - kept[-1]).max() > 1 / 3:
            kept.append(point)
    return " ".join(f"{x:.1f} {y:.1f}" for x, y in [*kept, points[-1]])
