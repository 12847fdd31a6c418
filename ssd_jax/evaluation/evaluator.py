"""Detection on a whole split, and the metrics of the detections."""

import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from ssd_jax.config import Config
from ssd_jax.data.image_formats import LARGE_PIXELS
from ssd_jax.data.loader import STRICT_ADVICE, Batch, Batches, eval_batches
from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections, to_image_detections
from ssd_jax.inference.detector import Detector
from ssd_jax.inference.pipeline import DetectedPicture
from ssd_jax.inference.program import PredictFn
from ssd_jax.inference.tiles import TILE_OVERLAP
from ssd_jax.inputs.finding import Input
from ssd_jax.inputs.reading import Picture, Reading, Unreadable
from ssd_jax.metrics.average_precision import CocoEvaluation, evaluate_voc, match_coco, summarize_coco
from ssd_jax.models.parameters import Params
from ssd_jax.runtime import sharding
from ssd_jax.runtime.ordered_map import map_in_order

logger = logging.getLogger(__name__)


_BATCHES_AHEAD = 1
"""Number of batches that are passed to the devices before the results of the one before are fetched."""
_MAX_THREADS = 8
"""Largest number of images in which a CPU detects objects at the same time."""


def detect_split(
    detector: Detector,
    source: Source,
    *,
    tile: int | None = None,
    overlap: float = TILE_OVERLAP,
    strict: bool = False,
    progress: Callable[[int], object] = lambda images: None,
    unreadable: dict[int, str] | None = None,
) -> list[ImageDetections]:
    """Return the detections in every image of a split, in order, found by a detector on one device.

    Reading and detection overlap, as in ``ssd-jax predict``. An unreadable image gets no detections.

    Args:
        detector: The detector.
        source: The split.
        tile: Side of the tiles in pixels, as for `Detector.tiled`. None: no tiles.
        overlap: Least share of the side that neighbouring tiles have in common.
        strict: Whether to stop at an unreadable image.
        progress: Function that is called after each image with the number 1.
        unreadable: As for `predict_split`.

    Returns:
        The detections of each image, with boxes in pixels of the original image.

    Raises:
        UserError: If ``strict`` is set and an image cannot be read.
    """
    unreadable = {} if unreadable is None else unreadable
    already_reported = len(unreadable)
    side = None if tile is not None else detector.config.data.max_image_size
    sizes = source.sizes()

    def make_readings() -> Iterator[Reading]:
        for index in range(len(source)):
            pixels = 0 if sizes is None else min(sizes[index][0] * sizes[index][1], LARGE_PIXELS)
            yield Reading(partial(_read_picture, source, index, side), pixels)

    detections = []
    results = detector.detect_in_order(make_readings(), tile=tile, overlap=overlap)
    with closing(results):
        for index, result in enumerate(results):
            if isinstance(result, DetectedPicture):
                detections.append(result.detections.to_arrays())
            elif strict:
                raise UserError(*result.lines, STRICT_ADVICE)
            else:
                detections.append(NO_DETECTIONS)
                message = str(UserError(*result.lines))
                if unreadable.setdefault(index, message) is message:
                    logger.warning("%s", message)
            progress(1)
    _warn_of_unreadable(unreadable, already_reported, source)
    return detections


def _read_picture(source: Source, index: int, side: int | None) -> Picture | Unreadable:
    """Read an image of a split, at full size if ``side`` is None."""
    try:
        annotation = source.annotation(index)
        pixels = source.image(index) if side is None else source.reduced_image(index, (side, side))
    except UserError as error:
        return Unreadable(error.args)
    file = Input("image", annotation.file, Path(annotation.file))
    return Picture(file, pixels, (annotation.width, annotation.height))


