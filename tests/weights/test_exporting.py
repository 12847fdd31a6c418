"""Tests of exporting weights to torchvision and ssd.pytorch."""

import dataclasses

import helpers.published_keys as published
import numpy as np
import pytest
from helpers import tiny_config
from helpers.cli import run_command
from helpers.published_files import (
    WIDTH,
    save_safetensors,
)
from safetensors.numpy import load_file

from ssd_jax import config
from ssd_jax.errors import UserError
from ssd_jax.weights.exporting import find_export_mapping, to_tensors
from ssd_jax.weights.importing import import_weights
from ssd_jax.weights.key_mappings import KEY_MAPPINGS
from ssd_jax.weights.presets import SSD300, SSD512

TINY_BOXES, TINY_EXTRAS = (getattr(tiny_config.get_config().model, name) for name in ("default_boxes", "extras"))


@pytest.mark.parametrize("maps", [6, 7])
def test_to_tensors_is_the_inverse_of_import_weights(maps, tmp_path):
    tensors = published.make_random_ssd_pytorch(maps, 21, WIDTH)
    params = import_weights(save_safetensors(tmp_path / "file", tensors)).params
    network = SSD300 if maps == 6 else SSD512
    mappings = [mapping for mapping in KEY_MAPPINGS["torch"] if mapping.network is network]
    written = {"ssd.pytorch": tensors} | ({"torchvision": published.to_torchvision(tensors)} if maps == 6 else {})
    for project, expected in written.items():
        (mapping,) = [mapping for mapping in mappings if mapping.project == project]
        actual = to_tensors(params, mapping)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert actual[key].dtype == np.float32 and actual[key].flags.c_contiguous
            np.testing.assert_array_equal(actual[key], value)


def test_import_and_export_commands_preserve_all_values(tmp_path, capsys):
    tensors = published.make_random_ssd_pytorch(6, 4, 1.0)
    names = ("RBC", "WBC", "Platelets")
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    assert (
        run_command(
            "import-weights",
            save_safetensors(tmp_path / "a.safetensors", tensors),
            "--out",
            run,
            "--class-names",
            *names,
        )
        == 0
    )
    assert run_command("export-weights", run, "--out", out, "--layout", "ssd.pytorch") == 0
    actual = load_file(out)
    assert actual.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(actual[key], value)
    assert "3 classes: RBC, WBC, Platelets" in capsys.readouterr().out
    assert run_command("export-weights", run, "--out", out, "--layout", "ssd.pytorch") == 2
    assert str(out) in capsys.readouterr().err
    assert run_command("export-weights", run, "--out", tmp_path / "tv.safetensors") == 2
    assert "center_size" in capsys.readouterr().err


def test_export_command_requires_the_suffix_safetensors(imported_run, tmp_path, capsys):
    assert run_command("export-weights", imported_run, "--out", tmp_path / "out.pth") == 2
    assert ".safetensors" in capsys.readouterr().err


def test_export_rejects_unsupported_networks(imported_run, tmp_path, capsys):
    assert run_command("export-weights", imported_run, "--out", tmp_path / "out.safetensors") == 2
    assert "model.width" in capsys.readouterr().err
    ssd300 = SSD300.make_model(config.SSD300_VOC_BOXES)
    boxes = dataclasses.replace(config.SSD300_VOC_BOXES, variances=(0.1, 0.1, 0.1, 0.1))
    for model, words in (
        (dataclasses.replace(ssd300, norm="group"), "model.norm"),
        (dataclasses.replace(ssd300, width=0.5), "model.width"),
        (dataclasses.replace(ssd300, default_boxes=boxes), "variances"),
        (dataclasses.replace(ssd300, default_boxes=TINY_BOXES, extras=TINY_EXTRAS), "ssd.pytorch's SSD300"),
    ):
        with pytest.raises(UserError, match=words):
            find_export_mapping(model, "ssd.pytorch")


@pytest.mark.parametrize(
    "changes",
    [{"clip": "center_size"}, {"clip": "corners"}, {"min_sizes": (29.0, 61.0, 111.0, 162.0, 213.0, 264.0)}],
)
def test_export_rejects_default_boxes_that_torchvision_cannot_make(changes):
    boxes = dataclasses.replace(config.SSD300_VOC_BOXES, **changes)
    with pytest.raises(UserError, match=r"torchvision.*min_sizes"):
        find_export_mapping(SSD300.make_model(boxes), "torchvision")
    assert find_export_mapping(SSD300.make_model(config.SSD300_VOC_BOXES), "torchvision").project == "torchvision"
