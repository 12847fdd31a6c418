"""Tables that map our parameters to the keys and axes of published weight files, one table per kind of file.

Our parameters are named by their paths, such as ``vgg/conv1_1/kernel``, and the tensors of a file by their keys. In
Caffe and Keras files, a key is ``<layer>.<number>``, where 0 is the weight and 1 the bias.

A comment or docstring beside each table names its source. The lists in tests/assets/weight_keys have all keys and
shapes of these files, taken from the source code of the projects.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ssd_jax.models.parameters import BOX_PREDICTOR, CLASS_PREDICTOR, Shape
from ssd_jax.weights.presets import BACKBONE_CONVS, SSD300, SSD300_POOL6, SSD500, SSD512, Network

Array = np.ndarray


class Conversion(NamedTuple):
    """Functions that convert a tensor between the axes of a file and our axes."""

    shape: Callable[[Shape], Shape]
    """Function that takes the shape of our parameter and returns the shape of the file's tensor."""
    load: Callable[[Array], Array]
    """Function that takes the file's tensor and returns our parameter."""
    dump: Callable[[Array], Array] | None = None
    """Function that takes our parameter and returns the file's tensor. None if ``load`` drops a part of the tensor."""


class Entry(NamedTuple):
    """Key and conversion of the tensor in a file that holds one of our parameters."""

    key: str
    conversion: Conversion


Entries = dict[str, Entry]


class KeyMapping(NamedTuple):
    """Mapping of our parameters to the keys of one kind of weight file."""

    project: str
    """Project that published the files, as a key of `presets.PRESETS`."""
    title: str
    """Name of the network and of its project, for messages."""
    entries: Mapping[str, Entry]
    """Key and conversion of each parameter, by the path of our parameter."""
    network: Network | None = None
    """Network of the detector. None for a backbone without predictors."""
    bgr: bool = False
    """Whether the input channels of the file's conv1_1 are blue, green, red."""
    ignored: tuple[str, ...] = ()
    """Prefixes of keys that are not used, such as those of a classifier."""

    @property
    def ranks(self) -> dict[str, int]:
        """Number of axes of each tensor in the file, by key."""
        ours = {"kernel": (1, 1, 1, 1)}
        return {
            key: len(conversion.shape(ours.get(path.rpartition("/")[2], (1,))))
            for path, (key, conversion) in self.entries.items()
        }

    def ignores(self, key: str) -> bool:
        """Return whether the tensor with this key is ignored when a file is imported."""
        return bool(self.ignored) and key.startswith(self.ignored)


# ---- conversions ----


def _identity(array: Array) -> Array:
    return array


_SAME = Conversion(tuple, _identity, _identity)
_OIHW = Conversion(
    lambda s: (s[3], s[2], s[0], s[1]), lambda file: file.transpose(2, 3, 1, 0), lambda ours: ours.transpose(3, 2, 0, 1)
)
"""Conversion of kernels of torch and Caffe, which are OIHW. Our kernels and those of Keras are HWIO."""

# fc6 and fc7 are made from VGG16's classifier by decimation, as in other ports: only every fourth unit is kept, and of
# the 7 x 7 inputs of fc6 only every third row and column (github.com/sgrvinod/a-PyTorch-Tutorial-to-Object-Detection;
# DeepLab's "fc reduced" has this shape).
_DECIMATED_BIAS = Conversion(lambda s: (4 * s[0],), lambda file: file[::4])
_DECIMATED = {
    # Shapes in files of torch and Caffe: fc6 (units, channels * 7 * 7), fc7 (units, units of fc6).
    "oihw": (
        Conversion(
            lambda s: (4 * s[3], s[2] * 49),
            lambda file: file.reshape(len(file), -1, 7, 7)[::4, :, ::3, ::3].transpose(2, 3, 1, 0),
        ),
        Conversion(lambda s: (4 * s[3], 4 * s[2]), lambda file: file[::4, ::4].T[None, None]),
    ),
    # Shapes in files of Keras: fc6 (7 * 7 * channels, units), fc7 (units of fc6, units).
    "hwio": (
        Conversion(
            lambda s: (49 * s[2], 4 * s[3]),
            lambda file: file.reshape(7, 7, -1, file.shape[1])[::3, ::3, :, ::4],
        ),
        Conversion(lambda s: (4 * s[2], 4 * s[3]), lambda file: file[None, None, ::4, ::4]),
    ),
}


