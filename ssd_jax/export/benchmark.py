"""Comparison of the speed, memory and accuracy of runs and exported files, for ``ssd-jax benchmark``."""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ssd_jax.data.run_splits import open_evaluation_split, with_data_root
from ssd_jax.errors import UserError, call_all
from ssd_jax.evaluation.evaluator import compute_metrics
from ssd_jax.evaluation.run import predict_with_model
from ssd_jax.export.pictures import choose_pictures, place_on_canvases
from ssd_jax.exported import reading
from ssd_jax.exported.prediction import make_predict
from ssd_jax.files import make_user_path
from ssd_jax.inference.images import choose_canvas_side
from ssd_jax.inference.stored_program import make_detect_fn
from ssd_jax.model_zoo.model_folder import WEIGHTS_NAME
from ssd_jax.model_zoo.opening import OpenedModel, check_model_exists, open_detector
from ssd_jax.models.parameters import compute_parameter_shapes
from ssd_jax.optional_packages import MissingPackageError
from ssd_jax.portability import read_largest_memory
from ssd_jax.runtime import sharding
from ssd_jax.runtime.progress import show_progress

MIN_SECONDS = 0.2
"""Time that each round spends on each detector and batch size at least."""

_Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class BenchmarkRow(NamedTuple):
    """Measurements of one run or file."""

    name: str
    milliseconds: dict[int, float]
    """Median time for an image by the number of images of a batch."""
    memory: float | None
    """Increase of the memory of a process by loading and detecting, in MB. None if the system does not tell."""
    size: float
    """Size of the file, or of the parameters of a run, in MB."""
    voc_map: float | None = None
    """VOC's mAP (11-point), if data are given."""
    coco_ap: float | None = None
    """COCO's AP at IoU .50:.95, if data are given."""


class Skipped(NamedTuple):
    """A run or file that could not be measured."""

    name: str
    reason: str
    is_package_missing: bool
    """Whether the reason is that a package is not installed."""


def benchmark_models(
    sources: Sequence[str],
    *,
    batch_sizes: Sequence[int] = (1, 8),
    rounds: int = 7,
    data_root: str | None = None,
    split: str | None = None,
) -> tuple[list[BenchmarkRow], list[Skipped]]:
    """Measure runs, models and exported files in turns, on the same images.

    Args:
        sources: Runs, models or files, as for `ssd_jax.load`.
        batch_sizes: Numbers of images of a batch.
        rounds: Number of rounds. In each, all take their turn.
        data_root: Data set on which the accuracy is measured. None: it is not measured.
        split: Split of the data set. None: as for ``evaluate``.

    Returns:
        A row for each source that could be measured, and the others with reasons.

    Raises:
        UserError: If there is nothing of one of the names, or the data cannot be opened.
    """
    call_all(*(partial(check_model_exists, source) for source in sources))
    opened: dict[str, OpenedModel] = {}
    skipped = []
    for source in dict.fromkeys(sources):
        try:
            opened[source] = open_detector(source)
        except UserError as error:
            skipped.append(Skipped(source, str(error), isinstance(error, MissingPackageError)))
    accuracies = {name: measure_accuracy(model, data_root, split) for name, model in opened.items() if data_root}
    turns: dict[tuple[str, int], Callable[[], object]] = {}
    memory = {}
    with show_progress("measuring", stage="loading and compiling"):
        for name, model in opened.items():
            detect = make_model_detect_fn(model)
            for size in batch_sizes:
                turns[name, size] = _bind(detect, make_batch(model, size))
            memory[name] = measure_memory(name, max(batch_sizes))
        times = time_in_turns(turns, rounds)
    rows = [
        BenchmarkRow(
            name,
            {size: 1000 * times[name, size] / size for size in batch_sizes},
            memory[name],
            measure_size(name, model) / 1e6,
            *accuracies.get(name, ()),
        )
        for name, model in opened.items()
    ]
    return rows, skipped


def make_model_detect_fn(model: OpenedModel) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Any]:
    """Return a function that detects objects in a batch of images, as `ssd_jax.load` uses it."""
    if model.program is not None:
        return make_predict(model.program)
    params, _ = model.load_params()
    return make_detect_fn(model.config, params)


def make_batch(model: OpenedModel, size: int) -> _Batch:
    """Return images of one size for a detector: pictures of its val split, or photographs of the package."""
    pictures, _ = choose_pictures(model.config)
    alike = [picture for picture in pictures if picture.shape == pictures[0].shape]
    side = choose_canvas_side(max(alike[0].shape[:2]), model.config.data.max_image_size)
    return place_on_canvases([alike[slot % len(alike)] for slot in range(size)], side)


def time_in_turns(turns: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """Return the median time of a call of each function in seconds.

    Each function is called once before, which compiles it. In each round, all functions take their turn, so that a
    machine that becomes slower for some time affects all of them.
    """
    times: dict[Any, list[float]] = {name: [] for name in turns}
    for call in turns.values():
        call()
    for _ in range(rounds):
        for name, call in turns.items():
            start, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - start < MIN_SECONDS:
                call()
                calls += 1
            times[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_memory(source: str, batch_size: int) -> float | None:
    """Return how much memory a new process needs to load a detector and to detect, in MB.

    Returns:
        The increase of the largest memory of the process, after the imports of this module. None if the system does
        not tell, or if the process ended early.
    """
    if sys.platform == "win32":
        return None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure_own_memory, source, batch_size).result()
        except BrokenProcessPool:
            return None


def measure_size(source: str, model: OpenedModel) -> int:
    """Return the size of a file with the other files that belong to it, or of the parameters of a run, in bytes."""
    path = make_user_path(source)
    if path.is_file():
        return reading.measure_size(path)
    if model.model_folder is not None:
        return (model.model_folder / WEIGHTS_NAME).stat().st_size
    shapes = compute_parameter_shapes(model.config.model)
    return 4 * sum(int(np.prod(shape)) for shape in shapes.values())


def measure_accuracy(model: OpenedModel, data_root: str, split: str | None) -> tuple[float | None, float | None]:
    """Return VOC's mAP and COCO's AP of a detector on a split.

    Raises:
        UserError: If the split cannot be opened, or has no annotations.
    """
    config = with_data_root(model.config, data_root)
    name, source = open_evaluation_split(config, split)
    if not source.annotated:
        raise UserError(f"{data_root}: the split '{name}' has no annotations, so there is no mAP")
    detections = predict_with_model(model, config, source, "best").detections
    metrics = compute_metrics(detections, source)
    return metrics["voc_map_11point"], metrics["coco_ap"]


def _bind(detect: Callable[..., Any], batch: _Batch) -> Callable[[], object]:
    return lambda: sharding.fetch(tuple(detect(*batch)))


def _measure_own_memory(source: str, batch_size: int) -> float:
    before = read_largest_memory()
    model = open_detector(source)
    _bind(make_model_detect_fn(model), make_batch(model, batch_size))()
    return (read_largest_memory() - before) / 1e6
