"""Maps our parameters to the keys and axes of published weight files, with one table per kind of file.

Our parameters are named by their path, ``vgg/conv1_1/kernel``, and tensors of a file by their keys. In Caffe and
Keras files the key is ``<layer>.<number>``: 0 is the weight, 1 the bias.

The source of each table is named beside it. The fixtures in tests/assets/weight_keys list all keys and shapes of
these files, taken from the projects themselves.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ssd_jax.models.ssd import BOX_PREDICTOR, CLASS_PREDICTOR
from ssd_jax.weights.presets import BACKBONE_CONVS, SSD300, SSD300_POOL6, SSD500, SSD512, Network, Shape

Array = np.ndarray


class Conversion(NamedTuple):
    """Conversion of a tensor between the axes of a file and ours."""

    shape: Callable[[Shape], Shape]
    """Maps the shape of our parameter to that of the file's tensor."""
    load: Callable[[Array], Array]
    """Maps the file's tensor to our parameter."""
    dump: Callable[[Array], Array] | None = None
    """Maps our parameter to the file's tensor. None if loading drops a part of the tensor."""


class Entry(NamedTuple):
    """Key and conversion of one parameter."""

    key: str
    conversion: Conversion


Entries = dict[str, Entry]


class KeyMapping(NamedTuple):
    """Keys of one kind of weight file."""

    project: str
    """Project that published it: a key of `presets.PRESETS`."""
    title: str
    """Name for messages."""
    entries: Mapping[str, Entry]
    """Entries by the path of our parameter."""
    network: Network | None = None
    """None for a backbone without predictors."""
    bgr: bool = False
    """Whether the file's conv1_1 takes blue, green, red."""
    ignored: tuple[str, ...] = ()
    """Prefixes of keys that are not used, such as those of a classifier."""

    @property
    def ranks(self) -> dict[str, int]:
        """Number of axes of each tensor in the file."""
        ours = {"kernel": (1, 1, 1, 1)}
        return {
            key: len(conversion.shape(ours.get(path.rpartition("/")[2], (1,))))
            for path, (key, conversion) in self.entries.items()
        }

    def ignores(self, key: str) -> bool:
        """Return whether a key of the file is not used."""
        return bool(self.ignored) and key.startswith(self.ignored)


# ---- conversions ----


def _identity(array: Array) -> Array:
    return array


_SAME = Conversion(tuple, _identity, _identity)
_OIHW = Conversion(
    lambda s: (s[3], s[2], s[0], s[1]), lambda file: file.transpose(2, 3, 1, 0), lambda ours: ours.transpose(3, 2, 0, 1)
)
"""Kernels of torch and Caffe; ours are HWIO, as are those of Keras."""

# VGG16's classifier becomes fc6 and fc7 as in other ports: every fourth unit, every third row and column
# (github.com/sgrvinod/a-PyTorch-Tutorial-to-Object-Detection; DeepLab's "fc reduced" has this shape).
_DECIMATED_BIAS = Conversion(lambda s: (4 * s[0],), lambda file: file[::4])
_DECIMATED = {
    # torch and Caffe: (units, channels * 7 * 7) and (units, units).
    "oihw": (
        Conversion(
            lambda s: (4 * s[3], s[2] * 49),
            lambda file: file.reshape(len(file), -1, 7, 7)[::4, :, ::3, ::3].transpose(2, 3, 1, 0),
        ),
        Conversion(lambda s: (4 * s[3], 4 * s[2]), lambda file: file[::4, ::4].T[None, None]),
    ),
    # Keras: (7 * 7 * channels, units) and (units, units).
    "hwio": (
        Conversion(
            lambda s: (49 * s[2], 4 * s[3]),
            lambda file: file.reshape(7, 7, -1, file.shape[1])[::3, ::3, :, ::4],
        ),
        Conversion(lambda s: (4 * s[2], 4 * s[3]), lambda file: file[None, None, ::4, ::4]),
    ),
}


def _chain(conversion: Conversion, load: Callable[[Array], Array], dump: Callable[[Array], Array]) -> Conversion:
    """Apply ``load`` to our side of a conversion, and its inverse ``dump``."""
    outer_load, outer_dump = conversion.load, conversion.dump
    assert outer_dump is not None
    return Conversion(conversion.shape, lambda file: load(outer_load(file)), lambda ours: outer_dump(dump(ours)))


