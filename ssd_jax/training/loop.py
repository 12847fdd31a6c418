"""The loop: batches to steps, and now and then a line in the log, a measurement, a checkpoint."""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from tqdm.auto import tqdm

from ssd_jax.config import Config
from ssd_jax.data.loader import train_batches
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.evaluation.evaluator import compute_metrics, predict_split
from ssd_jax.inference.program import PredictFn, make_predict_fn
from ssd_jax.report import pictures
from ssd_jax.runs.checkpoint import BEST_METRIC, Checkpoints
from ssd_jax.runs.log import RunLog
from ssd_jax.runtime import distributed, exit_message, sharding
from ssd_jax.runtime.stop import Stopped, StopRequest
from ssd_jax.training.optimizer import make_schedule
from ssd_jax.training.pretrained import Pretrained, initial_params, open_pretrained
from ssd_jax.training.train_step import (
    Metrics,
    TrainState,
    augment_batch,
    check_batch_size,
    init_state,
    make_train_step,
)

RESULTS_COLUMNS = ("voc_map_11point", "voc_map_area", "coco_ap", "coco_ap50")
"""Of what is measured on the val split, what results.csv keeps."""
DATA_WAIT_WARNING = 0.1
"""Of the time, from which on a wait for data is told."""


class DispatchedStep(NamedTuple):
    """A step whose metrics were not looked at yet."""

    step: int
    images: np.ndarray
    """Their positions in the source."""
    metrics: Metrics


def check_finite(pending: list[DispatchedStep], source: Source) -> list[dict[str, float]]:
    """Metrics of the steps as numbers. Raises UserError at the first loss that is not finite."""
    fetched = [{name: float(value) for name, value in p.metrics.items()} for p in pending]
    for p, metrics in zip(pending, fetched, strict=True):
        if not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["gradient_norm"]):
            ids = ", ".join(source.annotation(int(i)).image_id for i in p.images)
            raise UserError(
                f"step {p.step}: the loss is {metrics['loss']}, its gradient's norm {metrics['gradient_norm']}. "
                f"Images of this step: {ids}. Checkpoints before it are kept. Look at these images and their boxes; "
                "else try a lower --optimizer.learning_rate, --optimizer.warmup_steps 500 or --optimizer.clip_norm 10 "
                "in a new --workdir"
            )
    return fetched


