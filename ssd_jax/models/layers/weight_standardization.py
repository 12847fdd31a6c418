"""Convolutions for training from scratch: the weights of each output channel have mean zero.

After a ReLU every feature is positive. Their common part then dominates what a convolution sees, and
an optimizer whose steps are of one length per weight, as Adam's are, moves that part far faster than
anything that tells one place from another. Weights of mean zero do not see it.

Qiao, Wang, Liu, Shen and Yuille, Micro-Batch Training with Batch-Channel Normalization and Weight
Standardization, 2019 (arXiv 1903.10520).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ssd_jax.models.layers import winograd

_EPS = 1e-8


def centre(kernel: Float[Array, "h w i o"]) -> Float[Array, "h w i o"]:
    """Mean zero over all that one output channel sees."""
    return kernel - kernel.mean((0, 1, 2), keepdims=True)


def standardize(kernel: Float[Array, "h w i o"]) -> Float[Array, "h w i o"]:
    """Mean zero, and variance 1 / fan_in, so that the output is of the input's scale."""
    kernel = centre(kernel)
    return kernel / jnp.sqrt((kernel**2).sum((0, 1, 2), keepdims=True) + _EPS)


def standardized_conv(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
    """For ``nn.Conv(conv_general_dilated=...)``: standardizes the parameter at each use."""
    return winograd.conv(x, _in_float32(standardize, kernel), *args, **kwargs)


def centred_conv(x: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
    """The same with a kernel that is centred only: for predictors, whose scale is to be learned."""
    return jax.lax.conv_general_dilated(x, _in_float32(centre, kernel), *args, **kwargs)


def _in_float32(change: Callable[[Array], Array], kernel: Array) -> Array:
    return change(kernel.astype(jnp.float32)).astype(kernel.dtype)