def _add_step(conversion: Conversion, load: Callable[[Array], Array], dump: Callable[[Array], Array]) -> Conversion:
    """Return the conversion with a further step: ``load`` after loading, and its inverse ``dump`` before dumping."""
    outer_load, outer_dump = conversion.load, conversion.dump
    assert outer_dump is not None
    return Conversion(conversion.shape, lambda file: load(outer_load(file)), lambda ours: outer_dump(dump(ours)))


def _add_channel_swap(conversion: Conversion) -> Conversion:
    """Return a conversion that also reverses the input channels of a kernel, from BGR to RGB and back."""

    def reverse_channels(kernel: Array) -> Array:
        return kernel[:, :, ::-1]

    return _add_step(conversion, reverse_channels, reverse_channels)


def _move_background_first(conversion: Conversion, boxes: int) -> Conversion:
    """Return a conversion that also moves background, the last class of each box in the file, to the first place.

    Class c of box b has the channel b * classes + c.
    """

    def rotate_classes(array: Array, shift: int) -> Array:
        by_box = array.reshape(*array.shape[:-1], boxes, -1)
        return np.roll(by_box, shift, axis=-1).reshape(array.shape)

    return _add_step(conversion, lambda array: rotate_classes(array, 1), lambda array: rotate_classes(array, -1))


# ---- entries ----


def _make_entries(
    prefixes: Mapping[str, str],
    suffixes: tuple[str, str] = (".weight", ".bias"),
    kernel: Conversion = _OIHW,
    bgr: bool = False,
) -> Entries:
    """Return the entries of the given layers, by the paths of our parameters.

    Args:
        prefixes: Prefix of the keys of each layer in the file, by the layer's path.
        suffixes: Suffixes of the keys of weights and biases.
        kernel: Conversion of kernels.
        bgr: Whether the input channels of the file's conv1_1 are blue, green, red.
    """
    weight, bias = suffixes
    entries = {}
    for layer, prefix in prefixes.items():
        if layer == "conv4_3_norm":
            entries[f"{layer}/scale"] = Entry(prefix + weight, _SAME)
        else:
            swap = bgr and layer == "vgg/conv1_1"
            entries[f"{layer}/kernel"] = Entry(prefix + weight, _add_channel_swap(kernel) if swap else kernel)
            entries[f"{layer}/bias"] = Entry(prefix + bias, _SAME)
    return entries


def _make_classifier_entries(fc6: str, fc7: str, suffixes: tuple[str, str], axes: str) -> Entries:
    """Return the entries of fc6 and fc7 for files that have the first two layers of VGG16's classifier instead."""
    (weight, bias), (first, second) = suffixes, _DECIMATED[axes]
    return {
        "vgg/fc6/kernel": Entry(fc6 + weight, first),
        "vgg/fc6/bias": Entry(fc6 + bias, _DECIMATED_BIAS),
        "vgg/fc7/kernel": Entry(fc7 + weight, second),
        "vgg/fc7/bias": Entry(fc7 + bias, _DECIMATED_BIAS),
    }


def _make_predictor_prefixes(network: Network, boxes: str, classes: str) -> dict[str, str]:
    """Return the key prefix of each predictor. ``{}`` in ``boxes`` and ``classes`` stands for a feature map's index."""
    prefixes: dict[str, str] = {}
    for number, name in enumerate(network.feature_maps):
        prefixes[name + BOX_PREDICTOR] = boxes.format(number)
        prefixes[name + CLASS_PREDICTOR] = classes.format(number)
    return prefixes


# Indices of conv1_1 to conv5_3 in a torch sequence that also has the ReLUs and pools.
_TORCH_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def _make_vgg_prefixes(prefix: str) -> dict[str, str]:
    """Return the key prefixes of conv1_1 to conv5_3. ``{}`` in ``prefix`` stands for the index in torch's sequence."""
    return {layer: prefix.format(index) for layer, index in zip(BACKBONE_CONVS, _TORCH_INDICES, strict=True)}


def _make_vgg_and_fc_prefixes(prefix: str) -> dict[str, str]:
    """Return the key prefixes of conv1_1 to fc7 for a torch sequence in which fc6 and fc7 are convolutions."""
    return _make_vgg_prefixes(prefix) | {"vgg/fc6": prefix.format(31), "vgg/fc7": prefix.format(33)}


# ---- detectors ----


