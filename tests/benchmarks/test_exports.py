"""Tests of the benchmark of exported files."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tiny_detector import MODEL

from benchmarks.exports import __main__ as exports
from benchmarks.exports.networks import NETWORKS, RANDOM, make_random_params
from benchmarks.exports.worker import read_detections, save_detections
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.models.ssd import SSD

FOUND = ImageDetections(np.float32([[1, 2, 30, 40]]), np.float32([0.5]), np.int32([2]))


def test_random_parameters_preserve_the_scale_of_the_activations():
    model = dataclasses.replace(MODEL, norm="none", width=1.0)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    offsets, logits = jax.jit(SSD(model).apply)({"params": make_random_params(model)}, image)
    assert 0.3 < np.std(offsets) < 3 and 0.7 < np.std(logits[..., 1:]) < 6
    assert np.mean(logits[..., 0]) - np.mean(logits[..., 1:]) == pytest.approx(8, abs=2)


def test_configs_of_the_networks_are_those_of_the_projects():
    assert set(RANDOM) < set(NETWORKS)
    imported = RANDOM["torchvision"]()
    assert imported.detect.clip_before_nms and imported.model.num_classes == 91


def test_detections_are_read_as_they_were_saved(tmp_path: Path):
    save_detections(tmp_path / "a.npz", [FOUND, NO_DETECTIONS])
    for read, written in zip(read_detections(tmp_path / "a.npz"), [FOUND, NO_DETECTIONS], strict=True):
        for one, other in zip(read, written, strict=True):
            np.testing.assert_array_equal(one, other)


def test_find_python_returns_the_first_interpreter_with_all_packages(monkeypatch: pytest.MonkeyPatch):
    packages = {"a": frozenset({"jax"}), "b": frozenset({"jax", "onnx"}), "c": frozenset({"onnx", "torch"})}
    monkeypatch.setattr(exports, "find_packages", packages.__getitem__)
    assert exports.find_python(["a", "b", "c"], ("onnx",)) == "b"
    assert exports.find_python(["a", "b", "c"], ("onnx", "torch")) == "c"
    assert exports.find_python(["a", "b"], ("torch",)) is None


def test_find_packages_asks_the_interpreter_and_names_one_that_cannot_start():
    assert "jax" in exports.find_packages(sys.executable)
    with pytest.raises(UserError, match=r"--pythons nowhere/python"):
        exports.find_packages("nowhere/python")


def test_table_compares_each_file_with_the_original(tmp_path: Path):
    moved = FOUND._replace(boxes_px=FOUND.boxes_px + np.float32(0.25))
    files = {exports.ORIGINAL: tmp_path / "a.npz", "onnx": tmp_path / "b.npz"}
    save_detections(files[exports.ORIGINAL], [FOUND, NO_DETECTIONS])
    save_detections(files["onnx"], [moved, FOUND])
    (tmp_path / "net.onnx").write_bytes(bytes(1_500_000))
    config = RANDOM["ssd300"]()
    rows = [
        exports.make_row("net", exports.ORIGINAL, "net", config, files, 20.0),
        exports.make_row("net", "onnx", str(tmp_path / "net.onnx"), config, files, 15.0),
    ]
    cells = [cell.strip() for cell in exports.format_rows(rows).splitlines()[-1].strip("|").split("|")]
    assert cells == ["net", "onnx", "1.5", "1", "1", "0", "2.5e-01", "0.0e+00", "15.0", "0.75"]
