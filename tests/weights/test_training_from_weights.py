"""Tests of training that starts from published weights."""

import dataclasses
from pathlib import Path
from typing import Any

import helpers.published_keys as published
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.cli import TINY, run_command
from helpers.published_files import (
    WIDTH,
    make_classifier_and_features,
    save_safetensors,
    select_backbone,
)

from ssd_jax import config
from ssd_jax.data.class_names import VOC_CLASSES
from ssd_jax.errors import UserError
from ssd_jax.inference.restoring import restore_params
from ssd_jax.models.parameters import compute_parameter_shapes
from ssd_jax.runs import run_folder
from ssd_jax.training.pretrained import load_initial_params, open_pretrained
from ssd_jax.weights.importing import import_weights, write_run
from ssd_jax.weights.presets import SSD300


def open_pretrained_params(config, random_start):
    """Return the parameters that a run with this config starts from, given its random initial parameters."""
    return load_initial_params(config, open_pretrained(config), random_start)


def make_config_with_pretrained(path: Path, model: config.Model, **options: Any) -> config.Config:
    """Return the config of a run that starts from a file or run at ``path``."""
    return config.Config(model=model, train=config.Train(pretrained=str(path), **options))


def make_random_params(model: config.Model) -> Any:
    """Return random parameters of a model, drawn with NumPy to avoid a compilation."""
    rng = np.random.default_rng(9)
    shapes = compute_parameter_shapes(model).items()
    return unflatten_dict({path: jnp.asarray(rng.normal(size=s), jnp.float32) for path, s in shapes}, sep="/")


@pytest.fixture(scope="module")
def cell_model() -> config.Model:
    """Return the model config of an SSD300 as narrow as the fixture ``ssd300``, for one VOC class and one new class."""
    return dataclasses.replace(SSD300.make_model(config.SSD300_VOC_BOXES), class_names=("RBC", "car"), width=WIDTH)


def test_training_starts_from_a_backbone(ssd300, imported_ssd300, cell_model, tmp_path, capsys):
    file = save_safetensors(tmp_path / "vgg.safetensors", select_backbone(ssd300))
    random_start = make_random_params(cell_model)
    started = open_pretrained_params(make_config_with_pretrained(file, cell_model), random_start)
    jax.tree.map(np.testing.assert_array_equal, started["vgg"], imported_ssd300.params["vgg"])
    for name in random_start.keys() - {"vgg"}:
        jax.tree.map(np.testing.assert_array_equal, started[name], random_start[name])
    assert f"Starting from {file}: conv1_1, conv1_2" in capsys.readouterr().out
    write_run(import_weights(file), tmp_path / "run")
    again = open_pretrained_params(make_config_with_pretrained(tmp_path / "run", cell_model), random_start)
    jax.tree.map(np.testing.assert_array_equal, again, started)


def test_training_from_features_initialises_fc6_and_fc7(ssd300, imported_ssd300, cell_model, tmp_path, capsys):
    file, random_start = (
        save_safetensors(tmp_path / "features", make_classifier_and_features(ssd300)[1]),
        make_random_params(cell_model),
    )
    started = open_pretrained_params(make_config_with_pretrained(file, cell_model), random_start)
    for name, layer in started["vgg"].items():
        expected = random_start["vgg"][name] if name in ("fc6", "fc7") else imported_ssd300.params["vgg"][name]
        if name != "conv1_1":  # conv1_1 is adapted to the config's mean
            jax.tree.map(np.testing.assert_array_equal, layer, expected)
    assert "(122.99925" in capsys.readouterr().out


def test_training_from_a_detector_copies_class_channels_by_name(ssd300, imported_ssd300, cell_model, tmp_path, capsys):
    file, random_start = save_safetensors(tmp_path / "voc", ssd300), make_random_params(cell_model)
    boxes = imported_ssd300.config.model.default_boxes
    model = dataclasses.replace(cell_model, default_boxes=boxes)
    with pytest.raises(UserError, match=r"--train\.transfer"):
        open_pretrained_params(make_config_with_pretrained(file, model), random_start)
    started = open_pretrained_params(make_config_with_pretrained(file, model, transfer=True), random_start)
    assert "kept      1: car" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, started["conv9_2"], imported_ssd300.params["conv9_2"])
    conf = "fc7_mbox_conf"
    for box in range(6):
        bias = np.asarray(started[conf]["bias"]).reshape(6, 3)[box]
        voc = ssd300["conf.1.bias"].reshape(6, 21)[box]
        assert bias.tolist() == [voc[0], random_start[conf]["bias"][3 * box + 1], voc[1 + VOC_CLASSES.index("car")]]
    backbone = open_pretrained_params(make_config_with_pretrained(file, model, backbone_only=True), random_start)
    jax.tree.map(np.testing.assert_array_equal, backbone["vgg"], imported_ssd300.params["vgg"])
    jax.tree.map(np.testing.assert_array_equal, backbone["conv9_2"], random_start["conv9_2"])
    own = save_safetensors(tmp_path / "own", published.make_random_ssd_pytorch(6, 8, WIDTH))
    assert open_pretrained_params(make_config_with_pretrained(own, model, backbone_only=True), random_start), (
        "class names are not needed for a backbone"
    )
    with pytest.raises(UserError, match="ssd-jax import-weights"):
        open_pretrained_params(make_config_with_pretrained(own, model, transfer=True), random_start)


def test_training_rejects_weights_of_another_network(ssd300, cell_model, tmp_path):
    file = save_safetensors(tmp_path / "voc", ssd300)
    wide = dataclasses.replace(cell_model, width=0.25)
    normed = dataclasses.replace(cell_model, norm="group")
    for model, line in ((wide, "model.width: 0.125 -> 0.25"), (normed, "model.norm: none -> group")):
        for options in ({"transfer": True}, {"backbone_only": True}):
            with pytest.raises(UserError, match=f"{file}: .*\n.*{line}"):
                open_pretrained_params(make_config_with_pretrained(file, model, **options), {})
    with pytest.raises(UserError, match="gone: there is no such run"):
        open_pretrained_params(make_config_with_pretrained(tmp_path / "gone", cell_model), {})
    with pytest.raises(UserError, match=r"--train\.pretrained"):
        open_pretrained_params(config.Config(train=config.Train(backbone_only=True)), {})


@pytest.mark.slow
def test_training_from_a_backbone_keeps_frozen_blocks(ssd300, imported_ssd300, tmp_path):
    file = save_safetensors(tmp_path / "vgg", select_backbone(ssd300))
    options = (
        "--model.norm",
        "none",
        "--train.steps",
        "3",
        "--train.eval-every",
        "0",
        "--optimizer.freeze-blocks",
        "2",
    )
    std = ("--model.std", "1", "1", "1")
    assert run_command("train", TINY, "--workdir", tmp_path / "run", "--train.pretrained", file, *options, *std) == 0
    params, step = restore_params(tmp_path / "run", run_folder.read_config(tmp_path / "run"), "last")
    assert step == 3
    for name, layer in params["vgg"].items():
        unchanged = jax.tree.map(lambda a, b: (np.asarray(a) == b).all(), layer, imported_ssd300.params["vgg"][name])
        assert all(jax.tree.leaves(unchanged)) == (name[:5] in ("conv1", "conv2")), name
