"""Write ONNX files. See `ssd_jax.export.formats.Writer`, and `ssd_jax.export.onnx_model` for the content."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from ssd_jax.errors import UserError
from ssd_jax.export.network import Network
from ssd_jax.exported.metadata import METADATA_KEY, Metadata, encode_metadata
from ssd_jax.exported.onnx_file import create_session
from ssd_jax.exported.packages import import_package
from ssd_jax.files import write_bytes

MAX_BYTES = 2**31 - 1
"""Limit of protobuf, in which ONNX files are written."""


def write(network: Network, metadata: Metadata, file: Path) -> None:
    """Write a network to an ONNX file."""
    import_package("onnxruntime", "onnx")  # the comparison with the original needs it, after the work
    model = make_model(network, file)
    model.metadata_props.add(key=METADATA_KEY, value=encode_metadata(metadata))
    write_bytes(file, model.SerializeToString())


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


def compute_logits(
    network: Network,
    metadata: Metadata,
    file: Path,
    canvas: UInt8[np.ndarray, "b h w 3"],
    height: Int32[np.ndarray, " b"],
    width: Int32[np.ndarray, " b"],
) -> Float32[np.ndarray, "b n c"]:
    """Return the logits of the network in a file, which are added to its outputs for this."""
    onnx = import_package("onnx", "onnx")
    model = onnx.load_model_from_string(file.read_bytes())
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None))
    session = create_session(model.SerializeToString())
    repeat = metadata.batch or 1
    images = (image[None, :h, :w].repeat(repeat, axis=0) for image, h, w in zip(canvas, height, width, strict=True))
    return np.stack([session.run(["logits"], {"images": image})[0][0] for image in images])
