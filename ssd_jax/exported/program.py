"""A detection program that was read from a file, in any format.

This module does not import JAX, whose import takes longer than a detection by another runtime.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from ssd_jax.exported.metadata import Metadata

Images = UInt8[np.ndarray, "b h w 3"]


class PaddedDetections(NamedTuple):
    """Detections of a batch of images, best first, padded with zeros to k rows.

    They have the same fields as `ssd_jax.ops.detection.Detections` of a batch.
    """

    boxes: Float32[np.ndarray, "b k 4"]
    """Boxes, xyxy, normalised to the image."""
    scores: Float32[np.ndarray, "b k"]
    labels: Int32[np.ndarray, "b k"]
    """Labels of the classes, 1 to C; 0 for padding."""
    valid: Bool[np.ndarray, "b k"]
    """True for detections, False for padding."""


class Outputs(NamedTuple):
    """Outputs of a program that returns detections, best first, padded with zeros to k rows."""

    boxes: Float32[np.ndarray, "b k 4"]
    """Boxes, xyxy, in pixels of the image."""
    scores: Float32[np.ndarray, "b k"]
    labels: Int32[np.ndarray, "b k"]
    """Labels of the classes, 1 to C; 0 for padding."""
    count: Int32[np.ndarray, " b"]  # type: ignore[assignment]  # hides tuple.count
    """Number of detections of each image."""


class RawOutputs(NamedTuple):
    """Outputs of a program without non-maximum suppression, for all n default boxes."""

    boxes: Float32[np.ndarray, "b n 4"]
    """Boxes, xyxy, in pixels of the image, not clipped to it."""
    scores: Float32[np.ndarray, "b n c"]
    """Probability of each of the c classes without background."""


class Program(ABC):
    """A detection program that was read from a file.

    Attributes:
        metadata: What the file says about itself.
        is_compiled_for_shapes: Whether another shape of the images takes a compilation.
    """

    metadata: Metadata
    is_compiled_for_shapes = False

    @abstractmethod
    def run(self, images: Images) -> Outputs | RawOutputs:
        """Run the program.

        Args:
            images: RGB images of one size, at most ``metadata.max_image_size`` on each side. If ``metadata.batch`` is
                not None, there are exactly that many.

        Returns:
            `RawOutputs` if ``metadata.nms`` is false, otherwise `Outputs`.
        """

    def run_padded(
        self, canvas: Images, height: Int32[np.ndarray, " b"], width: Int32[np.ndarray, " b"]
    ) -> Outputs | RawOutputs:
        """Run the program on images of several sizes, each of which fills the upper left of its canvas.

        This method calls `run` once for each size. A format whose program takes the sizes may override it.

        Args:
            canvas: Canvases with the images.
            height: Height of each image in pixels.
            width: Width of each image in pixels.

        Returns:
            The outputs, with boxes in pixels of the images without their canvases.
        """
        sizes = np.stack([height, width], axis=1)
        parts: dict[int, tuple[np.ndarray, ...]] = {}
        kind: type = Outputs
        for size in np.unique(sizes, axis=0):
            slots = np.flatnonzero((sizes == size).all(axis=1))
            images = np.ascontiguousarray(canvas[slots, : size[0], : size[1]])
            outputs = run_in_batches(self.run, self.metadata.batch, images)
            kind = type(outputs)
            parts |= {int(slot): tuple(field[i] for field in outputs) for i, slot in enumerate(slots)}
        fields = zip(*(parts[slot] for slot in range(len(canvas))), strict=True)
        return kind(*(np.stack(field) for field in fields))


def run_in_batches(
    run: Callable[..., Outputs | RawOutputs], batch: int | None, *arrays: np.ndarray
) -> Outputs | RawOutputs:
    """Call a function on batches of a fixed size, the last of which is filled up, and join the outputs.

    Args:
        run: Function of arrays with a leading batch axis.
        batch: Size of each batch. None for a single call with the given arrays.
        arrays: Arrays with a leading batch axis.
    """
    count = len(arrays[0])
    if batch is None or batch == count:
        return run(*arrays)
    slots = np.arange(-(-count // batch) * batch).clip(max=count - 1).reshape(-1, batch)
    outputs = [run(*(np.ascontiguousarray(array[row]) for array in arrays)) for row in slots]
    return type(outputs[0])(*(np.concatenate(field)[:count] for field in zip(*outputs, strict=True)))
