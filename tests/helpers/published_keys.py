"""Convert weights with the keys and axes of ssd.pytorch to those of other projects.

This module was written from the source code of the projects (named in docs/weights.md) and shares no code with
`ssd_jax.weights.key_mappings`: rules here turn one key into another, while that module has a table per project.
"""

import re
from collections.abc import Iterator

import numpy as np

Tensors = dict[str, np.ndarray]

# Caffe's layer names by the index of the layer in ssd.pytorch's sequence for VGG16.
CAFFE_NAMES = {
    0: "conv1_1", 2: "conv1_2", 5: "conv2_1", 7: "conv2_2", 10: "conv3_1", 12: "conv3_2", 14: "conv3_3",
    17: "conv4_1", 19: "conv4_2", 21: "conv4_3", 24: "conv5_1", 26: "conv5_2", 28: "conv5_3", 31: "fc6", 33: "fc7",
}  # fmt: skip
BOXES = {6: (4, 6, 6, 6, 4, 4), 7: (4, 6, 6, 6, 6, 4, 4)}
"""Number of default boxes per cell of each feature map, by the number of feature maps."""
BACKBONE_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
EXTRAS = {
    6: ((256, 1), (512, 3), (128, 1), (256, 3), (128, 1), (256, 3), (128, 1), (256, 3)),
    7: ((256, 1), (512, 3), (128, 1), (256, 3), (128, 1), (256, 3), (128, 1), (256, 3), (128, 1), (256, 4)),
}


