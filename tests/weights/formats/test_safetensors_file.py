"""Tests of reading and writing safetensors files."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers.damage import count_rejected, make_damaged_copies
from weights.formats.test_torch_file import EIGHTHS, EXPECTED, SIX, assert_same

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.safetensors_file import read_safetensors, write_safetensors

DTYPES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def encode_safetensors(tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    """Return the bytes of a safetensors file: length of the header, header in JSON, data.

    Args:
        tensors: Dict from the name of a tensor to the name of its dtype in the file and its array.
    """
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parse_safetensors(data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """Return a dict from the name of each tensor of a safetensors file to its dtype, shape and bytes."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    return {name: (e["dtype"], e["shape"], body[slice(*e["data_offsets"])]) for name, e in header.items()}


def test_read_safetensors_reads_every_dtype(tmp_path: Path):
    arrays = dict(EXPECTED)
    stored = arrays | {
        "half": EIGHTHS.astype(np.float16),
        "bfloat16": EIGHTHS.astype(ml_dtypes.bfloat16),
        "double": EIGHTHS.astype(np.float64),
    }
    file = tmp_path / "some.safetensors"
    file.write_bytes(encode_safetensors({name: (DTYPES[a.dtype.name], a) for name, a in stored.items()}))
    actual = read_safetensors(file)
    assert_same({name: actual[name] for name in arrays}, arrays)


def test_write_safetensors_writes_arrays_in_c_order(tmp_path: Path):
    file = tmp_path / "some.safetensors"
    stored = EXPECTED | {
        "fortran": np.asfortranarray(SIX.reshape(2, 3)),
        "half": EIGHTHS.astype(np.float16),
        "bfloat16": EIGHTHS.astype(ml_dtypes.bfloat16),
        "big_endian": SIX.astype(">f4"),
    }
    write_safetensors(file, stored)
    actual = parse_safetensors(file.read_bytes())
    assert actual.keys() == stored.keys()
    for name, array in stored.items():
        little = array.astype(array.dtype.newbyteorder("<")) if name == "big_endian" else array
        assert actual[name] == (DTYPES[little.dtype.name], list(array.shape), little.tobytes("C")), name
    back = read_safetensors(file)
    assert_same({name: back[name] for name in ("conv.weight", "fortran")}, {
        "conv.weight": EXPECTED["conv.weight"], "fortran": SIX.reshape(2, 3)
    })  # fmt: skip


def test_write_safetensors_is_atomic(tmp_path: Path):
    folder = tmp_path / "none"
    with pytest.raises(UserError, match=str(folder)):
        write_safetensors(folder / "some.safetensors", {"a": SIX})
    file = tmp_path / "some.safetensors"
    write_safetensors(file, {"a": SIX})
    (tmp_path / "plain").write_bytes(b"")
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode, (
        "the file has the same permissions as any new file"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "some.safetensors"]


@pytest.mark.parametrize(
    "data",
    [b"", b"x", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 100) + b"{}"],
)
def test_read_safetensors_rejects_invalid_files(tmp_path: Path, data: bytes):
    file = tmp_path / "some.safetensors"
    with pytest.raises(UserError, match=str(file)):
        read_safetensors(file)
    file.write_bytes(data)
    with pytest.raises(UserError, match=f"^{file}: is corrupt"):
        read_safetensors(file)


@pytest.mark.parametrize("count", [120, pytest.param(4000, marks=pytest.mark.slow)])
def test_read_safetensors_reads_or_rejects_corrupt_files(tmp_path: Path, count: int):
    file = tmp_path / "some.safetensors"
    good = encode_safetensors({name: (DTYPES[a.dtype.name], a) for name, a in EXPECTED.items()})
    assert count_rejected(read_safetensors, file, make_damaged_copies(good, count, seed=3)) > count // 2
