"""Tests of ``train.minutes`` with a clock that only the pretended steps, evaluations and checkpoints advance."""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import tiny_config

from ssd_jax.config import Optimizer
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.data.loader import train_batches
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runtime.stop import StopRequest
from ssd_jax.training import loop
from ssd_jax.training.length import TooShortError
from ssd_jax.training.loop import Trainer
from ssd_jax.training.optimizer import compute_learning_rate
from ssd_jax.training.reporter import NullReporter
from ssd_jax.training.timed_length import TimedLength
from ssd_jax.training.train_step import TrainState

TINY = tiny_config.get_step_config()
TRAIN, VAL = (ShapesSource(TINY.data.shapes, split) for split in ("train", "val"))
COSINE = Optimizer(learning_rate=1.0, schedule="cosine", warmup_steps=10)
END_SECONDS = 1.0  # of the process after the last checkpoint


class FakeRun(NullReporter, Checkpoints):
    """Training loop whose work takes a pretended time. It records what the loop does.

    Attributes:
        now: The pretended time, in seconds.
        step_seconds: Function from the time to the seconds of a step.
        costs: Seconds of the compilation, of an evaluation, its compilation, and a checkpoint.
    """

    def __init__(self, folder: Any, monkeypatch: pytest.MonkeyPatch, step_seconds: Callable[[float], float]) -> None:
        self.folder, self.step_seconds, self.now = folder, step_seconds, 1000.0
        self.costs = {"start": 12.0, "compile": 30.0, "compile_evaluation": 5.0, "evaluate": 3.0, "save": 0.4}
        self.learning_rates: list[float] = []
        self.evaluated: list[int] = []
        self.saved: dict[int, dict[str, Any]] = {}
        self.lengths: list[int] = []
        self.messages: list[str] = []
        self._compiled: set[str] = set()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(loop, "make_train_step", lambda *_: self.train_step)
        monkeypatch.setattr(loop, "predict_split", self.predict_split)
        monkeypatch.setattr(loop, "compute_metrics", lambda *_: {"voc_map_area": 0.5})
        monkeypatch.setattr(loop.sharding, "shard_batch", lambda batch, mesh: batch)

    def patch_predict_split(self, function: Callable[..., Any]) -> None:
        self._monkeypatch.setattr(loop, "predict_split", function)

    def _compile(self, cost: str) -> None:
        if cost not in self._compiled:
            self.now += self.costs[cost]
            self._compiled.add(cost)

    def train_step(self, state: Any, batch: Any, point: Any) -> Any:
        self._compile("compile")
        self.now += self.step_seconds(self.now - 1000)
        self.learning_rates.append(float(compute_learning_rate(self.config.optimizer, point)))
        return state, dict.fromkeys(("loss", "loc_loss", "conf_loss", "gradient_norm"), 1.0)

    def predict_split(self, *arguments: Any) -> list[Any]:
        self._compile("compile_evaluation")
        self.now += self.costs["evaluate"]
        arguments[5](len(VAL))  # the only batch
        return []

    def report_evaluation(self, step: int, *_: Any) -> None:
        self.evaluated.append(step)

    def report_length(self, steps: int, message: str) -> None:
        self.lengths.append(steps)
        self.messages += [message] * bool(message)

    def save(self, step: int, trees: Any, metadata: Any, *_: Any) -> None:  # type: ignore[override]
        self.now += self.costs["save"]
        self.saved[step] = metadata

    def complete_if_written(self) -> None:
        pass

    def train(self, minutes: float, resume: int | None = None, optimizer: Optimizer = COSINE, **options: Any) -> int:
        """Train for some minutes, and return the last step. ``resume`` is the step of a checkpoint."""
        train = dataclasses.replace(
            TINY.train, **({"steps": None, "minutes": minutes, "eval_every": None, "checkpoint_every": 200} | options)
        )
        self.config = dataclasses.replace(TINY, train=train, optimizer=optimizer)
        run_folder.write_config(self.folder, self.config)
        val = VAL if train.eval_every != 0 else None
        self.trainer = trainer = Trainer(self.config, self.folder, TRAIN, val, None, self.now)
        batch = next(train_batches(TRAIN, self.config.data, 8, 0))
        trainer.batches = FakeBatches(batch)  # type: ignore[assignment]
        self.now += self.costs["start"]
        self._compiled.clear()
        if resume is not None:
            trainer.length.set_state(self.saved[resume]["length"])
        state: Any = TrainState(np.int32(resume or 0), {}, (), None)
        return trainer.train_steps(state, self, self, StopRequest())


class FakeBatches:
    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __next__(self) -> Any:
        return self.batch

    def get_state(self) -> dict:
        return {}


@pytest.fixture
def make_run(tmp_path, monkeypatch) -> Callable[..., FakeRun]:
    return lambda step_seconds: FakeRun(tmp_path, monkeypatch, step_seconds)