def _swap_channels(conversion: Conversion) -> Conversion:
    """Swap the BGR input channels of a kernel."""

    def swap(kernel: Array) -> Array:
        return kernel[:, :, ::-1]

    return _chain(conversion, swap, swap)


def _background_first(conversion: Conversion, boxes: int) -> Conversion:
    """Move background from the last to the first class of each box. Channels are box * classes + class."""

    def roll(array: Array, by: int) -> Array:
        by_box = array.reshape(*array.shape[:-1], boxes, -1)
        return np.roll(by_box, by, axis=-1).reshape(array.shape)

    return _chain(conversion, lambda array: roll(array, 1), lambda array: roll(array, -1))


# ---- entries ----


def _entries(
    prefixes: Mapping[str, str],
    suffixes: tuple[str, str] = (".weight", ".bias"),
    kernel: Conversion = _OIHW,
    bgr: bool = False,
) -> Entries:
    """Return the entries of layers.

    Args:
        prefixes: Prefix of each layer's keys, by the layer's path.
        suffixes: Of weight and bias.
        kernel: Conversion of kernels.
        bgr: Whether the file's conv1_1 takes blue, green, red.
    """
    weight, bias = suffixes
    entries = {}
    for layer, prefix in prefixes.items():
        if layer == "conv4_3_norm":
            entries[f"{layer}/scale"] = Entry(prefix + weight, _SAME)
        else:
            swap = bgr and layer == "vgg/conv1_1"
            entries[f"{layer}/kernel"] = Entry(prefix + weight, _swap_channels(kernel) if swap else kernel)
            entries[f"{layer}/bias"] = Entry(prefix + bias, _SAME)
    return entries


def _classifier(fc6: str, fc7: str, suffixes: tuple[str, str], axes: str) -> Entries:
    """Return the entries of fc6 and fc7, decimated from the first two layers of VGG16's classifier."""
    (weight, bias), (first, second) = suffixes, _DECIMATED[axes]
    return {
        "vgg/fc6/kernel": Entry(fc6 + weight, first),
        "vgg/fc6/bias": Entry(fc6 + bias, _DECIMATED_BIAS),
        "vgg/fc7/kernel": Entry(fc7 + weight, second),
        "vgg/fc7/bias": Entry(fc7 + bias, _DECIMATED_BIAS),
    }


def _predictors(network: Network, boxes: str, classes: str) -> dict[str, str]:
    """Return the prefixes of the predictors; ``{}`` stands for the number of the feature map."""
    prefixes: dict[str, str] = {}
    for number, name in enumerate(network.feature_maps):
        prefixes[name + BOX_PREDICTOR] = boxes.format(number)
        prefixes[name + CLASS_PREDICTOR] = classes.format(number)
    return prefixes


# Indices of conv1_1 to conv5_3 in torch's sequence of convolutions, ReLUs and pools.
_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def _vgg(prefix: str) -> dict[str, str]:
    """Return the prefixes of conv1_1 to conv5_3; ``{}`` stands for the index in torch's sequence."""
    return {layer: prefix.format(index) for layer, index in zip(BACKBONE_CONVS, _INDICES, strict=True)}


def _vgg_with_fc(prefix: str) -> dict[str, str]:
    """Return the prefixes of conv1_1 to fc7 in a sequence where fc6 and fc7 are convolutions."""
    return _vgg(prefix) | {"vgg/fc6": prefix.format(31), "vgg/fc7": prefix.format(33)}


# ---- detectors ----


class _SequenceKeys(NamedTuple):
    """Prefixes of a torch detector that has conv1_1 to fc7 in one sequence of modules."""

    project: str
    title: str
    backbone: str
    norm: str
    extras: str
    """``{i}`` counts the convolutions, ``{pair}`` and ``{j}`` their pairs and the place in a pair."""
    boxes: str
    classes: str


