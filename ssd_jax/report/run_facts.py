"""Facts about a run and its evaluation for the report page: the use of the split, the training and the speed."""

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ssd_jax.config import Config
from ssd_jax.models.parameters import compute_parameter_shapes
from ssd_jax.report.plots import LinePlot, make_line_plot
from ssd_jax.runs.log import TrainingTime, read_log, read_results

SplitUse = Literal["trained", "selected", "other"]
"""Use of a split by the run: for training, to choose the best checkpoint or, as far as is known, for nothing."""
Rows = Sequence[Mapping[str, Any]]


class RunFacts(NamedTuple):
    """Facts about a run and its evaluation."""

    use: SplitUse
    evaluations: int
    """Number of evaluations among which the best checkpoint was chosen."""
    parameters: int
    """Number of parameters of the network."""
    date: datetime.date
    """Day of the evaluation."""
    images_per_second: float | None
    """Speed of the evaluation, including reading images. None if it is not known."""
    training_seconds: float | None
    """Time of the training steps, without evaluations and pauses. None if it is not known."""
    training_dates: tuple[datetime.date, datetime.date] | None
    """Days of the first and the last step in the log. None if they are not known."""
    plots: tuple[LinePlot, ...]
    """Curves of the training."""


def read_run_facts(
    config: Config,
    folder: Path | None,
    split: str,
    step: int,
    *,
    is_best: bool = True,
    has_own_data: bool = True,
    images_per_second: float | None = None,
) -> RunFacts:
    """Return the facts about a run and its evaluation.

    Args:
        config: Config of the run.
        folder: Run folder, or None if the network does not come from one.
        split: Name of the measured split.
        step: Training step of the checkpoint.
        is_best: Whether the best checkpoint is measured, and not the last one.
        has_own_data: Whether the data set is that of the run.
        images_per_second: Speed of the evaluation.
    """
    log: Rows = [] if folder is None else read_log(folder)
    results: Rows = [] if folder is None else read_results(folder)
    evaluations = sum(row.get("voc_map_area") is not None for row in results)
    use: SplitUse = "other"
    if has_own_data and split == config.data.train_split:
        use = "trained"
    elif has_own_data and is_best and evaluations and split == config.data.val_split:
        use = "selected"
    return RunFacts(
        use,
        evaluations,
        sum(math.prod(shape) for shape in compute_parameter_shapes(config.model).values()),
        datetime.datetime.now(datetime.UTC).date(),
        images_per_second,
        compute_training_seconds(log, config.train.batch_size),
        find_training_dates(log),
        make_training_plots(log, results, step),
    )


def compute_training_seconds(log: Rows, batch_size: int) -> float | None:
    """Return the time of all training steps in a log, from their speed, or None if the log has no speeds."""
    time = TrainingTime()
    for line in log:
        time.add_line(line)
    return time.compute_seconds(batch_size)


def find_training_dates(log: Rows) -> tuple[datetime.date, datetime.date] | None:
    """Return the days of the first and the last line of a log in UTC, or None if the log has no times."""
    times = [line["time"] for line in log if "time" in line]
    try:
        days = [datetime.datetime.fromtimestamp(time, datetime.UTC).date() for time in times]
    except (ValueError, OverflowError, OSError):  # the file was changed
        return None
    return (min(days), max(days)) if days else None


def make_training_plots(log: Rows, results: Rows, step: int) -> tuple[LinePlot, ...]:
    """Return the curves of the loss and of the mAP on val over the steps, without those of fewer than two points.

    Args:
        log: Entries of log.jsonl.
        results: Rows of results.csv.
        step: Step of the checkpoint, which the curves mark.
    """
    losses, mean_aps = (
        np.array([(row["step"], row[key]) for row in rows if row.get(key) is not None], np.float64).reshape(-1, 2)
        for rows, key in ((log, "loss"), (results, "voc_map_area"))
    )
    drawn = (
        ("loss", losses[np.isfinite(losses).all(axis=1)], None),
        ("mAP (VOC, area) on val", mean_aps, 1.0),
    )
    return tuple(make_line_plot(title, points, top, step) for title, points, top in drawn if len(points) > 1)
