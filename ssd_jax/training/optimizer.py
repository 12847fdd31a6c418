"""From config.Optimizer to optax: Caffe's SGD for the paper's recipes, Muon or AdamW for training from scratch."""

import dataclasses
from collections.abc import Callable

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from ssd_jax.config import Optimizer
from ssd_jax.models.vgg import BLOCKS


def make_schedule(config: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate by step, counted from 0: a linear warm-up, then multistep or cosine to 0 at ``steps``.

    The warm-up's first step already has rate / warmup_steps; Caffe has none (warmup_steps = 0).
    """
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(config.learning_rate, max(1, steps - config.warmup_steps))
    else:
        boundaries = {step - config.warmup_steps: config.gamma for step in config.milestones}
        main = optax.piecewise_constant_schedule(config.learning_rate, boundaries)
    if config.warmup_steps == 0:
        return main
    first = config.learning_rate / config.warmup_steps
    warmup = optax.linear_schedule(first, config.learning_rate, max(1, config.warmup_steps - 1))
    return optax.join_schedules([warmup, main], [config.warmup_steps])


def _name(path: tuple) -> str:
    return path[-1].key


def _where(name: str) -> Callable[[optax.Params], optax.Params]:
    """Mask: True for the leaves of that name."""
    return lambda params: jax.tree_util.tree_map_with_path(lambda path, _: _name(path) == name, params)


def _not_bias(params: optax.Params) -> optax.Params:
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path) != "bias", params)


def _matrices(params: optax.Params) -> optax.Params:
    """What Muon turns: kernels of trunk and extras, as matrices from all that a channel sees to the channels.

    Predictors are the last layer, which Muon leaves to Adam."""

    def matrix(path: tuple, leaf: jax.Array) -> MuonDimensionNumbers | None:
        hidden = leaf.ndim == 4 and not any("mbox" in key.key for key in path)
        return MuonDimensionNumbers((0, 1, 2), (3,)) if hidden else None

    return jax.tree_util.tree_map_with_path(matrix, params)


def _is_frozen(path: tuple, blocks: int) -> bool:
    layers = {name for block in BLOCKS[:blocks] for name, _ in block}
    return path[0].key == "vgg" and path[1].key.removesuffix("_group_norm") in layers


def freeze(params: optax.Params, blocks: int) -> optax.Params:
    """``params``, of which the first blocks of VGG16 have no gradient, so that none is computed."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.stop_gradient(leaf) if _is_frozen(path, blocks) else leaf, params
    )


def make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """The transformation that takes raw gradients of the loss; layers of config.freeze_blocks it leaves alone."""
    trained = _make_optimizer(config, steps)
    if config.freeze_blocks == 0:
        return trained

    def labels(params: optax.Params) -> optax.Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if _is_frozen(path, config.freeze_blocks) else "trained", params
        )

    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def _make_optimizer(config: Optimizer, steps: int) -> optax.GradientTransformation:
    """``sgd`` is Caffe's SGDSolver (src/caffe/solvers/sgd_solver.cpp): clip, add weight decay times the
    parameter (not for biases), multiply by the rate (biases twice), and only then accumulate the
    momentum, so that a drop of the rate leaves the history as it was. optax.sgd accumulates first.

    ``muon`` (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) makes the update of each
    kernel of trunk and extras nearly orthogonal, with the root mean square that an Adam step has
    (Liu et al., 2025, arXiv 2502.16982); Adam does the rest.
    """
    schedule = make_schedule(config, steps)
    clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    if config.name == "adamw":
        adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_where("kernel"))
        return optax.chain(*clip, adamw)
    if config.name == "muon":
        rest = make_schedule(
            dataclasses.replace(config, learning_rate=config.learning_rate * config.adam_lr_multiplier), steps
        )
        turned = muon(
            schedule,
            consistent_rms=0.2,
            weight_decay=config.weight_decay,
            adam_learning_rate=rest,
            muon_weight_dimension_numbers=_matrices,
        )
        return optax.chain(*clip, turned)
    return optax.chain(
        *clip,
        optax.add_decayed_weights(config.weight_decay, mask=_not_bias),
        optax.masked(optax.scale(config.bias_lr_multiplier), _where("bias")),
        optax.scale_by_learning_rate(schedule),
        optax.trace(decay=config.momentum),
    )
