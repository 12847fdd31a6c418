"""Standardized kernels against their definition in float64 numpy."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssd_jax.models.layers.weight_standardization import centred_conv, standardized_conv


def kernel_and_bias() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0.3, 2.0, (3, 3, 4, 5)), rng.normal(size=5)


def mean_zero(kernel: np.ndarray) -> np.ndarray:
    return np.stack([k - k.mean() for k in np.moveaxis(kernel, -1, 0)], axis=-1)


def mean_zero_and_unit(kernel: np.ndarray) -> np.ndarray:
    """Variance 1 / 36 of 36 numbers of mean zero: their squares sum up to 1."""
    return np.stack([k / np.linalg.norm(k) for k in np.moveaxis(mean_zero(kernel), -1, 0)], axis=-1)


@pytest.mark.parametrize(
    ("convolution", "expected"), [(standardized_conv, mean_zero_and_unit), (centred_conv, mean_zero)]
)
def test_is_a_plain_convolution_with_the_expected_kernel(convolution: Callable, expected: Callable) -> None:
    kernel, bias = kernel_and_bias()
    x = np.random.default_rng(1).normal(2.0, 1.0, (2, 7, 6, 4))
    layer = nn.Conv(5, (3, 3), padding=1, conv_general_dilated=convolution)
    ours = layer.apply({"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}, x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    plain = np.zeros((2, 7, 6, 5))
    for row in range(7):
        for column in range(6):
            window = padded[:, row : row + 3, column : column + 3]
            plain[:, row, column] = np.einsum("bhwi,hwio->bo", window, expected(kernel)) + bias
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)


def test_what_all_features_have_in_common_is_not_seen() -> None:
    kernel, bias = kernel_and_bias()
    params = {"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    for convolution in (standardized_conv, centred_conv):
        layer = nn.Conv(5, (3, 3), padding="VALID", conv_general_dilated=convolution)
        np.testing.assert_allclose(layer.apply(params, x + 5), layer.apply(params, x), atol=2e-4)


def test_a_constant_kernel_has_a_finite_gradient() -> None:
    params = {"params": {"kernel": jnp.ones((3, 3, 4, 5)), "bias": jnp.zeros(5)}}
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    layer = nn.Conv(5, (3, 3), conv_general_dilated=standardized_conv)
    gradient = jax.grad(lambda p: (layer.apply(p, x) ** 2).sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
