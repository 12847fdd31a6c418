"""Tests of commands on exported files: predict and evaluate give what they give for the run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import run_command, write_voc_folder
from PIL import Image

from ssd_jax.evaluation.run import evaluate
from ssd_jax.export import pictures
from ssd_jax.export.benchmark import measure_accuracy
from ssd_jax.model_zoo.opening import load, open_detector


@pytest.fixture(scope="module", params=["stablehlo", "onnx"])
def file(trained_run: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return a file of each format that ``ssd-jax export`` wrote of a trained run."""
    path = tmp_path_factory.mktemp("files") / f"tiny.{request.param}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "COUNT", 3)
        assert run_command("export", trained_run, "--format", request.param, "--out", path, "--quiet") == 0
    return path


def test_predict_writes_the_same_for_a_file_as_for_its_run(trained_run, file, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate([(50, 80), (64, 64), (300, 200)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    found = {}
    for name, model in (("run", trained_run), ("file", file)):
        assert run_command("predict", model, folder, "--out", tmp_path / name, "--score", "0.02", "--quiet") == 0
        assert len(list((tmp_path / name).glob("*.jpg"))) == 3
        found[name] = json.loads((tmp_path / name / "predictions.json").read_text())["images"]
    for of_run, of_file in zip(found["run"], found["file"], strict=True):
        detections = of_run["detections"], of_file["detections"]
        assert [d["name"] for d in detections[0]] == [d["name"] for d in detections[1]] and detections[0]
        for one, other in zip(*detections, strict=True):
            np.testing.assert_allclose([other["score"], *other["box"]], [one["score"], *one["box"]], atol=1e-3)


def assert_same_metrics(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {key for key in found} == {key for key in expected}
    for key in ("voc_map_11point", "voc_map_area", "coco_ap", "coco_ar100"):
        assert found[key] == pytest.approx(expected[key], abs=1e-4), key
    assert (found["split"], found["checkpoint_step"]) == (expected["split"], expected["checkpoint_step"])


def test_evaluate_computes_the_metrics_of_the_run_for_a_file(trained_run, file, tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"test": 5})
    command = ["evaluate", file, "--data.root", root, "--out", tmp_path / "out", "--quiet"]
    assert run_command(*command) == 0
    assert "AP @ IoU .50:.95" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = evaluate(trained_run, data_root=str(root), out=tmp_path / "expected")
    assert expected["coco_ap"] > 0
    assert_same_metrics(metrics, expected)
    assert (tmp_path / "out" / "test_pred.jpg").exists()


def test_benchmark_measures_the_accuracy_of_a_run_and_of_its_file(trained_run, file, tmp_path):
    root = write_voc_folder(tmp_path / "data", {"test": 5})
    before = sorted(path.name for path in trained_run.iterdir())
    of_run, of_file = (measure_accuracy(open_detector(model), str(root), None) for model in (trained_run, file))
    assert of_run == pytest.approx(of_file, abs=1e-4) and min(of_run) > 0
    assert sorted(path.name for path in trained_run.iterdir()) == before, "nothing is written into the run"


def test_evaluate_of_a_file_prints_metrics_and_writes_nothing_without_out(file, tmp_path, monkeypatch, capsys):
    root = write_voc_folder(tmp_path / "data", {"test": 2})
    monkeypatch.chdir(tmp_path)
    assert run_command("evaluate", file, "--data.root", root) == 0
    assert "--out" in capsys.readouterr().out and [path.name for path in tmp_path.iterdir()] == ["data"]


def test_file_needs_neither_the_run_nor_its_name(trained_run, file, tmp_path):
    moved = Path(shutil.copy(file, tmp_path / "detector.bin"))
    image = np.random.default_rng(0).integers(0, 256, (64, 50, 3), dtype=np.uint8)
    detector, original = load(moved), load(trained_run)
    assert detector.class_names == original.class_names and detector.step == original.step
    found, expected = detector(image, score_threshold=0.02), original(image, score_threshold=0.02)
    assert [d.name for d in found] == [d.name for d in expected] and found


def test_damaged_file_is_an_error_of_one_line(file, tmp_path, capsys):
    cut = tmp_path / "cut.stablehlo"
    cut.write_bytes(file.read_bytes()[:-100])
    for command in (["predict", cut, tmp_path], ["evaluate", cut]):
        (tmp_path / "a.png").write_bytes(b"")
        assert run_command(*command, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert "cut.stablehlo: the file is damaged" in error and len(error.splitlines()) == 1
