"""Tests of writing and reading OpenVINO files."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_detector
from helpers.onnx_models import run_model

from ssd_jax.errors import UserError
from ssd_jax.export import openvino_writer
from ssd_jax.export.network import ExportOptions, Network, make_network
from ssd_jax.export.onnx_model import make_onnx_model
from ssd_jax.exported import openvino_file
from ssd_jax.exported.metadata import Metadata, Source, encode_metadata, make_metadata
from ssd_jax.exported.program import Outputs, RawOutputs
from ssd_jax.exported.reading import find_format, measure_size, read_program

# openvino is not imported here, because its telemetry has to be left out before.
pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)


def write_tiny_file(file: Path, **options: bool | int) -> tuple[Network, Metadata]:
    """Write an OpenVINO file of a tiny detector, and return the network and the metadata."""
    params = tiny_detector.make_random_params()
    network = make_network(tiny_detector.CONFIG, params, 3, ExportOptions(**options), calibration=list(IMAGES))
    nms, batch = network.options.nms, network.options.batch
    metadata = make_metadata("openvino", network.config, Source(name='ä <&"> tiny', step=3), nms=nms, batch=batch)
    openvino_writer.write(network, metadata, file)
    return network, metadata


@pytest.mark.parametrize(
    ("options", "kind"), [({}, Outputs), ({"half": True, "batch": 2}, Outputs), ({"nms": False}, RawOutputs)]
)
def test_program_returns_what_onnxruntime_returns(tmp_path: Path, options: dict, kind: type):
    file = tmp_path / "ä b.xml"
    network, metadata = write_tiny_file(file, **options)
    assert find_format(file) == "openvino"
    program = read_program(file)
    assert encode_metadata(program.metadata) == encode_metadata(metadata)
    outputs = program.run(IMAGES)
    assert type(outputs) is kind
    expected = run_model(make_onnx_model(network), images=IMAGES)
    for name, value in outputs._asdict().items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-3)


def test_replace_metadata_keeps_the_program(tmp_path: Path):
    file = tmp_path / "a.xml"
    write_tiny_file(file)
    before = read_program(file).run(IMAGES)
    metadata = make_metadata("openvino", tiny_detector.CONFIG, Source(name="\udce9 other", step=9))
    openvino_file.replace_metadata(file, metadata)
    program = read_program(file)
    assert encode_metadata(program.metadata) == encode_metadata(metadata)
    np.testing.assert_array_equal(program.run(IMAGES).boxes, before.boxes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.xml"]
    assert measure_size(file) == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_outputs_are_not_changed_by_a_later_call(tmp_path: Path):
    write_tiny_file(tmp_path / "a.xml")
    program = read_program(tmp_path / "a.xml")
    first = program.run(IMAGES)
    copies = [field.copy() for field in first]
    program.run(255 - IMAGES)
    for field, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(field, copy)


def test_read_program_names_a_file_that_is_damaged_or_missing(tmp_path: Path):
    file = tmp_path / "a.xml"
    write_tiny_file(file)
    (tmp_path / "b.xml").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"b\.bin"):
        read_program(tmp_path / "b.xml")
    (tmp_path / "b.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.xml"):
        read_program(tmp_path / "b.xml")
    file.write_text("no XML")
    with pytest.raises(UserError, match=r"a\.xml"):
        read_program(file)


def test_importing_openvino_leaves_out_its_telemetry():
    openvino_file.import_openvino()
    assert sys.modules["openvino_telemetry"] is None


def test_int8_file_stores_small_kernels_and_returns_similar_scores(tmp_path: Path):
    for name, options in (("a", {}), ("b", {"int8": True})):
        write_tiny_file(tmp_path / f"{name}.xml", nms=False, **options)
    sizes = [(tmp_path / f"{name}.bin").stat().st_size for name in "ab"]
    assert sizes[1] < 0.6 * sizes[0]
    scores = [read_program(tmp_path / f"{name}.xml").run(IMAGES).scores for name in "ab"]
    assert 1e-4 < np.abs(scores[0] - scores[1]).max() < 0.3
