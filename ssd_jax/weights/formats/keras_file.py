"""Read weights from HDF5 files of Keras 1, 2 and 3, without Keras.

The C library of HDF5 can hang on corrupt files and cannot be interrupted then, and it opens other files that a file
refers to. Therefore pyfive is used: it is written in Python and opens no other files. A hostile file can make pyfive
read the same bytes again and again, so the number of bytes that pyfive reads is limited.

Sources: Keras 2.2, keras/engine/saving.py, at 0246317e of github.com/keras-team/keras (files of Keras 1 are organised
in the same way: keras/engine/topology.py at 001c03d9); Keras 3.15, keras/src/saving/saving_lib.py.
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
    convert_parse_errors,
    to_native_array,
)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2  # layout classes: HDF5 File Format Specification, Data Layout Message
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # filter ids: Filter Pipeline Message


def read_keras(file: Path) -> dict[str, np.ndarray]:
    """Read a ``.h5`` file written by Keras' ``save_weights`` or ``save``, and return its weights.

    Returns:
        Arrays by ``<layer>.<number>``, with layers and weights in the order of the file. The arrays are C-contiguous,
        and floats are converted to float32. Weight 0 of a convolution is the kernel (h, w, i, o), weight 1 the bias
        (o,). The optimizer state in files of ``save`` is ignored.

    Raises:
        UserError: If the file is missing or corrupt, has another format, keeps weights in other files, or was written
            with the Theano backend, whose kernels are mirrored.
    """
    check_file(file)
    with convert_parse_errors(file):
        data = file.read_bytes()
        if data.startswith(b"PK\x03\x04"):
            raise UserError(f"{file}: is a .keras archive. Unpack it (it is a zip file) and name its model.weights.h5.")
        if not data.startswith(_SIGNATURE):
            raise UserError(
                f"{file}: is not an HDF5 file: it begins with {data[:20]!r}. If that is text, a web page or a Git LFS "
                "pointer was downloaded instead."
            )
        root = pyfive.File(_CountedBytes(data))
        if root.userblock_size:  # then all addresses are relative to the end of the user block
            raise ValueError("the file has a user block, which Keras never writes")
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
    """A file in memory that raises ValueError when too many bytes are read.

    Addresses in a hostile file can make pyfive read the same bytes again and again.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_EXPANSION * len(data) + 4_000_000

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._left -= len(data) + 64  # the objects that pyfive makes from the data are larger
        if self._left < 0:
            raise ValueError("the addresses in the file lead in circles")
        return data


# ---- finding the datasets of weights ----


def _find_weights(file: Path, root: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name ``<layer>.<number>`` and the dataset of each weight."""
    if "layers" in root and not _read_names(root, "layer_names"):
        yield from _find_keras_3_weights(file, root["layers"])
        return
    top = root if _read_names(root, "layer_names") else root.get("model_weights")
    if not isinstance(top, pyfive.Group) or not _read_names(top, "layer_names"):
        raise UserError(
            f"{file}: is an HDF5 file, but not of Keras: the list layer_names is missing. Name a file written by "
            "model.save_weights or model.save."
        )
    if _to_text(top.attrs.get("backend")) == "theano":
        raise UserError(
            f"{file}: was written with Theano, whose kernels are mirrored. Load it with Keras 2 on TensorFlow and "
            "save it again."
        )
    for layer in _read_names(top, "layer_names"):
        group = _get_child(file, top, layer)
        for number, name in enumerate(_read_names(group, "weight_names")):
            yield f"{layer}.{number}", _get_child(file, group, name, pyfive.Dataset)


def _find_keras_3_weights(file: Path, layers: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and dataset of each weight of a Keras 3 file, in the order of the groups.

    A group is named after the class of its layer, and has the layer's name as an attribute.
    """
    for group in layers:
        variables = _get_child(file, _get_child(file, layers, group), "vars")
        if "name" not in variables.attrs:
            raise UserError(
                f"{file}: was written by an early Keras 3, without the names of the layers. Load it with Keras into "
                'its model, and save that with model.save("weights.h5").'
            )
        for number in range(len(variables)):
            yield (
                f"{_to_text(variables.attrs['name'])}.{number}",
                _get_child(file, variables, str(number), pyfive.Dataset),
            )


def _get_child(file: Path, group: Any, name: str, kind: type = pyfive.Group) -> Any:
    """Return a member of a group. Raises UserError if the group has no member with this name and kind."""
    child = group.get(name)
    if not isinstance(child, kind):
        raise UserError(
            f"{file}: {name!a} is in its list of names, but there is no {kind.__name__.lower()} with this name. Save "
            "the model again, into one file."
        )
    return child


def _read_names(group: Any, attribute: str) -> list[str]:
    """Return the list of names in an attribute of a group.

    Keras splits a list that is too long for one attribute into several attributes, numbered from 0.
    """
    attributes = group.attrs
    numbered = itertools.takewhile(attributes.__contains__, (f"{attribute}{number}" for number in itertools.count()))
    parts = [attribute] if attribute in attributes else numbered
    return [_to_text(name) for part in parts for name in attributes[part]]


def _to_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# ---- datasets ----


def _read_dataset(file: Path, name: str, dataset: Any, data: bytes) -> np.ndarray:
    """Return the array of a dataset. Raises UserError if it is not numeric or if values are missing from the file."""
    shape, dtype, storage = dataset.shape, dataset.dtype, dataset.id
    if dtype == np.dtype("V2") and _to_text(dataset.attrs.get("dtype")) == "bfloat16":
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif dtype.kind not in "fiub":
        raise UserError(f"{file}: {name!a} contains {dtype}, not numbers. The file is corrupt or has no weights.")
    count = math.prod(shape)
    if storage.layout_class == _CONTIGUOUS:
        if not 0 < count * dtype.itemsize <= len(data) - storage.data_offset:
            raise UserError(
                f"{file}: the values of {name!a} are not in it. The file was cut off, or keeps them in other files. "
                "Copy or download it again."
            )
        return np.frombuffer(data, dtype, count, storage.data_offset).reshape(shape)
    if storage.layout_class == _CHUNKED:
        _check_chunks(file, name, dataset, MAX_EXPANSION * len(data))
    elif storage.layout_class != _COMPACT:
        raise UserError(f"{file}: {name!a} is assembled from other files. Save the model again, into one file.")
    return dataset[()].view(dtype)


def _check_chunks(file: Path, name: str, dataset: Any, max_bytes: int) -> None:
    """Raise an error if a dataset lacks chunks, has an unsupported filter, or has chunks that unpack to too many bytes.

    Such a dataset could fill the memory, or would be read with zeros for the missing values.
    """
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
            if len(unpacked) > size + 4:  # the chunk may include a checksum of four bytes
                raise ValueError(f"{name}: a chunk unpacks to more bytes than its declared shape allows")
