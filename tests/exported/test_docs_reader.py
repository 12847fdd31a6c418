"""Tests of the readers of files that docs/export.md shows, in a process that cannot import this package."""

import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers.exported_files import FORMATS_TO_TEST, write_tiny_file
from helpers.paths import ROOT
from helpers.tiny_detector import CONFIG, make_random_params
from PIL import Image

from ssd_jax.exported.reading import FORMATS
from ssd_jax.inference.detector import Detector
from ssd_jax.inference.results import Detections
from ssd_jax.models.parameters import CLASS_PREDICTOR, Params

BLOCKED = "import sys\nsys.modules['ssd_jax'] = None\n"  # so that importing it fails, even if it is installed
PACKAGES = {
    "stablehlo": {"json", "jax.export", "numpy"},
    "onnx": {"json", "numpy", "onnxruntime"},
    "openvino": {"json", "numpy", "openvino"},
    "tflite": {"json", "numpy", "zipfile"},
}
"""Packages that the reader of each format imports, apart from Pillow and, for TFLite, LiteRT."""
SIZES = {"stablehlo": (40, 60), "onnx": (200, 90), "openvino": (200, 90), "tflite": (32, 32)}
"""Heights and widths of the images. Some are larger than max_image_size; the reader of TFLite rounds resized pixels."""


@cache
def make_params() -> Params:
    """Return parameters with which several scores are above 0.5 and others are not."""
    params = make_random_params()
    for name in params:
        if name.endswith(CLASS_PREDICTOR):
            params[name]["kernel"] *= 4
    return params


def detect(image: np.ndarray) -> Detections:
    """Return what the original detects."""
    return Detector.from_params(CONFIG, make_params(), 0)(image, score_threshold=0.5)


def make_image(height: int, width: int) -> np.ndarray:
    """Return an image of colored blocks."""
    blocks = np.random.default_rng(1).integers(0, 256, (height // 9 + 1, width // 7 + 1, 3), dtype=np.uint8)
    return blocks.repeat(9, axis=0).repeat(7, axis=1)[:height, :width]


def find_reader(name: str) -> str:
    """Return the block of the docs that opens a file of a format."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    (reader,) = [block for block in blocks if f'"model{FORMATS[name].ending}"' in block]
    return reader


def run_reader(name: str, folder: Path) -> str:
    """Run a reader in a folder, and return what it printed."""
    # Without -I, the interpreter would find this package in the working folder or in PYTHONPATH.
    command = [sys.executable, "-I", "-c", BLOCKED + find_reader(name)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def assert_prints(output: str, expected: Detections) -> None:
    """Assert that a reader printed the class, the score and the box of each of the detections."""
    lines = output.replace("[", " ").replace("]", " ").split("\n")[:-1]
    assert len(lines) == len(expected) > 3
    for line, (name, score, box) in zip(lines, expected, strict=True):
        words = line.split()
        assert words[0] == name
        np.testing.assert_allclose([float(word) for word in words[1:]], [score, *box], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_readers_in_the_docs_import_nothing_of_this_package(name: str):
    reader = find_reader(name)
    assert set(re.findall(r"^import ([\w.]+)", reader, re.MULTILINE)) == PACKAGES[name]
    assert set(re.findall(r"^from (\w+)", reader, re.MULTILINE)) <= {"PIL", "ai_edge_litert"}


@pytest.mark.parametrize("name", FORMATS_TO_TEST)
def test_readers_in_the_docs_print_the_detections_without_this_package(tmp_path: Path, name: str):
    if name == "tflite" and find_spec("ai_edge_litert") is None:
        pytest.skip("needs ai-edge-litert")
    write_tiny_file(name, tmp_path / f"model{FORMATS[name].ending}", params=make_params())
    image = make_image(*SIZES[name])
    np.save(tmp_path / "images.npy", image[None])
    Image.fromarray(image).save(tmp_path / "photo.jpg", format="PNG")
    expected = detect(image)
    if name == "tflite":
        expected = sorted(expected, key=lambda detection: detection.name)
    assert_prints(run_reader(name, tmp_path), expected)
