"""Load the pickles in files of ``torch.save`` without importing or calling anything that the pickles name.

A pickle is a program that names functions and calls them. Python's unpickler executes it here, with three limits:

- Before a pickle is executed, `pickletools` checks that it has only the instructions that describe plain data.
- Instructions that create dicts, sets and objects are replaced by calls of the stand-ins below. A dict of Python hashes
  its keys, which takes forever for some nested tuples; `StateDict`, its stand-in, drops keys that are not strings.
- Names of functions and classes are looked up in a table of stand-ins and never imported.

Thus a pickle can only create strings, numbers, tuples, lists, and instances of the classes of this module. An
instruction can change the attributes of these instances only through ``__setstate__``.

Source of the format: pytorch 2.14, torch/serialization.py. If only older versions of torch wrote a name, a
comment states these versions.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np

from ssd_jax.errors import UserError

# The state dict of a detector has some thousands of instructions, a checkpoint with its optimizer tens of thousands.
_MAX_INSTRUCTIONS = 200_000
# Only calls that make a path have more than ten arguments; these are the parts of the path.
_MAX_ARGUMENTS = 100

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


# ---- stand-ins ----


class Storage(NamedTuple):
    """A flat array in the file. Several tensors may share a storage."""

    dtype: np.dtype
    key: str
    """Key of the array in the file."""
    length: int
    """Number of elements."""
    start: int = 0
    """Index of the element that tensor offsets are counted from. It is 0 except for views in the legacy format."""


@dataclass(slots=True)
class Tensor:
    """Position of a tensor in a storage, counted in elements. The fields are checked when the tensor is read."""

    storage: Any = None
    offset: Any = 0
    size: Any = ()
    stride: Any = ()

    def __setstate__(self, state: Any) -> None:
        if self.storage is None:  # torch 0.1 makes an empty tensor and sets its state afterwards
            self.storage, self.offset, self.size, self.stride = state


class StateDict(dict[str, Any]):
    """A dict that ignores items whose keys are not strings, and attributes such as ``_metadata``."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is str:
            super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        pass


class _Ignored:
    """Stand-in for an object that no tensor depends on."""

    __slots__ = ()

    def _ignore(self, *args: Any) -> None:
        pass

    append = extend = add = __setitem__ = __setstate__ = _ignore


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Function:
    """Stand-in for a function or class that pickles may call."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        if len(args) > _MAX_ARGUMENTS:
            raise ValueError(f"the pickle calls a function with {len(args)} arguments")
        return self.function(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("the pickle changes a function")


def _make_ordered_dict(pairs: Any = None) -> StateDict:
    """Return a dict with the given items.

    A pickle of Python 2 passes the items as ``pairs``; a pickle of Python 3 adds them to the dict afterwards.
    """
    state_dict = StateDict()
    if pairs is not None:
        for key, value in pairs:
            state_dict[key] = value
        pairs.clear()  # otherwise a small file that uses one list many times could fill the memory
    return state_dict


def _return_first_argument(value: Any, *rest: Any) -> Any:
    return value


# Names of objects that published checkpoints contain besides the weights, such as options and metrics.
_IGNORED_NAMES = {
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
_IGNORE = _Function(lambda *args: _Ignored())
_TENSOR = _Function(lambda storage, offset, size, stride, *rest: Tensor(storage, offset, size, stride))
_FIRST = _Function(_return_first_argument)
_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _Function(_make_ordered_dict),
    "torch._utils._rebuild_tensor": _TENSOR,  # torch 0.2 and 0.3
    "torch._utils._rebuild_tensor_v2": _TENSOR,
    "torch._utils._rebuild_parameter": _FIRST,
    "torch.Size": _FIRST,
    **{f"{module}.{name}Tensor": _Function(Tensor) for module in ("torch", "torch.cuda") for name in _DTYPES},  # 0.1
    **{
        f"{module}.{name}Storage": _StorageType(dtype)
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, dtype in _DTYPES.items()
    },
    **{f"{module}.{name}": _IGNORE for module, names in _IGNORED_NAMES.items() for name in names.split()},
    "ssd_jax.dict": _Function(lambda: StateDict()),  # without arguments, because dict(items) would hash the keys
    "ssd_jax.set": _IGNORE,
}


# ---- loading ----

_PLAIN_DATA = """
BININT BININT1 BININT2 LONG1 BINFLOAT BINBYTES SHORT_BINBYTES BINBYTES8 BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINSTRING SHORT_BINSTRING NONE NEWTRUE NEWFALSE EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS
EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET MARK BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
GLOBAL STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX BUILD BINPERSID PROTO FRAME STOP
"""
_ALLOWED = frozenset(_PLAIN_DATA.split())
_REPLACEMENTS = {
    "EMPTY_DICT": b"cssd_jax\ndict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "EMPTY_SET": b"cssd_jax\nset\n" + pickle.EMPTY_TUPLE + pickle.REDUCE,
    "FROZENSET": pickle.TUPLE,
    "NEWOBJ": pickle.REDUCE,  # stand-ins for classes are functions
    "NEWOBJ_EX": pickle.POP + pickle.REDUCE,  # POP removes the keyword arguments
    "FRAME": b"",  # a frame states its length, which the replacements change
}


class PickleLoader:
    """Loader for the pickles of a file, which are loaded one after the other."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.storages: dict[str, Storage] = {}
        """Storages that the loaded pickles refer to, by key."""

    def load(self, stream: io.BytesIO) -> Any:
        """Load the next pickle of a stream and return the object that it describes.

        Returns:
            An object made of strings, numbers, tuples, lists, `StateDict`, `Tensor` and other stand-ins.

        Raises:
            UserError: If the pickle names anything but plain data and tensors.
            Exception: If the pickle is corrupt. The exception can have any type.
        """
        return _Unpickler(self, _read_checked_pickle(stream)).load()


