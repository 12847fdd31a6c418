"""Tests of GroupNorm against its formula in float64, and of its hand-written gradient against that of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssd_jax.models.layers.group_norm import GroupNorm


def compute_group_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, group_size: int) -> np.ndarray:
    """Return the normalised input, computed in float64 and one group at a time."""
    x, y = x.astype(np.float64), np.empty(x.shape)
    for image in range(x.shape[0]):
        for start in range(0, x.shape[-1], group_size):
            group = x[image, :, :, start : start + group_size]
            y[image, :, :, start : start + group_size] = (group - group.mean()) / np.sqrt(group.var() + 1e-6)
    return y * scale + bias


@pytest.fixture
def random_arrays() -> tuple[jax.Array, ...]:
    """Return random inputs of GroupNorm (x, scale and bias) and a random gradient of the output."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3 * jax.random.normal(keys[0], (2, 9, 7, 24)) + 1
    return x, *(jax.random.normal(key, (24,)) for key in keys[1:3]), jax.random.normal(keys[3], x.shape)


def apply_norm(module: nn.Module, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return module.apply({"params": {"scale": scale, "bias": bias}}, x)


def test_group_norm_equals_the_formula(random_arrays: tuple[jax.Array, ...]) -> None:
    x, scale, bias, _ = random_arrays
    expected = compute_group_norm(*(np.asarray(a) for a in (x, scale, bias)), 8)
    np.testing.assert_allclose(apply_norm(GroupNorm(8), x, scale, bias), expected, rtol=1e-4, atol=1e-5)


def test_group_norm_gradient_equals_flax(random_arrays: tuple[jax.Array, ...]) -> None:
    *inputs, g = random_arrays
    flax_norm = nn.GroupNorm(num_groups=None, group_size=8)
    actual = jax.vjp(lambda *a: apply_norm(GroupNorm(8), *a), *inputs)[1](g)
    expected = jax.vjp(lambda *a: apply_norm(flax_norm, *a), *inputs)[1](g)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5)


def test_group_norm_of_a_constant_image_is_finite() -> None:
    x, ones = jnp.full((1, 4, 4, 8), 250.0), jnp.ones(8)
    y, vjp = jax.vjp(lambda x: apply_norm(GroupNorm(8), x, ones, 0 * ones), x)
    np.testing.assert_allclose(y, 0, atol=0.3)
    assert all(np.isfinite(leaf).all() for leaf in vjp(jnp.ones_like(x)))


def test_group_norm_computes_statistics_in_float32(random_arrays: tuple[jax.Array, ...]) -> None:
    x, scale, bias, _ = random_arrays
    y = apply_norm(GroupNorm(8, jnp.dtype("bfloat16")), x.astype(jnp.bfloat16), scale, bias)
    assert y.dtype == jnp.bfloat16
    expected = compute_group_norm(
        np.asarray(x.astype(jnp.bfloat16), np.float32), np.asarray(scale), np.asarray(bias), 8
    )
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=1e-2, atol=1e-2)
