"""Tests of Winograd's convolution against plain loops in float64, and of the conditions for its use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssd_jax.models.layers import winograd

OPTIONS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "rhs_dilation": (1, 1)}


def convolve_by_loops(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            for a in range(3):
                for b in range(3):
                    total[:, i, j] += padded[:, i + a, j + b] @ kernel[a, b].astype(np.float64)
    return total


def make_random_array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


SLOW_SHAPES = [pytest.param(shape, marks=pytest.mark.slow) for shape in [(2, 2, 2), (1, 3, 4), (3, 19, 19)]]
SHAPES = [(1, 1, 1), (2, 5, 3), (1, 8, 7), *SLOW_SHAPES]


@pytest.mark.parametrize("shape", SHAPES)
def test_conv3x3_equals_a_plain_loop(shape):
    x, kernel = make_random_array(*shape, 6), make_random_array(3, 3, 6, 5)
    expected = convolve_by_loops(x, kernel)
    actual = winograd.conv3x3(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_conv3x3_gradients_equal_a_plain_loop(shape):
    """The sum of g * conv(x, k) is linear in x and in k. Each gradient entry is this sum for a unit vector."""
    x, kernel, g = make_random_array(*shape, 2), make_random_array(3, 3, 2, 3), make_random_array(*shape, 3)

    @jax.jit
    def compute_gradients(x, kernel):
        return jax.vjp(winograd.conv3x3, x, kernel)[1](jnp.asarray(g))

    x_gradient, kernel_gradient = compute_gradients(x, kernel)
    for unit in [(0, 0, 0, 0), (0, shape[1] - 1, shape[2] - 1, 1), (shape[0] - 1, shape[1] // 2, shape[2] // 2, 1)]:
        unit_array = np.zeros_like(x)
        unit_array[unit] = 1
        assert float(x_gradient[unit]) == pytest.approx(
            (convolve_by_loops(unit_array, kernel) * g).sum(), rel=1e-4, abs=1e-4
        ), unit
    for unit in np.ndindex(kernel.shape):
        unit_array = np.zeros_like(kernel)
        unit_array[unit] = 1
        assert float(kernel_gradient[unit]) == pytest.approx(
            (convolve_by_loops(x, unit_array) * g).sum(), rel=1e-4, abs=1e-3
        ), unit


def uses_winograd(
    x: tuple[int, ...], kernel: tuple[int, ...], strides=(1, 1), padding=((1, 1), (1, 1)), **options
) -> bool:
    """Return whether winograd.conv compiles to a program without a plain convolution on a CPU."""
    dtype = options.pop("dtype", jnp.float32)
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in (x, kernel)]
    lowered = jax.jit(lambda x, k: winograd.conv(x, k, strides, padding, **(OPTIONS | options))).lower(*arrays)
    return "convolution" not in lowered.as_text()


def test_conv_uses_winograd_only_for_wide_3x3_convolutions_of_stride_1():
    wide = (1, 4, 4, 512), (3, 3, 512, 512)
    assert uses_winograd(*wide)
    assert uses_winograd((1, 4, 4, 128), (3, 3, 128, 256)), "conv3_1"
    assert not uses_winograd((1, 4, 4, 128), (3, 3, 128, 128)), "conv2_2"
    assert not uses_winograd((1, 4, 4, 512), (3, 3, 512, 84)), "a predictor"
    assert not uses_winograd(*wide, dtype=jnp.bfloat16)
    assert not uses_winograd(*wide, strides=(2, 2))
    assert not uses_winograd(*wide, padding=((0, 0), (0, 0)))
    assert not uses_winograd(*wide, padding=((6, 6), (6, 6)), rhs_dilation=(6, 6)), "fc6"
    assert not uses_winograd((1, 4, 4, 512), (1, 1, 512, 512), padding=((0, 0), (0, 0)))


def test_conv_uses_the_plain_convolution_on_gpu_and_tpu():
    x, kernel = jax.ShapeDtypeStruct((1, 4, 4, 512), jnp.float32), jax.ShapeDtypeStruct((3, 3, 512, 512), jnp.float32)
    jitted = jax.jit(lambda x, k: winograd.conv(x, k, (1, 1), ((1, 1), (1, 1)), **OPTIONS))
    for platform in ("tpu", "cuda"):
        text = jitted.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == 1 and "dot_general" not in text


def test_conv_equals_conv_general_dilated():
    x, kernel = jnp.asarray(make_random_array(2, 5, 6, 512)), jnp.asarray(make_random_array(3, 3, 512, 512)) / 64
    plain = lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, **OPTIONS)
    np.testing.assert_allclose(
        winograd.conv(x, kernel, (1, 1), [(1, 1)] * 2, **OPTIONS), plain, rtol=0, atol=3e-6 * float(abs(plain).max())
    )
