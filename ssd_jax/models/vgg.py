"""The trunk: VGG16 with fc6 and fc7 as convolutions, and the layers shared with the extras.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015
(arXiv 1409.1556), changed as in the SSD paper, section 3: pool5 is 3x3 with stride 1, fc6 is a
3x3 convolution with dilation 6 (the a trous algorithm), and there is no dropout and no fc8.
Layer and parameter names are Caffe's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, UInt8

from ssd_jax.models.layers import winograd
from ssd_jax.models.layers.group_norm import GroupNorm
from ssd_jax.models.layers.weight_standardization import standardized_conv

# (layer, channels) of each block; a pool stands between two blocks.
BLOCKS = (
    (("conv1_1", 64), ("conv1_2", 64)),
    (("conv2_1", 128), ("conv2_2", 128)),
    (("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256)),
    (("conv4_1", 512), ("conv4_2", 512), ("conv4_3", 512)),
    (("conv5_1", 512), ("conv5_2", 512), ("conv5_3", 512)),
)
GROUP_SIZE = 8

Cells = Float[Array, "b rows 2 columns 2 c"]
# Of each 2x2 cell: 2 * row + column.
CORNERS = np.arange(4, dtype=np.uint8).reshape(2, 1, 2, 1)

# U(-a, a) with a = sqrt(3 / fan_in): what Caffe calls xavier.
CAFFE_XAVIER = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
# The trunk is meant to be imported. From scratch, He's variance keeps the activations' scale through
# its ReLUs; conv1_1 starts divided by the spread of its inputs, so that this scale is about one.
HE_NORMAL = nn.initializers.he_normal()
PIXEL_SPREAD = 64.0


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded to a multiple of 8 (GroupNorm's group), at least 8."""
    return max(GROUP_SIZE, round(channels * width / GROUP_SIZE) * GROUP_SIZE)


def relu_and_max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """ReLU, and max over 2x2 cells with stride 2, an odd last row or column alone (Caffe's ceil mode).

    On a TPU ReLU comes second: the same numbers, but then nothing keeps the larger map for the gradient.
    Where cells tie, their gradient goes to the first there, as in Caffe; elsewhere they share it.
    """
    return jax.lax.platform_dependent(
        x, tpu=lambda x: nn.relu(max_pool_by_corners(x)), default=lambda x: max_pool_by_maxima(nn.relu(x))
    )


def _cells(x: Float[Array, "b h w c"]) -> Cells:
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c)


