"""Tests of the trackers MLflow and Weights & Biases, with stand-ins and, if they are installed, with the packages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers.cli import TINY, run_command
from helpers.paths import ROOT

from ssd_jax.config import Config, Train
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder, tracking
from ssd_jax.runs.log import RunLog, read_log


class FakeMlflow(ModuleType):
    """Stand-in for the package mlflow, which keeps what it gets."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiments: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.failing = False
        self.MlflowClient = lambda: self
        self.entities = SimpleNamespace(
            Metric=lambda key, value, timestamp, step: (key, value, step), Param=lambda key, value: (key, value)
        )

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return name

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        number = f"run{len(self.runs)}"
        self.runs[number] = {"name": run_name, "params": {}, "metrics": [], "status": ["RUNNING"]}
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def log_batch(self, run_id: str, metrics=(), params=()) -> None:
        if self.failing:
            raise ConnectionError("no connection")
        assert len(params) <= 100 and all(len(value) <= 6000 for _, value in params)
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] |= dict(params)

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"].append(status)

    def set_terminated(self, run_id: str, status: str) -> None:
        self.update_run(run_id, status)


class FakeWandb(ModuleType):
    """Stand-in for the package wandb, which keeps what it gets."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, float]] = []
        self.ended: list[int] = []
        self.Settings = dict

    def init(self, **arguments: Any) -> "FakeWandb":
        self.started.append(arguments)
        return self

    def define_metric(self, name: str, step_metric: str = "") -> None:
        pass

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


@pytest.fixture
def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    module = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a new run folder."""
    folder = tmp_path / "my_run"
    run_folder.write_config(folder, Config(name="x", train=Train(steps=7)))
    return folder


def log_two_steps(run: Path, first: int = 1) -> None:
    with RunLog(run, first - 1) as log:
        log.log_step(first, {"loss": 0.5})
        log.log_evaluation(first + 1, {"voc_map_area": 0.25, "coco_ap": None})


