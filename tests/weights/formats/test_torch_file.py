"""Files made by torch (tests/assets/weights), files written here byte by byte, hostile ones and damaged ones.

The pickles are put together from their instructions, so that reader and writer share nothing.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers.damage import mutations
from helpers.paths import ASSETS

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.torch_file import read_safetensors, read_torch, write_safetensors

DATA = ASSETS / "weights"

# What make_torch_files.py put in, by the same formulas in numpy.
F4 = np.float32
EIGHTHS = np.arange(5, dtype=F4) / 8
WRITTEN = {
    "conv.weight": (np.arange(24, dtype=F4) / 4 - 1).reshape(2, 3, 2, 2),
    "base": np.arange(10, dtype=F4) / 2,
    "shared": np.arange(10, dtype=F4) / 2,
    "part": np.array([1.5, 2.0, 2.5, 3.0], F4),
    "every_third": np.array([0.5, 2.0, 3.5], F4),
    "transposed": np.array([[0, 3], [1, 4], [2, 5]], F4),
    "channels_last": np.arange(24, dtype=F4).reshape(1, 2, 3, 4),
    "expanded": np.full((2, 3), 5, F4),
    "parameter": np.array([0, 1, 2], F4),
    "scalar": np.array(1.5, F4),
    "empty": np.zeros((0, 3), F4),
    "half": EIGHTHS,
    "bfloat16": EIGHTHS,
    "double": EIGHTHS,
    "int64": np.array(7, np.int64),
    "int32": np.array([-2, -1, 0, 1], np.int32),
    "int16": np.array([-2, -1, 0, 1], np.int16),
    "int8": np.array([-2, -1, 0, 1], np.int8),
    "uint8": np.array([0, 1, 2, 3], np.uint8),
    "bool": np.array([True, False]),
}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].flags.c_contiguous and found[name].flags.aligned, name
        assert found[name].tobytes() == array.tobytes(), name


def refused(file: Path, *words: str) -> str:
    """The message with which a file is refused, which names the file and has the words."""
    with pytest.raises(UserError) as caught:
        read_torch(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    for word in words:
        assert word in message, message
    return message


# ---- made by torch ----


@pytest.mark.parametrize("name", ["zip", "zip_protocol4", "legacy"])
def test_every_dtype_and_view_in_both_formats(name: str):
    assert_same(read_torch(DATA / f"{name}.pth"), WRITTEN)


@pytest.mark.parametrize("name", ["zip_checkpoint", "legacy_checkpoint"])
def test_the_weights_are_taken_from_a_checkpoint_and_the_rest_is_left(name: str):
    found = read_torch(DATA / f"{name}.pth")
    # One step of SGD at rate 0.001 of the sum of four pixels: only the last bias has a gradient, of 4.
    expected = {
        "0.weight": np.array([0, 0.5], F4).reshape(2, 1, 1, 1),
        "0.bias": np.array([1, 1.5], F4),
        "1.weight": np.array([2, 2.5], F4),
        "1.bias": np.array([3, 3.5], F4) - F4(0.004),
        "1.running_mean": np.zeros(2, F4),
        "1.running_var": np.ones(2, F4),
        "1.num_batches_tracked": np.array(0, np.int64),
    }
    assert_same(found, expected)


def test_a_whole_model_is_refused_with_what_to_do():
    message = refused(DATA / "whole_module.pth", "'torch.nn.modules.container.Sequential'", "found.state_dict()")
    assert "torch.load('whole_module.pth'" in message and "'whole_module.safetensors'" in message


# ---- written here ----


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
    """Of storages of four bytes to a number."""
    keys = b"](" + b"".join(text(k) for k in storages) + b"e"
    parts = [pickled(part) for part in (integer(0x1950A86A20F9469CFC6C), integer(1001), b"}", value, keys)]
    return b"".join(parts + [struct.pack("<q", len(d) // 4) + d for d in storages.values()])


ONES = np.ones(6, F4).tobytes()
SIX = np.arange(6, dtype=F4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.pth"


def test_what_is_written_here_is_read_in_both_formats(file: Path):
    """The control: without the fault that they are given below, these files are good."""
    value = mapping(a=tensor(storage(6), 1, numbers(2, 2), numbers(1, 2)))
    for write in (zipped, legacy):
        file.write_bytes(write(value, {"0": SIX.tobytes()}))
        assert_same(read_torch(file), {"a": np.array([[1, 3], [2, 4]], F4)})


def test_a_file_of_torch_0_1_from_python_2_and_a_gpu(file: Path):
    """Strings of bytes, an OrderedDict made from a list of pairs, tensors made empty and then filled, and storages
    that are views: torch/tensor.py and torch/serialization.py before `_rebuild_tensor`."""

    def short(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def old_tensor(view: bytes, size: bytes, stride: bytes) -> bytes:
        parts = [short("storage"), named("torch.cuda.FloatStorage"), short("7"), short("cuda:0"), integer(6), view]
        return named("torch.cuda.FloatTensor") + b")R" + group(group(*parts) + b"Q", integer(1), size, stride) + b"b"

    first = old_tensor(b"N", numbers(5), numbers(1)) + b"q\x01"
    second = old_tensor(group(short("8"), integer(2), integer(4)), numbers(1, 2), numbers(2, 1))
    pairs = [short("first") + first + b"\x86", short("second") + second + b"\x86", short("again") + b"h\x01\x86"]
    value = named("collections.OrderedDict") + b"](" + b"".join(pairs) + b"e\x85R"
    file.write_bytes(legacy(value, {"7": SIX.tobytes()}))
    assert_same(read_torch(file), {"first": SIX[1:], "second": SIX[None, 3:5], "again": SIX[1:]})


def test_numbers_that_float32_does_not_have(file: Path):
    double = tensor(storage(3, "0", "torch.DoubleStorage"), 0, numbers(3), numbers(1))
    file.write_bytes(zipped(mapping(a=double), {"0": np.array([1e300, -np.inf, np.nan]).tobytes()}))
    assert_same(read_torch(file), {"a": np.array([np.inf, -np.inf, np.nan], F4)})


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (mapping(state_dict=mapping(a=vector(6)), meta=mapping(config=text("x"))), ["a"]),
        (mapping(optimizer=mapping(state=vector(6)), model=mapping(a=vector(6), b=vector(6))), ["a", "b"]),
        (mapping(loss=vector(6), state_dict=mapping(b=vector(6))), ["b"]),
        (mapping(other=mapping(a=vector(6)), epoch=integer(3)), ["a"]),
        (mapping(a=vector(6), epoch=integer(3)), ["a"]),
        (mapping(model=vector(6), net=vector(6)), ["model", "net"]),
        (mapping(**{"module.a": vector(6), "module.module.b": vector(6)}), ["a", "module.b"]),
        (mapping(**{"module.a": vector(6), "b": vector(6)}), ["module.a", "b"]),
        (named("collections.Counter") + mapping(a=vector(6)) + b"\x85R", None),
        (mapping(a=integer(1)), None),
        (mapping(one=mapping(a=vector(6)), two=mapping(a=vector(6))), None),
        (b"](" + vector(6) + b"e", None),
        (integer(3), None),
    ],
)
def test_which_of_the_dicts_are_the_weights(file: Path, content: bytes, names: list[str] | None):
    file.write_bytes(zipped(content, {"0": ONES}))
    if names is None:
        refused(file, "no dict of tensors, or several", "state_dict")
    else:
        assert list(read_torch(file)) == names


@pytest.mark.parametrize(("version", "taken"), [("1.0rc0+5f2c9a5", False), ("0.5.4", False), ("2.3.0", True)])
def test_mmdetection_of_before_2_0_is_told_from_its_note(file: Path, version: str, taken: bool):
    meta = mapping(mmdet_version=text(version), config=text("model = ..."))
    file.write_bytes(zipped(mapping(meta=meta, state_dict=mapping(a=vector(6))), {"0": ONES}))
    if taken:
        assert list(read_torch(file)) == ["a"]
    else:
        refused(file, "MMDetection", "background first")


# ---- hostile ----

TOUCH = "touch {marker}"
EVAL = "__import__('pathlib').Path('{marker}').touch()"
# Pickles that do as they like where pickle.loads reads them.
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
    "a module that torch may name, an attribute that it does not": (
        text("collections") + text("_sys.modules.__class__") + b"\x930" + named("os.system") + text(TOUCH) + b"\x85R",
        "'collections._sys.modules.__class__'",
    ),
    "NEWOBJ": (named("subprocess.Popen") + text(TOUCH) + b"\x85\x81", "'subprocess.Popen'"),
    "NEWOBJ_EX": (named("subprocess.Popen") + b")" + mapping(args=text(TOUCH)) + b"\x92", "'subprocess.Popen'"),
    "INST": (b"(" + text(TOUCH) + b"ios\nsystem\n", "INST"),
    "OBJ": (b"(" + named("os.system") + text(TOUCH) + b"o", "'os.system'"),
    "EXT1": (b"\x82\x01" + text(TOUCH) + b"\x85R", "EXT1"),
    "BUILD that sets __setstate__": (
        named("argparse.Namespace") + b")\x81" + mapping(__setstate__=named("os.system")) + b"b" + text(TOUCH) + b"b",
        "'os.system'",
    ),
    "beside good tensors": (mapping(a=vector(6), b=named("os.system") + text(TOUCH) + b"\x85R"), "'os.system'"),
    "inside an object that is passed over": (
        named("collections.Counter") + mapping(a=named("os.system") + text(TOUCH) + b"\x85R") + b"\x85R",
        "'os.system'",
    ),
    "as a persistent id": (group(text("storage"), named("os.system")) + b"Q", "'os.system'"),
}
RUN_BY_PICKLE = [
    "REDUCE os.system", "REDUCE posix.system", "REDUCE eval", "REDUCE exec, as Python 2 named it",
    "getattr of a module", "STACK_GLOBAL", "STACK_GLOBAL with a dotted name", "INST", "OBJ",
    "BUILD that sets __setstate__", "inside an object that is passed over",
]  # fmt: skip


def with_marker(attack: str, marker: Path) -> bytes:
    """The pickle with the file's path in place of ``{marker}``, the strings' lengths set right."""
    value = ATTACKS[attack][0]
    for template in (TOUCH, EVAL):
        value = value.replace(text(template), text(template.format(marker=marker)))
    return value


@pytest.mark.parametrize("attack", RUN_BY_PICKLE)
def test_the_attacks_are_real(tmp_path: Path, attack: str):
    marker = tmp_path / "marker"
    protocol = b"\x80\x02" if "Python 2" in attack else b"\x80\x04"
    pickle.loads(protocol + with_marker(attack, marker) + b".")
    assert marker.exists()


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_file_names_is_run(tmp_path: Path, file: Path, attack: str, write):
    marker = tmp_path / "marker"
    file.write_bytes(write(with_marker(attack, marker), {"0": ONES}))
    message = refused(file, ATTACKS[attack][1])
    assert not marker.exists()
    if "getattr" in attack:
        assert "torch.load('some.pth'" in message and "safetensors.torch.save_file" in message
    elif "refused" in message:
        assert "Do not load it elsewhere" in message and "torch.load" not in message


@pytest.mark.parametrize("place", range(5))
def test_each_pickle_of_the_legacy_format_is_read_with_the_same_care(tmp_path: Path, file: Path, place: int):
    marker = tmp_path / "marker"
    parts = [pickled(part) for part in (integer(0x1950A86A20F9469CFC6C), integer(1001), b"}", b"}", b"]")]
    parts[place] = pickled(with_marker("REDUCE os.system", marker))
    file.write_bytes(b"".join(parts))
    refused(file, "'os.system'")
    assert not marker.exists()


def test_a_plain_pickle_is_no_file_of_torch(file: Path):
    file.write_bytes(pickle.dumps({"a": 1}))
    refused(file, "none of torch.save")


@pytest.mark.parametrize(
    "value",
    [
        b"N" + b"Q",
        text("storage") + b"Q",
        group() + b"Q",
        group(text("storage")) + b"Q",
        group(text("module"), named("torch.FloatStorage"), text("0"), text("cpu"), integer(6)) + b"Q",
        group(text("storage"), text("torch.FloatStorage"), text("0"), text("cpu"), integer(6)) + b"Q",
        group(text("storage"), named("collections.OrderedDict"), text("0"), text("cpu"), integer(6)) + b"Q",
        group(text("storage"), named("torch.FloatStorage"), integer(0), text("cpu"), integer(6)) + b"Q",
        group(text("storage"), named("torch.FloatStorage"), text("0"), text("cpu"), integer(-6)) + b"Q",
        group(text("storage"), named("torch.FloatStorage"), text("0"), text("cpu"), text("6")) + b"Q",
        storage(6, "0", "torch.FloatStorage", text("view")),
        storage(6, "0", "torch.FloatStorage", b"N", b"N"),
        storage(6) + storage(5) + b"\x86",
        storage(6) + storage(6, "0", "torch.IntStorage") + b"\x86",
        text("print") + text("x") + b"\x85R",
        named("torch.FloatStorage") + integer(6) + b"\x85R",
        named("collections.OrderedDict") + b"}R",
        named("collections.OrderedDict") + text("ab") + b"\x85R",
        integer(1) + mapping(real=integer(2)) + b"b",
        integer(1) + integer(1) + b"a",
        integer(1) + text("a") + integer(1) + b"s",
        b"}(" + text("a") + b"u",
        named("torch._utils._rebuild_tensor_v2") + b")R",
        b"h\x05",
        b"t",
        b"",
        b"\x93",
        integer(1) + integer(2) + b"\x93",
    ],
)
def test_pickles_that_make_no_sense(file: Path, value: bytes):
    for write in (zipped, legacy):
        file.write_bytes(write(value, {"0": ONES}))
        refused(file, "damaged")


# ---- more than is there ----


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (tensor(storage(6), 0, numbers(7), numbers(1)), "larger than its storage"),
        (tensor(storage(6), 1, numbers(6), numbers(1)), "larger than its storage"),
        (tensor(storage(6), 0, numbers(2, 3), numbers(4, 1)), "larger than its storage"),
        (tensor(storage(6), 0, numbers(1 << 62, 1 << 62), numbers(1, 1)), "larger than its storage"),
        (tensor(storage(6), 6, b")", b")"), "larger than its storage"),
        (tensor(storage(6), -1, numbers(2), numbers(1)), "negative"),
        (tensor(storage(6), 5, numbers(6), numbers(-1)), "negative"),
        (tensor(storage(6), 0, numbers(-2, -3), numbers(3, 1)), "negative"),
        (tensor(storage(6), 0, group(b"\x88"), numbers(1)), "numbers that are none"),
        (tensor(storage(6), 0, group(text("6")), numbers(1)), "numbers that are none"),
        (tensor(storage(6), 0, b"]", b"]"), "a shape that is none"),
        (tensor(storage(6), 0, numbers(6), numbers()), "a shape that is none"),
        (tensor(storage(6), 0, numbers(*[1] * 33), numbers(*[1] * 33)), "a shape that is none"),
        (tensor(b"N", 0, numbers(6), numbers(1)), "damaged"),
        (tensor(storage(6, "0", "torch.FloatStorage", group(text("v"), integer(1), integer(5))), 0, numbers(6),
                numbers(1)), "larger than its storage"),
        (tensor(storage(6, "0", "torch.FloatStorage", group(text("v"), integer(-1), integer(5))), 1, numbers(5),
                numbers(1)), "negative"),
        # Stride 0: one number, named a million million times.
        (tensor(storage(6), 0, numbers(10**6, 10**6), numbers(0, 0)), "8 times the bytes of the file"),
        (tensor(storage(6), 0, numbers(10**18, 10**18), numbers(0, 0)), "damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_tensor_must_lie_in_its_storage(file: Path, value: bytes, reason: str):
    for write in (zipped, legacy):
        file.write_bytes(write(mapping(a=value), {"0": ONES}))
        refused(file, reason)


@pytest.mark.parametrize("length", [5, 7, 1 << 40])
def test_a_storage_must_have_the_length_that_its_tensors_say(file: Path, length: int):
    for write in (zipped, legacy):
        file.write_bytes(write(mapping(a=tensor(storage(length), 0, numbers(2), numbers(1))), {"0": ONES}))
        refused(file, "damaged")


def test_a_storage_that_is_not_there(file: Path):
    for write in (zipped, legacy):
        file.write_bytes(write(mapping(a=vector(6, key="1")), {"0": ONES}))
        refused(file, "damaged")


def test_legacy_storages_end_with_the_file(file: Path):
    good = legacy(mapping(a=vector(6)), {"0": ONES})
    for data, reason in [(good[:-1], "the file ends early"), (good + b"x", "goes on where it should end")]:
        file.write_bytes(data)
        refused(file, reason)
    file.write_bytes(good.replace(struct.pack("<q", 6), struct.pack("<q", 5)))
    refused(file, "another size than its tensors say")
    file.write_bytes(good.replace(pickled(b"](" + text("0") + b"e"), pickled(b"](" + integer(0) + b"e")))
    refused(file, "no text")


def test_tensors_that_share_a_storage_are_counted_once_each(file: Path):
    data = np.ones(5000, F4).tobytes()
    for number, good in [(8, True), (9, False)]:
        file.write_bytes(zipped(mapping(**{f"t{i}": vector(5000) for i in range(number)}), {"0": data}))
        if good:
            assert len(read_torch(file)) == number
        else:
            refused(file, "8 times the bytes of the file")


def test_half_floats_are_counted_as_what_they_become(file: Path):
    half = tensor(storage(5000, "0", "torch.HalfStorage"), 0, numbers(5000), numbers(1))
    data = np.ones(5000, np.float16).tobytes()
    file.write_bytes(zipped(mapping(**{f"t{i}": half for i in range(5)}), {"0": data}))
    refused(file, "8 times the bytes of the file")


DOUBLED = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60  # a tuple of 2**60 leaves, in 62 places of memory


@pytest.mark.parametrize(
    "value",
    [
        DOUBLED + b"}h\x00Ns",  # as a key: hashing would never end
        DOUBLED + b"}(h\x00Nu",
        DOUBLED + b"\x8f(h\x00\x90",  # in a set
        DOUBLED + b"](h\x00e",
        DOUBLED + named("collections.OrderedDict") + b"](h\x00e\x85R",
        DOUBLED + group(text("storage"), named("torch.FloatStorage"), b"h\x00", text("cpu"), integer(6)) + b"Q",
        DOUBLED + mapping(a=tensor(b"h\x00", 0, b"h\x00", b"h\x00")),
        b"]" * 20_000 + b"a" * 19_999,
        b")" + b"\x85" * 50_000,
        b"N" * 200_001,
        b"(" * 50_000,
        b"Nr\xff\xff\xff\xff",  # a memo of 4 billion places
        b"\x8e" + b"\xff" * 7 + b"\x7f" + b"x",  # bytes, of which there are too few
        b"X\xff\xff\xff\xff" + b"x",
        b"\x8b\xff\xff\xff\x7f" + b"x",  # an integer of 2 GiB
        # The same many arguments, given again and again; the same large dict under many names.
        named("argparse.Namespace") + b"q\x02(" + b"N" * 20_000 + b"tq\x01" + b"h\x02h\x01R" * 20_000,
        b"(" + b"N" * 20_000 + b"tq\x01" + b"h\x01Q" * 20_000,
        b"}(" + b"".join(text(f"{i:05}") + b"N" for i in range(20_000)) + b"uq\x01}("
        + b"".join(text(f"{i:05}") + b"h\x01" for i in range(20_000)) + b"u",
    ],
    ids=range(18),
)  # fmt: skip
def test_small_files_that_ask_for_very_much(file: Path, value: bytes):
    """Each takes about a second; what copied, hashed, compared or printed would take from a minute to for ever."""
    file.write_bytes(zipped(value, {"0": ONES}))
    before = time.process_time()
    refused(file)
    assert time.process_time() - before < 12


def test_a_call_takes_few_arguments(file: Path):
    for number in (100, 101):
        call = named("argparse.Namespace") + b"(" + b"N" * number + b"tR"
        file.write_bytes(zipped(mapping(a=vector(6), b=call), {"0": ONES}))
        if number == 100:
            assert list(read_torch(file)) == ["a"]
        else:
            refused(file, "can't be called")


def test_a_list_of_pairs_is_moved_into_its_dict(file: Path):
    """One list made a dict 3000 times: 3 million entries, of 100 bytes each, where it is copied."""
    pairs = b"](" + b"".join(text(f"{i:03}") + b"N\x86" for i in range(1000)) + b"e\x85q\x01"
    file.write_bytes(zipped(named("collections.OrderedDict") + b"q\x02" + pairs + b"h\x02h\x01R" * 3000, {}))
    tracemalloc.start()
    refused(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_entries_of_a_zip_file_may_not_lie_on_each_other(file: Path):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled(mapping(**{f"t{i}": vector(500, str(i)) for i in range(20)})))
        archive.writestr("a/data/0", np.ones(500, F4).tobytes())
        for number in range(1, 20):
            twin = zipfile.ZipInfo(f"a/data/{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(twin, field, getattr(archive.getinfo("a/data/0"), field))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
    refused(file, "larger than the file")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "\x00"])
def test_names_that_would_garble_a_terminal(file: Path, name: str):
    file.write_bytes(zipped(mapping(**{name: vector(6)}), {"0": ONES}))
    refused(file, "can't be printed")
    file.write_bytes(zipped(b"cos\n" + name.replace("\n", "\r").encode() + b"\n", {}))
    assert refused(file).isascii()


# ---- other files ----


def test_files_of_other_kinds(tmp_path: Path, file: Path):
    refused(tmp_path / "none.pth", "no such file")
    refused(tmp_path, "a folder or device")
    refused(Path("/dev/zero"), "a folder or device")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(fifo, "a folder or device")
    for data in (b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"):
        file.write_bytes(data)
        refused(file, "Git LFS")
    np.savez(file.with_suffix(".npz"), a=SIX)
    refused(file.with_suffix(".npz"), "none of torch.save")
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    refused(file, "tar file")


def test_zip_files_that_torch_does_not_write(file: Path):
    value = mapping(a=vector(6))
    file.write_bytes(zipped(value, {"0": ONES}, compression=zipfile.ZIP_DEFLATED))
    refused(file, "compressed")
    file.write_bytes(zipped(value, {"0": ONES}, order="big"))
    refused(file, "big-endian")
    file.write_bytes(zipped(value, {"0": ONES}, order="little"))
    assert_same(read_torch(file), {"a": np.ones(6, F4)})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("other/data.pkl", pickled(b"}"))
    refused(file, "one data.pkl")


def test_a_file_that_may_not_be_read(file: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file.write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", denied)
    refused(file, "Permission denied", "permissions")


# ---- damaged ----


def one_of_each() -> dict[str, bytes]:
    return {
        "zip": (DATA / "zip.pth").read_bytes(),
        "legacy": (DATA / "legacy.pth").read_bytes(),
        "legacy checkpoint": (DATA / "legacy_checkpoint.pth").read_bytes(),
        "safetensors": safetensors_bytes({name: (DTYPES[a.dtype.name], a) for name, a in WRITTEN.items()}),
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "legacy checkpoint", "safetensors"])
def test_damaged_files_are_refused_or_read(file: Path, kind: str):
    data = one_of_each()[kind]
    was_refused = 0
    for what, damaged in mutations(data, 120, seed=3):
        file.write_bytes(damaged)
        try:
            found = (read_safetensors if kind == "safetensors" else read_torch)(file)
        except UserError as error:
            assert str(error).startswith(f"{file}: "), what
            was_refused += 1
            continue
        if kind == "zip":  # its checksums cover all but what nobody reads
            assert_same(found, WRITTEN)
        assert sum(array.nbytes for array in found.values()) <= 8 * len(damaged), what
    assert was_refused > 60


def test_damage_in_the_pickle_behind_a_right_checksum(file: Path):
    with zipfile.ZipFile(DATA / "zip.pth") as archive:
        good = archive.read("zip/data.pkl")
        storages = {n.removeprefix("zip/data/"): archive.read(n) for n in archive.namelist() if "/data/" in n}
    was_refused = 0
    for what, damaged in mutations(good, 120, seed=5):
        file.write_bytes(zip_of(damaged, storages))
        try:
            found = read_torch(file)
        except UserError as error:
            assert str(error).startswith(f"{file}: "), what
            was_refused += 1
        else:
            assert sum(array.nbytes for array in found.values()) <= 8 * file.stat().st_size, what
    assert was_refused > 60


# ---- safetensors ----

DTYPES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def safetensors_bytes(tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    """By the format's description: length of the header, header in JSON, data."""
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        end = len(data) + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parsed(data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    return {name: (e["dtype"], e["shape"], body[slice(*e["data_offsets"])]) for name, e in header.items()}


def test_safetensors_of_every_dtype(tmp_path: Path):
    arrays = dict(WRITTEN)
    stored = arrays | {
        "half": EIGHTHS.astype(np.float16),
        "bfloat16": EIGHTHS.astype(ml_dtypes.bfloat16),
        "double": EIGHTHS.astype(np.float64),
    }
    file = tmp_path / "some.safetensors"
    file.write_bytes(safetensors_bytes({name: (DTYPES[a.dtype.name], a) for name, a in stored.items()}))
    found = read_safetensors(file)
    assert_same({name: found[name] for name in arrays}, arrays)


def test_written_safetensors_hold_the_arrays_in_their_order(tmp_path: Path):
    file = tmp_path / "some.safetensors"
    stored = WRITTEN | {
        "fortran": np.asfortranarray(SIX.reshape(2, 3)),
        "half": EIGHTHS.astype(np.float16),
        "bfloat16": EIGHTHS.astype(ml_dtypes.bfloat16),
        "big_endian": SIX.astype(">f4"),
    }
    write_safetensors(file, stored)
    found = parsed(file.read_bytes())
    assert found.keys() == stored.keys()
    for name, array in stored.items():
        little = array.astype(array.dtype.newbyteorder("<")) if name == "big_endian" else array
        assert found[name] == (DTYPES[little.dtype.name], list(array.shape), little.tobytes("C")), name
    back = read_safetensors(file)
    assert_same({name: back[name] for name in ("conv.weight", "fortran")}, {
        "conv.weight": WRITTEN["conv.weight"], "fortran": SIX.reshape(2, 3)
    })  # fmt: skip


def test_safetensors_are_written_whole_or_not_at_all(tmp_path: Path):
    folder = tmp_path / "none"
    with pytest.raises(UserError, match=f"{folder}.*can't be written"):
        write_safetensors(folder / "some.safetensors", {"a": SIX})
    file = tmp_path / "some.safetensors"
    write_safetensors(file, {"a": SIX})
    (tmp_path / "plain").write_bytes(b"")
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode, "others may read it, as any file of the user's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "some.safetensors"]


@pytest.mark.parametrize(
    "data",
    [b"", b"x", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 100) + b"{}"],
)
def test_what_is_no_safetensors_file(tmp_path: Path, data: bytes):
    file = tmp_path / "some.safetensors"
    with pytest.raises(UserError, match="no such file"):
        read_safetensors(file)
    file.write_bytes(data)
    with pytest.raises(UserError, match=f"^{file}: damaged"):
        read_safetensors(file)