def _read_checked_pickle(stream: io.BytesIO) -> bytes:
    """Return the next pickle of a stream, with the instructions in `_REPLACEMENTS` replaced.

    Raises:
        ValueError: If the pickle has an instruction that ``torch.save`` never writes, or is too long.
    """
    data, checked = stream.getvalue(), bytearray()
    for number, (opcode, argument, start) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if name not in _ALLOWED:
            raise ValueError(f"the pickle has the instruction {name}, which torch.save never writes")
        if number == _MAX_INSTRUCTIONS:
            raise ValueError(f"the pickle has more than {_MAX_INSTRUCTIONS} instructions")
        # Python's unpickler allocates memory for all memo indices up to the given index.
        if name in ("BINPUT", "LONG_BINPUT") and cast(int, argument) > number:
            raise ValueError(f"the pickle has the memo index {argument}, which is too large")
        checked += _REPLACEMENTS[name] if name in _REPLACEMENTS else data[start : stream.tell()]
    return bytes(checked)


class _Unpickler(pickle.Unpickler):
    def __init__(self, loader: PickleLoader, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin-1")
        self.loader = loader

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _GLOBALS.get(f"{module}.{name}")
        if stand_in is None:
            raise UserError(*_list_reasons_for_refusal(self.loader.file, module, name))
        return stand_in

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a persistent id describes.

        The id is ("storage", type, key, device, length). In the legacy format, a sixth item is a view or None.
        """
        if type(pid) is not tuple or len(pid) not in (5, 6):
            raise ValueError("a persistent id is not a tuple of five or six items")
        kind, storage_type, key, _, length, *view = pid
        is_storage = kind == "storage" and type(storage_type) is _StorageType
        if not is_storage or type(key) is not str or not is_non_negative_int(length):
            raise ValueError("a persistent id does not describe a storage")
        storage = Storage(storage_type.dtype, key, length)
        if self.loader.storages.setdefault(key, storage) != storage:
            raise ValueError("a storage is described with two types or sizes")
        if not view or view[0] is None:
            return storage
        _, start, _ = view[0]  # key, first element, number of elements
        return storage._replace(start=start)


def is_non_negative_int(value: Any) -> bool:
    """Return whether a value from a pickle is a non-negative integer."""
    return type(value) is int and value >= 0


# Parts of the names of functions that can run programs or change files. No network needs such functions.
_DANGEROUS = {
    "os", "posix", "nt", "sys", "_sys", "subprocess", "shutil", "socket", "pty", "runpy", "importlib", "ctypes",
    "webbrowser", "system", "popen", "eval", "exec", "compile", "open", "__import__",
}  # fmt: skip


def _list_reasons_for_refusal(file: Path, module: str, name: str) -> list[str]:
    """Return the lines of the error message for a name that is not in the table of stand-ins."""
    if _DANGEROUS & set(f"{module}.{name}".split(".")):
        return [
            f"{file}: is refused. It tries to run {f'{module}.{name}'[:200]!a}, which no weight file needs, so it may "
            "be an attack. Nothing was run. Do not load it elsewhere, and get the weights from another place."
        ]
    is_module = module.startswith(("torch.nn.", "torchvision.models."))
    what = "a pickled model instead of its state_dict" if is_module else "code, or an object that needs code"
    weights = "loaded.state_dict()" if is_module else 'loaded["state_dict"]'
    others = () if is_module else ('or loaded.state_dict() or loaded["model"]: whichever has the tensors by name.',)
    return [
        f"{file}: is refused. It contains {f'{module}.{name}'[:200]!a}: {what}, and code in weight files is never run "
        "here. If you trust its source, save only the tensors, where torch and that code are installed:",
        "  import torch, safetensors.torch",
        f'  loaded = torch.load({file.name!r}, map_location="cpu", weights_only=False)',
        f"  safetensors.torch.save_file({weights}, {file.stem + '.safetensors'!r})",
        *others,
    ]
