"""Read the state of a run from its folder, again and again, without reading what is known already."""

import math
import os
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ssd_jax.config import Config
from ssd_jax.errors import UserError, escape_text, format_error_reason
from ssd_jax.portability import open_regular_file
from ssd_jax.runs.log import BEST_METRIC, TrainingTime, parse_log_lines, parse_results_lines
from ssd_jax.runs.run_folder import is_locked, list_checkpoint_steps, read_config
from ssd_jax.watching.curves import Curves
from ssd_jax.watching.log_tail import LogTail
from ssd_jax.watching.served_files import ServedFile, find_served_files

MAX_FILE_BYTES = 16 << 20
"""Size of the largest config.json, results.csv or metrics.json that is read."""
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d{9,11})\b.*", re.ASCII | re.DOTALL)
_MAX_PROBLEM = 600
"""Number of characters of a message that are shown."""


class MeasuredSplit(msgspec.Struct):
    """Result of ``ssd-jax evaluate``, from metrics.json."""

    split: str
    voc_map_area: float | None = None
    checkpoint_step: int | None = None


class RunState(msgspec.Struct, kw_only=True):
    """State of a run for the table of the page. None stands for what is not known."""

    id: str
    name: str
    """Path relative to the watched folder."""
    status: str = "stopped"
    """"running": a process trains in the folder; "finished": there is a checkpoint of the last step; "broken": its
    config.json cannot be read; "stopped": none of these."""
    problem: str = ""
    """Message about what cannot be read."""
    config: str = ""
    """Name of the config."""
    step: int | None = None
    steps: int | None = None
    minutes: float | None = None
    """Length of the run in minutes, if it is stated like this."""
    seconds_left: float | None = None
    """Expected time of the other steps, without evaluations."""
    loss: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    last_map: float | None = None
    best_map: float | None = None
    best_step: int | None = None
    measured: MeasuredSplit | None = None
    started: float | None = None
    """Seconds since 1970."""
    training_seconds: float | None = None
    updated: float | None = None
    """When the log was last written, in seconds since 1970."""
    version: int = 0
    """Number that changes when the curves have changed."""
    files: list[ServedFile] = []


class _Signature(NamedTuple):
    """State of a file, which changes when it is written again."""

    modified: int
    size: int
    inode: int


