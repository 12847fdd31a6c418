"""Training that starts from published weights."""

import dataclasses
from pathlib import Path
from typing import Any

import helpers.published_keys as published
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers.cli import TINY, command
from helpers.published_files import (
    WIDTH,
    backbone_of,
    full_classifier,
    save,
)

from ssd_jax import config
from ssd_jax.data.class_names import VOC_CLASSES
from ssd_jax.errors import UserError
from ssd_jax.inference import detector
from ssd_jax.runs import run_folder
from ssd_jax.training.pretrained import initial_params, open_pretrained
from ssd_jax.weights.importing import import_weights, write_run
from ssd_jax.weights.presets import SSD300, parameter_shapes


def start_params(config, fresh):
    """Return the parameters that a run with this config starts from."""
    return initial_params(config, open_pretrained(config), fresh)


def starting_from(path: Path, model: config.Model, **options: Any) -> config.Config:
    return config.Config(model=model, train=config.Train(pretrained=str(path), **options))


def fresh_params(model: config.Model) -> Any:
    rng = np.random.default_rng(9)
    shapes = parameter_shapes(model).items()
    return unflatten_dict({path: jnp.asarray(rng.normal(size=s), jnp.float32) for path, s in shapes}, sep="/")


@pytest.fixture(scope="module")
def cells() -> config.Model:
    """SSD300 of the same width for other classes, one of which VOC has."""
    return dataclasses.replace(SSD300.model(config.SSD300_VOC_BOXES), class_names=("RBC", "car"), width=WIDTH)


def test_training_starts_from_a_backbone(ssd300, imported, cells, tmp_path, capsys):
    file = save(tmp_path / "vgg.safetensors", backbone_of(ssd300))
    fresh = fresh_params(cells)
    started = start_params(starting_from(file, cells), fresh)
    jax.tree.map(np.testing.assert_array_equal, started["vgg"], imported.params["vgg"])
    for name in fresh.keys() - {"vgg"}:
        jax.tree.map(np.testing.assert_array_equal, started[name], fresh[name])
    assert f"Starting from {file}: conv1_1, conv1_2" in capsys.readouterr().out
    write_run(import_weights(file), tmp_path / "run")
    again = start_params(starting_from(tmp_path / "run", cells), fresh)
    jax.tree.map(np.testing.assert_array_equal, again, started)


def test_training_from_features_initialises_fc6_and_fc7(ssd300, imported, cells, tmp_path, capsys):
    file, fresh = save(tmp_path / "features", full_classifier(ssd300)[1]), fresh_params(cells)
    started = start_params(starting_from(file, cells), fresh)
    for name, layer in started["vgg"].items():
        expected = fresh["vgg"][name] if name in ("fc6", "fc7") else imported.params["vgg"][name]
        if name != "conv1_1":  # fitted to torchvision's mean
            jax.tree.map(np.testing.assert_array_equal, layer, expected)
    assert "(122.99925" in capsys.readouterr().out


def test_training_from_a_detector_carries_classes_over_by_name(ssd300, imported, cells, tmp_path, capsys):
    file, fresh = save(tmp_path / "voc", ssd300), fresh_params(cells)
    boxes = imported.config.model.default_boxes
    model = dataclasses.replace(cells, default_boxes=boxes)
    with pytest.raises(UserError, match=r"--train\.transfer"):
        start_params(starting_from(file, model), fresh)
    started = start_params(starting_from(file, model, transfer=True), fresh)
    assert "kept      1: car" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, started["conv9_2"], imported.params["conv9_2"])
    conf = "fc7_mbox_conf"
    for box in range(6):
        bias = np.asarray(started[conf]["bias"]).reshape(6, 3)[box]
        voc = ssd300["conf.1.bias"].reshape(6, 21)[box]
        assert bias.tolist() == [voc[0], fresh[conf]["bias"][3 * box + 1], voc[1 + VOC_CLASSES.index("car")]]
    backbone = start_params(starting_from(file, model, backbone_only=True), fresh)
    jax.tree.map(np.testing.assert_array_equal, backbone["vgg"], imported.params["vgg"])
    jax.tree.map(np.testing.assert_array_equal, backbone["conv9_2"], fresh["conv9_2"])
    own = save(tmp_path / "own", published.random_ssd_pytorch(6, 8, WIDTH))
    assert start_params(starting_from(own, model, backbone_only=True), fresh), "names of classes do not matter"
    with pytest.raises(UserError, match="ssd-jax import-weights"):
        start_params(starting_from(own, model, transfer=True), fresh)


def test_training_refuses_weights_of_another_network(ssd300, cells, tmp_path):
    file = save(tmp_path / "voc", ssd300)
    wide = dataclasses.replace(cells, width=0.25)
    normed = dataclasses.replace(cells, norm="group")
    for model, line in ((wide, "model.width: 0.125 -> 0.25"), (normed, "model.norm: none -> group")):
        for options in ({"transfer": True}, {"backbone_only": True}):
            with pytest.raises(UserError, match=f"{file}: .*\n  {line}"):
                start_params(starting_from(file, model, **options), {})
    with pytest.raises(UserError, match="there is no file or folder"):
        start_params(starting_from(tmp_path / "gone", cells), {})
    with pytest.raises(UserError, match=r"--train\.pretrained"):
        start_params(config.Config(train=config.Train(backbone_only=True)), {})


@pytest.mark.slow
def test_training_from_a_backbone_keeps_frozen_blocks(ssd300, imported, tmp_path):
    file = save(tmp_path / "vgg", backbone_of(ssd300))
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
    assert command("train", TINY, "--workdir", tmp_path / "run", "--train.pretrained", file, *options, *std) == 0
    params, step = detector.restore_params(tmp_path / "run", run_folder.read_config(tmp_path / "run"), "last")
    assert step == 3
    for name, layer in params["vgg"].items():
        unchanged = jax.tree.map(lambda a, b: (np.asarray(a) == b).all(), layer, imported.params["vgg"][name])
        assert all(jax.tree.leaves(unchanged)) == (name[:5] in ("conv1", "conv2")), name