_SEQUENCE_KEYS = (
    # github.com/amdegroot/ssd.pytorch, ssd.py.
    _SequenceKeys("ssd.pytorch", "ssd.pytorch's {}", "vgg.{}", "L2Norm", "extras.{i}", "loc.{}", "conf.{}"),
    # github.com/lufficc/SSD, ssd/modeling.
    _SequenceKeys(
        "lufficc", "lufficc's {}", "backbone.vgg.{}", "backbone.l2_norm", "backbone.extras.{i}",
        "box_head.predictor.reg_headers.{}", "box_head.predictor.cls_headers.{}",
    ),
    _SequenceKeys(
        "lufficc", "lufficc's {}, of its release 1.0", "vgg.{}", "l2_norm", "extras.{i}",
        "regression_headers.{}", "classification_headers.{}",
    ),
    # github.com/open-mmlab/mmdetection, SSDVGG, SSDNeck and SSDHead.
    _SequenceKeys(
        "mmdetection", "MMDetection's {}", "backbone.features.{}", "neck.l2_norm", "neck.extra_layers.{pair}.{j}.conv",
        "bbox_head.reg_convs.{}.0", "bbox_head.cls_convs.{}.0",
    ),
    # Version 1 has these keys, too, but background as the first class; `torch_file` refuses it.
    _SequenceKeys(
        "mmdetection", "MMDetection's {}, of its version 2.0 to 2.13", "backbone.features.{}", "backbone.l2_norm",
        "backbone.extra.{i}", "bbox_head.reg_convs.{}", "bbox_head.cls_convs.{}",
    ),
)  # fmt: skip


