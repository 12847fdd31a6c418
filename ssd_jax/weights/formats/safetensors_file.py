"""Read and write safetensors files."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from ssd_jax.files import convert_write_errors
from ssd_jax.weights.formats.reading import check_file, convert_parse_errors, strip_prefixes, to_native_array


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Read a ``.safetensors`` file and return its tensors.

    Returns:
        C-contiguous arrays by name; floats are converted to float32. Prefixes of wrappers such as DataParallel are
        removed from the names.

    Raises:
        UserError: If the file is missing or corrupt, or has another format.
    """
    check_file(file)
    with convert_parse_errors(file):
        tensors = safetensors.numpy.load_file(file)
        return strip_prefixes({name: to_native_array(array) for name, array in tensors.items()})


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata in the header of a ``.safetensors`` file.

    Raises:
        UserError: If the file is missing or corrupt, or has another format.
    """
    check_file(file)
    with convert_parse_errors(file), safetensors.safe_open(file, "numpy") as opened:
        return opened.metadata() or {}


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays to a ``.safetensors`` file. The file appears only when it is complete.

    The arrays may have any dtype that safetensors supports, and any memory order. The metadata are stored in the
    header.

    Raises:
        UserError: If the file cannot be written.
    """
    # safetensors writes the memory of an array as it is, so a transposed view would be read back as another array.
    data = safetensors.numpy.save(
        {name: np.asarray(array, order="C") for name, array in tensors.items()}, dict(metadata) if metadata else None
    )
    temporary = file.with_name(file.name + ".tmp")
    with convert_write_errors(file):
        temporary.write_bytes(data)
        os.replace(temporary, file)
