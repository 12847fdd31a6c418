"""Tests of reading files of torch.save: files made by torch, files built byte by byte, hostile and corrupt files."""

import os
import pickle
import struct
import tarfile
import time
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.damage import count_rejected, make_damaged_copies
from helpers.paths import ASSETS
from helpers.pickles import (
    ATTACKS,
    make_attack,
    make_legacy_file,
    make_pickle,
    make_zip_file,
    make_zip_file_from_pickle,
    push_dict,
    push_global,
    push_integer,
    push_integers,
    push_storage,
    push_string,
    push_tensor,
    push_tuple,
    push_vector,
)

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.torch_file import read_torch

DATA = ASSETS / "weights"

# The content of the files made by torch, computed with the same formulas as in make_torch_files.py.
F4 = np.float32
EIGHTHS = np.arange(5, dtype=F4) / 8
EXPECTED = {
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
    """Assert that tensors have the same names, order, dtypes, shapes and bytes as expected."""
    assert list(tensors) == list(expected)
    for name, array in expected.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape), name
        assert tensors[name].flags.c_contiguous and tensors[name].flags.aligned, name
        assert tensors[name].tobytes() == array.tobytes(), name


def assert_rejected(file: Path, *words: str) -> str:
    """Assert that reading a file raises UserError with the file's name and the given words. Return the message."""
    with pytest.raises(UserError) as caught:
        read_torch(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    for word in words:
        assert word in message, message
    return message


# ---- files made by torch ----


@pytest.mark.parametrize("name", ["zip", "zip_protocol4", "legacy"])
def test_read_torch_reads_every_dtype_and_view(name: str):
    assert_same(read_torch(DATA / f"{name}.pth"), EXPECTED)


@pytest.mark.parametrize("name", ["zip_checkpoint", "legacy_checkpoint"])
def test_read_torch_takes_the_weights_from_a_checkpoint(name: str):
    tensors = read_torch(DATA / f"{name}.pth")
    # One step of SGD with a learning rate of 0.001; the loss is the sum of four pixels. After BatchNorm, only the last
    # bias has a gradient, which is 4.
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


def test_read_torch_rejects_a_pickled_model_with_conversion_code_in_the_message():
    message = assert_rejected(
        DATA / "whole_module.pth", "'torch.nn.modules.container.Sequential'", "loaded.state_dict()"
    )
    assert "torch.load('whole_module.pth'" in message and "'whole_module.safetensors'" in message


ONES = np.ones(6, F4).tobytes()
SIX = np.arange(6, dtype=F4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file that a test may write."""
    return tmp_path / "some.pth"


def test_read_torch_reads_files_built_by_the_helpers(file: Path):
    """The files are built as in the tests of invalid files below, but have no fault."""
    value = push_dict(a=push_tensor(push_storage(6), 1, push_integers(2, 2), push_integers(1, 2)))
    for write in (make_zip_file, make_legacy_file):
        file.write_bytes(write(value, {"0": SIX.tobytes()}))
        assert_same(read_torch(file), {"a": np.array([[1, 3], [2, 4]], F4)})


def test_read_torch_reads_files_of_torch_0_1_from_python_2_and_a_gpu(file: Path):
    """A file of torch 0.1 has byte strings, an OrderedDict made from pairs, and storages that are views.

    The pickle makes empty tensors first, and sets their state afterwards.

    Source: torch/tensor.py and torch/serialization.py before `_rebuild_tensor`.
    """

    def encode_short_bytes(value: str) -> bytes:
        """Return the pickle instruction of Python 2 that pushes a byte string."""
        return b"U" + bytes([len(value)]) + value.encode()

    def encode_torch_0_1_tensor(view: bytes, size: bytes, stride: bytes) -> bytes:
        """Return the instructions that make an empty tensor and set its state, as torch 0.1 writes them."""
        parts = [
            encode_short_bytes("storage"),
            push_global("torch.cuda.FloatStorage"),
            encode_short_bytes("7"),
            encode_short_bytes("cuda:0"),
            push_integer(6),
            view,
        ]
        return (
            push_global("torch.cuda.FloatTensor")
            + b")R"
            + push_tuple(push_tuple(*parts) + b"Q", push_integer(1), size, stride)
            + b"b"
        )

    first = encode_torch_0_1_tensor(b"N", push_integers(5), push_integers(1)) + b"q\x01"
    second = encode_torch_0_1_tensor(
        push_tuple(encode_short_bytes("8"), push_integer(2), push_integer(4)), push_integers(1, 2), push_integers(2, 1)
    )
    pairs = [
        encode_short_bytes("first") + first + b"\x86",
        encode_short_bytes("second") + second + b"\x86",
        encode_short_bytes("again") + b"h\x01\x86",
    ]
    value = push_global("collections.OrderedDict") + b"](" + b"".join(pairs) + b"e\x85R"
    file.write_bytes(make_legacy_file(value, {"7": SIX.tobytes()}))
    assert_same(read_torch(file), {"first": SIX[1:], "second": SIX[None, 3:5], "again": SIX[1:]})


@pytest.mark.parametrize(
    "value",
    [
        push_global("argparse.Namespace") + b")\x81" + push_dict(lr=push_integer(1)) + b"b",
        push_global("argparse.Namespace") + b")" + push_dict(lr=push_integer(1)) + b"\x92",
        push_global("collections.defaultdict")
        + push_global("builtins.set")
        + b"\x85R"
        + push_string("a")
        + push_integer(1)
        + b"s",
        push_global("numpy.core.multiarray.scalar")
        + push_global("numpy.dtype")
        + push_string("f8")
        + b"\x85RU\x02\xff\xfe\x86R",
        b"\x8f(" + push_integers(1) + push_integer(2) + b"\x90",
        b"(" + push_integers(1) + push_integer(2) + b"\x91",
        b"}(" + push_integers(1) + push_integer(2) + push_integer(3) + push_string("x") + b"u",
        b"]" + push_integer(1) + b"a",
    ],
)
def test_read_torch_ignores_harmless_objects(file: Path, value: bytes):
    """The objects are Namespaces, a defaultdict, a numpy scalar, sets, a dict without string keys, and a list."""
    for write in (make_zip_file, make_legacy_file):
        file.write_bytes(write(push_dict(a=push_vector(6), b=value), {"0": ONES}))
        assert_same(read_torch(file), {"a": np.ones(6, F4)})


def test_read_torch_rejects_pickles_with_a_large_memo_index(file: Path):
    """Python's unpickler allocates memory for all indices up to the largest memo index."""
    for index, valid in [(3, True), (1 << 20, False)]:
        put = b"r" + struct.pack("<I", index)
        file.write_bytes(make_zip_file(push_dict(a=push_vector(6), b=push_integer(1) + put), {"0": ONES}))
        if valid:
            assert list(read_torch(file)) == ["a"]
        else:
            assert_rejected(file, f"memo index {index}")


def test_read_torch_converts_doubles_beyond_the_range_of_float32_to_infinity(file: Path):
    double = push_tensor(push_storage(3, "0", "torch.DoubleStorage"), 0, push_integers(3), push_integers(1))
    file.write_bytes(make_zip_file(push_dict(a=double), {"0": np.array([1e300, -np.inf, np.nan]).tobytes()}))
    assert_same(read_torch(file), {"a": np.array([np.inf, -np.inf, np.nan], F4)})


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (push_dict(state_dict=push_dict(a=push_vector(6)), meta=push_dict(config=push_string("x"))), ["a"]),
        (
            push_dict(optimizer=push_dict(state=push_vector(6)), model=push_dict(a=push_vector(6), b=push_vector(6))),
            ["a", "b"],
        ),
        (push_dict(loss=push_vector(6), state_dict=push_dict(b=push_vector(6))), ["b"]),
        (push_dict(other=push_dict(a=push_vector(6)), epoch=push_integer(3)), ["a"]),
        (push_dict(a=push_vector(6), epoch=push_integer(3)), ["a"]),
        (push_dict(model=push_vector(6), net=push_vector(6)), ["model", "net"]),
        (push_dict(**{"module.a": push_vector(6), "module.module.b": push_vector(6)}), ["a", "module.b"]),
        (push_dict(**{"module.a": push_vector(6), "b": push_vector(6)}), ["module.a", "b"]),
        (push_global("collections.Counter") + push_dict(a=push_vector(6)) + b"\x85R", None),
        (push_dict(a=push_integer(1)), None),
        (push_dict(one=push_dict(a=push_vector(6)), two=push_dict(a=push_vector(6))), None),
        (b"](" + push_vector(6) + b"e", None),
        (push_integer(3), None),
    ],
)
def test_read_torch_finds_the_dict_of_weights(file: Path, content: bytes, names: list[str] | None):
    file.write_bytes(make_zip_file(content, {"0": ONES}))
    if names is None:
        assert_rejected(file, "no dict of tensors", "state_dict")
    else:
        assert list(read_torch(file)) == names


