"""What others call our parameters, and how they lay them out: one table for each kind of published file.

Parameters are named by their path here, ``vgg/conv1_1/kernel``; a file's tensors by its own keys. Of a
Caffe or Keras file the key is ``<layer>.<number>``: 0 the weight, 1 the bias.

Where the facts are from stands beside each table; lists of all keys with their shapes, from those
projects, are the fixtures of tests/test_layouts.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_jax.models.ssd import BOX_PREDICTOR, CLASS_PREDICTOR
from ssd_jax.weights.networks import SSD300, SSD300_POOL6, SSD500, SSD512, TRUNK, Network, Shape


class Entry(NamedTuple):
    """Where one of our parameters stands in a file."""

    key: str
    shape: Callable[[Shape], Shape]
    """Of the file's tensor, by that of ours."""
    load: Callable[[np.ndarray], np.ndarray]
    """The file's tensor to ours."""
    dump: Callable[[np.ndarray], np.ndarray] | None = None
    """Ours to the file's; None where something was left out in loading."""


class Layout(NamedTuple):
    """The keys of one kind of file."""

    project: str
    """Who published it: a key of `origins.ORIGINS`."""
    title: str
    entries: Mapping[str, Entry]
    """By the path of our parameter."""
    network: Network | None = None
    """None: a trunk alone."""
    bgr: bool = False
    """conv1_1 takes blue, green, red there."""
    ignored: tuple[str, ...] = ()
    """What other keys, of a classifier say, may begin with."""

    @property
    def ranks(self) -> dict[str, int]:
        """How many axes each of the file's tensors has."""
        ours = {"kernel": (1, 1, 1, 1)}
        return {e.key: len(e.shape(ours.get(path.rpartition("/")[2], (1,)))) for path, e in self.entries.items()}

    def ignores(self, key: str) -> bool:
        return bool(self.ignored) and key.startswith(self.ignored)


# ---- kinds of entries ----


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _vector(key: str) -> Entry:
    return Entry(key, tuple, _same, _same)


def _conv(key: str, *, flip: bool = False) -> Entry:
    """OIHW there (torch, Caffe), HWIO here. flip: its input channels are BGR there."""

    def turn(kernel: np.ndarray) -> np.ndarray:
        return kernel[:, :, ::-1] if flip else kernel

    return Entry(
        key,
        lambda s: (s[3], s[2], s[0], s[1]),
        lambda there: turn(there.transpose(2, 3, 1, 0)),
        lambda here: turn(here).transpose(3, 2, 0, 1),
    )


def _keras_conv(key: str, *, flip: bool = False) -> Entry:
    """HWIO in both."""

    def turn(kernel: np.ndarray) -> np.ndarray:
        return kernel[:, :, ::-1] if flip else kernel

    return Entry(key, tuple, turn, turn)


def _background_first(entry: Entry, boxes: int) -> Entry:
    """Of a class predictor whose background is each box's last class there; channel = box * classes + class."""

    def roll(value: np.ndarray, by: int) -> np.ndarray:
        channels = value.reshape(*value.shape[:-1], boxes, -1)
        return np.roll(channels, by, axis=-1).reshape(value.shape)

    assert entry.dump is not None
    load, dump = entry.load, entry.dump
    return entry._replace(load=lambda there: roll(load(there), 1), dump=lambda here: dump(roll(here, -1)))


# The classifier of VGG16 becomes fc6 and fc7 as ports do it: every fourth unit, every third row and
# column (github.com/sgrvinod/a-PyTorch-Tutorial-to-Object-Detection; DeepLab's "fc reduced" is of this shape).


def _times4(shape: Shape) -> Shape:
    return (4 * shape[0],)


def _decimated_fc6(key: str) -> Entry:
    """(units, channels * 7 * 7) in torch and Caffe."""
    return Entry(
        key,
        lambda s: (4 * s[3], s[2] * 49),
        lambda there: there.reshape(len(there), -1, 7, 7)[::4, :, ::3, ::3].transpose(2, 3, 1, 0),
    )


