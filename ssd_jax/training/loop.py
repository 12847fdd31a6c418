"""The training loop: steps, logging, evaluation and checkpoints."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from ssd_jax.config import Config, Train
from ssd_jax.data.loader import train_batches
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.evaluation.evaluator import compute_metrics, predict_split
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.inference.program import PredictFn, make_predict_fn
from ssd_jax.model_zoo.opening import OpenedModel
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.log import BEST_METRIC
from ssd_jax.runtime import distributed, exit_message, sharding
from ssd_jax.runtime.progress import show_progress
from ssd_jax.runtime.stop import Stopped, StopRequest
from ssd_jax.training.length import Length, TooShortError
from ssd_jax.training.optimizer import SchedulePoint, compute_learning_rate
from ssd_jax.training.pretrained import load_initial_params, open_pretrained
from ssd_jax.training.reporter import NullReporter, Reporter
from ssd_jax.training.summary import Evaluation, format_problems
from ssd_jax.training.timed_length import TimedLength
from ssd_jax.training.train_step import (
    Metrics,
    TrainState,
    augment_batch,
    check_batch_size,
    init_state,
    make_train_step,
)


class DueActions(NamedTuple):
    """Flags of the actions that are due after a step. The actions are done in the order of the fields."""

    log: bool
    evaluate: bool
    save: bool


def find_due_actions(step: int, train: Train, length: Length, stopping: bool) -> DueActions:
    """Return the actions that are due after a step.

    A checkpoint follows every evaluation, so that the best checkpoint can be chosen. Before a checkpoint is saved, the
    metrics up to its step are logged.

    Args:
        step: Number of the step, from 1.
        train: The ``train`` section of a config.
        length: Length of the run, which decides when to evaluate.
        stopping: Whether training stops after this step. A checkpoint is then saved without an evaluation, unless this
            is the last step of the run.
    """
    is_last = step == length.steps
    evaluate = is_last or (length.evaluates_after(step) and not stopping)
    save = evaluate or stopping or step % train.checkpoint_every == 0
    return DueActions(save or step % train.log_every == 0, evaluate, save)


def make_checkpoint_trees(state: TrainState) -> dict[str, Any]:
    """Return the trees of arrays that are saved in a checkpoint, by name.

    ``params`` is for inference, and ``training`` is needed to resume training. If ``params`` is a moving average,
    ``training`` also has the parameters themselves.
    """
    training = {"opt_state": state.opt_state}
    if state.ema_params is not None:
        training["params"] = state.params
    return {"params": state.eval_params, "training": training}


class DispatchedStep(NamedTuple):
    """A training step that was sent to the devices and whose metrics have not been read yet."""

    step: int
    images: np.ndarray
    """Positions of the images of this step in the train split."""
    metrics: Metrics
    point: SchedulePoint


def wait_for_step(step: DispatchedStep, reporter: NullReporter) -> None:
    """Wait until the devices have done a step, and report it."""
    jax.block_until_ready(step.metrics)
    reporter.report_step(step.step, step.metrics)


def read_metrics(steps: list[DispatchedStep], source: Source) -> list[dict[str, float]]:
    """Return the metrics of each step as floats, after checking that loss and gradient norm are finite.

    Args:
        steps: Steps in the order of training.
        source: Train split. The error message takes the ids of the images from it.

    Raises:
        UserError: If a loss or a gradient norm is not finite. The message names the first such step and its images.
    """
    fetched = [{name: float(value) for name, value in s.metrics.items()} for s in steps]
    for s, metrics in zip(steps, fetched, strict=True):
        if not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["gradient_norm"]):
            ids = ", ".join(source.annotation(int(i)).image_id for i in s.images)
            raise UserError(
                f"step {s.step}: the loss is {metrics['loss']}, the norm of its gradient {metrics['gradient_norm']}. "
                f"Images of this step: {ids}. Earlier checkpoints are kept. Check these images and their boxes. If "
                "they are correct, use a lower --optimizer.learning_rate, --optimizer.warmup_steps 500 or "
                "--optimizer.clip_norm 10 in a new --workdir"
            )
    return fetched


class StepTimer:
    """Timer that measures the time of training steps, and the part of it that is spent waiting for data.

    A lap is the time between two log entries, without the time for evaluations and checkpoints.
    """

    def __init__(self) -> None:
        self.total = self.total_waited = 0.0
        """Total time of all laps, and the part of it that was spent waiting for data, both in seconds."""
        self.restart()

    def restart(self) -> None:
        """Start a new lap; the time since the last lap is not counted."""
        self._start, self._waited = time.perf_counter(), 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Return a context manager that does not count the duration of its block as part of the lap."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    @contextmanager
    def measure_waiting(self) -> Iterator[None]:
        """Return a context manager that counts the duration of its block as time spent waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def end_lap(self) -> tuple[float, float]:
        """End the lap, and return its time and the part of it that was spent waiting, both in seconds."""
        seconds, waited = time.perf_counter() - self._start, self._waited
        self.total, self.total_waited = self.total + seconds, self.total_waited + waited
        return seconds, waited


