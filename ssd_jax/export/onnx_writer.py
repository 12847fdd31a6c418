"""Write ONNX files. See `ssd_jax.export.formats.Writer`, and `ssd_jax.export.onnx_model` for the content."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ssd_jax.errors import UserError
from ssd_jax.export.network import Network
from ssd_jax.export.pictures import Canvases
from ssd_jax.exported.metadata import Metadata
from ssd_jax.exported.onnx_file import create_session, save_model
from ssd_jax.optional_packages import import_package

MAX_BYTES = 2**31 - 1
"""Limit of protobuf, in which ONNX files are written."""


def write(network: Network, metadata: Metadata, file: Path) -> None:
    """Write a network to an ONNX file."""
    import_package("onnxruntime", "onnx")  # the comparison with the original needs it, after the work
    save_model(make_model(network, file), file, metadata)


def make_model(network: Network, file: Path) -> Any:
    """Return a network as an ``onnx.ModelProto``.

    Raises:
        UserError: If the package onnx is not installed, or if the network is too large for a file.
    """
    import_package("onnx", "onnx")
    from ssd_jax.export.onnx_model import make_onnx_model

    model = make_onnx_model(network)
    if model.ByteSize() > MAX_BYTES:
        raise UserError(f"{file}: the network is too large: ONNX files have at most 2 GB. Export it with --half")
    return model


def compute_logits(network: Network, metadata: Metadata, file: Path, batch: Canvases) -> Float32[np.ndarray, "b n c"]:
    """Return the logits of the network in a file, which are added to its outputs for this."""
    onnx = import_package("onnx", "onnx")
    model = onnx.load_model_from_string(file.read_bytes())
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None))
    session = create_session(model.SerializeToString())
    images = batch.make_batches(metadata.batch or 1)
    return np.stack([session.run(["logits"], {"images": image})[0][0] for image in images])
