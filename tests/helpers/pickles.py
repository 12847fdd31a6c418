"""Build pickles and files of ``torch.save``, instruction by instruction. The code under test is not used.

Most functions return the instructions that push a value, to be combined by other functions.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any


def string(value: str) -> bytes:
    """Return the instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    """Return the instruction that pushes an integer of any size."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuple_of(*parts: bytes) -> bytes:
    """Return the instructions that push a tuple of the given values."""
    return b"(" + b"".join(parts) + b"t"


def integers(*values: int) -> bytes:
    """Return the instructions that push a tuple of integers."""
    return tuple_of(*map(integer, values))


def dict_of(**entries: bytes) -> bytes:
    """Return the instructions that push a dict with string keys."""
    return b"}(" + b"".join(string(name) + value for name, value in entries.items()) + b"u"


def global_name(dotted: str) -> bytes:
    """Return the instruction GLOBAL, which pushes the function or class with a dotted name."""
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def storage(length: int, key: str = "0", kind: str = "torch.FloatStorage", *view: bytes) -> bytes:
    """Return the instructions that push a storage, by the persistent id that torch.save writes.

    Args:
        length: Number of elements.
        key: Key of the storage in the file.
        kind: Name of the storage's class.
        *view: Values that the legacy format adds for views.
    """
    return tuple_of(string("storage"), global_name(kind), string(key), string("cpu"), integer(length), *view) + b"Q"


def tensor(stored: bytes, offset: int, size: bytes, stride: bytes) -> bytes:
    """Return the instructions that push a tensor in a storage, with offset and strides in elements."""
    args = tuple_of(stored, integer(offset), size, stride, b"\x89", global_name("collections.OrderedDict") + b")R")
    return global_name("torch._utils._rebuild_tensor_v2") + args + b"R"


def vector(length: int, key: str = "0") -> bytes:
    """Return the instructions that push a float32 tensor with one axis."""
    return tensor(storage(length, key), 0, integers(length), integers(1))


def complete_pickle(value: bytes) -> bytes:
    """Return a complete pickle of a value, in protocol 2."""
    return b"\x80\x02" + value + b"."


def zip_file(value: bytes, storages: dict[str, bytes], **more: Any) -> bytes:
    """Return the bytes of a file in the format since torch 1.6, with a value and storages by key."""
    return zip_file_of_pickle(complete_pickle(value), storages, **more)


def zip_file_of_pickle(
    data: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED, order: str = ""
) -> bytes:
    """Return the bytes of a file in the format since torch 1.6, with a pickle and storages by key.

    Args:
        data: Complete pickle.
        storages: Bytes of each storage by key.
        compression: Compression of the zip archive.
        order: Byte order to declare, "little" or "big". Empty: none is declared.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("any name/data.pkl", data)
        for key, data in storages.items():
            archive.writestr(f"any name/data/{key}", data)
        if order:
            archive.writestr("any name/byteorder", order)
    return stream.getvalue()


def legacy_file(value: bytes, storages: dict[str, bytes]) -> bytes:
    """Return the bytes of a file in the legacy format, before torch 1.6, with a value and storages by key.

    Each element of a storage has four bytes.
    """
    keys = b"](" + b"".join(string(k) for k in storages) + b"e"
    parts = [complete_pickle(part) for part in (integer(0x1950A86A20F9469CFC6C), integer(1001), b"}", value, keys)]
    return b"".join(parts + [struct.pack("<q", len(d) // 4) + d for d in storages.values()])


TOUCH = "touch {marker}"
EVAL = "__import__('pathlib').Path('{marker}').touch()"
# Pickles that run code if pickle.loads loads them, and the name or instruction that the error message must contain.
ATTACKS = {
    "REDUCE os.system": (global_name("os.system") + string(TOUCH) + b"\x85R", "'os.system'"),
    "REDUCE posix.system": (global_name("posix.system") + string(TOUCH) + b"\x85R", "'posix.system'"),
    "REDUCE eval": (global_name("builtins.eval") + string(EVAL) + b"\x85R", "'builtins.eval'"),
    "REDUCE exec, as Python 2 named it": (
        global_name("__builtin__.exec") + string(EVAL) + b"\x85R",
        "'__builtin__.exec'",
    ),
    "getattr of a module": (
        global_name("builtins.getattr")
        + global_name("builtins.__import__")
        + string("os")
        + b"\x85R"
        + string("system")
        + b"\x86R"
        + string(TOUCH)
        + b"\x85R",
        "'builtins.getattr'",
    ),
    "STACK_GLOBAL": (string("os") + string("system") + b"\x93" + string(TOUCH) + b"\x85R", "'os.system'"),
    "STACK_GLOBAL with a dotted name": (
        string("glob") + string("os.system") + b"\x93" + string(TOUCH) + b"\x85R",
        "'glob.os.system'",
    ),
    "an allowed module with another attribute": (
        string("collections")
        + string("_sys.modules.__class__")
        + b"\x93"
        + global_name("os.system")
        + string(TOUCH)
        + b"\x85R",
        "'collections._sys.modules.__class__'",
    ),
    "NEWOBJ": (global_name("subprocess.Popen") + string(TOUCH) + b"\x85\x81", "'subprocess.Popen'"),
    "NEWOBJ_EX": (global_name("subprocess.Popen") + b")" + dict_of(args=string(TOUCH)) + b"\x92", "'subprocess.Popen'"),
    "INST": (b"(" + string(TOUCH) + b"ios\nsystem\n", "INST"),
    "OBJ": (b"(" + global_name("os.system") + string(TOUCH) + b"o", "OBJ"),
    "EXT1": (b"\x82\x01" + string(TOUCH) + b"\x85R", "EXT1"),
    "BUILD that sets __setstate__": (
        global_name("argparse.Namespace")
        + b")\x81"
        + dict_of(__setstate__=global_name("os.system"))
        + b"b"
        + string(TOUCH)
        + b"b",
        "'os.system'",
    ),
    "beside good tensors": (dict_of(a=vector(6), b=global_name("os.system") + string(TOUCH) + b"\x85R"), "'os.system'"),
    "inside an ignored object": (
        global_name("collections.Counter") + dict_of(a=global_name("os.system") + string(TOUCH) + b"\x85R") + b"\x85R",
        "'os.system'",
    ),
    "as a persistent id": (tuple_of(string("storage"), global_name("os.system")) + b"Q", "'os.system'"),
}


def attack_with_marker(attack: str, marker: Path) -> bytes:
    """Return the instructions of an attack that creates the file ``marker`` if the pickle is executed."""
    value = ATTACKS[attack][0]
    for template in (TOUCH, EVAL):
        value = value.replace(string(template), string(template.format(marker=marker)))
    return value
