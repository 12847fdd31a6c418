"""Tests of the readers of files that docs/export.md shows, in a process that cannot import this package."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.stablehlo_files import make_images, write_tiny_file
from helpers.tiny_detector import CONFIG, make_detector, make_random_params
from PIL import Image

from ssd_jax.export import onnx_writer
from ssd_jax.export.network import ExportOptions, make_network
from ssd_jax.exported.metadata import Source, make_metadata
from ssd_jax.inference.results import Detections

BLOCKED = "import sys\nsys.modules['ssd_jax'] = None\n"  # so that importing it fails, even if it is installed


def find_reader(package: str) -> str:
    """Return the block of the docs that imports a package."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    (reader,) = [block for block in blocks if f"import {package}\n" in block]
    return reader


def run_reader(reader: str, folder: Path) -> str:
    """Run a reader in a folder, and return what it printed."""
    # Without -I, the interpreter would find this package in the working folder or in PYTHONPATH.
    command = [sys.executable, "-I", "-c", BLOCKED + reader]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def assert_prints(output: str, expected: Detections) -> None:
    """Assert that a reader printed the class, the score and the box of each of the detections."""
    lines = output.replace("[", " ").replace("]", " ").split("\n")[:-1]
    assert len(lines) == len(expected) > 3
    for line, (name, score, box) in zip(lines, expected, strict=True):
        words = line.split()
        assert words[0] == name
        np.testing.assert_allclose([float(word) for word in words[1:]], [score, *box], rtol=1e-3, atol=1e-3)


def test_stablehlo_reader_in_the_docs_prints_the_detections_without_this_package(tmp_path: Path):
    reader = find_reader("jax.export")
    assert len(reader.splitlines()) <= 15 and set(re.findall(r"^import ([\w.]+)", reader, re.MULTILINE)) == {
        "json", "jax.export", "numpy",
    }  # fmt: skip
    write_tiny_file(tmp_path / "model.stablehlo")
    images = make_images(2, 40, 60)
    np.save(tmp_path / "images.npy", images)
    assert_prints(run_reader(reader, tmp_path), make_detector()(images[0], score_threshold=0))


@pytest.mark.parametrize("size", [(40, 60), (200, 90)])  # the second one is larger than max_image_size
def test_onnx_reader_in_the_docs_prints_the_detections_without_this_package(tmp_path: Path, size: tuple[int, int]):
    network = make_network(CONFIG, make_random_params(), 0, ExportOptions())
    onnx_writer.write(network, make_metadata("onnx", CONFIG, Source(name="tiny", step=0)), tmp_path / "model.onnx")
    image = make_images(1, *size)[0]
    Image.fromarray(image).save(tmp_path / "photo.jpg", format="PNG")
    assert_prints(run_reader(find_reader("onnxruntime"), tmp_path), make_detector()(image, score_threshold=0))
