"""Tests of writing and reading TFLite files."""

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import tiny_detector

from ssd_jax.config import Detect
from ssd_jax.errors import UserError
from ssd_jax.export import tflite_writer
from ssd_jax.export.network import ExportOptions, make_network
from ssd_jax.exported import tflite_file
from ssd_jax.exported.metadata import Metadata, Source, encode_metadata, make_metadata
from ssd_jax.exported.prediction import make_predict
from ssd_jax.exported.reading import find_format, read_program
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.ops.resample import resize
from ssd_jax.runtime import sharding

needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs the extra prepare")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
METADATA = make_metadata("tflite", tiny_detector.CONFIG, Source(name="\udce9 tiny", step=3), nms=False, batch=1)


def write_tiny_file(file: Path, norm: str) -> tuple[object, Metadata]:
    """Write a TFLite file of a tiny detector, and return its config and parameters."""
    model = dataclasses.replace(tiny_detector.MODEL, norm=norm)
    config = dataclasses.replace(tiny_detector.CONFIG, model=model, detect=Detect(max_detections=30))
    params = tiny_detector.make_random_params(model)
    metadata = make_metadata("tflite", config, Source(name="tiny", step=3), nms=False, batch=1)
    tflite_writer.write(make_network(config, params, 3, ExportOptions(nms=False, batch=1)), metadata, file)
    return (config, params), metadata


@needs_tensorflow
@pytest.mark.parametrize("norm", ["none", "group"])
def test_program_detects_what_the_network_detects(tmp_path: Path, norm: str):
    file = tmp_path / "ä.tflite"
    (config, params), metadata = write_tiny_file(file, norm)
    assert find_format(file) == "tflite"
    program = read_program(file)
    assert encode_metadata(program.metadata) == encode_metadata(metadata)
    canvas = np.zeros((2, 64, 64, 3), np.uint8)
    canvas[:, :40, :60] = IMAGES
    sizes = np.array([40, 40], np.int32), np.array([60, 60], np.int32)
    found = make_predict(program)(canvas, *sizes)
    expected = jax.device_get(make_predict_fn(config, sharding.single_device_mesh())(params, canvas, *sizes))
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 17, 90), (1, 1, 1)])
def test_resize_equals_the_resize_of_the_network(shape: tuple[int, int, int]):
    images = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    resized = tflite_file.resize(images, 32)
    np.testing.assert_allclose(resized, [resize(image, 32) for image in images], atol=1e-3)


def test_metadata_follow_the_program_and_can_be_replaced(tmp_path: Path):
    program, file = b"\x20\x00\x00\x00TFL3" + bytes(range(256)), tmp_path / "a.tflite"
    tflite_file.save_file(file, program, METADATA)
    size = file.stat().st_size
    tflite_file.replace_metadata(file, METADATA)
    assert file.stat().st_size == size and file.read_bytes().startswith(program)
    start, end = encode_metadata(METADATA).encode().split(b"0" * 64)
    assert start in file.read_bytes() and end in file.read_bytes()


@pytest.mark.parametrize("content", [b"", b"\x20\x00\x00\x00TFL3 without metadata"])
def test_read_program_refuses_a_file_of_another_program(tmp_path: Path, content: bytes):
    (tmp_path / "other.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"other\.tflite.*ssd-jax export"):
        read_program(tmp_path / "other.tflite")


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="tests what happens without TensorFlow")
def test_write_names_the_extra_if_tensorflow_is_missing(tmp_path: Path):
    with pytest.raises(UserError, match=r"ssd-jax\[prepare\]"):
        write_tiny_file(tmp_path / "a.tflite", "none")
