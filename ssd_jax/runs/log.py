"""Writing and reading of the logs of a run: log.jsonl, results.csv, TensorBoard scalars and a tracker."""

import csv
import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssd_jax.files import convert_read_errors, convert_write_errors, write_text
from ssd_jax.runs.tensorboard import TensorBoardWriter
from ssd_jax.runs.tracking import ScalarWriter, open_tracker

logger = logging.getLogger(__name__)

BEST_METRIC = "voc_map_area"
"""Column of results.csv by which the best checkpoint is chosen."""


class TrainingTime:
    """Time of the training steps in a log, from their speeds, without evaluations and pauses."""

    def __init__(self) -> None:
        self._seconds_per_image, self._last = 0.0, 0

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Add the steps between the previous entry of log.jsonl and this one."""
        speed = line.get("images_per_second", 0)
        if speed > 0:
            self._seconds_per_image += (line["step"] - self._last) / speed
        self._last = line["step"]

    def compute_seconds(self, batch_size: int) -> float | None:
        """Return the time in seconds, or None if the log has no speeds."""
        return self._seconds_per_image * batch_size or None


class RunLog:
    """Context manager that writes log.jsonl, results.csv, TensorBoard scalars and the metrics for a tracker.

    Its constructor removes all entries of log.jsonl and results.csv that are later than ``step``, because a run
    that resumes from the checkpoint of this step logs the later steps again.

    Args:
        workdir: The run folder.
        step: Step of the checkpoint from which the run resumes; 0 for a new run.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        self.log_file, self.results_file = workdir / "log.jsonl", workdir / "results.csv"
        lines = _read_and_keep_damaged(self.log_file, parse_log_lines)
        write_text(self.log_file, "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step))
        rows = _read_and_keep_damaged(self.results_file, parse_results_lines)
        self._results = [row for row in rows if row["step"] <= step]
        self._write_results()
        tracker = open_tracker(workdir)
        self._writers: list[ScalarWriter] = [TensorBoardWriter(workdir / "tensorboard", step)]
        if tracker is not None:
            self._writers.append(tracker)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for writer in self._writers:
            writer.close(failed=kind is not None)

    @property
    def results(self) -> list[dict[str, Any]]:
        """The rows of results.csv, as `read_results` returns them."""
        return self._results

    def log_step(self, step: int, values: dict[str, float]) -> None:
        """Write the training metrics of a step as a line of log.jsonl and as scalars named ``train/...``.

        The line also has the time in seconds since 1970 as ``time``, which TensorBoard and trackers record themselves.

        Args:
            step: Step of the metrics.
            values: Metrics by name.

        Raises:
            UserError: If a file cannot be written.
        """
        with convert_write_errors(self.log_file), self.log_file.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"step": step, "time": round(time.time()), **values}) + "\n")
        self._write_scalars(step, "train", values)

    def log_evaluation(self, step: int, values: dict[str, float | None]) -> None:
        """Write the metrics of an evaluation as a row of results.csv and as scalars named ``val/...``.

        Args:
            step: Step of the evaluation.
            values: Metrics by name; None for a metric that could not be computed. Each call must pass the same names.

        Raises:
            UserError: If a file cannot be written.
        """
        self._results.append({"step": step, **values})
        self._write_results()
        self._write_scalars(step, "val", values)

    def _write_scalars(self, step: int, group: str, values: dict[str, Any]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items() if value is not None}
        for writer in self._writers:
            writer.write(step, named)

    def _write_results(self) -> None:
        if not self._results:
            return
        text = io.StringIO(newline="")
        # After the header was damaged, the rows may have different columns.
        columns = dict.fromkeys(name for row in self._results for name in row)
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._results)
        write_text(self.results_file, text.getvalue())


def read_log(workdir: Path) -> list[dict[str, float]]:
    """Return the lines of log.jsonl as dicts with ``step``, ``time`` (seconds since 1970) and the training metrics.

    Lines that cannot be read are left out. There is a warning about them, except about an incomplete last line, which a
    killed run may leave. If there is no log.jsonl, the list is empty.

    Args:
        workdir: The run folder.
    """
    return _read_entries(workdir / "log.jsonl", parse_log_lines)[0]


def read_results(workdir: Path) -> list[dict[str, float | None]]:
    """Return the rows of results.csv as dicts with ``step`` and the metrics of an evaluation.

    The value of an empty cell is None. Rows that cannot be read are left out, with a warning. If there is no
    results.csv, the list is empty.

    Args:
        workdir: The run folder.
    """
    return _read_entries(workdir / "results.csv", parse_results_lines)[0]


_Parser = Callable[[list[str]], list[dict[str, Any] | None]]


def _read_entries(file: Path, parse: _Parser, consequence: str = "") -> tuple[list[dict[str, Any]], bool]:
    """Read the entries of a log file, and log a warning if some cannot be read.

    Args:
        file: The file, which need not exist.
        parse: Function that returns the entry of each line, or None if the line cannot be read.
        consequence: End of the warning.

    Returns:
        The entries that could be read, and whether there was a warning about others.

    Raises:
        UserError: If the file exists but cannot be opened.
    """
    with convert_read_errors(file):
        text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    parsed = parse(text.split("\n"))
    if parsed and parsed[-1] is None:
        parsed.pop()  # what follows the last line break: nothing, or an incomplete line
    entries = [entry for entry in parsed if entry is not None]
    if len(entries) < len(parsed):
        bad = len(parsed) - len(entries)
        logger.warning("%s: %d of %d lines cannot be read, and are left out%s", file, bad, len(parsed), consequence)
    return entries, len(entries) < len(parsed)


def _read_and_keep_damaged(file: Path, parse: _Parser) -> list[dict[str, Any]]:
    """Return the entries of a log file that can be read. If there are others, copy the file before it is written."""
    copy = file.with_name(f"{file.name}.damaged")
    entries, is_damaged = _read_entries(file, parse, f". A copy of the file is kept in {copy.name}")
    if is_damaged:
        with convert_write_errors(copy):
            shutil.copyfile(file, copy)
    return entries


def parse_log_lines(lines: list[str]) -> list[dict[str, Any] | None]:
    """Return the entry of each line of log.jsonl, or None for a line that cannot be read."""
    return [_parse_log_line(line) for line in lines]


def _parse_log_line(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_valid = isinstance(entry, dict) and isinstance(entry.get("step"), int)
    return entry if is_valid and all(isinstance(value, int | float) for value in entry.values()) else None


def parse_results_lines(lines: list[str]) -> list[dict[str, Any] | None]:
    """Return the row of each line of results.csv after the header, or None for a line that cannot be read.

    Args:
        lines: The lines, of which the first one is the header.
    """
    header = lines[0].split(",")
    return [_parse_results_row(header, line) for line in lines[1:]]


def _parse_results_row(header: list[str], line: str) -> dict[str, Any] | None:
    cells = line.split(",")
    if "step" not in header or len(cells) != len(header):
        return None
    try:
        row: dict[str, Any] = {name: float(cell) if cell else None for name, cell in zip(header, cells, strict=True)}
        return row | {"step": int(row["step"])}
    except (TypeError, ValueError, OverflowError):
        return None
