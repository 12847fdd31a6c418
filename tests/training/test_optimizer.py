"""Tests of learning rate schedules and of parameter updates, also against a plain implementation of Caffe's solver."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssd_jax.config import Optimizer
from ssd_jax.training.optimizer import freeze, make_optimizer, make_schedule, make_schedule_point


def test_multistep_schedule_equals_that_of_caffe() -> None:
    """Caffe's rate is base_lr * gamma ^ (number of milestones reached), so it is 1e-4 from step 80000."""
    schedule = make_schedule(Optimizer(), 120_000)
    for step, rate in [(0, 1e-3), (79_999, 1e-3), (80_000, 1e-4), (99_999, 1e-4), (100_000, 1e-5), (119_999, 1e-5)]:
        assert schedule(step) == pytest.approx(rate, rel=1e-5), step


def test_warmup_is_linear_and_does_not_shift_the_milestones() -> None:
    schedule = make_schedule(Optimizer(warmup_steps=10, milestones=(50,)), 100)
    rates = [float(schedule(s)) for s in range(60)]
    np.testing.assert_allclose(rates[:10], 1e-4 * np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(rates[10:50], 1e-3, rtol=1e-5)
    np.testing.assert_allclose(rates[50:], 1e-4, rtol=1e-5)


def test_cosine_schedule_ends_at_zero() -> None:
    schedule = make_schedule(Optimizer(schedule="cosine", warmup_steps=10), 110)
    np.testing.assert_allclose([float(schedule(s)) for s in (9, 10, 60, 110)], [1e-3, 1e-3, 5e-4, 0], atol=1e-9)


def update_like_caffe(parameters: dict, gradients: list[dict], config: Optimizer) -> dict:
    """Return parameters after updates by ClipGradients, Regularize and ComputeUpdateValue of Caffe's SGD solver."""
    history = {name: np.zeros_like(value) for name, value in parameters.items()}
    parameters = {name: value.copy() for name, value in parameters.items()}
    for step, gradient in enumerate(gradients):
        rate = config.learning_rate * config.gamma ** sum(step >= m for m in config.milestones)
        length = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        clip = min(1.0, config.clip_norm / length) if config.clip_norm else 1.0
        for name, value in parameters.items():
            rate_mult, decay_mult = (config.bias_lr_multiplier, 0.0) if name.endswith("bias") else (1.0, 1.0)
            g = clip * gradient[name] + config.weight_decay * decay_mult * value
            history[name] = config.momentum * history[name] + rate * rate_mult * g
            parameters[name] = value - history[name]
    return parameters


@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_sgd_equals_the_solver_of_caffe(clip_norm: float | None) -> None:
    """The learning rate drops at two milestones. Biases have no weight decay and twice the learning rate."""
    rng = np.random.default_rng(0)
    config = Optimizer(learning_rate=0.1, milestones=(3, 5), weight_decay=0.05, clip_norm=clip_norm)
    shapes = {"conv/kernel": (3, 2), "conv/bias": (2,), "norm/scale": (4,)}
    draw = lambda: {name: rng.normal(size=shape) for name, shape in shapes.items()}  # noqa: E731
    start, gradients = draw(), [draw() for _ in range(7)]

    def make_parameter_tree(arrays: dict) -> dict:
        return {
            "conv": {"kernel": jnp.asarray(arrays["conv/kernel"]), "bias": jnp.asarray(arrays["conv/bias"])},
            "norm": {"scale": jnp.asarray(arrays["norm/scale"])},
        }

    params = make_parameter_tree(start)
    state = make_optimizer(config, make_schedule_point(config, 0, 7)).init(params)
    for step, gradient in enumerate(gradients):
        optimizer = make_optimizer(config, make_schedule_point(config, step, 7))
        updates, state = optimizer.update(make_parameter_tree(gradient), state, params)
        params = optax.apply_updates(params, updates)
    expected = make_parameter_tree(update_like_caffe(start, gradients, config))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), params, expected)


