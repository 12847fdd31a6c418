"""Images to detections in pixels, with one compiled program; detections of a split to numbers."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from ssd_jax.config import Config
from ssd_jax.data.loader import eval_batches
from ssd_jax.data.source import Source
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.inference.program import PredictFn, to_image_detections
from ssd_jax.metrics.average_precision import evaluate_coco, evaluate_voc
from ssd_jax.models.ssd import Params
from ssd_jax.runtime import sharding

logger = logging.getLogger(__name__)


def predict_split(
    program: PredictFn,
    params: Params,
    source: Source,
    config: Config,
    mesh: Mesh,
    progress: Callable[[int], object] = lambda images: None,
    unreadable: dict[int, str] | None = None,
) -> list[ImageDetections]:
    """Detections of every image of a split, in its order; none in an image that can't be read.

    Several processes share the images, and each has all detections in the end.

    unreadable: as of `eval_batches`, for a split that is detected in again and again.
    """
    unreadable = {} if unreadable is None else unreadable
    known = len(unreadable)
    batch_size = -(-config.train.batch_size // mesh.size) * mesh.size
    found: list[ImageDetections] = []
    rows = sharding.local_rows(mesh, batch_size)
    for batch in eval_batches(source, config.data, batch_size, unreadable, rows):
        canvas, height, width, *place = sharding.shard_batch(
            (batch.canvas, batch.height, batch.width, batch.index, batch.valid), mesh
        )
        detections, (index, readable) = sharding.fetch((program(params, canvas, height, width), place))
        images = int((index >= 0).sum())  # what follows them fills up the last batch
        for slot in range(images):
            annotation = source.annotation(int(index[slot]))
            found.append(
                to_image_detections(detections, slot, annotation.width, annotation.height)
                if readable[slot]
                else NO_DETECTIONS
            )
        progress(images)
    if len(unreadable) > known:
        logger.warning(
            "%d of %d images could not be read; nothing is found in them, and their objects count as missed.",
            len(unreadable), len(source),
        )  # fmt: skip
    return found


def compute_metrics(detections: Sequence[ImageDetections], source: Source) -> dict[str, Any]:
    """What metrics.json holds: VOC's two mAPs with a table by class, and COCO's twelve numbers; of COCO data those
    that pycocotools gives for the same files.

    detections: one for each image of the split, in its order.
    """
    annotations = list(source.annotations())
    voc = evaluate_voc(detections, annotations, source.class_names)
    if source.coco_truth is None:
        return {**voc, **evaluate_coco(detections, annotations, source.class_names)}
    numbers = [a.number for a in annotations if a.number is not None]
    official = source.category_ids, numbers, source.coco_truth
    return {**voc, **evaluate_coco(detections, annotations, source.class_names, *official)}