@pytest.mark.parametrize(("version", "accepted"), [("1.0rc0+5f2c9a5", False), ("0.5.4", False), ("2.3.0", True)])
def test_read_torch_rejects_files_of_mmdetection_before_2_0(file: Path, version: str, accepted: bool):
    meta = push_dict(mmdet_version=push_string(version), config=push_string("model = ..."))
    file.write_bytes(make_zip_file(push_dict(meta=meta, state_dict=push_dict(a=push_vector(6))), {"0": ONES}))
    if accepted:
        assert list(read_torch(file)) == ["a"]
    else:
        assert_rejected(file, "MMDetection", version[:3], "upgrade_model_version.py")


# ---- hostile files ----

RUN_BY_PICKLE = [
    "REDUCE os.system", "REDUCE posix.system", "REDUCE eval", "REDUCE exec, as Python 2 named it",
    "getattr of a module", "STACK_GLOBAL", "STACK_GLOBAL with a dotted name", "INST", "OBJ",
    "BUILD that sets __setstate__", "inside an ignored object",
]  # fmt: skip


@pytest.mark.parametrize("attack", RUN_BY_PICKLE)
def test_attacks_run_code_if_pickle_loads_them(tmp_path: Path, attack: str):
    marker = tmp_path / "marker"
    protocol = b"\x80\x02" if "Python 2" in attack else b"\x80\x04"
    pickle.loads(protocol + make_attack(attack, marker) + b".")
    assert marker.exists()


