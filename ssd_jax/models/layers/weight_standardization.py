"""Weight standardization: convolutions whose kernels have mean zero, for training from scratch.

After a ReLU, no feature is negative. The part that all features have in common then dominates the output of a
convolution. An optimizer that takes steps of equal size for every weight, such as Adam, changes this common part much
faster than the differences between locations. Kernels with mean zero ignore the common part.

Qiao, Wang, Liu, Shen and Yuille, Micro-Batch Training with Batch-Channel Normalization and Weight Standardization, 2019
(arXiv 1903.10520).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ssd_jax.models.layers import winograd
from ssd_jax.models.parameters import STANDARDIZATION_EPS


def center(kernel: Float[Array, "h w i o"]) -> Float[Array, "h w i o"]:
    """Return the kernel minus its mean, for each output channel."""
    return kernel - kernel.mean((0, 1, 2), keepdims=True)


def standardize(kernel: Float[Array, "h w i o"]) -> Float[Array, "h w i o"]:
    """Return the kernel with mean zero and variance 1 / fan_in for each output channel.

    A convolution with this kernel keeps the scale of its input.
    """
    kernel = center(kernel)
    return kernel / jnp.sqrt((kernel**2).sum((0, 1, 2), keepdims=True) + STANDARDIZATION_EPS)


def standardized_conv(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
    """Convolve with a standardized kernel. Use it as `nn.Conv(conv_general_dilated=standardized_conv)`."""
    return winograd.conv(x, _apply_in_float32(standardize, kernel), *args, **kwargs)


def centered_conv(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
    """Convolve with a centered kernel. The kernel is not rescaled, because predictors have to learn the scale."""
    return predictor_conv(x, _apply_in_float32(center, kernel), *args, **kwargs)


def predictor_conv(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """Convolve a feature map with a 3x3 kernel, one pixel of zero padding and stride 1.

    If the feature map is a single cell, only the center of the kernel meets it. XLA would compile a long program for
    the other eight products with zeros.
    """
    if x.shape[1:3] == (1, 1):
        kernel, padding = kernel[1:2, 1:2], [(0, 0), (0, 0)]
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _apply_in_float32(transform: Callable[[Array], Array], kernel: Array) -> Array:
    return transform(kernel.astype(jnp.float32)).astype(kernel.dtype)
