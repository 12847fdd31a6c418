"""Files of each format of the network of `helpers.tiny_detector`, written without a comparison."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import msgspec
import pytest

from helpers.tiny_detector import CONFIG, make_random_params
from ssd_jax.config import Config
from ssd_jax.export.formats import import_writer
from ssd_jax.export.network import ExportOptions, make_network
from ssd_jax.exported.metadata import Metadata, Parity, Source, make_metadata
from ssd_jax.models.parameters import Params

_PACKAGES = {
    "stablehlo": ("flatbuffers",),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "tflite": ("tensorflow",),
}
FORMATS_TO_TEST = [
    pytest.param(
        name, marks=pytest.mark.skipif(not all(map(find_spec, packages)), reason=f"needs {' and '.join(packages)}")
    )
    for name, packages in _PACKAGES.items()
]
"""Formats as parameters of a test, which is skipped where packages are missing."""


def write_tiny_file(
    format_name: str, file: Path, *, config: Config = CONFIG, params: Params | None = None, parity: bool = False,
    **options: Any,
) -> Metadata:  # fmt: skip
    """Write a file, and return its metadata.

    Args:
        format_name: Format of the file.
        file: File to write.
        config: Config of the network.
        params: Parameters. None: random ones.
        parity: Whether the metadata contain a comparison with the original, which was not made.
        options: Fields of ExportOptions.
    """
    if format_name == "tflite":
        options = {"nms": False, "batch": 1} | options
    network = make_network(config, params or make_random_params(config.model), 7, ExportOptions(**options))
    metadata = make_metadata(
        format_name, network.config, Source(name="tiny", step=7), nms=network.options.nms,
        batch=network.options.batch, jax_version=jax.__version__,
    )  # fmt: skip
    if parity:
        metadata = msgspec.structs.replace(metadata, parity=Parity(pictures=1, detections=2, boxes=0.0, scores=0.0))
    import_writer(format_name).write(network, metadata, file)
    return metadata
