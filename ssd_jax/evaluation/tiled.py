"""Detection on a whole split in tiles, and its metrics beside those without tiles."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.inference.detector import Detector

logger = logging.getLogger(__name__)

COMPARED = {"voc_map_11point": "mAP (VOC, 11-point)", "voc_map_area": "mAP (VOC, area)", "coco_ap": "COCO AP"}
"""Metrics that are shown with and without tiles, and their names."""


def predict_split_in_tiles(
    detector: Detector,
    source: Source,
    tile: int,
    overlap: float,
    strict: bool = False,
    progress: Callable[[int], object] = lambda images: None,
) -> list[ImageDetections]:
    """Return the detections in every image of a split, in order, found by `Detector.tiled` on one device.

    An unreadable image gets no detections.

    Args:
        detector: The detector.
        source: The split.
        tile: Side of a tile in pixels.
        overlap: Least share of the side that neighbouring tiles have in common.
        strict: Whether to stop at an unreadable image.
        progress: Function that is called after each image with the number 1.

    Raises:
        UserError: If ``strict`` is set and an image cannot be read.
    """
    detections, unreadable = [], 0
    for index in range(len(source)):
        try:
            pixels = source.image(index)
        except UserError as error:
            if strict:
                raise
            logger.warning("%s", error)
            detections.append(NO_DETECTIONS)
            unreadable += 1
        else:
            found = detector.tiled(pixels, tile=tile, overlap=overlap, score_threshold=0.0)
            detections.append(found.to_arrays())
        progress(1)
    if unreadable:
        logger.warning(
            "%d of %d images could not be read; they count as having no detections.", unreadable, len(source)
        )
    return detections


def format_comparison(tiled: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """Return a line with the most important metrics with and without tiles."""

    def format_value(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    pairs = [
        f"{name} {format_value(tiled[key])} (without tiles {format_value(plain[key])})"
        for key, name in COMPARED.items()
    ]
    return f"With tiles: {', '.join(pairs)}"
