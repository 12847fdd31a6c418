"""The pictures that a run leaves: what the network saw, truth beside detections, curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32
from PIL import Image

from ssd_jax import run_folder
from ssd_jax.data.source import Source
from ssd_jax.draw import class_colours, draw_boxes, draw_curves, grid
from ssd_jax.errors import UserError
from ssd_jax.metrics import ImageDetections

SHOWN_IMAGES = 12
SHOWN_SCORE = 0.5
"""Detections are shown from this score up; metrics count those from 0.01 up."""
TILE = 420
"""Longest side of one picture on a sheet, pixels."""


def _tile(
    image: np.ndarray, boxes_px: np.ndarray, names: list[str], scores: np.ndarray | None, colours: dict
) -> Image.Image:
    scale = TILE / max(image.shape[:2])
    return draw_boxes(image, boxes_px, names, scores, colours=colours, scale=scale)


def _save(picture: Image.Image, file: Path) -> None:
    with run_folder.writing(file):
        picture.save(file, quality=90)


def write_train_batch(
    workdir: Path,
    batch: tuple[Float[np.ndarray, "b h w 3"], Float[np.ndarray, "b g 4"], Int32[np.ndarray, "b g"]],
    class_names: Sequence[str],
) -> None:
    """train_batch.jpg: augmented images as the network sees them, with the boxes it is asked for."""
    colours = class_colours(class_names)
    tiles = []
    for image, boxes, labels in list(zip(*batch, strict=True))[:SHOWN_IMAGES]:
        real = labels > 0
        names = [class_names[label - 1] for label in labels[real]]
        pixels = image.round().clip(0, 255).astype(np.uint8)
        tiles.append(_tile(pixels, boxes[real] * image.shape[0], names, None, colours))
    _save(grid(tiles, columns=4), workdir / "train_batch.jpg")


def write_truth_and_predictions(
    workdir: Path, split: str, source: Source, detections: Sequence[ImageDetections]
) -> None:
    """<split>_truth.jpg and <split>_pred.jpg: the same images, evenly spread over the split."""
    colours = class_colours(source.class_names)
    chosen = np.unique(np.linspace(0, len(source) - 1, min(SHOWN_IMAGES, len(source))).round().astype(int))
    truth, found = [], []
    for i in map(int, chosen):
        try:
            image = source.image(i)
        except UserError:  # counted and reported by the loader
            continue
        annotation, detection = source.annotation(i), detections[i]
        names = [source.class_names[label - 1] for label in annotation.labels]
        truth.append(_tile(image, annotation.boxes_px, names, None, colours))
        shown = detection.scores >= SHOWN_SCORE
        names = [source.class_names[label - 1] for label in detection.labels[shown]]
        found.append(_tile(image, detection.boxes_px[shown], names, detection.scores[shown], colours))
    if truth:
        _save(grid(truth, columns=4), workdir / f"{split}_truth.jpg")
        _save(grid(found, columns=4), workdir / f"{split}_pred.jpg")


def write_curves(workdir: Path) -> None:
    """curves.png: the loss and the rate of log.jsonl, the measurements of results.csv."""
    measured = [
        {name: value for name, value in row.items() if not name.endswith("loss")}
        for row in run_folder.read_rows(workdir)
    ]
    with run_folder.writing(workdir / "curves.png"):
        draw_curves([*run_folder.read_lines(workdir), *measured], workdir / "curves.png")
