"""The backbone: VGG16 with fc6 and fc7 as convolutions, and functions that the extra layers also use.

VGG16 is described in Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015
(arXiv 1409.1556). As in the SSD paper, section 3, pool5 is 3x3 with stride 1, fc6 is a 3x3 convolution with dilation 6
(the "a trous" algorithm), and there is no dropout and no fc8. Layers and parameters have Caffe's names.
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
from ssd_jax.models.parameters import BLOCKS, FC_CHANNELS, GROUP_SIZE, scale_channels

Cells = Float[Array, "b rows 2 columns 2 c"]
# Index of each pixel within a 2x2 cell: 2 * row + column.
CELL_INDICES = np.arange(4, dtype=np.uint8).reshape(2, 1, 2, 1)

# U(-a, a) with a = sqrt(3 / fan_in), which Caffe calls xavier.
CAFFE_XAVIER = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
# The paper starts from a pretrained backbone. In training from scratch, He's variance keeps the scale of the
# activations through the ReLUs. The weights of conv1_1 are divided by the standard deviation of its inputs, so that
# this scale is about one.
HE_NORMAL = nn.initializers.he_normal()
# Typical standard deviation of pixels, 0 to 255.
PIXEL_SPREAD = 64.0


def relu_and_max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Apply ReLU and a max pool of 2x2 cells with stride 2.

    An odd last row or column is pooled alone (Caffe's ceil mode). On a TPU, the pool comes before the ReLU: the values
    are the same, and the larger feature map need not be kept for the gradient. If several pixels of a cell are equal to
    the maximum, the first of them gets the gradient on a TPU, as in Caffe; on other platforms they share it.
    """
    return jax.lax.platform_dependent(
        x, tpu=lambda x: nn.relu(max_pool_keeping_argmax(x)), default=lambda x: max_pool_elementwise(nn.relu(x))
    )


def _split_into_cells(x: Float[Array, "b h w c"]) -> Cells:
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=-jnp.inf)
    return x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c)


