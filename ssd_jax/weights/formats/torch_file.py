"""Tensors from files of torch, without torch, and from safetensors.

What ``torch.save`` writes is a pickle, and a pickle is a program: it names functions and has them called. It is
executed here by a machine that knows only the instructions of plain data, and looks names up in a table instead of
importing them. Formats: pytorch 2.14, torch/serialization.py; names that older ones wrote: beside their entries.
"""

import io
import math
import os
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy

from ssd_jax.errors import UserError
from ssd_jax.files import user_errors_on_write
from ssd_jax.weights.formats.reading import MOST_GROWTH, check_file, check_names, own, reading, without_prefixes

_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

# A detector's state dict takes some thousands of instructions, one with its optimizer and notes some tens of thousands.
_MOST_INSTRUCTIONS = 200_000

_DTYPES = {
    "Double": np.dtype(np.float64),
    "Float": np.dtype(np.float32),
    "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype(np.int64),
    "Int": np.dtype(np.int32),
    "Short": np.dtype(np.int16),
    "Char": np.dtype(np.int8),
    "Byte": np.dtype(np.uint8),
    "Bool": np.dtype(np.bool_),
}

# Keys under which training scripts keep the weights: mmdetection; lufficc and torchvision's references; others.
_HOLDERS = ("state_dict", "model", "model_state_dict", "net", "weights")


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a ``.pth``, ``.pt`` or ``.bin`` file by name, C-ordered; floats as float32.

    Both formats of ``torch.save`` are read. Of a training script's checkpoint the weights are taken, and
    prefixes of wrappers are taken off the names.

    Raises UserError, naming the file, if it is missing, damaged, of another format, or asks for anything but plain
    data and tensors, such as a call of ``os.system``: nothing that a file names is ever imported or called.
    """
    check_file(file)
    with reading(file):
        data = file.read_bytes()
        load = _load_zip if data.startswith(b"PK\x03\x04") else _load_legacy
        content, storage_bytes = load(file, data)
        _check_mmdetection(file, content)
        return _to_arrays(_state_dict(file, content), storage_bytes, MOST_GROWTH * len(data))


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a ``.safetensors`` file by name, without prefixes of wrappers, C-ordered; floats as float32.

    Raises UserError, naming the file, if it is missing, damaged or of another format.
    """
    check_file(file)
    with reading(file):
        return without_prefixes({name: own(array) for name, array in safetensors.numpy.load_file(file).items()})


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays of any dtype and order under their names, whole or not at all.

    Raises UserError, naming the file, if it can't be written.
    """
    # safetensors writes the memory as it lies, so that a transposed view would come back as another array.
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in tensors.items()})
    temporary = file.with_name(file.name + ".tmp")
    with user_errors_on_write(file):
        temporary.write_bytes(data)
        os.replace(temporary, file)


# ---- what a pickle may name ----


class _Storage(NamedTuple):
    """A run of numbers in the file. Storages are found by key; several tensors may lie in one."""

    dtype: np.dtype
    key: str
    length: int
    start: int = 0
    """Where in it the view of the legacy format begins that a tensor's offset is counted from."""


@dataclass(slots=True)
class _Tensor:
    """Where in a storage the numbers of a tensor lie, in elements; unchecked until it is read."""

    storage: Any = None
    offset: Any = 0
    size: Any = ()
    stride: Any = ()


_IGNORED = object()  # stands for every object of a harmless kind that no tensor depends on


def _ignore(*args: Any) -> object:
    return _IGNORED


def _ordered_dict(pairs: Any = None) -> dict[str, Any]:
    """Python 3 fills it afterwards; Python 2 hands over a list of pairs."""
    ordered: dict[str, Any] = {}
    if pairs is not None:
        ordered.update((key, value) for key, value in pairs if type(key) is str)
        pairs.clear()  # moved, not copied: a list named again and again would make a small file fill the memory
    return ordered


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    """rest: whether it has a gradient, hooks, flags."""
    return _Tensor(storage, offset, size, stride)


def _empty_tensor() -> _Tensor:
    """Filled by BUILD."""
    return _Tensor()


def _unchanged(value: Any, *rest: Any) -> Any:
    return value


