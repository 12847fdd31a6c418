"""Read weights from HDF5 files of Keras 1, 2 and 3, without Keras.

HDF5's own library, written in C, hangs on corrupt files without a way to interrupt it, and opens other files that a
file refers to. pyfive is pure Python and opens no other files. A hostile file can make it read the same bytes again
and again, so the bytes that it reads are counted.

Sources: Keras 2.2, keras/engine/saving.py, at 0246317e of github.com/keras-team/keras (Keras 1 has the same layout:
keras/engine/topology.py at 001c03d9); Keras 3.15, keras/src/saving/saving_lib.py.
"""

import io
import itertools
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyfive

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.reading import (
    MAX_EXPANSION,
    check_file,
    check_printable,
    to_native_array,
    user_errors_on_parse,
)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2  # HDF5 File Format Specification, Data Layout Message
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # the same, Filter Pipeline Message


def read_keras(file: Path) -> dict[str, np.ndarray]:
    """Read the weights of a ``.h5`` file written by ``save_weights`` or ``save``.

    Returns:
        Arrays by ``<layer>.<number>``, in the file's order of layers and weights, in C order, floats as float32. Weight
        0 of a convolution is the kernel (h, w, i, o), weight 1 the bias. Optimizer states of whole models are skipped.

    Raises:
        UserError: If the file is missing, corrupt, of another format, keeps weights in other files, or was written with
            Theano, whose kernels are mirrored.
    """
    check_file(file)
    with user_errors_on_parse(file):
        data = file.read_bytes()
        if data.startswith(b"PK\x03\x04"):
            raise UserError(f"{file}: a .keras archive. Unpack it (it is a zip file) and name its model.weights.h5.")
        if not data.startswith(_SIGNATURE):
            raise UserError(
                f"{file}: not an HDF5 file, it begins with {data[:20]!r}. If that is text, a web page or a Git LFS "
                "pointer was downloaded instead."
            )
        root = pyfive.File(_CountedBytes(data))
        if root.userblock_size:  # all addresses would be relative to its end
            raise ValueError("a user block, which Keras never writes")
        tensors: dict[str, np.ndarray] = {}
        max_bytes = MAX_EXPANSION * len(data)
        for name, dataset in _find_weights(file, root):
            max_bytes -= math.prod(dataset.shape) * max(dataset.dtype.itemsize, 4)
            if max_bytes < 0:
                raise UserError(
                    f"{file}: with {name!a} of shape {dataset.shape}, the weights would take more than "
                    f"{MAX_EXPANSION} times the bytes of the file. It is corrupt, or compressed: h5repack -f NONE "
                    "removes the compression."
                )
            tensors[name] = to_native_array(_read_dataset(file, name, dataset, data))
        check_printable(tensors)
    if not tensors:
        raise UserError(f"{file}: contains no layer with weights. Save the model again, with model.save_weights.")
    return tensors


class _CountedBytes(io.BytesIO):
    """A file that limits how much pyfive reads. Addresses in the file can lead it in circles."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_EXPANSION * len(data) + 4_000_000

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._left -= len(data) + 64  # objects made from the data are larger
        if self._left < 0:
            raise ValueError("addresses that lead in circles")
        return data


# ---- which datasets are weights ----


def _find_weights(file: Path, root: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and dataset of each weight."""
    if "layers" in root and not _names(root, "layer_names"):
        yield from _find_keras_3_weights(file, root["layers"])
        return
    top = root if _names(root, "layer_names") else root.get("model_weights")
    if not isinstance(top, pyfive.Group) or not _names(top, "layer_names"):
        raise UserError(
            f"{file}: an HDF5 file, but not of Keras: the list layer_names is missing. Name a file written by "
            "model.save_weights or model.save."
        )
    if _text(top.attrs.get("backend")) == "theano":
        raise UserError(
            f"{file}: written with Theano, whose kernels are mirrored. Load it with Keras 2 on TensorFlow and save it "
            "again."
        )
    for layer in _names(top, "layer_names"):
        group = _child(file, top, layer)
        for number, name in enumerate(_names(group, "weight_names")):
            yield f"{layer}.{number}", _child(file, group, name, pyfive.Dataset)