@pytest.mark.parametrize("write", [make_zip_file, make_legacy_file])
@pytest.mark.parametrize("attack", ATTACKS)
def test_read_torch_rejects_attacks_without_running_them(tmp_path: Path, file: Path, attack: str, write):
    marker = tmp_path / "marker"
    file.write_bytes(write(make_attack(attack, marker), {"0": ONES}))
    message = assert_rejected(file, ATTACKS[attack][1])
    assert not marker.exists()
    if "getattr" in attack:
        assert "torch.load('some.pth'" in message and "safetensors.torch.save_file" in message
    elif ": is refused" in message:
        assert "Do not load it elsewhere" in message and "torch.load" not in message


@pytest.mark.parametrize("place", range(5))
def test_read_torch_rejects_an_attack_in_each_pickle_of_a_legacy_file(tmp_path: Path, file: Path, place: int):
    marker = tmp_path / "marker"
    parts = [make_pickle(part) for part in (push_integer(0x1950A86A20F9469CFC6C), push_integer(1001), b"}", b"}", b"]")]
    parts[place] = make_pickle(make_attack("REDUCE os.system", marker))
    file.write_bytes(b"".join(parts))
    assert_rejected(file, "'os.system'")
    assert not marker.exists()


def test_read_torch_rejects_pickles_not_written_by_torch_save(file: Path):
    file.write_bytes(pickle.dumps({"a": 1}))
    assert_rejected(file, "torch.save")


