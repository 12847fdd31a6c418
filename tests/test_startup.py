"""Tests of what a short command imports and compiles, which decides how long a user waits for the first result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.stablehlo_files import make_images, write_tiny_file
from helpers.tiny_detector import make_detector
from PIL import Image

from ssd_jax.export.run import export_model
from ssd_jax.model_zoo.saving import save_model_folder

# Large packages that detection with a model folder does not need. Flax is needed only to trace the network.
HEAVY = {
    "optax", "orbax", "tensorstore", "grain", "matplotlib", "tensorflow_datasets", "tensorboardX", "hotcoco", "torch",
    "IPython", "google.protobuf", "jinja2",
}  # fmt: skip

RUN = """
import json, sys
counted = []
if sys.argv[1] == "predict" and not sys.argv[2].endswith(".onnx"):
    import jax
    event = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: counted.append(name == event))
from ssd_jax.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("\\n" + json.dumps([sum(counted), sorted(sys.modules)]))
"""


def run_and_inspect(*argv: str | Path, **environment: str) -> tuple[int, set[str]]:
    """Run a command in a new process, and return the number of compilations and the names of the imported modules."""
    command = [sys.executable, "-c", RUN, *map(str, argv)]
    finished = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    compilations, modules = json.loads(finished.stdout.splitlines()[-1])
    return compilations, set(modules)


def test_help_imports_no_large_package() -> None:
    _, modules = run_and_inspect("--help")
    assert not modules & (HEAVY | {"flax", "jax", "numpy", "tyro", "PIL"})


def test_predict_compiles_one_program_and_later_loads_it_without_tracing(tmp_path: Path) -> None:
    model = save_model_folder(make_detector(), tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    command = ("predict", model, tmp_path / "image.png", "--out", tmp_path / "out", "--score", "0.02")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    compilations, modules = run_and_inspect(*command, **cache)
    assert compilations == 1 and not modules & HEAVY and "flax" in modules
    first = json.loads((tmp_path / "out" / "predictions.json").read_text())
    compilations, modules = run_and_inspect(*command, **cache)
    assert compilations == 1, "JAX counts a program that it loads from the cache as well"
    assert not modules & (HEAVY | {"flax"})
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == first


def test_predict_with_an_exported_file_does_not_import_the_network(tmp_path: Path) -> None:
    file = write_tiny_file(tmp_path / "tiny.stablehlo")
    Image.fromarray(make_images(40, 30)).save(tmp_path / "image.png")
    command = ("predict", file, tmp_path / "image.png", "--out", tmp_path / "out", "--score", "0.02")
    compilations, modules = run_and_inspect(*command, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"))
    assert compilations == 1 and not modules & (HEAVY | {"flax", "ssd_jax.models.ssd"})
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["images"][0]["detections"]


def test_predict_with_an_onnx_file_does_not_import_jax(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    file = export_model(save_model_folder(make_detector(), tmp_path / "model"), "onnx", tmp_path / "tiny.onnx").file
    Image.fromarray(make_images(40, 30)).save(tmp_path / "image.png")
    command = ("predict", file, tmp_path / "image.png", "--out", tmp_path / "out", "--score", "0.02")
    _, modules = run_and_inspect(*command)
    assert "onnxruntime" in modules and not modules & (HEAVY | {"jax", "flax", "onnx"})
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["images"][0]["detections"]
