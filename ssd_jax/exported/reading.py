"""Recognize exported files, and open them with the reader of their format."""

import importlib
import zipfile
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from ssd_jax.errors import UserError
from ssd_jax.exported.metadata import Metadata, drop_comparisons
from ssd_jax.exported.program import Program
from ssd_jax.files import convert_read_errors


@runtime_checkable
class Reader(Protocol):
    """Functions that the reading module of a format has."""

    def read_program(self, file: Path, *, is_checked: bool = True) -> Program:
        """Read a file, after a comparison with its checksum if ``is_checked``."""

    def replace_metadata(self, file: Path, metadata: Metadata) -> None:
        """Replace the metadata of a file, and its checksum."""


class FileFormat(NamedTuple):
    """A format of exported files."""

    ending: str
    """Ending of the names of its files."""
    title: str
    """Name of the format for readers."""
    module: str
    """Module with the functions of `Reader`. It may need the packages of an extra."""
    uses_jax: bool = False
    """Whether JAX runs the files."""
    other_endings: tuple[str, ...] = ()
    """Endings of further files, which have the same name and lie beside it."""


FORMATS = {
    "stablehlo": FileFormat(".stablehlo", "StableHLO", "ssd_jax.exported.stablehlo_file", uses_jax=True),
    "onnx": FileFormat(".onnx", "ONNX", "ssd_jax.exported.onnx_file"),
    "openvino": FileFormat(".xml", "OpenVINO", "ssd_jax.exported.openvino_file", other_endings=(".bin",)),
    "tflite": FileFormat(".tflite", "TFLite", "ssd_jax.exported.tflite_file"),
}
"""Formats by the names of ``ssd-jax export --format``."""
_STABLEHLO_MEMBERS = {"metadata.json", "program.bin"}
_ONNX_PRODUCER = b"\x12\x07ssd-jax"
"""Second field of the ONNX files that `ssd_jax.export` writes, in protobuf: the name of their producer."""


def find_format(file: Path) -> str | None:
    """Return the format of an exported file, or None if it is none. The content counts, then the ending.

    Raises:
        UserError: If the file cannot be read.
    """
    if not file.is_file():
        return None
    with convert_read_errors(file), file.open("rb") as stream:
        start = stream.read(16)
    if start[4:8] == b"TFL3":
        return "tflite"
    if start[2:].startswith(_ONNX_PRODUCER):
        return "onnx"
    if start[:4] == b"PK\x03\x04" and _is_stablehlo(file):
        return "stablehlo"
    return next((name for name, entry in FORMATS.items() if entry.ending == file.suffix.lower()), None)


def check_is_first_file(file: Path) -> None:
    """Check that a file is not a further file of an exported one, such as the weights of OpenVINO.

    Raises:
        UserError: If it is. The message names the file to use.
    """
    for entry in FORMATS.values():
        first = file.with_suffix(entry.ending)
        if file.suffix.lower() in entry.other_endings and first.is_file() and find_format(file) is None:
            raise UserError(f"{file}: contains only the weights of an exported file. Name {first}")


def uses_jax(file: Path) -> bool:
    """Return whether JAX detects objects with what a path names, as with everything except files of other runtimes."""
    name = find_format(file)
    return name is None or FORMATS[name].uses_jax


def read_program(file: Path) -> Program:
    """Read an exported file.

    Raises:
        UserError: If the file is damaged, if it was written by another version, or if a package that its format needs
            is not installed.
    """
    return _find_reader(file).read_program(file)


def accept_changes(file: Path) -> Metadata:
    """Give an exported file that another program changed a new checksum, and return its metadata.

    The comparisons with the original are removed from the metadata, because they were made before the change.

    Raises:
        UserError: If the file cannot be read or written, or a package that its format needs is not installed.
    """
    reader = _find_reader(file)
    metadata = drop_comparisons(reader.read_program(file, is_checked=False).metadata)
    reader.replace_metadata(file, metadata)
    return metadata


def measure_size(file: Path) -> int:
    """Return the size of an exported file in bytes, together with the further files of its format.

    Raises:
        UserError: If a file cannot be read.
    """
    name = find_format(file)
    endings = FORMATS[name].other_endings if name else ()
    with convert_read_errors(file):
        return sum(part.stat().st_size for part in (file, *(file.with_suffix(ending) for ending in endings)))


def import_reader(format_name: str) -> Reader:
    """Return the module that reads a format.

    Raises:
        UserError: If a package that it needs is not installed.
    """
    return importlib.import_module(FORMATS[format_name].module)


def _find_reader(file: Path) -> Reader:
    name = find_format(file)
    if name is None:
        endings = ", ".join(entry.ending for entry in FORMATS.values())
        raise UserError(f"{file}: not an exported file ({endings}). `ssd-jax export` writes them")
    return import_reader(name)


def _is_stablehlo(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return set(archive.namelist()) >= _STABLEHLO_MEMBERS
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
