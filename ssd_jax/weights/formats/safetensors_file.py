"""Read and write tensors as safetensors."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from ssd_jax.files import user_errors_on_write
from ssd_jax.weights.formats.reading import check_file, strip_prefixes, to_native_array, user_errors_on_parse


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a ``.safetensors`` file.

    Returns:
        Arrays by name, in C order, floats as float32. Prefixes of wrappers are removed from the names.

    Raises:
        UserError: If the file is missing, corrupt or of another format.
    """
    check_file(file)
    with user_errors_on_parse(file):
        tensors = safetensors.numpy.load_file(file)
        return strip_prefixes({name: to_native_array(array) for name, array in tensors.items()})


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any dtype and memory order by name, atomically. Raises UserError if writing fails."""
    # safetensors writes the memory as it is, so that a transposed view would be read back as another array.
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in tensors.items()})
    temporary = file.with_name(file.name + ".tmp")
    with user_errors_on_write(file):
        temporary.write_bytes(data)
        os.replace(temporary, file)
