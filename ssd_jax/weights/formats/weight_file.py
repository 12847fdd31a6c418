"""Read weight files of all formats. The format is recognised from the first bytes of a file, not from its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors
from ssd_jax.weights.formats.caffe_file import PriorBox, read_caffe
from ssd_jax.weights.formats.keras_file import read_keras
from ssd_jax.weights.formats.reading import check_file
from ssd_jax.weights.formats.safetensors_file import read_safetensors
from ssd_jax.weights.formats.torch_file import read_torch


class WeightFile(NamedTuple):
    """Content of a weight file."""

    kind: str
    """Kind of file: ``torch`` (also for safetensors), ``caffe`` or ``keras``; a key of `key_mappings.KEY_MAPPINGS`."""
    tensors: Mapping[str, np.ndarray]
    """C-contiguous arrays by key; floats are float32."""
    priors: Mapping[str, PriorBox]
    """Settings of the PriorBox layers of a Caffe snapshot, by layer name. Empty for other formats."""


def read_weights(file: Path) -> WeightFile:
    """Read a .pth, .safetensors, .caffemodel or .h5 file and return its content. No code in the file is run.

    Raises:
        UserError: If the file is missing or corrupt, or has another format.
    """
    check_file(file)
    with convert_read_errors(file, "Check its permissions."), file.open("rb") as stream:
        start = stream.read(512)
    match _find_format(start):
        case "safetensors":
            return WeightFile("torch", read_safetensors(file), {})
        case "torch":
            return WeightFile("torch", read_torch(file), {})
        case "keras":
            return WeightFile("keras", read_keras(file), {})
        case "caffe":
            return WeightFile("caffe", *read_caffe(file))
    raise UserError(
        f"{file}: is not a weight file of a known format (torch's .pth, .safetensors, .caffemodel or .h5). "
        + (f"It begins with {start[:16]!r}{_describe_unknown_start(start)}" if start else "It is empty")
    )


def _find_format(start: bytes) -> str:
    """Return the format of a file from its first bytes, or an empty string if the format is unknown."""
    # safetensors must be checked first. Such a file begins with the length of its header, so its first byte may be the
    # first byte of any other format.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30:
        return "safetensors"
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or start[257:262] == b"ustar":
        return "torch"  # a zip file; before torch 1.6 a pickle; before torch 0.1.11 a tar file
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "keras"
    # A protobuf has no magic number. NetParameter begins with its name (field 1) or with a layer (field 100, or field 2
    # in the format V1). All of these fields have wire type 2.
    return "caffe" if start[:1] in (b"\x0a", b"\x12") or start[:2] == b"\xa2\x06" else ""


def _describe_unknown_start(start: bytes) -> str:
    """Return a hint for the error message if a file begins like a web page or Git LFS pointer, or an empty string."""
    if start.lstrip()[:1] == b"<":
        return ", like a web page; perhaps the download failed"
    if start[:7] == b"version":
        return ", like a Git LFS pointer; `git lfs pull` downloads the file itself"
    return ""
