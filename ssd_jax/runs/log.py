"""Logs of a run: log.jsonl, results.csv and TensorBoard's scalars."""

import csv
import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_jax.files import user_errors_on_write, write_text

if TYPE_CHECKING:  # where torch is installed tensorboardX imports it, seconds for a command that writes no scalars
    from tensorboardX.event_file_writer import EventsWriter


class RunLog:
    """log.jsonl, results.csv and TensorBoard's scalars of a run. Numbers are plain floats.

    On opening, lines after ``step`` are dropped: a run that was killed and goes on writes them again.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        self.lines_file, self.rows_file = workdir / "log.jsonl", workdir / "results.csv"
        lines = [line for line in read_log(workdir) if line["step"] <= step]
        write_text(self.lines_file, "".join(json.dumps(line) + "\n" for line in lines))
        self._rows = [row for row in read_results(workdir) if int(row["step"] or 0) <= step]
        self._write_rows()
        self._tensorboard = _open_tensorboard(workdir / "tensorboard", step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._tensorboard.close()

    def log_step(self, step: int, values: dict[str, float]) -> None:
        with user_errors_on_write(self.lines_file), self.lines_file.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._scalars(step, "train", values)

    def log_evaluation(self, step: int, values: dict[str, float | None]) -> None:
        self._rows.append({"step": step, **values})
        self._write_rows()
        self._scalars(step, "val", values)

    def _scalars(self, step: int, group: str, values: dict[str, Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with user_errors_on_write(self.lines_file.parent / "tensorboard"):
            for name, value in values.items():
                if value is not None:
                    summary = scalar(f"{group}/{name}", value)
                    self._tensorboard.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._tensorboard.flush()

    def _write_rows(self) -> None:
        if not self._rows:
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(self._rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.rows_file, text.getvalue())


def _open_tensorboard(folder: Path, step: int) -> "EventsWriter":
    """Tells TensorBoard to forget what comes after step. Not through SummaryWriter: its thread dies of
    a full disk without a word, and the next scalar waits for it forever."""
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    with user_errors_on_write(folder):
        folder.mkdir(exist_ok=True)
        writer = EventsWriter(str(folder / "events"))
        writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))
    return writer


def read_log(workdir: Path) -> list[dict[str, float]]:
    """Lines of log.jsonl; a last line cut short by a kill is left out."""
    file = workdir / "log.jsonl"
    lines = []
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def read_results(workdir: Path) -> list[dict[str, float | None]]:
    """Rows of results.csv, as numbers; an empty cell is None."""
    file = workdir / "results.csv"
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        rows = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(stream)]
    return [row | {"step": int(row["step"] or 0)} for row in rows]
