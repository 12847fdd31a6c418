"""The loop, and the one room that knows the whole pipeline: batch -> augment -> network -> match -> loss -> update."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int32, UInt8
from tqdm.auto import tqdm

from ssd_jax import execution, report, run_folder, transfer
from ssd_jax.augment import augment
from ssd_jax.checkpoint import BEST_METRIC, Checkpoints
from ssd_jax.config import Config
from ssd_jax.data.loader import Batch, train_batches
from ssd_jax.data.source import Source
from ssd_jax.default_boxes import make_default_boxes
from ssd_jax.errors import UserError
from ssd_jax.evaluation import DetectionProgram, detect_source, make_detection_program, measure
from ssd_jax.loss import multibox_loss
from ssd_jax.matching import match
from ssd_jax.optimizer import freeze, make_optimizer, make_schedule
from ssd_jax.ssd import SSD

Params = dict[str, Any]
Metrics = dict[str, Array]


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Int32[Array, ""]
    params: Params
    opt_state: optax.OptState
    average: Params | None
    """Exponential moving average of the parameters; None where train.ema_decay is 0."""

    @property
    def best_params(self) -> Params:
        """The parameters to detect with."""
        return self.params if self.average is None else self.average


def init_state(config: Config, mesh: Mesh) -> TrainState:
    """Fresh parameters, the same on every device."""

    def init() -> TrainState:
        # The default generator is unrolled for each kernel, which compiles far longer than rbg on a CPU.
        key = jax.random.key(config.train.seed, impl="rbg")
        size = config.model.image_size
        params = SSD(config.model).init(key, jnp.zeros((1, size, size, 3)))["params"]
        opt_state = make_optimizer(config.optimizer, config.train.steps).init(params)
        average = jax.tree.map(jnp.copy, params) if config.train.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, opt_state, average)

    return jax.jit(init, out_shardings=execution.replicated(mesh))()


def make_augmentation(config: Config) -> Callable:
    """The augmentation of one slot of a batch; its randomness is that of (seed, epoch, index) alone."""

    def augment_one(
        canvas: UInt8[Array, "h w 3"],
        height: Int32[Array, ""],
        width: Int32[Array, ""],
        boxes: Float[Array, "g 4"],
        labels: Int32[Array, " g"],
        index: Int32[Array, ""],
        epoch: Int32[Array, ""],
    ) -> tuple[Array, Array, Array]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.train.seed), epoch), index)
        size, mean = config.model.image_size, config.model.mean
        return augment(key, canvas, size, boxes, labels, config.augment, height=height, width=width, fill=mean)

    return augment_one


def augmentation_arrays(batch: Batch) -> tuple:
    return (batch.canvas, batch.height, batch.width, batch.gt_boxes, batch.gt_labels, batch.index, batch.epoch)


def augment_batch(config: Config, batch: Batch, mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch as the network sees it: images (b, size, size, 3) of 0 to 255, boxes, labels, fetched to the host."""
    arrays = execution.split_over_devices(augmentation_arrays(batch), mesh)
    return execution.fetch(_augment_arrays(config, mesh, arrays))


@partial(jax.jit, static_argnums=(0, 1))
def _augment_arrays(config: Config, mesh: Mesh, arrays: tuple) -> tuple[Array, Array, Array]:
    """Compiled once for a config, however often it is called."""
    return execution.per_image(make_augmentation(config), mesh)(*arrays)