def _find_keras_3_weights(file: Path, layers: Any) -> Iterator[tuple[str, Any]]:
    """Yield the weights in the order of the groups. Groups have the name of the layer's class, and the layer's name
    as an attribute."""
    for group in layers:
        variables = _child(file, _child(file, layers, group), "vars")
        if "name" not in variables.attrs:
            raise UserError(
                f"{file}: written by an early Keras 3, without the names of the layers. Load it with Keras into its "
                'model, and save that with model.save("weights.h5").'
            )
        for number in range(len(variables)):
            yield f"{_text(variables.attrs['name'])}.{number}", _child(file, variables, str(number), pyfive.Dataset)


def _child(file: Path, group: Any, name: str, kind: type = pyfive.Group) -> Any:
    child = group.get(name)
    if not isinstance(child, kind):
        raise UserError(
            f"{file}: {name!a} is in its list of names, but the file has no such {kind.__name__.lower()}. Save the "
            "model again, into one file."
        )
    return child


def _names(group: Any, attribute: str) -> list[str]:
    """Return a list of names. Keras splits lists that are too long for one attribute and numbers the parts from 0."""
    attributes = group.attrs
    numbered = itertools.takewhile(attributes.__contains__, (f"{attribute}{number}" for number in itertools.count()))
    parts = [attribute] if attribute in attributes else numbered
    return [_text(name) for part in parts for name in attributes[part]]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# ---- datasets ----


def _read_dataset(file: Path, name: str, dataset: Any, data: bytes) -> np.ndarray:
    """Read a dataset after checking that it contains numbers, and that they are in the file."""
    shape, dtype, storage = dataset.shape, dataset.dtype, dataset.id
    if dtype == np.dtype("V2") and _text(dataset.attrs.get("dtype")) == "bfloat16":
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif dtype.kind not in "fiub":
        raise UserError(f"{file}: {name!a} contains {dtype}, not numbers. The file is corrupt or not of a network.")
    count = math.prod(shape)
    if storage.layout_class == _CONTIGUOUS:
        if not 0 < count * dtype.itemsize <= len(data) - storage.data_offset:
            raise UserError(
                f"{file}: the values of {name!a} are not in it: the file was cut off, or keeps them in other files. "
                "Copy or download it again."
            )
        return np.frombuffer(data, dtype, count, storage.data_offset).reshape(shape)
    if storage.layout_class == _CHUNKED:
        _check_chunks(file, name, dataset, MAX_EXPANSION * len(data))
    elif storage.layout_class != _COMPACT:
        raise UserError(f"{file}: {name!a} is assembled from other files. Save the model again, into one file.")
    return dataset[()].view(dtype)


def _check_chunks(file: Path, name: str, dataset: Any, max_bytes: int) -> None:
    """Check that all chunks exist, and that none unpacks to more than its part of the array."""
    storage, size = dataset.id, math.prod(dataset.chunks) * dataset.dtype.itemsize
    filters = [entry["filter_id"] for entry in storage.filter_pipeline or ()]
    if not set(filters) <= {_DEFLATE, _SHUFFLE, _FLETCHER32} or filters.count(_DEFLATE) > 1:
        raise UserError(f"{file}: {name!a} is not compressed with gzip. h5repack -f NONE removes the compression.")
    count = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    if storage.get_num_chunks() != count or size * count > max_bytes:
        raise UserError(f"{file}: {name!a} lacks chunks, or has more padding than values. Save the model again.")
    for number in range(count):
        chunk = storage.get_chunk_info(number)
        packed = _DEFLATE in filters and not chunk.filter_mask >> filters.index(_DEFLATE) & 1
        if packed:
            _, stored = storage.read_direct_chunk(chunk.chunk_offset)
            unpacked = zlib.decompressobj().decompress(stored, size + 5)
            if len(unpacked) > size + 4:  # may include a checksum
                raise ValueError(f"{name}: a chunk that unpacks to more than its size")
