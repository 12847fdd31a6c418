"""Read and run OpenVINO files, of the extra ``openvino``: a pair of .xml, the graph, and .bin, the weights.

JAX is not imported.
"""

import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from ssd_jax.errors import UserError, convert_errors
from ssd_jax.exported.checksum import check_content, insert_checksum
from ssd_jax.exported.metadata import METADATA_KEY, Metadata, decode_metadata, encode_metadata
from ssd_jax.exported.program import Images, Outputs, Program, RawOutputs
from ssd_jax.files import convert_read_errors, convert_write_errors, write_bytes
from ssd_jax.optional_packages import import_package


class OpenVINOProgram(Program):
    """A program that OpenVINO runs on the CPU."""

    def __init__(self, compiled: Any, metadata: Metadata) -> None:
        """Create a program from an ``openvino.CompiledModel``."""
        self.metadata = metadata
        self._compiled = compiled
        self._lock = threading.Lock()

    def run(self, images: Images) -> Outputs | RawOutputs:
        kind = Outputs if self.metadata.nms else RawOutputs
        with self._lock:  # all calls share the memory of one request
            results = self._compiled({"images": images})  # copies the outputs, unless it is asked to share them
        return kind(*(results[self._compiled.output(name)] for name in kind._fields))


def import_openvino(name: str = "openvino") -> ModuleType:
    """Import OpenVINO, or another package of the extra, without its telemetry.

    Without this, it would send statistics about its use to Google, by a process that it starts. All of its modules
    accept that the package for this is missing.

    Raises:
        UserError: If the package cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_package(name, "openvino")


def read_program(file: Path, *, is_checked: bool = True) -> OpenVINOProgram:
    """Read an OpenVINO file that ``ssd-jax export`` wrote. The file of its weights must lie beside it.

    Args:
        file: The file.
        is_checked: Whether to compare the content of both files with its checksum.

    Raises:
        UserError: If a file is missing, damaged or changed, was not written by ``ssd-jax export``, or if OpenVINO is
            missing.
    """
    model = read_model(file, is_checked=is_checked)
    text = _find_metadata(model)
    if text is None:
        raise UserError(f"{file}: was not written by `ssd-jax export`, because it has no metadata named {METADATA_KEY}")
    metadata = decode_metadata(text, file)
    with convert_errors(f"{file}: OpenVINO can't compile it", "Export the file again."):
        return OpenVINOProgram(compile_model(model), metadata)


def read_model(file: Path, *, is_checked: bool = False) -> Any:
    """Return the ``openvino.Model`` of a file.

    Args:
        file: The file.
        is_checked: Whether to compare the content of both files with its checksum.

    Raises:
        UserError: If one of the two files cannot be read, or was changed, or if OpenVINO is missing.
    """
    openvino = import_openvino()
    parts = _read_parts(file)
    if is_checked:
        check_content(file, *parts)
    with convert_errors(f"{file}: OpenVINO can't read it", "Copy or export both files again.", reason=_find_reason):
        return openvino.Core().read_model(*parts)


def compile_model(model: Any) -> Any:
    """Return an ``openvino.CompiledModel`` for the CPU that computes in float32, whatever the CPU prefers."""
    openvino = import_openvino()
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def save_model(model: Any, file: Path, metadata: Metadata) -> None:
    """Write an ``openvino.Model`` with metadata to a file, and its weights beside it.

    Raises:
        UserError: If a file cannot be written.
    """
    openvino = import_openvino()
    model.set_rt_info(encode_metadata(metadata), [METADATA_KEY])
    with convert_write_errors(file), convert_errors(f"{file}: can't be written", catch=RuntimeError):
        openvino.save_model(model, file, compress_to_fp16=False)
    write_bytes(file, insert_checksum(*_read_parts(file)))


def replace_metadata(file: Path, metadata: Metadata) -> None:
    """Replace the metadata of an OpenVINO file.

    Raises:
        UserError: If the files cannot be read or written.
    """
    save_model(read_model(file), file, metadata)


def _read_parts(file: Path) -> tuple[bytes, bytes]:
    """Return the content of a file and of the file of its weights."""
    weights = file.with_suffix(".bin")
    if not weights.is_file():
        raise UserError(f"{file}: {weights.name}, the file of its weights, is not beside it. Copy both files")
    contents = []
    for part in (file, weights):
        with convert_read_errors(part):
            contents.append(part.read_bytes())
    return contents[0], contents[1]


def _find_reason(error: Exception) -> str:
    """Return the last line of an error. The lines before it name places in OpenVINO's code."""
    return str(error).strip().splitlines()[-1]


def _find_metadata(model: Any) -> str | None:
    try:
        return model.get_rt_info([METADATA_KEY]).astype(str)
    except RuntimeError:
        return None
