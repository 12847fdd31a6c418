"""Test of the reader of StableHLO files that docs/export.md shows, in a process that cannot import this package."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from helpers.paths import ROOT
from helpers.stablehlo_files import make_images, write_tiny_file
from helpers.tiny_detector import make_detector

BLOCKED = "import sys\nsys.modules['ssd_jax'] = None\n"  # so that importing it fails, even if it is installed


def test_reader_in_the_docs_prints_the_detections_without_this_package(tmp_path: Path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    (reader,) = [block for block in blocks if "import jax.export" in block]
    assert len(reader.splitlines()) <= 15 and set(re.findall(r"^import ([\w.]+)", reader, re.MULTILINE)) == {
        "json", "jax.export", "numpy",
    }  # fmt: skip
    write_tiny_file(tmp_path / "model.stablehlo")
    images = make_images(2, 40, 60)
    np.save(tmp_path / "images.npy", images)
    # Without -I, the interpreter would find this package in the working folder or in PYTHONPATH.
    command = [sys.executable, "-I", "-c", BLOCKED + reader]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = make_detector()(images[0], score_threshold=0)
    lines = finished.stdout.replace("[", " ").replace("]", " ").split("\n")[:-1]
    assert len(lines) == len(expected) > 3
    for line, (name, score, box) in zip(lines, expected, strict=True):
        words = line.split()
        assert words[0] == name
        np.testing.assert_allclose([float(word) for word in words[1:]], [score, *box], rtol=1e-3, atol=1e-3)