def _sequence_detector(keys: _SequenceKeys, network: Network) -> KeyMapping:
    extras = {
        name: keys.extras.format(i=number, pair=number // 2, j=number % 2)
        for number, name in enumerate(network.extra_convs)
    }
    entries = _entries(
        _vgg_with_fc(keys.backbone)
        | {"conv4_3_norm": keys.norm}
        | extras
        | _predictors(network, keys.boxes, keys.classes)
    )
    if keys.project == "mmdetection":  # since version 2.0 its last class is background
        for name, boxes in zip(network.feature_maps, network.boxes_per_cell, strict=True):
            for leaf in ("kernel", "bias"):
                path = f"{name}{CLASS_PREDICTOR}/{leaf}"
                entries[path] = Entry(entries[path].key, _background_first(entries[path].conversion, boxes))
    return KeyMapping(keys.project, keys.title.format(network.title), entries, network)


def _torchvision() -> KeyMapping:
    """torchvision/models/detection/ssd.py: conv5, fc6 and fc7 are in the first of the "extra" blocks."""
    backbone = _vgg("backbone.features.{}")
    first_block = dict(zip(BACKBONE_CONVS[10:], ("1", "3", "5"), strict=True)) | {"vgg/fc6": "7.1", "vgg/fc7": "7.3"}
    backbone |= {layer: f"backbone.extra.0.{place}" for layer, place in first_block.items()}
    extras = {
        name: f"backbone.extra.{number // 2 + 1}.{number % 2 * 2}" for number, name in enumerate(SSD300.extra_convs)
    }
    heads = _predictors(SSD300, "head.regression_head.module_list.{}", "head.classification_head.module_list.{}")
    entries = _entries(backbone | extras | heads) | {"conv4_3_norm/scale": Entry("backbone.scale_weight", _SAME)}
    return KeyMapping("torchvision", "torchvision's SSD300", entries, SSD300)


_NUMBERED = (".0", ".1")


def _caffe_names(layers: tuple[str, ...]) -> dict[str, str]:
    """Return Caffe's names of layers, which are also the last parts of our paths."""
    return {layer: layer.removeprefix("vgg/") for layer in layers}


def _caffe(network: Network) -> KeyMapping:
    """github.com/weiliu89/caffe, branch ssd, examples/ssd and python/caffe/model_libs.py."""
    entries = _entries(_caffe_names(network.layers()), _NUMBERED, bgr=True)
    return KeyMapping("caffe", f"Caffe's {network.title}", entries, network, bgr=True)


def _keras(network: Network) -> KeyMapping:
    """github.com/pierluigiferrari/ssd_keras, models; ported from Caffe with its names and BGR."""
    entries = _entries(_caffe_names(network.layers()), _NUMBERED, _SAME, bgr=True)
    return KeyMapping("ssd_keras", f"ssd_keras' {network.title}", entries, network, bgr=True)


# ---- backbones ----

TORCHVISION_FEATURES = KeyMapping(
    "torchvision_features", "torchvision's VGG16 features", _entries(_vgg("features.{}")), ignored=("classifier.",)
)
"""vgg16_features-amdegroot-88682ab5.pth, whose classifier is not valid."""


def _torch_backbones() -> tuple[KeyMapping, ...]:
    classifier = _classifier("classifier.0", "classifier.3", (".weight", ".bias"), "oihw")
    return (
        KeyMapping("vgg16_reducedfc", "ssd.pytorch's vgg16_reducedfc", _entries(_vgg_with_fc("{}"))),
        KeyMapping(
            "torchvision_vgg16",
            "torchvision's VGG16",
            {**TORCHVISION_FEATURES.entries, **classifier},
            ignored=("classifier.6.",),
        ),
        TORCHVISION_FEATURES,
    )


_BACKBONE = (*BACKBONE_CONVS, "vgg/fc6", "vgg/fc7")


def _caffe_backbones() -> tuple[KeyMapping, ...]:
    reduced = _entries(_caffe_names(_BACKBONE), _NUMBERED, bgr=True)
    full = _entries(_caffe_names(BACKBONE_CONVS), _NUMBERED, bgr=True) | _classifier("fc6", "fc7", _NUMBERED, "oihw")
    title = "Caffe's VGG16 with reduced fc6 and fc7"
    return (
        KeyMapping("caffe_vgg16_reduced", title, reduced, bgr=True, ignored=("fc8.",)),
        KeyMapping("caffe_vgg16", "Caffe's VGG16", full, bgr=True, ignored=("fc8.",)),
    )


def _keras_backbones() -> tuple[KeyMapping, ...]:
    """keras.applications.vgg16: ported from Caffe, so BGR."""
    names = {layer: f"block{layer[-3]}_conv{layer[-1]}" for layer in BACKBONE_CONVS}
    convs = _entries(names, _NUMBERED, _SAME, bgr=True)
    full = convs | _classifier("fc1", "fc2", _NUMBERED, "hwio")
    reduced = _entries(_caffe_names(_BACKBONE), _NUMBERED, _SAME, bgr=True)
    return (
        KeyMapping("keras_vgg16", "Keras' VGG16", full, bgr=True, ignored=("predictions.",)),
        KeyMapping("keras_vgg16", "Keras' VGG16 without its top", convs, bgr=True),
        KeyMapping("caffe_vgg16_reduced", "ssd_keras' VGG16 with reduced fc6 and fc7", reduced, bgr=True),
    )


KEY_MAPPINGS: dict[str, tuple[KeyMapping, ...]] = {
    "torch": (
        _torchvision(),
        *(_sequence_detector(keys, network) for keys in _SEQUENCE_KEYS for network in (SSD300, SSD512)),
        *_torch_backbones(),
    ),
    "caffe": (*(_caffe(network) for network in (SSD300, SSD512, SSD500, SSD300_POOL6)), *_caffe_backbones()),
    "keras": (*(_keras(network) for network in (SSD300, SSD512)), *_keras_backbones()),
}
"""Key mappings by the kind of file."""


def find_key_mapping(shapes: Mapping[str, Shape], kind: str) -> tuple[KeyMapping, float]:
    """Find the key mapping that is most similar to the keys of a file.

    Args:
        shapes: Shape of each tensor in the file, by key.
        kind: ``torch``, ``caffe`` or ``keras``.

    Returns:
        The mapping, and its similarity from 0 to 1: the number of keys in both over the number of keys in either. Keys
        count as the same only if the tensors have equally many axes: Caffe's fc6 is a matrix or a convolution.
    """

    def similarity(mapping: KeyMapping) -> float:
        ranks = {key: len(shape) for key, shape in shapes.items() if not mapping.ignores(key)}
        expected = mapping.ranks
        return len(ranks.items() & expected.items()) / max(1, len(ranks.keys() | expected.keys()))

    best = max(KEY_MAPPINGS[kind], key=similarity)
    return best, similarity(best)