def max_pool_elementwise(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Return the maximum of each 2x2 cell, computed by elementwise maxima, for CPUs and GPUs.

    On a CPU, XLA merges the gradient of these maxima with neighbouring operations. The gradient of `nn.max_pool`
    (select-and-scatter) takes several times as long.
    """
    cells = _split_into_cells(x)
    rows = jnp.maximum(cells[:, :, 0], cells[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])


def max_pool_keeping_argmax(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Return the maximum of each 2x2 cell like `max_pool_elementwise`, but with less memory for the gradient, for TPUs.

    For the gradient, only the index of the maximum of each cell is kept, as one byte. Compiled for a TPU, a training
    step of SSD300 then accesses 31.0 GB instead of 46.2 GB (docs/scale.md).
    """
    return _max_pool_2x2(_split_into_cells(x))


@jax.custom_vjp
def _max_pool_2x2(cells: Cells) -> Float[Array, "b rows columns c"]:
    return _find_max_and_argmax(cells)[0]


def _find_max_and_argmax(cells: Cells) -> tuple[Float[Array, "b rows columns c"], UInt8[Array, "b rows columns c"]]:
    """Return the maximum of each cell and the index of its first occurrence, in one pass over the cells."""

    def select_larger(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        (a, index_a), (b, index_b) = first, second
        take_a = jnp.isnan(a) | (a > b) | ((a == b) & (index_a < index_b))
        return jnp.where(take_a, a, b), jnp.where(take_a, index_a, index_b)

    indices = jnp.broadcast_to(CELL_INDICES, cells.shape)
    result = jax.lax.reduce((cells, indices), (cells.dtype.type(-jnp.inf), jnp.uint8(4)), select_larger, (2, 4))
    # Without the barrier, XLA repeats half of the reduction at each use of the results and reads twice as many bytes.
    return jax.lax.optimization_barrier(result)


def _max_pool_backward(
    index: UInt8[Array, "b rows columns c"], gradient: Float[Array, "b rows columns c"]
) -> tuple[Cells]:
    spread = jnp.where(index[:, :, None, :, None] == CELL_INDICES, gradient[:, :, None, :, None], 0)
    # Without the barrier, each convolution that uses the result repeats the selection and reads both of its operands at
    # full size.
    return (jax.lax.optimization_barrier(spread),)


_max_pool_2x2.defvjp(_find_max_and_argmax, _max_pool_backward)


def max_pool_3x3_stride1(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Return the maximum of the 3x3 pixels around each pixel: a max pool with stride 1 (pool5)."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    x = jnp.maximum(jnp.maximum(x[:, :-2], x[:, 1:-1]), x[:, 2:])
    return jnp.maximum(jnp.maximum(x[:, :, :-2], x[:, :, 1:-1]), x[:, :, 2:])


def conv_norm(
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
    is_standardized: bool = False,
) -> Float[Array, "b h2 w2 c2"]:
    """Apply a convolution or, with norm="group", a weight-standardized convolution followed by GroupNorm.

    Call this function within a compact module, which then owns the parameters. With ``is_standardized``, the kernel is
    standardized already (`ssd_jax.models.parameters.standardize_kernels`). The padding is explicit, because for
    inputs of even size, `SAME` pads a 3x3 convolution with stride 2 only at the bottom and on the right, which shifts
    the feature map.
    """
    x = nn.Conv(
        channels,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        kernel_dilation=dilation,
        kernel_init=kernel_init,
        conv_general_dilated=standardized_conv if norm == "group" and not is_standardized else winograd.conv,
        dtype=dtype,
        name=name,
    )(x)
    if norm == "group":
        x = GroupNorm(GROUP_SIZE, dtype, name=f"{name}_group_norm")(x)
    return x


def conv_norm_relu(x: Float[Array, "b h w c"], name: str, channels: int, **options: Any) -> Float[Array, "b h2 w2 c2"]:
    """Apply `conv_norm`, followed by a ReLU."""
    return nn.relu(conv_norm(x, name, channels, **options))


class L2Norm(nn.Module):
    r"""L2 normalisation over channels with a learned scale per channel.

    The output $y$ of a cell, with $x$ its vector of channels and $s$ the scale, is

    $$y = \frac{s \, x}{\sqrt{\sum_c x_c^2 + \epsilon}}$$

    The layer comes from ParseNet (Liu et al. 2015, arXiv 1506.04579); see the SSD paper, section 3.1. As in Caffe,
    epsilon is inside the root, which keeps the gradient of an all-zero cell finite. Everything is computed in float32.
    """

    initial_scale: float = 20.0
    """Initial value of the scale of every channel."""
    eps: float = 1e-10
    """Epsilon, which is added to the sum of squares."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), (x.shape[-1],))
        x = x.astype(jnp.float32)
        return scale * x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + self.eps)


class VGG16(nn.Module):
    """The backbone VGG16, from normalised images to the feature maps conv4_3 and fc7.

    The feature maps are outputs of ReLUs and have strides of 8 and 16 pixels; conv4_3 is the input of the fourth pool.
    """

    width: float = 1.0
    """Factor that the number of channels of every layer is multiplied by."""
    norm: str = "none"
    """Normalisation of every layer: "none" or "group", see `conv_norm`."""
    input_spread: float = PIXEL_SPREAD
    """Standard deviation of the inputs. The initial weights of conv1_1 are divided by it."""
    dtype: jnp.dtype = jnp.dtype("float32")
    """Type that the convolutions compute in."""
    remat: bool = False
    """True to store only the outputs of the blocks for the gradient, and to recompute all other activations."""
    is_standardized: bool = False
    """True if the kernels in the parameters are standardized already, see `conv_norm`."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b h8 w8 c8"], Float[Array, "b h16 w16 c16"]]:
        options: dict[str, Any] = {"norm": self.norm, "dtype": self.dtype, "is_standardized": self.is_standardized}
        conv1_1_init = nn.initializers.variance_scaling(2.0 / self.input_spread**2, "fan_in", "truncated_normal")

        def run_block(module: nn.Module, x: Array, number: int) -> tuple[Array, Array]:
            """Return two outputs of a block: the input of its last ReLU, and the output of its pool."""
            *first_layers, (last, channels) = BLOCKS[number - 1]
            for name, channels in first_layers:
                kernel_init = conv1_1_init if name == "conv1_1" else HE_NORMAL
                x = conv_norm_relu(x, name, scale_channels(channels, self.width), kernel_init=kernel_init, **options)
            x = conv_norm(x, last, scale_channels(channels, self.width), **options)
            return x, relu_and_max_pool_2x2(x) if number < 5 else max_pool_3x3_stride1(nn.relu(x))

        for number in range(1, len(BLOCKS) + 1):
            apply_block = nn.remat(run_block, static_argnums=2) if self.remat else run_block
            end, x = apply_block(self, x, number)
            if number == 4:
                conv4_3 = nn.relu(end)
        x = conv_norm_relu(x, "fc6", scale_channels(FC_CHANNELS, self.width), padding=6, dilation=6, **options)
        fc7 = conv_norm_relu(x, "fc7", scale_channels(FC_CHANNELS, self.width), kernel=1, padding=0, **options)
        return conv4_3, fc7
