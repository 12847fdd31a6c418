"""Tests that names of files and classes can neither end a command in a traceback nor do harm in what it writes."""

import json
import os
import random
from pathlib import Path

import pytest
from helpers.cli import TINY, run_command
from helpers.hostile_names import (
    CLASS_NAMES,
    STEMS,
    WRITERS,
    assert_harmless_files,
    assert_harmless_output,
    is_utf8,
    make_random_name,
    write_yolo,
)

from ssd_jax.data.folder import is_hidden
from ssd_jax.data.run_splits import open_split
from ssd_jax.runs import run_folder


@pytest.fixture
def run_harmlessly(capfd):
    """Return a function that runs a command, and checks what it prints and its exit code."""

    def run(*argv: str | Path, codes=(0,)) -> str:
        code = run_command(*argv)
        printed = capfd.readouterr()
        assert_harmless_output(printed.out)
        assert_harmless_output(printed.err)
        assert code in codes, printed.err
        return printed.out

    return run


@pytest.mark.parametrize("writer", WRITERS)
def test_check_data_accepts_hostile_names(writer, run_harmlessly, tmp_path):
    WRITERS[writer](tmp_path / "data", STEMS, CLASS_NAMES)
    options = ("--data.root", tmp_path / "data", "--out", tmp_path / "check", "--fix", tmp_path / "copy")
    run_harmlessly("check-data", TINY, *options, codes=(0, 1))
    check = json.loads((tmp_path / "check" / "check.json").read_text())
    images = sum(split["images"] for split in check["splits"].values())
    expected = {"voc": len(STEMS), "yolo": 2 * len(STEMS), "coco": 2 * sum(map(is_utf8, STEMS))}
    assert images == expected[writer]
    assert assert_harmless_files(tmp_path / "check") == 2
    assert assert_harmless_files(tmp_path / "copy" / "annotations") == 2
    run_harmlessly("check-data", TINY, "--data.root", tmp_path / "copy", "--out", tmp_path / "check2", codes=(0, 1))


def test_predict_accepts_hostile_names(trained_run, run_harmlessly, tmp_path):
    write_yolo(tmp_path, STEMS, ["a"])
    folder = tmp_path / "images" / "train"
    run_harmlessly("predict", trained_run, folder, "--out", tmp_path / "out", "--score", "0.1")
    images = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert {os.fsencode(image["file"]) for image in images} == {os.fsencode(file) for file in folder.iterdir()}
    assert all(Path(image["picture"]).is_file() for image in images)
    assert len({image["picture"] for image in images}) == len(STEMS)
    assert_harmless_files(tmp_path / "out")


def annotation_ids(run: Path) -> list[str]:
    """Return the ids of the images on which a run was trained."""
    config = run_folder.read_config(run)
    return [annotation.image_id for annotation in open_split(config, config.data.train_split).annotations()]


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("seed", range(3))
def test_check_data_and_predict_accept_random_names(seed, writer, trained_run, run_harmlessly, tmp_path):
    rng = random.Random(seed)
    stems, names = ([*dict.fromkeys(make_random_name(rng) for _ in range(count))] for count in (40, 20))
    stems = [stem for stem in stems if not is_hidden(stem)]
    WRITERS[writer](tmp_path / "data", stems, names)
    options = ("--data.root", tmp_path / "data", "--out", tmp_path / "check", "--fix", tmp_path / "copy")
    run_harmlessly("check-data", TINY, *options, codes=(0, 1, 2))
    run_harmlessly("predict", trained_run, tmp_path / "data", "--out", tmp_path / "out", "--score", "0.1")
    images = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert len(images) == len({image["picture"] for image in images}) == len(stems) * (1 if writer == "voc" else 2)
    assert_harmless_files(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_all_commands_of_a_run_accept_hostile_names(writer, run_harmlessly, tmp_path):
    WRITERS[writer](tmp_path / "data", STEMS, CLASS_NAMES)
    run = tmp_path / "run"
    short = ("--train.steps", "9", "--train.eval-every", "9", "--train.checkpoint-every", "9")
    run_harmlessly("train", TINY, "--data.root", tmp_path / "data", "--workdir", run, *short)
    run_harmlessly("evaluate", run, "--split", "val", "--report", "--results", codes=(0, 2))
    run_harmlessly("evaluate", run, "--split", "val", "--report")
    for image in set(annotation_ids(run)) - {"~"}:  # as a value of an option, this is the home folder
        run_harmlessly("show", run, f"--image={image}", "--epoch", "0")
    run_harmlessly("predict", run, tmp_path / "data", "--out", tmp_path / "out", "--score", "0.1")
    run_harmlessly("export-weights", run, "--out", tmp_path / "weights.safetensors", codes=(0, 2))
    assert assert_harmless_files(tmp_path) > 5
