"""StableHLO files of the network of `helpers.tiny_detector`, which are written in less than a second."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from helpers.tiny_detector import CONFIG, make_random_params
from ssd_jax.config import Detect
from ssd_jax.export import stablehlo_writer
from ssd_jax.export.network import ExportOptions, make_network
from ssd_jax.exported.metadata import Source, make_metadata


def write_tiny_file(file: Path, detect: Detect = Detect(), **options: Any) -> Path:
    """Write a file of the tiny network, without a comparison, and return its path.

    Args:
        file: File to write.
        detect: Thresholds and limits.
        options: Fields of ExportOptions.
    """
    config = dataclasses.replace(CONFIG, detect=detect)
    network = make_network(config, make_random_params(), 7, ExportOptions(**options))
    metadata = make_metadata(
        "stablehlo", network.config, Source(name="tiny", step=7), nms=network.options.nms, batch=network.options.batch,
        weights="float16" if network.options.half else "float32", jax_version=jax.__version__,
    )  # fmt: skip
    stablehlo_writer.write(network, metadata, file)
    return file


def make_images(*shape: int) -> np.ndarray:
    """Return random images of a shape such as (b, h, w)."""
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
