"""Tests of the texts at the start and at the end of training."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers import tiny_config
from helpers.cli import write_voc_folder

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.models.ssd import SSD
from ssd_jax.training import summary
from ssd_jax.training.summary import Evaluation

TINY = tiny_config.get_step_config()
CLASS = {"objects": 7, "detections": 9, "ap_11point": 0.25, "ap_area": 0.375}
METRICS = {"voc_classes": {"cat": CLASS, "\x1b[31mdog": CLASS}, "voc_map_11point": 0.25, "voc_map_area": 0.375}


def write_checkpoint_folder(run: Path, step: int) -> None:
    (run / "checkpoints" / str(step)).mkdir(parents=True)


def test_headline_says_how_many_steps_are_done(tmp_path):
    assert summary.format_headline(tmp_path, False, 30) == f"New run in {tmp_path}"
    write_checkpoint_folder(tmp_path, 9)
    assert "9 of 30 steps" in summary.format_headline(tmp_path, True, 30)
    write_checkpoint_folder(tmp_path, 30)
    headline = summary.format_headline(tmp_path, True, 30)
    assert "finished" in headline and "--workdir" in headline and "--train.steps" in headline


def test_description_of_a_run_counts_parameters_and_epochs():
    names = tuple(f"class {i:03}" for i in range(80))
    config = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=names))
    text = summary.format_run(config, train_images=160, devices=jax.devices()[:1])
    assert "80: class 000, class 001, class 002, class 003, class 004, ..." in text
    assert "30 steps of 8 images = 1.5 epochs of 160 images" in text and "every 14 steps" in text
    assert "64 px, 336 default boxes" in text and "CPU" in text
    assert max(map(len, text.splitlines())) <= 80
    often = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1, eval_every=1))
    text = summary.format_run(often, train_images=1, devices=jax.devices()[:1])
    assert "metrics  every step\n" in text + "\n" and "1 step of 8 images = 8 epochs of 1 image\n" in text
    params = jax.eval_shape(SSD(config.model).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    assert f" {sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters" in text


def test_expected_time_is_that_of_the_other_steps_at_the_logged_speed(tmp_path):
    train = dataclasses.replace(TINY.train, steps=1000, batch_size=8, eval_every=400)
    assert summary.find_logged_speed(tmp_path) is None, "no step was logged"
    assert summary.format_expected_time(train, 100, 0, None) is None
    lines = [{"step": 10, "images_per_second": 1.0}, {"step": 20, "images_per_second": 4.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert summary.find_logged_speed(tmp_path) == 4.0
    assert summary.format_expected_time(train, 100, 0, 4.0) == "about 30 min for the other 900 steps"
    assert summary.format_expected_time(train, 1000, 0, 4.0) is None


@pytest.mark.parametrize(
    ("done", "eval_every", "val_images", "speed", "expected"),
    [
        # Evaluations after steps 400, 800 and 1000 take half the time of 400 training images each.
        (0, 400, 400, 10.0, "about 14 min for 1000 steps, evaluation included"),
        (400, 400, 400, 10.0, "about 8.7 min for the other 600 steps, evaluation included"),
        (800, 400, 400, 100.0, "about 18 s for the other 200 steps, evaluation included"),
        (0, 0, 0, 0.5, "about 4.4 h for 1000 steps"),
        (0, 0, 0, 0.01, "about 9.3 days for 1000 steps"),
    ],
)
def test_expected_time_includes_evaluations(done, eval_every, val_images, speed, expected):
    train = dataclasses.replace(TINY.train, steps=1000, batch_size=8, eval_every=eval_every)
    assert summary.format_expected_time(train, done, val_images, speed) == expected


def test_end_has_a_table_of_classes_and_three_commands_for_a_shell(tmp_path, monkeypatch):
    run = tmp_path / "my run's"
    run.mkdir()
    (run / "results.csv").write_text("step,voc_map_area\n14,0.5\n28,0.612\n30,\n")
    monkeypatch.setattr(sys, "argv", ["ssd-jax"])
    text = summary.format_end(run, "val", Evaluation(30, METRICS))
    assert "Split val, step 30:" in text and "step 28, val mAP 61.2 %" in text
    assert any(line.split() == ["cat", "7", "9", "0.2500", "0.3750"] for line in text.splitlines())
    assert "\x1b" not in text
    evaluate, predict, python = map(shlex.split, summary.format_next_commands(run, "a photo.jpg").splitlines()[-3:])
    assert evaluate == ["ssd-jax", "evaluate", str(run), "--report"]
    assert predict == ["ssd-jax", "predict", str(run), "a photo.jpg"]
    calls: list[str] = []
    code = python[2].replace("import ssd_jax; print(ssd_jax.load", "print(load")
    exec(code, {"load": lambda path: calls.append(path) or calls.append})
    assert python[:2] == ["python", "-c"] and calls == [str(run), "a photo.jpg"]


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("ssd-jax", "ssd-jax predict run"),
        ("train.py", "python predict.py run"),
        ("code dir/train.py", "python 'code dir/predict.py' run"),
        ("ssd_jax/__main__.py", "python -m ssd_jax predict run"),
        ("pytest/__main__.py", "ssd-jax predict run"),
        ("ipykernel_launcher.py", "ssd-jax predict run"),
    ],
)
def test_commands_name_the_program_that_was_started(monkeypatch, program, command):
    monkeypatch.setattr(sys, "argv", [program])
    assert summary.format_command("predict", "run") == command


def test_example_is_an_image_file_of_the_split(tmp_path, monkeypatch):
    root = write_voc_folder(tmp_path / "data", {"train": 2})
    monkeypatch.chdir(tmp_path)
    source = open_source(Data(root=str(root)), "train")
    relative, absolute = summary.find_example_image(source), summary.find_example_image(source, is_root_absolute=True)
    assert relative in ("data/JPEGImages/train0.png", "data/JPEGImages/train1.png")
    assert absolute == str(tmp_path / relative)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert summary.find_example_image(source) == absolute, "relative only below the current folder"
    assert summary.find_example_image(ShapesSource(TINY.data.shapes, "val")) is None, "generated images are no files"
