"""The training step: augmentation, matching, prediction, loss and gradient, and update of the parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int32, UInt8

from ssd_jax.config import Config
from ssd_jax.data.loader import Batch
from ssd_jax.errors import UserError
from ssd_jax.models.parameters import Params
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.augmentation import augment
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.loss import multibox_loss
from ssd_jax.ops.matching import Targets, match
from ssd_jax.runtime import compilation, sharding
from ssd_jax.runtime.distributed import start_together
from ssd_jax.training.optimizer import SchedulePoint, freeze, make_optimizer, make_schedule_point
from ssd_jax.training.reproducible import make_reproducible_step

Metrics = dict[str, Array]
"""Scalars of a step by name: ``loss``, ``loc_loss``, ``conf_loss``, ``num_positives`` and ``gradient_norm``."""
MapImages = Callable[[Callable], Callable]
"""Type of a function such as `jax.vmap`, which turns a function of one image into a function of a batch."""
Prepare = Callable[[Batch, MapImages], tuple[Array, Targets]]
LossFn = Callable[..., tuple[Array, Metrics]]
GradFn = Callable[..., tuple[Metrics, Params]]


class TrainState(NamedTuple):
    """The arrays that each training step updates."""

    step: Int32[Array, ""]
    """Number of training steps done so far."""
    params: Params
    opt_state: optax.OptState
    ema_params: Params | None
    """Exponential moving average of the parameters; None if ``train.ema_decay`` is 0."""

    @property
    def eval_params(self) -> Params:
        """Parameters for evaluation and inference: the moving average if there is one."""
        return self.params if self.ema_params is None else self.ema_params


UpdateFn = Callable[[TrainState, Metrics, Params, SchedulePoint], tuple[TrainState, Metrics]]
TrainStepFn = Callable[[TrainState, Batch, SchedulePoint], tuple[TrainState, Metrics]]


# ---- the state ----


def init_state(config: Config, mesh: Mesh) -> TrainState:
    """Return the initial training state. The values of its parameters depend on ``train.seed``, not on the mesh."""
    state = jax.jit(partial(_make_initial_state, config), out_shardings=sharding.make_replicated_sharding(mesh))()
    # A separate program shards the state, because the rbg generator draws other numbers if its output is sharded.
    return jax.jit(lambda state: state, out_shardings=sharding.make_fsdp_sharding(state, mesh))(state)


def compute_state_shapes(config: Config, mesh: Mesh) -> TrainState:
    """Return the shape, dtype and sharding of each array of the initial state, without computing the state."""
    shapes = jax.eval_shape(partial(_make_initial_state, config))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        sharding.make_fsdp_sharding(shapes, mesh),
    )


def _make_initial_state(config: Config) -> TrainState:
    # rbg compiles far faster on a CPU than the default generator, whose code is unrolled for each kernel.
    key = jax.random.key(config.train.seed, impl="rbg")
    size = config.model.image_size
    params = SSD(config.model).init(key, jnp.zeros((1, size, size, 3)))["params"]
    opt_state = make_optimizer(config.optimizer, make_schedule_point(config.optimizer, 0, None)).init(params)
    ema_params = jax.tree.map(jnp.copy, params) if config.train.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, ema_params)


# ---- the step ----


def check_batch_size(config: Config, device_count: int) -> None:
    """Raise a UserError if the batch or the virtual shards cannot be split evenly over the devices.

    Raises:
        UserError: If ``train.batch_size`` is not a multiple of the device count times ``train.accumulation_steps``, or
            if ``devices.virtual_shards`` is not a multiple of the number of devices. The message names the option.
    """
    size, parts, shards = config.train.batch_size, config.train.accumulation_steps, config.devices.virtual_shards
    if shards % device_count:
        raise UserError(
            f"devices.virtual_shards is {shards}, but must be a multiple of the number of devices, {device_count}"
        )
    if size % (device_count * parts):
        in_parts = f" times {parts} accumulation steps" if parts > 1 else ""
        raise UserError(
            f"train.batch_size is {size}, but must be a multiple of {device_count * parts}: {device_count} "
            f"devices{in_parts}"
        )


def make_train_step(config: Config, mesh: Mesh) -> TrainStepFn:
    """Return the jitted training step.

    Args:
        config: Config of the run, with class names.
        mesh: Devices to train on.

    Returns:
        A function of a training state, of a batch from `sharding.shard_batch` and of the place of the step in the
        learning rate schedule, from `make_schedule_point`. It returns the next state and the metrics of the whole
        batch. It donates the buffers of the old state, which must not be used afterwards.
    """
    prepare = make_prepare_fn(config)
    grad_fn = make_grad_fn(make_loss_fn(config), config.train.accumulation_steps)
    update = make_update_fn(config)
    options = compilation.compiler_options(mesh, deterministic=config.devices.deterministic)
    if config.devices.virtual_shards:
        return make_reproducible_step(prepare, grad_fn, update, config.devices.virtual_shards, mesh, options)

    def train_step(state: TrainState, batch: Batch, point: SchedulePoint) -> tuple[TrainState, Metrics]:
        images, targets = prepare(batch, partial(sharding.map_images, mesh=mesh))
        params = jax.lax.with_sharding_constraint(state.params, sharding.make_replicated_sharding(mesh))
        metrics, grads = grad_fn(params, images, targets, batch.valid, count_positives(targets, batch.valid))
        new_state, metrics = update(state, metrics, grads, point)
        return jax.lax.with_sharding_constraint(new_state, sharding.make_fsdp_sharding(new_state, mesh)), metrics

    return start_together(jax.jit(train_step, donate_argnums=0, compiler_options=options))


def make_prepare_fn(config: Config) -> Prepare:
    """Return a function that augments the images of a batch and matches their objects to the default boxes.

    Returns:
        A function of a batch and of a function such as `jax.vmap`, which turns a function of one image into a function
        of a batch. It returns augmented images (b, size, size, 3), 0 to 255, and the targets of the loss.
    """
    augment_image = make_augmentation(config)
    boxes_config = config.model.default_boxes
    default_boxes = make_default_boxes(boxes_config)

    def match_image(boxes: Float[Array, "g 4"], labels: Int32[Array, " g"]) -> Targets:
        return match(boxes, labels, default_boxes, boxes_config.variances, config.match)

    def prepare(batch: Batch, map_images: MapImages) -> tuple[Array, Targets]:
        images, boxes, labels = map_images(augment_image)(*get_augmentation_arrays(batch))
        return images, map_images(match_image)(boxes, labels)

    return prepare


def make_loss_fn(config: Config) -> LossFn:
    """Return the loss function of the network for images and targets from `make_prepare_fn`.

    Returns:
        A function of the parameters, the images, the targets, the validity of each image, and the normalizer, by which
        the sums of the loss are divided. It returns the loss and the metrics of `multibox_loss`.
    """
    model = SSD(config.model)

    def loss_fn(
        params: Params,
        images: Float[Array, "b h w 3"],
        targets: Targets,
        valid: Bool[Array | np.ndarray, " b"],
        normalizer: Int32[Array, ""],
    ) -> tuple[Array, Metrics]:
        params = freeze(params, config.optimizer.freeze_blocks)
        predictions: Any = model.apply({"params": params}, images)
        return multibox_loss(
            predictions.offsets, predictions.logits, targets, config.loss, valid=valid, normalizer=normalizer
        )

    return loss_fn


def make_grad_fn(loss_fn: LossFn, accumulation_steps: int = 1) -> GradFn:
    """Return a function that computes the loss of a batch and its gradient, in several equal parts of the batch.

    Args:
        loss_fn: Result of `make_loss_fn`.
        accumulation_steps: Number of parts, which are processed one after another. Their results are added.

    Returns:
        A function with the arguments of ``loss_fn``. It returns the metrics, including ``loss``, and the gradient.
    """

    def grad_fn(params: Params, *batch_and_normalizer: Any) -> tuple[Metrics, Params]:
        *batch, normalizer = batch_and_normalizer

        def part_grad_fn(*part: Any) -> tuple[Metrics, Params]:
            (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, *part, normalizer)
            return {"loss": loss, **metrics}, grads

        return accumulate_microbatches(part_grad_fn, tuple(batch), accumulation_steps)

    return grad_fn


def make_update_fn(config: Config) -> UpdateFn:
    """Return a function that updates the training state with a gradient.

    Returns:
        A function of the state, the metrics, the gradient, and the place of the step in the learning rate schedule. It
        returns the next state, and the metrics with ``gradient_norm`` added.
    """

    def update(state: TrainState, metrics: Metrics, grads: Params, point: SchedulePoint) -> tuple[TrainState, Metrics]:
        optimizer = make_optimizer(config.optimizer, point)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = update_ema(state.ema_params, params, state.step, config.train.ema_decay)
        new_state = TrainState(state.step + 1, params, opt_state, ema_params)
        return new_state, metrics | {"gradient_norm": optax.tree.norm(grads)}

    return update


def count_positives(targets: Targets, valid: Bool[Array | np.ndarray, " b"]) -> Int32[Array, ""]:
    """Return the number of default boxes in a batch that are matched to an object, or 1 if there are none.

    This is N in the paper. It is known before the network runs, so the loss of each part of a batch can be divided by
    the N of the whole batch.
    """
    return jnp.maximum(((targets.labels > 0) & valid[:, None]).sum(), 1)


def accumulate_microbatches(f: Callable[..., Any], batch: tuple, parts: int) -> Any:
    """Return the sum of ``f(*part)`` over equal parts of a batch, which are processed one after another.

    Part i contains images i, i + parts, ..., so that no image moves to another device.
    """
    if parts == 1:
        return f(*batch)
    stacked = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(f, *jax.tree.map(lambda x: x[0], stacked))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, f(*part)), None), zeros, stacked)[0]


def update_ema(ema_params: Params | None, params: Params, step: Int32[Array, ""], decay: float) -> Params | None:
    """Return the updated moving average ``ema + (params - ema) * (1 - d)``, or None if there is no moving average.

    d = min(decay, (1 + step) / (10 + step)), where ``step`` is the number of steps done before this one. d is small at
    first, so that the initial parameters lose their weight quickly.
    """
    if ema_params is None:
        return None
    d = jnp.minimum(decay, (1 + step) / (10 + step))
    # In this form of the equation, the average of frozen parameters stays exactly the same.
    return jax.tree.map(lambda ema, p: ema + (p - ema) * (1 - d), ema_params, params)


# ---- augmentation ----


def make_augmentation(config: Config) -> Callable[..., tuple[Array, Array, Array]]:
    """Return a function that augments one image. It draws its random numbers from ``train.seed``, epoch and index.

    Returns:
        A function of the arrays of one image, as in `get_augmentation_arrays`. It returns the augmented image
        (size, size, 3), 0 to 255, its normalised xyxy boxes (g, 4) and its labels (g).
    """

    def augment_image(
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

    return augment_image


def get_augmentation_arrays(batch: Batch) -> tuple:
    """Return the fields of a batch that are the arguments of a function from `make_augmentation`."""
    return (batch.canvas, batch.height, batch.width, batch.gt_boxes, batch.gt_labels, batch.index, batch.epoch)


def augment_batch(config: Config, batch: Batch, mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the images, boxes and labels of a batch, augmented as in the training step.

    Returns:
        Images (b, size, size, 3), 0 to 255, normalised xyxy boxes (b, g, 4), and labels (b, g), as NumPy arrays.
    """
    arrays = sharding.shard_batch(get_augmentation_arrays(batch), mesh)
    return sharding.fetch(_augment_arrays(config, mesh, arrays))


@partial(jax.jit, static_argnums=(0, 1))
def _augment_arrays(config: Config, mesh: Mesh, arrays: tuple) -> tuple[Array, Array, Array]:
    """Return the augmented arrays of a batch. The program is compiled once for each config and mesh."""
    return sharding.map_images(make_augmentation(config), mesh)(*arrays)