class RunReader:
    """Reader of a run folder, which remembers what it has read.

    It writes nothing. The state names the files that cannot be read.

    Args:
        folder: The run folder.
        ident: Identifier of the run for addresses.
        name: Name to show.
    """

    def __init__(self, folder: Path, ident: str, name: str) -> None:
        self.folder = folder
        self.train_curves, self.val_curves = Curves(), Curves()
        self.config: Config | None = None
        self.files: dict[str, ServedFile] = {}
        self.state = RunState(id=ident, name=escape_text(name))
        self._log = LogTail(folder / "log.jsonl")
        self._time = TrainingTime()
        self._last_entry: dict[str, Any] = {}
        self._signatures: dict[str, _Signature | None] = {}
        self._config_problem = ""
        self._results: list[dict[str, Any]] = []
        self._measured: MeasuredSplit | None = None
        self._version = 0
        self._readers = {
            "config.json": self._read_config,
            "log.jsonl": self._read_log,
            "results.csv": self._read_results,
            "metrics.json": self._read_metrics,
        }

    def refresh(self) -> None:
        """Read what has changed since the last call."""
        problems = []
        for name, read in self._readers.items():
            if name != "log.jsonl" and not self._has_changed(name):
                continue
            try:
                read()
            except OSError as error:
                self._signatures.pop(name, None)  # so that it is tried again
                problems.append(f"{name} can't be read ({format_error_reason(error)})")
        self.files = find_served_files(self.folder)
        self.state = self._make_state([self._config_problem, *problems])

    def _has_changed(self, name: str) -> bool:
        """Return whether a file was written, created or removed since the last call with its name."""
        try:
            status = os.stat(self.folder / name)
            signature = _Signature(status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            signature = None
        known = self._signatures.get(name, ...)
        self._signatures[name] = signature
        return signature != known

    def _read_config(self) -> None:
        self.config, file = None, self.folder / "config.json"
        try:
            _read_small_file(file)  # read_config would wait for a named pipe
            self.config = read_config(self.folder)
            self._config_problem = ""
        except (UserError, OSError) as error:
            reason = str(error) if isinstance(error, UserError) else format_error_reason(error)
            self._config_problem = f"config.json: {reason.removeprefix(f'{file}: ').removeprefix('config: ')}"

    def _read_log(self) -> None:
        is_last = False
        while not is_last:
            lines, restarted, is_last = self._log.read_new_lines()
            if restarted:
                self.train_curves.clear()
                self._time, self._last_entry = TrainingTime(), {}
            for entry in parse_log_lines(lines):
                if entry is not None and abs(entry["step"]) < 2**53:
                    self.train_curves.add_entry(entry)
                    self._time.add_line(entry)
                    self._last_entry = entry
            self._version += bool(restarted or lines)

    def _read_results(self) -> None:
        self._results = []
        self.val_curves.clear()
        self._version += 1
        if self._signatures["results.csv"] is None:
            return
        text = _read_small_file(self.folder / "results.csv").decode(errors="replace")
        self._results = [row for row in parse_results_lines(text.split("\n")) if row is not None]
        for row in self._results:
            self.val_curves.add_entry(row)

    def _read_metrics(self) -> None:
        self._measured = None
        if self._signatures["metrics.json"] is not None:
            try:
                data = _read_small_file(self.folder / "metrics.json")
                self._measured = msgspec.json.decode(data, type=MeasuredSplit)
                self._measured.split = escape_text(self._measured.split)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return

    def _make_state(self, problems: list[str]) -> RunState:
        last, train = self._last_entry, self.config and self.config.train
        try:
            locked = is_locked(self.folder)
            saved = list_checkpoint_steps(self.folder / "checkpoints")
        except (OSError, UserError) as error:
            locked, saved = False, []
            problems.append(format_error_reason(error))
        step = last.get("step", max(saved, default=None))
        steps = train.steps if train else None
        status = "stopped"
        if locked:
            status = "running"
        elif train is None:
            status = "broken"
        elif steps in saved:
            status = "finished"
        speed = _find_number(last, "images_per_second")
        left = (steps - step) * train.batch_size / speed if train and steps and step and speed else None
        rows = [row for row in self._results if row.get(BEST_METRIC) is not None and math.isfinite(row[BEST_METRIC])]
        best = max(reversed(rows), key=lambda row: row[BEST_METRIC], default=None)
        return msgspec.structs.replace(
            self.state,
            status=status,
            problem=escape_text("; ".join(filter(None, problems)))[:_MAX_PROBLEM],
            config=escape_text(self.config.name) if self.config else "",
            step=step,
            steps=steps,
            minutes=train.minutes if train else None,
            seconds_left=max(left, 0) if left is not None and status == "running" else None,
            loss=_find_number(last, "loss"),
            learning_rate=_find_number(last, "learning_rate"),
            images_per_second=speed,
            last_map=rows[-1][BEST_METRIC] if rows else None,
            best_map=best[BEST_METRIC] if best else None,
            best_step=best["step"] if best else None,
            measured=self._measured,
            started=find_start(self.folder),
            training_seconds=self._time.compute_seconds(train.batch_size) if train else None,
            updated=_find_modification(self.folder / "log.jsonl"),
            version=self._version,
            files=list(self.files.values()),
        )


def find_start(folder: Path) -> float | None:
    """Return when a run was started, in seconds since 1970, or None if it is not known.

    The name of each of TensorBoard's event files has the time at which it was created. Unlike the times of the files,
    it remains when the folder is copied.
    """
    try:
        names = os.listdir(folder / "tensorboard")
    except OSError:
        return _find_modification(folder / "config.json")
    times = [float(match[1]) for name in names if (match := _EVENT_FILE.fullmatch(name))]
    return min(times, default=_find_modification(folder / "config.json"))


def _find_modification(file: Path) -> float | None:
    try:
        return min(os.stat(file).st_mtime, time.time())
    except OSError:
        return None


def _find_number(entry: dict[str, Any], name: str) -> float | None:
    """Return a value of an entry of a log, or None if it is missing or not finite."""
    value = entry.get(name)
    return value if value is not None and abs(value) < math.inf else None


def _read_small_file(file: Path) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: If it cannot be read, or if it is larger than `MAX_FILE_BYTES`.
    """
    with open_regular_file(file) as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(f"more than {MAX_FILE_BYTES >> 20} MB")
    return data