def _decimated_fc7(key: str) -> Entry:
    """(units, units) in torch and Caffe."""
    return Entry(key, lambda s: (4 * s[3], 4 * s[2]), lambda there: there[::4, ::4].T[None, None])


def _decimated_keras_fc6(key: str) -> Entry:
    """(7 * 7 * channels, units)."""
    return Entry(
        key,
        lambda s: (49 * s[2], 4 * s[3]),
        lambda there: there.reshape(7, 7, -1, there.shape[1])[::3, ::3, :, ::4],
    )


def _decimated_keras_fc7(key: str) -> Entry:
    return Entry(key, lambda s: (4 * s[2], 4 * s[3]), lambda there: there[None, None, ::4, ::4])


def _decimated_bias(key: str) -> Entry:
    return Entry(key, _times4, lambda there: there[::4])


def _decimated(
    fc6: str, fc7: str, weight: str, bias: str, first: Callable[[str], Entry], second: Callable[[str], Entry]
) -> dict[str, Entry]:
    return {
        "vgg/fc6/kernel": first(fc6 + weight),
        "vgg/fc6/bias": _decimated_bias(fc6 + bias),
        "vgg/fc7/kernel": second(fc7 + weight),
        "vgg/fc7/bias": _decimated_bias(fc7 + bias),
    }


# ---- tables ----


def _entries(
    stems: Mapping[str, str],
    weight: str = ".weight",
    bias: str = ".bias",
    conv: Callable[..., Entry] = _conv,
    bgr: bool = False,
) -> dict[str, Entry]:
    """stems: what keys of a layer begin with, by the layer's path here; L2Norm has a weight only."""
    entries = {}
    for layer, stem in stems.items():
        if layer == "conv4_3_norm":
            entries[f"{layer}/scale"] = _vector(stem + weight)
        else:
            entries[f"{layer}/kernel"] = conv(stem + weight, flip=bgr and layer == "vgg/conv1_1")
            entries[f"{layer}/bias"] = _vector(stem + bias)
    return entries


