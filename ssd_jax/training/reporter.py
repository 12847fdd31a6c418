"""Output of a training run: progress bar, log.jsonl, results.csv, TensorBoard events and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ssd_jax.config import Train
from ssd_jax.data.source import Source
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.report import pictures
from ssd_jax.runs.log import RunLog

RESULTS_COLUMNS = ("voc_map_11point", "voc_map_area", "coco_ap", "coco_ap50")
"""Metrics of the val split that are written to results.csv."""
DATA_WAIT_WARNING = 0.1
"""Fraction of the training time. If more time is spent waiting for data, this is reported."""


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

    def report_step(self) -> None:
        """Report that a step was dispatched."""

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
    """Writer of log.jsonl, results.csv, TensorBoard events and pictures of a run. It also shows a progress bar."""

    def __init__(self, workdir: Path, train: Train, start: int) -> None:
        """Open the logs of a run.

        Args:
            workdir: Run folder.
            train: The ``train`` section of the config.
            start: Step of the restored checkpoint; 0 for a new run. Log entries of later steps are removed.
        """
        self._workdir = workdir
        self._log = RunLog(workdir, start)
        self._bar = tqdm(
            total=train.steps, initial=start, unit="step", dynamic_ncols=True, disable=start >= train.steps
        )
        self._bar.set_postfix_str("compiling")
        self._last_metrics: dict[str, float] = {}

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        self._log.__exit__(*exception)

    def report_train_batch(self, source: Source, index: Any, batch: Any) -> None:
        """Write train_batch.jpg with the first images of the batch."""
        pictures.write_train_batch(self._workdir, source, index, batch)

    def report_step(self) -> None:
        """Advance the progress bar."""
        self._bar.update(1)

    def report_train_metrics(
        self, step: int, metrics: dict[str, float], learning_rate: float, images: int, seconds: float, waited: float
    ) -> None:
        """Write the metrics to log.jsonl and TensorBoard, and show them beside the progress bar."""
        speed = images / seconds
        extra = {"learning_rate": learning_rate, "images_per_second": speed, "waited_for_data": waited / seconds}
        self._log.log_step(step, metrics | extra)
        self._last_metrics = metrics
        waits = f", waiting for data {waited / seconds:.0%}" if waited > DATA_WAIT_WARNING * seconds else ""
        self._bar.set_postfix_str(
            f"loss {metrics['loss']:.3f} (boxes {metrics['loc_loss']:.3f}, classes {metrics['conf_loss']:.3f}), "
            f"rate {learning_rate:.2g}, {speed:.1f} images/s{waits}"
        )

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
            tqdm.write(
                f"step {step}: val mAP@0.5 {_format_percent(row['voc_map_area'])} (area), "
                f"{_format_percent(row['voc_map_11point'])} (11-point), COCO AP {_format_percent(row['coco_ap'])}"
            )
        self._log.log_evaluation(step, row)
        pictures.write_curves(self._workdir)


def print_summary(unreadable: dict[str, tuple[Source, dict[int, str]]], seconds: float, waited: float) -> None:
    """Print the images that could not be read, and the time spent waiting for data if it was long.

    Args:
        unreadable: Dict from the name of a split to the split and its error messages. The messages are a dict from the
            position of an unreadable image to the message.
        seconds: Time spent in training steps, in seconds.
        waited: Part of this time that was spent waiting for data, in seconds.
    """
    for split, (source, messages) in unreadable.items():
        if messages:
            print(f"{len(messages)} of {len(source)} {split} images could not be used:", *messages.values(), sep="\n  ")
    if waited > DATA_WAIT_WARNING * seconds:
        print(
            f"Training spent {waited:.0f} of {seconds:.0f} s waiting for data. See 'When input limits the speed' in "
            "docs/scale.md."
        )


def _format_percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
