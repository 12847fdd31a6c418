"""The jitted program from images to detections."""

from collections.abc import Callable

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float32, Int32, UInt8

from ssd_jax.config import Config
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.models.ssd import SSD, Params
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import Detections, detect
from ssd_jax.ops.resample import resize
from ssd_jax.runtime import compilation, sharding

PredictFn = Callable[
    [Params, UInt8[Array | np.ndarray, "b h w 3"], Int32[Array | np.ndarray, " b"], Int32[Array | np.ndarray, " b"]],
    Detections,
]


def make_predict_fn(config: Config, mesh: Mesh) -> PredictFn:
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
        images = sharding.map_images(warp, mesh)(canvas, height, width)
        predictions = SSD(config.model).apply({"params": params}, images)
        return sharding.map_images(find, mesh)(*predictions)

    return jax.jit(program, compiler_options=compilation.compiler_options(mesh))


def to_image_detections(detections: Detections, slot: int, width: int, height: int) -> ImageDetections:
    """One slot of a batch, fetched to the host: pixels of the original image, padding gone."""
    boxes, scores, labels, valid = (np.asarray(field[slot]) for field in detections)
    to_pixels = np.array([width, height, width, height], np.float32)
    return ImageDetections(boxes[valid] * to_pixels, scores[valid], labels[valid])
