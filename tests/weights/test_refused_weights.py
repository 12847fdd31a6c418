"""Tests of many invalid weight files: each is rejected with a message that names the file, and its code is not run."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import helpers.published_keys as published
import numpy as np
import pytest
from helpers.cli import run_command
from helpers.pickles import (
    ATTACKS,
    make_attack,
    make_legacy_file,
    make_zip_file,
    push_dict,
    push_integers,
    push_storage,
    push_tensor,
)
from helpers.published_files import save_caffe, save_keras
from helpers.published_keys import Tensors
from safetensors.numpy import save

Change = Callable[[Tensors], Tensors]


def make_torch_file_bytes(tensors: Tensors, write: Callable = make_zip_file, extra_instructions: bytes = b"") -> bytes:
    """Return the bytes of a file as torch.save writes it for a state dict.

    Args:
        tensors: State dict.
        write: Function that makes a file in one of the formats of torch.save.
        extra_instructions: Further instructions of the pickle.
    """
    kinds = {"float32": "Float", "float64": "Double", "int64": "Long", "uint8": "Byte", "int32": "Int"}
    entries, storages = {}, {}
    for number, (name, value) in enumerate(tensors.items()):
        strides = [int(np.prod(value.shape[i + 1 :], dtype=int)) for i in range(value.ndim)]
        stored = push_storage(value.size, str(number), f"torch.{kinds[value.dtype.name]}Storage")
        entries[name] = push_tensor(stored, 0, push_integers(*value.shape), push_integers(*strides))
        storages[str(number)] = value.tobytes()
    return write(push_dict(**entries) + extra_instructions, storages)


def make_bytes_function(write: Callable[[Path, Tensors], Path]) -> Callable[[Tensors, Path], bytes]:
    """Return a function that writes tensors to a file in a folder and returns the bytes of the file."""
    return lambda tensors, folder: write(folder / "whole", tensors).read_bytes()


FORMATS: dict[str, Callable[[Tensors, Path], bytes]] = {
    "pth": lambda tensors, folder: make_torch_file_bytes(published.to_torchvision(tensors)),
    "old.pth": lambda tensors, folder: make_torch_file_bytes(tensors, make_legacy_file),
    "safetensors": lambda tensors, folder: save({k: np.ascontiguousarray(v) for k, v in tensors.items()}),
    "caffemodel": make_bytes_function(save_caffe),
    "h5": make_bytes_function(save_keras),
}
CUTS = (0, 1, 7, 300, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, -1)
"""Lengths of truncated files: bytes or, between 0 and 1, a fraction of the file. -1 removes the last byte."""


def transpose_tensor(key: str) -> Change:
    """Return a function that moves the first axis of the tensor ``key`` to the end."""
    return lambda tensors: tensors | {key: np.ascontiguousarray(np.moveaxis(tensors[key], 0, -1))}


def halve_tensor(key: str) -> Change:
    """Return a function that removes the second half of the tensor ``key``."""
    return lambda tensors: tensors | {key: tensors[key][: len(tensors[key]) // 2]}


def flatten_tensor(key: str) -> Change:
    """Return a function that flattens the tensor ``key``."""
    return lambda tensors: tensors | {key: tensors[key].reshape(-1)}


def remove_tensor(key: str) -> Change:
    """Return a function that removes the tensor ``key``."""
    return lambda tensors: {k: v for k, v in tensors.items() if k != key}


def fill_tensor(key: str, value: float) -> Change:
    """Return a function that sets all elements of the tensor ``key`` to a value."""
    return lambda tensors: tensors | {key: np.full_like(tensors[key], value)}


CHANGES: dict[str, Change] = {
    "axes in another order": transpose_tensor("vgg.5.weight"),
    "half a predictor": halve_tensor("conf.3.weight"),
    "half a bias": halve_tensor("vgg.0.bias"),
    "half a scale": halve_tensor("L2Norm.weight"),
    "flat": flatten_tensor("extras.3.weight"),
    "a layer missing": remove_tensor("vgg.31.weight"),
    "a bias missing": remove_tensor("loc.5.bias"),
    "NaN": fill_tensor("vgg.12.weight", np.nan),
    "infinity": fill_tensor("conf.0.bias", np.inf),
}
TYPES = {name: np.dtype(name) for name in ("int64", "uint8", "int32")}
HOSTILE = [
    name for name, (_, words) in ATTACKS.items() if "'os.system'" in words or "eval" in words or "getattr" in words
]


def make_external_link_file(folder: Path, tensors: Tensors) -> bytes:
    """Return the bytes of a Keras file in which one kernel is a link to another file."""
    file = save_keras(folder / "whole", tensors)
    with h5py.File(folder / "other", "w") as other:
        other["k"] = np.zeros((3, 3, 3, 8), np.float32)
    with h5py.File(file, "r+") as root:
        name = root["conv1_1"].attrs["weight_names"][0].decode()
        del root["conv1_1"][name]
        root["conv1_1"][name] = h5py.ExternalLink(str(folder / "other"), "k")
    return file.read_bytes()


def make_huge_dataset_file(folder: Path, tensors: Tensors) -> bytes:
    """Return the bytes of a Keras file that declares a kernel of a terabyte without its data."""
    file = save_keras(folder / "whole", tensors)
    with h5py.File(file, "r+") as root:
        name = root["fc7"].attrs["weight_names"][0].decode()
        del root["fc7"][name]
        root["fc7"].create_dataset(name, (1, 1, 1 << 20, 1 << 18), "f4", chunks=(1, 1, 1024, 1024))
    return file.read_bytes()


def make_oversized_header_file(folder: Path, tensors: Tensors) -> bytes:
    """Return the bytes of a safetensors file that has only a header, which declares a tensor of four terabytes."""
    header = json.dumps({"vgg.0.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    return struct.pack("<Q", len(header)) + header


def make_oversized_length_file(folder: Path, tensors: Tensors) -> bytes:
    """Return the bytes of a Caffe file with a layer whose declared length is far beyond the end of the file."""
    return b"\xa2\x06" + b"\xff" * 9 + b"\x01" + b"\x0a\x02ab"


def list_cases() -> Iterator[tuple[str, str]]:
    """Yield the format and the fault of each invalid file."""
    for kind in FORMATS:
        yield from ((kind, f"cut {cut}") for cut in CUTS)
        yield from ((kind, f"change {name}") for name in CHANGES)
    for kind in ("pth", "old.pth", "safetensors"):
        yield from ((kind, f"type {name}") for name in TYPES if not (kind == "old.pth" and name in ("int64", "uint8")))
    yield from (("pth", f"hostile {name}") for name in HOSTILE)
    yield from (("old.pth", f"hostile {name}") for name in HOSTILE)
    yield from (("h5", name) for name in ("make_external_link_file", "make_huge_dataset_file"))
    yield ("safetensors", "make_oversized_header_file")
    yield ("caffemodel", "make_oversized_length_file")


CASES = list(list_cases())


def test_there_are_at_least_a_hundred_cases():
    assert len(CASES) >= 100 and len(set(CASES)) == len(CASES)
    assert len(HOSTILE) >= 5


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """Return the state dict of a narrow SSD300 for three classes with the keys of ssd.pytorch."""
    return published.make_random_ssd_pytorch(6, 4, 0.125)


@pytest.fixture(scope="module")
def valid_files(tensors, tmp_path_factory) -> dict[str, bytes]:
    """Return a dict from the name of each format to the bytes of a valid file."""
    return {kind: write(tensors, tmp_path_factory.mktemp("whole")) for kind, write in FORMATS.items()}


NAME_OPTIONS = ("--class-names", "RBC", "WBC", "Platelets")


@pytest.mark.parametrize("kind", FORMATS)
def test_import_command_accepts_unchanged_files(kind, valid_files, tmp_path):
    (tmp_path / "file").write_bytes(valid_files[kind])
    assert run_command("import-weights", tmp_path / "file", "--out", tmp_path / "run", *NAME_OPTIONS) == 0


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_import_command_rejects_invalid_files(kind, case, tensors, valid_files, tmp_path, capsys):
    marker = tmp_path / "marker"
    fault, _, name = case.partition(" ")
    if fault == "cut":
        cut = float(name)
        size = len(valid_files[kind])
        data = valid_files[kind][: int(cut * size) if 0 < cut < 1 else int(cut) if cut >= 0 else size - 1]
    elif fault == "change":
        data = FORMATS[kind](CHANGES[name](tensors), tmp_path)
    elif fault == "type":
        data = FORMATS[kind](tensors | {"vgg.7.weight": tensors["vgg.7.weight"].astype(TYPES[name])}, tmp_path)
    elif fault == "hostile":
        attack = make_attack(name, marker)
        write = make_zip_file if kind == "pth" else make_legacy_file
        data = write(push_dict(weights=attack), {"0": np.ones(6, np.float32).tobytes()})
    else:
        data = {
            f.__name__: f
            for f in (
                make_external_link_file,
                make_huge_dataset_file,
                make_oversized_header_file,
                make_oversized_length_file,
            )
        }[fault](tmp_path, tensors)
    file = tmp_path / f"file.{kind}"
    file.write_bytes(data)
    assert run_command("import-weights", file, "--out", tmp_path / "run", *NAME_OPTIONS) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(file) in error and "Traceback" not in error
    assert not (tmp_path / "run").exists() and not marker.exists()
