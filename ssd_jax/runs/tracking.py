"""Tracking of a run with MLflow or Weights & Biases (the extras ``mlflow`` and ``wandb``), beside TensorBoard.

`start_tracking` notes the tracker in tracking.json in the run folder. `open_tracker` opens it whenever the logs of the
run are opened, so that a resumed run is continued. Servers, projects and logins are set by the environment variables of
each tracker, such as MLFLOW_TRACKING_URI and WANDB_MODE.
"""

import importlib
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol, runtime_checkable

import msgspec

from ssd_jax.config import Config
from ssd_jax.errors import UserError, convert_errors, format_error_reason
from ssd_jax.files import convert_read_errors, write_text
from ssd_jax.runs import run_folder

TrackerName = Literal["mlflow", "wandb"]
PROJECT = "ssd-jax"
"""Experiment of MLflow and project of Weights & Biases, if their environment variables name no other one."""
_FILE = "tracking.json"
_NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""Environment variables that keep the trackers from reporting about themselves to their makers."""
_MAX_PARAM = 6000
"""Length of a parameter that MLflow accepts."""
_PARAMS_PER_CALL = 100
"""Number of parameters that MLflow accepts at once."""

logger = logging.getLogger(__name__)


@runtime_checkable
class ScalarWriter(Protocol):
    """A place where the metrics of a run are written."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics.

        Args:
            step: Training step of the metrics.
            values: Metrics by name, such as ``train/loss``.
        """

    def close(self, failed: bool) -> None:
        """End the writing.

        Args:
            failed: Whether the training ended with an error.
        """


class TrackedRun(msgspec.Struct, frozen=True):
    """Content of tracking.json."""

    tracker: TrackerName
    run_id: str = ""
    """Identifier that the tracker knows the run by. Empty before the first start."""


def start_tracking(workdir: Path, tracker: TrackerName | None) -> None:
    """Note in a run folder how the run is tracked from now on.

    Args:
        workdir: Run folder.
        tracker: The tracker, or None to go on as before.

    Raises:
        UserError: If the file cannot be written, or another tracker has tracked the run so far.
    """
    before = _read(workdir)
    if tracker is None or (before and before.tracker == tracker):
        return
    if before:
        raise UserError(
            f"{workdir} is tracked with {before.tracker}, so --track {tracker} is not possible. Leave out --track, or "
            f"delete {workdir / _FILE} to start anew with {tracker}"
        )
    _write(workdir, TrackedRun(tracker))


def open_tracker(workdir: Path) -> ScalarWriter | None:
    """Open the tracker of a run, which continues where it ended, or return None if the run is not tracked.

    Raises:
        UserError: If the package of the tracker is not installed, or the tracker cannot start.
    """
    tracked = _read(workdir)
    if tracked is None:
        return None
    module = import_tracker(tracked.tracker)
    config = run_folder.read_config(workdir)
    with convert_errors(
        f"--track {tracked.tracker}: the tracker does not start",
        f"Check its settings. To train without it, delete {workdir / _FILE}",
    ):
        opened = _OPEN[tracked.tracker](module, workdir, config, tracked.run_id)
    if opened.run_id != tracked.run_id:
        _write(workdir, TrackedRun(tracked.tracker, opened.run_id))
    return TolerantWriter(opened, tracked.tracker)


def import_tracker(tracker: TrackerName) -> ModuleType:
    """Import the package of a tracker, without telemetry.

    Raises:
        UserError: If the package is not installed.
    """
    for name, value in _NO_TELEMETRY.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module(tracker)
    except ModuleNotFoundError as error:
        if error.name != tracker:
            raise
        raise UserError(
            f"--track {tracker} needs the package {tracker}. Install it with: pip install 'ssd-jax[{tracker}]'"
        ) from None


class TolerantWriter:
    """Writer that logs a warning if another one fails, and then writes nothing, so that the training goes on.

    Args:
        writer: The other writer.
        name: Its name, for the warning.
    """

    def __init__(self, writer: ScalarWriter, name: str) -> None:
        self._writer: ScalarWriter | None = writer
        self._name = name

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics, unless an earlier call failed."""
        if self._writer is not None:
            with self._stop_on_errors():
                self._writer.write(step, values)

    def close(self, failed: bool) -> None:
        """Close the other writer, unless an earlier call failed."""
        if self._writer is not None:
            with self._stop_on_errors():
                self._writer.close(failed)

    @contextmanager
    def _stop_on_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._writer = None
            logger.warning(
                "%s failed (%s). The training goes on without it, and log.jsonl has all metrics",
                self._name,
                format_error_reason(error),
            )


class MlflowWriter:
    """Writer of the metrics and options of a run to MLflow.

    Args:
        mlflow: The module mlflow.
        workdir: Run folder. Its name becomes the name of the run.
        config: Config of the run. Its options become parameters of the run.
        run_id: Identifier of the run to continue. If empty, a run is created.
    """

    def __init__(self, mlflow: ModuleType, workdir: Path, config: Config, run_id: str) -> None:
        self._client, self._metric = mlflow.MlflowClient(), mlflow.entities.Metric
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self.run_id = self._client.create_run(number, run_name=workdir.resolve().name).info.run_id
        options = run_folder.flatten_config(config)
        params = [mlflow.entities.Param(key, str(value)[:_MAX_PARAM]) for key, value in options.items()]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_PER_CALL])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics of a training step."""
        now = int(1000 * time.time())
        self._client.log_batch(self.run_id, [self._metric(name, value, now, step) for name, value in values.items()])

    def close(self, failed: bool) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


class WandbWriter:
    """Writer of the metrics and options of a run to Weights & Biases.

    Args:
        wandb: The module wandb.
        workdir: Run folder. Its name becomes the name of the run, and files of Weights & Biases are written into it.
        config: Config of the run.
        run_id: Identifier of the run to continue. If empty, a run is created.
    """

    def __init__(self, wandb: ModuleType, workdir: Path, config: Config, run_id: str) -> None:
        self.run_id = run_id or secrets.token_hex(4)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=workdir.resolve().name,
            id=self.run_id,
            resume="allow",
            dir=workdir,
            config=msgspec.to_builtins(config),
            # Neither our output nor the code is sent, and no summary is printed over the progress display.
            settings=wandb.Settings(console="off", save_code=False, quiet=True),
        )
        # A resumed run repeats steps, but wandb's own step cannot go back.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics of a training step."""
        self._run.log({"step": step, **values})

    def close(self, failed: bool) -> None:
        """Mark the run as finished or failed."""
        self._run.finish(exit_code=int(failed))


_OPEN: dict[TrackerName, type[MlflowWriter] | type[WandbWriter]] = {"mlflow": MlflowWriter, "wandb": WandbWriter}


def _read(workdir: Path) -> TrackedRun | None:
    """Return the content of tracking.json, or None if there is no such file.

    Raises:
        UserError: If the file is corrupt.
    """
    file = workdir / _FILE
    with convert_read_errors(file):
        if not file.exists():
            return None
        data = file.read_bytes()
    try:
        return msgspec.json.decode(data, type=TrackedRun)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file}: {error}. Delete the file to train without a tracker") from None


def _write(workdir: Path, tracked: TrackedRun) -> None:
    write_text(workdir / _FILE, msgspec.json.encode(tracked).decode() + "\n")