def predict_split(
    predict: PredictFn,
    params: Params,
    source: Source,
    config: Config,
    mesh: Mesh,
    progress: Callable[[int], object] = lambda images: None,
    unreadable: dict[int, str] | None = None,
) -> list[ImageDetections]:
    """Return the detections in every image of a split, in order, found by a program for any number of devices.

    An unreadable image gets no detections. In a multi-process run, each process handles a part of every batch, and
    all processes return the detections of the whole split.

    Reading and detection overlap. A single CPU gets the images one by one, in several threads, as in
    ``ssd-jax predict``. Other devices compute a batch while the results of the one before are processed.

    Args:
        predict: Compiled detection, from `make_predict_fn`.
        params: Parameters of the network.
        source: The split.
        config: Config of the run. Batches have ``train.batch_size``, rounded up to a multiple of the number of devices.
        mesh: Devices to run on.
        progress: Function that is called after each batch with the number of images in the batch.
        unreadable: Dict from the positions of unreadable images to error messages; new messages are added to it. Pass
            the same dict whenever a split is evaluated, so that each image is reported only once.

    Returns:
        The detections of each image, with boxes in pixels of the original image.
    """
    unreadable = {} if unreadable is None else unreadable
    already_reported = len(unreadable)
    is_single_cpu = _is_single_cpu(mesh)
    batch_size = 1 if is_single_cpu else -(-config.train.batch_size // mesh.size) * mesh.size
    detections: list[ImageDetections] = []
    rows = sharding.find_local_positions(mesh, batch_size)
    batches = eval_batches(source, config.data, batch_size, unreadable, rows)
    run = _predict_in_threads if is_single_cpu else _predict_ahead
    for outputs, (index, readable) in run(partial(predict, params), batches, mesh):
        images = int((index >= 0).sum())  # the last batch may be padded
        for slot in range(images):
            annotation = source.annotation(int(index[slot]))
            detections.append(
                to_image_detections(outputs, slot, annotation.width, annotation.height)
                if readable[slot]
                else NO_DETECTIONS
            )
        progress(images)
    _warn_of_unreadable(unreadable, already_reported, source)
    return detections


def _is_single_cpu(mesh: Mesh) -> bool:
    return mesh.size == 1 and bool(mesh.devices.flat[0].platform == "cpu")


def _predict_ahead(predict: Callable[..., Any], batches: Batches, mesh: Mesh) -> Iterator[Any]:
    """Yield the detections in each batch with the positions of its images, and whether the images could be read.

    All processes of a run call the same programs in the same order.
    """
    waiting: deque[Any] = deque()
    for batch in batches:
        waiting.append(_dispatch(predict, batch, mesh))
        if len(waiting) > _BATCHES_AHEAD:
            yield sharding.fetch(waiting.popleft())
    while waiting:
        yield sharding.fetch(waiting.popleft())


def _predict_in_threads(predict: Callable[..., Any], batches: Batches, mesh: Mesh) -> Iterator[Any]:
    """Yield the same as `_predict_ahead`, computed by one device in several threads."""
    iterator = iter(batches)
    for batch in itertools.islice(iterator, 1):  # alone, or several threads would compile the same program
        yield sharding.fetch(_dispatch(predict, batch, mesh))
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    results = map_in_order(
        lambda batch: sharding.fetch(_dispatch(predict, batch, mesh)), iterator, threads=threads, ahead=2 * threads
    )
    with closing(results):
        yield from results


def _dispatch(predict: Callable[..., Any], batch: Batch, mesh: Mesh) -> Any:
    canvas, height, width, *origin = sharding.shard_batch(
        (batch.canvas, batch.height, batch.width, batch.index, batch.valid), mesh
    )
    return predict(canvas, height, width), origin


def _warn_of_unreadable(unreadable: dict[int, str], already_reported: int, source: Source) -> None:
    if len(unreadable) > already_reported:
        logger.warning(
            "%d of %d images could not be read; they count as having no detections.", len(unreadable), len(source)
        )


def compute_metrics(
    detections: Sequence[ImageDetections], source: Source, annotations: Sequence[Annotation] | None = None
) -> dict[str, Any]:
    """Compute the VOC and the COCO metrics of a split, as ``evaluate`` writes them to metrics.json.

    A COCO data set is evaluated on the objects exactly as its file states them, so that the COCO metrics equal those
    of pycocotools for the same files.

    Args:
        detections: Detections of each image of the split, in order.
        source: The split.
        annotations: Annotations of the split, if they have been read already. None: read them from ``source``.

    Returns:
        The entries of `VocResult` and the twelve metrics of `evaluate_coco`, in one dict.
    """
    if annotations is None:
        annotations = list(source.annotations())
    names = source.class_names
    voc = evaluate_voc(detections, annotations, names)
    return {**voc, **summarize_coco(match_source(detections, source, annotations))}


def match_source(
    detections: Sequence[ImageDetections], source: Source, annotations: Sequence[Annotation]
) -> CocoEvaluation:
    """Match detections in a split with its objects by COCO's rules, with the objects of the COCO file if there is one.

    Args:
        detections: Detections of each image of the split, in order.
        source: The split.
        annotations: Annotations of the split, in order.
    """
    names = source.class_names
    if source.coco_truth is None:
        return match_coco(detections, annotations, names)
    image_ids = [a.number for a in annotations if a.number is not None]
    return match_coco(detections, annotations, names, source.category_ids, image_ids, source.coco_truth)
