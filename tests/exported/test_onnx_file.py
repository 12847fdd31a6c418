"""Tests of the reader of ONNX files."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers import tiny_detector
from helpers.onnx_models import onnx, run_model

from ssd_jax.errors import UserError
from ssd_jax.export import onnx_writer
from ssd_jax.export.network import ExportOptions, Network, make_network
from ssd_jax.export.onnx_model import make_onnx_model
from ssd_jax.exported import onnx_file
from ssd_jax.exported.metadata import Metadata, Source, encode_metadata, make_metadata
from ssd_jax.exported.program import Outputs, RawOutputs
from ssd_jax.exported.reading import find_format, read_program

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)


def make_tiny_network(**options: bool) -> Network:
    return make_network(tiny_detector.CONFIG, tiny_detector.make_random_params(), 3, ExportOptions(**options))


def write_tiny_file(file: Path, *, nms: bool = True) -> Metadata:
    """Write an ONNX file of a tiny detector, and return its metadata."""
    metadata = make_metadata("onnx", tiny_detector.CONFIG, Source(name="tiny", step=3), nms=nms)
    onnx_writer.write(make_tiny_network(nms=nms), metadata, file)
    return metadata


@pytest.mark.parametrize(("nms", "kind"), [(True, Outputs), (False, RawOutputs)])
def test_read_program_returns_the_outputs_and_the_metadata_of_a_file(tmp_path: Path, nms: bool, kind: type):
    file = tmp_path / "ä b.onnx"
    metadata = write_tiny_file(file, nms=nms)
    assert find_format(file) == "onnx"
    program = read_program(file)
    assert encode_metadata(program.metadata) == encode_metadata(metadata)
    outputs = program.run(IMAGES)
    assert type(outputs) is kind
    expected = run_model(onnx.load(file), images=IMAGES)
    for name, value in outputs._asdict().items():
        np.testing.assert_array_equal(value, expected[name])


def test_replace_metadata_changes_nothing_else(tmp_path: Path):
    file = tmp_path / "a.onnx"
    before = msgspec.structs.replace(write_tiny_file(file), source=Source(name="\udce9 other", step=9))
    graph = onnx.load(file).graph
    onnx_file.replace_metadata(file, before)
    assert encode_metadata(read_program(file).metadata) == encode_metadata(before)
    assert onnx.load(file).graph == graph
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("content", [b"", b"not an ONNX file", b"\x08\x08\x12"])
def test_read_program_names_a_damaged_file(tmp_path: Path, content: bytes):
    file = tmp_path / "damaged.onnx"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.onnx") as caught:
        read_program(file)
    assert "\n" not in str(caught.value)


def test_read_program_refuses_a_file_of_another_program(tmp_path: Path):
    file = tmp_path / "other.onnx"
    file.write_bytes(make_onnx_model(make_tiny_network()).SerializeToString())
    with pytest.raises(UserError, match=r"other\.onnx.*ssd-jax export"):
        read_program(file)


def test_read_program_names_the_extra_if_onnxruntime_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tiny_file(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"ssd-jax\[onnx\]"):
        read_program(tmp_path / "a.onnx")


def test_detection_with_a_file_imports_neither_jax_nor_onnx(tmp_path: Path):
    """The import of JAX takes longer than the detection, and onnxruntime is enough to use a file."""
    write_tiny_file(tmp_path / "a.onnx")
    program = """
import sys
import numpy as np
import ssd_jax
detect = ssd_jax.load(sys.argv[1])
assert len(detect(np.zeros((50, 64, 3), np.uint8), score_threshold=0)) > 3
print(*{"jax", "flax", "onnx"} & set(sys.modules))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.onnx")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")