def max_pool_by_maxima(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """With elementwise maxima, whose gradient a CPU computes with what stands before; that of ``nn.max_pool``
    (select-and-scatter) takes several times as long there."""
    cells = _cells(x)
    rows = jnp.maximum(cells[:, :, 0], cells[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def max_pool_by_corners(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The same maxima. For the gradient it keeps a byte a cell, the corner where the maximum stands.

    On a TPU elementwise maxima moved a third of the bytes of a training step.
    """
    return _max_of_cells(_cells(x))


@jax.custom_vjp
def _max_of_cells(cells: Cells) -> Float[Array, "b rows columns c"]:
    return _max_and_corner(cells)[0]


def _max_and_corner(cells: Cells) -> tuple[Float[Array, "b rows columns c"], UInt8[Array, "b rows columns c"]]:
    """In one pass over the cells; of equal corners the first, row by row."""

    def larger(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
        (a, at_a), (b, at_b) = one, other
        take_a = jnp.isnan(a) | (a > b) | ((a == b) & (at_a < at_b))
        return jnp.where(take_a, a, b), jnp.where(take_a, at_a, at_b)

    corners = jnp.broadcast_to(CORNERS, cells.shape)
    both = jax.lax.reduce((cells, corners), (cells.dtype.type(-jnp.inf), jnp.uint8(4)), larger, (2, 4))
    # XLA would put off half of the work until the results are used, and read twice the bytes at each use.
    return jax.lax.optimization_barrier(both)


def _spread_over_cells(
    corner: UInt8[Array, "b rows columns c"], gradient: Float[Array, "b rows columns c"]
) -> tuple[Cells]:
    spread = jnp.where(corner[:, :, None, :, None] == CORNERS, gradient[:, :, None, :, None], 0)
    # Or the choice is made anew by each convolution, from both of its sides written out at full size.
    return (jax.lax.optimization_barrier(spread),)


_max_of_cells.defvjp(_max_and_corner, _spread_over_cells)


def max_pool_3x3_stride1(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Max over the 3x3 neighbourhood (pool5)."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    x = jnp.maximum(jnp.maximum(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return jnp.maximum(jnp.maximum(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])


def convolve(
    x: Float[Array, "b h w c"],
    name: str,
    channels: int,
    *,
    norm: str,
    dtype: jnp.dtype,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    kernel_init: nn.initializers.Initializer = HE_NORMAL,
) -> Float[Array, "b h2 w2 c2"]:
    """Convolution, or with norm="group" standardized convolution and GroupNorm.

    Called within a compact module, which owns the parameters.

    Padding is explicit: ``SAME`` pads a strided convolution on the high side only and shifts every map.
    """
    x = nn.Conv(
        channels,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        kernel_dilation=dilation,
        kernel_init=kernel_init,
        conv_general_dilated=standardized_conv if norm == "group" else winograd.conv,
        dtype=dtype,
        name=name,
    )(x)
    if norm == "group":
        x = GroupNorm(GROUP_SIZE, dtype, name=f"{name}_group_norm")(x)
    return x


def conv_relu(x: Float[Array, "b h w c"], name: str, channels: int, **options: Any) -> Float[Array, "b h2 w2 c2"]:
    """``convolve``, then ReLU."""
    return nn.relu(convolve(x, name, channels, **options))


class L2Norm(nn.Module):
    """y = scale * x / sqrt(sum over channels of x^2 + eps), at each cell; scale is learned per channel.

    ParseNet (Liu et al. 2015, arXiv 1506.04579); SSD paper section 3.1. The eps stands inside the
    root, as in Caffe, which keeps the gradient of an all-zero cell finite. Computed in float32.
    """

    initial_scale: float = 20.0
    eps: float = 1e-10

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), (x.shape[-1],))
        x = x.astype(jnp.float32)
        return scale * x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + self.eps)


class VGG16(nn.Module):
    """Normalised images to conv4_3 (stride 8, before its pool) and fc7 (stride 16), both after ReLU."""

    width: float = 1.0
    norm: str = "none"
    input_spread: float = PIXEL_SPREAD
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    """Keep what lies between the blocks alone for the gradient, and compute the rest of them anew."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b h8 w8 c8"], Float[Array, "b h16 w16 c16"]]:
        options: dict[str, Any] = {"norm": self.norm, "dtype": self.dtype}
        of_inputs = nn.initializers.variance_scaling(2.0 / self.input_spread**2, "fan_in", "truncated_normal")

        def block(module: nn.Module, x: Array, number: int) -> tuple[Array, Array]:
            """What a block ends with, before ReLU, and the same after its pool and ReLU."""
            *before, (last, channels) = BLOCKS[number - 1]
            for name, channels in before:
                kernel_init = of_inputs if name == "conv1_1" else HE_NORMAL
                x = conv_relu(x, name, scaled(channels, self.width), kernel_init=kernel_init, **options)
            x = convolve(x, last, scaled(channels, self.width), **options)
            return x, relu_and_max_pool_2x2(x) if number < 5 else max_pool_3x3_stride1(nn.relu(x))

        for number in range(1, len(BLOCKS) + 1):
            compute = nn.remat(block, static_argnums=2) if self.remat else block
            end, x = compute(self, x, number)
            if number == 4:
                conv4_3 = nn.relu(end)
        x = conv_relu(x, "fc6", scaled(1024, self.width), padding=6, dilation=6, **options)
        fc7 = conv_relu(x, "fc7", scaled(1024, self.width), kernel=1, padding=0, **options)
        return conv4_3, fc7
