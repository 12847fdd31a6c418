"""Evaluation of a trained run: the function behind ``ssd-jax evaluate`` and ``ssd_jax.evaluate``."""

import dataclasses
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ssd_jax import files
from ssd_jax.config import Config
from ssd_jax.data.run_splits import open_evaluation_split, print_split, with_data_root
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError, escape_text
from ssd_jax.evaluation.baseline import CHEAP_IMAGES, format_constant_boxes, measure_constant_boxes
from ssd_jax.evaluation.evaluator import compute_metrics, detect_split, match_source, predict_split
from ssd_jax.evaluation.submission import SubmissionWriter, make_submission_writer
from ssd_jax.evaluation.tiled import format_comparison
from ssd_jax.inference.adjusting import format_strict_limits
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.inference.tiles import TILE_OVERLAP, check_tile_options
from ssd_jax.metrics import diagnosis
from ssd_jax.metrics.intervals import bootstrap, list_ends, make_interval_tree, match_coco_classes
from ssd_jax.metrics.tables import format_errors, format_metrics
from ssd_jax.metrics.voc_matching import match_classes
from ssd_jax.model_zoo.opening import OpenedModel, open_detector
from ssd_jax.report import page, pictures
from ssd_jax.report.run_facts import read_run_facts
from ssd_jax.runtime import distributed, sharding
from ssd_jax.runtime.progress import show_progress

logger = logging.getLogger(__name__)


def evaluate(
    run: str | Path,
    split: str | None = None,
    *,
    data_root: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    results: bool = False,
    report: bool = False,
    strict: bool = False,
    out: str | Path | None = None,
    tile: int | None = None,
    overlap: float = TILE_OVERLAP,
) -> dict[str, Any]:
    """Evaluate a trained detector on a split of its data set.

    Print the metrics, and write into the run folder, or into the folder ``out``:

    * ``metrics.json``: the metrics that are returned, with 95 % confidence intervals,
    * ``<split>_truth.jpg`` and ``<split>_pred.jpg``: the same images with their annotations and their detections,
    * ``results/``: the detections in the format of a challenge server, if ``results`` is set,
    * ``report.html``: a page with curves, confidence intervals and errors, if ``report`` is set.

    If ``split`` names another split than ``data.test_split``, the first and the last file are named
    ``metrics_<split>.json`` and ``report_<split>.html``. For a split without annotations, only ``results/`` is written.
    If the run folder cannot be written and only the metrics were asked for, they are printed and a warning is logged.
    Results for a model that is not a run folder are written only if ``out`` is given.

    In a multi-process run all processes must call this function; only the primary process writes.

    Args:
        run: Run folder, model folder, weight file of another project, or file that ``ssd-jax export`` wrote.
        split: Name of the split. None: the run's ``data.test_split``, or ``data.val_split`` if the data set has no
            such split.
        data_root: Data set to use instead of that of the run, or the new path of the same one.
        checkpoint: "best" for the checkpoint with the highest mAP on the val split during training, "last" for the
            latest one.
        results: Whether to write the detections in the result format of COCO (COCO data) or VOC (all other data).
        report: Whether to write the HTML report.
        strict: Whether to stop at an unreadable image. Otherwise it counts as an image without detections.
        out: Folder for the files. It is created if it does not exist. None: the run folder, if ``run`` is one.
        tile: Side in pixels of the tiles that the images are divided into, as in `Detector.tiled`. All results are
            those with tiles; the metrics without tiles are added as ``without_tiles``. None: no tiles.
        overlap: Least share of the side that neighbouring tiles have in common.

    Returns:
        ``split``, ``images``, ``checkpoint_step`` and, if the split has annotations, the entries of
        `compute_metrics`: ``voc_map_11point``, ``voc_map_area``, ``voc_classes``, ``coco_ap``, ..., and the confidence
        intervals of COCO AP as ``coco_ap_interval`` and of the VOC metrics as ``voc_intervals``. With ``report``, or if
        the split has at most 2000 images, also ``constant_box``, the metrics of `ConstantBox`.

    Raises:
        UserError: If the run has no checkpoint, the split cannot be opened, its images or classes cannot be named in a
            result file, or a file cannot be written.
    """
    if tile is not None:
        check_tile_options(tile, overlap)
    model = open_detector(run)
    model.check_checkpoint(checkpoint)
    config = model.config
    if data_root is not None:
        config = with_data_root(config, data_root)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, strict=strict))
    is_default_split = split in (None, config.data.test_split)
    split, source = open_evaluation_split(config, split)
    print_split(split, source)
    annotations = list(source.annotations())
    writer = make_submission_writer(source, annotations) if results or not source.annotated else None
    folder = model.folder if out is None else files.make_user_path(out)
    is_required = out is not None or report or writer is not None
    if folder is None and is_required:
        raise UserError(f"{run}: name a folder for the files with --out, because this is not a run folder")
    is_writable = folder and distributed.run_on_primary(lambda: _check_writable(folder, is_required))
    detections, step, speed = predict_with_model(model, config, source, checkpoint, measure_speed=report)
    metrics: dict[str, Any] = {"split": split, "images": len(source), "checkpoint_step": step}
    if tile is not None:
        without_tiles = compute_metrics(detections, source, annotations) if source.annotated else {}
        detections, speed = _predict_in_tiles(model, config, source, checkpoint, tile, overlap)
        metrics |= {"tile": tile, "overlap": overlap, "without_tiles": without_tiles}
    if source.annotated:
        with show_progress("computing the metrics", enabled=distributed.is_primary()):
            metrics |= compute_metrics(detections, source, annotations)
            intervals = bootstrap(
                match_classes(detections, annotations, source.class_names),
                match_coco_classes(match_source(detections, source, annotations)),
            )
            if report or len(source) <= CHEAP_IMAGES:
                metrics["constant_box"] = measure_constant_boxes(config, split, source, annotations)
        metrics["coco_ap_interval"] = list_ends(intervals.coco_ap)
        metrics["voc_intervals"] = make_interval_tree(intervals, source.class_names)
    if not distributed.is_primary():
        return metrics
    if not source.annotated:
        print(f"Split '{split}' has no annotations; metrics were not computed.")
    else:
        print(format_metrics(metrics))  # before anything is written, because a write may fail
        print(f"Split {split}, checkpoint of step {step}.")
        if model.program is not None and (limits := format_strict_limits(config.detect)):
            print(f"The file returns {limits}, which lowers the metrics.")
        if tile is not None:
            print(format_comparison(metrics, metrics["without_tiles"]))
        if "constant_box" in metrics:
            print(escape_text(format_constant_boxes(metrics["constant_box"])))
    if folder is None:
        print("No file was written. To write metrics.json and images with boxes, name a folder with --out.")
    if folder and source.annotated and is_writable:
        # The metrics of another split must not replace those of the test split.
        suffix = "" if is_default_split else f"_{files.make_safe_file_name(split)}"
        _write_metrics(folder / f"metrics{suffix}.json", metrics)
        pictures.write_truth_and_predictions(folder, split, source, detections)
        if report:
            report_file = folder / f"report{suffix}.html"
            facts = read_run_facts(
                config,
                model.folder,
                split,
                step,
                is_best=checkpoint == "best",
                has_own_data=data_root is None,
                images_per_second=speed,
            )
            result = diagnosis.diagnose(detections, annotations, source.class_names)
            measured = page.Measurement(metrics, intervals, result, facts)
            page.write_report(report_file, config, source, detections, annotations, measured, model.short_name)
            print(format_errors(result.tide))
            print(f"Report: {report_file}, to open in a browser")
    if folder and writer is not None:
        _write_results(folder, split, writer, detections, model.short_name)
    return metrics


