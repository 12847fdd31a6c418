"""Schedules and updates against a plain restatement of Caffe's solver."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssd_jax.config import Optimizer
from ssd_jax.optimizer import make_optimizer, make_schedule


def test_multistep_is_caffes() -> None:
    """lr = base * gamma ^ (number of steps reached): the step numbered 80000 is the first at 1e-4."""
    schedule = make_schedule(Optimizer(), 120_000)
    for step, rate in [(0, 1e-3), (79_999, 1e-3), (80_000, 1e-4), (99_999, 1e-4), (100_000, 1e-5), (119_999, 1e-5)]:
        assert schedule(step) == pytest.approx(rate, rel=1e-5), step


def test_warmup_rises_to_the_rate_and_keeps_the_milestones() -> None:
    schedule = make_schedule(Optimizer(warmup_steps=10, milestones=(50,)), 100)
    rates = [float(schedule(s)) for s in range(60)]
    np.testing.assert_allclose(rates[:10], 1e-4 * np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(rates[10:50], 1e-3, rtol=1e-5)
    np.testing.assert_allclose(rates[50:], 1e-4, rtol=1e-5)


def test_cosine_ends_at_zero() -> None:
    schedule = make_schedule(Optimizer(schedule="cosine", warmup_steps=10), 110)
    np.testing.assert_allclose([float(schedule(s)) for s in (9, 10, 60, 110)], [1e-3, 1e-3, 5e-4, 0], atol=1e-9)


def caffe_sgd(parameters: dict, gradients: list[dict], config: Optimizer, steps: int) -> dict:
    """ClipGradients, Regularize, ComputeUpdateValue of sgd_solver.cpp, a parameter at a time."""
    history = {name: np.zeros_like(value) for name, value in parameters.items()}
    parameters = {name: value.copy() for name, value in parameters.items()}
    for step, gradient in enumerate(gradients):
        rate = config.learning_rate * config.gamma ** sum(step >= m for m in config.milestones)
        length = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        clip = min(1.0, config.clip_norm / length) if config.clip_norm else 1.0
        for name, value in parameters.items():
            rate_mult, decay_mult = (config.bias_rate, 0.0) if name.endswith("bias") else (1.0, 1.0)
            g = clip * gradient[name] + config.weight_decay * decay_mult * value
            history[name] = config.momentum * history[name] + rate * rate_mult * g
            parameters[name] = value - history[name]
    return parameters


@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_sgd_is_caffes(clip_norm: float | None) -> None:
    """Over a drop of the rate; decay on kernels and on L2Norm's scale, none on biases; biases at twice the rate."""
    rng = np.random.default_rng(0)
    config = Optimizer(learning_rate=0.1, milestones=(3, 5), weight_decay=0.05, clip_norm=clip_norm)
    shapes = {"conv/kernel": (3, 2), "conv/bias": (2,), "norm/scale": (4,)}
    draw = lambda: {name: rng.normal(size=shape) for name, shape in shapes.items()}  # noqa: E731
    start, gradients = draw(), [draw() for _ in range(7)]

    def nest(flat: dict) -> dict:
        return {
            "conv": {"kernel": jnp.asarray(flat["conv/kernel"]), "bias": jnp.asarray(flat["conv/bias"])},
            "norm": {"scale": jnp.asarray(flat["norm/scale"])},
        }

    optimizer = make_optimizer(config, 7)
    params = nest(start)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(nest(gradient), state, params)
        params = optax.apply_updates(params, updates)
    expected = nest(caffe_sgd(start, gradients, config, 7))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), params, expected)


def test_adamw_decays_kernels_only() -> None:
    config = Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5, milestones=())
    params = {"conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}}
    optimizer = make_optimizer(config, 10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv"]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["conv"]["bias"], 0)
    np.testing.assert_array_equal(updates["norm"]["scale"], 0)