def test_mlflow_gets_the_options_and_the_metrics(fake_mlflow: FakeMlflow, run, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    tracking.start_tracking(run, "mlflow")
    log_two_steps(run)
    (entry,) = fake_mlflow.runs.values()
    assert fake_mlflow.experiments == ["ssd-jax"]
    assert entry["name"] == "my_run" and entry["status"] == ["RUNNING", "FINISHED"]
    assert entry["params"]["train.steps"] == "7"
    assert entry["params"].keys() == run_folder.flatten_config(run_folder.read_config(run)).keys()
    assert entry["metrics"] == [("train/loss", 0.5, 1), ("val/voc_map_area", 0.25, 2)]


def test_mlflow_continues_the_same_run(fake_mlflow: FakeMlflow, run, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    tracking.start_tracking(run, "mlflow")
    log_two_steps(run)
    tracking.start_tracking(run, None)
    log_two_steps(run, first=3)
    (entry,) = fake_mlflow.runs.values()
    assert fake_mlflow.experiments == ["cells"]
    assert entry["status"] == ["RUNNING", "FINISHED", "RUNNING", "FINISHED"]
    assert [step for _, _, step in entry["metrics"]] == [1, 2, 3, 4]


def test_wandb_gets_the_options_and_the_metrics_and_continues_the_same_run(fake_wandb: FakeWandb, run, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    tracking.start_tracking(run, "wandb")
    log_two_steps(run)
    log_two_steps(run, first=3)
    first, second = fake_wandb.started
    assert first["id"] == second["id"] and len(first["id"]) == 8
    assert (first["project"], first["name"], first["dir"]) == ("ssd-jax", "my_run", run)
    assert first["config"]["train"]["steps"] == 7
    assert fake_wandb.logged[:2] == [{"step": 1, "train/loss": 0.5}, {"step": 2, "val/voc_map_area": 0.25}]
    assert fake_wandb.ended == [0, 0]


def test_tracker_is_told_that_the_training_failed(fake_wandb: FakeWandb, fake_mlflow: FakeMlflow, run, tmp_path):
    other = tmp_path / "other"
    run_folder.write_config(other, Config())
    tracking.start_tracking(run, "wandb")
    tracking.start_tracking(other, "mlflow")
    for folder in (run, other):
        with pytest.raises(KeyError), RunLog(folder, 0):
            raise KeyError
    assert fake_wandb.ended == [1]
    assert fake_mlflow.runs["run0"]["status"] == ["RUNNING", "FAILED"]


def test_training_goes_on_if_the_tracker_fails(fake_mlflow: FakeMlflow, run, caplog):
    tracking.start_tracking(run, "mlflow")
    with RunLog(run, 0) as log:
        fake_mlflow.failing = True
        for step in (1, 2):
            log.log_step(step, {"loss": 0.5})
    (message,) = (record.getMessage() for record in caplog.records)
    assert "mlflow" in message and "no connection" in message
    assert [line["step"] for line in read_log(run)] == [1, 2]


def test_tracker_that_does_not_start_is_an_error(fake_mlflow: FakeMlflow, run):
    fake_mlflow.failing = True
    tracking.start_tracking(run, "mlflow")
    with pytest.raises(UserError, match=r"mlflow.*no connection.*tracking\.json"):
        RunLog(run, 0)


def test_run_without_a_tracker_imports_none(run, monkeypatch):
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    tracking.start_tracking(run, None)
    log_two_steps(run)
    assert not (run / "tracking.json").exists()


def test_run_keeps_its_tracker(fake_mlflow: FakeMlflow, run):
    tracking.start_tracking(run, "mlflow")
    with pytest.raises(UserError, match=r"mlflow.*--track wandb.*tracking\.json"):
        tracking.start_tracking(run, "wandb")


@pytest.mark.parametrize("text", ["{", '{"tracker": "paper"}', "\udcff", "[" * 100_000])
def test_corrupt_tracking_file_is_named(run, text):
    (run / "tracking.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"tracking\.json"):
        RunLog(run, 0)


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_missing_extra_is_named_before_a_folder_is_created(tracker, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, tracker, None)
    assert run_command("train", TINY, "--track", tracker, "--workdir", tmp_path / "run") == 2
    assert f"ssd-jax[{tracker}]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_trackers_send_no_telemetry(fake_mlflow: FakeMlflow, fake_wandb: FakeWandb, monkeypatch):
    names = ("MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING")
    for name in names:
        monkeypatch.setenv(name, "")  # restores the environment after the test
        monkeypatch.delenv(name)
    tracking.import_tracker("mlflow")
    assert [os.environ[name] for name in names] == ["true", "false"]


# ---- with the packages ----

_LOG_TWICE = """
import sys
from pathlib import Path
from ssd_jax.runs import tracking
from ssd_jax.runs.log import RunLog
run = Path(sys.argv[1])
tracking.start_tracking(run, sys.argv[2])
for step in (1, 2):
    with RunLog(run, step - 1) as log:
        log.log_step(step, {"loss": step / 4})
"""


def log_twice(run: Path, tracker: str, **environment: str) -> None:
    """Log two steps in a new process, opening the logs for each."""
    pytest.importorskip(tracker)
    subprocess.run(
        [sys.executable, "-c", _LOG_TWICE, str(run), tracker],
        cwd=run.parent, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # MLflow and SQLAlchemy warn about each other
def test_mlflow_stores_the_metrics_in_its_local_store(run):
    store = f"sqlite:///{run.parent / 'mlflow.db'}"
    log_twice(run, "mlflow", MLFLOW_TRACKING_URI=store)
    client = pytest.importorskip("mlflow").MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("ssd-jax").experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["train.steps"] == "7"
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "train/loss")] == [
        (1, 0.25),
        (2, 0.5),
    ]


def test_wandb_stores_the_run_in_offline_mode(run):
    log_twice(run, "wandb", WANDB_MODE="offline")
    number = json.loads((run / "tracking.json").read_text())["run_id"]
    assert len(list((run / "wandb").glob(f"offline-run-*-{number}/run-{number}.wandb"))) >= 1
