"""Write weight files in the format of each supported project, without using the code under test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import helpers.published_keys as published
from helpers.published_keys import Tensors
from helpers.weight_writers import encode_caffemodel, write_keras

WIDTH = 0.125
"""Width of the networks in tests: the number of channels divided by that of VGG16."""


def save_safetensors(file: Path, tensors: Tensors) -> Path:
    """Write tensors to a safetensors file and return its path."""
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, file)
    return file


def make_caffe_file(tensors: Tensors, priors: dict[str, Any] | None = None) -> bytes:
    """Return the bytes of a .caffemodel file with tensors of ssd.pytorch and with settings of PriorBox layers."""
    kinds = {4: "Convolution", 1: "Normalize"}
    layers = [(name, kinds.get(b[0].ndim, "InnerProduct"), b) for name, b in published.to_caffe(tensors).items()]
    return encode_caffemodel(layers, priors)


def save_caffe(file: Path, tensors: Tensors) -> Path:
    """Write tensors of ssd.pytorch to a .caffemodel file and return its path."""
    file.write_bytes(make_caffe_file(tensors))
    return file


def save_keras(file: Path, tensors: Tensors) -> Path:
    """Write tensors of ssd.pytorch to an HDF5 file of ssd_keras and return its path."""
    names = ("kernel:0", "bias:0")
    layers = [
        (layer, [(f"{layer}/{n}", v) for n, v in zip(names, values, strict=False)])
        for layer, values in published.to_ssd_keras(tensors).items()
    ]
    write_keras(file, layers)
    return file


def save_early_mmdetection(file: Path, tensors: Tensors) -> Path:
    """Write tensors of ssd.pytorch to a file with the keys of MMDetection 2.0 to 2.13 and return its path."""
    return save_safetensors(file, published.to_mmdetection(tensors, early=True))


WRITERS: dict[str, Callable[[Path, Tensors], Path]] = {
    "ssd.pytorch": save_safetensors,
    "torchvision": lambda file, tensors: save_safetensors(file, published.to_torchvision(tensors)),
    "lufficc": lambda file, tensors: save_safetensors(file, published.to_lufficc(tensors)),
    "mmdetection": lambda file, tensors: save_safetensors(file, published.to_mmdetection(tensors)),
    "mmdetection, early": save_early_mmdetection,
    "caffe": save_caffe,
    "ssd_keras": save_keras,
}


COCO_PRIORS = {
    f"{name}_mbox_priorbox": {
        "min_size": [low], "max_size": [high], "aspect_ratio": ratios, "flip": True, "clip": False,
        "variance": [0.1, 0.1, 0.2, 0.2], "step": step, "offset": 0.5,
    }
    for name, low, high, ratios, step in zip(
        ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2"),
        (21.0, 45.0, 99.0, 153.0, 207.0, 261.0),
        (45.0, 99.0, 153.0, 207.0, 261.0, 315.0),
        ([2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0], [2.0]),
        (8.0, 16.0, 32.0, 64.0, 100.0, 300.0),
        strict=True,
    )
}  # fmt: skip
"""PriorBox settings of a model for VOC that was pretrained on COCO, so its default boxes have the scales for COCO."""


# ---- backbones ----


def select_backbone(tensors: Tensors) -> Tensors:
    """Return the VGG16 layers of a state dict of ssd.pytorch, with the keys of vgg16_reducedfc.pth."""
    return {key.removeprefix("vgg."): value for key, value in tensors.items() if key.startswith("vgg.")}


def make_classifier_and_features(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Return two state dicts with torchvision's keys: a VGG16 classifier, and the convolutions of VGG16.

    Decimating the classifier (every fourth unit, every third row and column) gives fc6 and fc7 of ``tensors``.
    """
    rng = np.random.default_rng(3)
    fc6, fc7 = tensors["vgg.31.weight"], tensors["vgg.33.weight"]
    units, channels = fc6.shape[:2]
    first = rng.normal(size=(4 * units, channels, 7, 7)).astype(np.float32)
    first[::4, :, ::3, ::3] = fc6
    second = rng.normal(size=(4 * units, 4 * units)).astype(np.float32)
    second[::4, ::4] = fc7[:, :, 0, 0]
    biases = [np.repeat(tensors[f"vgg.{index}.bias"], 4) for index in (31, 33)]
    classifier = {
        "0.weight": first.reshape(4 * units, -1),
        "0.bias": biases[0],
        "3.weight": second,
        "3.bias": biases[1],
    }
    classifier |= {"6.weight": rng.normal(size=(10, 4 * units)).astype(np.float32), "6.bias": np.zeros(10, np.float32)}
    named = {f"features.{k}": v for k, v in select_backbone(tensors).items() if int(k.split(".")[0]) < 30}
    return {f"classifier.{k}": v for k, v in classifier.items()}, named


def save_keras_vgg16(file: Path, blobs: dict[str, list[np.ndarray]]) -> Path:
    """Write Caffe blobs of VGG16 to a file with the names and axes of Keras, and return its path.

    Kernels are HWIO, and the inputs of fc1 are in the order row, column, channel.
    """
    names = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    layers = []
    for layer, (weight, bias) in blobs.items():
        name = names.get(layer) or f"block{layer[4]}_{layer[:4]}{layer[6]}"
        if layer == "fc6":
            weight = weight.reshape(len(weight), -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            weight = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)
        layers.append((name, [(f"{name}_W_1:0", weight), (f"{name}_b_1:0", bias)]))
    write_keras(file, layers)
    return file
