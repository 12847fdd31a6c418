"""The formats of ``ssd-jax export``, with the module that writes each."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from ssd_jax.errors import UserError
from ssd_jax.export.network import Network
from ssd_jax.export.pictures import Canvases
from ssd_jax.exported.metadata import Metadata


@runtime_checkable
class Writer(Protocol):
    """Functions that the writing module of a format has."""

    def write(self, network: Network, metadata: Metadata, file: Path) -> None:
        """Write a network to a file.

        Args:
            network: The network, and the options of the file.
            metadata: Metadata to write into the file.
            file: File to write, in a folder of its own. Another file beside it must have the same name, but for the
                ending.
        """

    def compute_logits(
        self, network: Network, metadata: Metadata, file: Path, batch: Canvases
    ) -> Float32[np.ndarray, "b n c"] | None:
        """Return the logits that the written program computes for some pictures, or None if it cannot tell them."""


class WriterEntry(NamedTuple):
    """A format that can be written."""

    module: str
    """Module with the functions of `Writer`. It may need the packages of an extra."""
    options: frozenset[str]
    """Names of the fields of `ExportOptions` that the format has."""
    keeps_dtype: bool = False
    """Whether a file computes in the type of the config, such as bfloat16, and not always in float32."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """Fields of `ExportOptions` that have other defaults in this format."""
    file_format: str = ""
    """Format of the file with the network, if it is not the format itself."""
    folder_file: str = ""
    """Name of the file with the network, if a folder is written."""


_COMMON = frozenset({"nms", "batch", "score_threshold", "max_detections", "half"})
WRITERS = {
    "stablehlo": WriterEntry("ssd_jax.export.stablehlo_writer", _COMMON, keeps_dtype=True),
    "onnx": WriterEntry("ssd_jax.export.onnx_writer", _COMMON),
    "openvino": WriterEntry("ssd_jax.export.openvino_writer", _COMMON | {"int8"}),
    "tflite": WriterEntry(
        "ssd_jax.export.tflite_writer", _COMMON - {"half"}, defaults=MappingProxyType({"nms": False, "batch": 1})
    ),
    "web": WriterEntry(
        "ssd_jax.export.web_writer",
        _COMMON - {"nms", "batch"} | {"runtime"},
        file_format="onnx",
        folder_file="detector.onnx",
    ),
}
"""Writers by the names of ``ssd-jax export --format``. Those without a ``file_format`` are the names of
`ssd_jax.exported.reading.FORMATS`."""


def import_writer(format_name: str) -> Writer:
    """Return the writer of a format.

    Raises:
        UserError: If there is no such format, or if a package that it needs is not installed.
    """
    if format_name not in WRITERS:
        raise UserError(f"{format_name}: no format of exported files. Choose one of {', '.join(WRITERS)}")
    return importlib.import_module(WRITERS[format_name].module)
