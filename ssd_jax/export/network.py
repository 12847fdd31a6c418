"""Options of an export, and the trained network as the writers of all formats get it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.export.pictures import Picture
from ssd_jax.models.parameters import Params, nest_parameters, standardize_kernels


@dataclass(frozen=True)
class ExportOptions:
    """Options of the content of an exported file."""

    nms: bool = True
    """Whether the program returns detections. If not, it returns the boxes and scores of all default boxes."""
    batch: int | None = None
    """Number of images of each call. None for any number."""
    score_threshold: float | None = None
    """Boxes with a score of at most this value are not detections. None: as in the config."""
    max_detections: int | None = None
    """Maximum number of detections per image. None: as in the config."""
    half: bool = False
    """Whether the weights are stored as float16."""
    int8: bool = False
    """Whether the network computes with integers of 8 bits, as far as the format can."""
    runtime: Path | None = None
    """npm package onnxruntime-web for a web page. None: it is downloaded unless it is in the cache."""


@dataclass(frozen=True)
class Network:
    """A trained network to be written to a file."""

    config: Config
    """Config with the thresholds and limits of the file in ``detect``."""
    params: Params
    """Parameters, float32, with kernels that are standardized already (`standardize_kernels`), so that a writer only
    convolves with them. With ``options.half`` they are rounded to float16."""
    step: int
    """Training step of the parameters."""
    options: ExportOptions
    calibration: Sequence[Picture] = ()
    """Pictures on which the ranges of the activations are estimated for int8."""


def make_network(
    config: Config, params: Params, step: int, options: ExportOptions, calibration: Sequence[Picture] = ()
) -> Network:
    """Return a network for the writers.

    Args:
        config: Config of the trained network.
        params: Parameters of the trained network.
        step: Training step of the parameters.
        options: Options of the file.
        calibration: Pictures on which the ranges of the activations are estimated for int8.

    Raises:
        UserError: If an option is out of range, or if a parameter is not finite or too large for float16.
    """
    config = apply_options(config, options)
    weights = flatten_params(standardize_kernels(params, config.model), half=options.half)
    for path, value in weights.items():
        if not np.isfinite(value).all():
            limit = " after it is rounded to float16. Export it without --half" if options.half else ""
            raise UserError(f"{path} has numbers that are NaN or infinite{limit}")
    return Network(config, nest_parameters(weights), step, options, calibration)


def apply_options(config: Config, options: ExportOptions) -> Config:
    """Return a config with the thresholds and limits of an export.

    Raises:
        UserError: If an option is out of range.
    """
    if options.batch is not None and options.batch < 1:
        raise UserError(f"--batch is {options.batch}: expected at least 1")
    changes: dict[str, Any] = {}
    if options.score_threshold is not None:
        if not 0 <= options.score_threshold <= 1:
            raise UserError(f"--score-threshold is {options.score_threshold}: expected a number from 0 to 1")
        changes["score_threshold"] = options.score_threshold
    if options.max_detections is not None:
        if not 1 <= options.max_detections <= 10_000:
            raise UserError(f"--max-detections is {options.max_detections}: expected a number from 1 to 10000")
        changes["max_detections"] = options.max_detections
    return dataclasses.replace(config, detect=dataclasses.replace(config.detect, **changes))


def flatten_params(params: Params, *, half: bool = False) -> dict[str, np.ndarray]:
    """Return the parameters as float32 numpy arrays by their paths, such as ``vgg/conv1_1/kernel``.

    Args:
        params: Nested parameters.
        half: Whether to round them to float16.
    """
    flat: dict[str, np.ndarray] = {}

    def visit(tree: Mapping[str, object], prefix: str) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                visit(value, f"{prefix}{name}/")
            else:
                flat[prefix + name] = np.asarray(value, np.float32)

    visit(params, "")
    if half:
        with np.errstate(over="ignore"):
            flat = {path: value.astype(np.float16).astype(np.float32) for path, value in flat.items()}
    return flat
