"""Checks and conversions that the readers of weight files share."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import ml_dtypes
import numpy as np

from ssd_jax.errors import UserError, convert_errors, format_error_reason
from ssd_jax.files import convert_read_errors

T = TypeVar("T")

MAX_EXPANSION = 8
"""Maximum ratio of the total size of all arrays to the size of the file.

The arrays can be larger than the file, because float16 becomes float32, tensors may share a storage, and the data may
be compressed.
"""

_FLOATS = [np.dtype(name) for name in ("f2", "f4", "f8", ml_dtypes.bfloat16)]


def check_file(file: Path) -> None:
    """Raise UserError if the file does not exist or is not a regular file."""
    if not file.exists():
        raise UserError(f"{file}: no such file. Put the weights there, or correct the path.")
    if not file.is_file():  # reading a device or a pipe might never end
        raise UserError(f"{file}: is a folder or a device, not a file. Name the weight file itself.")


@contextmanager
def convert_parse_errors(file: Path) -> Iterator[None]:
    """Convert any exception in the ``with`` block, which parses ``file``, into a UserError that names the file.

    A corrupt file can make protobuf, pyfive, zipfile and numpy raise almost anything.
    """
    with (
        convert_read_errors(file, "Check its permissions."),
        convert_errors(
            f"{file}: is corrupt, or not a weight file", "Copy or download it again.", reason=_describe_parse_error
        ),
        # pyfive warns about attributes that are not used here. numpy warns about values that are infinite as float32;
        # `importing` refuses such values.
        warnings.catch_warnings(action="ignore"),
    ):
        yield


def _describe_parse_error(error: Exception) -> str | None:
    """Return the reason for a parsing error in ASCII, or None for an OSError, which is not a parsing error."""
    return None if isinstance(error, OSError) else ascii(format_error_reason(error)[:200])


def check_printable(names: Iterable[str]) -> None:
    """Raise ValueError if a tensor name contains characters that cannot be printed."""
    if not all(name.isprintable() for name in names):
        raise ValueError("tensor names contain unprintable characters")


def strip_prefixes(tensors: dict[str, T]) -> dict[str, T]:
    """Return the tensors with the name prefixes ``model.`` and ``module.`` removed, each only if all names have it.

    These prefixes are added by DataParallel and by modules that contain the network for training.
    """
    for prefix in ("model.", "module."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def to_native_array(array: np.ndarray) -> np.ndarray:
    """Return a copy of an array in C order and native byte order, with floats converted to float32."""
    dtype = np.float32 if array.dtype.newbyteorder("=") in _FLOATS else array.dtype.newbyteorder("=")
    return np.array(array, dtype, order="C")
