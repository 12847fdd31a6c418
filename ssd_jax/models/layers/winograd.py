"""3x3 convolutions with 16 products for each 2x2 of outputs instead of 36: Winograd's F(2x2, 3x3).

On a CPU the widest layers are bound by arithmetic, and take less time so. Rounding differs from the plain sum's
by little: in float32 about 1e-6 of the largest output. Elsewhere than on a CPU nothing changes.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016 (arXiv 1509.09308), section 4.1, whose letters
these are: with U the transformed kernel and V the transformed 4x4 tiles of the input, a tile of the output is
A^T [sum over channels of U * V] A. The gradients are of the same form: that of the input is such a convolution with
the kernel turned around, and that of the kernel a sum over tiles of V times the transformed gradient of the output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Float32

# Products spared for each number that the transforms move, c * d / (c + d). On two cores, with 4 images, forward and
# both gradients took 0.57 of the plain convolution's time for 256 to 256 channels of 75 x 75 pixels (128), 0.61 for 512
# to 512 of 38 x 38 (256), and as long for 128 to 128 of 150 x 150 (64).
LEAST_SPARED = 80

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_KERNEL = np.kron(_G, _G)  # (16, 9): 3x3 to 4x4
Terms = list[Array]


def conv(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any) -> Array:
    """``lax.conv_general_dilated`` of NHWC and HWIO, for ``nn.Conv(conv_general_dilated=conv)``."""

    def plain(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    fits = (
        kernel.shape[:2] == (3, 3)
        and tuple(strides) == (1, 1)
        and [tuple(sides) for sides in padding] == [(1, 1)] * 2
        and tuple(options.get("rhs_dilation") or (1, 1)) == (1, 1)
        and x.dtype == kernel.dtype == jnp.float32
    )
    c, d = kernel.shape[2:]
    if not fits or c * d < LEAST_SPARED * (c + d):
        return plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=conv3x3, default=plain)


@jax.custom_vjp
def conv3x3(x: Float32[Array, "b h w c"], kernel: Float32[Array, "3 3 c d"]) -> Float32[Array, "b h w d"]:
    """Stride 1, one pixel of zeros around. An image at a time: what lies in between stays in the processor's cache."""
    x, kernel = lax.optimization_barrier((x, kernel))  # or XLA transforms all layers' kernels first, and keeps them
    of_kernel = lax.optimization_barrier(_transformed_kernel(kernel))

    def of_image(image: Array) -> Array:
        terms = [_rows(term) @ of_kernel[k] for k, term in enumerate(_input_terms(image))]
        return _output(terms, image.shape)

    return lax.map(of_image, x)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        image, of_output = pair
        terms = zip(_input_terms(image), _output_terms(of_output), strict=True)
        return total + jnp.stack([_rows(v).T @ _rows(m) for v, m in terms]), None

    c, d = kernel.shape[2:]
    of_kernel, _ = lax.scan(add, jnp.zeros((16, c, d), jnp.float32), (x, g))
    of_taps = (jnp.asarray(_KERNEL.T) @ of_kernel.reshape(16, c * d)).reshape(kernel.shape)
    of_taps, g = lax.optimization_barrier((of_taps, g))  # and x, which the kernel's gradient needs, is done with first
    return conv3x3(g, kernel[::-1, ::-1].swapaxes(2, 3)), of_taps


conv3x3.defvjp(_forward, _backward)


def _transformed_kernel(kernel: Float[Array, "3 3 c d"]) -> Float[Array, "16 c d"]:
    """U = G g G^T."""
    c, d = kernel.shape[2:]
    return (jnp.asarray(_KERNEL) @ kernel.reshape(9, c * d)).reshape(16, c, d)


def _input_terms(x: Float[Array, "h w c"]) -> Terms:
    """V = B^T d B of the 4x4 tiles d, two pixels apart."""
    h, w, _ = x.shape
    x = jnp.pad(x, ((1, 1 + h % 2), (1, 1 + w % 2), (0, 0)))

    def combine(tap: Callable[[int], Array]) -> Terms:
        return [tap(0) - tap(2), tap(1) + tap(2), tap(2) - tap(1), tap(1) - tap(3)]

    rows, columns = (h + 1) // 2 * 2, (w + 1) // 2 * 2
    along_rows = combine(lambda i: x[i : i + rows : 2])
    return [v for r in along_rows for v in combine(lambda i, r=r: r[:, i : i + columns : 2])]  # type: ignore[misc]


def _output_terms(g: Float[Array, "h w d"]) -> Terms:
    """A g A^T of the 2x2 tiles: the transpose of ``_output``."""
    h, w, _ = g.shape
    g = jnp.pad(g, ((0, h % 2), (0, w % 2), (0, 0)))

    def spread(first: Array, second: Array) -> Terms:
        return [first, first + second, first - second, -second]

    return [t for r in spread(g[0::2], g[1::2]) for t in spread(r[:, 0::2], r[:, 1::2])]


def _rows(term: Float[Array, "rows columns c"]) -> Float[Array, "n c"]:
    """The tiles in a row. The barrier keeps XLA from computing the term in the product's loops."""
    return lax.optimization_barrier(term.reshape(-1, term.shape[-1]))


def _output(products: Terms, shape: tuple[int, ...]) -> Float[Array, "h w d"]:
    """Y = A^T m A."""
    h, w, _ = shape
    rows, columns = (h + 1) // 2, (w + 1) // 2
    m = [lax.optimization_barrier(product).reshape(rows, columns, -1) for product in products]

    def reduce(m: Terms) -> Terms:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    along_columns = [reduce(m[4 * u : 4 * u + 4]) for u in range(4)]
    y = [reduce([pair[column] for pair in along_columns]) for column in range(2)]  # by column, then row
    tiles = jnp.stack([jnp.stack([y[0][row], y[1][row]], axis=2) for row in range(2)], axis=1)
    return tiles.reshape(2 * rows, 2 * columns, -1)[:h, :w]