def _predictors(network: Network, boxes: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Stems of the predictors; boxes and classes: for each map."""
    stems: dict[str, str] = {}
    for source, box, label in zip(network.sources, boxes, classes, strict=True):
        stems |= {source + BOX_PREDICTOR: box, source + CLASS_PREDICTOR: label}
    return stems


def _numbered(stem: str, network: Network) -> list[str]:
    return [stem.format(k) for k in range(len(network.sources))]


def _extras(network: Network, stems: Sequence[str]) -> dict[str, str]:
    names = [f"conv{number}_{i}" for number, _ in enumerate(network.extras, start=6) for i in (1, 2)]
    return dict(zip(names, stems, strict=True))


# Places of conv1_1 to conv5_3 in torch's sequence of convolutions, ReLUs and pools.
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def _sequence(stem: str) -> dict[str, str]:
    return {layer: stem.format(place) for layer, place in zip(TRUNK, _PLACES, strict=True)}


def _ssd_pytorch_trunk(stem: str) -> dict[str, str]:
    return _sequence(stem) | {"vgg/fc6": stem.format(31), "vgg/fc7": stem.format(33)}


def _torchvision(network: Network) -> Layout:
    """torchvision/models/detection/ssd.py: conv5, fc6 and fc7 stand in the first of the "extra" blocks."""
    conv5 = dict(zip(TRUNK[10:], ("1", "3", "5"), strict=True)) | {"vgg/fc6": "7.1", "vgg/fc7": "7.3"}
    stems = (
        {layer: f"backbone.features.{place}" for layer, place in zip(TRUNK[:10], _PLACES[:10], strict=True)}
        | {layer: f"backbone.extra.0.{place}" for layer, place in conv5.items()}
        | _extras(network, [f"backbone.extra.{m}.{i}" for m in range(1, 1 + len(network.extras)) for i in (0, 2)])
        | _predictors(
            network,
            _numbered("head.regression_head.module_list.{}", network),
            _numbered("head.classification_head.module_list.{}", network),
        )
    )
    entries = _entries(stems) | {"conv4_3_norm/scale": _vector("backbone.scale_weight")}
    return Layout("torchvision", f"torchvision's {network.title}", entries, network)


def _ssd_pytorch(network: Network) -> Layout:
    """github.com/amdegroot/ssd.pytorch, ssd.py."""
    stems = (
        _ssd_pytorch_trunk("vgg.{}")
        | {"conv4_3_norm": "L2Norm"}
        | _extras(network, [f"extras.{i}" for i in range(2 * len(network.extras))])
        | _predictors(network, _numbered("loc.{}", network), _numbered("conf.{}", network))
    )
    return Layout("ssd.pytorch", f"ssd.pytorch's {network.title}", _entries(stems), network)


def _lufficc(network: Network, *, early: bool) -> Layout:
    """github.com/lufficc/SSD, ssd/modeling; early: release 1.0."""
    backbone = "" if early else "backbone."
    boxes, classes = (
        ("regression_headers.{}", "classification_headers.{}")
        if early
        else ("box_head.predictor.reg_headers.{}", "box_head.predictor.cls_headers.{}")
    )
    stems = (
        _ssd_pytorch_trunk(backbone + "vgg.{}")
        | {"conv4_3_norm": f"{backbone}l2_norm"}
        | _extras(network, [f"{backbone}extras.{i}" for i in range(2 * len(network.extras))])
        | _predictors(network, _numbered(boxes, network), _numbered(classes, network))
    )
    title = f"lufficc's {network.title}{', of its release 1.0' if early else ''}"
    return Layout("lufficc", title, _entries(stems), network)


def _caffe_trunk_names() -> dict[str, str]:
    return {layer: layer.removeprefix("vgg/") for layer in (*TRUNK, "vgg/fc6", "vgg/fc7")}


def _caffe_names(network: Network) -> dict[str, str]:
    """Caffe's own, which are ours."""
    return {layer: layer.removeprefix("vgg/") for layer in network.layers()}


def _caffe(network: Network) -> Layout:
    """github.com/weiliu89/caffe, branch ssd, examples/ssd and python/caffe/model_libs.py."""
    entries = _entries(_caffe_names(network), ".0", ".1", bgr=True)
    return Layout("caffe", f"Caffe's {network.title}", entries, network, bgr=True)


def _keras(network: Network) -> Layout:
    """github.com/pierluigiferrari/ssd_keras, models; ported from Caffe, names and BGR with it."""
    entries = _entries(_caffe_names(network), ".0", ".1", _keras_conv, bgr=True)
    return Layout("ssd_keras", f"ssd_keras' {network.title}", entries, network, bgr=True)


# The classifier of vgg16_features-amdegroot-88682ab5.pth is not valid.
FEATURES = Layout(
    "torchvision_features", "torchvision's VGG16 features", _entries(_sequence("features.{}")), ignored=("classifier.",)
)


def _torch_trunks() -> tuple[Layout, ...]:
    decimated = _decimated("classifier.0", "classifier.3", ".weight", ".bias", _decimated_fc6, _decimated_fc7)
    return (
        Layout("vgg16_reducedfc", "ssd.pytorch's vgg16_reducedfc", _entries(_ssd_pytorch_trunk("{}"))),
        Layout(
            "torchvision_vgg16",
            "torchvision's VGG16",
            {**FEATURES.entries, **decimated},
            ignored=("classifier.6.",),
        ),
        FEATURES,
    )


def _caffe_trunks() -> tuple[Layout, ...]:
    names = _caffe_trunk_names()
    reduced = _entries(names, ".0", ".1", bgr=True)
    decimated = _decimated("fc6", "fc7", ".0", ".1", _decimated_fc6, _decimated_fc7)
    full = _entries({layer: names[layer] for layer in TRUNK}, ".0", ".1", bgr=True) | decimated
    return (
        Layout("caffe_vgg16_reduced", "Caffe's VGG16 with reduced fc6 and fc7", reduced, bgr=True, ignored=("fc8.",)),
        Layout("caffe_vgg16", "Caffe's VGG16", full, bgr=True, ignored=("fc8.",)),
    )


def _keras_trunks() -> tuple[Layout, ...]:
    """keras.applications.vgg16: ported from Caffe, so BGR."""
    trunk = _entries({layer: f"block{layer[-3]}_conv{layer[-1]}" for layer in TRUNK}, ".0", ".1", _keras_conv, bgr=True)
    decimated = _decimated("fc1", "fc2", ".0", ".1", _decimated_keras_fc6, _decimated_keras_fc7)
    reduced = _entries(_caffe_trunk_names(), ".0", ".1", _keras_conv, bgr=True)
    return (
        Layout("keras_vgg16", "Keras' VGG16", trunk | decimated, bgr=True, ignored=("predictions.",)),
        Layout("keras_vgg16", "Keras' VGG16 without its top", trunk, bgr=True),
        Layout("caffe_vgg16_reduced", "ssd_keras' VGG16 with reduced fc6 and fc7", reduced, bgr=True),
    )


def _mmdetection(network: Network, *, early: bool) -> Layout:
    """github.com/open-mmlab/mmdetection, SSDVGG, SSDNeck and SSDHead; early: up to version 2.13.

    The last class is background since version 2.0. Version 1 has it first, under the early keys.
    """
    places = dict(zip(("vgg/fc6", "vgg/fc7"), (31, 33), strict=True))
    count = len(network.extras)
    if early:
        extras = [f"backbone.extra.{i}" for i in range(2 * count)]
    else:
        extras = [f"neck.extra_layers.{m}.{i}.conv" for m in range(count) for i in (0, 1)]
    stems = (
        _sequence("backbone.features.{}")
        | {layer: f"backbone.features.{place}" for layer, place in places.items()}
        | {"conv4_3_norm": "backbone.l2_norm" if early else "neck.l2_norm"}
        | _extras(network, extras)
        | _predictors(
            network,
            _numbered("bbox_head.reg_convs.{}" if early else "bbox_head.reg_convs.{}.0", network),
            _numbered("bbox_head.cls_convs.{}" if early else "bbox_head.cls_convs.{}.0", network),
        )
    )
    entries = _entries(stems)
    for source, boxes in zip(network.sources, network.boxes_per_cell, strict=True):
        for leaf in ("kernel", "bias"):
            path = f"{source}{CLASS_PREDICTOR}/{leaf}"
            entries[path] = _background_first(entries[path], boxes)
    title = f"MMDetection's {network.title}{', of its version 2.0 to 2.13' if early else ''}"
    return Layout("mmdetection", title, entries, network)


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "torch": (
        _torchvision(SSD300),
        *(_ssd_pytorch(network) for network in (SSD300, SSD512)),
        *(
            layout(network, early=early)
            for layout in (_lufficc, _mmdetection)
            for early in (False, True)
            for network in (SSD300, SSD512)
        ),
        *_torch_trunks(),
    ),
    "caffe": (*(_caffe(network) for network in (SSD300, SSD512, SSD500, SSD300_POOL6)), *_caffe_trunks()),
    "keras": (*(_keras(network) for network in (SSD300, SSD512)), *_keras_trunks()),
}
"""By the kind of file."""


def find_layout(shapes: Mapping[str, Shape], kind: str) -> tuple[Layout, float]:
    """The layout whose keys are most like a file's, and how like: shared keys over all of both.

    A key is shared where the tensor has as many axes, too: Caffe's fc6 is a matrix or a convolution.
    """

    def likeness(layout: Layout) -> float:
        ranks = {key: len(shape) for key, shape in shapes.items() if not layout.ignores(key)}
        expected = layout.ranks
        return len(ranks.items() & expected.items()) / max(1, len(ranks.keys() | expected.keys()))

    best = max(LAYOUTS[kind], key=likeness)
    return best, likeness(best)