def _check_writable(folder: Path, is_required: bool) -> bool:
    """Return whether files can be written into a folder, after creating it. If not, log a warning or raise an error.

    Args:
        folder: The folder.
        is_required: Whether to raise a UserError if it cannot be written.
    """
    try:
        with files.convert_write_errors(folder, "Name a folder for the files with --out."):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except UserError as error:
        if is_required:
            raise
        logger.warning("%s The metrics are only printed.", error)
        return False
    return True


class SplitPrediction(NamedTuple):
    """Detections of a trained network in a split."""

    detections: list[ImageDetections]
    step: int
    """Training step of the checkpoint."""
    images_per_second: float | None
    """Speed, including reading images. None if it was not measured."""


def predict_with_model(
    model: OpenedModel,
    config: Config,
    source: Source,
    checkpoint: str,
    unreadable: dict[int, str] | None = None,
    measure_speed: bool = False,
) -> SplitPrediction:
    """Return the detections of a trained network in a split.

    Args:
        model: The network.
        config: Config of the network, with the options of the data.
        source: The split.
        checkpoint: Checkpoint of a run, "best" or "last".
        unreadable: As for `predict_split`.
        measure_speed: Whether a split of one batch is detected a second time to measure the speed, since the time of
            the first batch includes the compilation.
    """
    unreadable = {} if unreadable is None else unreadable
    mesh = sharding.make_mesh() if model.program is None else sharding.single_device_mesh()
    with show_progress(
        "evaluating", len(source), stage="loading and compiling the network", enabled=distributed.is_primary()
    ) as task:
        detect: Callable[[], list[ImageDetections]]
        if model.program is not None:
            detector, strict = model.load_detector(checkpoint), config.data.strict
            step = detector.step
            detect = partial(detect_split, detector, source, strict=strict, progress=task.update, unreadable=unreadable)
        else:
            params, step = model.load_params(checkpoint, mesh)
            predict = distributed.start_together(make_predict_fn(config, mesh))
            detect = partial(predict_split, predict, params, source, config, mesh, task.update, unreadable)
        detections = detect()
        if measure_speed and len(source) and task.speed is None:
            task.reset()
            task.start_lap()
            detect()
        return SplitPrediction(detections, step, task.speed)


def _predict_in_tiles(
    model: OpenedModel, config: Config, source: Source, checkpoint: str, tile: int, overlap: float
) -> tuple[list[ImageDetections], float | None]:
    """Return the detections in tiles, and the speed in images per second."""
    with show_progress("evaluating in tiles", len(source), enabled=distributed.is_primary()) as task:
        detections = detect_split(
            model.load_detector(checkpoint),
            source,
            tile=tile,
            overlap=overlap,
            strict=config.data.strict,
            progress=task.update,
        )
        return detections, task.speed


def _write_metrics(file: Path, metrics: dict[str, Any]) -> None:
    files.write_text(file, json.dumps(metrics, indent=2) + "\n")
    pictures_stem = files.make_safe_file_name(metrics["split"])
    print(f"Written: {file}, {pictures_stem}_truth.jpg and {pictures_stem}_pred.jpg")


def _write_results(
    folder: Path, split: str, writer: SubmissionWriter, detections: Sequence[ImageDetections], run_name: str
) -> None:
    written = writer.write(folder / "results", split, run_name, detections)
    others = f" and {len(written) - 1} others" if len(written) > 1 else ""
    print(f"Result files for the challenge server: {written[0]}{others}")
