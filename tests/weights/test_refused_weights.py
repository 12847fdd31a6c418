"""A hundred invalid weight files: each is refused with its name, and no code in it is run."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import helpers.published_keys as published
import numpy as np
import pytest
from helpers.cli import command
from helpers.pickles import ATTACKS, legacy, mapping, numbers, storage, tensor, with_marker, zipped
from helpers.published_files import save_caffe, save_keras
from helpers.published_keys import Tensors
from safetensors.numpy import save

Change = Callable[[Tensors], Tensors]


def pth(tensors: Tensors, write: Callable = zipped, more: bytes = b"") -> bytes:
    """Return a file as torch.save writes it for a state dict."""
    kinds = {"float32": "Float", "float64": "Double", "int64": "Long", "uint8": "Byte", "int32": "Int"}
    entries, storages = {}, {}
    for number, (name, value) in enumerate(tensors.items()):
        strides = [int(np.prod(value.shape[i + 1 :], dtype=int)) for i in range(value.ndim)]
        stored = storage(value.size, str(number), f"torch.{kinds[value.dtype.name]}Storage")
        entries[name] = tensor(stored, 0, numbers(*value.shape), numbers(*strides))
        storages[str(number)] = value.tobytes()
    return write(mapping(**entries) + more, storages)


def from_writer(write: Callable[[Path, Tensors], Path]) -> Callable[[Tensors, Path], bytes]:
    return lambda tensors, folder: write(folder / "whole", tensors).read_bytes()


FORMATS: dict[str, Callable[[Tensors, Path], bytes]] = {
    "pth": lambda tensors, folder: pth(published.torchvision(tensors)),
    "old.pth": lambda tensors, folder: pth(tensors, legacy),
    "safetensors": lambda tensors, folder: save({k: np.ascontiguousarray(v) for k, v in tensors.items()}),
    "caffemodel": from_writer(save_caffe),
    "h5": from_writer(save_keras),
}
CUTS = (0, 1, 7, 300, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, -1)
"""Number of bytes that remain, or their fraction; -1 removes the last byte."""


def transpose(key: str) -> Change:
    """Return a function that reorders the axes of one tensor."""
    return lambda tensors: tensors | {key: np.ascontiguousarray(np.moveaxis(tensors[key], 0, -1))}


def halve(key: str) -> Change:
    return lambda tensors: tensors | {key: tensors[key][: len(tensors[key]) // 2]}


def flatten(key: str) -> Change:
    return lambda tensors: tensors | {key: tensors[key].reshape(-1)}


def remove(key: str) -> Change:
    return lambda tensors: {k: v for k, v in tensors.items() if k != key}


def fill(key: str, value: float) -> Change:
    return lambda tensors: tensors | {key: np.full_like(tensors[key], value)}


CHANGES: dict[str, Change] = {
    "axes in another order": transpose("vgg.5.weight"),
    "half a predictor": halve("conf.3.weight"),
    "half a bias": halve("vgg.0.bias"),
    "half a scale": halve("L2Norm.weight"),
    "flat": flatten("extras.3.weight"),
    "a layer missing": remove("vgg.31.weight"),
    "a bias missing": remove("loc.5.bias"),
    "NaN": fill("vgg.12.weight", np.nan),
    "infinity": fill("conf.0.bias", np.inf),
}
TYPES = {name: np.dtype(name) for name in ("int64", "uint8", "int32")}
HOSTILE = [
    name for name, (_, words) in ATTACKS.items() if "'os.system'" in words or "eval" in words or "getattr" in words
]


def external_link(folder: Path, tensors: Tensors) -> bytes:
    """Move a kernel to another file."""
    file = save_keras(folder / "whole", tensors)
    with h5py.File(folder / "other", "w") as other:
        other["k"] = np.zeros((3, 3, 3, 8), np.float32)
    with h5py.File(file, "r+") as root:
        name = root["conv1_1"].attrs["weight_names"][0].decode()
        del root["conv1_1"][name]
        root["conv1_1"][name] = h5py.ExternalLink(str(folder / "other"), "k")
    return file.read_bytes()


def huge_dataset(folder: Path, tensors: Tensors) -> bytes:
    """Declare a terabyte that is not written."""
    file = save_keras(folder / "whole", tensors)
    with h5py.File(file, "r+") as root:
        name = root["fc7"].attrs["weight_names"][0].decode()
        del root["fc7"][name]
        root["fc7"].create_dataset(name, (1, 1, 1 << 20, 1 << 18), "f4", chunks=(1, 1, 1024, 1024))
    return file.read_bytes()


def wrong_header(folder: Path, tensors: Tensors) -> bytes:
    header = json.dumps({"vgg.0.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    return struct.pack("<Q", len(header)) + header


def wrong_length(folder: Path, tensors: Tensors) -> bytes:
    return b"\xa2\x06" + b"\xff" * 9 + b"\x01" + b"\x0a\x02ab"


def cases() -> Iterator[tuple[str, str]]:
    for kind in FORMATS:
        yield from ((kind, f"cut {cut}") for cut in CUTS)
        yield from ((kind, f"change {name}") for name in CHANGES)
    for kind in ("pth", "old.pth", "safetensors"):
        yield from ((kind, f"type {name}") for name in TYPES if not (kind == "old.pth" and name in ("int64", "uint8")))
    yield from (("pth", f"hostile {name}") for name in HOSTILE)
    yield from (("old.pth", f"hostile {name}") for name in HOSTILE)
    yield from (("h5", name) for name in ("external_link", "huge_dataset"))
    yield ("safetensors", "wrong_header")
    yield ("caffemodel", "wrong_length")


CASES = list(cases())


def test_there_are_a_hundred_cases():
    assert len(CASES) >= 100 and len(set(CASES)) == len(CASES)
    assert len(HOSTILE) >= 5


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return published.random_ssd_pytorch(6, 4, 0.125)


@pytest.fixture(scope="module")
def valid_files(tensors, tmp_path_factory) -> dict[str, bytes]:
    return {kind: write(tensors, tmp_path_factory.mktemp("whole")) for kind, write in FORMATS.items()}


NAMES = ("--class-names", "RBC", "WBC", "Platelets")


@pytest.mark.parametrize("kind", FORMATS)
def test_valid_files_are_imported(kind, valid_files, tmp_path):
    (tmp_path / "file").write_bytes(valid_files[kind])
    assert command("import-weights", tmp_path / "file", "--out", tmp_path / "run", *NAMES) == 0


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_invalid_files_are_refused(kind, case, tensors, valid_files, tmp_path, capsys):
    marker = tmp_path / "marker"
    kind_of_fault, _, which = case.partition(" ")
    if kind_of_fault == "cut":
        cut = float(which)
        size = len(valid_files[kind])
        data = valid_files[kind][: int(cut * size) if 0 < cut < 1 else int(cut) if cut >= 0 else size - 1]
    elif kind_of_fault == "change":
        data = FORMATS[kind](CHANGES[which](tensors), tmp_path)
    elif kind_of_fault == "type":
        data = FORMATS[kind](tensors | {"vgg.7.weight": tensors["vgg.7.weight"].astype(TYPES[which])}, tmp_path)
    elif kind_of_fault == "hostile":
        attack = with_marker(which, marker)
        write = zipped if kind == "pth" else legacy
        data = write(mapping(weights=attack), {"0": np.ones(6, np.float32).tobytes()})
    else:
        data = {f.__name__: f for f in (external_link, huge_dataset, wrong_header, wrong_length)}[kind_of_fault](
            tmp_path, tensors
        )
    file = tmp_path / f"file.{kind}"
    file.write_bytes(data)
    assert command("import-weights", file, "--out", tmp_path / "run", *NAMES) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(file) in error and "Traceback" not in error
    assert not (tmp_path / "run").exists() and not marker.exists()
