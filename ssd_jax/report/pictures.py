"""Image files of a run: augmented images, annotations and detections, and curves."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32, UInt8
from PIL import Image

from ssd_jax import files
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.files import make_safe_file_name
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.report.draw import add_caption, class_colours, draw_boxes, draw_curves, grid
from ssd_jax.runs.log import read_log, read_results

SHOWN_IMAGES = 12
"""Maximum number of images on a contact sheet."""
SHOWN_SCORE = 0.5
"""Minimum score of the detections that are drawn. The metrics count all detections of the network."""
TILE = 420
"""Longest side of an image on a contact sheet, in pixels."""


def _draw_tile(
    image: np.ndarray,
    boxes_px: np.ndarray,
    names: list[str],
    scores: np.ndarray | None,
    colours: dict,
    caption: str,
    side: int = TILE,
) -> Image.Image:
    """Draw boxes on an image, scaled to a longest side of ``side`` pixels, with a caption below the image."""
    scale = side / max(image.shape[:2])
    tile = draw_boxes(image, boxes_px, names, scores, colours=colours, scale=scale)
    return add_caption(tile, caption) if caption else tile


def draw_augmented_tile(
    image: Float[np.ndarray, "s s 3"],
    boxes: Float[np.ndarray, "g 4"],
    labels: Int32[np.ndarray, " g"],
    class_names: Sequence[str],
    caption: str = "",
    side: int = TILE,
) -> Image.Image:
    """Draw an augmented image with its boxes.

    Args:
        image: Augmented image, with values from 0 to 255.
        boxes: Boxes as xyxy, normalised to [0, 1]. Padding is not drawn.
        labels: Labels 1 to C; 0 is padding.
        class_names: Names of the classes.
        caption: Text below the image.
        side: Longest side of the drawing in pixels, without the caption.
    """
    real = labels > 0
    names = [class_names[label - 1] for label in labels[real]]
    pixels = image.round().clip(0, 255).astype(np.uint8)
    return _draw_tile(pixels, boxes[real] * len(image), names, None, class_colours(class_names), caption, side)


def _save(image: Image.Image, file: Path) -> None:
    with files.convert_write_errors(file):
        image.save(file, quality=90)


def write_train_batch(
    workdir: Path,
    source: Source,
    index: Int32[np.ndarray, " b"],
    batch: tuple[Float[np.ndarray, "b h w 3"], Float[np.ndarray, "b g 4"], Int32[np.ndarray, "b g"]],
) -> None:
    """Write train_batch.jpg: the first augmented images of a batch with their boxes and ids.

    Args:
        workdir: Folder of the run.
        source: Train split.
        index: Positions of the images in the split.
        batch: Augmented images (0 to 255), normalised boxes and labels.
    """
    tiles = [
        draw_augmented_tile(image, boxes, labels, source.class_names, source.annotation(i).image_id)
        for i, image, boxes, labels in list(zip(index.tolist(), *batch, strict=True))[:SHOWN_IMAGES]
    ]
    _save(grid(tiles, columns=4), workdir / "train_batch.jpg")


def _read_evenly_spread_images(source: Source) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Yield images evenly spread over a split with their positions, without unreadable ones."""
    chosen = np.linspace(0, len(source) - 1, min(SHOWN_IMAGES, len(source))).round().astype(int)
    for i in map(int, np.unique(chosen)):
        with suppress(UserError):
            yield i, source.image(i)


def draw_truth_tile(source: Source, index: int, image: UInt8[np.ndarray, "h w 3"], side: int = TILE) -> Image.Image:
    """Draw an image of a split with its annotated boxes and its id, scaled to a longest side of ``side`` pixels."""
    annotation = source.annotation(index)
    names = [source.class_names[label - 1] for label in annotation.labels]
    return _draw_tile(
        image, annotation.boxes_px, names, None, class_colours(source.class_names), annotation.image_id, side
    )


def write_samples(file: Path, source: Source) -> None:
    """Write a contact sheet of images evenly spread over a split, with their boxes and ids."""
    tiles = [draw_truth_tile(source, i, image) for i, image in _read_evenly_spread_images(source)]
    if tiles:
        _save(grid(tiles, columns=4), file)


def write_truth_and_predictions(
    workdir: Path, split: str, source: Source, detections: Sequence[ImageDetections]
) -> None:
    """Write <split>_truth.jpg and <split>_pred.jpg: the same images with their annotations and their detections.

    Args:
        workdir: Folder of the run.
        split: Name of the split, for the file names.
        source: The split. Images evenly spread over it are shown.
        detections: Detections of each image of the split, in order.
    """
    colours = class_colours(source.class_names)
    truth, predictions = [], []
    for i, image in _read_evenly_spread_images(source):
        boxes, scores, labels = detections[i]
        truth.append(draw_truth_tile(source, i, image))
        shown = scores >= SHOWN_SCORE
        names = [source.class_names[label - 1] for label in labels[shown]]
        image_id = source.annotation(i).image_id
        predictions.append(_draw_tile(image, boxes[shown], names, scores[shown], colours, image_id))
    if truth:
        _save(grid(truth, columns=4), workdir / f"{make_safe_file_name(split)}_truth.jpg")
        _save(grid(predictions, columns=4), workdir / f"{make_safe_file_name(split)}_pred.jpg")


def write_curves(workdir: Path) -> None:
    """Write curves.png, which shows losses and learning rate from log.jsonl, and metrics from results.csv."""
    metrics = [
        {name: value for name, value in row.items() if not name.endswith("loss")} for row in read_results(workdir)
    ]
    with files.convert_write_errors(workdir / "curves.png"):
        draw_curves([*read_log(workdir), *metrics], workdir / "curves.png")
