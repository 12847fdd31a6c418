"""The length of a run: the number of steps that follows from ``train.epochs``, and what depends on the length.

`ssd_jax.training.timed_length` has the length of a run with ``train.minutes``.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ssd_jax.config import Config, Optimizer, Train
from ssd_jax.errors import UserError
from ssd_jax.plurals import format_count
from ssd_jax.training.optimizer import SchedulePoint, make_schedule_point

EVALUATIONS = 6
"""Number of evaluations of a run whose ``train.eval_every`` is None."""


class TooShortError(UserError):
    """Raised if no other step fits into ``train.minutes``. The steps that are done are saved first."""


def count_steps(train: Train, images: int) -> int:
    """Return the number of steps that follows from ``train.epochs`` and the number of images of the train split."""
    assert train.epochs is not None
    steps = max(1, round(train.epochs * images / train.batch_size))
    low, high = train.steps_range or (steps, steps)
    return min(max(steps, low), high)


def resolve_length(config: Config, images: int) -> Config:
    """Return the config of a new run with the number of steps and the interval of evaluations, if they are not given.

    With ``train.minutes``, both stay None until the first steps were measured.

    Args:
        config: Config of the run.
        images: Number of images of the train split.

    Raises:
        UserError: If both ``train.steps`` and ``train.epochs`` are given, and do not agree.
    """
    train = config.train
    if train.minutes is not None:
        return dataclasses.replace(config, train=dataclasses.replace(train, steps=None))
    steps = train.known_steps if train.epochs is None else count_steps(train, images)
    if train.steps not in (None, steps):
        raise UserError(
            f"train.steps is {train.steps}, but train.epochs {train.epochs:g} of {images} images are {steps} steps: "
            "give only one of them, and set the other to None"
        )
    eval_every = math.ceil(steps / EVALUATIONS) if train.eval_every is None else train.eval_every
    return dataclasses.replace(config, train=dataclasses.replace(train, steps=steps, eval_every=eval_every))


def adopt_length(config: Config, saved: Config) -> Config:
    """Return the config that resumes a run, with the number of steps and the interval that the run has resolved.

    They stay those of the run even if the number of images has changed. With ``train.minutes``, the planned steps also
    stay if the minutes change, because the plan will be revised.

    Args:
        config: The config to resume with.
        saved: The config of the run.
    """
    given, train = config.train, saved.train
    has_same_rule = (given.epochs, given.steps_range, given.minutes) == (train.epochs, train.steps_range, train.minutes)
    has_minutes = given.minutes is not None and train.minutes is not None
    if given.steps is None and (has_same_rule or has_minutes):
        given = dataclasses.replace(given, steps=train.steps)
    if given.eval_every is None:
        given = dataclasses.replace(given, eval_every=train.eval_every)
    return dataclasses.replace(config, train=given)


def describe_length(train: Train, images: int) -> str:
    """Return the length of a run in words, such as "1200 steps of 8 images = 46.8 epochs of 205 images".

    Args:
        train: The ``train`` section of a config after `resolve_length`.
        images: Number of images of the train split.
    """
    if train.steps is None:
        unit = "minute" if train.minutes == 1 else "minutes"
        return f"{train.minutes:g} {unit}, in steps of {format_count(train.batch_size, 'images')}"
    epochs = train.steps * train.batch_size / max(1, images)
    steps, batch = format_count(train.steps, "steps"), format_count(train.batch_size, "images")
    return f"{steps} of {batch} = {epochs:.3g} epochs of {format_count(images, 'images')}"


def describe_rule(train: Train) -> str:
    """Return the rule by which the number of steps was chosen in words; an empty string if there is none."""
    if train.epochs is None or train.steps_range is None:
        return ""
    low, high = train.steps_range
    return f"chosen by the rule: {train.epochs:g} epochs, but {low} to {high} steps"


class Length:
    """Length of a run whose number of steps is known at its start.

    The methods are those that the training loop needs for `TimedLength`, whose number of steps changes.

    Attributes:
        steps: Number of training steps; None if it is not known yet.
    """

    def __init__(self, train: Train) -> None:
        self.steps = train.steps
        self._eval_every = train.eval_every

    def evaluates_after(self, step: int) -> bool:
        """Return whether the network is evaluated after a step, apart from the last step of the run."""
        return bool(self._eval_every) and step % (self._eval_every or 1) == 0

    def make_schedule_point(self, optimizer: Optimizer, step: int) -> SchedulePoint:
        """Return the place of a step in the learning rate schedule.

        Args:
            optimizer: The optimizer section of the config.
            step: Number of steps done, counted from 0.
        """
        return make_schedule_point(optimizer, step, self.steps)

    def is_due(self, step: int) -> bool:
        """Return whether the number of steps is to be chosen again after a step, with `revise`."""
        return False

    def revise(self, step: int, probe: Callable[[float], float]) -> str:
        """Choose the number of steps again after a step, and return a message for the user, or an empty string.

        Call this in all processes, after the computation of the step is done.

        Args:
            step: Number of the step.
            probe: Function that measures the seconds of an evaluation. Its argument is about how many seconds it may
                take, without the compilation.

        Raises:
            TooShortError: If the length of a new run cannot be chosen, because no other step fits into its time.
        """
        return ""

    @contextmanager
    def measure(self, work: str) -> Iterator[None]:
        """Measure the time of the ``with`` block, which is not part of the time of steps.

        Args:
            work: ``evaluation``, ``checkpoint`` or the name of other work that is done once.
        """
        yield

    def note_evaluation(self, step: int) -> None:
        """Take note of an evaluation that is done after a step."""

    def describe_end(self) -> str:
        """Return a text about the length of a run that has just ended; empty if the length was known before."""
        return ""

    def get_state(self) -> dict[str, Any]:
        """Return the values that a checkpoint stores to resume the run."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue with the values of a checkpoint, from `get_state`."""
