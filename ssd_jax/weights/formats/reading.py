"""What the readers of strangers' files share: whatever is wrong with one becomes a UserError that names it."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import ml_dtypes
import numpy as np

from ssd_jax.errors import UserError

T = TypeVar("T")

MOST_GROWTH = 8
"""Of a file of n bytes the arrays take at most this times n. float16 doubles in size, tensors may share their storage,
zeros can be compressed."""

_FLOATS = [np.dtype(name) for name in ("f2", "f4", "f8", ml_dtypes.bfloat16)]


def check_file(file: Path) -> None:
    """Raises UserError if there is no such file, or no ordinary one."""
    if not file.exists():
        raise UserError(f"{file}: no such file. Put the weights there, or correct the path.")
    if not file.is_file():  # a device or a pipe may have no end
        raise UserError(f"{file}: no file, but a folder or device. Name the file of weights itself.")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Around all that reads a stranger's bytes: whatever that leads to becomes a UserError naming the file."""
    try:
        # pyfive's, of attributes that nobody asks for; numpy's, of what is infinite as float32, which is for those to
        # judge who know what it is for.
        with warnings.catch_warnings(action="ignore"):
            yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror or error}). Check its permissions.") from error
    except Exception as error:  # of protobuf, pyfive, zipfile, numpy: there is no end to what damage leads to
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{file}: damaged, or no file of weights ({reason!a}). Copy or download it again.") from error


def check_names(tensors: Iterable[str]) -> None:
    """Raises ValueError for names that can't be shown."""
    if not all(name.isprintable() for name in tensors):
        raise ValueError("names of weights that can't be printed")


def without_prefixes(tensors: dict[str, T]) -> dict[str, T]:
    """Without what wrappers put before every name: a training module that holds the network, and DataParallel."""
    for prefix in ("model.", "module."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def own(array: np.ndarray) -> np.ndarray:
    """A copy in C order and of this machine's byte order; floats as float32."""
    dtype = np.float32 if array.dtype.newbyteorder("=") in _FLOATS else array.dtype.newbyteorder("=")
    return np.array(array, dtype, order="C")
