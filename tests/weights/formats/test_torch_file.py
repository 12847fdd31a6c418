"""Reading files of torch.save: made by torch, built byte by byte, hostile and corrupt ones."""

import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.damage import count_refused, damaged_copies
from helpers.paths import ASSETS
from helpers.pickles import (
    ATTACKS,
    group,
    integer,
    legacy,
    mapping,
    named,
    numbers,
    pickled,
    storage,
    tensor,
    text,
    vector,
    with_marker,
    zip_of,
    zipped,
)

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.torch_file import read_torch

DATA = ASSETS / "weights"

# The content of the files, by the same formulas as in make_torch_files.py.
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


def assert_same(tensors: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape), name
        assert tensors[name].flags.c_contiguous and tensors[name].flags.aligned, name
        assert tensors[name].tobytes() == array.tobytes(), name


def refused(file: Path, *words: str) -> str:
    """Assert that a file is refused with a message that names it and contains the words, and return the message."""
    with pytest.raises(UserError) as caught:
        read_torch(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    for word in words:
        assert word in message, message
    return message


# ---- files made by torch ----


@pytest.mark.parametrize("name", ["zip", "zip_protocol4", "legacy"])
def test_read_torch_every_dtype_and_view(name: str):
    assert_same(read_torch(DATA / f"{name}.pth"), WRITTEN)


@pytest.mark.parametrize("name", ["zip_checkpoint", "legacy_checkpoint"])
def test_read_torch_takes_the_weights_from_a_checkpoint(name: str):
    tensors = read_torch(DATA / f"{name}.pth")
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
    assert_same(tensors, expected)


def test_pickled_model_is_refused_with_a_recipe():
    message = refused(DATA / "whole_module.pth", "'torch.nn.modules.container.Sequential'", "loaded.state_dict()")
    assert "torch.load('whole_module.pth'" in message and "'whole_module.safetensors'" in message


ONES = np.ones(6, F4).tobytes()
SIX = np.arange(6, dtype=F4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.pth"


def test_built_files_are_valid(file: Path):
    """Without the faults of the tests below, such files can be read."""
    value = mapping(a=tensor(storage(6), 1, numbers(2, 2), numbers(1, 2)))
    for write in (zipped, legacy):
        file.write_bytes(write(value, {"0": SIX.tobytes()}))
        assert_same(read_torch(file), {"a": np.array([[1, 3], [2, 4]], F4)})


def test_file_of_torch_0_1_from_python_2_and_a_gpu(file: Path):
    """It has strings of bytes, an OrderedDict made from a list of pairs, tensors that are filled after they are made,
    and storages that are views: torch/tensor.py and torch/serialization.py before `_rebuild_tensor`."""

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


@pytest.mark.parametrize(
    "value",
    [
        named("argparse.Namespace") + b")\x81" + mapping(lr=integer(1)) + b"b",
        named("argparse.Namespace") + b")" + mapping(lr=integer(1)) + b"\x92",
        named("collections.defaultdict") + named("builtins.set") + b"\x85R" + text("a") + integer(1) + b"s",
        named("numpy.core.multiarray.scalar") + named("numpy.dtype") + text("f8") + b"\x85RU\x02\xff\xfe\x86R",
        b"\x8f(" + numbers(1) + integer(2) + b"\x90",
        b"(" + numbers(1) + integer(2) + b"\x91",
        b"}(" + numbers(1) + integer(2) + integer(3) + text("x") + b"u",
        b"]" + integer(1) + b"a",
    ],
)
def test_read_torch_ignores_harmless_objects(file: Path, value: bytes):
    """A Namespace made by either instruction, a defaultdict, a numpy scalar, sets, keys that are not text, a list."""
    for write in (zipped, legacy):
        file.write_bytes(write(mapping(a=vector(6), b=value), {"0": ONES}))
        assert_same(read_torch(file), {"a": np.ones(6, F4)})


def test_memo_index_is_limited(file: Path):
    """Python's unpickler allocates all places up to the index."""
    for index, valid in [(3, True), (1 << 20, False)]:
        put = b"r" + struct.pack("<I", index)
        file.write_bytes(zipped(mapping(a=vector(6), b=integer(1) + put), {"0": ONES}))
        if valid:
            assert list(read_torch(file)) == ["a"]
        else:
            refused(file, f"memo index {index}")


def test_doubles_beyond_float32_become_infinite(file: Path):
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
def test_read_torch_finds_the_dict_of_weights(file: Path, content: bytes, names: list[str] | None):
    file.write_bytes(zipped(content, {"0": ONES}))
    if names is None:
        refused(file, "no dict of tensors", "state_dict")
    else:
        assert list(read_torch(file)) == names


@pytest.mark.parametrize(("version", "accepted"), [("1.0rc0+5f2c9a5", False), ("0.5.4", False), ("2.3.0", True)])
def test_mmdetection_before_2_0_is_refused_by_its_metadata(file: Path, version: str, accepted: bool):
    meta = mapping(mmdet_version=text(version), config=text("model = ..."))
    file.write_bytes(zipped(mapping(meta=meta, state_dict=mapping(a=vector(6))), {"0": ONES}))
    if accepted:
        assert list(read_torch(file)) == ["a"]
    else:
        refused(file, "MMDetection", version[:3], "upgrade_model_version.py")


# ---- hostile files ----

RUN_BY_PICKLE = [
    "REDUCE os.system", "REDUCE posix.system", "REDUCE eval", "REDUCE exec, as Python 2 named it",
    "getattr of a module", "STACK_GLOBAL", "STACK_GLOBAL with a dotted name", "INST", "OBJ",
    "BUILD that sets __setstate__", "inside an ignored object",
]  # fmt: skip


@pytest.mark.parametrize("attack", RUN_BY_PICKLE)
def test_attacks_run_code_in_plain_pickle(tmp_path: Path, attack: str):
    marker = tmp_path / "marker"
    protocol = b"\x80\x02" if "Python 2" in attack else b"\x80\x04"
    pickle.loads(protocol + with_marker(attack, marker) + b".")
    assert marker.exists()


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_and_not_run(tmp_path: Path, file: Path, attack: str, write):
    marker = tmp_path / "marker"
    file.write_bytes(write(with_marker(attack, marker), {"0": ONES}))
    message = refused(file, ATTACKS[attack][1])
    assert not marker.exists()
    if "getattr" in attack:
        assert "torch.load('some.pth'" in message and "safetensors.torch.save_file" in message
    elif ": refused" in message:
        assert "Do not load it elsewhere" in message and "torch.load" not in message


@pytest.mark.parametrize("place", range(5))
def test_attacks_in_any_pickle_of_the_legacy_format(tmp_path: Path, file: Path, place: int):
    marker = tmp_path / "marker"
    parts = [pickled(part) for part in (integer(0x1950A86A20F9469CFC6C), integer(1001), b"}", b"}", b"]")]
    parts[place] = pickled(with_marker("REDUCE os.system", marker))
    file.write_bytes(b"".join(parts))
    refused(file, "'os.system'")
    assert not marker.exists()


def test_plain_pickle_is_refused(file: Path):
    file.write_bytes(pickle.dumps({"a": 1}))
    refused(file, "torch.save")


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
        # An instruction must not change what the table of names contains.
        named("torch.Size") + group(b"N", mapping(function=integer(1))) + b"b",
        named("torch.Size") + mapping(function=integer(1)) + b"b",
        named("torch.FloatStorage") + group(b"N", mapping(dtype=integer(1))) + b"b",
        named("torch.FloatStorage") + mapping(dtype=integer(1)) + b"b",
        named("torch._utils._rebuild_tensor_v2") + b")R",
        b"h\x05",
        b"t",
        b"",
        b"\x93",
        integer(1) + integer(2) + b"\x93",
    ],
)
def test_invalid_pickles_are_refused(file: Path, value: bytes):
    for write in (zipped, legacy):
        file.write_bytes(write(value, {"0": ONES}))
        refused(file, "corrupt")
    file.write_bytes(zipped(mapping(a=vector(6)), {"0": ONES}))
    assert_same(read_torch(file), {"a": np.ones(6, F4)})


