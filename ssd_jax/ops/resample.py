"""Resample a window of an image to a square by bilinear interpolation.

A *window* is a box, xyxy, in coordinates normalised to the content of the image, and may extend beyond it. The square
shows what lies in the window. If x2 is less than x1, the square is mirrored. Expanding, cropping, mirroring and
resizing can therefore be combined into one window, and pixels are interpolated only once.

An image is a uint8 canvas whose top left `height` x `width` pixels are the content; the rest is undefined and never
read. Pixel i covers [i, i + 1] and has its value at i + 1/2, the convention of cv2.resize with INTER_LINEAR and of
torch's interpolate with align_corners=False. As in Caffe, there is no antialiasing: a sample is interpolated from the
four pixels around it, whatever the distance between samples.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

Canvas = UInt8[Array | np.ndarray, "h w 3"]
Length = int | Int[Array | np.ndarray, ""]
Side = Any
"""Side of an array: an integer, or a symbol in a program that `jax.export` exports for arrays of any size."""


def resize(
    image: Canvas,
    size: int,
    height: Length | None = None,
    width: Length | None = None,
    *,
    fill: tuple[float, float, float] = (123.0, 117.0, 104.0),
) -> Float[Array, "{size} {size} 3"]:
    """Return the whole content of an image resized to size x size pixels, as in evaluation.

    This is Caffe's ApplyResize with WARP and LINEAR (src/caffe/util/im_transforms.cpp) without rounding to integers.

    Args:
        image: Canvas, RGB, 0 to 255. Its top left `height` x `width` pixels are the content.
        size: Side of the result, pixels. Static under `jax.jit`.
        height: Height of the content, pixels; defaults to that of the canvas.
        width: Width of the content, pixels; defaults to that of the canvas.
        fill: Colour of the whole result, RGB, 0 to 255, if the content has no pixels (an image that could not be read).

    Returns:
        The resized image, RGB, 0 to 255.
    """
    pixels, inside = sample_window(image, jnp.array([0.0, 0.0, 1.0, 1.0]), size, height=height, width=width)
    return jnp.where(inside[..., None], pixels, jnp.array(fill, jnp.float32))


def sample_window(
    image: Canvas,
    window: Float[Array | np.ndarray, "4"],
    size: int,
    *,
    height: Length | None = None,
    width: Length | None = None,
) -> tuple[Float[Array, "{size} {size} 3"], Bool[Array, "{size} {size}"]]:
    """Return samples of an image at size x size points of a grid that covers a window.

    Args:
        image: Canvas, RGB, 0 to 255. Its top left `height` x `width` pixels are the content.
        window: The window, xyxy, normalised to the content.
        size: Number of points along each side of the grid. Static under `jax.jit`.
        height: Height of the content, pixels; defaults to that of the canvas.
        width: Width of the content, pixels; defaults to that of the canvas.

    Returns:
        The samples, 0 to 255, and a mask that is True for samples inside the content. Samples outside repeat the pixels
        of the border; the caller should overwrite them. Samples between the border and the centres of the outermost
        pixels count as inside. If the window is the whole content and has size x size pixels, they are returned
        unchanged.
    """
    x1, y1, x2, y2 = jnp.asarray(window)
    rows, row_inside = _compute_sample_positions(y1, y2, size, image.shape[0] if height is None else height)
    columns, column_inside = _compute_sample_positions(x1, x2, size, image.shape[1] if width is None else width)
    # On TPUs matrix products are fast and gathers are slow; on CPUs and GPUs it is the reverse. From 500 x 375 to
    # 300 x 300 pixels, a CPU takes 0.5 ms for the gather and 7 ms for the products. All three functions return the same
    # samples.
    pixels = jax.lax.platform_dependent(
        jnp.asarray(image),
        rows,
        columns,
        cpu=interpolate_in_chunks,
        tpu=interpolate_by_products,
        default=interpolate_by_gather,
    )
    return pixels, row_inside[:, None] & column_inside[None, :]


def _compute_sample_positions(
    start: Float[Array, ""], stop: Float[Array, ""], size: int, length: Length
) -> tuple[Float[Array, " {size}"], Bool[Array, " {size}"]]:
    """Return the positions of the samples along an axis, and a mask of the samples inside the content.

    The centre of pixel i has position i. Samples in [-1/2, length - 1/2) are inside. All positions are then clipped to
    [0, length - 1].
    """
    length = jnp.asarray(length, jnp.float32)
    extent = (stop - start) * length
    # XLA replaces a division by a constant with a multiplication by its reciprocal. So extent / size may differ from 1
    # even if extent equals size, and an image that needs no resizing would change.
    scale = jnp.where(extent == size, 1, extent / size)
    position = start * length + (jnp.arange(size) + 0.5) * scale - 0.5
    inside = (position >= -0.5) & (position < length - 0.5)
    return jnp.clip(position, 0, jnp.maximum(length - 1, 0)), inside


def interpolate_by_gather(
    image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]
) -> Float[Array, "y x 3"]:
    """Return the pixel values at every pair of a row and a column position, interpolated bilinearly.

    All positions lie within the image. The centre of pixel i has position i.
    """
    (top, bottom, down), (left, right, across) = _find_neighbours(rows), _find_neighbours(columns)

    def gather_pixels(row: Int[Array, " y"], column: Int[Array, " x"]) -> Float[Array, "y x 3"]:
        return jnp.asarray(image)[row[:, None], column[None, :]].astype(jnp.float32)

    across, down = across[None, :, None], down[:, None, None]
    upper = _blend(gather_pixels(top, left), gather_pixels(top, right), across)
    lower = _blend(gather_pixels(bottom, left), gather_pixels(bottom, right), across)
    return _blend(upper, lower, down)


def interpolate_in_chunks(
    image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]
) -> Float[Array, "y x 3"]:
    """Return the same samples as `interpolate_by_gather`, computed in four chunks of rows, for CPUs.

    XLA's CPU compiler merges a gather into every operation that uses its result, and so repeats the gather for each of
    them (10 ms per image with `distort`). It does not merge across the boundary of a loop (0.7 ms).
    """
    chunks = 4
    rows_per_chunk = -(-len(rows) // chunks)
    padded = jnp.pad(rows, (0, chunks * rows_per_chunk - len(rows))).reshape(chunks, rows_per_chunk)
    pixels = jax.lax.map(lambda chunk: interpolate_by_gather(image, chunk, columns), padded)
    return pixels.reshape(-1, len(columns), 3)[: len(rows)]


def _find_neighbours(positions: Float[Array, " n"]) -> tuple[Int[Array, " n"], Int[Array, " n"], Float[Array, " n"]]:
    low = jnp.floor(positions)
    return low.astype(jnp.int32), jnp.ceil(positions).astype(jnp.int32), positions - low


def _blend(
    first: Float[Array, "y x 3"], second: Float[Array, "y x 3"], weight: Float[Array, "..."]
) -> Float[Array, "y x 3"]:
    return first + (second - first) * weight


def interpolate_by_products(
    image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]
) -> Float[Array, "y x 3"]:
    """Return the same samples as `interpolate_by_gather`, computed as two matrix products, for TPUs.

    Gathers are slow on TPUs. From a canvas of 640 x 640 to 300 x 300 pixels, the products take 1.1 GFLOP per image, 2 %
    of the forward pass of SSD300.
    """
    vertical = _compute_pixel_weights(rows, image.shape[0])
    horizontal = _compute_pixel_weights(columns, image.shape[1])
    # By default, TPUs round the operands of a product to bfloat16.
    highest = jax.lax.Precision.HIGHEST
    mixed_rows = jnp.einsum("yh,hwc->ywc", vertical, image.astype(jnp.float32), precision=highest)
    return jnp.einsum("xw,ywc->yxc", horizontal, mixed_rows, precision=highest)


def _compute_pixel_weights(positions: Float[Array, " n"], length: Side) -> Float[Array, "n length"]:
    """Return the weight of each pixel in each sample, which is 0 except for the pixels around the sample."""
    return jnp.maximum(0, 1 - jnp.abs(positions[:, None] - jnp.arange(length)))
