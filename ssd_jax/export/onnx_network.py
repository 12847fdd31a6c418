"""The network in ONNX's standard operators: from images of any size to offsets and logits.

The functions mirror `ssd_jax.ops.resample`, `ssd_jax.models.vgg` and `ssd_jax.models.ssd`. Images and feature maps have
the layout NCHW, as ONNX's convolutions expect it, from `add_normalization` on.
"""

import numpy as np
from onnx import TensorProto

from ssd_jax.config import Model
from ssd_jax.export.onnx_graph import GraphBuilder
from ssd_jax.models.parameters import BLOCKS, BOX_PREDICTOR, CLASS_PREDICTOR, GROUP_SIZE, Params, find_layer

GROUP_NORM_EPS = 1e-6  # ssd_jax.models.layers.group_norm.EPS, without an import of JAX
L2_NORM_EPS = 1e-10  # L2Norm.eps of ssd_jax.models.vgg


def add_network(graph: GraphBuilder, images: str, model: Model, params: Params) -> tuple[str, str]:
    """Add the whole network, including the resize and the normalization of the pixels.

    Args:
        graph: The graph.
        images: Tensor of images, float32 (batch, height, width, 3), RGB from 0 to 255.
        model: Settings of the network.
        params: Parameters that `standardize_kernels` returns.

    Returns:
        Tensors of offsets (batch, n, 4) and of logits (batch, n, classes with background).
    """
    with graph.scope("resize"):
        resized = add_resize(graph, images, model.image_size)
    with graph.scope("normalize"):
        x = add_normalization(graph, resized, model)
    feature_maps = add_feature_maps(graph, x, model, params)
    predictions: list[list[str]] = [[], []]
    for name, feature_map in feature_maps:
        for kind, outputs, found in (
            (BOX_PREDICTOR, 4, predictions[0]),
            (CLASS_PREDICTOR, model.num_classes, predictions[1]),
        ):
            with graph.scope(name + kind):
                y = add_conv(graph, feature_map, name + kind, params, padding=1)
                # Channel k * outputs + i is output i of box k of a cell.
                y = graph.add("Transpose", y, perm=[0, 2, 3, 1])
                found.append(graph.add("Reshape", y, np.array([0, -1, outputs])))
    offsets, logits = (graph.add("Concat", *parts, axis=1) for parts in predictions)
    return offsets, logits


def add_resize(graph: GraphBuilder, images: str, size: int) -> str:
    """Resize images as `ssd_jax.ops.resample.resize` does, to (batch, size, size, 3).

    The neighbours of each sample are gathered and blended with the same arithmetic. ONNX's operator Resize gives nearly
    the same values, but runtimes differ in its rounding and in the modes that they support.
    """
    shape = graph.add("Shape", images)

    def add_neighbours(axis: int) -> tuple[str, str, str]:
        """Return the indices of the two neighbours of each sample along an axis, and the weight of the second."""
        length = graph.add("Cast", graph.add("Gather", shape, np.array([axis])), to=TensorProto.FLOAT)
        scale = graph.add("Div", length, np.float32(size))
        centers = np.arange(size, dtype=np.float32) + np.float32(0.5)
        position = graph.add("Sub", graph.add("Mul", centers, scale), np.float32(0.5))
        last = graph.add("Sub", length, np.float32(1))
        position = graph.add("Min", graph.add("Max", position, np.float32(0)), last)
        low, high = graph.add("Floor", position), graph.add("Ceil", position)
        first, second = (graph.add("Cast", index, to=TensorProto.INT64) for index in (low, high))
        return first, second, graph.add("Sub", position, low)

    def add_blend(first: str, second: str, weight: str) -> str:
        return graph.add("Add", first, graph.add("Mul", graph.add("Sub", second, first), weight))

    top, bottom, down = add_neighbours(1)
    left, right, across = add_neighbours(2)
    across = graph.add("Unsqueeze", across, np.array([1]))
    down = graph.add("Unsqueeze", down, np.array([1, 2]))
    rows = [graph.add("Gather", images, row, axis=1) for row in (top, bottom)]
    upper, lower = (
        add_blend(graph.add("Gather", row, left, axis=2), graph.add("Gather", row, right, axis=2), across)
        for row in rows
    )
    return add_blend(upper, lower, down)


