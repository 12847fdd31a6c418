"""Write OpenVINO files from the ONNX graph. See `ssd_jax.export.formats.Writer`."""

import logging
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ssd_jax.export import onnx_writer
from ssd_jax.export.network import Network
from ssd_jax.export.pictures import Canvases
from ssd_jax.exported.metadata import Metadata
from ssd_jax.exported.openvino_file import compile_model, import_openvino, read_model, save_model

FLOAT_PARTS = ["resize", "normalize", "conv4_3_norm", "decode", "select", "pixels"]
"""Parts of the graph that compute in float32 also with int8: they take little time, and need the precision."""


def write(network: Network, metadata: Metadata, file: Path) -> None:
    """Write a network to an OpenVINO file, and its weights to a file beside it with the ending .bin."""
    openvino = import_openvino()
    model = openvino.Core().read_model(onnx_writer.make_model(network, file).SerializeToString())
    if network.options.int8:
        model = quantize(model, network)
    save_model(model, file, metadata)


def quantize(model: Any, network: Network) -> Any:
    """Return an ``openvino.Model`` whose convolutions compute with integers of 8 bits.

    The ranges of the activations are estimated on ``network.calibration``.
    """
    nncf = import_openvino("nncf")
    nncf.set_log_level(logging.ERROR)
    pictures = network.calibration
    repeat = network.options.batch or 1
    dataset = nncf.Dataset(pictures, lambda picture: {"images": picture[None].repeat(repeat, axis=0)})
    ignored = nncf.IgnoredScope(patterns=[f"{part}/.*" for part in FLOAT_PARTS], validate=False)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):  # a second progress bar
        return nncf.quantize(model, dataset, subset_size=len(pictures), ignored_scope=ignored)


def compute_logits(network: Network, metadata: Metadata, file: Path, batch: Canvases) -> Float32[np.ndarray, "b n c"]:
    """Return the logits of the network in a file, which are added to its outputs for this."""
    model = read_model(file)
    model.add_outputs("logits")
    compiled = compile_model(model)
    images = batch.make_batches(metadata.batch or 1)
    return np.stack([compiled({"images": image})[compiled.output("logits")][0] for image in images])
