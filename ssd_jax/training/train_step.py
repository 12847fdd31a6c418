"""A step of training, which knows the whole pipeline: batch -> augment -> network -> match -> loss -> update."""

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
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.augmentation import augment
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.loss import multibox_loss
from ssd_jax.ops.matching import Targets, match
from ssd_jax.runtime import compilation, sharding
from ssd_jax.runtime.distributed import start_together
from ssd_jax.training.optimizer import freeze, make_optimizer
from ssd_jax.training.reproducible import make_ordered_step

Params = dict[str, Any]
Metrics = dict[str, Array]


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Int32[Array, ""]
    params: Params
    opt_state: optax.OptState
    ema_params: Params | None
    """Exponential moving average of the parameters; None where train.ema_decay is 0."""

    @property
    def eval_params(self) -> Params:
        """The parameters to detect with."""
        return self.params if self.ema_params is None else self.ema_params


def init_state(config: Config, mesh: Mesh) -> TrainState:
    """Fresh parameters, the same on whatever devices."""
    state = jax.jit(partial(_fresh_state, config), out_shardings=sharding.replicated(mesh))()
    # Apart: rbg, told to draw slices, draws other numbers.
    return jax.jit(lambda state: state, out_shardings=sharding.fsdp_sharding(state, mesh))(state)


def state_shapes(config: Config, mesh: Mesh) -> TrainState:
    """As `init_state` makes it, without its numbers: shapes, types, and where it lies."""
    shapes = jax.eval_shape(partial(_fresh_state, config))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        sharding.fsdp_sharding(shapes, mesh),
    )


def _fresh_state(config: Config) -> TrainState:
    # The default generator is unrolled for each kernel, which compiles far longer than rbg on a CPU.
    key = jax.random.key(config.train.seed, impl="rbg")
    size = config.model.image_size
    params = SSD(config.model).init(key, jnp.zeros((1, size, size, 3)))["params"]
    opt_state = make_optimizer(config.optimizer, config.train.steps).init(params)
    ema_params = jax.tree.map(jnp.copy, params) if config.train.ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, ema_params)


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
    arrays = sharding.shard_batch(augmentation_arrays(batch), mesh)
    return sharding.fetch(_augment_arrays(config, mesh, arrays))


@partial(jax.jit, static_argnums=(0, 1))
def _augment_arrays(config: Config, mesh: Mesh, arrays: tuple) -> tuple[Array, Array, Array]:
    """Compiled once for a config, however often it is called."""
    return sharding.map_images(make_augmentation(config), mesh)(*arrays)


def check_batch_size(config: Config, mesh: Mesh) -> None:
    """Raises UserError where the batch, or its parts, can't be dealt out evenly."""
    size, parts, shards = config.train.batch_size, config.train.accumulation_steps, config.devices.virtual_shards
    if shards % mesh.size:
        raise UserError(f"devices.virtual_shards is {shards}, which {mesh.size} devices can't share evenly")
    if size % (mesh.size * parts):
        in_parts = f" in {parts} accumulation steps" if parts > 1 else ""
        raise UserError(
            f"train.batch_size is {size}, which {mesh.size} devices can't share evenly{in_parts}: take a multiple of "
            f"{mesh.size * parts}"
        )


