"""Comparison of a file that computes with integers of 8 bits with the same file in float32: accuracy and time."""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from ssd_jax.config import Config
from ssd_jax.data.image import reduce_to_fit
from ssd_jax.data.run_splits import open_split
from ssd_jax.data.source import Annotation
from ssd_jax.errors import UserError
from ssd_jax.export.formats import Writer
from ssd_jax.export.network import Network
from ssd_jax.export.pictures import Picture, choose_positions
from ssd_jax.exported import reading
from ssd_jax.exported.metadata import Metadata, Quantization
from ssd_jax.exported.prediction import make_predict
from ssd_jax.exported.program import Program
from ssd_jax.inference.detections import ImageDetections, to_image_detections
from ssd_jax.metrics.average_precision import evaluate_voc

ANNOTATED_PICTURES = 200
"""Largest number of pictures of the val split from which the mAP is computed."""
TIMED_CALLS = 20
"""Number of calls of each program whose times are taken."""


def compare_with_float32(
    writer: Writer, network: Network, metadata: Metadata, file: Path, pictures: Sequence[Picture], calibration: str
) -> Quantization:
    """Compare a file that was written with ``int8`` with the same file in float32, which is written for this.

    Args:
        writer: Writer of the format.
        network: The network as the file was written from it.
        metadata: Metadata of the file.
        file: The file.
        pictures: Pictures for the measurement of time.
        calibration: Pictures on which the ranges of the activations were estimated, in words.
    """
    with tempfile.TemporaryDirectory(prefix="ssd_jax_") as folder:
        other = Path(folder) / file.name
        exact = dataclasses.replace(network, options=dataclasses.replace(network.options, int8=False))
        writer.write(exact, msgspec.structs.replace(metadata, weights="float32"), other)
        programs = [reading.read_program(path) for path in (other, file)]
        float32_time, int8_time = _measure_times(programs, pictures)
        annotated = _read_annotated_pictures(network.config)
        maps = [_compute_map(program, annotated, network.config) if annotated else None for program in programs]
        return Quantization(
            calibration=calibration,
            float32_milliseconds=float32_time,
            int8_milliseconds=int8_time,
            annotated_pictures=len(annotated),
            float32_map=maps[0],
            int8_map=maps[1],
        )


def format_quantization(result: Quantization) -> str:
    """Return a comparison in one line."""
    calls = (
        f"ranges of the activations from {result.calibration}; {result.float32_milliseconds:.1f} ms per call in "
        f"float32, {result.int8_milliseconds:.1f} ms in int8"
    )
    if result.float32_map is None or result.int8_map is None:
        return (
            f"{calls}; the mAP was not measured, because the val split cannot be read or has no objects: name a data "
            "set with --data.root"
        )
    return (
        f"{calls}; mAP (area, IoU 0.5) on {result.annotated_pictures} pictures of the val split "
        f"{result.float32_map:.4f} in float32, {result.int8_map:.4f} in int8"
    )


def _measure_times(programs: Sequence[Program], pictures: Sequence[Picture]) -> list[float]:
    """Return the median time of a call of each program in milliseconds. They take turns, so that both have the same
    share of a busy machine."""
    times: list[list[float]] = [[] for _ in programs]
    for call in range(TIMED_CALLS + 2):
        picture = pictures[call % len(pictures)]
        for program, taken in zip(programs, times, strict=True):
            images = picture[None].repeat(program.metadata.batch or 1, axis=0)
            start = time.perf_counter()
            program.run(images)
            taken.append(time.perf_counter() - start)
    return [float(np.median(taken[2:])) * 1e3 for taken in times]  # the first calls prepare the programs


def _read_annotated_pictures(config: Config) -> list[tuple[Picture, Annotation]]:
    """Return pictures of the val split with their annotations, or none if they cannot be read."""
    found: list[tuple[Picture, Annotation]] = []
    side = config.data.max_image_size
    try:
        source = open_split(config, config.data.val_split) if config.data.root else None
        if source is None or not source.annotated:
            return []
        for index in choose_positions(len(source), ANNOTATED_PICTURES):
            found.append((reduce_to_fit(source.image(index), (side, side)), source.annotation(index)))
    except UserError:
        return []
    return found


def _compute_map(program: Program, annotated: Sequence[tuple[Picture, Annotation]], config: Config) -> float | None:
    predict = make_predict(program)
    detections: list[ImageDetections] = []
    for picture, annotation in annotated:
        size = np.array(picture.shape[:2], np.int32)
        outputs = predict(picture[None], size[:1], size[1:])
        detections.append(to_image_detections(outputs, 0, annotation.width, annotation.height))
    return evaluate_voc(detections, [annotation for _, annotation in annotated], config.model.class_names)[
        "voc_map_area"
    ]
