"""The report: one HTML page with the metrics of a run, their confidence intervals, curves and errors.

`make_report_context` computes everything that the page shows; the template page.html.j2 holds the text and the layout.
"""

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from ssd_jax import files
from ssd_jax.config import Config
from ssd_jax.data.source import Annotation, Source
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics import diagnosis
from ssd_jax.metrics.diagnosis import Curve, Diagnosis, ErrorType
from ssd_jax.metrics.intervals import COCO_RESAMPLES, Interval, Intervals
from ssd_jax.report.error_images import ErrorImage, draw_error_image
from ssd_jax.report.notes import FEW_IMAGES, choose_state, make_notes
from ssd_jax.report.plots import PLOT_AREA, CurvePlot, make_curve_plot
from ssd_jax.report.run_facts import RunFacts
from ssd_jax.report.template import render_page

WORST_IMAGES = 12
"""Maximum number of images with errors that the report shows."""
BEST_IMAGES = 4
"""Maximum number of images with few or no errors that the report shows."""
FEW_OBJECTS = 20
"""Number of objects below which the report warns about the AP of a class, which then depends much on chance. For
synthetic classes with fewer objects, the AP was too high on average."""
MOST_CONFUSED = 6
"""Maximum number of confusions that the report lists."""

Metrics = Mapping[str, Any]
"""Content of metrics.json."""


class Measurement(NamedTuple):
    """Everything that was measured on a split."""

    metrics: Metrics
    """Content of metrics.json: ``split``, ``images``, ``checkpoint_step`` and the entries of `compute_metrics`."""
    intervals: Intervals
    diagnosis: Diagnosis
    facts: RunFacts


def write_report(
    file: Path,
    config: Config,
    source: Source,
    detections: Sequence[ImageDetections],
    annotations: Sequence[Annotation],
    measured: Measurement,
    title: str = "",
) -> None:
    """Write the report page.

    Args:
        file: HTML file to write.
        config: Config of the run.
        source: The split.
        detections: Detections of each image of the split, in order.
        annotations: Annotations of the split, in order.
        measured: Results for the same detections.
        title: Name of the run or model. If empty, the name of the folder of the file is used.

    Raises:
        UserError: If the file cannot be written.
    """
    images = measured.diagnosis.images
    worst, best = (
        [draw_error_image(source, i, detections[i], images[i]) for i in chosen]
        for chosen in (
            diagnosis.find_worst_images(images, WORST_IMAGES),
            diagnosis.find_best_images(images, BEST_IMAGES),
        )
    )
    title = title or file.resolve().parent.name
    context = make_report_context(title, config, measured, annotations, worst, best)
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
    plot: CurvePlot | None


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
    run: str,
    config: Config,
    measured: Measurement,
    annotations: Sequence[Annotation],
    worst: Sequence[ErrorImage] = (),
    best: Sequence[ErrorImage] = (),
) -> dict[str, Any]:
    """Return the variables for the template of the report page.

    Args:
        run: Name of the run.
        config: Config of the run.
        measured: Results.
        annotations: Annotations of the split, in order.
        worst: Images with errors to show, the worst first.
        best: Images with few or no errors to show, the best first.
    """
    metrics, intervals, result, facts = measured
    classes = _make_class_rows(measured)
    objects, ignored = (sum(row.metrics[key] for row in classes) for key in ("objects", "ignored_objects"))
    images_with_errors = sum(bool(image.count_errors()) for image in result.images)
    found = diagnosis.count_found_objects(result.images)
    state = choose_state(objects, found, metrics["voc_map_area"])
    return {
        "hotcoco_version": importlib.metadata.version("hotcoco"),
        "run": run,
        "config": config,
        "metrics": metrics,
        "facts": facts,
        "state": state,
        "notes": make_notes(state, found, metrics, annotations, facts),
        "few_images": FEW_IMAGES,
        "objects": objects,
        "ignored_objects": ignored,
        "intervals": intervals,
        "coco_resamples": min(COCO_RESAMPLES, intervals.resamples),
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
        "confusion": _make_matrix_cells(result.confusion),
        "confused": _find_most_confused(config.model.class_names, result.confusion),
        "worst": worst,
        "best": best,
        "images_with_errors": images_with_errors,
        "images_without_errors": len(result.images) - images_with_errors,
    }


def _make_class_rows(measured: Measurement) -> list[ClassRow]:
    """Return one row per class, by ascending AP. Classes without objects come last."""
    rows = [
        ClassRow(name, values, interval, curve, None if curve is None else make_curve_plot(curve))
        for (name, values), interval, curve in zip(
            measured.metrics["voc_classes"].items(),
            measured.intervals.classes_area,
            measured.diagnosis.curves,
            strict=True,
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
