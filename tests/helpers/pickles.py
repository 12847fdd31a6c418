"""Build pickles and files of ``torch.save`` instruction by instruction, so that reader and writer share no code."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def numbers(*values: int) -> bytes:
    return group(*map(integer, values))


def mapping(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u"


def named(dotted: str) -> bytes:
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def storage(length: int, key: str = "0", kind: str = "torch.FloatStorage", *view: bytes) -> bytes:
    return group(text("storage"), named(kind), text(key), text("cpu"), integer(length), *view) + b"Q"


def tensor(stored: bytes, offset: int, size: bytes, stride: bytes) -> bytes:
    args = group(stored, integer(offset), size, stride, b"\x89", named("collections.OrderedDict") + b")R")
    return named("torch._utils._rebuild_tensor_v2") + args + b"R"


def vector(length: int, key: str = "0") -> bytes:
    return tensor(storage(length, key), 0, numbers(length), numbers(1))


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def zipped(value: bytes, storages: dict[str, bytes], **more: Any) -> bytes:
    return zip_of(pickled(value), storages, **more)


def zip_of(data: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED, order: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("any name/data.pkl", data)
        for key, data in storages.items():
            archive.writestr(f"any name/data/{key}", data)
        if order:
            archive.writestr("any name/byteorder", order)
    return stream.getvalue()


def legacy(value: bytes, storages: dict[str, bytes]) -> bytes:
    """Return a file of the legacy format. Elements of storages have four bytes."""
    keys = b"](" + b"".join(text(k) for k in storages) + b"e"
    parts = [pickled(part) for part in (integer(0x1950A86A20F9469CFC6C), integer(1001), b"}", value, keys)]
    return b"".join(parts + [struct.pack("<q", len(d) // 4) + d for d in storages.values()])


TOUCH = "touch {marker}"
EVAL = "__import__('pathlib').Path('{marker}').touch()"
# Pickles that run code if pickle.loads reads them, and the name or instruction that the refusal must mention.
ATTACKS = {
    "REDUCE os.system": (named("os.system") + text(TOUCH) + b"\x85R", "'os.system'"),
    "REDUCE posix.system": (named("posix.system") + text(TOUCH) + b"\x85R", "'posix.system'"),
    "REDUCE eval": (named("builtins.eval") + text(EVAL) + b"\x85R", "'builtins.eval'"),
    "REDUCE exec, as Python 2 named it": (named("__builtin__.exec") + text(EVAL) + b"\x85R", "'__builtin__.exec'"),
    "getattr of a module": (
        named("builtins.getattr")
        + named("builtins.__import__")
        + text("os")
        + b"\x85R"
        + text("system")
        + b"\x86R"
        + text(TOUCH)
        + b"\x85R",
        "'builtins.getattr'",
    ),
    "STACK_GLOBAL": (text("os") + text("system") + b"\x93" + text(TOUCH) + b"\x85R", "'os.system'"),
    "STACK_GLOBAL with a dotted name": (
        text("glob") + text("os.system") + b"\x93" + text(TOUCH) + b"\x85R",
        "'glob.os.system'",
    ),
    "an allowed module with another attribute": (
        text("collections") + text("_sys.modules.__class__") + b"\x93" + named("os.system") + text(TOUCH) + b"\x85R",
        "'collections._sys.modules.__class__'",
    ),
    "NEWOBJ": (named("subprocess.Popen") + text(TOUCH) + b"\x85\x81", "'subprocess.Popen'"),
    "NEWOBJ_EX": (named("subprocess.Popen") + b")" + mapping(args=text(TOUCH)) + b"\x92", "'subprocess.Popen'"),
    "INST": (b"(" + text(TOUCH) + b"ios\nsystem\n", "INST"),
    "OBJ": (b"(" + named("os.system") + text(TOUCH) + b"o", "OBJ"),
    "EXT1": (b"\x82\x01" + text(TOUCH) + b"\x85R", "EXT1"),
    "BUILD that sets __setstate__": (
        named("argparse.Namespace") + b")\x81" + mapping(__setstate__=named("os.system")) + b"b" + text(TOUCH) + b"b",
        "'os.system'",
    ),
    "beside good tensors": (mapping(a=vector(6), b=named("os.system") + text(TOUCH) + b"\x85R"), "'os.system'"),
    "inside an ignored object": (
        named("collections.Counter") + mapping(a=named("os.system") + text(TOUCH) + b"\x85R") + b"\x85R",
        "'os.system'",
    ),
    "as a persistent id": (group(text("storage"), named("os.system")) + b"Q", "'os.system'"),
}


def with_marker(attack: str, marker: Path) -> bytes:
    """Return a pickle that creates the file ``marker`` if it is run."""
    value = ATTACKS[attack][0]
    for template in (TOUCH, EVAL):
        value = value.replace(text(template), text(template.format(marker=marker)))
    return value
