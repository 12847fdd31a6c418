"""Tests of standardized and centered convolutions against their definition, computed with NumPy in float64."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssd_jax.models.layers.weight_standardization import centered_conv, predictor_conv, standardized_conv


def make_kernel_and_bias() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(0.3, 2.0, (3, 3, 4, 5)), rng.normal(size=5)


def center_kernel(kernel: np.ndarray) -> np.ndarray:
    return np.stack([k - k.mean() for k in np.moveaxis(kernel, -1, 0)], axis=-1)


def standardize_kernel(kernel: np.ndarray) -> np.ndarray:
    """Return the kernel with mean 0 and variance 1 / 36 for each output channel, which has 36 inputs."""
    return np.stack([k / np.linalg.norm(k) for k in np.moveaxis(center_kernel(kernel), -1, 0)], axis=-1)


@pytest.mark.parametrize(
    ("convolution", "transform"), [(standardized_conv, standardize_kernel), (centered_conv, center_kernel)]
)
def test_convolutions_equal_a_plain_loop_with_a_transformed_kernel(convolution: Callable, transform: Callable) -> None:
    kernel, bias = make_kernel_and_bias()
    x = np.random.default_rng(1).normal(2.0, 1.0, (2, 7, 6, 4))
    layer = nn.Conv(5, (3, 3), padding=1, conv_general_dilated=convolution)
    actual = layer.apply({"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}, x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 7, 6, 5))
    for row in range(7):
        for column in range(6):
            window = padded[:, row : row + 3, column : column + 3]
            expected[:, row, column] = np.einsum("bhwi,hwio->bo", window, transform(kernel)) + bias
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_ignore_a_constant_added_to_all_features() -> None:
    kernel, bias = make_kernel_and_bias()
    params = {"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    for convolution in (standardized_conv, centered_conv):
        layer = nn.Conv(5, (3, 3), padding="VALID", conv_general_dilated=convolution)
        np.testing.assert_allclose(layer.apply(params, x + 5), layer.apply(params, x), atol=2e-4)


def test_standardized_conv_has_a_finite_gradient_for_a_constant_kernel() -> None:
    params = {"params": {"kernel": jnp.ones((3, 3, 4, 5)), "bias": jnp.zeros(5)}}
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    layer = nn.Conv(5, (3, 3), conv_general_dilated=standardized_conv)
    gradient = jax.grad(lambda p: (layer.apply(p, x) ** 2).sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_predictor_conv_on_a_single_cell_equals_a_padded_convolution() -> None:
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(3, 3, 4, 5)).astype(np.float32), rng.normal(size=(2, 1, 1, 4)).astype(np.float32)
    layer = nn.Conv(5, (3, 3), padding=1, use_bias=False, conv_general_dilated=predictor_conv)
    actual = layer.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(actual[:, 0, 0], x[:, 0, 0] @ kernel[1, 1], rtol=1e-5, atol=1e-6)
