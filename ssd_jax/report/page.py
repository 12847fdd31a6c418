"""The report: one HTML page with the metrics of a run, their confidence intervals, curves and errors.

`make_report_context` computes everything that the page shows; the template page.html.j2 holds the text and the layout.
"""

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from ssd_jax import files
from ssd_jax.config import Config
from ssd_jax.data.source import Annotation, Source
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics import diagnosis
from ssd_jax.metrics.diagnosis import Curve, Diagnosis, ErrorType, Interval
from ssd_jax.report.error_images import ERROR_NAMES, ErrorImage, draw_error_image
from ssd_jax.report.template import render_page

WORST_IMAGES = 12
"""Maximum number of images that the report shows."""
FEW_OBJECTS = 20
"""Number of objects below which the report warns about the AP of a class, which then depends much on chance. For
synthetic classes with fewer objects, the AP was too high on average."""
MOST_CONFUSED = 6
"""Maximum number of confusions that the report lists."""

Metrics = Mapping[str, Any]
"""Content of metrics.json."""


def write_report(
    file: Path,
    config: Config,
    source: Source,
    detections: Sequence[ImageDetections],
    metrics: Metrics,
    annotations: Sequence[Annotation],
    title: str = "",
) -> None:
    """Diagnose the detections of a split and write the report page.

    Args:
        file: HTML file to write.
        config: Config of the run.
        source: The split.
        detections: Detections of each image of the split, in order.
        metrics: Content of metrics.json for the same detections.
        annotations: Annotations of the split, in order.
        title: Name of the run or model. If empty, the name of the folder of the file is used.

    Raises:
        UserError: If the file cannot be written.
    """
    result = diagnosis.diagnose(detections, annotations, config.model.class_names)
    worst = [
        draw_error_image(source, i, detections[i], result.images[i])
        for i in diagnosis.find_worst_images(result.images, WORST_IMAGES)
    ]
    title = title or file.resolve().parent.name
    context = make_report_context(title, config, metrics, result, worst)
    files.write_text(file, render_page("page.html.j2", context))


# ---- context ----


class ClassRow(NamedTuple):
    """One row of the table of classes."""

    name: str
    metrics: Mapping[str, Any]
    """VOC metrics of the class: its entry in ``voc_classes``."""
    interval: Interval | None
    """95 % confidence interval of the area AP."""
    curve: Curve | None
    plot: "CurvePlot | None"


class ErrorRow(NamedTuple):
    """One row of the list of error types."""

    type: ErrorType
    gain: float
    """Gain in AP. It is never a negative zero."""
    errors: int
    bar: float
    """Length of the bar in percent of the longest bar."""


class MatrixCell(NamedTuple):
    """One cell of the confusion matrix."""

    number: int
    is_diagonal: bool
    opacity: float
    """Opacity of the shading, which grows with the cell's share of its row."""


def make_report_context(
    run: str, config: Config, metrics: Metrics, result: Diagnosis, worst: Sequence[ErrorImage] = ()
) -> dict[str, Any]:
    """Return the variables for the template of the report page.

    Args:
        run: Name of the run.
        config: Config of the run.
        metrics: Content of metrics.json: ``split``, ``images``, ``checkpoint_step`` and the entries of
            `compute_metrics`.
        result: Diagnosis of the same detections.
        worst: Images to show, the worst first.
    """
    classes = _make_class_rows(metrics, result)
    objects, ignored = (sum(row.metrics[key] for row in classes) for key in ("objects", "ignored_objects"))
    images_with_errors = sum(bool(image.count_errors()) for image in result.images)
    return {
        "hotcoco_version": importlib.metadata.version("hotcoco"),
        "run": run,
        "config": config,
        "metrics": metrics,
        "objects": objects,
        "ignored_objects": ignored,
        "intervals": result.intervals,
        "few_objects": FEW_OBJECTS,
        "classes_with_few_objects": sum(0 < row.metrics["objects"] < FEW_OBJECTS for row in classes),
        "classes": classes,
        "curves": [row for row in classes if row.curve is not None],
        "classes_without_curve": [row.name for row in classes if row.curve is None],
        "plot_area": PLOT_AREA,
        "score": diagnosis.SCORE,
        "iou": diagnosis.IOU,
        "background_iou": diagnosis.BACKGROUND_IOU,
        "errors": _make_error_rows(result),
        "error_names": ERROR_NAMES,
        "confusion": _make_matrix_cells(result.confusion),
        "confused": _find_most_confused(config.model.class_names, result.confusion),
        "worst": worst,
        "images_with_errors": images_with_errors,
        "images_without_errors": len(result.images) - images_with_errors,
    }


def _make_class_rows(metrics: Metrics, result: Diagnosis) -> list[ClassRow]:
    """Return one row per class, by ascending AP. Classes without objects come last."""
    rows = [
        ClassRow(name, values, interval, curve, None if curve is None else make_curve_plot(curve))
        for (name, values), interval, curve in zip(
            metrics["voc_classes"].items(), result.intervals.classes_area, result.curves, strict=True
        )
    ]
    return sorted(rows, key=lambda row: math.inf if row.metrics["ap_area"] is None else row.metrics["ap_area"])


def _make_error_rows(result: Diagnosis) -> list[ErrorRow]:
    """Return one row per type of errors, by descending gain in AP."""
    highest = max(0.01, *(error.gain for error in result.tide.values()))
    rows = sorted(result.tide.items(), key=lambda item: -item[1].gain)
    return [
        ErrorRow(kind, round(error.gain, 3) + 0, error.errors, 100 * max(error.gain, 0) / highest)
        for kind, error in rows
    ]


def _make_matrix_cells(matrix: Int64[np.ndarray, "c c"]) -> list[list[MatrixCell]]:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return [
        [MatrixCell(number, i == j, 0.08 + 0.62 * float(shares[i, j])) for j, number in enumerate(row)]
        for i, row in enumerate(matrix.tolist())
    ]


def _find_most_confused(names: Sequence[str], matrix: Int64[np.ndarray, "c c"]) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions as tuples (class of the objects, class of the detections, count)."""
    between = matrix[:-1, :-1] * ~np.eye(len(names), dtype=bool)
    most = [divmod(int(i), len(names)) for i in np.argsort(-between, axis=None, kind="stable")[:MOST_CONFUSED]]
    return [(names[i], names[j], int(between[i, j])) for i, j in most if between[i, j]]


# ---- curves ----


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


def format_svg_points(points: Float[np.ndarray, "p 2"]) -> str:
    """Return points as "x y x y ..." for an SVG path, without points within a third of a unit of the previous one."""
    kept = [points[0]]
    for point in points[1:]:
        if np.abs(point - kept[-1]).max() > 1 / 3:
            kept.append(point)
    return " ".join(f"{x:.1f} {y:.1f}" for x, y in [*kept, points[-1]])