def add_normalization(graph: GraphBuilder, images: str, model: Model) -> str:
    """Subtract the mean and divide by the standard deviation, and change the layout from NHWC to NCHW."""
    x = graph.add("Sub", images, np.array(model.mean, np.float32))
    if any(value != 1 for value in model.std):
        x = graph.add("Div", x, np.array(model.std, np.float32))
    return graph.add("Transpose", x, perm=[0, 3, 1, 2])


def add_feature_maps(graph: GraphBuilder, x: str, model: Model, params: Params) -> list[tuple[str, str]]:
    """Add backbone and extra layers, and return the name and the tensor of each feature map that is predicted from."""
    size = model.image_size
    for number, block in enumerate(BLOCKS, start=1):
        for name, _ in block:
            x = add_conv_norm_relu(graph, x, f"vgg/{name}", params, padding=1)
        if number == 4:
            conv4_3 = x
        with graph.scope(f"pool{number}"):
            if number < 5:
                # Caffe's ceil mode: an odd last row or column is pooled alone. As padding, all runtimes support it.
                x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, size % 2, size % 2])
                size = (size + 1) // 2
            else:
                x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    x = add_conv_norm_relu(graph, x, "vgg/fc6", params, padding=6, dilation=6)
    x = add_conv_norm_relu(graph, x, "vgg/fc7", params)
    feature_maps = [("conv4_3_norm", add_l2_norm(graph, conv4_3, "conv4_3_norm", params)), ("fc7", x)]
    for number, extra in enumerate(model.extras, start=6):
        x = add_conv_norm_relu(graph, x, f"conv{number}_1", params)
        x = add_conv_norm_relu(graph, x, f"conv{number}_2", params, stride=extra.stride, padding=extra.padding)
        feature_maps.append((f"conv{number}_2", x))
    if model.global_pool:
        with graph.scope("pool6"):
            feature_maps.append(("pool6", graph.add("GlobalAveragePool", x)))
    return feature_maps


def add_conv_norm_relu(
    graph: GraphBuilder, x: str, path: str, params: Params, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> str:
    """Add a convolution, its GroupNorm if it has parameters, and a ReLU."""
    with graph.scope(path):
        x = add_conv(graph, x, path, params, stride=stride, padding=padding, dilation=dilation)
        if find_layer(params, f"{path}_group_norm"):
            x = add_group_norm(graph, x, f"{path}_group_norm", params)
        return graph.add("Relu", x)


def add_conv(
    graph: GraphBuilder, x: str, path: str, params: Params, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> str:
    """Add the convolution with the parameters at a path such as ``vgg/conv1_1``."""
    layer = find_layer(params, path)
    kernel = np.asarray(layer["kernel"]).transpose(3, 2, 0, 1)  # HWIO to OIHW
    return graph.add(
        "Conv",
        x,
        graph.weight(f"{path}/kernel", kernel),
        graph.weight(f"{path}/bias", layer["bias"]),
        kernel_shape=list(kernel.shape[2:]),
        strides=[stride] * 2,
        pads=[padding] * 4,
        dilations=[dilation] * 2,
    )


def add_group_norm(graph: GraphBuilder, x: str, path: str, params: Params) -> str:
    """Add GroupNorm as InstanceNormalization of groups that are reshaped to channels.

    The operator GroupNormalization is not in opset 17.
    """
    layer = find_layer(params, path)
    channels = len(layer["scale"])
    groups = channels // GROUP_SIZE
    grouped = graph.add("Reshape", x, np.array([0, groups, -1]))
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    normalized = graph.add("InstanceNormalization", grouped, ones, zeros, epsilon=GROUP_NORM_EPS)
    y = graph.add("Reshape", normalized, graph.add("Shape", x))
    scale, bias = (
        graph.weight(f"{path}/{name}", np.asarray(layer[name]).reshape(-1, 1, 1)) for name in ("scale", "bias")
    )
    return graph.add("Add", graph.add("Mul", y, scale), bias)


def add_l2_norm(graph: GraphBuilder, x: str, path: str, params: Params) -> str:
    """Divide each cell by the length of its vector of channels, and multiply with the trained scale."""
    with graph.scope(path):
        squares = graph.add("ReduceSumSquare", x, axes=[1], keepdims=1)
        length = graph.add("Sqrt", graph.add("Add", squares, np.float32(L2_NORM_EPS)))
        scale = graph.weight(f"{path}/scale", np.asarray(find_layer(params, path)["scale"]).reshape(-1, 1, 1))
        return graph.add("Div", graph.add("Mul", x, scale), length)
