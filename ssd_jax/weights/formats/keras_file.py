"""Weights from HDF5 files of Keras 1, 2 and 3, without Keras.

HDF5's own library, in C, hangs on damaged files, which nobody can interrupt, and opens other files when one tells it
to. pyfive is pure Python and knows no other files. What it reads of this one, which a hostile file may have it read
again and again, is counted.

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
from ssd_jax.weights.formats.reading import MOST_GROWTH, check_file, check_names, own, reading

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2  # HDF5 File Format Specification, Data Layout Message
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # the same, Filter Pipeline Message


def read_keras(file: Path) -> dict[str, np.ndarray]:
    """The weights of a ``.h5`` file by ``<layer>.<number>``, in the file's order of layers and weights.

    Of convolutions 0 is the kernel, as it lies in the file (h, w, i, o), and 1 the bias. C-ordered; floats of any
    width as float32. Files of ``save_weights`` and of whole models are read; of these the weights alone.

    Raises UserError, naming the file, if it is missing, damaged, of another format, keeps weights in other files, or
    is of Theano, whose kernels are mirrored.
    """
    check_file(file)
    with reading(file):
        data = file.read_bytes()
        if data.startswith(b"PK\x03\x04"):
            raise UserError(f"{file}: a .keras archive. Unpack it (it is a zip file) and name its model.weights.h5.")
        if not data.startswith(_SIGNATURE):
            raise UserError(
                f"{file}: no HDF5 file, it begins with {data[:20]!r}. If that is text, a web page or a pointer of Git "
                "LFS was downloaded in its place."
            )
        root = pyfive.File(_CountedBytes(data))
        if root.userblock_size:  # addresses would count from elsewhere
            raise ValueError("a user block, which Keras never writes")
        tensors: dict[str, np.ndarray] = {}
        most_bytes = MOST_GROWTH * len(data)
        for name, dataset in _weights(file, root):
            most_bytes -= math.prod(dataset.shape) * max(dataset.dtype.itemsize, 4)
            if most_bytes < 0:
                raise UserError(
                    f"{file}: {name!a} has the shape {dataset.shape}: the weights would take more than {MOST_GROWTH} "
                    "times the bytes of the file. It is damaged, or compressed: h5repack -f NONE mends the latter."
                )
            tensors[name] = own(_read_dataset(file, name, dataset, data))
        check_names(tensors)
    if not tensors:
        raise UserError(f"{file}: no layer in it has weights. Save the model again, with model.save_weights.")
    return tensors


class _CountedBytes(io.BytesIO):
    """The file for pyfive, which follows its addresses wherever they lead: in circles, for one."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MOST_GROWTH * len(data) + 4_000_000

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self._left -= len(found) + 64  # what becomes of it in Python is larger
        if self._left < 0:
            raise ValueError("a structure that leads in circles")
        return found


# ---- which datasets are weights ----


def _weights(file: Path, root: Any) -> Iterator[tuple[str, Any]]:
    """Name and dataset of each weight."""
    if "layers" in root and not _names(root, "layer_names"):
        yield from _keras_3_weights(file, root["layers"])
        return
    top = root if _names(root, "layer_names") else root.get("model_weights")
    if not isinstance(top, pyfive.Group) or not _names(top, "layer_names"):
        raise UserError(
            f"{file}: an HDF5 file, but not of Keras: it has no list layer_names. Name the file that "
            "model.save_weights or model.save wrote."
        )
    if _text(top.attrs.get("backend")) == "theano":
        raise UserError(
            f"{file}: weights of Theano, whose kernels are mirrored. Load them with Keras 2 on TensorFlow and save "
            "them again."
        )
    for layer in _names(top, "layer_names"):
        group = _child(file, top, layer)
        for number, name in enumerate(_names(group, "weight_names")):
            yield f"{layer}.{number}", _child(file, group, name, pyfive.Dataset)


def _keras_3_weights(file: Path, layers: Any) -> Iterator[tuple[str, Any]]:
    """Groups are called by the layer's class, its name is an attribute. In the order of the groups."""
    for group in layers:
        variables = _child(file, _child(file, layers, group), "vars")
        if "name" not in variables.attrs:
            raise UserError(
                f"{file}: written by an early Keras 3, without the layers' names. Load it with Keras into its model, "
                'and save that with model.save("weights.h5").'
            )
        for number in range(len(variables)):
            yield f"{_text(variables.attrs['name'])}.{number}", _child(file, variables, str(number), pyfive.Dataset)


def _child(file: Path, group: Any, name: str, kind: type = pyfive.Group) -> Any:
    found = group.get(name)
    if not isinstance(found, kind):
        raise UserError(
            f"{file}: its list names {name!a}, and there is no such {kind.__name__.lower()} in the file itself. Save "
            "the model again, into one file."
        )
    return found


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names. Of one that is too long for an attribute Keras makes several, numbered from 0."""
    attributes = group.attrs
    numbered = itertools.takewhile(attributes.__contains__, (f"{attribute}{number}" for number in itertools.count()))
    parts = [attribute] if attribute in attributes else numbered
    return [_text(name) for part in parts for name in attributes[part]]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# ---- datasets ----


def _read_dataset(file: Path, name: str, dataset: Any, data: bytes) -> np.ndarray:
    """Its numbers, once it is known that they are numbers and lie in the file."""
    shape, dtype, storage = dataset.shape, dataset.dtype, dataset.id
    if dtype == np.dtype("V2") and _text(dataset.attrs.get("dtype")) == "bfloat16":
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif dtype.kind not in "fiub":
        raise UserError(f"{file}: {name!a} holds {dtype}, no numbers. It is damaged, or of a model that is no network.")
    count = math.prod(shape)
    if storage.layout_class == _CONTIGUOUS:
        if not 0 < count * dtype.itemsize <= len(data) - storage.data_offset:
            raise UserError(
                f"{file}: the numbers of {name!a} are not in it: the file was cut off, or keeps them in others. Copy "
                "or download it again."
            )
        return np.frombuffer(data, dtype, count, storage.data_offset).reshape(shape)
    if storage.layout_class == _CHUNKED:
        _check_chunks(file, name, dataset, MOST_GROWTH * len(data))
    elif storage.layout_class != _COMPACT:
        raise UserError(f"{file}: {name!a} is put together from other files. Save the model again, into one file.")
    return dataset[()].view(dtype)


def _check_chunks(file: Path, name: str, dataset: Any, most_bytes: int) -> None:
    """That all are there, and that none is larger than its part of the array when it is unpacked."""
    storage, size = dataset.id, math.prod(dataset.chunks) * dataset.dtype.itemsize
    filters = [entry["filter_id"] for entry in storage.filter_pipeline or ()]
    if not set(filters) <= {_DEFLATE, _SHUFFLE, _FLETCHER32} or filters.count(_DEFLATE) > 1:
        raise UserError(f"{file}: {name!a} is compressed by something else than gzip. h5repack -f NONE mends that.")
    count = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    if storage.get_num_chunks() != count or size * count > most_bytes:
        raise UserError(f"{file}: {name!a} has holes, or is padded with more than it holds. Save the model again.")
    for number in range(count):
        chunk = storage.get_chunk_info(number)
        packed = _DEFLATE in filters and not chunk.filter_mask >> filters.index(_DEFLATE) & 1
        if packed:
            _, stored = storage.read_direct_chunk(chunk.chunk_offset)
            unpacked = zlib.decompressobj().decompress(stored, size + 5)
            if len(unpacked) > size + 4:  # a checksum may be among it
                raise ValueError(f"{name}: a chunk that unpacks to more than it should")