def make_train_step(config: Config, mesh: Mesh) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled step. The state it is given is used up; the loss and its N are of the whole batch."""
    options = compilation.compiler_options(mesh, deterministic=config.devices.deterministic)
    if config.devices.virtual_shards:
        sums_of, apply = partial(_sums_of_shard, config), partial(_apply_sums, config)
        return make_ordered_step(sums_of, apply, config.devices.virtual_shards, mesh, options)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        new_state, metrics = _apply(config, state, *_gradient_of_batch(config, mesh, state.params, batch))
        return jax.lax.with_sharding_constraint(new_state, sharding.fsdp_sharding(new_state, mesh)), metrics

    return start_together(jax.jit(train_step, donate_argnums=0, compiler_options=options))


def _apply(config: Config, state: TrainState, loss: Metrics, gradient: Params) -> tuple[TrainState, Metrics]:
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = ema_update(state.ema_params, params, state.step, config.train.ema_decay)
    return TrainState(state.step + 1, params, opt_state, ema_params), loss | {
        "gradient_norm": optax.tree.norm(gradient)
    }


def _gradient_of_batch(config: Config, mesh: Mesh, params: Params, batch: Batch) -> tuple[Metrics, Params]:
    augment_images = sharding.map_images(make_augmentation(config), mesh)
    match_images = sharding.map_images(_make_matching(config), mesh)
    images, boxes, labels = augment_images(*augmentation_arrays(batch))
    targets = match_images(boxes, labels)
    # Known before the network runs, so that the parts of the batch simply add up.
    normalizer = jnp.maximum(((targets.labels > 0) & batch.valid[:, None]).sum(), 1)
    params = jax.lax.with_sharding_constraint(params, sharding.replicated(mesh))
    gradient_of = partial(_gradient, config, params, normalizer)
    return accumulate_microbatches(gradient_of, (images, targets, batch.valid), config.train.accumulation_steps)


def _sums_of_shard(config: Config, params: Params, batch: Batch) -> tuple[Metrics, Params]:
    """Of a part of the batch on one device; N, which only the whole has, is divided by later."""
    images, boxes, labels = jax.vmap(make_augmentation(config))(*augmentation_arrays(batch))
    targets = jax.vmap(_make_matching(config))(boxes, labels)
    losses, gradient = _gradient(config, params, jnp.int32(1), images, targets, batch.valid)
    return jax.tree.map(lambda x: x.astype(jnp.float32), losses), gradient  # counts too: exact below 2**24


def _apply_sums(config: Config, state: TrainState, sums: tuple[Metrics, Params]) -> tuple[TrainState, Metrics]:
    losses, gradient = sums
    count = losses.pop("num_positives")
    losses, gradient = jax.tree.map(lambda x: x / jnp.maximum(count, 1), (losses, gradient))
    return _apply(config, state, losses | {"num_positives": count.astype(jnp.int32)}, gradient)


def _make_matching(config: Config) -> Callable[[Array, Array], Targets]:
    layout = config.model.default_boxes
    default_boxes = make_default_boxes(layout)
    return lambda boxes, labels: match(boxes, labels, default_boxes, layout.variances, config.match)


def _gradient(
    config: Config,
    params: Params,
    normalizer: Int32[Array, ""],
    images: Float[Array, "b h w 3"],
    targets: Targets,
    valid: Bool[Array | np.ndarray, " b"],
) -> tuple[Metrics, Params]:
    """Loss, its parts, and the gradient, of images whose default boxes are matched; all divided by normalizer."""

    def loss_of(params: Params) -> tuple[Array, Metrics]:
        params = freeze(params, config.optimizer.freeze_blocks)
        predictions: Any = SSD(config.model).apply({"params": params}, images)
        return multibox_loss(
            predictions.offsets, predictions.logits, targets, config.loss, valid=valid, normalizer=normalizer
        )

    (loss, parts), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    return {"loss": loss, **parts}, gradient


def accumulate_microbatches(f: Callable[..., Any], batch: tuple, parts: int) -> Any:
    """The sum of ``f(*part)`` over equal parts of a batch, one after another.

    Part i has images i, i + parts, ...: of each device's share as many, so that none has to move.
    """
    if parts == 1:
        return f(*batch)
    dealt = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    shapes = jax.eval_shape(f, *jax.tree.map(lambda x: x[0], dealt))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, f(*part)), None), zeros, dealt)[0]


def ema_update(ema_params: Params | None, params: Params, step: Int32[Array, ""], decay: float) -> Params | None:
    """Return ema + (params - ema) * (1 - d); d grows to ``decay``, so that the first steps do not linger."""
    if ema_params is None:
        return None
    d = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: a + (p - a) * (1 - d), ema_params, params)  # what is frozen stays, bit for bit
