"""Tests of the command demo."""

import json
import shlex
from pathlib import Path

import pytest
from helpers.cli import TINY, run_command

from ssd_jax.commands import demo
from ssd_jax.runs import config_file


def count_detections(out):
    images = json.loads((out / "photographs" / "predictions.json").read_text())["images"]
    assert len(images) == 3
    return [len(image["detections"]) for image in images]


def test_demo_detects_trains_and_evaluates(tmp_path, trained_run, capsys, monkeypatch):
    load_config = config_file.load_config
    monkeypatch.setattr(demo, "DETECTOR", str(trained_run))
    monkeypatch.setattr(config_file, "load_config", lambda name: load_config(TINY))
    assert run_command("demo", "--out", tmp_path / "out") == 0
    count_detections(tmp_path / "out")
    written = {path.name for path in (tmp_path / "out" / "shapes").iterdir()}
    assert {"metrics.json", "report.html", "test_truth.jpg", "test_pred.jpg"} <= written
    printed = capsys.readouterr().out
    assert "IMAGE" not in printed and printed.count("Next:") == 1
    (command,) = (line for line in printed.splitlines() if "ssd-jax predict" in line)
    assert run_command(*shlex.split(command)[1:]) == 0
    images = json.loads((tmp_path / "out" / "predictions" / "predictions.json").read_text())["images"]
    assert [Path(image["file"]).name for image in images] == [f"test_00000{k}.png" for k in range(3)]
    assert printed.index("1. ") < printed.index("2. ") < printed.index("3. ") < printed.index("ssd-jax models")


def test_demo_without_training_only_detects(tmp_path, trained_run, capsys, monkeypatch):
    monkeypatch.setattr(demo, "DETECTOR", str(trained_run))
    assert run_command("demo", "--out", tmp_path, "--no-train") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]
    printed = capsys.readouterr().out
    assert "2. " not in printed and f"ssd-jax demo --out {tmp_path}\n" in printed


@pytest.mark.slow
def test_demo_finds_cells_in_all_photographs(tmp_path):
    """The photographs are from the test split; their annotations contain 11, 9 and 16 cells."""
    assert run_command("demo", "--out", tmp_path, "--no-train") == 0
    for found, annotated in zip(count_detections(tmp_path), (11, 9, 16), strict=True):
        assert 0.7 * annotated <= found <= 1.7 * annotated
