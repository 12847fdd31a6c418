"""Read and write StableHLO files, and run their programs by JAX.

A file is a zip archive whose members are stored without compression, so that ``numpy.load`` opens it:

* ``metadata.json``: the metadata,
* ``program.bin``: a function ``program(weights, images, sizes)``, serialized by ``jax.export``,
* ``weights/vgg/conv1_1/kernel.npy`` and so on: the weights, each under its path.

The weights are beside the program, not constants in it, so that the programs that are compiled for several sizes of
images share one copy of them, and are compiled in less time.
"""

import io
import os
import re
import threading
import zipfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from jaxtyping import Int32

from ssd_jax.errors import UserError, convert_errors, format_error_reason
from ssd_jax.exported.checksum import check_content, insert_checksum
from ssd_jax.exported.metadata import Metadata, decode_metadata, encode_metadata
from ssd_jax.exported.program import Images, Outputs, Program, RawOutputs, run_in_batches
from ssd_jax.files import append_to_file_name, convert_write_errors
from ssd_jax.runtime import compilation

METADATA, PROGRAM, WEIGHTS = "metadata.json", "program.bin", "weights/"
"""Names of the members, and the start of the names of the weights."""
_DAMAGED = "the file is damaged"
_DAMAGED_ADVICE = "Copy or export it again"


class StableHLOProgram(Program):
    """The program of a StableHLO file, which runs on the first device of this process.

    It is compiled for each shape of the images, and kept in the cache of compiled programs. So images of several sizes
    should be placed on canvases of one size, and be given to `run_padded`.
    """

    is_compiled_for_shapes = True

    def __init__(
        self, file: Path, metadata: Metadata, exported: jax.export.Exported, weights: Mapping[str, np.ndarray]
    ) -> None:
        self.file, self.metadata = file, metadata
        self._exported, self.weights = exported, dict(weights)
        self._compiled: dict[tuple[int, ...], Callable[..., Any]] = {}
        self._lock = threading.Lock()

    def run(self, images: Images) -> Outputs | RawOutputs:
        return self._call(images, np.tile(np.array(images.shape[1:3], np.int32), (len(images), 1)))

    def run_padded(
        self, canvas: Images, height: Int32[np.ndarray, " b"], width: Int32[np.ndarray, " b"]
    ) -> Outputs | RawOutputs:
        sizes = np.stack([height, width], axis=1).astype(np.int32)
        return run_in_batches(self._call, self.metadata.batch, canvas, sizes)

    @cached_property
    def _placed_weights(self) -> Mapping[str, jax.Array]:
        return jax.device_put(self.weights, jax.local_devices()[0])

    def _call(self, images: Images, sizes: Int32[np.ndarray, "b 2"]) -> Outputs | RawOutputs:
        with self._lock:  # so that each program is compiled once, although several threads detect
            if images.shape not in self._compiled:
                self._compiled[images.shape] = self._compile(images, sizes)
        outputs = jax.device_get(self._compiled[images.shape](self._placed_weights, images, sizes))
        return (Outputs if self.metadata.nms else RawOutputs)(*map(np.asarray, outputs))

    def _compile(self, images: Images, sizes: Int32[np.ndarray, "b 2"]) -> Callable[..., Any]:
        check_platform(self.file, self._exported.platforms)
        with compilation.compilation_cache(min_seconds=0.0):
            program = jax.jit(self._exported.call, compiler_options=compilation.compiler_options())
            with _convert_version_errors(self.file, self.metadata):
                lowered = program.lower(self.weights, images, sizes)
            return lowered.compile()


def read_program(file: Path, *, is_checked: bool = True) -> StableHLOProgram:
    """Read a StableHLO file.

    Args:
        file: The file.
        is_checked: Whether to compare the content with its checksum.

    Raises:
        UserError: If the file is damaged, was changed, or was written by another version.
    """
    members = _read_members(file)
    metadata = decode_metadata(members[METADATA], file)
    if is_checked:
        check_content(file, *_list_parts(members))
    with _convert_version_errors(file, metadata):
        exported = jax.export.deserialize(bytearray(members[PROGRAM]))
        _check_stablehlo_version(exported.mlir_module_serialized)
    with convert_errors(f"{file}: {_DAMAGED}", _DAMAGED_ADVICE):
        weights = {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            for name, data in members.items()
            if name.startswith(WEIGHTS)
        }
        (expected, *_), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        found = {name: (array.shape, array.dtype) for name, array in weights.items()}
        if found != {name: (aval.shape, aval.dtype) for name, aval in expected.items()}:
            raise UserError(f"{file}: {_DAMAGED} (the weights do not fit the program). {_DAMAGED_ADVICE}")
    return StableHLOProgram(file, metadata, exported, weights)


