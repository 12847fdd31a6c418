"""Resample a window of an image to a square by bilinear interpolation.

A *window* is a box, xyxy, in coordinates normalised to the content of the image, and may reach outside it. The square
shows what lies in the window. If x2 is left of x1, the window is read from right to left; so expanding, cropping,
mirroring and resizing together are one window, and pixels are interpolated once.

An image is a uint8 canvas whose top left `height` x `width` pixels are the content; the rest is undefined and never
read. Pixel i covers [i, i + 1] and has its value at i + 1/2, the convention of cv2.resize with INTER_LINEAR and of
torch's interpolate with align_corners=False. As in Caffe there is no antialiasing: a sample is mixed from the four
pixels around it, whatever the distance between samples.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

Canvas = UInt8[Array | np.ndarray, "h w 3"]
Length = int | Int[Array | np.ndarray, ""]


def resize(
    image: Canvas,
    size: int,
    height: Length | None = None,
    width: Length | None = None,
    *,
    fill: tuple[float, float, float] = (123.0, 117.0, 104.0),
) -> Float[Array, "{size} {size} 3"]:
    """Resize the whole content of an image to size x size pixels, as in evaluation.

    Caffe's ApplyResize with WARP and LINEAR (src/caffe/util/im_transforms.cpp), but without rounding to integers.

    Args:
        image: Canvas, RGB. Its top left `height` x `width` pixels are the content.
        size: Side of the result, pixels. Static under `jax.jit`.
        height: Height of the content, pixels; defaults to that of the canvas.
        width: Width of the content, pixels; defaults to that of the canvas.
        fill: Colour of the result if the content has no pixels, as in the slot of an unreadable image.

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
    """Sample a window of an image on a grid of size x size.

    Args:
        image: Canvas, RGB. Its top left `height` x `width` pixels are the content.
        window: The window, xyxy, normalised to the content.
        size: Side of the grid. Static under `jax.jit`.
        height: Height of the content, pixels; defaults to that of the canvas.
        width: Width of the content, pixels; defaults to that of the canvas.

    Returns:
        The samples, 0 to 255, and a mask that is True where they lie inside the content. Outside of it, the border
        pixels are repeated; callers overwrite them where the mask is False. Samples between the border and the
        centres of the outermost pixels count as inside. A content of size x size pixels is returned bit for bit.
    """
    x1, y1, x2, y2 = jnp.asarray(window)
    rows, row_inside = _sample_positions(y1, y2, size, image.shape[0] if height is None else height)
    columns, column_inside = _sample_positions(x1, x2, size, image.shape[1] if width is None else width)
    # TPUs multiply fast and gather slowly, CPUs and GPUs the reverse: from 500 x 375 to 300 x 300, a CPU takes 0.5 ms
    # to gather and 7 ms to multiply. All three functions give the same samples.
    pixels = jax.lax.platform_dependent(
        jnp.asarray(image),
        rows,
        columns,
        cpu=interpolate_chunks,
        tpu=interpolate_dense,
        default=interpolate_gather,
    )
    return pixels, row_inside[:, None] & column_inside[None, :]


def _sample_positions(
    start: Float[Array, ""], stop: Float[Array, ""], size: int, length: Length
) -> tuple[Float[Array, " {size}"], Bool[Array, " {size}"]]:
    """Return the positions of the samples along an axis, and which of them lie inside the content.

    Pixel i is at position i. Samples inside [-1/2, length - 1/2) are inside; all are then moved into [0, length - 1].
    """
    length = jnp.asarray(length, jnp.float32)
    extent = (stop - start) * length
    # XLA replaces the division by a constant by a multiplication with its reciprocal, so extent / size may differ
    # from 1 where it should not, and an image that needs no resizing would change.
    scale = jnp.where(extent == size, 1, extent / size)
    position = start * length + (jnp.arange(size) + 0.5) * scale - 0.5
    inside = (position >= -0.5) & (position < length - 0.5)
    return jnp.clip(position, 0, jnp.maximum(length - 1, 0)), inside


def interpolate_gather(image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]) -> Float[Array, "y x 3"]:
    """Sample the image bilinearly at every pair of a row and a column position, all within the image."""
    (top, bottom, down), (left, right, across) = _neighbours(rows), _neighbours(columns)

    def pixels(row: Int[Array, " y"], column: Int[Array, " x"]) -> Float[Array, "y x 3"]:
        return jnp.asarray(image)[row[:, None], column[None, :]].astype(jnp.float32)

    across, down = across[None, :, None], down[:, None, None]
    upper = _blend(pixels(top, left), pixels(top, right), across)
    lower = _blend(pixels(bottom, left), pixels(bottom, right), across)
    return _blend(upper, lower, down)


def interpolate_chunks(image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]) -> Float[Array, "y x 3"]:
    """Return the same samples as `interpolate_gather`, computed some rows at a time, for CPUs.

    XLA's CPU compiler merges a gather into every use of its result and then gathers again for each of them (10 ms an
    image with `distort`); it does not merge across the boundary of a loop (0.7 ms).
    """
    chunks = 4
    rows_per_chunk = -(-len(rows) // chunks)
    padded = jnp.pad(rows, (0, chunks * rows_per_chunk - len(rows))).reshape(chunks, rows_per_chunk)
    pixels = jax.lax.map(lambda chunk: interpolate_gather(image, chunk, columns), padded)
    return pixels.reshape(-1, len(columns), 3)[: len(rows)]


def _neighbours(positions: Float[Array, " n"]) -> tuple[Int[Array, " n"], Int[Array, " n"], Float[Array, " n"]]:
    low = jnp.floor(positions)
    return low.astype(jnp.int32), jnp.ceil(positions).astype(jnp.int32), positions - low


def _blend(a: Float[Array, "y x 3"], b: Float[Array, "y x 3"], weight: Float[Array, "..."]) -> Float[Array, "y x 3"]:
    return a + (b - a) * weight


def interpolate_dense(image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]) -> Float[Array, "y x 3"]:
    """Return the same samples as `interpolate_gather`, computed as two matrix products, for TPUs.

    TPUs gather slowly. From a canvas of 640 x 640 to 300 x 300 the products take 1.1 GFLOP an image, 2 % of the
    forward pass of SSD300.
    """
    vertical = _hat_weights(rows, image.shape[0])
    horizontal = _hat_weights(columns, image.shape[1])
    # By default, TPUs round the operands to bfloat16.
    highest = jax.lax.Precision.HIGHEST
    mixed_rows = jnp.einsum("yh,hwc->ywc", vertical, image.astype(jnp.float32), precision=highest)
    return jnp.einsum("xw,ywc->yxc", horizontal, mixed_rows, precision=highest)


def _hat_weights(positions: Float[Array, " n"], length: int) -> Float[Array, "n {length}"]:
    """Return the weight of each pixel for each sample; at most the two pixels around it have one."""
    return jnp.maximum(0, 1 - jnp.abs(positions[:, None] - jnp.arange(length)))
