"""Detection on a whole split, and the metrics of the detections."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from ssd_jax.config import Config
from ssd_jax.data.loader import eval_batches
from ssd_jax.data.source import Annotation, Source
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections, to_image_detections
from ssd_jax.inference.program import PredictFn
from ssd_jax.metrics.average_precision import CocoEvaluation, evaluate_voc, match_coco, summarize_coco
from ssd_jax.models.parameters import Params
from ssd_jax.runtime import sharding

logger = logging.getLogger(__name__)


def predict_split(
    predict: PredictFn,
    params: Params,
    source: Source,
    config: Config,
    mesh: Mesh,
    progress: Callable[[int], object] = lambda images: None,
    unreadable: dict[int, str] | None = None,
) -> list[ImageDetections]:
    """Return the detections in every image of a split, in order.

    An unreadable image gets no detections. In a multi-process run, each process handles a part of every batch, and
    all processes return the detections of the whole split.

    Args:
        predict: Compiled detection, from `make_predict_fn`.
        params: Parameters of the network.
        source: The split.
        config: Config of the run. ``train.batch_size`` is rounded up to a multiple of the number of devices.
        mesh: Devices to run on.
        progress: Function that is called after each batch with the number of images in the batch.
        unreadable: Dict from the positions of unreadable images to error messages; new messages are added to it. Pass
            the same dict whenever a split is evaluated, so that each image is reported only once.

    Returns:
        The detections of each image, with boxes in pixels of the original image.
    """
    unreadable = {} if unreadable is None else unreadable
    already_reported = len(unreadable)
    batch_size = -(-config.train.batch_size // mesh.size) * mesh.size
    detections: list[ImageDetections] = []
    rows = sharding.find_local_positions(mesh, batch_size)
    for batch in eval_batches(source, config.data, batch_size, unreadable, rows):
        canvas, height, width, *origin = sharding.shard_batch(
            (batch.canvas, batch.height, batch.width, batch.index, batch.valid), mesh
        )
        outputs, (index, readable) = sharding.fetch((predict(params, canvas, height, width), origin))
        images = int((index >= 0).sum())  # the last batch may be padded
        for slot in range(images):
            annotation = source.annotation(int(index[slot]))
            detections.append(
                to_image_detections(outputs, slot, annotation.width, annotation.height)
                if readable[slot]
                else NO_DETECTIONS
            )
        progress(images)
    if len(unreadable) > already_reported:
        logger.warning(
            "%d of %d images could not be read; they count as having no detections.", len(unreadable), len(source)
        )
    return detections


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