@pytest.mark.parametrize(
    "value",
    [
        b"N" + b"Q",
        push_string("storage") + b"Q",
        push_tuple() + b"Q",
        push_tuple(push_string("storage")) + b"Q",
        push_tuple(
            push_string("module"),
            push_global("torch.FloatStorage"),
            push_string("0"),
            push_string("cpu"),
            push_integer(6),
        )
        + b"Q",
        push_tuple(
            push_string("storage"),
            push_string("torch.FloatStorage"),
            push_string("0"),
            push_string("cpu"),
            push_integer(6),
        )
        + b"Q",
        push_tuple(
            push_string("storage"),
            push_global("collections.OrderedDict"),
            push_string("0"),
            push_string("cpu"),
            push_integer(6),
        )
        + b"Q",
        push_tuple(
            push_string("storage"),
            push_global("torch.FloatStorage"),
            push_integer(0),
            push_string("cpu"),
            push_integer(6),
        )
        + b"Q",
        push_tuple(
            push_string("storage"),
            push_global("torch.FloatStorage"),
            push_string("0"),
            push_string("cpu"),
            push_integer(-6),
        )
        + b"Q",
        push_tuple(
            push_string("storage"),
            push_global("torch.FloatStorage"),
            push_string("0"),
            push_string("cpu"),
            push_string("6"),
        )
        + b"Q",
        push_storage(6, "0", "torch.FloatStorage", push_string("view")),
        push_storage(6, "0", "torch.FloatStorage", b"N", b"N"),
        push_storage(6) + push_storage(5) + b"\x86",
        push_storage(6) + push_storage(6, "0", "torch.IntStorage") + b"\x86",
        push_string("print") + push_string("x") + b"\x85R",
        push_global("torch.FloatStorage") + push_integer(6) + b"\x85R",
        push_global("collections.OrderedDict") + b"}R",
        push_global("collections.OrderedDict") + push_string("ab") + b"\x85R",
        push_integer(1) + push_dict(real=push_integer(2)) + b"b",
        push_integer(1) + push_integer(1) + b"a",
        push_integer(1) + push_string("a") + push_integer(1) + b"s",
        b"}(" + push_string("a") + b"u",
        # An instruction must not change the stand-ins in the table of names.
        push_global("torch.Size") + push_tuple(b"N", push_dict(function=push_integer(1))) + b"b",
        push_global("torch.Size") + push_dict(function=push_integer(1)) + b"b",
        push_global("torch.FloatStorage") + push_tuple(b"N", push_dict(dtype=push_integer(1))) + b"b",
        push_global("torch.FloatStorage") + push_dict(dtype=push_integer(1)) + b"b",
        push_global("torch._utils._rebuild_tensor_v2") + b")R",
        b"h\x05",
        b"t",
        b"",
        b"\x93",
        push_integer(1) + push_integer(2) + b"\x93",
    ],
)
def test_read_torch_rejects_invalid_pickles(file: Path, value: bytes):
    for write in (make_zip_file, make_legacy_file):
        file.write_bytes(write(value, {"0": ONES}))
        assert_rejected(file, "corrupt")
    file.write_bytes(make_zip_file(push_dict(a=push_vector(6)), {"0": ONES}))
    assert_same(read_torch(file), {"a": np.ones(6, F4)})


# ---- sizes ----