class _SequenceKeys(NamedTuple):
    """Key prefixes of a torch detector that has conv1_1 to fc7 in one sequence of modules."""

    project: str
    """Project, as in `KeyMapping.project`."""
    title: str
    """Title of the key mapping. ``{}`` stands for the title of the network."""
    backbone: str
    """Prefix of conv1_1 to fc7. ``{}`` stands for the index in the sequence."""
    norm: str
    """Prefix of conv4_3_norm."""
    extras: str
    """Prefix of the extra convolutions. ``{i}`` stands for the index of a convolution, ``{pair}`` for the index of its
    pair, and ``{j}`` for its index in the pair."""
    boxes: str
    """Prefix of the box predictors. ``{}`` stands for the index of the feature map."""
    classes: str
    """Prefix of the class predictors. ``{}`` stands for the index of the feature map."""


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
    # Files of version 1 have these keys, too, but background as the first class. `torch_file` refuses
    # such files if they state their version.
    _SequenceKeys(
        "mmdetection", "MMDetection's {}, of versions 2.0 to 2.13", "backbone.features.{}", "backbone.l2_norm",
        "backbone.extra.{i}", "bbox_head.reg_convs.{}", "bbox_head.cls_convs.{}",
    ),
)  # fmt: skip


def _make_sequence_mapping(keys: _SequenceKeys, network: Network) -> KeyMapping:
    """Return the key mapping of a torch detector that has conv1_1 to fc7 in one sequence."""
    extras = {
        name: keys.extras.format(i=number, pair=number // 2, j=number % 2)
        for number, name in enumerate(network.extra_convs)
    }
    entries = _make_entries(
        _make_vgg_and_fc_prefixes(keys.backbone)
        | {"conv4_3_norm": keys.norm}
        | extras
        | _make_predictor_prefixes(network, keys.boxes, keys.classes)
    )
    if keys.project == "mmdetection":  # background is the last class since version 2.0
        for name, boxes in zip(network.feature_maps, network.boxes_per_cell, strict=True):
            for leaf in ("kernel", "bias"):
                path = f"{name}{CLASS_PREDICTOR}/{leaf}"
                entries[path] = Entry(entries[path].key, _move_background_first(entries[path].conversion, boxes))
    return KeyMapping(keys.project, keys.title.format(network.title), entries, network)


def _make_torchvision_mapping() -> KeyMapping:
    """Return the key mapping of torchvision's SSD300: torchvision/models/detection/ssd.py.

    conv5, fc6 and fc7 are in the first of the "extra" blocks.
    """
    backbone = _make_vgg_prefixes("backbone.features.{}")
    first_block = dict(zip(BACKBONE_CONVS[10:], ("1", "3", "5"), strict=True)) | {"vgg/fc6": "7.1", "vgg/fc7": "7.3"}
    backbone |= {layer: f"backbone.extra.0.{place}" for layer, place in first_block.items()}
    extras = {
        name: f"backbone.extra.{number // 2 + 1}.{number % 2 * 2}" for number, name in enumerate(SSD300.extra_convs)
    }
    heads = _make_predictor_prefixes(
        SSD300, "head.regression_head.module_list.{}", "head.classification_head.module_list.{}"
    )
    entries = _make_entries(backbone | extras | heads) | {"conv4_3_norm/scale": Entry("backbone.scale_weight", _SAME)}
    return KeyMapping("torchvision", "torchvision's SSD300", entries, SSD300)


_NUMBERED = (".0", ".1")


def _map_to_caffe_names(layers: tuple[str, ...]) -> dict[str, str]:
    """Return Caffe's name of each layer, by the layer's path. The name is the last part of the path."""
    return {layer: layer.removeprefix("vgg/") for layer in layers}


def _make_caffe_mapping(network: Network) -> KeyMapping:
    """Return the key mapping of a Caffe detector.

    Source: github.com/weiliu89/caffe, branch ssd, examples/ssd and python/caffe/model_libs.py.
    """
    entries = _make_entries(_map_to_caffe_names(network.layer_paths()), _NUMBERED, bgr=True)
    return KeyMapping("caffe", f"Caffe's {network.title}", entries, network, bgr=True)


def _make_keras_mapping(network: Network) -> KeyMapping:
    """Return the key mapping of an ssd_keras detector.

    The weights were ported from Caffe, so they have Caffe's layer names, and their channel order is BGR.

    Source: github.com/pierluigiferrari/ssd_keras, folder models.
    """
    entries = _make_entries(_map_to_caffe_names(network.layer_paths()), _NUMBERED, _SAME, bgr=True)
    return KeyMapping("ssd_keras", f"ssd_keras' {network.title}", entries, network, bgr=True)


# ---- backbones ----

TORCHVISION_FEATURES = KeyMapping(
    "torchvision_features",
    "torchvision's VGG16 features",
    _make_entries(_make_vgg_prefixes("features.{}")),
    ignored=("classifier.",),
)
"""Key mapping of vgg16_features-amdegroot-88682ab5.pth, whose classifier contains NaN."""


def _make_torch_backbone_mappings() -> tuple[KeyMapping, ...]:
    """Return the key mappings of VGG16 in torch projects."""
    classifier = _make_classifier_entries("classifier.0", "classifier.3", (".weight", ".bias"), "oihw")
    return (
        KeyMapping("vgg16_reducedfc", "ssd.pytorch's vgg16_reducedfc", _make_entries(_make_vgg_and_fc_prefixes("{}"))),
        KeyMapping(
            "torchvision_vgg16",
            "torchvision's VGG16",
            {**TORCHVISION_FEATURES.entries, **classifier},
            ignored=("classifier.6.",),
        ),
        TORCHVISION_FEATURES,
    )


_BACKBONE_LAYERS = (*BACKBONE_CONVS, "vgg/fc6", "vgg/fc7")


def _make_caffe_backbone_mappings() -> tuple[KeyMapping, ...]:
    """Return the key mappings of VGG16 in Caffe."""
    reduced = _make_entries(_map_to_caffe_names(_BACKBONE_LAYERS), _NUMBERED, bgr=True)
    full = _make_entries(_map_to_caffe_names(BACKBONE_CONVS), _NUMBERED, bgr=True) | _make_classifier_entries(
        "fc6", "fc7", _NUMBERED, "oihw"
    )
    title = "Caffe's VGG16 with reduced fc6 and fc7"
    return (
        KeyMapping("caffe_vgg16_reduced", title, reduced, bgr=True, ignored=("fc8.",)),
        KeyMapping("caffe_vgg16", "Caffe's VGG16", full, bgr=True, ignored=("fc8.",)),
    )


def _make_keras_backbone_mappings() -> tuple[KeyMapping, ...]:
    """Return the key mappings of VGG16 in Keras. The weights were ported from Caffe, so their channel order is BGR.

    Source: keras.applications.vgg16.
    """
    names = {layer: f"block{layer[-3]}_conv{layer[-1]}" for layer in BACKBONE_CONVS}
    convs = _make_entries(names, _NUMBERED, _SAME, bgr=True)
    full = convs | _make_classifier_entries("fc1", "fc2", _NUMBERED, "hwio")
    reduced = _make_entries(_map_to_caffe_names(_BACKBONE_LAYERS), _NUMBERED, _SAME, bgr=True)
    return (
        KeyMapping("keras_vgg16", "Keras' VGG16", full, bgr=True, ignored=("predictions.",)),
        KeyMapping("keras_vgg16", "Keras' VGG16 without its top", convs, bgr=True),
        KeyMapping("caffe_vgg16_reduced", "ssd_keras' VGG16 with reduced fc6 and fc7", reduced, bgr=True),
    )


KEY_MAPPINGS: dict[str, tuple[KeyMapping, ...]] = {
    "torch": (
        _make_torchvision_mapping(),
        *(_make_sequence_mapping(keys, network) for keys in _SEQUENCE_KEYS for network in (SSD300, SSD512)),
        *_make_torch_backbone_mappings(),
    ),
    "caffe": (
        *(_make_caffe_mapping(network) for network in (SSD300, SSD512, SSD500, SSD300_POOL6)),
        *_make_caffe_backbone_mappings(),
    ),
    "keras": (*(_make_keras_mapping(network) for network in (SSD300, SSD512)), *_make_keras_backbone_mappings()),
}
"""Key mappings by the kind of file: torch (also safetensors), caffe or keras."""


def find_key_mapping(shapes: Mapping[str, Shape], kind: str) -> tuple[KeyMapping, float]:
    """Return the key mapping that is most similar to the keys of a file, and its similarity.

    Args:
        shapes: Shape of each tensor in the file, by key.
        kind: ``torch``, ``caffe`` or ``keras``.

    Returns:
        The mapping, and its similarity from 0 to 1: the number of keys that the file and the mapping have in common,
        divided by the number of keys that at least one of them has. A key is only in common if its tensor has the same
        number of axes, because Caffe's fc6 can be a matrix or a convolution with the same key.
    """

    def compute_similarity(mapping: KeyMapping) -> float:
        ranks = {key: len(shape) for key, shape in shapes.items() if not mapping.ignores(key)}
        expected = mapping.ranks
        return len(ranks.items() & expected.items()) / max(1, len(ranks.keys() | expected.keys()))

    best = max(KEY_MAPPINGS[kind], key=compute_similarity)
    return best, compute_similarity(best)
