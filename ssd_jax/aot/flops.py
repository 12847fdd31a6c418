"""FLOPs that a program asks for, counted in its jaxpr: convolutions and matrix products.

A multiply-add is two. What a compiler adds or saves is not in it, nor elementwise work; and taps of a
convolution that lie on padding, or between the elements of a dilated input, are left out, since nothing has to
be computed for them.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr


def count_flops(jaxpr: ClosedJaxpr, devices: int) -> float:
    """FLOPs of one device, where the program's arrays are split evenly over that many.

    Within ``shard_map`` shapes are those of one device already. A loop of unknown length counts once, of a
    conditional the costlier branch.
    """
    return _count(jaxpr.jaxpr, 1 / devices)


def _count(jaxpr: Jaxpr, share: float) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        inner = [_count(sub, 1.0 if eqn.primitive.name == "shard_map" else share) for sub in _jaxprs(eqn.params)]
        match eqn.primitive.name:
            case "conv_general_dilated":
                total += share * _convolution(eqn)
            case "dot_general":
                total += share * _product(eqn)
            case "scan":
                total += eqn.params["length"] * sum(inner)
            case "cond":
                total += max(inner)
            case _:
                total += sum(inner)
    return total


def _jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _product(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(eqn: Any) -> float:
    params = eqn.params
    image, kernel = (v.aval.shape for v in eqn.invars)
    out = eqn.outvars[0].aval.shape
    image_axes, kernel_axes, out_axes = params["dimension_numbers"]
    pairs = 1
    for axis, (low, _) in enumerate(params["padding"], start=2):
        pairs *= valid_taps(
            image[image_axes[axis]],
            kernel[kernel_axes[axis]],
            out[out_axes[axis]],
            stride=params["window_strides"][axis - 2],
            low_padding=low,
            image_dilation=params["lhs_dilation"][axis - 2],
            kernel_dilation=params["rhs_dilation"][axis - 2],
        )
    return 2.0 * pairs * out[out_axes[0]] * out[out_axes[1]] * kernel[kernel_axes[1]]


def valid_taps(
    image: int, kernel: int, out: int, *, stride: int, low_padding: int, image_dilation: int, kernel_dilation: int
) -> int:
    """Pairs of an output and a tap along one axis that meet an element of the image, all six lengths in elements."""
    places = np.arange(out)[:, None] * stride + np.arange(kernel) * kernel_dilation - low_padding
    inside = (places >= 0) & (places <= (image - 1) * image_dilation)
    return int((inside & (places % image_dilation == 0)).sum())
