"""Winograd's F(2x2, 3x3): 3x3 convolutions that compute 2x2 outputs with 16 products instead of 36.

The algorithm is used on CPUs, where arithmetic limits the speed of the widest layers; on other platforms, the plain
convolution is used. The two results differ by rounding: in float32, by about 1e-6 of the largest output. Networks of
full width become faster on a CPU in detection and in fine-tuning: two of their layers took 0.57 and 0.61 of the time
(see `MIN_SAVING`). docs/performance.md has the times of whole networks.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016 (arXiv 1509.09308), section 4.1. The letters are
those of the paper: with U the transformed kernel and V the transformed 4x4 tiles of the input, a tile of the output is
A^T [sum over channels of U * V] A. The gradients have the same form. The gradient with respect to the input is the
convolution of the output gradient with the kernel rotated by 180 degrees. The gradient with respect to the kernel is
the sum over all tiles of V times the transformed output gradient, transformed back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Float32

# Winograd's algorithm is used for a convolution of c to d channels if c * d / (c + d) is at least this number: the
# number of products that it saves for each number that its transforms move. With 4 images on two cores, the forward
# pass and both gradients took 0.57 of the time of the plain convolution for 256 to 256 channels of 75 x 75 pixels,
# where the quotient is 128; 0.61 for 512 to 512 channels of 38 x 38 pixels (256); and as long for 128 to 128 channels
# of 150 x 150 pixels (64).
MIN_SAVING = 80

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_KERNEL = np.kron(_G, _G)  # (16, 9), transforms 3x3 kernels to 4x4
# A list with one array for each entry of a tile. The array holds this entry of every tile; 4x4 tiles have 16 entries.
Terms = list[Array]


def conv(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """Convolve by Winograd's algorithm if it is expected to be faster, otherwise by `lax.conv_general_dilated`.

    Use it as `nn.Conv(conv_general_dilated=conv)`. The layouts are NHWC and HWIO.
    """

    def convolve_directly(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    is_supported = (
        kernel.shape[:2] == (3, 3)
        and tuple(strides) == (1, 1)
        and [tuple(sides) for sides in padding] == [(1, 1)] * 2
        and tuple(options.get("rhs_dilation") or (1, 1)) == (1, 1)
        and x.dtype == kernel.dtype == jnp.float32
    )
    c, d = kernel.shape[2:]
    if not is_supported or c * d < MIN_SAVING * (c + d):
        return convolve_directly(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=conv3x3, default=convolve_directly)


@jax.custom_vjp
def conv3x3(x: Float32[Array, "b h w c"], kernel: Float32[Array, "3 3 c d"]) -> Float32[Array, "b h w d"]:
    """Convolve with stride 1 and one pixel of zero padding, by Winograd's algorithm.

    Images are processed one at a time, so that intermediate results stay in the cache of the processor.
    """
    # Without the barrier, XLA transforms the kernels of all layers first and keeps them in memory.
    x, kernel = lax.optimization_barrier((x, kernel))
    transformed = lax.optimization_barrier(_transform_kernel(kernel))

    def convolve_image(image: Array) -> Array:
        terms = [_flatten_tiles(term) @ transformed[k] for k, term in enumerate(_transform_input_tiles(image))]
        return _assemble_output(terms, image.shape)

    return lax.map(convolve_image, x)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    def add_image(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        image, output_gradient = pair
        terms = zip(_transform_input_tiles(image), _transform_gradient_tiles(output_gradient), strict=True)
        return total + jnp.stack([_flatten_tiles(v).T @ _flatten_tiles(m) for v, m in terms]), None

    c, d = kernel.shape[2:]
    transformed, _ = lax.scan(add_image, jnp.zeros((16, c, d), jnp.float32), (x, g))
    kernel_gradient = (jnp.asarray(_KERNEL.T) @ transformed.reshape(16, c * d)).reshape(kernel.shape)
    # The barrier makes XLA compute the kernel gradient first, after which the memory of x can be freed.
    kernel_gradient, g = lax.optimization_barrier((kernel_gradient, g))
    return conv3x3(g, kernel[::-1, ::-1].swapaxes(2, 3)), kernel_gradient


conv3x3.defvjp(_forward, _backward)


def _transform_kernel(kernel: Float[Array, "3 3 c d"]) -> Float[Array, "16 c d"]:
    """Return the transformed kernel U = G g G^T, 16 matrices of weights from c to d channels."""
    c, d = kernel.shape[2:]
    return (jnp.asarray(_KERNEL) @ kernel.reshape(9, c * d)).reshape(16, c, d)


def _transform_input_tiles(x: Float[Array, "h w c"]) -> Terms:
    """Return the 16 entries of V = B^T d B for the 4x4 tiles d of the input, whose corners are two pixels apart."""
    h, w, _ = x.shape
    x = jnp.pad(x, ((1, 1 + h % 2), (1, 1 + w % 2), (0, 0)))

    def combine(tap: Callable[[int], Array]) -> Terms:
        return [tap(0) - tap(2), tap(1) + tap(2), tap(2) - tap(1), tap(1) - tap(3)]

    rows, columns = (h + 1) // 2 * 2, (w + 1) // 2 * 2
    along_rows = combine(lambda i: x[i : i + rows : 2])
    return [v for r in along_rows for v in combine(lambda i, r=r: r[:, i : i + columns : 2])]  # type: ignore[misc]


def _transform_gradient_tiles(g: Float[Array, "h w d"]) -> Terms:
    """Return the 16 entries of A g A^T for the 2x2 tiles g of the output gradient.

    This linear map is the transpose of `_assemble_output`.
    """
    h, w, _ = g.shape
    g = jnp.pad(g, ((0, h % 2), (0, w % 2), (0, 0)))

    def spread(first: Array, second: Array) -> Terms:
        return [first, first + second, first - second, -second]

    return [t for r in spread(g[0::2], g[1::2]) for t in spread(r[:, 0::2], r[:, 1::2])]


def _flatten_tiles(term: Float[Array, "rows columns c"]) -> Float[Array, "n c"]:
    """Return a term, which holds one entry of every tile, as a matrix with a row for each tile.

    The barrier keeps XLA from computing the term inside the loops of the following product.
    """
    return lax.optimization_barrier(term.reshape(-1, term.shape[-1]))


def _assemble_output(products: Terms, shape: tuple[int, ...]) -> Float[Array, "h w d"]:
    """Return the output Y = A^T m A from the 16 entries of the tiles m, cropped to the given height and width."""
    h, w, _ = shape
    rows, columns = (h + 1) // 2, (w + 1) // 2
    m = [lax.optimization_barrier(product).reshape(rows, columns, -1) for product in products]

    def reduce(m: Terms) -> Terms:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    along_columns = [reduce(m[4 * u : 4 * u + 4]) for u in range(4)]
    y = [reduce([pair[column] for pair in along_columns]) for column in range(2)]  # indexed by column, then row
    tiles = jnp.stack([jnp.stack([y[0][row], y[1][row]], axis=2) for row in range(2)], axis=1)
    return tiles.reshape(2 * rows, 2 * columns, -1)[:h, :w]
