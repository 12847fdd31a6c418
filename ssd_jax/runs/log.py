"""Writing and reading of the logs of a run: log.jsonl, results.csv and TensorBoard scalars."""

import csv
import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_jax.files import convert_write_errors, write_text

if TYPE_CHECKING:  # tensorboardX imports torch if torch is installed, which takes seconds
    from tensorboardX.event_file_writer import EventsWriter


class RunLog:
    """Context manager that writes log.jsonl, results.csv and TensorBoard scalars.

    Its constructor removes all entries of log.jsonl and results.csv that are later than ``step``, because a run
    that resumes from the checkpoint of this step logs the later steps again.

    Args:
        workdir: The run folder.
        step: Step of the checkpoint from which the run resumes; 0 for a new run.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        self.log_file, self.results_file = workdir / "log.jsonl", workdir / "results.csv"
        lines = [line for line in read_log(workdir) if line["step"] <= step]
        write_text(self.log_file, "".join(json.dumps(line) + "\n" for line in lines))
        self._results = [row for row in read_results(workdir) if int(row["step"] or 0) <= step]
        self._write_results()
        self._tensorboard = _open_tensorboard(workdir / "tensorboard", step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._tensorboard.close()

    def log_step(self, step: int, values: dict[str, float]) -> None:
        """Write the training metrics of a step as a line of log.jsonl and as TensorBoard scalars named ``train/...``.

        Args:
            step: Step of the metrics.
            values: Metrics by name.

        Raises:
            UserError: If a file cannot be written.
        """
        with convert_write_errors(self.log_file), self.log_file.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._write_scalars(step, "train", values)

    def log_evaluation(self, step: int, values: dict[str, float | None]) -> None:
        """Write the metrics of an evaluation as a row of results.csv and as TensorBoard scalars named ``val/...``.

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
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with convert_write_errors(self.log_file.parent / "tensorboard"):
            for name, value in values.items():
                if value is not None:
                    summary = scalar(f"{group}/{name}", value)
                    self._tensorboard.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._tensorboard.flush()

    def _write_results(self) -> None:
        if not self._results:
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(self._results[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._results)
        write_text(self.results_file, text.getvalue())


def _open_tensorboard(folder: Path, step: int) -> "EventsWriter":
    """Return a writer of a new event file, whose first event makes TensorBoard discard the scalars after ``step``.

    tensorboardX's SummaryWriter is not used, because it writes in a thread that ends silently when the disk is full;
    the next write then blocks forever.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    with convert_write_errors(folder):
        folder.mkdir(exist_ok=True)
        writer = EventsWriter(str(folder / "events"))
        writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))
    return writer


def read_log(workdir: Path) -> list[dict[str, float]]:
    """Return the lines of log.jsonl as dicts with ``step`` and the training metrics.

    An incomplete last line, which a killed run may leave, is omitted. If there is no log.jsonl, the list is empty.

    Args:
        workdir: The run folder.
    """
    file = workdir / "log.jsonl"
    lines = []
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def read_results(workdir: Path) -> list[dict[str, float | None]]:
    """Return the rows of results.csv as dicts with ``step`` and the metrics of an evaluation.

    The value of an empty cell is None. If there is no results.csv, the list is empty.

    Args:
        workdir: The run folder.
    """
    file = workdir / "results.csv"
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        rows = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(stream)]
    return [row | {"step": int(row["step"] or 0)} for row in rows]