def make_random_ssd_pytorch(maps: int, classes: int, width: float, seed: int = 0) -> Tensors:
    """Return a random state dict of ssd.pytorch.

    The weights are scaled so that the activations of all layers have a similar magnitude and the scores differ clearly.

    Args:
        maps: Number of feature maps, 6 for SSD300 and 7 for SSD512.
        classes: Number of classes including background.
        width: Number of channels divided by that of VGG16.
        seed: Seed of the random numbers.
    """
    rng = np.random.RandomState(seed)
    tensors: Tensors = {}

    def add_conv(key: str, inputs: int, outputs: int, kernel: int, gain: float = 2.0, shift: float = 0.1) -> None:
        std = np.sqrt(gain / (inputs * kernel**2))
        tensors[f"{key}.weight"] = rng.normal(0, std, (outputs, inputs, kernel, kernel)).astype(np.float32)
        tensors[f"{key}.bias"] = rng.normal(0, shift, outputs).astype(np.float32)

    def scale_channels(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    inputs = 3
    for index, channels in zip(CAFFE_NAMES, BACKBONE_CHANNELS, strict=True):
        add_conv(
            f"vgg.{index}",
            inputs,
            scale_channels(channels),
            1 if index == 33 else 3,
            2.0 / 64**2 if index == 0 else 2.0,
        )
        inputs = scale_channels(channels)
    tensors["L2Norm.weight"] = rng.uniform(5, 20, scale_channels(512)).astype(np.float32)
    channels_of_maps = [scale_channels(512), scale_channels(1024)]
    for i, (channels, kernel) in enumerate(EXTRAS[maps]):
        add_conv(f"extras.{i}", inputs, scale_channels(channels), kernel)
        inputs = scale_channels(channels)
        if i % 2:
            channels_of_maps.append(inputs)
    for k, (boxes, channels) in enumerate(zip(BOXES[maps], channels_of_maps, strict=True)):
        add_conv(f"loc.{k}", channels, boxes * 4, 3, 1.0)
        add_conv(f"conf.{k}", channels, boxes * classes, 3, 3.0, 1.0)
    return tensors


def make_random_caffe_pool6(extras: int, classes: int, width: float, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Return random Caffe blobs of SSD500 or of the first SSD300, by layer.

    Both networks have three default boxes per cell of the first feature map. The last feature map, pool6, is the mean
    over the cells of the feature map before it.

    Args:
        extras: Number of pairs of extra layers, 4 for SSD500 and 3 for the first SSD300.
        classes: Number of classes including background.
        width: Number of channels divided by that of VGG16.
        seed: Seed of the random numbers.
    """
    rng = np.random.RandomState(seed)
    blobs = {
        name: values
        for name, values in to_caffe(make_random_ssd_pytorch(6, classes, width, seed)).items()
        if "mbox" not in name and not (extras == 3 and name.startswith("conv9"))
    }
    last = f"conv{5 + extras}_2"
    for name in ["conv4_3_norm", "fc7", *(f"conv{n}_2" for n in range(6, 6 + extras)), "pool6"]:
        input_layer = {"conv4_3_norm": "conv4_3", "pool6": last}.get(name, name)
        channels, boxes = len(blobs[input_layer][1]), 3 if name == "conv4_3_norm" else 6
        for kind, numbers, gain, shift in (("loc", 4, 1.0, 0.1), ("conf", classes, 3.0, 1.0)):
            std = np.sqrt(gain / (9 * channels))
            weight = rng.normal(0, std, (boxes * numbers, channels, 3, 3)).astype(np.float32)
            bias = rng.normal(0, shift, boxes * numbers).astype(np.float32)
            blobs[f"{name}_mbox_{kind}"] = [weight, bias]
    return blobs


def _split_keys(tensors: Tensors) -> Iterator[tuple[str, int, str, np.ndarray]]:
    """Yield the parts of each key of ssd.pytorch (group of layers, index, "weight" or "bias"), and the tensor."""
    for key, value in tensors.items():
        group, *number, part = key.split(".")
        yield group, int(number[0]) if number else 0, part, value


def to_torchvision(tensors: Tensors) -> Tensors:
    """Return the tensors as a state dict of torchvision."""
    conv5 = {24: "1", 26: "3", 28: "5", 31: "7.1", 33: "7.3"}
    renamed = {}
    for group, i, part, value in _split_keys(tensors):
        if group == "vgg":
            key = f"features.{i}" if i < 24 else f"extra.0.{conv5[i]}"
            renamed[f"backbone.{key}.{part}"] = value
        elif group == "L2Norm":
            renamed["backbone.scale_weight"] = value
        elif group == "extras":
            renamed[f"backbone.extra.{i // 2 + 1}.{2 * (i % 2)}.{part}"] = value
        else:
            head = {"loc": "regression", "conf": "classification"}[group]
            renamed[f"head.{head}_head.module_list.{i}.{part}"] = value
    return renamed


def to_lufficc(tensors: Tensors) -> Tensors:
    """Return the tensors as a state dict of lufficc/SSD."""
    names = {
        "vgg": "backbone.vgg", "extras": "backbone.extras", "L2Norm": "backbone.l2_norm",
        "loc": "box_head.predictor.reg_headers", "conf": "box_head.predictor.cls_headers",
    }  # fmt: skip
    return {re.sub("^[A-Za-z0-9]+", lambda match: names[match[0]], key): value for key, value in tensors.items()}


def _move_background_last(value: np.ndarray, boxes: int) -> np.ndarray:
    """Return a class predictor's tensor with background as the last class of each box.

    The first axis is the channel axis. The channel of class c of box b is b * classes + c.
    """
    each = value.reshape(boxes, -1, *value.shape[1:])
    return np.concatenate([each[:, 1:], each[:, :1]], axis=1).reshape(value.shape)


def to_mmdetection(tensors: Tensors, early: bool = False) -> Tensors:
    """Return the tensors as a state dict of MMDetection, with the keys of versions 2.0 to 2.13 if ``early`` is set."""
    boxes = BOXES[sum(key.startswith("loc.") for key in tensors) // 2]
    renamed = {}
    for group, i, part, value in _split_keys(tensors):
        if group == "vgg":
            key = f"backbone.features.{i}"
        elif group == "L2Norm":
            key = "backbone.l2_norm" if early else "neck.l2_norm"
        elif group == "extras":
            key = f"backbone.extra.{i}" if early else f"neck.extra_layers.{i // 2}.{i % 2}.conv"
        else:
            key = f"bbox_head.{'reg' if group == 'loc' else 'cls'}_convs.{i}{'' if early else '.0'}"
        if group == "conf":
            value = _move_background_last(value, boxes[i])
        renamed[f"{key}.{part}"] = value
    return renamed


def _caffe_layer_name(group: str, i: int) -> str:
    """Return Caffe's name of a layer of ssd.pytorch."""
    if group == "vgg":
        return CAFFE_NAMES[i]
    if group == "L2Norm":
        return "conv4_3_norm"
    if group == "extras":
        return f"conv{6 + i // 2}_{1 + i % 2}"
    name = ("conv4_3_norm", "fc7", *(f"conv{n}_2" for n in range(6, 11)))[i]
    return f"{name}_mbox_{group}"


def to_caffe(tensors: Tensors) -> dict[str, list[np.ndarray]]:
    """Return the tensors as Caffe blobs by layer. The input channels of the first convolution are blue, green, red."""
    blobs: dict[str, list[np.ndarray]] = {}
    for group, i, part, value in _split_keys(tensors):
        if (group, i, part) == ("vgg", 0, "weight"):
            value = np.stack([value[:, 2], value[:, 1], value[:, 0]], axis=1)
        blobs.setdefault(_caffe_layer_name(group, i), []).append(value)
    return blobs


def to_ssd_keras(tensors: Tensors) -> dict[str, list[np.ndarray]]:
    """Return the tensors as weights of ssd_keras by layer, which are Caffe's blobs with kernels in the order HWIO."""
    return {
        layer: [np.moveaxis(np.moveaxis(v, 0, -1), 0, -2) if v.ndim == 4 else v for v in values]
        for layer, values in to_caffe(tensors).items()
    }