def push_storage_view(offset: int, length: int) -> bytes:
    """Return the instructions that push a view of a storage with six elements, as in the legacy format."""
    view = push_tuple(push_string("v"), push_integer(offset), push_integer(length))
    return push_storage(6, "0", "torch.FloatStorage", view)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (push_tensor(push_storage(6), 0, push_integers(7), push_integers(1)), "larger than its storage"),
        (push_tensor(push_storage(6), 1, push_integers(6), push_integers(1)), "larger than its storage"),
        (push_tensor(push_storage(6), 0, push_integers(2, 3), push_integers(4, 1)), "larger than its storage"),
        (push_tensor(push_storage(6), 0, push_integers(1 << 62, 1 << 62), push_integers(1, 1)),
         "larger than its storage"),
        (push_tensor(push_storage(6), 6, b")", b")"), "larger than its storage"),
        (push_tensor(push_storage(6), -1, push_integers(2), push_integers(1)), "negative"),
        (push_tensor(push_storage(6), 5, push_integers(6), push_integers(-1)), "negative"),
        (push_tensor(push_storage(6), 0, push_integers(-2, -3), push_integers(3, 1)), "negative"),
        (push_tensor(push_storage(6), 0, push_tuple(b"\x88"), push_integers(1)), "negative or not an integer"),
        (push_tensor(push_storage(6), 0, push_tuple(push_string("6")), push_integers(1)), "negative or not an integer"),
        (push_tensor(push_storage(6), 0, b"]", b"]"), "not a shape"),
        (push_tensor(push_storage(6), 0, push_integers(6), push_integers()), "not a shape"),
        (push_tensor(push_storage(6), 0, push_integers(*[1] * 33), push_integers(*[1] * 33)), "not a shape"),
        (push_tensor(b"N", 0, push_integers(6), push_integers(1)), "corrupt"),
        (push_tensor(push_storage_view(1, 5), 0, push_integers(6), push_integers(1)), "larger than its storage"),
        (push_tensor(push_storage_view(-1, 5), 1, push_integers(5), push_integers(1)), "negative"),
        # With stride 0, one number is repeated 10**12 times.
        (push_tensor(push_storage(6), 0, push_integers(10**6, 10**6), push_integers(0, 0)),
         "8 times the bytes of the file"),
        (push_tensor(push_storage(6), 0, push_integers(10**18, 10**18), push_integers(0, 0)), "corrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_read_torch_rejects_tensors_that_do_not_fit_in_their_storage(file: Path, value: bytes, reason: str):
    for write in (make_zip_file, make_legacy_file):
        file.write_bytes(write(push_dict(a=value), {"0": ONES}))
        assert_rejected(file, reason)


@pytest.mark.parametrize("length", [5, 7, 1 << 40])
def test_read_torch_rejects_storages_with_a_length_other_than_in_the_pickle(file: Path, length: int):
    for write in (make_zip_file, make_legacy_file):
        file.write_bytes(
            write(push_dict(a=push_tensor(push_storage(length), 0, push_integers(2), push_integers(1))), {"0": ONES})
        )
        assert_rejected(file, "corrupt")


def test_read_torch_rejects_a_missing_storage(file: Path):
    for write in (make_zip_file, make_legacy_file):
        file.write_bytes(write(push_dict(a=push_vector(6, key="1")), {"0": ONES}))
        assert_rejected(file, "corrupt")


def test_read_torch_rejects_legacy_files_with_wrong_storage_sizes(file: Path):
    good = make_legacy_file(push_dict(a=push_vector(6)), {"0": ONES})
    for data, reason in [(good[:-1], "the file ends early"), (good + b"x", "continues after its end")]:
        file.write_bytes(data)
        assert_rejected(file, reason)
    file.write_bytes(good.replace(struct.pack("<q", 6), struct.pack("<q", 5)))
    assert_rejected(file, "storage 0", "size")
    file.write_bytes(
        good.replace(make_pickle(b"](" + push_string("0") + b"e"), make_pickle(b"](" + push_integer(0) + b"e"))
    )
    assert_rejected(file, "not text")


def test_read_torch_counts_each_tensor_of_a_shared_storage_for_the_size_limit(file: Path):
    data = np.ones(5000, F4).tobytes()
    for number, good in [(8, True), (9, False)]:
        file.write_bytes(make_zip_file(push_dict(**{f"t{i}": push_vector(5000) for i in range(number)}), {"0": data}))
        if good:
            assert len(read_torch(file)) == number
        else:
            assert_rejected(file, "8 times the bytes of the file")


def test_read_torch_counts_half_floats_as_float32_for_the_size_limit(file: Path):
    half = push_tensor(push_storage(5000, "0", "torch.HalfStorage"), 0, push_integers(5000), push_integers(1))
    data = np.ones(5000, np.float16).tobytes()
    file.write_bytes(make_zip_file(push_dict(**{f"t{i}": half for i in range(5)}), {"0": data}))
    assert_rejected(file, "8 times the bytes of the file")


NESTED_TUPLE = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60  # a nested tuple of 62 objects with 2**60 leaves


@pytest.mark.parametrize(
    "value",
    [
        NESTED_TUPLE + b"}h\x00Ns",  # hashing the nested tuple as a key would never end
        NESTED_TUPLE + b"}(h\x00Nu",
        NESTED_TUPLE + b"\x8f(h\x00\x90",  # the nested tuple in a set
        NESTED_TUPLE + b"](h\x00e",
        NESTED_TUPLE + push_global("collections.OrderedDict") + b"](h\x00e\x85R",
        NESTED_TUPLE + push_tuple(
            push_string("storage"), push_global("torch.FloatStorage"), b"h\x00", push_string("cpu"), push_integer(6)
        ) + b"Q",
        NESTED_TUPLE + push_dict(a=push_tensor(b"h\x00", 0, b"h\x00", b"h\x00")),
        b"]" * 20_000 + b"a" * 19_999,
        b")" + b"\x85" * 50_000,
        b"N" * 200_001,
        b"(" + NESTED_TUPLE + b"h\x00\x91",  # the nested tuple in a frozenset
        NESTED_TUPLE + push_global("builtins.set") + b"](h\x00e\x85R",
        NESTED_TUPLE + push_global("ssd_jax.dict") + b"](h\x00N\x86e\x85R",
        b"(" * 50_000,
        b"Nr\xff\xff\xff\xff",  # a memo index of 4 billion
        b"\x8e" + b"\xff" * 7 + b"\x7f" + b"x",  # fewer bytes than announced
        b"X\xff\xff\xff\xff" + b"x",
        b"\x8b\xff\xff\xff\x7f" + b"x",  # an integer of 2 GiB
        # Many calls that share a long list of arguments; a dict that holds one large dict under many keys.
        push_global("argparse.Namespace") + b"q\x02(" + b"N" * 20_000 + b"tq\x01" + b"h\x02h\x01R" * 20_000,
        b"(" + b"N" * 20_000 + b"tq\x01" + b"h\x01Q" * 20_000,
        b"}(" + b"".join(push_string(f"{i:05}") + b"N" for i in range(20_000)) + b"uq\x01}("
        + b"".join(push_string(f"{i:05}") + b"h\x01" for i in range(20_000)) + b"u",
    ],
    ids=range(21),
)  # fmt: skip
def test_read_torch_quickly_rejects_small_files_that_would_need_much_time_or_memory(file: Path, value: bytes):
    """A file is rejected after about a second. Copying or hashing its objects could take minutes or never end."""
    file.write_bytes(make_zip_file(value, {"0": ONES}))
    before = time.process_time()
    assert_rejected(file)
    assert time.process_time() - before < 12


def test_read_torch_rejects_calls_with_more_than_100_arguments(file: Path):
    for number in (100, 101):
        call = push_global("argparse.Namespace") + b"(" + b"N" * number + b"tR"
        file.write_bytes(make_zip_file(push_dict(a=push_vector(6), b=call), {"0": ONES}))
        if number == 100:
            assert list(read_torch(file)) == ["a"]
        else:
            assert_rejected(file, "arguments")


def test_read_torch_empties_a_list_of_pairs_when_it_makes_the_dict(memory_trace: ModuleType, file: Path):
    """3000 dicts are made from one list. If the list stayed full, they would have 3 million entries of 100 bytes."""
    pairs = b"](" + b"".join(push_string(f"{i:03}") + b"N\x86" for i in range(1000)) + b"e\x85q\x01"
    file.write_bytes(
        make_zip_file(push_global("collections.OrderedDict") + b"q\x02" + pairs + b"h\x02h\x01R" * 3000, {})
    )
    memory_trace.start()
    assert_rejected(file)
    peak = memory_trace.get_traced_memory()[1]
    assert peak < 20e6


def test_read_torch_rejects_overlapping_zip_entries(file: Path):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", make_pickle(push_dict(**{f"t{i}": push_vector(500, str(i)) for i in range(20)})))
        archive.writestr("a/data/0", np.ones(500, F4).tobytes())
        for number in range(1, 20):
            twin = zipfile.ZipInfo(f"a/data/{number}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(twin, field, getattr(archive.getinfo("a/data/0"), field))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
    assert_rejected(file, "larger than the file")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "\x00"])
