"""Tests of key mappings against the key lists of published files, and of conversions against plain loops."""

import numpy as np
import pytest
from helpers.paths import ASSETS

from ssd_jax.models.parameters import compute_parameter_shapes
from ssd_jax.weights.key_mappings import KEY_MAPPINGS, find_key_mapping
from ssd_jax.weights.presets import SSD300, make_numbered_classes

KEY_LISTS = ASSETS / "weight_keys"
# Name of the list, kind of file, number of classes without background, and the expected project and network.
PUBLISHED = [
    ("torchvision", "torch", 90, "torchvision", "SSD300"),
    ("ssd_pytorch", "torch", 20, "ssd.pytorch", "SSD300"),
    ("lufficc_ssd300", "torch", 20, "lufficc", "SSD300"),
    ("lufficc_ssd512", "torch", 20, "lufficc", "SSD512"),
    ("lufficc_ssd512_coco", "torch", 80, "lufficc", "SSD512"),
    ("lufficc_ssd300_v1", "torch", 20, "lufficc", "SSD300"),
    ("mmdetection_ssd300", "torch", 80, "mmdetection", "SSD300"),
    ("mmdetection_ssd512", "torch", 80, "mmdetection", "SSD512"),
    ("mmdetection_ssd300_early", "torch", 80, "mmdetection", "SSD300"),
    ("caffe_ssd300", "caffe", 20, "caffe", "SSD300"),
    ("caffe_ssd512", "caffe", 80, "caffe", "SSD512"),
    ("caffe_ssd500", "caffe", 20, "caffe", "SSD500"),
    ("caffe_ssd300_pool6", "caffe", 20, "caffe", "the first SSD300, with pool6"),
    ("keras_ssd300", "keras", 20, "ssd_keras", "SSD300"),
    ("keras_ssd512", "keras", 20, "ssd_keras", "SSD512"),
    ("vgg16_reducedfc", "torch", None, "vgg16_reducedfc", None),
    ("torchvision_vgg16", "torch", None, "torchvision_vgg16", None),
    ("caffe_vgg16_fc_reduced", "caffe", None, "caffe_vgg16_reduced", None),
    ("caffe_vgg16", "caffe", None, "caffe_vgg16", None),
    ("keras_vgg16", "keras", None, "keras_vgg16", None),
]


def read_published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return a dict from each key of a published file to the shape of its tensor."""
    lines = (KEY_LISTS / f"{name}.txt").read_text().splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return {key: tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for key, shape in pairs}


@pytest.mark.parametrize(("name", "kind", "classes", "project", "network"), PUBLISHED)
def test_key_mapping_has_every_published_key_with_its_shape(name, kind, classes, project, network):
    published = read_published_shapes(name)
    mapping, similarity = find_key_mapping(published, kind)
    assert (mapping.project, mapping.network and mapping.network.title) == (project, network)
    assert similarity == 1
    model = mapping.network or SSD300
    shapes = compute_parameter_shapes(model.make_model(model.default_boxes["voc"], make_numbered_classes(classes or 1)))
    expected = {key: conversion.shape(shapes[path]) for path, (key, conversion) in mapping.entries.items()}
    assert expected == {key: shape for key, shape in published.items() if not mapping.ignores(key)}
    if mapping.network is not None:
        assert set(mapping.entries) == set(shapes), "every parameter has a key"


def test_every_key_list_is_tested():
    assert {path.stem for path in KEY_LISTS.glob("*.txt")} == {row[0] for row in PUBLISHED}


def test_find_key_mapping_tolerates_a_missing_or_additional_key():
    """The mapping of a file is also found if one key is missing, or if there is an additional key."""
    for kind, mappings in KEY_MAPPINGS.items():
        for mapping in mappings:
            ranks = {key: (1,) * rank for key, rank in mapping.ranks.items()}
            key = next(iter(ranks))
            assert find_key_mapping(ranks, kind) == (mapping, 1)
            assert find_key_mapping({k: s for k, s in ranks.items() if k != key}, kind)[0] is mapping
            assert find_key_mapping({**ranks, "epoch": ()}, kind)[0] is mapping


@pytest.mark.parametrize("kind", ["torch", "caffe", "keras"])
def test_conversions_give_parameter_shapes_and_are_invertible(kind):
    rng = np.random.default_rng(0)
    for mapping in KEY_MAPPINGS[kind]:
        model = mapping.network or SSD300
        shapes = compute_parameter_shapes(model.make_model(model.default_boxes["voc"], ("a", "b"), width=0.125))
        for path, (_, conversion) in mapping.entries.items():
            stored = rng.normal(size=conversion.shape(shapes[path])).astype(np.float32)
            loaded = conversion.load(stored)
            assert loaded.shape == shapes[path], (mapping.title, path)
            if conversion.dump is not None:
                np.testing.assert_array_equal(conversion.dump(loaded), stored)


def load_parameter(kind: str, title: str, path: str, stored: np.ndarray) -> np.ndarray:
    """Convert a stored tensor to the parameter at ``path`` with the key mapping of the given title."""
    (mapping,) = [mapping for mapping in KEY_MAPPINGS[kind] if mapping.title == title]
    return mapping.entries[path].conversion.load(stored)


def test_torch_fc6_conversion_equals_a_plain_loop():
    """fc6 keeps every fourth unit and every third row and column. The input is flattened as channel, row, column."""
    units, channels = 8, 3
    full = np.arange(units * channels * 49, dtype=np.float32).reshape(units, channels * 49)
    reduced = load_parameter("torch", "torchvision's VGG16", "vgg/fc6/kernel", full)
    assert reduced.shape == (3, 3, channels, 2)
    for unit in range(2):
        for channel in range(channels):
            for row in range(3):
                for column in range(3):
                    expected = full[4 * unit, channel * 49 + 3 * row * 7 + 3 * column]
                    assert reduced[row, column, channel, unit] == expected


def test_keras_fc6_conversion_equals_a_plain_loop():
    """In Keras, the input of fc6 is flattened as row, column, channel."""
    units, channels = 8, 3
    full = np.arange(units * channels * 49, dtype=np.float32).reshape(channels * 49, units)
    reduced = load_parameter("keras", "Keras' VGG16", "vgg/fc6/kernel", full)
    for unit in range(2):
        for channel in range(channels):
            for row in range(3):
                for column in range(3):
                    expected = full[(3 * row * 7 + 3 * column) * channels + channel, 4 * unit]
                    assert reduced[row, column, channel, unit] == expected


def test_fc7_conversions_equal_a_plain_loop():
    full = np.arange(12 * 8, dtype=np.float32).reshape(12, 8)  # (units, units of fc6)
    torch = load_parameter("torch", "torchvision's VGG16", "vgg/fc7/kernel", full)
    keras = load_parameter("keras", "Keras' VGG16", "vgg/fc7/kernel", full.T)
    assert torch.shape == keras.shape == (1, 1, 2, 3)
    for unit in range(3):
        for channel in range(2):
            assert torch[0, 0, channel, unit] == keras[0, 0, channel, unit] == full[4 * unit, 4 * channel]


def test_mmdetection_conversion_makes_background_the_first_class():
    """There are four boxes per cell and three classes. The value 32 means class 2 of box 3; 0 is background."""
    stored = np.array([11, 12, 10, 21, 22, 20, 31, 32, 30, 41, 42, 40], np.float32)
    loaded = load_parameter("torch", "MMDetection's SSD300", "conv4_3_norm_mbox_conf/bias", stored)
    np.testing.assert_array_equal(loaded, [10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42])