# ---- sizes ----


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
        (tensor(storage(6), 0, group(b"\x88"), numbers(1)), "negative numbers or none"),
        (tensor(storage(6), 0, group(text("6")), numbers(1)), "negative numbers or none"),
        (tensor(storage(6), 0, b"]", b"]"), "not a shape"),
        (tensor(storage(6), 0, numbers(6), numbers()), "not a shape"),
        (tensor(storage(6), 0, numbers(*[1] * 33), numbers(*[1] * 33)), "not a shape"),
        (tensor(b"N", 0, numbers(6), numbers(1)), "corrupt"),
        (tensor(storage(6, "0", "torch.FloatStorage", group(text("v"), integer(1), integer(5))), 0, numbers(6),
                numbers(1)), "larger than its storage"),
        (tensor(storage(6, "0", "torch.FloatStorage", group(text("v"), integer(-1), integer(5))), 1, numbers(5),
                numbers(1)), "negative"),
        # Stride 0 repeats one number a million million times.
        (tensor(storage(6), 0, numbers(10**6, 10**6), numbers(0, 0)), "8 times the bytes of the file"),
        (tensor(storage(6), 0, numbers(10**18, 10**18), numbers(0, 0)), "corrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_tensor_must_lie_in_its_storage(file: Path, value: bytes, reason: str):
    for write in (zipped, legacy):
        file.write_bytes(write(mapping(a=value), {"0": ONES}))
        refused(file, reason)


@pytest.mark.parametrize("length", [5, 7, 1 << 40])
def test_storage_must_have_the_length_in_the_pickle(file: Path, length: int):
    for write in (zipped, legacy):
        file.write_bytes(write(mapping(a=tensor(storage(length), 0, numbers(2), numbers(1))), {"0": ONES}))
        refused(file, "corrupt")


def test_missing_storage_is_refused(file: Path):
    for write in (zipped, legacy):
        file.write_bytes(write(mapping(a=vector(6, key="1")), {"0": ONES}))
        refused(file, "corrupt")


def test_legacy_storages_must_end_with_the_file(file: Path):
    good = legacy(mapping(a=vector(6)), {"0": ONES})
    for data, reason in [(good[:-1], "the file ends early"), (good + b"x", "continues after its end")]:
        file.write_bytes(data)
        refused(file, reason)
    file.write_bytes(good.replace(struct.pack("<q", 6), struct.pack("<q", 5)))
    refused(file, "another size")
    file.write_bytes(good.replace(pickled(b"](" + text("0") + b"e"), pickled(b"](" + integer(0) + b"e")))
    refused(file, "not text")


def test_size_limit_counts_each_tensor_of_a_shared_storage(file: Path):
    data = np.ones(5000, F4).tobytes()
    for number, good in [(8, True), (9, False)]:
        file.write_bytes(zipped(mapping(**{f"t{i}": vector(5000) for i in range(number)}), {"0": data}))
        if good:
            assert len(read_torch(file)) == number
        else:
            refused(file, "8 times the bytes of the file")


def test_size_limit_counts_half_floats_as_float32(file: Path):
    half = tensor(storage(5000, "0", "torch.HalfStorage"), 0, numbers(5000), numbers(1))
    data = np.ones(5000, np.float16).tobytes()
    file.write_bytes(zipped(mapping(**{f"t{i}": half for i in range(5)}), {"0": data}))
    refused(file, "8 times the bytes of the file")


DOUBLED = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60  # a tuple of 2**60 leaves, made of 62 objects


@pytest.mark.parametrize(
    "value",
    [
        DOUBLED + b"}h\x00Ns",  # hashing such a key would never end
        DOUBLED + b"}(h\x00Nu",
        DOUBLED + b"\x8f(h\x00\x90",  # in a set
        DOUBLED + b"](h\x00e",
        DOUBLED + named("collections.OrderedDict") + b"](h\x00e\x85R",
        DOUBLED + group(text("storage"), named("torch.FloatStorage"), b"h\x00", text("cpu"), integer(6)) + b"Q",
        DOUBLED + mapping(a=tensor(b"h\x00", 0, b"h\x00", b"h\x00")),
        b"]" * 20_000 + b"a" * 19_999,
        b")" + b"\x85" * 50_000,
        b"N" * 200_001,
        b"(" + DOUBLED + b"h\x00\x91",  # a frozenset
        DOUBLED + named("builtins.set") + b"](h\x00e\x85R",
        DOUBLED + named("ssd_jax.dict") + b"](h\x00N\x86e\x85R",
        b"(" * 50_000,
        b"Nr\xff\xff\xff\xff",  # a memo of 4 billion places
        b"\x8e" + b"\xff" * 7 + b"\x7f" + b"x",  # bytes, of which there are too few
        b"X\xff\xff\xff\xff" + b"x",
        b"\x8b\xff\xff\xff\x7f" + b"x",  # an integer of 2 GiB
        # The same many arguments in every call; the same large dict under many names.
        named("argparse.Namespace") + b"q\x02(" + b"N" * 20_000 + b"tq\x01" + b"h\x02h\x01R" * 20_000,
        b"(" + b"N" * 20_000 + b"tq\x01" + b"h\x01Q" * 20_000,
        b"}(" + b"".join(text(f"{i:05}") + b"N" for i in range(20_000)) + b"uq\x01}("
        + b"".join(text(f"{i:05}") + b"h\x01" for i in range(20_000)) + b"u",
    ],
    ids=range(21),
)  # fmt: skip
def test_small_files_that_need_much_time_or_memory(file: Path, value: bytes):
    """Each takes about a second. Copying, hashing, comparing or printing the objects would take minutes or forever."""
    file.write_bytes(zipped(value, {"0": ONES}))
    before = time.process_time()
    refused(file)
    assert time.process_time() - before < 12


def test_calls_take_at_most_100_arguments(file: Path):
    for number in (100, 101):
        call = named("argparse.Namespace") + b"(" + b"N" * number + b"tR"
        file.write_bytes(zipped(mapping(a=vector(6), b=call), {"0": ONES}))
        if number == 100:
            assert list(read_torch(file)) == ["a"]
        else:
            refused(file, "arguments")


def test_list_of_pairs_is_moved_into_its_dict(file: Path):
    """3000 dicts are made from one list. Copies would have 3 million entries of 100 bytes each."""
    pairs = b"](" + b"".join(text(f"{i:03}") + b"N\x86" for i in range(1000)) + b"e\x85q\x01"
    file.write_bytes(zipped(named("collections.OrderedDict") + b"q\x02" + pairs + b"h\x02h\x01R" * 3000, {}))
    tracemalloc.start()
    refused(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_overlapping_zip_entries_are_refused(file: Path):
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
def test_unprintable_names_are_refused(file: Path, name: str):
    file.write_bytes(zipped(mapping(**{name: vector(6)}), {"0": ONES}))
    refused(file, "unprintable")
    file.write_bytes(zipped(b"cos\n" + name.replace("\n", "\r").encode() + b"\n", {}))
    assert refused(file).isascii()


# ---- other files ----


def test_files_of_other_formats_are_refused(tmp_path: Path, file: Path):
    refused(tmp_path / "none.pth", "no such file")
    refused(tmp_path, "a folder or a device")
    refused(Path("/dev/zero"), "a folder or a device")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(fifo, "a folder or a device")
    for data in (b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"):
        file.write_bytes(data)
        refused(file, "Git LFS")
    np.savez(file.with_suffix(".npz"), a=SIX)
    refused(file.with_suffix(".npz"), "torch.save")
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    refused(file, "tar file")


def test_other_zip_files_are_refused(file: Path):
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


def test_unreadable_file_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file.write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", denied)
    refused(file, "Permission denied", "permissions")


# ---- corrupt files ----


def valid_files() -> dict[str, bytes]:
    return {
        "zip": (DATA / "zip.pth").read_bytes(),
        "legacy": (DATA / "legacy.pth").read_bytes(),
        "legacy checkpoint": (DATA / "legacy_checkpoint.pth").read_bytes(),
    }


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["zip", "legacy", "legacy checkpoint"])
def test_corrupt_files_are_refused_or_read(file: Path, kind: str, count: int):
    def read(file: Path) -> dict[str, np.ndarray]:
        tensors = read_torch(file)
        if kind == "zip":  # its checksums cover everything that is read
            assert_same(tensors, WRITTEN)
        return tensors

    assert count_refused(read, file, damaged_copies(valid_files()[kind], count, seed=3)) > count // 2


@pytest.mark.parametrize("count", [120, pytest.param(4000, marks=pytest.mark.slow)])
def test_corrupt_pickles_with_a_valid_checksum_are_refused_or_read(file: Path, count: int):
    with zipfile.ZipFile(DATA / "zip.pth") as archive:
        good = archive.read("zip/data.pkl")
        storages = {n.removeprefix("zip/data/"): archive.read(n) for n in archive.namelist() if "/data/" in n}
    copies = ((damage, zip_of(data, storages)) for damage, data in damaged_copies(good, count, seed=5))
    assert count_refused(read_torch, file, copies) > count // 2
