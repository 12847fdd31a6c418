"""Tests of the recommended config."""

import dataclasses
import shlex

import numpy as np
import pytest
from helpers.cli import ROOT

from ssd_jax.commands import train
from ssd_jax.commands.config_options import parse_config_options
from ssd_jax.config import Config, Data, Model
from ssd_jax.data.check import recommendation
from ssd_jax.data.check.recommendation import (
    DEFAULT_MAX_OBJECTS,
    OWN_DATA_BOXES,
    find_accelerator,
    format_data_options,
    recommend_config,
)
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.runs.config_file import load_config

CONFIG = Config(data=Data(root="my data", val_split="check"))


def make_source(side, size, images=20):
    """Return a source of images with five square objects each, whose sides are given relative to the image."""
    rng = np.random.default_rng(0)
    annotations = []
    for k in range(images):
        corners = rng.random((5, 2)) * (1 - side)
        boxes = np.concatenate([corners, corners + side], axis=1) * size
        annotations.append(make_annotation(f"{k}", f"{k}.jpg", (size, size), boxes.tolist(), [1] * 5))
    return FolderSource(annotations, ("cat",))


@pytest.mark.parametrize(
    ("side", "size", "has_accelerator", "name", "words"),
    [
        (0.4, 640, True, "own_data", "GPU"),
        (0.4, 640, False, "own_data_small", "no GPU"),
        (0.4, 128, True, "own_data_small", "small (median of the longer side: 128 px)"),
        (0.07, 640, False, "own_data", "160 px"),
        (0.07, 128, True, "own_data", "160 px"),
        (0.04, 1024, True, "own_data_512", "100% of the objects"),
        (0.04, 1024, False, "own_data_512", "three times as many pixels"),
        (0.01, 4000, True, "own_data", "100% with 512 px"),
    ],
)
def test_recommend_config_depends_on_objects_images_and_device(side, size, has_accelerator, name, words):
    result = recommend_config(make_source(side, size), CONFIG, has_accelerator=has_accelerator)
    assert result.name == name and words in result.reason


def test_recommend_config_gives_a_rare_class_of_small_objects_the_same_weight():
    frequent, rare = make_source(0.4, 640, images=50), make_source(0.07, 640, images=4)
    annotations = [*frequent.annotations(), *(a._replace(labels=a.labels + 1) for a in rare.annotations())]
    both = FolderSource(annotations, ("cat", "mouse"))
    assert recommend_config(frequent, CONFIG, has_accelerator=False).name == "own_data_small"
    assert recommend_config(both, CONFIG, has_accelerator=False).name == "own_data"


def test_recommended_command_can_be_run_and_keeps_the_splits(monkeypatch):
    monkeypatch.chdir(ROOT)
    result = recommend_config(make_source(0.4, 640), CONFIG, has_accelerator=False)
    program, command, *argv = shlex.split(result.command)
    assert (program, command) == ("ssd-jax", "train")
    config = parse_config_options(train.TrainOptions, "train", argv).config
    assert config.name == result.name
    assert (config.data.root, config.data.val_split, config.data.train_split) == ("my data", "check", "train")


def recommend_and_parse(source, config, monkeypatch):
    """Return the config that the recommended command trains with."""
    monkeypatch.chdir(ROOT)
    command = recommend_config(source, config, has_accelerator=False).command
    return parse_config_options(train.TrainOptions, "train", shlex.split(command)[2:]).config


def test_recommended_command_keeps_the_options_that_the_user_gave(monkeypatch):
    data = Data(root="d", val_fraction=0.3, max_objects=100, train_on_difficult=False, strict=True, tfds_dir="t f")
    config = Config(name="own_data", data=data, model=Model(class_names=("cat", "a dog")))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, eval_every=0))
    parsed = recommend_and_parse(make_source(0.4, 640), config, monkeypatch)
    assert parsed.name == "own_data_small" and parsed.train.eval_every == 0
    assert dataclasses.replace(parsed.data, max_image_size=data.max_image_size) == data
    assert parsed.model.class_names == ("cat", "a dog")


@pytest.mark.parametrize(
    ("name", "given", "most", "expected"),
    [("own_data", 64, 5, 64), ("own_data", 64, 88, 88), ("own_data_512", 128, 100, 100), ("own_data", 30, 88, 30)],
)
def test_recommended_command_has_room_for_the_objects_of_each_image(name, given, most, expected, monkeypatch):
    source = make_source(0.4, 640)
    first = source.annotation(0)
    boxes = [[k, 0, k + 200, 200] for k in range(most)]
    crowded = FolderSource([make_annotation("a", "a.jpg", (first.width, 640), boxes, [1] * most)], ("cat",))
    config = Config(name=name, data=Data(root="d", max_objects=given))
    assert recommend_and_parse(crowded, config, monkeypatch).data.max_objects == expected


@pytest.mark.parametrize("name", OWN_DATA_BOXES)
def test_default_max_objects_is_that_of_the_config_files(name):
    assert load_config(ROOT / "configs" / f"{name}.py").data.max_objects == DEFAULT_MAX_OBJECTS[name]


def test_recommended_command_has_a_wider_network_for_many_images_on_a_gpu(monkeypatch):
    source = make_source(0.4, 640, images=2000)
    assert "--model.width 0.5" in recommend_config(source, CONFIG, has_accelerator=True).command
    assert "--model.width" not in recommend_config(source, CONFIG, has_accelerator=False).command


def test_recommend_config_returns_none_for_published_data_and_without_objects():
    classes = dataclasses.replace(CONFIG, model=Model(class_names=("cat",)))
    assert recommend_config(make_source(0.4, 640), classes, has_accelerator=True) is None
    empty = FolderSource([make_annotation("a", "a.jpg", (9, 9), [], [])], ("cat",))
    assert recommend_config(empty, CONFIG, has_accelerator=True) is None


@pytest.mark.parametrize("name", OWN_DATA_BOXES)
def test_own_data_boxes_are_those_of_the_config_files(name):
    assert load_config(ROOT / "configs" / f"{name}.py").model.default_boxes == OWN_DATA_BOXES[name]


def test_format_data_options_contains_only_values_that_differ_from_the_defaults():
    assert format_data_options(Data(root="a")) == "--data.root a"
    assert format_data_options(Data(root="a b", format="voc", test_split="t")) == (
        "--data.root 'a b' --data.format voc --data.test_split t"
    )


def test_find_accelerator_follows_the_platform_variable_and_the_driver(monkeypatch):
    monkeypatch.setattr(recommendation.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not find_accelerator()
    monkeypatch.delenv("JAX_PLATFORMS")
    assert find_accelerator()