# What else lies in published checkpoints: options, counters of learning rate schedules, measured numbers.
_HARMLESS = {
    "argparse": "Namespace",
    "collections": "Counter defaultdict",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "builtins": "set frozenset complex bytearray",
    "__builtin__": "set frozenset complex bytearray",
    "_codecs": "encode",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "torch": "device float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool",
}
_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,  # torch 0.2 and 0.3
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _unchanged,
    "torch.Size": _unchanged,
    **{f"torch.{name}Tensor": _empty_tensor for name in _DTYPES},  # torch 0.1
    **{f"torch.cuda.{name}Tensor": _empty_tensor for name in _DTYPES},
    **{f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()},
    **{f"torch.cuda.{name}Storage": dtype for name, dtype in _DTYPES.items()},
    **{f"torch.storage.{name}Storage": dtype for name, dtype in _DTYPES.items()},
    **{f"{module}.{name}": _ignore for module, names in _HARMLESS.items() for name in names.split()},
}


# ---- the machine ----

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PLAIN_DATA = """
BININT BININT1 BININT2 LONG1 BINFLOAT BINBYTES SHORT_BINBYTES BINBYTES8 BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINSTRING SHORT_BINSTRING NONE NEWTRUE NEWFALSE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS
EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET MARK BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
GLOBAL STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX BUILD BINPERSID PROTO FRAME STOP
"""
_INSTRUCTIONS = {op.code.encode("latin-1"): op for op in pickletools.opcodes}
_ALLOWED = frozenset(_PLAIN_DATA.split())


