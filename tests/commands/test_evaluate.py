"""Tests of ``ssd-jax evaluate``."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest
from helpers.cli import run_command
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_jax.data.formats.shapes import CLASS_NAMES
from ssd_jax.inference.restoring import restore_params
from ssd_jax.metrics.average_precision import COCO_KEYS
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.log import read_results


def read_metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture
def copied_run(trained_run: Path, tmp_path: Path) -> Path:
    """Copy the trained run to a folder named tiny, and return its path."""
    return Path(shutil.copytree(trained_run, tmp_path / "tiny"))


@pytest.fixture
def run_with_worse_last_checkpoint(copied_run: Path) -> Path:
    """Return a copy of the trained run with an additional last checkpoint, which has noisy parameters and a low mAP."""
    params, step = restore_params(copied_run, run_folder.read_config(copied_run), "best")
    noise = jax.tree.map(lambda p: p + jax.random.normal(jax.random.key(0), p.shape), params)
    with Checkpoints(copied_run / "checkpoints", for_writing=True) as checkpoints:
        metadata = {"config": json.loads((copied_run / "config.json").read_text())}
        checkpoints.save(step + 100, {"params": noise}, metadata, best_metric=-1.0)
    return copied_run


def test_evaluate_uses_the_best_checkpoint_and_the_test_split(run_with_worse_last_checkpoint, capsys):
    run = run_with_worse_last_checkpoint
    assert run_command("evaluate", run) == 0
    printed = capsys.readouterr().out
    best = read_metrics(run)
    with Checkpoints(run / "checkpoints") as checkpoints:
        assert best["checkpoint_step"] == checkpoints.best != checkpoints.latest
    assert (best["split"], best["images"]) == ("test", 6)
    for key in ("voc_map_11point", "voc_map_area", "coco_ap"):
        assert 0 <= best[key] <= 1
    assert set(best["voc_classes"]) == set(best["voc_intervals"]["classes"]) == set(CLASS_NAMES)
    low, high = best["voc_intervals"]["map_area"]
    assert low <= best["voc_map_area"] <= high
    low, high = best["coco_ap_interval"]
    assert low <= best["coco_ap"] <= high
    assert best["constant_box"]["split"] == "test", "train is generated, so it cannot be read quickly"
    assert f"mAP {100 * best['constant_box']['voc_map_area']:.1f} % (area), precision" in printed
    for words in (*CLASS_NAMES, "AP 11-point", "AP @ IoU .50:.95", "AR, large", "metrics.json"):
        assert words in printed
    assert (run / "test_truth.jpg").exists() and (run / "test_pred.jpg").exists()
    assert run_command("evaluate", run, "--checkpoint", "last") == 0
    last = read_metrics(run)
    assert last["checkpoint_step"] == best["checkpoint_step"] + 100
    assert last["voc_map_area"] != best["voc_map_area"]


def test_evaluate_in_tiles_prints_the_metrics_with_and_without_tiles(copied_run, tmp_path, capsys):
    """The images have 64 x 64 px, so that tiles of 64 px change nothing, and tiles of 40 px do."""
    assert run_command("evaluate", copied_run, "--out", tmp_path / "plain") == 0
    plain = read_metrics(tmp_path / "plain")
    for tile in (64, 40):
        assert run_command("evaluate", copied_run, "--tile", tile, "--out", tmp_path / str(tile)) == 0
        tiled = read_metrics(tmp_path / str(tile))
        assert tiled["without_tiles"]["voc_map_area"] == plain["voc_map_area"]
        assert (tiled["voc_map_area"] == pytest.approx(plain["voc_map_area"], abs=1e-6)) == (tile == 64)
        line = next(line for line in capsys.readouterr().out.splitlines() if "without tiles" in line)
        assert f"{tiled['voc_map_area']:.4f}" in line and f"{plain['voc_map_area']:.4f}" in line


@pytest.mark.parametrize("options", [("--tile", 0), ("--tile", 64, "--overlap", 1)])
def test_evaluate_rejects_impossible_tiles(run_failing_command, trained_run, options):
    assert options[-2].removeprefix("--") in run_failing_command("evaluate", trained_run, *options)


def test_evaluate_agrees_with_the_evaluation_during_training(copied_run):
    assert run_command("evaluate", copied_run, "--split", "val", "--checkpoint", "last") == 0
    row = read_results(copied_run)[-1]
    metrics = json.loads((copied_run / "metrics_val.json").read_text())
    for key in ("voc_map_11point", "voc_map_area", "coco_ap"):
        assert metrics[key] == row[key]


def test_evaluate_agrees_with_pycocotools_on_the_result_file(copied_run, coco_root, capsys):
    assert run_command("evaluate", copied_run, "--data.root", coco_root, "--split", "val2017", "--results") == 0
    file = copied_run / "results" / "detections_val2017_tiny_results.json"
    assert str(file) in capsys.readouterr().out
    metrics = json.loads((copied_run / "metrics_val2017.json").read_text())
    truth = COCO(coco_root / "annotations" / "instances_val2017.json")
    evaluation = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] > 0
    assert [-1 if metrics[key] is None else metrics[key] for key in COCO_KEYS] == list(evaluation.stats)


def test_evaluate_writes_only_result_files_for_a_split_without_annotations(copied_run, coco_root, capsys):
    before = {file.name for file in copied_run.iterdir()}
    assert run_command("evaluate", copied_run, "--data.root", coco_root, "--split", "test-dev2017") == 0
    assert "test-dev2017" in capsys.readouterr().out
    assert {file.name for file in copied_run.iterdir()} == before | {"results"}
    (file,) = (copied_run / "results").iterdir()
    assert file.name == "detections_test-dev2017_tiny_results.json"
    assert {entry["category_id"] for entry in json.loads(file.read_text())} <= {10, 20, 30, 40}


def test_evaluate_writes_a_result_file_per_class_for_voc_data(copied_run, capsys):
    assert run_command("evaluate", copied_run, "--results") == 0
    assert "comp4_det_test_circle.txt" in capsys.readouterr().out
    assert {file.name for file in (copied_run / "results").iterdir()} == {
        f"comp4_det_test_{n}.txt" for n in CLASS_NAMES
    }
    assert (copied_run / "metrics.json").exists()


def test_evaluate_prints_the_metrics_of_a_run_that_cannot_be_written(trained_run, tmp_path, monkeypatch, capsys):
    def raise_read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def list_files() -> list[Path]:
        return sorted(trained_run.rglob("*"))

    before = list_files()
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", raise_read_only)
        assert run_command("evaluate", trained_run) == 0
        printed = capsys.readouterr()
        assert "AP @ IoU .50:.95" in printed.out and "Written" not in printed.out
        assert f"warning: {trained_run}: can't be written (Read-only file system)" in printed.err
        assert "--out" in printed.err
        assert run_command("evaluate", trained_run, "--report") == 2, "the report was asked for"
        assert "--out" in capsys.readouterr().err
    assert run_command("evaluate", trained_run, "--out", tmp_path / "a" / "b", "--results", "--report") == 0
    title = f"<title>{trained_run.name} on test</title>"
    report = (tmp_path / "a" / "b" / "report.html").read_text()
    assert title in report
    assert re.search(r"<dt>Speed</dt><dd>\d+\.\d images per second", report), "also for a single batch"
    assert {file.name for file in (tmp_path / "a" / "b").iterdir()} == {
        "metrics.json", "report.html", "results", "test_pred.jpg", "test_truth.jpg",
    }  # fmt: skip
    assert list_files() == before


def test_evaluate_rejects_invalid_arguments(run_failing_command, tmp_path, trained_run):
    assert f"{tmp_path}" in (message := run_failing_command("evaluate", tmp_path)) and "config.json" in message
    assert "'tset'" in run_failing_command("evaluate", trained_run, "--split", "tset")
    assert "first" in run_failing_command("evaluate", trained_run, "--checkpoint", "first")


def test_evaluate_rejects_data_with_classes_unknown_to_the_run(run_failing_command, trained_run, voc_folder):
    file = voc_folder / "Annotations" / "val0.xml"
    file.write_text(file.read_text().replace("<name>", "<name>un", 1))
    message = run_failing_command("evaluate", trained_run, "--data.root", voc_folder, "--split", "val")
    assert "val0.xml" in message and "'un" in message
    assert "circle, square, star, triangle" in message
