"""The length of a run with ``train.minutes``: the number of steps follows from the measured speed.

The time of the whole command is planned: what has passed since its start, the remaining steps, evaluations and
checkpoints, and the end. The first plan is made after a few steps. It is revised when an eighth of the remaining steps
is done, or after a minute, and so on until the end, because the speed of a machine changes. If few steps fit into the
time, they are trained with a warning. If none fits, the run stops with a checkpoint, from which it can be continued
with more minutes; a run that has enough steps from before ends instead, with an evaluation.

The learning rate depends on the fraction of the run that is done. When the plan changes, this fraction continues from
its present value, and reaches 1 at the new last step. So the learning rate does not jump.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ssd_jax.config import Optimizer, Train
from ssd_jax.runtime import distributed
from ssd_jax.runtime.task import format_duration
from ssd_jax.training.length import EVALUATIONS, Length, TooShortError
from ssd_jax.training.optimizer import SchedulePoint, make_schedule_point

logger = logging.getLogger(__name__)

AIM = 0.985
"""Fraction of the time at which a run is planned to end, so that it rarely takes longer than asked for."""
MIN_STEPS = 20
"""If fewer steps fit into the time, a warning says how much time is needed for so many."""
_DISCARDED_STEPS = 3  # the first one includes the compilation, and the next ones use batches that were loaded meanwhile
_FIRST_SECONDS = 5.0  # duration of the steps that are measured for the first plan,
_FIRST_FRACTION = 0.03  # at most this fraction of the run
_WINDOW = 0.05  # fraction of the run whose steps determine the present speed
_LONGEST_INTERVAL = 60.0  # seconds between two revisions of the plan
_LONGEST_AGE = 0.4  # fraction of the run after which the time of an evaluation is measured again near the end
_EVALUATION_SHARE = 0.15  # largest fraction of the run for evaluations, if their interval is not given
_CHECKPOINT_SECONDS = 1.0  # before the first checkpoint is measured
_SHOWN_CHANGE = 0.2  # relative change of the number of steps that is printed
_END_SECONDS = 1.0  # from the last checkpoint to the end of the process


class _Plan(NamedTuple):
    """Decisions of the primary process, which all processes follow."""

    steps: int
    """Number of training steps; 0 if it is not known yet."""
    next_evaluation: int
    """Step after which the network is evaluated, if the interval is not given."""
    evaluation_interval: int
    """Number of steps from this evaluation to the one after it."""
    next_revision: int
    """Step after which the plan is revised."""
    measures_evaluation: int
    """Whether the time of an evaluation is measured again at that step, 0 or 1."""


class TimedLength(Length):
    """Length of a run with ``train.minutes``.

    Args:
        train: The ``train`` section of the config.
        started: Value of `time.perf_counter` when the command started.
        warmup_steps: Number of warm-up steps, whose learning rate does not depend on the length.
    """

    def __init__(self, train: Train, started: float, warmup_steps: int) -> None:
        super().__init__(train)
        assert train.minutes is not None
        self._minutes, self._checkpoint_every = train.minutes, train.checkpoint_every
        self._started = started
        self._start, self._fraction = warmup_steps, 0.0  # last revision after the warm-up, and the fraction done then
        self._warmup_steps = warmup_steps
        self._shown_steps = 0  # that were printed last
        self._used_before = 0.0  # time until the checkpoint was saved from which the run was resumed
        self._startup = 0.0  # time until the first step of this process was done, which includes the compilation
        self._evaluations, self._last_evaluation = 0, 0
        self._wanted_evaluations = EVALUATIONS
        self._costs: dict[str, float] = {}
        self._first: int | None = None  # first step of this process
        self._plan = _Plan(train.steps or 0, 0, 0, 0, 0)
        self._measured_evaluation = 0.0  # value of `used` at that time
        self._mark: tuple[int, float] | None = None  # step and time from which the present speed is measured
        self._other = 0.0  # time since then that was not spent on steps
        self._measured: list[tuple[int, float]] = []  # steps and their seconds, in order

    @property
    def seconds(self) -> float:
        """Time that the run may take."""
        return 60 * self._minutes

    @property
    def used(self) -> float:
        """Time that the run has taken so far, including that before it was resumed."""
        return time.perf_counter() - self._started

    # ---- what the training loop asks ----

    def evaluates_after(self, step: int) -> bool:
        """Return whether the network is evaluated after a step, apart from the last step of the run."""
        return super().evaluates_after(step) if self._eval_every is not None else step == self._plan.next_evaluation

    def make_schedule_point(self, optimizer: Optimizer, step: int) -> SchedulePoint:
        """Return the place of a step in the learning rate schedule, see `Length.make_schedule_point`."""
        if self.steps is None or step <= self._warmup_steps:
            return make_schedule_point(optimizer, step, self.steps)
        decaying = self.steps - self._warmup_steps
        return make_schedule_point(optimizer, self._warmup_steps + self._find_fraction(step) * decaying, self.steps)

    def _find_fraction(self, step: int) -> float:
        """Return the fraction of the steps after the warm-up that is done after a step."""
        assert self.steps is not None
        done = (step - self._start) / max(1, self.steps - self._start)
        return min(1.0, self._fraction + (1 - self._fraction) * max(0.0, done))

    def is_due(self, step: int) -> bool:
        """Return whether the number of steps is to be chosen again after a step."""
        if self._first is None:
            self._first = step
            self._startup = self.used - self._used_before
            self._plan = self._plan._replace(next_revision=step)
        return step == self._plan.next_revision

    @contextmanager
    def measure(self, work: str) -> Iterator[None]:
        """Measure the time of the ``with`` block, see `Length.measure`."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._other += seconds
        self._costs[work] = seconds
        if work == "evaluation":
            self._measured_evaluation = self.used

    def note_evaluation(self, step: int) -> None:
        """Take note of an evaluation that is done after a step."""
        self._evaluations, self._last_evaluation = self._evaluations + 1, step
        self._plan = self._plan._replace(next_evaluation=step + self._plan.evaluation_interval)

    def get_state(self) -> dict[str, Any]:
        """Return the values that a checkpoint stores to resume the run."""
        return {
            "seconds": self.used,
            "steps": self.steps,
            "start": self._start,
            "fraction": self._fraction,
            "evaluations": self._evaluations,
            "last_evaluation": self._last_evaluation,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue with the values of a checkpoint. The time until it was saved counts as used."""
        self._started -= state["seconds"]
        self._used_before = state["seconds"]
        self.steps = state["steps"]
        self._plan = self._plan._replace(steps=self.steps or 0)
        self._start, self._fraction = state["start"], state["fraction"]
        self._evaluations, self._last_evaluation = state["evaluations"], state["last_evaluation"]

    # ---- the plan ----

    def revise(self, step: int, probe: Callable[[float], float]) -> str:
        """Choose the number of steps again after a step, see `Length.revise`.

        Raises:
            TooShortError: If no other step of a new run fits into the time. All processes raise it.
        """
        assert self._first is not None
        done = step - self._first + 1  # steps of this process
        has_speed = done > _DISCARDED_STEPS
        if has_speed and self.steps is None:
            distributed.run_on_primary(lambda: self._check_time(step), TooShortError)  # before detection is compiled
        if has_speed and ("evaluation" not in self._costs or self._plan.measures_evaluation):
            with self.measure("probe"):
                seconds = probe(_FIRST_FRACTION * self.seconds)
            self._costs["evaluation"], self._measured_evaluation = seconds, self.used
        plan = _Plan(*distributed.share_integers(lambda: self._decide(step, done), len(_Plan._fields)))
        self._plan = plan
        if not has_speed:
            return ""
        previous = self.steps
        if previous is None:
            distributed.run_on_primary(lambda: self._check_plan(step), TooShortError)
        if previous is not None and step >= self._warmup_steps:
            self._start, self._fraction = step, self._find_fraction(step)
        self.steps = plan.steps
        if distributed.is_primary() and abs(plan.steps - self._shown_steps) > _SHOWN_CHANGE * self._shown_steps:
            self._shown_steps = plan.steps
            return self._describe(step)
        return ""

    def _decide(self, step: int, done: int) -> _Plan:
        """Return the plan of the primary process, which measures the time."""
        now, keep = time.perf_counter(), self._plan
        if done < _DISCARDED_STEPS:
            self._set_mark(step, now)
            return keep._replace(next_revision=step + _DISCARDED_STEPS - done)
        steps, seconds = self._measure_since_mark(step)
        self._set_mark(step, now)
        if done == _DISCARDED_STEPS:
            wanted = min(_FIRST_SECONDS, _FIRST_FRACTION * self.seconds, 0.1 * max(0.0, self.seconds - self.used))
            return keep._replace(next_revision=step + min(max(3, math.ceil(wanted * steps / seconds)), 10_000))
        self._measured.append((steps, seconds))
        return self._make_plan(step)

    def _set_mark(self, step: int, now: float) -> None:
        self._mark, self._other = (step, now), 0.0

    def _measure_since_mark(self, step: int) -> tuple[int, float]:
        """Return the number of steps since the mark and their time, in seconds."""
        assert self._mark is not None
        return step - self._mark[0], max(1e-6, time.perf_counter() - self._mark[1] - self._other)

    @property
    def step_seconds(self) -> float:
        """Seconds of a step at the present speed, without evaluations and checkpoints."""
        steps = seconds = 0.0
        for count, duration in reversed(self._measured):
            steps, seconds = steps + count, seconds + duration
            if seconds >= _WINDOW * self.seconds:
                break
        return seconds / steps

    def _make_plan(self, step: int) -> _Plan:
        checkpoint = self._costs.get("checkpoint", _CHECKPOINT_SECONDS)
        evaluation = self._costs["evaluation"] + checkpoint  # a checkpoint follows each evaluation
        left = AIM * self.seconds - self.used - evaluation - checkpoint - _END_SECONDS
        per_step = self.step_seconds + checkpoint / self._checkpoint_every
        count = 0  # of the evaluations before the last one
        if self._eval_every:
            per_step += evaluation / self._eval_every
        elif self._eval_every is None:
            affordable = math.floor(_EVALUATION_SHARE * self.seconds / max(1e-6, self._costs["evaluation"]))
            self._wanted_evaluations = min(self._wanted_evaluations, affordable)
            count = max(0, self._wanted_evaluations - self._evaluations - 1)
        while count and (left - count * evaluation) / per_step < MIN_STEPS:
            count -= 1
        remaining = max(0, math.floor((left - count * evaluation) / per_step))
        steps = step + remaining
        interval = max(1, math.ceil((steps - self._last_evaluation) / (count + 1)))
        next_evaluation = max(step + 1, self._last_evaluation + interval)
        until_revision = math.ceil(min(remaining / 8, _LONGEST_INTERVAL / self.step_seconds))
        # A run with a single evaluation would otherwise rely on the speed at its start.
        is_old = self.used - self._measured_evaluation > _LONGEST_AGE * self.seconds
        is_near_end = remaining * per_step < _LONGEST_AGE / 2 * self.seconds
        next_evaluation = next_evaluation if count else steps
        return _Plan(steps, next_evaluation, interval, step + max(1, until_revision), int(is_old and is_near_end))

    # ---- what the user is told ----

    def _check_time(self, step: int) -> None:
        """Check that time for another step is left, before the first evaluation is compiled and measured."""
        if step >= MIN_STEPS:
            return
        count, seconds = self._measure_since_mark(step)
        rest = _CHECKPOINT_SECONDS + _END_SECONDS
        if self.used + seconds / count + rest > AIM * self.seconds:
            self._raise_too_short(
                step, seconds / count, self._estimate_minutes(step, seconds / count, rest), "more than "
            )

    def _check_plan(self, step: int) -> None:
        """Check that the first plan has another step, and warn if it has few steps."""
        if step >= MIN_STEPS and self._plan.steps == step:
            logger.warning("train.minutes %g have passed, so the run ends after step %d", self._minutes, step)
        if self._plan.steps >= MIN_STEPS:
            return
        rest = self._costs["evaluation"] + 2 * _CHECKPOINT_SECONDS + _END_SECONDS
        minutes = self._estimate_minutes(step, self.step_seconds, rest)
        if self._plan.steps == step:
            self._raise_too_short(step, self.step_seconds, minutes)
        logger.warning(
            "only about %d steps fit into train.minutes %g, because %.0f s passed after %d steps. At least %d steps "
            "need --train.minutes %g: to train so long, press Ctrl-C and repeat the command with this option",
            self._plan.steps, self._minutes, self.used, step, MIN_STEPS, minutes,
        )  # fmt: skip

    def _estimate_minutes(self, step: int, per_step: float, rest: float) -> float:
        """Return the minutes that `MIN_STEPS` steps need if the run is stopped after a step and resumed.

        Args:
            step: Number of the step.
            per_step: Seconds of a step.
            rest: Seconds of the remaining work apart from the steps.
        """
        steps = max(1, MIN_STEPS - step)
        restart = self._startup + self._costs.get("probe", 0.0)  # which both include a compilation
        return math.ceil(10 * (self.used + restart + steps * per_step + rest) / AIM / 60) / 10

    def _raise_too_short(self, step: int, per_step: float, minutes: float, at_least: str = "") -> None:
        raise TooShortError(
            f"train.minutes {self._minutes:g} is too short for {MIN_STEPS} steps: {self.used:.0f} s have passed after "
            f"step {step}, and a step takes {_format_seconds(per_step)}. The {step} steps are saved: the same command "
            f"with {at_least}--train.minutes {minutes:g} continues from there"
        )

    def _describe(self, step: int) -> str:
        evaluation = self._costs["evaluation"]
        return (
            f"step {step}: {self.steps} steps in {self._minutes:g} min; a step takes "
            f"{_format_seconds(self.step_seconds)}"
            + (f", an evaluation {_format_seconds(evaluation)}" if evaluation else "")
        )

    def describe_end(self) -> str:
        """Return the number of steps and the time used; an empty string if this process did no step."""
        if self._first is None:
            return ""
        return f"{self.steps} steps in {format_duration(self.used)}, of {format_duration(self.seconds)} asked for."


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