def make_train_step(config: Config, mesh: Mesh) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The jitted step. The state it is given is used up; the loss and its N are of the whole batch."""
    default_boxes = make_default_boxes(config.model.default_boxes)
    variances = config.model.default_boxes.variances
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    augment_images = execution.per_image(make_augmentation(config), mesh)
    match_images = execution.per_image(
        lambda boxes, labels: match(boxes, labels, default_boxes, variances, config.match.iou_threshold), mesh
    )

    def loss_fn(params: Params, images: Array, targets: Any, valid: Bool[Array, " b"]) -> tuple[Array, Metrics]:
        params = freeze(params, config.optimizer.freeze_blocks)
        predictions: Any = SSD(config.model).apply({"params": params}, images)
        return multibox_loss(
            predictions.offsets,
            predictions.logits,
            targets,
            valid,
            neg_pos_ratio=config.loss.neg_pos_ratio,
            min_negatives=config.loss.min_negatives,
            location_weight=config.loss.location_weight,
        )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        images, boxes, labels = augment_images(*augmentation_arrays(batch))
        targets = match_images(boxes, labels)
        (loss, parts), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.params, images, targets, batch.valid)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = moving_average(state.average, params, state.step, config.train.ema_decay)
        metrics = {"loss": loss, **parts, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, params, opt_state, average), metrics

    return jax.jit(train_step, donate_argnums=0, compiler_options=execution.compiler_options())


def moving_average(average: Params | None, params: Params, step: Int32[Array, ""], decay: float) -> Params | None:
    """average + (params - average) * (1 - d), where d grows to ``decay`` so that the first steps do not linger."""
    if average is None:
        return None
    d = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: a + (p - a) * (1 - d), average, params)  # what is frozen stays, bit for bit


class Pending(NamedTuple):
    """A step whose metrics were not looked at yet."""

    step: int
    images: np.ndarray
    """Their positions in the source."""
    metrics: Metrics


def check_finite(pending: list[Pending], source: Source) -> list[dict[str, float]]:
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


class Loop:
    """One run: what stays the same over its steps. ``run()`` goes to the end."""

    def __init__(self, config: Config, workdir: Path, train_source: Source, val_source: Source | None) -> None:
        self.config, self.workdir = config, workdir
        self.train_source, self.val_source = train_source, val_source
        self.mesh = execution.data_mesh()
        execution.check_batch_size(config.train.batch_size, self.mesh)
        self.schedule = make_schedule(config.optimizer, config.train.steps)
        self.train_step = make_train_step(config, self.mesh)
        self.detect: DetectionProgram = make_detection_program(config, self.mesh)
        self.batches = train_batches(train_source, config.data, config.train.batch_size, config.train.seed)
        self.unreadable_val: dict[int, str] = {}

    def run(self) -> None:
        with Checkpoints(self.workdir / "checkpoints", for_writing=True) as self.checkpoints:
            state = self.resume_or_init()
            start, steps = int(state.step), self.config.train.steps
            if start == 0:
                report.write_train_batch(self.workdir, self.train_source, *self.preview())
            with (
                run_folder.RunLog(self.workdir, start) as self.log,
                tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, disable=start >= steps) as self.bar,
            ):
                self.bar.set_postfix_str("compiling")
                self.go_on(state, start)
        splits = ("train", self.train_source, self.batches.unreadable), ("val", self.val_source, self.unreadable_val)
        for split, source, unreadable in splits:
            if source is not None and unreadable:
                told = f"{len(unreadable)} of {len(source)} {split} images could not be used:"
                print(told, *unreadable.values(), sep="\n  ")

    def resume_or_init(self) -> TrainState:
        state = init_state(self.config, self.mesh)
        latest = self.checkpoints.latest
        if latest is None:
            params = transfer.starting_params(self.config, state.params)
            average = None if state.average is None else jax.tree.map(jnp.copy, params)
            return state._replace(params=params, average=average)
        saved = self.checkpoints.restore(latest, self.trees(state), self.config.model.class_names)
        self.batches.set_state(saved.metadata["stream"])
        tqdm.write(f"Going on from the checkpoint of step {latest}.")
        average = saved.trees["params"] if state.average is not None else None
        params = saved.trees["training"].get("params", saved.trees["params"])
        # Laid out as a fresh one: a step on one device only would have the train step compiled twice.
        step = jax.device_put(np.int32(latest), state.step.sharding)
        return TrainState(step, params, saved.trees["training"]["opt_state"], average)

    def trees(self, state: TrainState) -> dict[str, Any]:
        """As checkpoints hold them: ``params`` to detect with; the raw ones apart only where they differ."""
        training = {"opt_state": state.opt_state}
        if state.average is not None:
            training["params"] = state.params
        return {"params": state.best_params, "training": training}

    def preview(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The first batch as the network will see it: positions in the source; images, boxes, labels.

        The stream stays where it was.
        """
        place = self.batches.get_state()
        batch = next(self.batches)
        self.batches.set_state(place)
        return batch.index, augment_batch(self.config, batch, self.mesh)

    def go_on(self, state: TrainState, start: int) -> None:
        train = self.config.train
        pending: list[Pending] = []
        clock, waited = time.perf_counter(), 0.0
        for step in range(start + 1, train.steps + 1):
            asked = time.perf_counter()
            batch = next(self.batches)
            waited += time.perf_counter() - asked
            state, metrics = self.train_step(state, execution.split_over_devices(batch, self.mesh))
            if pending:  # at most one step ahead of the device, so that batches do not pile up
                jax.block_until_ready(pending[-1].metrics)
            pending.append(Pending(step, batch.index[batch.valid], metrics))
            self.bar.update(1)
            last = step == train.steps
            evaluates = last or (train.eval_every and step % train.eval_every == 0)
            saves = evaluates or step % train.checkpoint_every == 0
            if saves or step % train.log_every == 0:
                jax.block_until_ready(metrics)  # the time of this step counts, too
                self.write_line(step, pending, time.perf_counter() - clock, waited)
                pending.clear()
            if saves:
                self.save(step, state, self.evaluate(step, state) if evaluates else None)
            if saves or step % train.log_every == 0:
                clock, waited = time.perf_counter(), 0.0

    def write_line(self, step: int, pending: list[Pending], seconds: float, waited: float) -> None:
        fetched = check_finite(pending, self.train_source)
        mean = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
        rate = float(self.schedule(step - 1))
        speed = len(fetched) * self.config.train.batch_size / seconds
        self.log.line(
            step,
            {**mean, "learning_rate": rate, "images_per_second": speed, "waited_for_data": waited / seconds},
        )
        self.last_line = mean
        self.bar.set_postfix_str(
            f"loss {mean['loss']:.3f} (boxes {mean['loc_loss']:.3f}, classes {mean['conf_loss']:.3f}), "
            f"rate {rate:.2g}, {speed:.1f} images/s"
        )

    def evaluate(self, step: int, state: TrainState) -> float | None:
        """Measures on the val split, writes a row and pictures; returns what the best checkpoint is chosen by."""
        row: dict[str, float | None] = dict(self.last_line)
        if self.val_source is not None:
            found = detect_source(
                self.detect, state.best_params, self.val_source, self.config, self.mesh, unreadable=self.unreadable_val
            )
            measured = measure(found, self.val_source)
            row |= {name: measured[name] for name in ("voc_map_11point", "voc_map_area", "coco_ap", "coco_ap50")}
            report.write_truth_and_predictions(self.workdir, "val", self.val_source, found)
            tqdm.write(
                f"step {step}: val mAP@0.5 {_percent(row['voc_map_area'])} (area), "
                f"{_percent(row['voc_map_11point'])} (11-point), COCO AP {_percent(row['coco_ap'])}"
            )
        self.log.row(step, row)
        report.write_curves(self.workdir)
        return row.get(BEST_METRIC)

    def save(self, step: int, state: TrainState, best_metric: float | None) -> None:
        metadata = {"stream": self.batches.get_state(), "config": msgspec.to_builtins(self.config)}
        self.checkpoints.save(step, self.trees(state), metadata, best_metric)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
