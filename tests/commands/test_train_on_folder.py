"""Tests of training and evaluation on a folder with unreadable images and images with too many objects."""

import io
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.cli import TINY, read_last_step, run_command, write_voc_folder

MAX_OBJECTS = 8  # the value in the config


class FolderRun(NamedTuple):
    """Data folder, run folder, standard output and standard error of a training run."""

    root: Path
    run: Path
    output: str
    errors: str


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> FolderRun:
    """Train on a folder with an unreadable train image, an unreadable val image, and an image with too many objects."""
    base = tmp_path_factory.mktemp("own")
    stars = [("star", (x, y, x + 9.5, y + 9.0)) for x in (0, 20, 40) for y in (0, 20, 40, 55)]
    root = write_voc_folder(base / "data", {"train": 24, "val": 6, "test": 6}, extra_objects=stars)
    for stem in ("train5", "val1"):
        file = root / "JPEGImages" / f"{stem}.png"
        file.write_bytes(file.read_bytes()[:600])
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        assert run_command("train", TINY, "--workdir", base / "run", "--data.root", root) == 0
    return FolderRun(root, base / "run", output.getvalue(), errors.getvalue())


def test_unreadable_images_are_skipped_and_named(folder_run):
    assert read_last_step(folder_run.run) == 30
    lines = re.split(r"[\r\n]+", folder_run.errors)
    warnings = sorted(line for line in lines if line.startswith("warning:"))
    images = folder_run.root / "JPEGImages"
    assert len(warnings) == 3, "each image is named once, although it is read in every epoch"
    assert warnings[0].startswith(f"warning: {images}/train5.png: ")
    assert warnings[1].startswith(f"warning: {images}/val1.png: ")
    assert "1 of 6 images" in warnings[2]
    assert "Traceback" not in folder_run.errors and "WARNING" not in folder_run.errors
    lines = folder_run.output.splitlines()
    for count, file in (("1 of 24 train images", "train5.png"), ("1 of 6 val images", "val1.png")):
        (index,) = (i for i, line in enumerate(lines) if line.startswith(count))
        assert lines[index + 1].startswith(f"  {images}/{file}: ")


def test_strict_option_stops_commands_at_an_unreadable_image(folder_run, tmp_path, run_failing_command):
    argv = "train", TINY, "--workdir", tmp_path / "run", "--data.root", folder_run.root, "--strict"
    assert "train5.png" in (message := run_failing_command(*argv)) and "--strict" in message
    assert "val1.png" in run_failing_command("evaluate", folder_run.run, "--split", "val", "--strict")


@pytest.mark.slow
def test_val_images_that_are_also_in_the_train_split_are_reported(folder_run, tmp_path, capsys):
    argv = "train", TINY, "--workdir", tmp_path / "run", "--data.root", folder_run.root, "--train.steps", "1"
    assert run_command(*argv, "--data.train-split", "train+val[:2]") == 0
    assert "note: 2 of the 6 val images" in capsys.readouterr().out


def test_number_of_objects_beyond_max_objects_is_printed(folder_run):
    objects = (folder_run.root / "Annotations" / "train0.xml").read_text().count("<object>")
    assert f"note: {objects - MAX_OBJECTS} objects" in folder_run.output
    assert "--data.max_objects" in folder_run.output


def test_run_resumes_if_the_path_of_the_data_folder_is_written_differently(folder_run, monkeypatch, capsys):
    monkeypatch.chdir(folder_run.root.parent)
    assert run_command("train", TINY, "--workdir", "run", "--data.root", "data/", "--train.log-every", "5") == 0
    assert re.search(r"train.log_every: 1 -> 5\n +train +24 images, \d+ objects\n", capsys.readouterr().out)


def test_evaluate_uses_the_val_split_if_there_is_no_test_split(folder_run, tmp_path, capsys):
    root = Path(shutil.copytree(folder_run.root, tmp_path / "data"))
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    assert run_command("evaluate", folder_run.run, "--data.root", root) == 0
    printed = capsys.readouterr()
    assert "'test'" in printed.out and "train, val" in printed.out and "'val' instead" in printed.out
    assert "warning: 1 of 6 images" in printed.err
    assert '"split": "val"' in (folder_run.run / "metrics.json").read_text()


def test_evaluate_does_not_use_val_instead_of_a_broken_test_split(folder_run, tmp_path, run_failing_command):
    root = Path(shutil.copytree(folder_run.root, tmp_path / "data"))
    (root / "Annotations" / "test2.xml").unlink()
    assert "test2.xml" in run_failing_command("evaluate", folder_run.run, "--data.root", root)