SPEEDS: dict[str, Callable[[float], float]] = {
    "constant": lambda now: 0.7,
    "half the speed after half the time": lambda now: 0.5 if now < 90 else 1.0,
    "half the speed shortly before the end": lambda now: 0.5 if now < 160 else 1.0,
    "twice the speed": lambda now: 1.0 if now < 120 else 0.5,
    "a burst of slow steps at the first measurement": lambda now: 2.0 if now < 60 else 0.4,
    "alternating": lambda now: 0.3 if now % 20 < 10 else 1.2,
}


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("evaluate", [0.2, 20.0])
def test_run_ends_within_five_percent_of_the_minutes(make_run, speed, evaluate):
    run = make_run(SPEEDS[speed])
    run.costs["evaluate"] = evaluate
    last = run.train(minutes=3)
    assert 0.95 * 180 <= run.now + END_SECONDS - 1000 <= 1.05 * 180
    assert run.evaluated[-1] == last and last in run.saved
    assert run_folder.read_config(run.folder).train.steps == run.lengths[-1] == last
    assert run_folder.read_config(run.folder).train.minutes == 3


def test_run_with_fast_steps_ends_within_five_percent(make_run):
    run = make_run(lambda now: 0.02 if now < 90 else 0.04)
    run.train(minutes=3)
    assert 0.95 * 180 <= run.now + END_SECONDS - 1000 <= 1.05 * 180


def test_number_of_evaluations_depends_on_their_cost(make_run):
    counts = {}
    for cost in (0.2, 6.0, 20.0):
        run = make_run(SPEEDS["constant"])
        run.costs["evaluate"] = cost
        run.train(minutes=3)
        counts[cost] = len(run.evaluated)
        assert cost * (counts[cost] - 1) <= 0.15 * 180
        gaps = np.diff([0, *run.evaluated])
        assert gaps.max() <= 1.3 * gaps.min(), "evaluations are spread evenly"
    assert counts == {0.2: 6, 6.0: 4, 20.0: 1}


def test_single_evaluation_is_measured_again_near_the_end(make_run):
    """An evaluation that takes long at the start, because other programs use the machine, is short at the end."""
    run = make_run(SPEEDS["constant"])
    run.costs["evaluate"] = 30.0
    measured: list[float] = []
    original = run.predict_split

    def predict_split(*arguments: Any) -> list[Any]:
        measured.append(run.now - 1000)
        run.costs["evaluate"] = 30.0 if run.now < 1200 else 10.0
        return original(*arguments)

    run.patch_predict_split(predict_split)
    run.train(minutes=10, eval_every=10**6)
    assert len(run.evaluated) == 1 and sum(0.6 * 600 < now < 0.99 * 600 for now in measured) >= 3
    assert 0.95 * 600 <= run.now + END_SECONDS - 1000 <= 1.05 * 600


def test_given_interval_of_evaluations_is_kept(make_run):
    run = make_run(SPEEDS["constant"])
    last = run.train(minutes=3, eval_every=40)
    assert run.evaluated == [*range(40, last, 40), last]
    assert 0.95 * 180 <= run.now + END_SECONDS - 1000 <= 1.05 * 180
    run = make_run(SPEEDS["constant"])
    assert run.train(minutes=3, eval_every=0) > last, "there is more time for steps"
    assert 0.95 * 180 <= run.now + END_SECONDS - 1000 <= 1.05 * 180


def test_learning_rate_has_no_jump_when_the_speed_changes(make_run):
    run = make_run(SPEEDS["half the speed after half the time"])
    last = run.train(minutes=3)
    rates = np.array(run.learning_rates)
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-5, err_msg="warm-up")
    assert run.lengths[0] > 1.2 * last, "the first plan expected more steps"
    # Without changes, the largest decrease of the cosine is pi / 2 / steps. At half the speed, it is twice as large.
    steepest = np.pi / 2 / last * 2
    assert np.all(np.diff(rates[10:]) <= 1e-6) and -np.diff(rates[10:]).min() <= 1.2 * steepest
    assert rates[-1] < 0.01


def test_milestones_as_fractions_follow_the_planned_steps(make_run):
    run = make_run(SPEEDS["constant"])
    last = run.train(minutes=3, optimizer=Optimizer(learning_rate=1.0, milestones=(0.5, 0.75)))
    values, starts = np.unique(np.round(run.learning_rates, 6)[::-1], return_index=True)
    assert values.tolist() == pytest.approx([0.01, 0.1, 1.0])
    drops = [last - start for start in starts[1:]]
    assert drops == pytest.approx([0.75 * last, 0.5 * last], rel=0.05)


