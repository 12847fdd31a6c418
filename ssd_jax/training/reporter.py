"""Output of a training run: progress display, log.jsonl, results.csv, TensorBoard events and pictures."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ssd_jax.config import Train
from ssd_jax.data.source import Source
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.tables import format_percent
from ssd_jax.report import pictures
from ssd_jax.runs.log import BEST_METRIC, RunLog
from ssd_jax.runtime.progress import is_progress_hidden, show_progress
from ssd_jax.training.summary import DATA_WAIT_WARNING, find_logged_speed, format_expected_time

RESULTS_COLUMNS = ("voc_map_11point", "voc_map_area", "coco_ap", "coco_ap50")
"""Metrics of the val split that are written to results.csv."""
_MEASURED_STEPS, _MEASURED_SECONDS = 3, 5.0  # from which the time of the run is expected
_COMPILING = "compiling the training step, once; about a minute"


class NullReporter:
    """Base class of `Reporter` with methods that do nothing, for all processes except the primary one."""

    def __enter__(self) -> "NullReporter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def report_train_batch(self, source: Source, index: Any, batch: Any) -> None:
        """Report the first training batch.

        Args:
            source: The train split.
            index: Positions of the images of the batch in the split.
            batch: Augmented images, boxes and labels, as `augment_batch` returns them.
        """

    def report_dispatch(self) -> None:
        """Report that a step was sent to the devices. Before the first step is sent, it is compiled."""

    def report_length(self, steps: int, message: str) -> None:
        """Report a change of the number of steps of the run.

        Args:
            steps: The new number of steps.
            message: Message for the user about it; empty for a small change.
        """

    def report_step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Report that the devices have done a step.

        Args:
            step: Number of the step.
            metrics: Metrics of the step, as scalar arrays that have been computed.
        """

    def report_train_metrics(
        self, step: int, metrics: dict[str, float], learning_rate: float, images: int, seconds: float, waited: float
    ) -> None:
        """Report the metrics of all steps since the last call of this method.

        Args:
            step: Number of the last of these steps.
            metrics: Mean of each metric over these steps.
            learning_rate: Learning rate of the last step.
            images: Number of images in these steps.
            seconds: Duration of these steps, in seconds.
            waited: Part of this duration that was spent waiting for data, in seconds.
        """

    @contextmanager
    def show_evaluation(self, source: Source) -> Iterator[Callable[[int], object]]:
        """Show the progress of an evaluation in the ``with`` block.

        Args:
            source: The split on which the network is evaluated.

        Returns:
            A function that is to be called with the number of images that were just evaluated.
        """
        yield lambda images: None

    def report_evaluation(
        self,
        step: int,
        metrics: dict[str, Any],
        val_source: Source | None,
        detections: Sequence[ImageDetections] | None,
    ) -> None:
        """Report an evaluation.

        Args:
            step: Number of the step after which the network was evaluated.
            metrics: Metrics of the val split by name; empty if there is no val split.
            val_source: The val split, or None.
            detections: Detections in each image of the val split, or None.
        """


