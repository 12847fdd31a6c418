"""Build pickles and files like those of ``torch.save``, instruction by instruction, without the code under test.

Most functions return the instructions that push a value. Other functions combine them.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any


def push_string(value: str) -> bytes:
    """Return the instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def push_integer(value: int) -> bytes:
    """Return the instruction that pushes an integer of any size."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def push_tuple(*parts: bytes) -> bytes:
    """Return the instructions that push a tuple of the given values."""
    return b"(" + b"".join(parts) + b"t"


def push_integers(*values: int) -> bytes:
    """Return the instructions that push a tuple of integers."""
    return push_tuple(*map(push_integer, values))


def push_dict(**entries: bytes) -> bytes:
    """Return the instructions that push a dict with string keys."""
    return b"}(" + b"".join(push_string(name) + value for name, value in entries.items()) + b"u"


def push_global(dotted_name: str) -> bytes:
    """Return the instruction GLOBAL that pushes the function or class with a dotted name."""
    module, _, name = dotted_name.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def push_storage(length: int, key: str = "0", kind: str = "torch.FloatStorage", *view: bytes) -> bytes:
    """Return the instructions that push a storage, which torch.save writes as a persistent id.

    Args:
        length: Number of elements.
        key: Key of the storage in the file.
        kind: Name of the storage's class.
        *view: Instructions that push the values which the legacy format adds for views.
    """
    return (
        push_tuple(
            push_string("storage"), push_global(kind), push_string(key), push_string("cpu"), push_integer(length), *view
        )
        + b"Q"
    )


def push_tensor(storage: bytes, offset: int, size: bytes, stride: bytes) -> bytes:
    """Return the instructions that push a tensor in a storage. The offset and the strides are in elements."""
    args = push_tuple(
        storage, push_integer(offset), size, stride, b"\x89", push_global("collections.OrderedDict") + b")R"
    )
    return push_global("torch._utils._rebuild_tensor_v2") + args + b"R"


def push_vector(length: int, key: str = "0") -> bytes:
    """Return the instructions that push a float32 tensor with one axis."""
    return push_tensor(push_storage(length, key), 0, push_integers(length), push_integers(1))


def make_pickle(value: bytes) -> bytes:
    """Return a complete pickle of a value, in protocol 2, given the instructions that push the value."""
    return b"\x80\x02" + value + b"."


def make_zip_file(value: bytes, storages: dict[str, bytes], **more: Any) -> bytes:
    """Return the bytes of a file in the format since torch 1.6, with a value and storages (by key)."""
    return make_zip_file_from_pickle(make_pickle(value), storages, **more)


def make_zip_file_from_pickle(
    data: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED, order: str = ""
) -> bytes:
    """Return the bytes of a file in the format since torch 1.6, with a pickle and storages (by key).

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


def make_legacy_file(value: bytes, storages: dict[str, bytes]) -> bytes:
    """Return the bytes of a file in the legacy format, before torch 1.6, with a value and storages (by key).

    Each element of a storage has four bytes.
    """
    keys = b"](" + b"".join(push_string(k) for k in storages) + b"e"
    parts = [
        make_pickle(part) for part in (push_integer(0x1950A86A20F9469CFC6C), push_integer(1001), b"}", value, keys)
    ]
    return b"".join(parts + [struct.pack("<q", len(d) // 4) + d for d in storages.values()])


TOUCH = "touch {marker}"
EVAL = "__import__('pathlib').Path('{marker}').touch()"
# Pickles that run code if pickle.loads loads them, and the name or instruction that the error message must contain.
ATTACKS = {
    "REDUCE os.system": (push_global("os.system") + push_string(TOUCH) + b"\x85R", "'os.system'"),
    "REDUCE posix.system": (push_global("posix.system") + push_string(TOUCH) + b"\x85R", "'posix.system'"),
    "REDUCE eval": (push_global("builtins.eval") + push_string(EVAL) + b"\x85R", "'builtins.eval'"),
    "REDUCE exec, as Python 2 named it": (
        push_global("__builtin__.exec") + push_string(EVAL) + b"\x85R",
        "'__builtin__.exec'",
    ),
    "getattr of a module": (
        push_global("builtins.getattr")
        + push_global("builtins.__import__")
        + push_string("os")
        + b"\x85R"
        + push_string("system")
        + b"\x86R"
        + push_string(TOUCH)
        + b"\x85R",
        "'builtins.getattr'",
    ),
    "STACK_GLOBAL": (
        push_string("os") + push_string("system") + b"\x93" + push_string(TOUCH) + b"\x85R",
        "'os.system'",
    ),
    "STACK_GLOBAL with a dotted name": (
        push_string("glob") + push_string("os.system") + b"\x93" + push_string(TOUCH) + b"\x85R",
        "'glob.os.system'",
    ),
    "an allowed module with another attribute": (
        push_string("collections")
        + push_string("_sys.modules.__class__")
        + b"\x93"
        + push_global("os.system")
        + push_string(TOUCH)
        + b"\x85R",
        "'collections._sys.modules.__class__'",
    ),
    "NEWOBJ": (push_global("subprocess.Popen") + push_string(TOUCH) + b"\x85\x81", "'subprocess.Popen'"),
    "NEWOBJ_EX": (
        push_global("subprocess.Popen") + b")" + push_dict(args=push_string(TOUCH)) + b"\x92",
        "'subprocess.Popen'",
    ),
    "INST": (b"(" + push_string(TOUCH) + b"ios\nsystem\n", "INST"),
    "OBJ": (b"(" + push_global("os.system") + push_string(TOUCH) + b"o", "OBJ"),
    "EXT1": (b"\x82\x01" + push_string(TOUCH) + b"\x85R", "EXT1"),
    "BUILD that sets __setstate__": (
        push_global("argparse.Namespace")
        + b")\x81"
        + push_dict(__setstate__=push_global("os.system"))
        + b"b"
        + push_string(TOUCH)
        + b"b",
        "'os.system'",
    ),
    "beside good tensors": (
        push_dict(a=push_vector(6), b=push_global("os.system") + push_string(TOUCH) + b"\x85R"),
        "'os.system'",
    ),
    "inside an ignored object": (
        push_global("collections.Counter")
        + push_dict(a=push_global("os.system") + push_string(TOUCH) + b"\x85R")
        + b"\x85R",
        "'os.system'",
    ),
    "as a persistent id": (push_tuple(push_string("storage"), push_global("os.system")) + b"Q", "'os.system'"),
}


def make_attack(attack: str, marker: Path) -> bytes:
    """Return the instructions of an attack in `ATTACKS`. They create the file ``marker`` if they are executed."""
    value = ATTACKS[attack][0]
    for template in (TOUCH, EVAL):
        value = value.replace(push_string(template), push_string(template.format(marker=marker)))
    return value
