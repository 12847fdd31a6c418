"""Images to detections in pixels, with one compiled program; detections of a split to numbers."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float32, Int32, UInt8

from ssd_jax.config import Config
from ssd_jax.data.loader import eval_batches
from ssd_jax.data.source import Source
from ssd_jax.metrics.average_precision import ImageDetections, evaluate_coco, evaluate_voc
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import Detections, detect
from ssd_jax.ops.resample import resize
from ssd_jax.runtime import sharding

logger = logging.getLogger(__name__)

Params = dict[str, Any]
DetectionProgram = Callable[
    [Params, UInt8[Array | np.ndarray, "b h w 3"], Int32[Array | np.ndarray, " b"], Int32[Array | np.ndarray, " b"]],
    Detections,
]


def make_detection_program(config: Config, mesh: Mesh) -> DetectionProgram:
    """The jitted function of parameters, canvases, heights and widths of their content.

    Warp to the network's input, predict, decode, NMS: on the device, without a stop in between.
    """
    default_boxes = make_default_boxes(config.model.default_boxes)
    variances, per_map = config.model.default_boxes.variances, config.model.default_boxes.boxes_per_map
    size, mean = config.model.image_size, config.model.mean

    def warp(canvas: UInt8[Array, "h w 3"], height: Int32[Array, ""], width: Int32[Array, ""]) -> Array:
        return resize(canvas, size, height, width, fill=mean)

    def find(offsets: Float32[Array, "n 4"], logits: Float32[Array, "n c"]) -> Detections:
        return detect(offsets, logits, default_boxes, variances, config.detect, per_map)

    def program(
        params: Params, canvas: UInt8[Array, "b h w 3"], height: Int32[Array, " b"], width: Int32[Array, " b"]
    ) -> Detections:
        images = sharding.per_image(warp, mesh)(canvas, height, width)
        predictions = SSD(config.model).apply({"params": params}, images)
        return sharding.per_image(find, mesh)(*predictions)

    return jax.jit(program, compiler_options=sharding.compiler_options(mesh))


def to_image_detections(detections: Detections, slot: int, width: int, height: int) -> ImageDetections:
    """One slot of a batch, fetched to the host: pixels of the original image, padding gone."""
    boxes, scores, labels, valid = (np.asarray(field[slot]) for field in detections)
    to_pixels = np.array([width, height, width, height], np.float32)
    return ImageDetections(boxes[valid] * to_pixels, scores[valid], labels[valid])


NOTHING = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


def detect_source(
    program: DetectionProgram,
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
        canvas, height, width, *place = sharding.split_over_devices(
            (batch.canvas, batch.height, batch.width, batch.index, batch.valid), mesh
        )
        detections, (index, readable) = sharding.fetch((program(params, canvas, height, width), place))
        images = int((index >= 0).sum())  # what follows them fills up the last batch
        for slot in range(images):
            annotation = source.annotation(int(index[slot]))
            found.append(
                to_image_detections(detections, slot, annotation.width, annotation.height)
                if readable[slot]
                else NOTHING
            )
        progress(images)
    if len(unreadable) > known:
        logger.warning(
            "%d of %d images could not be read; nothing is found in them, and their objects count as missed.",
            len(unreadable), len(source),
        )  # fmt: skip
    return found


def measure(detections: Sequence[ImageDetections], source: Source) -> dict[str, Any]:
    """What metrics.json holds: VOC's two mAPs with a table by class, and COCO's twelve numbers; of COCO data those
    that pycocotools gives for the same files.

    detections: one for each image of the split, in its order.
    """
    annotations = [source.annotation(i) for i in range(len(source))]
    voc = evaluate_voc(detections, annotations, source.class_names)
    if source.coco_truth is None:
        return {**voc, **evaluate_coco(detections, annotations, source.class_names)}
    numbers = [a.number for a in annotations if a.number is not None]
    official = source.category_ids, numbers, source.coco_truth
    return {**voc, **evaluate_coco(detections, annotations, source.class_names, *official)}