def write_file(file: Path, metadata: Metadata, program: bytes, weights: Mapping[str, np.ndarray]) -> None:
    """Write a StableHLO file. The same content gives the same bytes.

    Args:
        file: File to write.
        metadata: Metadata of the file.
        program: The serialized function.
        weights: Weights by the names of their members without ``.npy``.

    Raises:
        UserError: If the file cannot be written.
    """
    members = {METADATA: encode_metadata(metadata).encode(), PROGRAM: bytes(program)}
    for name, array in weights.items():
        content = io.BytesIO()
        np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
        members[f"{name}.npy"] = content.getvalue()
    _write_members(file, members)


def replace_metadata(file: Path, metadata: Metadata) -> None:
    """Replace the metadata of a StableHLO file.

    Raises:
        UserError: If the file cannot be read or written.
    """
    _write_members(file, _read_members(file) | {METADATA: encode_metadata(metadata).encode()})


def check_platform(file: Path, platforms: tuple[str, ...]) -> None:
    """Raise a UserError if a program was not made for the platform of the first device."""
    device = jax.local_devices()[0]
    names = {"gpu": ("cuda", "rocm")}.get(device.platform, (device.platform,))
    if not set(names) & set(platforms):
        raise UserError(f"{file}: the program is for {', '.join(platforms)}, not for {device.platform}")


def _check_stablehlo_version(program: bytes) -> None:
    """Raise an error if a program has a newer version of StableHLO than this JAX.

    JAX finds this out only when it compiles the program, and its compiler then prints several lines.
    """
    from jaxlib.mlir.dialects import stablehlo

    version = re.search(rb"StableHLO_v([0-9.]+)", program[:100])  # MLIR's bytecode begins with it
    own = stablehlo.get_current_version()
    if version is not None and _parse_version(version[1].decode()) > _parse_version(own):
        raise ValueError(f"StableHLO {version[1].decode()} is newer than {own}")


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(".") if number)


def _read_members(file: Path) -> dict[str, bytes]:
    """Return the content of all members. The archive has a checksum of each."""
    with convert_errors(f"{file}: {_DAMAGED}", _DAMAGED_ADVICE), zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise UserError(f"{file}: {_DAMAGED} (members are compressed). {_DAMAGED_ADVICE}")
        members = {name: archive.read(name) for name in archive.namelist()}
        for name in (METADATA, PROGRAM):
            if name not in members:
                raise UserError(f"{file}: {_DAMAGED} ({name} is missing). {_DAMAGED_ADVICE}")
        return members


def _list_parts(members: Mapping[str, bytes]) -> list[bytes]:
    """Return the metadata, and the names and the content of all other members."""
    others = [part for name, data in sorted(members.items()) if name != METADATA for part in (name.encode(), data)]
    return [members[METADATA], *others]


def _write_members(file: Path, members: Mapping[str, bytes]) -> None:
    members = {**members, METADATA: insert_checksum(*_list_parts(members))}
    temporary = file.with_name(append_to_file_name(file.name, ".tmp"))
    with convert_write_errors(file):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        os.replace(temporary, file)


def _convert_version_errors(file: Path, metadata: Metadata) -> Any:
    """Return a context manager that converts an error of JAX about the program into one that names both versions."""
    if metadata.jax_version == jax.__version__:
        return convert_errors(f"{file}: {_DAMAGED}", _DAMAGED_ADVICE)
    problem = f"{file}: it was written by jax {metadata.jax_version}, and jax {jax.__version__} cannot read it"
    advice = f"Install jax {metadata.jax_version}, or export the file again with jax {jax.__version__}"
    return convert_errors(problem, advice, reason=lambda error: format_error_reason(error)[:100])