class Trainer:
    """One run: what stays the same over its steps. ``run()`` goes to the end, or to where it is asked to stop."""

    def __init__(
        self,
        config: Config,
        workdir: Path,
        train_source: Source,
        val_source: Source | None,
        pretrained: Pretrained | None = None,
    ) -> None:
        self.config, self.workdir, self.pretrained = config, workdir, pretrained
        self.train_source, self.val_source = train_source, val_source
        self.mesh = sharding.make_mesh(fsdp=config.devices.fsdp)
        check_batch_size(config, self.mesh)
        self.schedule = make_schedule(config.optimizer, config.train.steps)
        self.train_step = make_train_step(config, self.mesh)
        self.detect: PredictFn = distributed.start_together(make_predict_fn(config, self.mesh))
        rows = sharding.local_rows(self.mesh, config.train.batch_size)
        self.batches = train_batches(train_source, config.data, config.train.batch_size, config.train.seed, rows)
        self.unreadable_val: dict[int, str] = {}
        self.seconds, self.waited = 0.0, 0.0
        """In which steps were made, and those of them in which no batch was there yet."""

    def run(self) -> int:
        """Returns the step it came to: train.steps, or less where SIGTERM asked to stop; that step is saved."""
        exit_message.set_exit_message(
            f"{exit_message.EXIT_REASON} "
            f"Checkpoints in {self.workdir} are kept: start all of them again with the same command, and "
            "they go on from the last one."
        )
        with (
            StopRequest() as self.stop,
            Checkpoints(self.workdir / "checkpoints", for_writing=True) as self.checkpoints,
        ):
            state = self.resume_or_init()
            start, steps = int(state.step), self.config.train.steps
            if start == 0:
                preview = self.preview()  # by all, who else would wait for the first one, and gloo for 30 s only
                if distributed.is_primary():
                    pictures.write_train_batch(self.workdir, self.train_source, *preview)
            with (
                self.open_log(start) as self.log,
                tqdm(
                    total=steps,
                    initial=start,
                    unit="step",
                    dynamic_ncols=True,
                    disable=start >= steps or not distributed.is_primary(),
                ) as self.bar,
            ):
                self.bar.set_postfix_str("compiling")
                last = self.train_steps(state, start)
        splits = ("train", self.train_source, self.batches.unreadable), ("val", self.val_source, self.unreadable_val)
        for split, source, unreadable in splits:
            if source is not None and unreadable:
                told = f"{len(unreadable)} of {len(source)} {split} images could not be used:"
                print(told, *unreadable.values(), sep="\n  ")
        if self.waited > DATA_WAIT_WARNING * self.seconds:
            print(
                f"The steps waited {self.waited:.0f} of {self.seconds:.0f} s for data. docs/scale.md tells what helps, "
                "under When input limits the speed."
            )
        return last

    def open_log(self, start: int) -> AbstractContextManager[RunLog | None]:
        """None where another process writes."""
        return RunLog(self.workdir, start) if distributed.is_primary() else nullcontext()

    def resume_or_init(self) -> TrainState:
        state = init_state(self.config, self.mesh)
        saved = self.checkpoints.resume(self.trees(state), self.config.model.class_names)
        if saved is None:
            params = initial_params(self.config, self.pretrained or open_pretrained(self.config), state.params)
            ema_params = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
            return state._replace(params=params, ema_params=ema_params)
        self.batches.set_state(saved.metadata["stream"])
        tqdm.write(f"Going on from the checkpoint of step {saved.step}.")
        ema_params = saved.trees["params"] if state.ema_params is not None else None
        params = saved.trees["training"].get("params", saved.trees["params"])
        # Laid out as a fresh one: a step on one device only would have the train step compiled twice.
        step = jax.device_put(np.int32(saved.step), state.step.sharding)
        return TrainState(step, params, saved.trees["training"]["opt_state"], ema_params)

    def trees(self, state: TrainState) -> dict[str, Any]:
        """As checkpoints hold them: ``params`` to detect with; the raw ones apart only where they differ."""
        training = {"opt_state": state.opt_state}
        if state.ema_params is not None:
            training["params"] = state.params
        return {"params": state.eval_params, "training": training}

    def preview(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The first batch, of several processes this one's share, as the network will see it: positions in the
        source; images, boxes, labels.

        The stream stays where it was.
        """
        place = self.batches.get_state()
        batch = next(self.batches)
        self.batches.set_state(place)
        return batch.index, augment_batch(self.config, batch, sharding.single_device_mesh())

    def train_steps(self, state: TrainState, start: int) -> int:
        train = self.config.train
        pending: list[DispatchedStep] = []
        clock, waited = time.perf_counter(), 0.0
        for step in range(start + 1, train.steps + 1):
            asked = time.perf_counter()
            batch = next(self.batches)
            waited += time.perf_counter() - asked
            state, metrics = self.train_step(state, sharding.shard_batch(batch, self.mesh))
            if pending:  # at most one step ahead of the device, so that batches do not pile up
                jax.block_until_ready(pending[-1].metrics)
            pending.append(DispatchedStep(step, batch.index[batch.valid], metrics))
            self.bar.update(1)
            last, stops = step == train.steps, self.stop.should_stop(step)
            evaluates = last or (train.eval_every and step % train.eval_every == 0 and not stops)
            saves = evaluates or stops or step % train.checkpoint_every == 0
            if saves or step % train.log_every == 0:
                jax.block_until_ready(metrics)  # the time of this step counts, too
                self.write_line(step, pending, time.perf_counter() - clock, waited)
                pending.clear()
            if saves:
                self.save(step, state, self.evaluate(step, state) if evaluates else None)
            if saves and (stops or self.stop.requested) and not last:  # asked after `reached`: the next step is saved
                return step
            if saves or step % train.log_every == 0:
                self.checkpoints.raise_if_failed()
                clock, waited = time.perf_counter(), 0.0
        return train.steps

    def write_line(self, step: int, pending: list[DispatchedStep], seconds: float, waited: float) -> None:
        fetched = check_finite(pending, self.train_source)
        self.seconds, self.waited = self.seconds + seconds, self.waited + waited
        if self.log is None:
            return
        mean = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
        rate = float(self.schedule(step - 1))
        speed = len(fetched) * self.config.train.batch_size / seconds
        self.log.log_step(
            step,
            {**mean, "learning_rate": rate, "images_per_second": speed, "waited_for_data": waited / seconds},
        )
        self.last_line = mean
        waits = f", waits for data {waited / seconds:.0%}" if waited > DATA_WAIT_WARNING * seconds else ""
        self.bar.set_postfix_str(
            f"loss {mean['loss']:.3f} (boxes {mean['loc_loss']:.3f}, classes {mean['conf_loss']:.3f}), "
            f"rate {rate:.2g}, {speed:.1f} images/s{waits}"
        )

    def evaluate(self, step: int, state: TrainState) -> float | None:
        """Measures on the val split, writes a row and pictures; returns what the best checkpoint is chosen by.

        A run that is asked to stop meanwhile leaves it, but for the measurement at its end.
        """
        measured: dict[str, Any] = {}
        if self.val_source is not None:
            leave = (lambda images: None) if step == self.config.train.steps else self.stop.raise_if_requested
            try:
                found = predict_split(
                    self.detect, state.eval_params, self.val_source, self.config, self.mesh, leave, self.unreadable_val
                )
            except Stopped:
                return None
            measured = compute_metrics(found, self.val_source)
        if self.log is not None:
            row = self.last_line | {name: measured[name] for name in RESULTS_COLUMNS if name in measured}
            if self.val_source is not None:
                pictures.write_truth_and_predictions(self.workdir, "val", self.val_source, found)
                tqdm.write(
                    f"step {step}: val mAP@0.5 {_percent(row['voc_map_area'])} (area), "
                    f"{_percent(row['voc_map_11point'])} (11-point), COCO AP {_percent(row['coco_ap'])}"
                )
            self.log.log_evaluation(step, row)
            pictures.write_curves(self.workdir)
        return measured.get(BEST_METRIC)

    def save(self, step: int, state: TrainState, best_metric: float | None) -> None:
        metadata = {"stream": self.batches.get_state(), "config": msgspec.to_builtins(self.config)}
        self.checkpoints.save(step, self.trees(state), metadata, best_metric)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