def test_adamw_decays_kernels_only() -> None:
    config = Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5, milestones=())
    params = {"conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}}
    optimizer = make_optimizer(config, make_schedule_point(config, 0, 10))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv"]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["conv"]["bias"], 0)
    np.testing.assert_array_equal(updates["norm"]["scale"], 0)


def test_muon_updates_hidden_kernels_and_adam_updates_all_other_parameters() -> None:
    """Muon's first step is the semi-orthogonal matrix nearest to the gradient, scaled to an RMS of 0.2 x learning rate.

    The singular value decomposition gives the expected matrix. Five Newton-Schulz iterations only bring the singular
    values into the range from 0.7 to 1.2.
    """
    config = Optimizer(name="muon", learning_rate=1.0, adam_lr_multiplier=0.1, weight_decay=0.0, schedule="cosine")
    gradient = {
        "vgg": {"conv1_1": {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 8)), "bias": jnp.ones(8)}},
        "conv4_3_norm_mbox_conf": {"kernel": jax.random.normal(jax.random.key(1), (3, 3, 4, 8))},
    }
    params = jax.tree.map(jnp.ones_like, gradient)
    optimizer = make_optimizer(config, make_schedule_point(config, 0, 10))
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    step = -np.asarray(updates["vgg"]["conv1_1"]["kernel"]).reshape(36, 8)
    u, _, v = np.linalg.svd(np.asarray(gradient["vgg"]["conv1_1"]["kernel"]).reshape(36, 8), full_matrices=False)
    # The update is scaled so that an orthogonal 36 x 8 matrix, whose RMS is 1 / 6, has an RMS of 0.2.
    singular = np.linalg.svd(step / (0.2 * 6), compute_uv=False)
    assert singular.min() > 0.6 and singular.max() < 1.3
    assert np.sum(step * (u @ v)) / np.linalg.norm(step) / np.linalg.norm(u @ v) > 0.98
    for rest in (updates["vgg"]["conv1_1"]["bias"], updates["conv4_3_norm_mbox_conf"]["kernel"]):
        # With Nesterov's momentum, Adam's first step is 1.47 x learning rate, whatever the size of the gradient is.
        np.testing.assert_allclose(np.abs(rest), 0.1474, rtol=1e-3)


def test_muon_decays_hidden_kernels_only() -> None:
    config = Optimizer(name="muon", learning_rate=0.1, weight_decay=0.5, schedule="cosine")
    params = {
        "conv1_1": {"kernel": jnp.ones((3, 3, 4, 8)), "bias": jnp.ones(8)},
        "fc7_mbox_loc": {"kernel": jnp.ones((3, 3, 4, 8))},
    }
    optimizer = make_optimizer(config, make_schedule_point(config, 0, 10))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv1_1"]["kernel"], -0.05, rtol=1e-5)
    np.testing.assert_array_equal(updates["conv1_1"]["bias"], 0)
    np.testing.assert_array_equal(updates["fc7_mbox_loc"]["kernel"], 0)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_freeze_blocks_does_not_change_updates_of_the_other_layers(name: str) -> None:
    rng = np.random.default_rng(0)
    shapes = {
        "vgg": {
            **{layer: {"kernel": (3, 3, 4, 8), "bias": (8,)} for layer in ("conv1_1", "conv1_2", "conv2_2", "conv3_1")},
            "conv1_2_group_norm": {"scale": (8,)},
        },
        "conv6_1": {"kernel": (1, 1, 8, 4), "bias": (4,)},
        "conv1_1": {"bias": (3,)},  # not a layer of VGG16
    }
    draw = lambda: jax.tree.map(  # noqa: E731
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    params, gradient = draw(), draw()
    moved = {}
    for blocks in (0, 2):
        config = Optimizer(name=name, learning_rate=0.1, freeze_blocks=blocks)
        optimizer = make_optimizer(config, make_schedule_point(config, 0, 10))
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        moved[blocks] = optax.apply_updates(params, updates)
    for layer, arrays in params["vgg"].items():
        expected = moved[0]["vgg"][layer] if layer == "conv3_1" else arrays
        jax.tree.map(np.testing.assert_array_equal, moved[2]["vgg"][layer], expected)
    for layer in ("conv6_1", "conv1_1"):
        jax.tree.map(np.testing.assert_array_equal, moved[2][layer], moved[0][layer])
    jax.tree.map(lambda a, b: np.testing.assert_((np.asarray(a) != np.asarray(b)).all()), moved[0], params)


def test_freeze_makes_the_gradient_of_frozen_parameters_zero() -> None:
    params = {"vgg": {"conv1_1": {"bias": jnp.ones(2)}, "conv2_1": {"bias": jnp.ones(2)}}}
    gradient = jax.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(freeze(p, 1))))(params)
    assert gradient["vgg"]["conv1_1"]["bias"].tolist() == [0, 0]
    assert gradient["vgg"]["conv2_1"]["bias"].tolist() == [1, 1]