class Reporter(NullReporter):
    """Writer of log.jsonl, results.csv, TensorBoard events and pictures of a run, which also shows the progress."""

    def __init__(self, workdir: Path, train: Train, start: int, images: int, val_images: int = 0) -> None:
        """Open the logs of a run.

        Args:
            workdir: Run folder.
            train: The ``train`` section of the config.
            start: Step of the restored checkpoint; 0 for a new run. Log entries of later steps are removed.
            images: Number of images of the train split.
            val_images: Number of images of the val split; 0 if there is none.
        """
        self._val_images = val_images
        self._workdir, self._train, self._start, self._images = workdir, train, start, images
        self._log = RunLog(workdir, start)
        self._expects_time = start == 0 or find_logged_speed(workdir) is None  # otherwise, it was printed at the start
        self._first_dispatch = 0.0
        self._stack = ExitStack()
        self._last_metrics: dict[str, float] = {}
        self._loss = ""
        self._next_reading = 0.0
        self._waiting = ""
        self._map: tuple[str, ...] = ()
        self._has_evaluated = False

    def __enter__(self) -> "Reporter":
        self._stack.enter_context(self._log)
        self._task = self._stack.enter_context(
            show_progress(
                "training",
                self._train.steps,
                "step",
                done=self._start,
                stage="augmenting the first images" if self._start == 0 else _COMPILING,
                shows_speed=False,
                enabled=self._start != self._train.steps,
            )
        )
        self._is_compiled = False
        self._show_map()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def report_train_batch(self, source: Source, index: Any, batch: Any) -> None:
        """Write train_batch.jpg with the first images of the batch."""
        pictures.write_train_batch(self._workdir, source, index, batch)
        self._task.start_stage(_COMPILING)

    def report_dispatch(self) -> None:
        """Show the steps instead of the compilation, and start the measurement of the speed."""
        if not self._is_compiled:
            self._is_compiled = True
            self._task.start_lap()
            self._first_dispatch = time.monotonic()

    def report_length(self, steps: int, message: str) -> None:
        """Change the number of steps that are shown, and print the message unless the progress is hidden."""
        self._task.total = steps
        if message and not is_progress_hidden():
            print(message)

    def report_step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the step, and its loss if the last loss was shown a second ago or earlier."""
        self._task.update()
        now = time.monotonic()
        if now >= self._next_reading:  # Reading the loss of each step would take time on a fast device.
            self._next_reading = now + 1
            self._loss = f"loss {float(metrics['loss']):.3f}"
        self._show_details()
        measured = self._task.done - self._start
        has_speed = measured >= _MEASURED_STEPS and now - self._first_dispatch >= _MEASURED_SECONDS
        if self._expects_time and has_speed:
            self._expects_time = False
            self._print_expected_time()

    def _print_expected_time(self) -> None:
        """Print the time of the whole run, or of the steps after it was resumed, unless the progress is hidden."""
        speed = (self._task.speed or 0.0) * self._train.batch_size
        text = format_expected_time(self._train, self._start, self._val_images, speed)
        if text and not is_progress_hidden():
            print(f"Expected time: {text}")

    def _show_details(self) -> None:
        batch_size = self._train.batch_size
        epochs = [
            -(-steps * batch_size // max(1, self._images)) for steps in (self._task.done, self._task.total) if steps
        ]
        speed = self._task.speed
        parts = [
            f"epoch {'/'.join(map(str, epochs))}" if epochs else "", self._loss,
            f"{speed * batch_size:.1f} images/s" if speed else "", *self._map, self._waiting,
        ]  # fmt: skip
        self._task.set_details(list(filter(None, parts)))

    def report_train_metrics(
        self, step: int, metrics: dict[str, float], learning_rate: float, images: int, seconds: float, waited: float
    ) -> None:
        """Write the metrics to log.jsonl and TensorBoard, and show the loss."""
        extra = {"learning_rate": learning_rate, "images_per_second": images / seconds}
        self._log.log_step(step, metrics | extra | {"waited_for_data": waited / seconds})
        self._last_metrics = metrics
        self._loss, self._next_reading = f"loss {metrics['loss']:.3f}", time.monotonic() + 1
        self._waiting = f"{waited / seconds:.0%} waiting for data" if waited > DATA_WAIT_WARNING * seconds else ""
        self._show_details()

    @contextmanager
    def show_evaluation(self, source: Source) -> Iterator[Callable[[int], object]]:
        """Show the progress of an evaluation below that of the training in the ``with`` block."""
        stage = "" if self._has_evaluated else "compiling the detection, once"
        with show_progress("evaluating", len(source), stage=stage) as task:
            self._has_evaluated = True
            yield task.update

    def report_evaluation(
        self,
        step: int,
        metrics: dict[str, Any],
        val_source: Source | None,
        detections: Sequence[ImageDetections] | None,
    ) -> None:
        """Write a row of results.csv and the pictures, and print the metrics of the val split.

        The row also has the last training metrics that were reported.
        """
        row = self._last_metrics | {name: metrics[name] for name in RESULTS_COLUMNS if name in metrics}
        if val_source is not None and detections is not None:
            pictures.write_truth_and_predictions(self._workdir, "val", val_source, detections)
        self._log.log_evaluation(step, row)
        is_best = self._show_map()
        if val_source is not None and not is_progress_hidden():
            print(
                f"step {step}: val mAP {format_percent(row['voc_map_area'])}, "
                f"11-point mAP {format_percent(row['voc_map_11point'])}, COCO AP {format_percent(row['coco_ap'])}"
                f"{', the best so far' if is_best else ''}"
            )
        pictures.write_curves(self._workdir)
        self._task.resume_lap()

    def _show_map(self) -> bool:
        """Show the latest and the best mAP, and return whether the latest one is the best."""
        values = [row[BEST_METRIC] for row in self._log.results if row.get(BEST_METRIC) is not None]
        if not values:
            return False
        self._map = (f"mAP {format_percent(values[-1])}", f"best {format_percent(max(values))}")
        self._show_details()
        return values[-1] == max(values)
