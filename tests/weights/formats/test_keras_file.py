"""Tests of reading HDF5 files of Keras 1, 2 and 3, and of rejecting corrupt or hostile files."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.damage import count_rejected, make_damaged_copies
from helpers.paths import ASSETS
from helpers.weight_writers import write_keras

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.keras_file import read_keras

DATA = ASSETS / "weights"
RANDOM = np.random.default_rng(0)


def make_random_array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


# Layers are not in alphabetical order, so that a reader that sorts them fails.
LAYERS: list[tuple[str, list[tuple[str, np.ndarray]]]] = [
    ("input_1", []),
    ("conv2_1", [("conv2_1/kernel:0", make_random_array(3, 3, 3, 4)), ("conv2_1/bias:0", make_random_array(4))]),
    ("conv1_1", [("conv1_1/kernel:0", make_random_array(1, 1, 4, 2)), ("conv1_1/bias:0", make_random_array(2))]),
    ("norm", [("norm/norm_gamma:0", make_random_array(2))]),
]


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Return the result of read_keras, after checking that the arrays are writeable and C-contiguous."""
    tensors = read_keras(file)
    assert all(tensor.flags.writeable and tensor.flags.c_contiguous for tensor in tensors.values())
    return tensors


def assert_contains(tensors: dict[str, np.ndarray], layers: list[tuple[str, list[tuple[str, np.ndarray]]]]) -> None:
    """Assert that the tensors are exactly the weights of the given layers, in the same order."""
    expected = {f"{name}.{number}": value for name, weights in layers for number, (_, value) in enumerate(weights)}
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)


@pytest.mark.parametrize("whole_model", [False, True])
def test_read_keras_reads_files_of_keras_2(tmp_path: Path, whole_model: bool):
    write_keras(tmp_path / "a.h5", LAYERS, whole_model=whole_model)
    assert_contains(read_arrays(tmp_path / "a.h5"), LAYERS)


@pytest.mark.parametrize("names", ["{}_W:0 {}_b:0", "{}_W_1:0 {}_b_1:0", "param_0 param_1"])
def test_read_keras_reads_files_of_keras_1(tmp_path: Path, names: str):
    """The weight names differ between versions; only their order matters."""
    layers = [
        (layer, [(name.format(layer), value) for name, (_, value) in zip(names.split(), weights, strict=False)])
        for layer, weights in LAYERS
    ]
    write_keras(tmp_path / "a.h5", layers, version=None)
    assert_contains(read_arrays(tmp_path / "a.h5"), LAYERS)


@pytest.mark.parametrize("name", ["keras3.h5", "keras3.weights.h5", "keras3_bfloat16.weights.h5"])
def test_read_keras_reads_files_of_keras_3(name: str):
    """Keras itself wrote the files; see make_keras_files.py."""
    tensors = read_arrays(DATA / name)
    kernel = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
    assert list(tensors) == ["conv1_2.0", "conv1_2.1", "conv1_1.0", "conv1_1.1"]
    np.testing.assert_array_equal(tensors["conv1_2.0"], kernel, strict=True)
    np.testing.assert_array_equal(tensors["conv1_2.1"], np.float32([100, 101]), strict=True)
    np.testing.assert_array_equal(tensors["conv1_1.0"], np.float32([0, 1]).reshape(1, 1, 2, 1), strict=True)
    np.testing.assert_array_equal(tensors["conv1_1.1"], np.float32([100]), strict=True)


def test_read_keras_rejects_early_keras_3_files_without_layer_names(tmp_path: Path):
    (tmp_path / "a.h5").write_bytes((DATA / "keras3.weights.h5").read_bytes())
    with h5py.File(tmp_path / "a.h5", "a") as root:
        del root["layers/conv2d/vars"].attrs["name"]
    with pytest.raises(UserError, match=r"a\.h5: .*Keras 3"):
        read_arrays(tmp_path / "a.h5")


def test_read_keras_reads_many_layers(tmp_path: Path):
    """There are too many layer names for one attribute, and too many groups for one node of HDF5's tree."""
    layers = [(f"layer_{number}_{'x' * 90}", [("w", np.float32([number]))]) for number in range(900)]
    write_keras(tmp_path / "a.h5", layers)
    with h5py.File(tmp_path / "a.h5") as root:
        assert set(root.attrs) >= {"layer_names0", "layer_names1"}
    assert_contains(read_arrays(tmp_path / "a.h5"), layers)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8"])
