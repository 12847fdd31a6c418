"""Read tensors from files of ``torch.save``, without torch.

Source of the two formats, before and since torch 1.6: pytorch 2.14, torch/serialization.py.
"""

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.reading import (
    MAX_EXPANSION,
    check_file,
    check_printable,
    convert_parse_errors,
    strip_prefixes,
    to_native_array,
)
from ssd_jax.weights.formats.torch_pickle import PickleLoader, StateDict, Storage, Tensor, is_non_negative_int

_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

# Keys under which training scripts store the weights. mmdetection uses the first, lufficc and torchvision's references
# the second, and various scripts the others.
_WEIGHT_KEYS = ("state_dict", "model", "model_state_dict", "net", "weights")


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """Read a ``.pth``, ``.pt`` or ``.bin`` file in either format of ``torch.save``, and return its tensors.

    The file can name modules and functions; none of them is imported or called.

    Returns:
        C-contiguous arrays by name; floats are converted to float32. Only the weights of a training checkpoint are
        returned. Prefixes of wrappers such as DataParallel are removed from the names.

    Raises:
        UserError: If the file is missing or corrupt, has another format, or contains anything but plain data and
            tensors, such as a call of ``os.system``.
    """
    check_file(file)
    with convert_parse_errors(file):
        data = file.read_bytes()
        load = _load_zip if data.startswith(b"PK\x03\x04") else _load_legacy
        content, storage_bytes = load(file, data)
        _check_mmdetection_version(file, content)
        return _to_arrays(_find_tensors(file, content), storage_bytes, MAX_EXPANSION * len(data))


# ---- the two formats ----

_StorageBytes = Callable[[str], bytes | memoryview]
"""Function that takes the key of a storage and returns the bytes of the storage."""


def _load_zip(file: Path, data: bytes) -> tuple[Any, _StorageBytes]:
    """Load a file of torch 1.6 or later, and return the unpickled content and a function that reads storages.

    The file is a zip archive with the pickle in <any name>/data.pkl and each storage in <any name>/data/<key>.
    """
    archive = zipfile.ZipFile(io.BytesIO(data))
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise UserError(
            f"{file}: is not an archive of torch.save, which has one data.pkl. Name the weight file itself."
        )
    folder = pickles[0].removesuffix("data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise UserError(
            f"{file}: is a compressed zip file. torch.save does not compress; unpack it to get the weights."
        )
    if sum(entry.file_size for entry in archive.infolist()) > len(data):
        raise ValueError("the entries of the archive are larger than the file")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise UserError(f"{file}: was written on a big-endian machine. Save it again on a little-endian one.")
    content = PickleLoader(file).load(io.BytesIO(archive.read(pickles[0])))
    return content, lambda key: archive.read(f"{folder}data/{key}")


def _load_legacy(file: Path, data: bytes) -> tuple[Any, _StorageBytes]:
    """Load a file of torch before 1.6, and return the unpickled content and a function that reads storages.

    The file has five pickles, followed by the storages. Before each storage is its number of elements.
    """
    if data[257:262] == b"ustar":
        raise UserError(
            f"{file}: is a tar file, as torch wrote before version 0.1.11. Load it with torch and save it again."
        )
    if not data.startswith(b"\x80"):
        raise UserError(
            f"{file}: is not a file of torch.save: it begins with {data[:20]!r}. If that is text, a web page or a Git "
            "LFS pointer was downloaded instead."
        )
    stream, loader = io.BytesIO(data), PickleLoader(file)
    if loader.load(stream) != _MAGIC_NUMBER or loader.load(stream) != _PROTOCOL:
        raise UserError(
            f"{file}: is a pickle, but was not written by torch.save. Save the tensors with torch or as safetensors."
        )
    loader.load(stream)  # skips a description of the machine that wrote the file
    content, keys = loader.load(stream), loader.load(stream)
    buffers: dict[str, memoryview] = {}
    for key in keys:
        if type(key) is not str:  # hashing a key of another type could take forever
            raise ValueError("the key of a storage is not text")
        storage = loader.storages[key]
        if int.from_bytes(stream.read(8), "little") != storage.length:
            raise ValueError(f"storage {key} does not have the size that the pickle declares")
        start, size = stream.tell(), storage.length * storage.dtype.itemsize
        if size > len(data) - start:
            raise ValueError("the file ends early")
        buffers[key] = memoryview(data)[start : start + size]
        stream.seek(start + size)
    if stream.read(1):
        raise ValueError("the file continues after its end")
    return content, buffers.__getitem__


