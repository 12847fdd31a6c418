"""Draw a window of an image as a square: the one place where pixels are interpolated.

A *window* is a box, xyxy, in coordinates normalised to the image's content, that may reach outside
it: the square shows what lies in the window. A window whose x2 is left of its x1 is read from right
to left, so expand, crop, flip and resize together are one window, and pixels are interpolated once.

An image is a uint8 canvas whose top left ``height`` x ``width`` pixels are the content; the rest is
undefined and never read. Pixel i covers [i, i + 1] and has its value at i + 1/2 (the convention of
cv2.resize with INTER_LINEAR, and of torch's interpolate with align_corners=False). There is no
antialiasing, as in Caffe: a square pixel is mixed from its four neighbours, however far apart.
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
    """The whole content, warped to size x size: what the network sees in evaluation. 0 to 255.

    Without ``height`` and ``width`` the content is the whole canvas; where it has no pixels, as in the
    slot of an unreadable image, the picture is ``fill``. Caffe: ApplyResize with WARP and LINEAR,
    src/caffe/util/im_transforms.cpp; here without rounding to integers.
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
    """The window as size x size bilinear samples, 0 to 255, and which of them lie inside the content.

    Beside the content the border pixels go on; a caller puts what it likes where ``inside`` is False.
    Samples between the outermost pixels' centres and the border count as inside; a content of
    size x size pixels comes out bit for bit.
    """
    x1, y1, x2, y2 = jnp.asarray(window)
    rows, row_inside = _positions(y1, y2, size, image.shape[0] if height is None else height)
    columns, column_inside = _positions(x1, x2, size, image.shape[1] if width is None else width)
    # A TPU multiplies quickly and gathers slowly; elsewhere it is the reverse (500 x 375 to 300 x 300
    # on a CPU: 0.5 ms against 7 ms). All give the same samples.
    pixels = jax.lax.platform_dependent(
        jnp.asarray(image),
        rows,
        columns,
        cpu=interpolate_in_parts,
        tpu=interpolate_dense,
        default=interpolate_gather,
    )
    return pixels, row_inside[:, None] & column_inside[None, :]


def _positions(
    start: Float[Array, ""], stop: Float[Array, ""], size: int, length: Length
) -> tuple[Float[Array, " {size}"], Bool[Array, " {size}"]]:
    """Of each sample along an axis: its position, with pixel i at i, moved into [0, length - 1]; and
    whether it was inside [-1/2, length - 1/2) before."""
    length = jnp.asarray(length, jnp.float32)
    extent = (stop - start) * length
    # XLA divides by a constant by multiplying with its reciprocal, so extent / size may miss 1, and
    # a picture that needs no resizing would not come out as it was.
    scale = jnp.where(extent == size, 1, extent / size)
    position = start * length + (jnp.arange(size) + 0.5) * scale - 0.5
    inside = (position >= -0.5) & (position < length - 0.5)
    return jnp.clip(position, 0, jnp.maximum(length - 1, 0)), inside


def interpolate_gather(image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]) -> Float[Array, "y x 3"]:
    """Bilinear samples of the image at every pair of row and column position, within the image."""
    (top, bottom, down), (left, right, across) = _neighbours(rows), _neighbours(columns)

    def pixels(row: Int[Array, " y"], column: Int[Array, " x"]) -> Float[Array, "y x 3"]:
        return jnp.asarray(image)[row[:, None], column[None, :]].astype(jnp.float32)

    across, down = across[None, :, None], down[:, None, None]
    upper = _mix(pixels(top, left), pixels(top, right), across)
    lower = _mix(pixels(bottom, left), pixels(bottom, right), across)
    return _mix(upper, lower, down)


def interpolate_in_parts(image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]) -> Float[Array, "y x 3"]:
    """The same samples, some rows at a time.

    For CPUs: there XLA merges the gathers into whatever uses the samples and then draws each sample
    again for each use (with distort of augment.py 10 ms an image); it does not reach into a loop
    (0.7 ms).
    """
    parts = 4
    rows_per_part = -(-len(rows) // parts)
    padded = jnp.pad(rows, (0, parts * rows_per_part - len(rows))).reshape(parts, rows_per_part)
    pixels = jax.lax.map(lambda part: interpolate_gather(image, part, columns), padded)
    return pixels.reshape(-1, len(columns), 3)[: len(rows)]


def _neighbours(positions: Float[Array, " n"]) -> tuple[Int[Array, " n"], Int[Array, " n"], Float[Array, " n"]]:
    low = jnp.floor(positions)
    return low.astype(jnp.int32), jnp.ceil(positions).astype(jnp.int32), positions - low


def _mix(a: Float[Array, "y x 3"], b: Float[Array, "y x 3"], weight: Float[Array, "..."]) -> Float[Array, "y x 3"]:
    return a + (b - a) * weight


def interpolate_dense(image: Canvas, rows: Float[Array, " y"], columns: Float[Array, " x"]) -> Float[Array, "y x 3"]:
    """The same samples as two matrix products, for hardware that multiplies better than it gathers."""
    vertical = _hat_weights(rows, image.shape[0])
    horizontal = _hat_weights(columns, image.shape[1])
    # HIGHEST: the default rounds pixels and weights to bfloat16 on a TPU.
    highest = jax.lax.Precision.HIGHEST
    mixed_rows = jnp.einsum("yh,hwc->ywc", vertical, image.astype(jnp.float32), precision=highest)
    return jnp.einsum("xw,ywc->yxc", horizontal, mixed_rows, precision=highest)


def _hat_weights(positions: Float[Array, " n"], length: int) -> Float[Array, "n {length}"]:
    """Each row holds a sample's weights: of the two pixels around it, at most."""
    return jnp.maximum(0, 1 - jnp.abs(positions[:, None] - jnp.arange(length)))
