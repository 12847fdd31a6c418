"""Names and shapes of the network's parameters, and the kernels that detection uses.

This module needs neither JAX nor Flax, whose imports take time.
"""

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float, Float32

from ssd_jax.config import Model

# (name, channels) of the convolutions of each block of VGG16. A pool follows each block.
BLOCKS = (
    (("conv1_1", 64), ("conv1_2", 64)),
    (("conv2_1", 128), ("conv2_2", 128)),
    (("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256)),
    (("conv4_1", 512), ("conv4_2", 512), ("conv4_3", 512)),
    (("conv5_1", 512), ("conv5_2", 512), ("conv5_3", 512)),
)
# Channels of fc6 and fc7.
FC_CHANNELS = 1024
# Channels per group of GroupNorm.
GROUP_SIZE = 8
# Suffixes of the names of the two predictors of a feature map, as in Caffe.
BOX_PREDICTOR, CLASS_PREDICTOR = "_mbox_loc", "_mbox_conf"
# Added to the sum of squares of a kernel in weight standardization.
STANDARDIZATION_EPS = 1e-8

Params = dict[str, Any]
"""Parameters of the network, nested as `SSD.init` returns them."""
Shape = tuple[int, ...]
Kernel = Float[np.ndarray, "h w i o"]


def scale_channels(channels: int, width: float) -> int:
    """Return `channels` times `width`, rounded to a multiple of 8 (the group size of GroupNorm), but at least 8."""
    return max(GROUP_SIZE, round(channels * width / GROUP_SIZE) * GROUP_SIZE)


@cache
def compute_parameter_shapes(model: Model) -> Mapping[str, Shape]:
    """Return the shape of every parameter of a model by its path, such as (3, 3, 3, 64) for ``vgg/conv1_1/kernel``.

    `SSD` defines the parameters, but even to trace it only for the shapes takes half a second.
    """
    shapes: dict[str, Shape] = {}
    width, channels = model.width, 3
    fully_connected = (("fc6", 3, FC_CHANNELS), ("fc7", 1, FC_CHANNELS))
    for name, kernel, outputs in (*((name, 3, n) for block in BLOCKS for name, n in block), *fully_connected):
        channels = _add_conv(shapes, f"vgg/{name}", kernel, channels, scale_channels(outputs, width), model.norm)
    feature_maps = {"conv4_3_norm": shapes["vgg/conv4_3/bias"][0], "fc7": channels}
    shapes["conv4_3_norm/scale"] = shapes["vgg/conv4_3/bias"]
    for number, extra in enumerate(model.extras, start=6):
        bottleneck, outputs = scale_channels(extra.bottleneck, width), scale_channels(extra.channels, width)
        _add_conv(shapes, f"conv{number}_1", 1, channels, bottleneck, model.norm)
        channels = _add_conv(shapes, f"conv{number}_2", extra.kernel, bottleneck, outputs, model.norm)
        feature_maps[f"conv{number}_2"] = channels
    if model.global_pool:
        feature_maps["pool6"] = channels
    for (name, channels), boxes in zip(feature_maps.items(), model.default_boxes.boxes_per_cell, strict=True):
        _add_conv(shapes, name + BOX_PREDICTOR, 3, channels, 4 * boxes)
        _add_conv(shapes, name + CLASS_PREDICTOR, 3, channels, model.num_classes * boxes)
    return MappingProxyType(shapes)


def nest_parameters(values: Mapping[str, Any]) -> Params:
    """Return values by path, such as ``vgg/conv1_1/kernel``, as nested dicts with a level for each part of the path."""
    nested: Params = {}
    for path, value in values.items():
        *parents, name = path.split("/")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
        level[name] = value
    return nested


def find_layer(params: Params, path: str) -> Params:
    """Return the parameters of a layer, such as ``vgg/conv1_1``, or an empty dict if there is no such layer."""
    for part in path.split("/"):
        params = params.get(part, {})
    return params


def standardize_kernels(params: Params, config: Model) -> Params:
    """Return the parameters with all kernels standardized or centered, for ``SSD(config, is_standardized=True)``.

    During training, the network itself does this, because the kernels change (`ssd_jax.models.layers`). For detection,
    it is done once and on the host: the program then needs fewer operations, and half of the time to compile.

    Args:
        params: Parameters of the network, as arrays that numpy can read. They are not changed.
        config: Settings of the network.

    Returns:
        Numpy arrays nested like ``params``. Without weight standardization they are the same parameters.
    """
    if config.norm == "none":
        return params

    def convert(name: str, layer: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(next(iter(layer.values())), dict):
            is_predictor = name.endswith((BOX_PREDICTOR, CLASS_PREDICTOR))
            transform = _center if is_predictor else _standardize
            return {
                leaf: _transform_kernel(np.asarray(value), transform, config.dtype) if leaf == "kernel" else value
                for leaf, value in layer.items()
            }
        return {inner: convert(inner, value) for inner, value in layer.items()}

    return convert("", params)


def _add_conv(shapes: dict[str, Shape], path: str, kernel: int, inputs: int, outputs: int, norm: str = "none") -> int:
    """Add the shapes of a convolution, and of its GroupNorm if it has one. Return its number of outputs."""
    shapes[f"{path}/kernel"], shapes[f"{path}/bias"] = (kernel, kernel, inputs, outputs), (outputs,)
    if norm == "group":
        shapes[f"{path}_group_norm/scale"] = shapes[f"{path}_group_norm/bias"] = (outputs,)
    return outputs


def _transform_kernel(
    kernel: Float32[np.ndarray, "h w i o"], transform: Callable[[Kernel], Kernel], dtype: str
) -> Float32[np.ndarray, "h w i o"]:
    if dtype == "bfloat16":  # the network rounds kernels before it standardizes them
        kernel = kernel.astype(ml_dtypes.bfloat16)
    return transform(kernel.astype(np.float64)).astype(np.float32)


def _center(kernel: Kernel) -> Kernel:
    return kernel - kernel.mean((0, 1, 2), keepdims=True)


def _standardize(kernel: Kernel) -> Kernel:
    kernel = _center(kernel)
    return kernel / np.sqrt((kernel**2).sum((0, 1, 2), keepdims=True) + STANDARDIZATION_EPS)
