"""Read and run TFLite files by LiteRT, of the extra ``litert``, or by TensorFlow.

The program takes float32 images that are resized already, and returns the normalized boxes and the scores of all
default boxes. A zip archive with the file ``ssd_jax.json`` follows the program in the file, as TFLite's own metadata do
for their files. JAX is not imported until the detections are selected.
"""

import io
import os
import threading
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32

from ssd_jax.errors import UserError, convert_errors
from ssd_jax.exported.checksum import check_content, insert_checksum
from ssd_jax.exported.metadata import METADATA_KEY, Metadata, decode_metadata, encode_metadata
from ssd_jax.exported.program import Images, Program, RawOutputs
from ssd_jax.files import convert_read_errors, write_bytes
from ssd_jax.optional_packages import import_package
from ssd_jax.runtime.quiet_stderr import suppress_stderr

MEMBER = f"{METADATA_KEY}.json"
"""Name of the metadata in the archive."""


class TFLiteProgram(Program):
    """A program that LiteRT or TensorFlow runs on the CPU."""

    def __init__(self, interpreter: Any, metadata: Metadata) -> None:
        """Create a program from an ``Interpreter`` of LiteRT."""
        self.metadata = metadata
        self._run = interpreter.get_signature_runner()
        self._lock = threading.Lock()

    def run(self, images: Images) -> RawOutputs:
        _, height, width, _ = images.shape
        resized = resize(images, self.metadata.image_size)
        with self._lock:  # all calls share the memory of one interpreter
            outputs = self._run(images=resized)
        return RawOutputs(outputs["boxes"] * np.array([width, height, width, height], np.float32), outputs["scores"])


def read_program(file: Path, *, is_checked: bool = True) -> TFLiteProgram:
    """Read a TFLite file that ``ssd-jax export`` wrote.

    Args:
        file: The file.
        is_checked: Whether to compare the content with its checksum.

    Raises:
        UserError: If the file is damaged, was changed, was not written by ``ssd-jax export``, or if neither LiteRT nor
            TensorFlow is installed.
    """
    content = _read_bytes(file)
    program_bytes, text = _split_archive(file, content)
    metadata = decode_metadata(text, file)
    if is_checked:
        check_content(file, text, program_bytes)
    with suppress_stderr():  # the notes of both packages about their start
        interpreter = _import_interpreter()
    with suppress_stderr(), convert_errors(f"{file}: it can't be read", "Copy or export the file again."):
        program = interpreter.Interpreter(model_content=content, num_threads=os.cpu_count())  # the default is one
        program.allocate_tensors()
        return TFLiteProgram(program, metadata)


def save_file(file: Path, program: bytes, metadata: Metadata) -> None:
    """Write a TFLite program with metadata.

    Raises:
        UserError: If the file cannot be written.
    """
    content = io.BytesIO(program)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER), insert_checksum(encode_metadata(metadata).encode(), program))
    write_bytes(file, content.getvalue())


def replace_metadata(file: Path, metadata: Metadata) -> None:
    """Replace the metadata of a TFLite file.

    Raises:
        UserError: If the file cannot be read or written.
    """
    save_file(file, _split_archive(file, _read_bytes(file))[0], metadata)


def resize(images: Images, size: int) -> Float32[np.ndarray, "b {size} {size} 3"]:
    """Resize images as `ssd_jax.ops.resample.resize` does, by numpy."""

    def find_neighbours(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scale = np.float32(length) / np.float32(size)
        position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
        position = position.clip(0, length - 1)
        low = np.floor(position)
        return low.astype(int), np.ceil(position).astype(int), position - low

    def blend(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return first + (second - first) * weight

    (top, bottom, down), (left, right, across) = (find_neighbours(length) for length in images.shape[1:3])
    upper, lower = (images[:, row].astype(np.float32) for row in (top, bottom))
    upper, lower = (blend(row[:, :, left], row[:, :, right], across[:, None]) for row in (upper, lower))
    return blend(upper, lower, down[:, None, None])


def _import_interpreter() -> ModuleType:
    try:
        return import_package("ai_edge_litert.interpreter", "litert")
    except UserError:
        try:
            return import_package("tensorflow", "prepare").lite
        except UserError:
            pass
        raise


def _read_bytes(file: Path) -> bytes:
    with convert_read_errors(file):
        return file.read_bytes()


def _split_archive(file: Path, content: bytes) -> tuple[bytes, bytes]:
    """Return the program and the metadata in the content of a file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            start = min(member.header_offset for member in archive.infolist())
            return content[:start], archive.read(MEMBER)
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError):
        raise UserError(
            f"{file}: {MEMBER}, the end of each file that `ssd-jax export` writes, is missing or damaged. Copy or "
            "export the file again"
        ) from None
