"""The jitted function from images to detections."""

from collections.abc import Callable

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float32, Int32, UInt8

from ssd_jax.config import Config
from ssd_jax.models.parameters import Params
from ssd_jax.models.ssd import SSD, Predictions
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import Detections, detect
from ssd_jax.ops.resample import resize
from ssd_jax.runtime import compilation, sharding

PredictFn = Callable[
    [Params, UInt8[Array | np.ndarray, "b h w 3"], Int32[Array | np.ndarray, " b"], Int32[Array | np.ndarray, " b"]],
    Detections,
]
"""A function that detects objects in a batch of images, as returned by `make_predict_fn`."""


def make_predict_fn(config: Config, mesh: Mesh) -> PredictFn:
    """Return the function of `make_predict`, jitted."""
    return jax.jit(
        make_predict(config, mesh), compiler_options=compilation.detection_compiler_options(config.model, mesh)
    )


def make_predict(config: Config, mesh: Mesh | None, *, is_standardized: bool = False) -> Callable[..., Detections]:
    """Return a function that detects objects in a batch of images, to be jitted.

    The function resizes the images to the input size of the network, applies the network, decodes the boxes and
    suppresses overlapping ones. All these steps run on the devices, without a transfer to the host in between.

    Args:
        config: Config of the run.
        mesh: Devices to run on. The batch is split over them. None: a program that is exported, for any batch size.
        is_standardized: Whether the function will get the parameters that `standardize_kernels` returns.

    Returns:
        ``predict(params, canvas, height, width)``, which returns ``Detections``. Each image, RGB from 0 to 255, fills
        the upper left ``height`` x ``width`` pixels of its canvas. The returned boxes are xyxy, normalised to [0, 1] by
        the size of the image.
    """
    forward = make_forward(config, mesh, is_standardized=is_standardized)
    default_boxes = make_default_boxes(config.model.default_boxes)
    variances, boxes_per_map = config.model.default_boxes.variances, config.model.default_boxes.boxes_per_map

    def detect_image(offsets: Float32[Array, "n 4"], logits: Float32[Array, "n c"]) -> Detections:
        return detect(offsets, logits, default_boxes, variances, config.detect, boxes_per_map)

    def predict(
        params: Params, canvas: UInt8[Array, "b h w 3"], height: Int32[Array, " b"], width: Int32[Array, " b"]
    ) -> Detections:
        predictions = forward(params, canvas, height, width)
        return sharding.map_images(detect_image, mesh, vmap_single=False)(*predictions)

    return predict


def make_forward(config: Config, mesh: Mesh | None, *, is_standardized: bool = False) -> Callable[..., Predictions]:
    """Return a function that resizes a batch of images and applies the network, to be jitted.

    The arguments are those of `make_predict`.

    Returns:
        ``forward(params, canvas, height, width)``, with the arguments of ``predict``, which returns `Predictions`.
    """
    size, mean = config.model.image_size, config.model.mean

    def resize_image(canvas: UInt8[Array, "h w 3"], height: Int32[Array, ""], width: Int32[Array, ""]) -> Array:
        return resize(canvas, size, height, width, fill=mean)

    def forward(
        params: Params, canvas: UInt8[Array, "b h w 3"], height: Int32[Array, " b"], width: Int32[Array, " b"]
    ) -> Predictions:
        images = sharding.map_images(resize_image, mesh, vmap_single=False)(canvas, height, width)
        return Predictions(*SSD(config.model, is_standardized).apply({"params": params}, images))

    return forward
