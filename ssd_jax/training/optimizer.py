"""Optimizers and learning rate schedules: SGD as in Caffe for the paper's configs, and Muon and AdamW."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float32
from optax.contrib import MuonDimensionNumbers, muon

from ssd_jax.config import Optimizer
from ssd_jax.models.parameters import BLOCKS


class SchedulePoint(NamedTuple):
    """Place of a training step in the learning rate schedule, and the length of the schedule.

    The values are arguments of the compiled training step. Therefore it is not compiled again if the number of steps
    changes, even during a run.
    """

    step: Float32[Array | np.ndarray | np.floating, ""]
    """Number of steps done, counted from 0. During a run whose length changes, it may be a fraction."""
    angle_per_step: Float32[Array | np.ndarray | np.floating, ""]
    """Angle of cosine decay, in radians per step."""
    milestones: Float32[Array | np.ndarray, " m"]
    """Steps at which the learning rate drops."""


def make_schedule_point(config: Optimizer, step: float, steps: int | None) -> SchedulePoint:
    """Return the place of a step in the schedule as NumPy arrays.

    Args:
        config: The optimizer section of a config.
        step: Number of steps done, counted from 0.
        steps: Number of training steps, after which cosine decay reaches 0. None: so large that the learning rate does
            not decay, as long as it is not known.
    """
    if steps is None:
        milestones = [float(m) if m >= 1 else np.inf for m in config.milestones]
        return SchedulePoint(np.float32(step), np.float32(0), np.array(milestones, np.float32))
    # The compiler turns a division by a constant into this product. The schedule has the same bits with both.
    angle = np.float32(np.pi) * (np.float32(1) / np.float32(max(1, steps - config.warmup_steps)))
    milestones = [float(m) if m >= 1 else round(m * steps) for m in config.milestones]
    return SchedulePoint(np.float32(min(step, steps)), angle, np.array(milestones, np.float32))


def compute_learning_rate(config: Optimizer, point: SchedulePoint) -> Float32[Array, ""]:
    """Return the learning rate: a linear warm-up, followed by drops at milestones or by cosine decay to 0.

    The first step of the warm-up uses ``learning_rate / warmup_steps``. Caffe has no warm-up (``warmup_steps`` 0).

    Args:
        config: The optimizer section of a config.
        point: Place of the step in the schedule.
    """
    rate, warmup_steps = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        main = rate * (0.5 * (1 + jnp.cos((point.step - warmup_steps) * point.angle_per_step)))
    else:
        main = jnp.float32(rate)
        for milestone in point.milestones:
            main = jnp.where(point.step < milestone, main, main * config.gamma)
    if warmup_steps == 0:
        return main
    warmup = optax.linear_schedule(rate / warmup_steps, rate, max(1, warmup_steps - 1))
    return jnp.where(point.step < warmup_steps, warmup(point.step), main)


def make_schedule(config: Optimizer, steps: int) -> optax.Schedule:
    """Return the learning rate schedule as a function from the step, counted from 0, to the learning rate.

    Args:
        config: The optimizer section of a config.
        steps: Number of training steps, after which cosine decay reaches 0.
    """
    return lambda step: compute_learning_rate(config, make_schedule_point(config, step, steps))


def _get_leaf_name(path: tuple) -> str:
    return path[-1].key


def _make_name_mask(name: str) -> Callable[[optax.Params], optax.Params]:
    """Return a function that makes a mask of a tree of parameters, with True for each array with this name."""
    return lambda params: jax.tree_util.tree_map_with_path(lambda path, _: _get_leaf_name(path) == name, params)


def _make_non_bias_mask(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: _get_leaf_name(path) != "bias", params)


def _choose_muon_dimension_numbers(params: optax.Params) -> optax.Params:
    """Return the dimension numbers of each kernel that Muon updates, and None for all other arrays.

    Muon updates the kernels of backbone and extras, as matrices with the output channels as columns. It is meant for
    hidden layers, so Adam updates the predictors, which are the output layers.
    """

    def choose_dimension_numbers(path: tuple, leaf: jax.Array) -> MuonDimensionNumbers | None:
        hidden = leaf.ndim == 4 and not any("mbox" in key.key for key in path)
        return MuonDimensionNumbers((0, 1, 2), (3,)) if hidden else None

    return jax.tree_util.tree_map_with_path(choose_dimension_numbers, params)


def _is_frozen(path: tuple, blocks: int) -> bool:
    layers = {name for block in BLOCKS[:blocks] for name, _ in block}
    return path[0].key == "vgg" and path[1].key.removesuffix("_group_norm") in layers


def freeze(params: optax.Params, blocks: int) -> optax.Params:
    """Return the parameters with ``stop_gradient`` applied to the first ``blocks`` blocks of VGG16.

    Therefore XLA does not compute the gradients of these blocks.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if _is_frozen(path, blocks) else leaf, params
    )


def make_optimizer(config: Optimizer, point: SchedulePoint) -> optax.GradientTransformation:
    """Return the optimizer that a config selects, for unscaled gradients of the loss and a place in the schedule.

    ``sgd`` is Caffe's SGDSolver (src/caffe/solvers/sgd_solver.cpp). It clips the gradient, adds weight decay times the
    parameter (not for biases), multiplies by the learning rate (for biases, times ``bias_lr_multiplier``, which is 2 in
    Caffe's configs), and only then accumulates the momentum. Therefore a drop of the learning rate does not rescale
    the accumulated momentum. optax.sgd accumulates before it multiplies by the learning rate.

    ``muon`` (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) makes the updates of the kernels of
    backbone and extras nearly orthogonal matrices. They are scaled to the root mean square of a typical Adam update
    (Liu et al., 2025, arXiv 2502.16982). Adam updates all other parameters.

    Args:
        config: The optimizer section of a config. The first ``config.freeze_blocks`` blocks of VGG16 are not updated.
        point: Place of the next update in the learning rate schedule. The state does not depend on it.
    """
    trained = _make_optimizer(config, point)
    if config.freeze_blocks == 0:
        return trained

    def label_params(params: optax.Params) -> optax.Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if _is_frozen(path, config.freeze_blocks) else "trained", params
        )

    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, label_params)


def _make_optimizer(config: Optimizer, point: SchedulePoint) -> optax.GradientTransformation:
    # As functions of the count of updates, although they ignore it, so that checkpoints of earlier versions fit.
    schedule = lambda count: compute_learning_rate(config, point)  # noqa: E731
    clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    if config.name == "adamw":
        adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_make_name_mask("kernel"))
        return optax.chain(*clip, adamw)
    if config.name == "muon":
        adam = dataclasses.replace(config, learning_rate=config.learning_rate * config.adam_lr_multiplier)
        muon_and_adam = muon(
            schedule,
            consistent_rms=0.2,
            weight_decay=config.weight_decay,
            adam_learning_rate=lambda count: compute_learning_rate(adam, point),
            muon_weight_dimension_numbers=_choose_muon_dimension_numbers,
        )
        return optax.chain(*clip, muon_and_adam)
    return optax.chain(
        *clip,
        optax.add_decayed_weights(config.weight_decay, mask=_make_non_bias_mask),
        optax.masked(optax.scale(config.bias_lr_multiplier), _make_name_mask("bias")),
        optax.scale_by_learning_rate(schedule),
        optax.trace(decay=config.momentum),
    )
