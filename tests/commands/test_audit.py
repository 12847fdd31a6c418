"""Tests of ``ssd-jax audit``."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.cli import run_command

import ssd_jax
from ssd_jax.metrics.doubts import DoubtKind

FILES = {"audit.html", "doubts.csv", "proposed.json"}


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """Copy the trained run, and return its path."""
    return Path(shutil.copytree(trained_run, tmp_path / "tiny"))


def test_audit_writes_its_files_into_the_run(run: Path, capsys):
    assert run_command("audit", run) == 0
    printed = capsys.readouterr().out
    folder = run / "audit"
    assert {path.name for path in folder.iterdir()} == FILES
    assert "24 images" in printed and "--folds" in printed, "the run has learned these annotations"
    rows = list(csv.DictReader((folder / "doubts.csv").read_text().splitlines()))
    proposals = json.loads((folder / "proposed.json").read_text())
    assert len(proposals["images"]) == 24 and proposals["annotations"]
    assert {row["kind"] for row in rows} <= {kind.value for kind in DoubtKind}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_audit_of_another_split_has_another_folder_and_needs_no_warning(run: Path, capsys):
    doubts = ssd_jax.audit(run, "val")
    assert {path.name for path in (run / "audit_val").iterdir()} == FILES
    assert "--folds" not in capsys.readouterr().out
    rows = list(csv.DictReader((run / "audit_val" / "doubts.csv").read_text().splitlines()))
    assert len(rows) == len(doubts)


@pytest.mark.slow
def test_audit_with_folds_says_the_cost_and_resumes(run: Path, tmp_path: Path, capsys):
    shutil.rmtree(run / "checkpoints")  # only the config of the run is used
    command = ("audit", run, "--split", "val", "--folds", "2", "--steps", "2", "--out", tmp_path / "out")
    assert run_command(*command) == 0
    first = capsys.readouterr().out
    assert "2 networks of 2 steps, 4 steps to train, about" in first
    assert {path.name for path in (tmp_path / "out" / "networks").iterdir()} == {"1_of_2_2_steps", "2_of_2_2_steps"}
    assert run_command(*command) == 0
    second = capsys.readouterr().out
    assert "0 steps to train" in second and "training on" not in second
    assert first.splitlines()[-20:] == second.splitlines()[-20:]
    assert set(os.listdir(tmp_path / "out")) >= FILES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--folds", "1"), "--folds 1"),
        (("--folds", "25"), "24 images"),
        (("--steps", "5"), "--folds"),
        (("--split", "nowhere"), "nowhere"),
    ],
)
def test_audit_refuses_useless_options(run: Path, run_failing_command, options, words: str):
    assert words in run_failing_command("audit", run, *options)


def test_audit_of_a_model_needs_a_folder(run_failing_command):
    assert "--out" in run_failing_command("audit", "shapes")


def test_audit_refuses_a_split_without_annotations(run: Path, coco_root: Path, run_failing_command):
    assert "no annotations" in run_failing_command("audit", run, "--data.root", coco_root, "--split", "test-dev2017")
