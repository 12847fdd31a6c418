"""Tests of the training loop: actions after each step, measured times, and the error about infinite or NaN losses."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config

from ssd_jax.config import Train
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runtime.stop import StopRequest
from ssd_jax.training import loop
from ssd_jax.training.length import Length
from ssd_jax.training.loop import DispatchedStep, DueActions, StepTimer, Trainer, find_due_actions, read_metrics
from ssd_jax.training.optimizer import make_schedule_point
from ssd_jax.training.reporter import NullReporter
from ssd_jax.training.train_step import TrainState

TINY = tiny_config.get_step_config()
TRAIN = ShapesSource(TINY.data.shapes, "train")


@pytest.mark.parametrize(
    ("step", "stopping", "expected"),
    [
        (1, False, DueActions(log=False, evaluate=False, save=False)),
        (3, False, DueActions(log=True, evaluate=False, save=False)),
        (5, False, DueActions(log=True, evaluate=False, save=True)),
        (7, False, DueActions(log=True, evaluate=True, save=True)),
        (7, True, DueActions(log=True, evaluate=False, save=True)),
        (8, True, DueActions(log=True, evaluate=False, save=True)),
        (20, False, DueActions(log=True, evaluate=True, save=True)),
        (20, True, DueActions(log=True, evaluate=True, save=True)),
    ],
)
def test_find_due_actions_returns_the_actions_of_a_step(step, stopping, expected):
    train = Train(steps=20, log_every=3, checkpoint_every=5, eval_every=7)
    assert find_due_actions(step, train, Length(train), stopping) == expected


def test_find_due_actions_evaluates_only_the_last_step_if_eval_every_is_0():
    train = Train(steps=20, log_every=3, checkpoint_every=5, eval_every=0)
    assert [step for step in range(1, 21) if find_due_actions(step, train, Length(train), False).evaluate] == [20]


def test_step_timer_separates_waiting_from_computing(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timer = StepTimer()
    for waited, computed in ((1.0, 2.0), (0.5, 4.0)):
        now[0] += 100  # time between two laps, such as an evaluation, which does not count
        timer.restart()
        with timer.measure_waiting():
            now[0] += waited
        now[0] += computed
        assert timer.end_lap() == (waited + computed, waited)
    assert (timer.total, timer.total_waited) == (7.5, 1.5)


class SlowMetric:
    """A fake metric that a device is still computing. The metrics take 0.25 s each, one after another.

    Attributes:
        now: The pretended time, in seconds. Waiting for a metric advances it.
        free: The time at which the device has computed all metrics so far.
    """

    now = free = 0.0

    def __init__(self) -> None:
        self.ready = SlowMetric.free = max(SlowMetric.free, SlowMetric.now) + 0.25

    def block_until_ready(self) -> "SlowMetric":
        SlowMetric.now = max(SlowMetric.now, self.ready)
        return self

    def __float__(self) -> float:
        self.block_until_ready()
        return 1.0


class SpyReporter(NullReporter):
    def __init__(self) -> None:
        self.steps = 0
        self.lines: list[tuple[int, float, int, float]] = []

    def report_step(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.steps += 1
        assert step == self.steps and float(metrics["loss"]) == 1.0

    def report_train_metrics(
        self, step: int, metrics: dict[str, float], learning_rate: float, images: int, seconds: float, waited: float
    ) -> None:
        assert set(metrics.values()) == {1.0} and 0 <= waited <= seconds
        self.lines.append((step, learning_rate, images, seconds))


class SpyCheckpoints(Checkpoints):
    def __init__(self) -> None:
        self.saved: list[int] = []

    def save(self, step: int, *_: Any) -> None:
        self.saved.append(step)

    def complete_if_written(self) -> None:
        pass


def test_train_steps_measures_time_until_the_devices_are_done(tmp_path, monkeypatch):
    train = dataclasses.replace(TINY.train, steps=6, log_every=3, eval_every=0)
    config = dataclasses.replace(TINY, train=train)
    names = ("loss", "loc_loss", "conf_loss", "gradient_norm")
    monkeypatch.setattr(
        loop, "make_train_step", lambda *_: lambda state, batch, point: (state, dict.fromkeys(names, SlowMetric()))
    )
    monkeypatch.setattr(time, "perf_counter", lambda: SlowMetric.now)
    run_folder.write_config(tmp_path, config)
    trainer, reporter, checkpoints = Trainer(config, tmp_path, TRAIN, None), SpyReporter(), SpyCheckpoints()
    state: Any = TrainState(np.int32(0), {}, (), None)
    assert trainer.train_steps(state, checkpoints, reporter, StopRequest()) == 6
    assert reporter.steps == 6 and checkpoints.saved == [6]
    assert [(step, images) for step, _, images, _ in reporter.lines] == [(3, 24), (6, 24)]
    assert [seconds for *_, seconds in reporter.lines] == [0.75, 0.75], "three steps of a quarter of a second"
    assert reporter.lines[0][1] == pytest.approx(3 / 4 * config.optimizer.learning_rate), "the rate of step 3"


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_read_metrics_error_names_the_step_and_its_images(name):
    finite = {"loss": jnp.float32(1.5), "gradient_norm": jnp.float32(2)}
    point = make_schedule_point(TINY.optimizer, 6, 30)
    steps = [
        DispatchedStep(7, np.array([0, 1]), finite, point),
        DispatchedStep(8, np.array([2, 5]), finite | {name: jnp.float32(np.nan)}, point),
        DispatchedStep(9, np.array([3, 4]), finite | {name: jnp.float32(np.nan)}, point),
    ]
    assert read_metrics(steps[:1], TRAIN) == [{"loss": 1.5, "gradient_norm": 2.0}]
    with pytest.raises(UserError) as error:
        read_metrics(steps, TRAIN)
    message = str(error.value)
    assert message.startswith("step 8:")
    assert "train_000002, train_000005." in message and "train_000003" not in message
    for advice in ("--optimizer.learning_rate", "--optimizer.warmup_steps", "--optimizer.clip_norm", "--workdir"):
        assert advice in message
