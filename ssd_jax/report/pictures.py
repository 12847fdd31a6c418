"""The pictures that a run leaves: what the network saw, truth beside detections, curves."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32, UInt8
from PIL import Image

from ssd_jax import files
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.files import safe_file_name
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.report.draw import class_colours, draw_boxes, draw_curves, grid, with_caption
from ssd_jax.runs.log import read_log, read_results

SHOWN_IMAGES = 12
SHOWN_SCORE = 0.5
"""Detections are shown from this score up; metrics count those from 0.01 up."""
TILE = 420
"""Longest side of one picture on a sheet, pixels."""


def _tile(
    image: np.ndarray,
    boxes_px: np.ndarray,
    names: list[str],
    scores: np.ndarray | None,
    colours: dict,
    caption: str,
    side: int = TILE,
) -> Image.Image:
    scale = side / max(image.shape[:2])
    picture = draw_boxes(image, boxes_px, names, scores, colours=colours, scale=scale)
    return with_caption(picture, caption) if caption else picture


def augmented_tile(
    image: Float[np.ndarray, "s s 3"],
    boxes: Float[np.ndarray, "g 4"],
    labels: Int32[np.ndarray, " g"],
    class_names: Sequence[str],
    caption: str = "",
    side: int = TILE,
) -> Image.Image:
    """An image as augmented, 0 to 255, with the normalised boxes of the objects that are seen in it."""
    real = labels > 0
    names = [class_names[label - 1] for label in labels[real]]
    pixels = image.round().clip(0, 255).astype(np.uint8)
    return _tile(pixels, boxes[real] * len(image), names, None, class_colours(class_names), caption, side)


def _save(picture: Image.Image, file: Path) -> None:
    with files.user_errors_on_write(file):
        picture.save(file, quality=90)


def write_train_batch(
    workdir: Path,
    source: Source,
    index: Int32[np.ndarray, " b"],
    batch: tuple[Float[np.ndarray, "b h w 3"], Float[np.ndarray, "b g 4"], Int32[np.ndarray, "b g"]],
) -> None:
    """train_batch.jpg: augmented images as the network sees them, with the boxes it is asked for and their ids."""
    tiles = [
        augmented_tile(image, boxes, labels, source.class_names, source.annotation(i).image_id)
        for i, image, boxes, labels in list(zip(index.tolist(), *batch, strict=True))[:SHOWN_IMAGES]
    ]
    _save(grid(tiles, columns=4), workdir / "train_batch.jpg")


def _spread(source: Source) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Images evenly spread over a split, with their positions; without those that can't be read, which the
    loader counts and reports."""
    chosen = np.linspace(0, len(source) - 1, min(SHOWN_IMAGES, len(source))).round().astype(int)
    for i in map(int, np.unique(chosen)):
        with suppress(UserError):
            yield i, source.image(i)


def truth_tile(source: Source, index: int, image: UInt8[np.ndarray, "h w 3"], side: int = TILE) -> Image.Image:
    """An image of a split with all objects of its annotation, ``side`` pixels on its longest side, and its id."""
    annotation = source.annotation(index)
    names = [source.class_names[label - 1] for label in annotation.labels]
    return _tile(image, annotation.boxes_px, names, None, class_colours(source.class_names), annotation.image_id, side)


def write_samples(file: Path, source: Source) -> None:
    """Images evenly spread over a split, with their boxes and ids."""
    tiles = [truth_tile(source, i, image) for i, image in _spread(source)]
    if tiles:
        _save(grid(tiles, columns=4), file)


def write_truth_and_predictions(
    workdir: Path, split: str, source: Source, detections: Sequence[ImageDetections]
) -> None:
    """<split>_truth.jpg and <split>_pred.jpg: the same images, evenly spread over the split."""
    colours = class_colours(source.class_names)
    truth, found = [], []
    for i, image in _spread(source):
        detection = detections[i]
        truth.append(truth_tile(source, i, image))
        shown = detection.scores >= SHOWN_SCORE
        names = [source.class_names[label - 1] for label in detection.labels[shown]]
        image_id = source.annotation(i).image_id
        found.append(_tile(image, detection.boxes_px[shown], names, detection.scores[shown], colours, image_id))
    if truth:
        _save(grid(truth, columns=4), workdir / f"{safe_file_name(split)}_truth.jpg")
        _save(grid(found, columns=4), workdir / f"{safe_file_name(split)}_pred.jpg")


def write_curves(workdir: Path) -> None:
    """curves.png: the loss and the rate of log.jsonl, the measurements of results.csv."""
    measured = [
        {name: value for name, value in row.items() if not name.endswith("loss")} for row in read_results(workdir)
    ]
    with files.user_errors_on_write(workdir / "curves.png"):
        draw_curves([*read_log(workdir), *measured], workdir / "curves.png")