def test_read_torch_rejects_unprintable_names(file: Path, name: str):
    file.write_bytes(make_zip_file(push_dict(**{name: push_vector(6)}), {"0": ONES}))
    assert_rejected(file, "unprintable")
    file.write_bytes(make_zip_file(b"cos\n" + name.replace("\n", "\r").encode() + b"\n", {}))
    assert assert_rejected(file).isascii()


# ---- files of other formats ----


def test_read_torch_rejects_files_not_written_by_torch_save(tmp_path: Path, file: Path):
    assert_rejected(tmp_path / "none.pth", "no such file")
    assert_rejected(tmp_path, "a folder or a device")
    assert_rejected(Path("/dev/zero"), "a folder or a device")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert_rejected(fifo, "a folder or a device")
    for data in (b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"):
        file.write_bytes(data)
        assert_rejected(file, "Git LFS")
    np.savez(file.with_suffix(".npz"), a=SIX)
    assert_rejected(file.with_suffix(".npz"), "torch.save")
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    assert_rejected(file, "tar file")


def test_read_torch_rejects_unsupported_zip_files(file: Path):
    value = push_dict(a=push_vector(6))
    file.write_bytes(make_zip_file(value, {"0": ONES}, compression=zipfile.ZIP_DEFLATED))
    assert_rejected(file, "compressed")
    file.write_bytes(make_zip_file(value, {"0": ONES}, order="big"))
    assert_rejected(file, "big-endian")
    file.write_bytes(make_zip_file(value, {"0": ONES}, order="little"))
    assert_same(read_torch(file), {"a": np.ones(6, F4)})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("other/data.pkl", make_pickle(b"}"))
    assert_rejected(file, "one data.pkl")


def test_read_torch_rejects_an_unreadable_file(file: Path, monkeypatch: pytest.MonkeyPatch):
    def raise_permission_error(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file.write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", raise_permission_error)
    assert_rejected(file, "Permission denied", "permissions")


# ---- corrupt files ----


def read_valid_files() -> dict[str, bytes]:
    """Return a dict from the name of each format to the bytes of a valid file."""
    return {
        "zip": (DATA / "zip.pth").read_bytes(),
        "legacy": (DATA / "legacy.pth").read_bytes(),
        "legacy checkpoint": (DATA / "legacy_checkpoint.pth").read_bytes(),
    }


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["zip", "legacy", "legacy checkpoint"])
def test_read_torch_reads_or_rejects_corrupt_files(file: Path, kind: str, count: int):
    def read_and_check(file: Path) -> dict[str, np.ndarray]:
        tensors = read_torch(file)
        if kind == "zip":  # the checksums of a zip file cover everything that is read
            assert_same(tensors, EXPECTED)
        return tensors

    assert (
        count_rejected(read_and_check, file, make_damaged_copies(read_valid_files()[kind], count, seed=3)) > count // 2
    )


@pytest.mark.parametrize("count", [120, pytest.param(4000, marks=pytest.mark.slow)])
def test_read_torch_reads_or_rejects_corrupt_pickles_with_a_valid_checksum(file: Path, count: int):
    with zipfile.ZipFile(DATA / "zip.pth") as archive:
        good = archive.read("zip/data.pkl")
        storages = {n.removeprefix("zip/data/"): archive.read(n) for n in archive.namelist() if "/data/" in n}
    copies = (
        (damage, make_zip_file_from_pickle(data, storages)) for damage, data in make_damaged_copies(good, count, seed=5)
    )
    assert count_rejected(read_torch, file, copies) > count // 2