class _Unpickler:
    """Executes one pickle after the other from a stream. ``storages``: those met so far, by key.

    Takes time and memory in proportion to the instructions: containers that a file may name again are never copied,
    printed, hashed or descended into, however deep it nests them.
    """

    def __init__(self, file: Path, stream: io.BytesIO) -> None:
        self.file, self.stream = file, stream
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        """The value of the next pickle. Raises UserError, or, where it makes no sense, any other exception."""
        stack: list[Any] = []
        outer: list[list[Any]] = []  # the stacks below each MARK
        memo: dict[int, Any] = {}
        for _ in range(_MOST_INSTRUCTIONS):
            name, argument = self._next_instruction()
            match name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    outer.append(stack)
                    stack = []
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_SET":
                    stack.append(_IGNORED)
                case "TUPLE" | "FROZENSET" | "APPENDS" | "SETITEMS" | "ADDITEMS":
                    items, stack = stack, outer.pop()
                    if name == "TUPLE":
                        stack.append(tuple(items))
                    elif name == "FROZENSET":
                        stack.append(_IGNORED)
                    elif name == "APPENDS":
                        _append_items(stack[-1], items)
                    elif name == "SETITEMS":
                        _set_items(stack[-1], items)
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(_pop(stack, int(name[-1]))))
                case "APPEND":
                    items = _pop(stack, 1)
                    _append_items(stack[-1], items)
                case "SETITEM":
                    items = _pop(stack, 2)
                    _set_items(stack[-1], items)
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(self._look_up(*argument))
                case "STACK_GLOBAL":
                    stack.append(self._look_up(*_pop(stack, 2)))
                case "REDUCE" | "NEWOBJ":
                    function, args = _pop(stack, 2)
                    stack.append(_call(function, args))
                case "NEWOBJ_EX":
                    function, args, _ = _pop(stack, 3)
                    stack.append(_call(function, args))
                case "BUILD":
                    _set_state(stack[-2], stack.pop())
                case "BINPERSID":
                    stack.append(self._find_storage(stack.pop()))
                case _:
                    stack.append(_CONSTANTS.get(name, argument))
        raise ValueError(f"a pickle of more than {_MOST_INSTRUCTIONS} instructions")

    def _next_instruction(self) -> tuple[str, Any]:
        code = self.stream.read(1)
        if not code:
            raise ValueError("a pickle that ends early")
        op = _INSTRUCTIONS.get(code)
        if op is None or op.name not in _ALLOWED:
            name = f"0x{code.hex()}" if op is None else op.name
            raise ValueError(f"a pickle with the instruction {name}, which torch.save never writes")
        if op.name == "GLOBAL":  # pickletools would undo escapes in the names, which Python does not
            return op.name, (self._line(), self._line())
        return op.name, op.arg.reader(self.stream) if op.arg else None

    def _line(self) -> str:
        return self.stream.readline().removesuffix(b"\n").decode()

    def _look_up(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        found = _GLOBALS.get(f"{module}.{name}")
        if found is None:
            raise UserError(_refusal(self.file, module, name))
        return found

    def _find_storage(self, persistent_id: Any) -> _Storage:
        """Of ("storage", type, key, device, count), in the legacy format followed by a view or None."""
        if type(persistent_id) is not tuple or len(persistent_id) not in (5, 6):
            raise ValueError("a persistent id of a shape that torch.save never writes")
        kind, dtype, key, _, length, *view = persistent_id
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(key) is not str or not _is_size(length):
            raise ValueError("a persistent id that is no storage's")
        storage = _Storage(dtype, key, length)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError("a storage of two types or sizes")
        if not view or view[0] is None:
            return storage
        _, start, _ = view[0]  # key, first element, number of elements
        return storage._replace(start=start)


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("a pickle that takes more than it made")
    items = stack[-count:]
    del stack[-count:]
    return items


def _append_items(target: Any, items: list[Any]) -> None:
    if type(target) is list:
        target.extend(items)
    elif target is not _IGNORED:
        raise ValueError("a pickle that appends to what is no list")


def _set_items(target: Any, items: list[Any]) -> None:
    """Keys that are no text can't be names of weights and are dropped; hashing nested tuples could take for ever."""
    if type(target) is dict:
        target.update((k, v) for k, v in zip(items[::2], items[1::2], strict=True) if type(k) is str)
    elif target is not _IGNORED:
        raise ValueError("a pickle that sets items of what is no dict")


def _call(function: Any, args: Any) -> Any:
    # Only _GLOBALS puts functions on the stack. Of those nothing takes many arguments but a path with its parts.
    if type(function) is not FunctionType or type(args) is not tuple or len(args) > 100:
        raise ValueError("a pickle that calls what can't be called")
    return function(*args)


def _set_state(target: Any, state: Any) -> None:
    """BUILD. Attributes, such as ``_metadata`` of a state dict, are dropped; a tensor of torch 0.1 is filled."""
    if type(target) is _Tensor and target.storage is None:
        target.storage, target.offset, target.size, target.stride = state
    elif target is not _IGNORED and type(target) not in (_Tensor, dict):
        raise ValueError("a pickle that sets the state of plain data")


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


# What is done to a machine: no network is made of these.
_DANGEROUS = {
    "os", "posix", "nt", "sys", "_sys", "subprocess", "shutil", "socket", "pty", "runpy", "importlib", "ctypes",
    "webbrowser", "system", "popen", "eval", "exec", "compile", "open", "__import__",
}  # fmt: skip


def _refusal(file: Path, module: str, name: str) -> str:
    if _DANGEROUS & set(f"{module}.{name}".split(".")):
        return (
            f"{file}: refused. It asks to run {f'{module}.{name}'[:200]!a}, which no file of weights needs: it may be "
            "an attack. Nothing of it was run. Do not load it elsewhere, and get the weights from another place."
        )
    whole = module.startswith(("torch.nn.", "torchvision.models."))
    what = "a pickled model in place of its state_dict" if whole else "code, or an object that needs code"
    weights = "found.state_dict()" if whole else 'found["state_dict"]'
    others = "" if whole else '\nor found.state_dict(), found["model"], found: whichever are the tensors by name.'
    return (
        f"{file}: refused. It asks for {f'{module}.{name}'[:200]!a}: {what}, and nothing in a file of weights is "
        "ever run here. If you trust where it comes from, save its tensors alone, where torch and that code are:\n"
        "  import torch, safetensors.torch\n"
        f'  found = torch.load({file.name!r}, map_location="cpu", weights_only=False)\n'
        f"  safetensors.torch.save_file({weights}, {file.stem + '.safetensors'!r}){others}"
    )


# ---- the two formats ----

_StorageBytes = Callable[[str], bytes | memoryview]
"""The bytes of the storage of a key."""


def _load_zip(file: Path, data: bytes) -> tuple[Any, _StorageBytes]:
    """Since torch 1.6: <any name>/data.pkl, and each storage in <any name>/data/<key>."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise UserError(f"{file}: a zip file, but none of torch.save, which has one data.pkl. Name the weights' file.")
    folder = pickles[0].removesuffix("data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise UserError(f"{file}: a compressed zip file, as torch.save writes none. Unpack it: the weights are inside.")
    if sum(entry.file_size for entry in archive.infolist()) > len(data):
        raise ValueError("entries that are larger than the file")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise UserError(f"{file}: written on a big-endian machine. Save it again on another one.")
    unpickler = _Unpickler(file, io.BytesIO(archive.read(pickles[0])))
    return unpickler.load(), lambda key: archive.read(f"{folder}data/{key}")


def _load_legacy(file: Path, data: bytes) -> tuple[Any, _StorageBytes]:
    """Before torch 1.6: five pickles, then each storage, little-endian, behind its number of elements."""
    if data[257:262] == b"ustar":
        raise UserError(f"{file}: a tar file, of the first versions of torch. Load it with torch and save it again.")
    if not data.startswith(b"\x80"):
        raise UserError(
            f"{file}: no file of torch.save, it begins with {data[:20]!r}. If that is text, a web page or a pointer of "
            "Git LFS was downloaded in its place."
        )
    stream = io.BytesIO(data)
    unpickler = _Unpickler(file, stream)
    if unpickler.load() != _MAGIC_NUMBER or unpickler.load() != _PROTOCOL:
        raise UserError(f"{file}: a pickle, but none of torch.save. Save the tensors with torch or as safetensors.")
    unpickler.load()  # about the machine that wrote it
    content, keys = unpickler.load(), unpickler.load()
    places: dict[str, memoryview] = {}
    for key in keys:
        if type(key) is not str:  # before it is hashed
            raise ValueError("a storage's key that is no text")
        storage = unpickler.storages[key]
        if int.from_bytes(stream.read(8), "little") != storage.length:
            raise ValueError(f"storage {key} has another size than its tensors say")
        start, size = stream.tell(), storage.length * storage.dtype.itemsize
        if size > len(data) - start:
            raise ValueError("the file ends early")
        places[key] = memoryview(data)[start : start + size]
        stream.seek(start + size)
    if stream.read(1):
        raise ValueError("the file goes on where it should end")
    return content, places.__getitem__


# ---- from what was loaded to arrays ----


def _check_mmdetection(file: Path, content: Any) -> None:
    """Its versions 0 and 1 have the keys of 2.0, and other meanings: only the file's own note tells."""
    meta = content.get("meta") if type(content) is dict else None
    version = meta.get("mmdet_version") if type(meta) is dict else None
    if type(version) is str and version.startswith(("0.", "1.")):
        raise UserError(
            f"{file}: of MMDetection {version[:20]!a}, which has background first and other default boxes than "
            "since 2.0. Convert it with MMDetection's tools/model_converters/upgrade_model_version.py --ssd"
        )


def _state_dict(file: Path, content: Any) -> dict[str, _Tensor]:
    """The dict of tensors in what was saved, without the prefixes of wrappers."""
    holders = content if type(content) is dict else {}
    known = map(_tensors_in, [*(holders.get(name) for name in _HOLDERS), content])
    tensors = next(filter(None, known), None) or _only_tensors(holders)
    if not tensors:
        names = ", ".join(map(ascii, list(holders)[:10]))[:200] or "no dict"
        raise UserError(f"{file}: no dict of tensors, or several, in it ({names}). Save the model's state_dict alone.")
    check_names(tensors)
    return without_prefixes(tensors)


def _only_tensors(holders: dict[str, Any]) -> dict[str, _Tensor]:
    """Those of the only dict that has any."""
    each_once = {id(value): value for value in holders.values()}
    found = [tensors for value in each_once.values() if (tensors := _tensors_in(value))]
    return found[0] if len(found) == 1 else {}


def _tensors_in(value: Any) -> dict[str, _Tensor]:
    return {k: v for k, v in value.items() if type(v) is _Tensor} if type(value) is dict else {}


def _to_arrays(tensors: Mapping[str, _Tensor], storage_bytes: _StorageBytes, most_bytes: int) -> dict[str, np.ndarray]:
    buffers: dict[str, bytes | memoryview] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if type(storage) is not _Storage:
            raise ValueError(f"{name} has no storage")
        if storage.key not in buffers:
            buffers[storage.key] = storage_bytes(storage.key)
        view = _view(name, tensor, buffers[storage.key])
        most_bytes -= view.size * max(view.itemsize, 4)
        if most_bytes < 0:
            raise ValueError(f"tensors that would take {MOST_GROWTH} times the bytes of the file")
        arrays[name] = own(view)
    return arrays


def _view(name: str, tensor: _Tensor, buffer: bytes | memoryview) -> np.ndarray:
    """The tensor in the bytes of its storage, which take part in nothing before they are known to cover it."""
    storage, size, stride = tensor.storage, tensor.size, tensor.stride
    if len(buffer) != storage.length * storage.dtype.itemsize:
        raise ValueError(f"{name}: a storage of {len(buffer)} bytes for {storage.length} {storage.dtype}")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > 32:
        raise ValueError(f"{name}: a shape that is none")
    if not all(_is_size(number) for number in (*size, *stride, tensor.offset, storage.start)):
        raise ValueError(f"{name}: a shape with numbers that are none, or negative")
    first = storage.start + tensor.offset
    last = first + sum((number - 1) * step for number, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.length:
        raise ValueError(f"{name}: a tensor larger than its storage")
    item = storage.dtype.itemsize
    # numpy checks the bounds again.
    return np.ndarray(size, storage.dtype, buffer, first * item, [step * item for step in stride])
