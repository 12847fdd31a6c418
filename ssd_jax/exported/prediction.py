"""Detection of objects by a program that was read from a file."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int32

from ssd_jax.exported.program import Images, PaddedDetections, Program, RawOutputs

PredictFn = Callable[[Images, Int32[np.ndarray, " b"], Int32[np.ndarray, " b"]], PaddedDetections]
"""A function from canvases, and the heights and widths of the images in them, to detections."""


def make_predict(program: Program) -> PredictFn:
    """Return a function that detects objects in a batch of images with a program.

    Returns:
        ``predict(canvas, height, width)``, which returns detections. Each image, RGB from 0 to 255, fills the upper
        left ``height`` x ``width`` pixels of its canvas. The returned boxes are normalised to [0, 1] by the size of the
        image. There may be any number of images. If the program has no non-maximum suppression, ours is applied.
    """

    def predict(canvas: Images, height: np.ndarray, width: np.ndarray) -> PaddedDetections:
        outputs = program.run_padded(canvas, height, width)
        to_pixels = np.stack([width, height, width, height], axis=1)[:, None].astype(np.float32)
        boxes = outputs.boxes / to_pixels
        if isinstance(outputs, RawOutputs):
            from ssd_jax.exported.host_detection import select_on_host  # imports JAX, which other files do not need

            return select_on_host(boxes, outputs.scores, program.metadata)
        valid = np.arange(boxes.shape[1]) < outputs.count[:, None]
        return PaddedDetections(np.where(valid[..., None], boxes, 0), outputs.scores, outputs.labels, valid)

    return predict
