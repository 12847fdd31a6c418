"""Any weight file to its tensors: which reader is for it is told by its first bytes, not by its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.caffe_file import Prior, read_caffe
from ssd_jax.weights.formats.keras_file import read_keras
from ssd_jax.weights.formats.reading import check_file
from ssd_jax.weights.formats.torch_file import read_safetensors, read_torch


class WeightFile(NamedTuple):
    """What a file holds."""

    kind: str
    """``torch``, ``caffe`` or ``keras``: a key of `layouts.LAYOUTS`."""
    tensors: Mapping[str, np.ndarray]
    priors: Mapping[str, Prior]
    """Default boxes by layer, which Caffe's snapshots carry; else empty."""


def read_weights(file: Path) -> WeightFile:
    """Of a .pth, .safetensors, .caffemodel or .h5 file. No code in it is run.

    Raises UserError where there is no file, or it is none of these, or is damaged.
    """
    check_file(file)
    try:
        with file.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror}). Check its permissions") from None
    kind = _kind(start)
    if kind == "safetensors":
        return WeightFile("torch", read_safetensors(file), {})
    if kind == "torch":
        return WeightFile("torch", read_torch(file), {})
    if kind == "keras":
        return WeightFile("keras", read_keras(file), {})
    if kind == "caffe":
        net = read_caffe(file)
        return WeightFile("caffe", net.tensors, net.priors)
    raise UserError(
        f"{file}: not a file of weights that is known here: neither torch's .pth, .safetensors, .caffemodel nor .h5. "
        + (f"It begins with {start[:16]!r}{_likely(start)}" if start else "It is empty")
    )


def _kind(start: bytes) -> str:
    """By the magic numbers of each format; empty where none fits."""
    # First, for it begins with its header's length, whose lowest byte may be anything.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30:
        return "safetensors"
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or start[257:262] == b"ustar":
        return "torch"  # a zip; a bare pickle, torch's before 1.6; a tar, before 0.1.11
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "keras"
    # A protobuf has no magic number. NetParameter begins with its name (field 1), or with a layer: field 100, or
    # 2 of the first version, all of wire type 2.
    return "caffe" if start[:1] in (b"\x0a", b"\x12") or start[:2] == b"\xa2\x06" else ""


def _likely(start: bytes) -> str:
    if start.lstrip()[:1] == b"<":
        return ": a web page, perhaps of a download that failed"
    if start[:7] == b"version":
        return ": a pointer of Git LFS; `git lfs pull` fetches the file itself"
    return ""