# ---- conversion of the unpickled content to arrays ----


def _check_mmdetection_version(file: Path, content: Any) -> None:
    """Raise UserError if a file was written by MMDetection before 2.0.

    The keys are the same as in version 2.0, but the order of the classes differs. Only the metadata has the version.
    """
    meta = content.get("meta") if type(content) is StateDict else None
    version = meta.get("mmdet_version") if type(meta) is StateDict else None
    if type(version) is str and version.startswith(("0.", "1.")):
        raise UserError(
            f"{file}: was written by MMDetection {version[:20]!a}, which has background as the first class and other "
            "default boxes than 2.0. Convert it with MMDetection's tools/model_converters/upgrade_model_version.py "
            "--ssd"
        )


def _find_tensors(file: Path, content: Any) -> dict[str, Tensor]:
    """Find the dict of weights in a file's content, and return its tensors without the name prefixes of wrappers."""
    saved = content if type(content) is StateDict else {}
    candidates = map(_get_tensors, [*(saved.get(key) for key in _WEIGHT_KEYS), content])
    tensors = next(filter(None, candidates), None) or _get_tensors_of_only_dict(saved)
    if not tensors:
        names = ", ".join(map(ascii, list(saved)[:10]))[:200] or "no dict"
        raise UserError(
            f"{file}: contains no dict of tensors, or more than one ({names}). Save only the model's state_dict."
        )
    check_printable(tensors)
    return strip_prefixes(tensors)


def _get_tensors_of_only_dict(saved: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the only dict in ``saved`` that has tensors, or an empty dict if there is no such dict."""
    distinct = {id(value): value for value in saved.values()}
    groups = [tensors for value in distinct.values() if (tensors := _get_tensors(value))]
    return groups[0] if len(groups) == 1 else {}


def _get_tensors(value: Any) -> dict[str, Tensor]:
    """Return the values of a dict that are tensors, by key, or an empty dict if ``value`` is not a dict."""
    return {k: v for k, v in value.items() if type(v) is Tensor} if type(value) is StateDict else {}


def _to_arrays(tensors: Mapping[str, Tensor], storage_bytes: _StorageBytes, max_bytes: int) -> dict[str, np.ndarray]:
    """Return an array for each tensor. Raises ValueError if the arrays take more than ``max_bytes`` in total."""
    buffers: dict[str, bytes | memoryview] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if type(storage) is not Storage:
            raise ValueError(f"{name} has no storage")
        if storage.key not in buffers:
            buffers[storage.key] = storage_bytes(storage.key)
        view = _make_view(name, tensor, buffers[storage.key])
        max_bytes -= view.size * max(view.itemsize, 4)
        if max_bytes < 0:
            raise ValueError(f"the tensors would take more than {MAX_EXPANSION} times the bytes of the file")
        arrays[name] = to_native_array(view)
    return arrays


def _make_view(name: str, tensor: Tensor, buffer: bytes | memoryview) -> np.ndarray:
    """Return a tensor as a view of its storage. Raises ValueError if the tensor does not lie inside the storage."""
    storage, size, stride = tensor.storage, tensor.size, tensor.stride
    if len(buffer) != storage.length * storage.dtype.itemsize:
        raise ValueError(f"{name}: the storage has {len(buffer)} bytes, not {storage.length} {storage.dtype} numbers")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > 32:
        raise ValueError(f"{name}: the size and stride are not a shape")
    if not all(is_non_negative_int(number) for number in (*size, *stride, tensor.offset, storage.start)):
        raise ValueError(f"{name}: a size, stride or offset is negative or not an integer")
    first = storage.start + tensor.offset
    last = first + sum((number - 1) * step for number, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.length:
        raise ValueError(f"{name}: the tensor is larger than its storage")
    item = storage.dtype.itemsize
    # np.ndarray also checks that the view lies inside the buffer.
    return np.ndarray(size, storage.dtype, buffer, first * item, [step * item for step in stride])