class Trainer:
    """Trainer of a detector. Its method `run` trains until the last step, or until a signal stops the training.

    Attributes:
        stopped_by: Signal that stopped the training, or None.
        best_evaluation: The evaluation with the highest mAP since training was started or resumed, or None.
    """

    def __init__(
        self,
        config: Config,
        workdir: Path,
        train_source: Source,
        val_source: Source | None,
        pretrained: OpenedModel | None = None,
        started: float | None = None,
    ) -> None:
        """Create the jitted functions and the stream of training batches.

        Args:
            config: Config of the run, with class names.
            workdir: Run folder.
            train_source: Split to train on.
            val_source: Split to evaluate on; None to train without evaluation.
            pretrained: Result of `open_pretrained` for this config. If None, it is opened when it is needed.
            started: Value of `time.perf_counter` from which ``train.minutes`` counts. None: now.

        Raises:
            UserError: If the batch cannot be split evenly over the devices.
        """
        self.config, self.workdir, self.pretrained = config, workdir, pretrained
        self.train_source, self.val_source = train_source, val_source
        self.mesh = sharding.make_mesh(fsdp=config.devices.fsdp)
        check_batch_size(config, self.mesh.size)
        self.length: Length
        if config.train.minutes is None:
            self.length = Length(config.train)
        else:
            started = time.perf_counter() if started is None else started
            self.length = TimedLength(config.train, started, config.optimizer.warmup_steps)
        self.train_step = make_train_step(config, self.mesh)
        self.predict: PredictFn = distributed.start_together(make_predict_fn(config, self.mesh))
        rows = sharding.find_local_positions(self.mesh, config.train.batch_size)
        self.batches = train_batches(train_source, config.data, config.train.batch_size, config.train.seed, rows)
        self.unreadable_val: dict[int, str] = {}
        self.timer = StepTimer()
        self.stopped_by: signal.Signals | None = None
        self.best_evaluation: Evaluation | None = None

    def run(self) -> int:
        """Train until the last step or until a signal, and return the number of the last completed step.

        This number is ``self.length.steps``, or the step of the saved checkpoint if a signal stopped training earlier.
        """
        exit_message.set_exit_message(
            f"{exit_message.EXIT_REASON} Checkpoints in {self.workdir} are kept: start all processes again with the "
            "same command to resume from the latest one."
        )
        with StopRequest() as stop, Checkpoints(self.workdir / "checkpoints", for_writing=True) as checkpoints:
            with show_progress("initializing the network", enabled=distributed.is_primary()):
                state = self.restore_or_init_state(checkpoints)
            start = int(state.step)
            with self._make_reporter(start) as reporter:
                if start == 0:
                    # All processes compute the preview. If only the primary process computed it, the others could
                    # wait for longer than Gloo's limit of 30 s.
                    index, batch = self.augment_next_batch()
                    reporter.report_train_batch(self.train_source, index, batch)
                last = self.train_steps(state, checkpoints, reporter, stop)
            self.stopped_by = stop.signal
        unreadable = {"train": (self.train_source, self.batches.unreadable)}
        if self.val_source is not None:
            unreadable["val"] = self.val_source, self.unreadable_val
        if problems := format_problems(unreadable, self.timer.total, self.timer.total_waited):
            print(problems)
        return last

    def _make_reporter(self, start: int) -> NullReporter:
        if not distributed.is_primary():
            return NullReporter()
        val_images = 0 if self.val_source is None else len(self.val_source)
        return Reporter(self.workdir, self.config.train, start, len(self.train_source), val_images)

    def restore_or_init_state(self, checkpoints: Checkpoints) -> TrainState:
        """Return the training state of the latest checkpoint, or the initial state if there is no checkpoint.

        If a checkpoint is restored, the stream of batches continues with the batch after that step.
        """
        state = init_state(self.config, self.mesh)
        latest = checkpoints.latest
        saved = checkpoints.resume(make_checkpoint_trees(state), self.config.model.class_names)
        has_ema = state.ema_params is not None
        if saved is None:
            params = load_initial_params(self.config, self.pretrained or open_pretrained(self.config), state.params)
            return state._replace(params=params, ema_params=jax.tree.map(jnp.copy, params) if has_ema else None)
        self.batches.set_state(saved.metadata["stream"])
        if saved.metadata.get("length"):
            self.length.set_state(saved.metadata["length"])
        if saved.step != latest:  # the latest one, which the headline names, is corrupt
            print(f"Resuming from the checkpoint at step {saved.step}.")
        params, training = saved.trees["params"], saved.trees["training"]
        # The step number gets the sharding of an initial state. With another sharding, the training step would be
        # compiled a second time.
        step = jax.device_put(np.int32(saved.step), state.step.sharding)
        return TrainState(step, training.get("params", params), training["opt_state"], params if has_ema else None)

    def augment_next_batch(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Augment the images of the next batch that this process has loaded, and return them.

        The stream of batches is not advanced: the first step trains on the same batch.

        Returns:
            The positions of the images in the train split, and the result of `augment_batch`: augmented images, boxes
            and labels.
        """
        position = self.batches.get_state()
        batch = next(self.batches)
        self.batches.set_state(position)
        return batch.index, augment_batch(self.config, batch, sharding.single_device_mesh())

    def train_steps(
        self, state: TrainState, checkpoints: Checkpoints, reporter: NullReporter, stop: StopRequest
    ) -> int:
        """Train from a state until the last step or a stop request. Return the number of the last completed step."""
        pending: list[DispatchedStep] = []
        self.timer.restart()
        step = int(state.step)
        while step != self.length.steps:
            with self.timer.measure_waiting():
                batch = next(self.batches)
            point = self.length.make_schedule_point(self.config.optimizer, step)
            state, metrics = self.train_step(state, sharding.shard_batch(batch, self.mesh), point)
            step += 1
            reporter.report_dispatch()
            if pending:  # Stay at most one step ahead of the devices, so that batches do not pile up.
                wait_for_step(pending[-1], reporter)
            pending.append(DispatchedStep(step, batch.index[batch.valid], metrics, point))
            stopping = stop.should_stop(step)
            shortage: TooShortError | None = None
            if self.length.is_due(step) and not stopping:
                jax.block_until_ready(metrics)
                try:
                    self._revise_length(step, state, reporter)
                except TooShortError as error:
                    shortage, stopping = error, True
            due = find_due_actions(step, self.config.train, self.length, stopping)
            if due.log:
                wait_for_step(pending[-1], reporter)  # The time of a lap includes the computation of its last step.
                if not distributed.is_multi_process() and not run_folder.is_run_folder(self.workdir):
                    self._save_in_new_folder(step, state)
                self._log(pending, reporter)
                pending.clear()
            if due.save:
                best_metric = self._evaluate(step, state, reporter, stop) if due.evaluate else None
                self._save(step, state, checkpoints, best_metric)
                if shortage is not None:
                    raise shortage
                # A stop request that came after `should_stop` was called is followed, too: this step was just saved.
                if (stopping or stop.requested) and step != self.length.steps:
                    return step
            if due.log:
                checkpoints.complete_if_written()
                self.timer.restart()
        return step

    def _revise_length(self, step: int, state: TrainState, reporter: NullReporter) -> None:
        """Let the length of the run be chosen again after a step, and store a new length in config.json."""
        before = self.length.steps
        with self.timer.pause():
            message = self.length.revise(step, lambda seconds: self._measure_evaluation(state, reporter, seconds))
        if self.length.steps not in (None, before):
            train = dataclasses.replace(self.config.train, steps=self.length.steps)
            self.config = dataclasses.replace(self.config, train=train)
            distributed.run_on_primary(lambda: run_folder.write_config(self.workdir, self.config))
            reporter.report_length(train.known_steps, message)

    def _measure_evaluation(self, state: TrainState, reporter: NullReporter, seconds: float) -> float:
        """Return about how many seconds an evaluation takes, without compilation.

        Up to four batches of the val split are measured after a first one; if there is only one, it is repeated.

        Args:
            state: State to evaluate.
            reporter: Reporter that shows the work.
            seconds: Time after which no other batch is measured.
        """
        if self.val_source is None:
            return 0.0
        times: list[float] = []

        def stop_after_some_batches(images: int) -> None:
            times.append(time.perf_counter())
            if len(times) > 1 and (len(times) == 5 or times[-1] - times[0] > seconds):
                raise Stopped

        with suppress(Stopped), reporter.show_evaluation(self.val_source):
            while True:
                self._predict_val(state, stop_after_some_batches)
        batches = math.ceil(len(self.val_source) / self.config.train.batch_size)
        return batches * float(np.median(np.diff(times)))

    def _save_in_new_folder(self, step: int, state: TrainState) -> NoReturn:
        """Save a checkpoint in a new folder in place of the run folder, which has disappeared, and raise UserError."""
        run_folder.write_config(self.workdir, self.config)
        with Checkpoints(self.workdir / "checkpoints", for_writing=True) as checkpoints:
            self._save(step, state, checkpoints, None)
        raise UserError(
            f"{self.workdir}: this run folder was moved or deleted during training. A new one has the checkpoint of "
            f"step {step}, without earlier checkpoints and logs. The same command resumes from it"
        )

    def _log(self, steps: list[DispatchedStep], reporter: NullReporter) -> None:
        seconds, waited = self.timer.end_lap()
        fetched = read_metrics(steps, self.train_source)
        mean = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
        last = steps[-1].step
        images = len(steps) * self.config.train.batch_size
        rate = float(compute_learning_rate(self.config.optimizer, steps[-1].point))
        reporter.report_train_metrics(last, mean, rate, images, seconds, waited)

    def _evaluate(self, step: int, state: TrainState, reporter: NullReporter, stop: StopRequest) -> float | None:
        """Evaluate on the val split, and return the metric by which the best checkpoint is chosen.

        A stop request interrupts the evaluation, except after the last step. The result is None if the evaluation was
        interrupted, or if there is no val split.
        """
        with self.length.measure("evaluation"):
            metrics: dict[str, Any] = {}
            detections = None
            if self.val_source is not None:
                with reporter.show_evaluation(self.val_source) as show_images:

                    def progress(images: int) -> None:
                        show_images(images)
                        if step != self.length.steps:
                            stop.raise_if_requested()

                    try:
                        detections = self._predict_val(state, progress)
                    except Stopped:
                        return None
                    metrics = compute_metrics(detections, self.val_source)
            reporter.report_evaluation(step, metrics, self.val_source, detections)
        self.length.note_evaluation(step)
        best, value = self.best_evaluation, metrics.get(BEST_METRIC)
        if metrics and (best is None or (value or 0) >= (best.metrics[BEST_METRIC] or 0)):
            self.best_evaluation = Evaluation(step, metrics)
        return value

    def _predict_val(self, state: TrainState, progress: Callable[[int], object]) -> list[ImageDetections]:
        """Return the detections in the val split; `predict_split` calls ``progress`` after each batch."""
        assert self.val_source is not None
        params, unreadable = state.eval_params, self.unreadable_val
        return predict_split(self.predict, params, self.val_source, self.config, self.mesh, progress, unreadable)

    def _save(self, step: int, state: TrainState, checkpoints: Checkpoints, best_metric: float | None) -> None:
        config = msgspec.to_builtins(self.config)
        with self.length.measure("checkpoint"):
            metadata = {"stream": self.batches.get_state(), "config": config, "length": self.length.get_state()}
            checkpoints.save(step, make_checkpoint_trees(state), metadata, best_metric)
