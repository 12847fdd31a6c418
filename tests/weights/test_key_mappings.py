"""The tables of keys against the lists of published files, and conversions against slow loops."""

import numpy as np
import pytest
from helpers.paths import ASSETS

from ssd_jax.weights.key_mappings import LAYOUTS, find_layout
from ssd_jax.weights.networks import SSD300, numbered, parameter_shapes

LISTS = ASSETS / "weight_layouts"
# Name of the list, kind of file, classes without background, and what it is taken for.
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


def read_list(name: str) -> dict[str, tuple[int, ...]]:
    lines = (LISTS / f"{name}.txt").read_text().splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return {key: tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for key, shape in pairs}


@pytest.mark.parametrize(("name", "kind", "classes", "project", "network"), PUBLISHED)
def test_every_published_key_with_its_shape(name, kind, classes, project, network):
    published = read_list(name)
    layout, likeness = find_layout(published, kind)
    assert (layout.project, layout.network and layout.network.title) == (project, network)
    assert likeness == 1
    model = layout.network or SSD300
    shapes = parameter_shapes(model.model(model.default_boxes["voc"], numbered(classes or 1)))
    ours = {entry.key: entry.shape(shapes[path]) for path, entry in layout.entries.items()}
    assert ours == {key: shape for key, shape in published.items() if not layout.ignores(key)}
    if layout.network is not None:
        assert set(layout.entries) == set(shapes), "every parameter has its key"


def test_every_list_is_tried():
    assert {path.stem for path in LISTS.glob("*.txt")} == {row[0] for row in PUBLISHED}


def test_layouts_differ():
    """Of each a file is taken for itself, with its own keys missing or others' added."""
    for kind, layouts in LAYOUTS.items():
        for layout in layouts:
            ranks = {key: (1,) * rank for key, rank in layout.ranks.items()}
            key = next(iter(ranks))
            assert find_layout(ranks, kind) == (layout, 1)
            assert find_layout({k: s for k, s in ranks.items() if k != key}, kind)[0] is layout
            assert find_layout({**ranks, "epoch": ()}, kind)[0] is layout


@pytest.mark.parametrize("kind", ["torch", "caffe", "keras"])
def test_what_is_loaded_has_the_shape_it_should_and_goes_back(kind):
    rng = np.random.default_rng(0)
    for layout in LAYOUTS[kind]:
        model = layout.network or SSD300
        shapes = parameter_shapes(model.model(model.default_boxes["voc"], ("a", "b"), width=0.125))
        for path, entry in layout.entries.items():
            there = rng.normal(size=entry.shape(shapes[path])).astype(np.float32)
            here = entry.load(there)
            assert here.shape == shapes[path], (layout.title, path)
            if entry.dump is not None:
                np.testing.assert_array_equal(entry.dump(here), there)


def entry_of(kind: str, title: str, path: str):
    (layout,) = [layout for layout in LAYOUTS[kind] if layout.title == title]
    return layout.entries[path]


def test_fc6_of_torch_by_loops():
    """Every fourth unit of 4096, every third row and column of 7 x 7; flattened as channel, row, column."""
    units, channels = 8, 3
    full = np.arange(units * channels * 49, dtype=np.float32).reshape(units, channels * 49)
    reduced = entry_of("torch", "torchvision's VGG16", "vgg/fc6/kernel").load(full)
    assert reduced.shape == (3, 3, channels, 2)
    for unit in range(2):
        for channel in range(channels):
            for row in range(3):
                for column in range(3):
                    expected = full[4 * unit, channel * 49 + 3 * row * 7 + 3 * column]
                    assert reduced[row, column, channel, unit] == expected


def test_fc6_of_keras_by_loops():
    """Flattened as row, column, channel."""
    units, channels = 8, 3
    full = np.arange(units * channels * 49, dtype=np.float32).reshape(channels * 49, units)
    reduced = entry_of("keras", "Keras' VGG16", "vgg/fc6/kernel").load(full)
    for unit in range(2):
        for channel in range(channels):
            for row in range(3):
                for column in range(3):
                    expected = full[(3 * row * 7 + 3 * column) * channels + channel, 4 * unit]
                    assert reduced[row, column, channel, unit] == expected


def test_fc7_by_loops():
    full = np.arange(12 * 8, dtype=np.float32).reshape(12, 8)  # (units, units of fc6)
    torch = entry_of("torch", "torchvision's VGG16", "vgg/fc7/kernel").load(full)
    keras = entry_of("keras", "Keras' VGG16", "vgg/fc7/kernel").load(full.T)
    assert torch.shape == keras.shape == (1, 1, 2, 3)
    for unit in range(3):
        for of in range(2):
            assert torch[0, 0, of, unit] == keras[0, 0, of, unit] == full[4 * unit, 4 * of]


def test_background_comes_first_here():
    """Of two boxes of three classes, whose background MMDetection has last."""
    entry = entry_of("torch", "MMDetection's SSD300", "conv4_3_norm_mbox_conf/bias")
    there = np.array([11, 12, 10, 21, 22, 20, 31, 32, 30, 41, 42, 40], np.float32)
    np.testing.assert_array_equal(entry.load(there), [10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42])