def test_resumed_run_counts_the_time_used_before(make_run):
    run = make_run(SPEEDS["constant"])
    run.train(minutes=10)
    middle = sorted(run.saved)[2]
    used, state = run.saved[middle]["length"]["seconds"], run.saved[middle]["length"]
    assert 0 < used < 600 and state["steps"] is not None
    before, rates = run.now, run.learning_rates
    run.learning_rates = []
    last = run.train(minutes=10, resume=middle)
    assert 0.95 * 600 <= used + run.now + END_SECONDS - before <= 1.05 * 600
    assert last < len(rates), "starting and compiling again takes the time of some steps"
    assert run.learning_rates[0] == pytest.approx(rates[middle], rel=1e-5), "the schedule continues where it was"
    assert run.learning_rates[-1] < 0.02


def test_resumed_run_without_time_left_ends_soon(make_run):
    run = make_run(SPEEDS["constant"])
    run.train(minutes=3)
    middle = sorted(run.saved)[2]
    run.saved[middle]["length"]["seconds"] = 179.0
    last = run.train(minutes=3, resume=middle)
    assert middle < last <= middle + 10 and run.evaluated[-1] == last


def test_resumed_run_without_time_left_ends_with_an_evaluation_even_if_its_length_was_never_chosen(make_run, caplog):
    run = make_run(SPEEDS["constant"])
    run.train(minutes=3)
    middle = sorted(run.saved)[2]
    run.saved[middle]["length"] |= {"seconds": 179.0, "steps": None}
    run.evaluated.clear()
    last = run.train(minutes=3, resume=middle)
    assert 20 <= middle < last <= middle + 10 and run.evaluated == [last]
    assert f"the run ends after step {last}" in caplog.records[-1].getMessage()


def find_advised_minutes(text: str) -> float:
    return float(re.findall(r"--train.minutes ([\d.]+\d)", text)[-1])


def test_few_steps_that_fit_are_trained_with_a_warning(make_run, caplog):
    run = make_run(SPEEDS["constant"])
    last = run.train(minutes=1.2)
    assert 6 < last < 20 and run.evaluated == [last]
    assert 0.95 * 72 <= run.now + END_SECONDS - 1000 <= 1.05 * 72
    (record,) = caplog.records
    message = record.getMessage()
    planned = int(re.findall(r"only about (\d+) steps fit", message)[0])
    assert abs(planned - last) <= 2 and "At least 20 steps" in message
    run = make_run(SPEEDS["constant"])
    assert run.train(minutes=find_advised_minutes(message)) >= 20 and len(caplog.records) == 1


@pytest.mark.parametrize(("minutes", "evaluate", "compiles"), [(0.7, 3.0, False), (0.9, 15.0, True)])
def test_time_without_another_step_saves_the_steps_and_can_be_extended(make_run, minutes, evaluate, compiles):
    """In the first case, this is known before the detection is compiled."""
    run = make_run(SPEEDS["constant"])
    run.costs["evaluate"] = evaluate
    with pytest.raises(TooShortError) as error:
        run.train(minutes=minutes)
    assert ("compile_evaluation" in run._compiled) == compiles
    ((step, metadata),) = run.saved.items()
    assert 4 <= step <= 7 and metadata["length"]["steps"] is None and not run.evaluated
    message = str(error.value)
    assert f"train.minutes {minutes} is too short for 20 steps" in message and f"The {step} steps are saved" in message
    before, advised = run.now, find_advised_minutes(message)
    rest = 0 if compiles else 20  # the time for the evaluation was not known
    last = run.train(minutes=advised + rest / 60, resume=step)
    used = metadata["length"]["seconds"] + run.now + END_SECONDS - before
    assert last >= 20 and used <= 1.05 * 60 * advised + rest


def test_printed_plan_is_short_and_is_repeated_only_if_it_changes_much(make_run):
    run = make_run(SPEEDS["alternating"])
    last = run.train(minutes=3)
    assert len(run.lengths) > 2 * len(run.messages) and len(run.messages) <= 4
    assert all(len(message) <= 80 for message in run.messages)
    assert run.messages[0].split(";")[0].endswith(f"{run.lengths[0]} steps in 3 min")
    assert re.fullmatch(rf"{last} steps in 2:5\d, of 3:00 asked for\.", run.trainer.length.describe_end())


def test_state_of_the_length_can_be_stored_as_json():
    length = TimedLength(dataclasses.replace(TINY.train, steps=None, minutes=1.5), time.perf_counter(), 10)
    state = length.get_state()
    assert all(isinstance(value, int | float | None) for value in state.values())
    length.set_state(state | {"seconds": 50.0, "steps": 300, "start": 100, "fraction": 0.5})
    assert length.steps == 300 and 50 <= length.used < 51
    points = [length.make_schedule_point(COSINE, step).step for step in (0, 5, 100, 200, 300)]
    assert points == pytest.approx([0, 5, 155, 227.5, 300])
