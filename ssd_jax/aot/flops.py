"""Count the FLOPs of the convolutions and matrix products in a jaxpr.

A multiply-add counts as two FLOPs. Elementwise operations are not counted. Multiplications by padding, or by the zeros
between the elements of a dilated input, are left out, since they need not be computed. The operations are those of the
program before compilation; a compiler may add or remove some.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr


def count_flops(jaxpr: ClosedJaxpr, devices: int) -> float:
    """Return the FLOPs that one device computes in a program.

    Args:
        jaxpr: Program whose arrays are split evenly over the devices. Inside a ``shard_map``, shapes are already those
            of one device.
        devices: Number of devices.

    Returns:
        The number of FLOPs. The body of a loop of unknown length counts once. If a conditional has several branches,
        only the branch with the most FLOPs counts.
    """
    return _count_jaxpr(jaxpr.jaxpr, 1 / devices)


def _count_jaxpr(jaxpr: Jaxpr, share: float) -> float:
    """Return the FLOPs of a jaxpr on a device that computes the fraction ``share`` of each operation."""
    total = 0.0
    for eqn in jaxpr.eqns:
        inner = [
            _count_jaxpr(sub, 1.0 if eqn.primitive.name == "shard_map" else share)
            for sub in _find_inner_jaxprs(eqn.params)
        ]
        match eqn.primitive.name:
            case "conv_general_dilated":
                total += share * _count_convolution_flops(eqn)
            case "dot_general":
                total += share * _count_product_flops(eqn)
            case "scan":
                total += eqn.params["length"] * sum(inner)
            case "cond":
                total += max(inner)
            case _:
                total += sum(inner)
    return total


def _find_inner_jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _count_product_flops(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _count_convolution_flops(eqn: Any) -> float:
    params = eqn.params
    image, kernel = (v.aval.shape for v in eqn.invars)
    out = eqn.outvars[0].aval.shape
    image_axes, kernel_axes, out_axes = params["dimension_numbers"]
    pairs = 1
    for axis, (low, _) in enumerate(params["padding"], start=2):
        pairs *= count_valid_taps(
            image[image_axes[axis]],
            kernel[kernel_axes[axis]],
            out[out_axes[axis]],
            stride=params["window_strides"][axis - 2],
            low_padding=low,
            image_dilation=params["lhs_dilation"][axis - 2],
            kernel_dilation=params["rhs_dilation"][axis - 2],
        )
    return 2.0 * pairs * out[out_axes[0]] * out[out_axes[1]] * kernel[kernel_axes[1]]


def count_valid_taps(
    image: int, kernel: int, out: int, *, stride: int, low_padding: int, image_dilation: int, kernel_dilation: int
) -> int:
    """Return how many multiplications a convolution along one axis has to compute.

    Multiplications by padding or by the zeros of a dilated input are not counted.

    Args:
        image: Length of the input, in elements.
        kernel: Length of the kernel, in elements.
        out: Length of the output, in elements.
        stride: Stride of the kernel.
        low_padding: Padding before the first element of the input; negative if elements are cut off.
        image_dilation: Distance between neighbouring elements of the dilated input.
        kernel_dilation: Distance between neighbouring elements of the dilated kernel.
    """
    positions = np.arange(out)[:, None] * stride + np.arange(kernel) * kernel_dilation - low_padding
    inside = (positions >= 0) & (positions <= (image - 1) * image_dilation)
    return int((inside & (positions % image_dilation == 0)).sum())
