"""The network in TensorFlow's operators that TFLite has: from resized images to boxes and scores.

It is written out, because the converter of TFLite does not know all operations that JAX traces, such as the sums of
GroupNorm. The functions mirror `ssd_jax.models.vgg` and `ssd_jax.models.ssd`.
"""

from typing import Any

import lazy_loader
import numpy as np

from ssd_jax.config import Config, Model
from ssd_jax.models.parameters import BLOCKS, BOX_PREDICTOR, CLASS_PREDICTOR, GROUP_SIZE, Params, find_layer
from ssd_jax.ops.default_boxes import make_default_boxes

tf = lazy_loader.load("tensorflow")  # of the extra `prepare`
Tensor = Any  # tf.Tensor

GROUP_NORM_EPS = 1e-6  # ssd_jax.models.layers.group_norm.EPS, without an import of JAX
L2_NORM_EPS = 1e-10  # L2Norm.eps of ssd_jax.models.vgg


def compute_boxes_and_scores(images: Tensor, config: Config, params: Params) -> tuple[Tensor, Tensor]:
    """Return the boxes (b, n, 4), xyxy, normalized, not clipped, and the scores (b, n, classes) of all default boxes.

    Args:
        images: Images of the input size, RGB from 0 to 255, float32 (b, size, size, 3).
        config: Config of the network.
        params: Parameters that `standardize_kernels` returns.
    """
    model = config.model
    x = (images - np.array(model.mean, np.float32)) / np.array(model.std, np.float32)
    offsets: list[Tensor] = []
    logits: list[Tensor] = []
    for name, feature_map in _compute_feature_maps(x, model, params):
        for kind, outputs, found in ((BOX_PREDICTOR, 4, offsets), (CLASS_PREDICTOR, model.num_classes, logits)):
            y = _conv(feature_map, find_layer(params, name + kind), padding=1)
            found.append(tf.reshape(y, (images.shape[0], -1, outputs)))
    scores = tf.nn.softmax(tf.concat(logits, 1))[..., 1:]
    return _decode(tf.concat(offsets, 1), config), scores


def _compute_feature_maps(x: Tensor, model: Model, params: Params) -> list[tuple[str, Tensor]]:
    for number, block in enumerate(BLOCKS, start=1):
        for name, _ in block:
            x = _conv_norm_relu(x, f"vgg/{name}", params, padding=1)
        if number == 4:
            conv4_3 = x
        # SAME pads an odd side at its end, so that the last row or column is pooled alone (Caffe's ceil mode).
        x = tf.nn.max_pool2d(x, 2, 2, "SAME") if number < 5 else tf.nn.max_pool2d(x, 3, 1, "SAME")
    x = _conv_norm_relu(x, "vgg/fc6", params, padding=6, dilation=6)
    x = _conv_norm_relu(x, "vgg/fc7", params)
    length = tf.sqrt(tf.reduce_sum(conv4_3 * conv4_3, -1, keepdims=True) + L2_NORM_EPS)
    feature_maps = [("conv4_3_norm", conv4_3 * find_layer(params, "conv4_3_norm")["scale"] / length), ("fc7", x)]
    for number, extra in enumerate(model.extras, start=6):
        x = _conv_norm_relu(x, f"conv{number}_1", params)
        x = _conv_norm_relu(x, f"conv{number}_2", params, stride=extra.stride, padding=extra.padding)
        feature_maps.append((f"conv{number}_2", x))
    if model.global_pool:
        feature_maps.append(("pool6", tf.reduce_mean(x, (1, 2), keepdims=True)))
    return feature_maps


def _conv_norm_relu(
    x: Tensor, path: str, params: Params, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    x = _conv(x, find_layer(params, path), stride=stride, padding=padding, dilation=dilation)
    norm = find_layer(params, f"{path}_group_norm")
    return tf.nn.relu(_group_norm(x, norm) if norm else x)


def _conv(x: Tensor, layer: Params, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    kernel = layer["kernel"]
    if stride == 1 and 2 * padding == dilation * (kernel.shape[0] - 1):
        mode = "SAME"  # which TFLite has within its convolution
    else:
        x, mode = tf.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))), "VALID"
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, stride, mode, dilations=dilation), layer["bias"])


def _group_norm(x: Tensor, layer: Params) -> Tensor:
    b, h, w, c = x.shape
    groups = tf.reshape(x, (b, h * w, c // GROUP_SIZE, GROUP_SIZE))
    difference = groups - tf.reduce_mean(groups, (1, 3), keepdims=True)
    variance = tf.reduce_mean(difference * difference, (1, 3), keepdims=True)
    normalized = difference * tf.math.rsqrt(variance + GROUP_NORM_EPS)
    return tf.reshape(normalized, (b, h, w, c)) * layer["scale"] + layer["bias"]


def _decode(offsets: Tensor, config: Config) -> Tensor:
    center, size = np.split(make_default_boxes(config.model.default_boxes), 2, axis=1)
    shift, log_scale = tf.split(offsets * np.array(config.model.default_boxes.variances, np.float32), 2, axis=-1)
    low, high = config.detect.log_scale_bounds
    if low is not None:
        log_scale = tf.maximum(log_scale, np.float32(low))
    if high is not None:
        log_scale = tf.minimum(log_scale, np.float32(high))
    centers, half_sizes = shift * size + center, tf.exp(log_scale) * (size / 2)
    return tf.concat([centers - half_sizes, centers + half_sizes], -1)
