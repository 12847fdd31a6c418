"""Read and write model folders, which hold a trained network for inference.

A model folder has three files: ``config.json`` has the config with the class names, as in a run folder;
``model.safetensors`` has the parameters for inference, float16 or float32, with paths such as ``vgg/conv1_1/kernel`` as
keys; ``README.md`` is the card of the model, a text for readers.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

import ssd_jax
from ssd_jax.config import Config, Data
from ssd_jax.data.formats.open import is_generated, is_tfds
from ssd_jax.errors import UserError
from ssd_jax.files import convert_write_errors, write_text
from ssd_jax.models.parameters import Params, Shape, compute_parameter_shapes, nest_parameters
from ssd_jax.runs import run_folder
from ssd_jax.weights.formats.safetensors_file import read_metadata, read_safetensors, write_safetensors

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
FILE_NAMES = ("config.json", WEIGHTS_NAME, CARD_NAME)
"""Names of the files of a model folder."""
PICTURE_NAME = "detections.jpg"
"""Name of a picture with detections, which the card of a model folder may show."""

Dtype = Literal["float16", "float32"]
"""Types in which parameters can be stored."""


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder has a file with the parameters of a model."""
    return (folder / WEIGHTS_NAME).is_file()


def write_model_folder(
    config: Config, params: Params, step: int, folder: Path, *, card: str, dtype: Dtype = "float16"
) -> None:
    """Write a trained network to a model folder.

    Paths of this machine, such as ``data.root``, are left out of the config, so that the folder can be published.

    Args:
        config: Config of the network, with class names.
        params: Parameters for inference, as `Detector.params` has them.
        step: Training step of the parameters.
        folder: Folder to write: a new or empty one, or a model folder, whose files are replaced.
        card: Text of README.md.
        dtype: Type of the stored parameters. float16 halves the size and keeps 11 significant bits of each number.

    Raises:
        UserError: If the folder has other files or cannot be written, or if a parameter is too large for float16.
    """
    _check_can_write(folder)
    from flax.traverse_util import flatten_dict  # imported here, because reading a model folder does not need Flax

    tensors = {path: _convert(path, value, dtype) for path, value in flatten_dict(params, sep="/").items()}
    with convert_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # config.json is written last, so that an incomplete folder is not taken for a model.
    write_safetensors(folder / WEIGHTS_NAME, tensors, {"step": str(step), "writer": f"ssd-jax {ssd_jax.__version__}"})
    write_text(folder / CARD_NAME, card)
    run_folder.write_config(folder, remove_local_paths(config))


def read_model_folder(folder: Path) -> tuple[Config, Params, int]:
    """Read a model folder.

    Returns:
        The config, the parameters as float32 arrays, and their training step.

    Raises:
        UserError: If a file is missing or corrupt, or if the parameters do not fit the config or are not finite.
    """
    config = run_folder.read_config(folder)
    return config, *read_params(folder, config)


def read_params(folder: Path, config: Config) -> tuple[Params, int]:
    """Return the parameters of a model folder as float32 arrays, and their training step.

    Args:
        folder: The model folder.
        config: Config of the folder.

    Raises:
        UserError: If the file is corrupt, or if the parameters do not fit the config or are not finite.
    """
    file = folder / WEIGHTS_NAME
    tensors = read_safetensors(file)
    problem = _find_problem(tensors, compute_parameter_shapes(config.model))
    if problem:
        raise UserError(f"{file}: {problem}. Copy or download the folder again")
    step = read_metadata(file).get("step", "")
    return nest_parameters(tensors), int(step) if re.fullmatch(r"[0-9]{1,15}", step) else 0


def remove_local_paths(config: Config) -> Config:
    """Return a config without the paths of this machine: those of the data, and the folder of pretrained weights."""
    data: Data = dataclasses.replace(config.data, tfds_dir="")
    if not is_generated(data) and not is_tfds(data):
        data = dataclasses.replace(data, root="")
    train = dataclasses.replace(config.train, pretrained=Path(config.train.pretrained).name)
    return dataclasses.replace(config, data=data, train=train)


def _check_can_write(folder: Path) -> None:
    with convert_write_errors(folder, "Name another folder."):
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    others = sorted(names - {*FILE_NAMES, PICTURE_NAME})
    if others or (names and not is_model_folder(folder)):
        raise UserError(f"{folder}: the folder has other files ({(others or sorted(names))[0]}). Name another folder")


def _convert(path: str, value: Any, dtype: Dtype) -> np.ndarray:
    array = np.asarray(value, np.float32)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.isfinite(converted).all():
        if np.isfinite(array).all():
            raise UserError(f"{path} has numbers that are too large for float16. Use float32")
        raise UserError(f"{path} has numbers that are NaN or infinite. Nothing was written")
    return converted


def _find_problem(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> str:
    """Return in one line how the tensors of a file differ from the expected ones, or an empty string."""
    problems = [f"{path} is missing" for path in shapes if path not in tensors]
    for path, value in tensors.items():
        if path not in shapes:
            problems.append(f"{path} does not belong to the network")
        elif value.shape != shapes[path]:
            problems.append(f"{path} has the shape {value.shape}, but {shapes[path]} is expected")
        elif value.dtype != np.float32:  # read_safetensors converts all floats to float32
            problems.append(f"{path} has the type {value.dtype}, not float")
        elif not np.isfinite(value).all():
            problems.append(f"{path} has numbers that are NaN or infinite")
    if not problems:
        return ""
    more = f", and {len(problems) - 1} more problems" if len(problems) > 1 else ""
    return f"does not fit config.json: {problems[0]}{more}"
