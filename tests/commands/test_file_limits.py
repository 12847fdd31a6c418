"""Tests that options which an exported file cannot follow are refused or mentioned, never ignored."""

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run_command, write_voc_folder
from helpers.exported_files import write_tiny_file
from helpers.tiny_detector import CONFIG, MODEL
from PIL import Image

from ssd_jax.data.formats.shapes import CLASS_NAMES
from ssd_jax.errors import UserError
from ssd_jax.model_zoo.opening import load

pytestmark = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the extra onnx")


@pytest.fixture(scope="module")
def strict_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that returns at most 9 detections with scores above 0.3."""
    file = tmp_path_factory.mktemp("files") / "strict.onnx"
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, class_names=CLASS_NAMES))
    write_tiny_file("onnx", file, config=config, score_threshold=0.3, max_detections=9)
    return file


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_predict_says_that_the_threshold_of_the_file_is_above_the_score(strict_file, photo, tmp_path, capsys):
    command = ["predict", strict_file, photo, "--out", tmp_path / "out", "--save", "json", "--quiet", "--score"]
    assert run_command(*command, "0.1") == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "--score 0.1" in line]
    assert str(strict_file) in note and "above 0.3" in note
    assert run_command(*command, "0.4") == 0
    assert "above" not in capsys.readouterr().out


def test_evaluate_says_that_the_limits_of_the_file_lower_the_metrics(strict_file, tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"test": 2})
    assert run_command("evaluate", strict_file, "--data.root", root, "--quiet") == 0
    assert "only scores above 0.3 and at most 9 detections per image" in capsys.readouterr().out


def test_last_checkpoint_of_a_file_is_refused(strict_file, photo, capsys):
    for command in (["predict", strict_file, photo, "--quiet"], ["evaluate", strict_file]):
        assert run_command(*command, "--checkpoint", "last") == 2
        error = capsys.readouterr().err
        assert "strict.onnx: --checkpoint last: " in error and len(error.splitlines()) == 1
    with pytest.raises(UserError, match="only one checkpoint"):
        load(strict_file, "last")


def test_weights_beside_an_openvino_file_name_that_file(tmp_path, photo, capsys):
    for name in ("ov.xml", "ov.bin"):
        (tmp_path / name).write_bytes(bytes(100))
    assert run_command("predict", tmp_path / "ov.bin", photo, "--quiet") == 2
    assert capsys.readouterr().err.endswith(f"Name {tmp_path / 'ov.xml'}\n")