def test_read_keras_converts_floats_to_float32(tmp_path: Path, dtype: str):
    value = np.array([[0.5, -2.0, 1024.0]], dtype)
    write_keras(tmp_path / "a.h5", [("a", [("w", value)])])
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.h5")["a.0"], value.astype(np.float32), strict=True)


def test_read_keras_does_not_convert_integers(tmp_path: Path):
    write_keras(tmp_path / "a.h5", [("a", [("w", np.array(7, ">i8"))])])
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.h5")["a.0"], np.int64(7), strict=True)


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": True},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "gzip", "chunks": (2,)},
    ],
)
def test_read_keras_reads_chunks_and_gzip(tmp_path: Path, storage: dict[str, Any]):
    """Some datasets have a last chunk that is only partly used. Random numbers do not become smaller by compression."""
    layers = [("a", [("w", make_random_array(5))]), ("b", [("w", np.ones(9, np.float32))])]
    write_keras(tmp_path / "a.h5", layers, **storage)
    assert_contains(read_arrays(tmp_path / "a.h5"), layers)


def test_read_keras_reads_uncompressed_chunks_of_compressed_datasets(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as root:
        dataset = make_layer(root).create_dataset("w", (4,), "f4", chunks=(2,), compression="gzip", shuffle=True)
        dataset[2:] = [3, 4]
        dataset.id.write_direct_chunk((0,), np.float32([1, 2]).tobytes(), filter_mask=0b11)
    assert read_arrays(tmp_path / "a.h5")["a.0"].tolist() == [1, 2, 3, 4]


def test_read_keras_ignores_everything_but_weights(tmp_path: Path):
    write_keras(tmp_path / "a.h5", LAYERS)
    with h5py.File(tmp_path / "a.h5", "a") as root:
        root.attrs["note"] = np.longdouble(1)
        root["conv1_1"].create_dataset("note", (1 << 40,), "f4")
    assert_contains(read_arrays(tmp_path / "a.h5"), LAYERS)


@pytest.mark.parametrize("libver", ["v108", "v110", "latest"])
def test_read_keras_reads_files_of_newer_hdf5_versions(tmp_path: Path, libver: str):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as root:
        root.attrs["layer_names"] = [f"layer_{number}" for number in range(30)]  # stored as text of variable length
        for number in range(30):
            group = root.create_group(f"layer_{number}")
            group.attrs["weight_names"] = ["w"]
            group["w"] = np.float32([number])
    assert_contains(read_arrays(tmp_path / "a.h5"), [(f"layer_{n}", [("w", np.float32([n]))]) for n in range(30)])


def test_read_keras_follows_soft_links_within_the_file(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as root:
        make_layer(root)["w"] = h5py.SoftLink("/elsewhere")
        root["elsewhere"] = np.float32([1, 2])
    assert read_arrays(tmp_path / "a.h5")["a.0"].tolist() == [1, 2]


# ---- invalid files ----


def make_layer(root: h5py.File) -> h5py.Group:
    """Add a layer "a" to a file without writing the layer's only weight "w", and return the group of the layer."""
    root.attrs["layer_names"] = [b"a"]
    group = root.create_group("a")
    group.attrs["weight_names"] = [b"w"]
    return group


# Each of these functions completes the layer of `make_layer` with a weight "w" that must be refused. ``other_file``
# is the path of a second HDF5 file.


def write_external_link(group: h5py.Group, other_file: Path) -> None:
    group["w"] = h5py.ExternalLink(other_file, "/secret")


def write_external_storage(group: h5py.Group, other_file: Path) -> None:
    group.create_dataset("w", (16,), "u1", external=[(other_file, 0, 16)])


def write_virtual_dataset(group: h5py.Group, other_file: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(other_file, "secret", shape=(4,))
    group.create_virtual_dataset("w", layout)


def write_circular_link(group: h5py.Group, other_file: Path) -> None:
    group["w"] = h5py.SoftLink("/a/w")


def write_broken_link(group: h5py.Group, other_file: Path) -> None:
    group["w"] = h5py.SoftLink("/gone")


def write_group_instead_of_dataset(group: h5py.Group, other_file: Path) -> None:
    group.create_group("w")


def write_named_datatype(group: h5py.Group, other_file: Path) -> None:
    group["w"] = np.dtype("f4")


def write_huge_dataset(group: h5py.Group, other_file: Path) -> None:
    group.create_dataset("w", (1 << 20, 1 << 20), "f4")


def write_unwritten_dataset(group: h5py.Group, other_file: Path) -> None:
    group.create_dataset("w", (1000,), "f4")


def write_missing_chunks(group: h5py.Group, other_file: Path) -> None:
    group.create_dataset("w", (64,), "f4", chunks=(8,))[:8] = 1


def write_huge_padding(group: h5py.Group, other_file: Path) -> None:
    group.create_dataset("w", (4,), "f4", chunks=(1 << 22,), maxshape=(None,), compression="gzip")[:] = 1


def write_compression_bomb(group: h5py.Group, other_file: Path) -> None:
    group.create_dataset("w", data=np.zeros(1 << 22, "f4"), compression="gzip")


def write_chunk_with_a_bomb(group: h5py.Group, other_file: Path) -> None:
    """Write a dataset whose only chunk decompresses to more bytes than its declared size."""
    dataset = group.create_dataset("w", (4,), "f4", chunks=(4,), compression="gzip")
    packed = io.BytesIO()
    with h5py.File(packed, "w") as file:
        zeros = file.create_dataset("w", data=np.zeros(1 << 24, "u1"), chunks=(1 << 24,), compression="gzip")
        dataset.id.write_direct_chunk((0,), zeros.id.read_direct_chunk((0,))[1])


def write_chunk_compressed_twice(group: h5py.Group, other_file: Path) -> None:
    """Write a chunk that is compressed twice, so that only the second decompression exceeds the declared size."""
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_chunk((1 << 12,))
    for _ in range(2):
        options.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    space, kind = h5py.h5s.create_simple((1 << 12,)), h5py.h5t.IEEE_F32LE
    dataset = h5py.h5d.create(group.id, b"w", kind, space, options)
    dataset.write_direct_chunk((0,), zlib.compress(zlib.compress(bytes(1 << 24))))


def write_repeated_weight(group: h5py.Group, other_file: Path) -> None:
    """Use one float16 dataset as six weights. As float32, the weights are twelve times as large as the file."""
    group["w"] = np.zeros(100_000, "f2")
    group.attrs["weight_names"] = [b"w"] * 6


def write_lzf_dataset(group: h5py.Group, other_file: Path) -> None:
    group.create_dataset("w", data=np.zeros(4, "f4"), compression="lzf")


def write_string_dataset(group: h5py.Group, other_file: Path) -> None:
    group["w"] = ["a", "b"]


def write_record_dataset(group: h5py.Group, other_file: Path) -> None:
    group["w"] = np.zeros(2, [("a", "f4")])


def write_reference_dataset(group: h5py.Group, other_file: Path) -> None:
    group["w"] = np.array([group.ref], h5py.ref_dtype)


def write_complex_dataset(group: h5py.Group, other_file: Path) -> None:
    group["w"] = np.zeros(2, "c8")


def write_pickle_dataset(group: h5py.Group, other_file: Path) -> None:
    group["w"] = np.void(b"cos\nsystem\n(S'echo'\ntR.")


def write_empty_dataset(group: h5py.Group, other_file: Path) -> None:
    group["w"] = h5py.Empty("f4")


def remove_layer_names(group: h5py.Group, other_file: Path) -> None:
    del group.file.attrs["layer_names"]


def clear_weight_names(group: h5py.Group, other_file: Path) -> None:
    group.attrs["weight_names"] = np.zeros(0)


def write_unprintable_layer_name(group: h5py.Group, other_file: Path) -> None:
    group.file.attrs["layer_names"] = [b"a\x1b[2J"]
    group.file["a\x1b[2J"] = group
    group["w"] = np.zeros(1, "f4")


def write_theano_backend(group: h5py.Group, other_file: Path) -> None:
    group.file.attrs["backend"] = b"theano"
    group["w"] = np.zeros(1, "f4")


@pytest.mark.parametrize(
    ("write_weight", "message"),
    [
        (write_external_link, "corrupt"),
        (write_external_storage, "'a.0' are not in it"),
        (write_virtual_dataset, "'a.0' is assembled from other files"),
        (write_circular_link, "corrupt"),
        (write_broken_link, "'w' is in its list"),
        (write_group_instead_of_dataset, "'w' is in its list"),
        (write_named_datatype, "'w' is in its list"),
        (write_huge_dataset, r"'a.0' of shape \(1048576, 1048576\), .* more than 8 times"),
        (write_unwritten_dataset, "'a.0' are not in it"),
        (write_missing_chunks, "'a.0' lacks chunks"),
        (write_huge_padding, "padding"),
        (write_compression_bomb, "more than 8 times the bytes of the file.*h5repack"),
        (write_chunk_with_a_bomb, "unpacks to more bytes"),
        (write_chunk_compressed_twice, "not compressed with gzip"),
        (write_repeated_weight, "'a.4' of shape .* more than 8 times"),
        (write_lzf_dataset, "not compressed with gzip"),
        (write_string_dataset, "'a.0' contains object, not numbers"),
        (write_record_dataset, "'a.0' contains .*, not numbers"),
        (write_reference_dataset, "'a.0' contains .*, not numbers"),
        (write_complex_dataset, "'a.0' contains complex64, not numbers"),
        (write_pickle_dataset, "'a.0' contains .*, not numbers"),
        (write_empty_dataset, "corrupt"),
        (remove_layer_names, "layer_names"),
        (clear_weight_names, "no layer with weights"),
        (write_unprintable_layer_name, "unprintable"),
        (write_theano_backend, "Theano"),
    ],
)
def test_read_keras_rejects_invalid_weights(
    memory_trace: ModuleType, tmp_path: Path, write_weight: Callable[[h5py.Group, Path], None], message: str
):
    """The reader must reject the weight without reading ``other.h5``, and must use little memory."""
    with h5py.File(tmp_path / "other.h5", "w") as other_file:
        other_file["secret"] = np.arange(4, dtype=np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as root:
        write_weight(make_layer(root), tmp_path / "other.h5")
    memory_trace.start()
    with pytest.raises(UserError, match=r"a\.h5: .*" + message):
        read_arrays(tmp_path / "a.h5")
    assert memory_trace.get_traced_memory()[1] < 10_000_000


def make_circular_header() -> bytes:
    """Return the bytes of an HDF5 file whose root has an object header that refers to itself 65535 times.

    Each message of the header says that the header continues at the beginning of the file.

    Source: HDF5 File Format Specification, superblock version 0, object header version 1, message 16.
    """
    end, nowhere = 1 << 20, (1 << 64) - 1
    superblock = b"\x89HDF\r\n\x1a\n" + struct.pack(
        "<8B2HI4Q", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0, 0, nowhere, end, nowhere
    )
    root = struct.pack("<2Q2I16x", 0, 96, 0, 0)
    message = struct.pack("<2H4x2Q", 16, 16, 0, end)
    header = struct.pack("<BxHII4x", 1, 0xFFFF, 1, 24 * 1000)
    return (superblock + root + header + message * 1000).ljust(end, b"\0")


def make_file_with_base_address() -> bytes:
    """Return the bytes of a valid HDF5 file after a user block, with addresses relative to the end of the block."""
    good = (DATA / "keras3.h5").read_bytes()
    return (good[:24] + struct.pack("<Q", 512) + good[32:96]).ljust(512, b"\0") + good


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK\x03\x04config.json", r"a \.keras archive"),
        (b"\x89HDF\r\n\x1a\n", "corrupt"),
        (b"\x89HDF\r\n\x1a\n" + bytes(4000), "corrupt"),
        (make_circular_header(), "in circles"),
        (make_file_with_base_address(), "user block"),
    ],
)
def test_read_keras_rejects_files_not_written_by_keras(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.h5: .*" + message):
        read_arrays(tmp_path / "a.h5")


def test_read_keras_rejects_truncated_files(tmp_path: Path):
    """A reader without this check could replace missing values with zeros."""
    write_keras(tmp_path / "a.h5", [("a", [("w", make_random_array(1000))])])
    whole = (tmp_path / "a.h5").read_bytes()
    for size in range(0, len(whole), 293):
        (tmp_path / "a.h5").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"a\.h5: "):
            read_arrays(tmp_path / "a.h5")


@pytest.mark.parametrize("count", [48, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["keras_2", "gzip", "keras_3"])
def test_read_keras_reads_or_rejects_corrupt_files(memory_trace: ModuleType, tmp_path: Path, kind: str, count: int):
    file = tmp_path / "a.h5"
    write_keras(file, LAYERS[1:], **({"compression": "gzip"} if kind == "gzip" else {}))
    good = (DATA / "keras3.weights.h5").read_bytes() if kind == "keras_3" else file.read_bytes()
    memory_trace.start()
    refused = count_rejected(read_arrays, file, make_damaged_copies(good, count, seed=1))
    _, peak = memory_trace.get_traced_memory()
    assert count // 5 < refused < count and peak < 20_000_000
