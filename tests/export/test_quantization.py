"""Tests of the comparison of int8 with float32, by a writer that leaves the integers out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_detector
from helpers.onnx_models import onnxruntime

from ssd_jax.config import Data, Shapes
from ssd_jax.data.formats.shapes import CLASS_NAMES
from ssd_jax.export import onnx_writer, quantization
from ssd_jax.export.network import ExportOptions, make_network
from ssd_jax.exported.metadata import Quantization, Source, make_metadata

PICTURES = [np.zeros((20, 30, 3), np.uint8), np.zeros((30, 20, 3), np.uint8)]
GENERATED = Data(root="shapes", max_image_size=64, shapes=Shapes(train_images=4, val_images=5, image_size=64))


def compare(tmp_path: Path, data: Data) -> Quantization:
    model = dataclasses.replace(tiny_detector.MODEL, class_names=CLASS_NAMES)
    config = dataclasses.replace(tiny_detector.CONFIG, model=model, data=data)
    network = make_network(config, tiny_detector.make_random_params(model), 0, ExportOptions(int8=True))
    metadata = make_metadata("onnx", config, Source(name="tiny", step=0), weights="int8")
    onnx_writer.write(network, metadata, tmp_path / "a.onnx")
    return quantization.compare_with_float32(
        onnx_writer, network, metadata, tmp_path / "a.onnx", PICTURES, "9 pictures"
    )


def test_comparison_measures_time_and_map_on_the_val_split(tmp_path: Path):
    assert onnxruntime is not None
    result = compare(tmp_path, GENERATED)
    assert result.annotated_pictures == 5
    assert result.float32_map is not None and result.float32_map == result.int8_map
    assert 0 < result.int8_milliseconds < 1000 and 0 < result.float32_milliseconds < 1000
    text = quantization.format_quantization(result)
    assert f"{result.int8_map:.4f} in int8" in text and "9 pictures" in text


@pytest.mark.parametrize("root", ["", "nowhere"])
def test_comparison_without_data_measures_only_time(tmp_path: Path, root: str):
    result = compare(tmp_path, dataclasses.replace(GENERATED, root=root))
    assert (result.annotated_pictures, result.float32_map, result.int8_map) == (0, None, None)
    text = quantization.format_quantization(result)
    assert "not measured" in text and "--data.root" in text
