"""Tests that compare the FLOPs counted in a jaxpr with formulas, and the counted taps with convolutions of ones."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from helpers.cli import ROOT
from jax import lax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from ssd_jax.aot.flops import count_flops, count_valid_taps
from ssd_jax.models.ssd import SSD
from ssd_jax.runs.config_file import load_config


@pytest.mark.parametrize(
    ("image", "kernel", "stride", "padding", "image_dilation", "kernel_dilation"),
    [
        (5, 3, 1, (1, 1), 1, 1),
        (19, 3, 1, (6, 6), 1, 6),
        (10, 3, 2, (1, 1), 1, 1),
        (5, 3, 1, (1, 2), 2, 1),
        (1, 3, 1, (1, 1), 1, 1),
        (7, 4, 3, (0, 2), 2, 2),
        (6, 2, 1, (-1, 0), 1, 1),
    ],
)
def test_count_valid_taps_equals_a_convolution_of_ones(
    image: int, kernel: int, stride: int, padding: tuple[int, int], image_dilation: int, kernel_dilation: int
):
    # If image and kernel consist of ones, each output is the number of taps inside the image.
    met = lax.conv_general_dilated(
        jnp.ones((1, 1, image)), jnp.ones((1, 1, kernel)), (stride,), [padding], (image_dilation,), (kernel_dilation,)
    )
    counted = count_valid_taps(
        image,
        kernel,
        met.shape[-1],
        stride=stride,
        low_padding=padding[0],
        image_dilation=image_dilation,
        kernel_dilation=kernel_dilation,
    )
    assert counted == int(met.sum())


def count_traced_flops(function, *shapes: tuple[int, ...], devices: int = 1) -> float:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count_flops(jax.make_jaxpr(function)(*arrays), devices)


def test_count_flops_counts_multiply_adds_of_matrix_products():
    product = 2 * 8 * 16 * 32
    assert count_traced_flops(jnp.matmul, (8, 16), (16, 32)) == product
    assert count_traced_flops(jax.jit(jnp.matmul), (8, 16), (16, 32), devices=4) == product / 4
    assert count_traced_flops(partial(jnp.einsum, "bij,bjk->bik"), (5, 8, 16), (5, 16, 32)) == 5 * product
    # The forward pass has one product. The backward pass has two, one for the gradient of each factor.
    assert count_traced_flops(jax.grad(lambda a, b: (a @ b).sum(), argnums=(0, 1)), (8, 16), (16, 32)) == 3 * product
    assert count_traced_flops(lambda a: lax.scan(lambda c, _: (c @ a, None), a, length=7)[0], (8, 8)) == 7 * 2 * 8**3
    assert (
        count_traced_flops(lambda a: lax.fori_loop(0, a[0, 0].astype(int), lambda i, c: c @ a, a), (8, 8)) == 2 * 8**3
    )
    branches = lambda a: lax.cond(a[0, 0] > 0, lambda: a @ a @ a, lambda: a @ a)  # noqa: E731
    assert count_traced_flops(branches, (8, 8)) == 2 * 2 * 8**3


def test_count_flops_uses_shapes_of_one_device_inside_shard_map():
    mesh = AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("data")
    function = jax.shard_map(jax.vmap(lambda a: a @ a), mesh=mesh, in_specs=split, out_specs=split)
    assert count_traced_flops(lambda a: function(a) + a @ a, (12, 8, 8), devices=4) == 2 * (12 / 4) * 2 * 8**3


def test_count_flops_counts_taps_inside_the_image():
    def convolve(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # Along a side of 4 with padding 1, two outputs have 2 taps inside the image, and two have 3.
    forward = 2 * (2 * 2 + 2 * 3) ** 2 * 6 * 5 * 7
    assert count_traced_flops(convolve, (6, 4, 4, 5), (3, 3, 5, 7)) == forward
    compute_loss = lambda x, kernel: convolve(x, kernel).sum()  # noqa: E731
    assert count_traced_flops(jax.grad(compute_loss, argnums=1), (6, 4, 4, 5), (3, 3, 5, 7)) == 2 * forward, (
        "images need no gradient"
    )
    assert count_traced_flops(jax.grad(compute_loss, argnums=(0, 1)), (6, 4, 4, 5), (3, 3, 5, 7)) == 3 * forward
    strided = partial(lax.conv_general_dilated, window_strides=(2,), padding=[(1, 1)])
    assert count_traced_flops(
        jax.grad(lambda x, k: strided(x, k).sum(), argnums=(0, 1)), (1, 1, 4), (1, 1, 3)
    ) == 3 * 2 * (2 + 3)
    grouped = partial(lax.conv_general_dilated, window_strides=(1,), padding="VALID", feature_group_count=2)
    assert count_traced_flops(grouped, (1, 4, 3), (6, 2, 3)) == 2 * 6 * 2 * 3


# Layers of SSD300 by Caffe's names: side of the input, input and output channels, kernel, stride, padding, dilation.
# The numbers are from figure 2 of the paper and do not depend on ssd_jax/models.
SSD300_LAYERS = {
    "conv1_1": (300, 3, 64, 3, 1, 1, 1),
    "conv1_2": (300, 64, 64, 3, 1, 1, 1),
    "conv2_1": (150, 64, 128, 3, 1, 1, 1),
    "conv2_2": (150, 128, 128, 3, 1, 1, 1),
    "conv3_1": (75, 128, 256, 3, 1, 1, 1),
    "conv3_2": (75, 256, 256, 3, 1, 1, 1),
    "conv3_3": (75, 256, 256, 3, 1, 1, 1),
    "conv4_1": (38, 256, 512, 3, 1, 1, 1),
    "conv4_2": (38, 512, 512, 3, 1, 1, 1),
    "conv4_3": (38, 512, 512, 3, 1, 1, 1),
    "conv5_1": (19, 512, 512, 3, 1, 1, 1),
    "conv5_2": (19, 512, 512, 3, 1, 1, 1),
    "conv5_3": (19, 512, 512, 3, 1, 1, 1),
    "fc6": (19, 512, 1024, 3, 1, 6, 6),
    "fc7": (19, 1024, 1024, 1, 1, 0, 1),
    "conv6_1": (19, 1024, 256, 1, 1, 0, 1),
    "conv6_2": (19, 256, 512, 3, 2, 1, 1),
    "conv7_1": (10, 512, 128, 1, 1, 0, 1),
    "conv7_2": (10, 128, 256, 3, 2, 1, 1),
    "conv8_1": (5, 256, 128, 1, 1, 0, 1),
    "conv8_2": (5, 128, 256, 3, 1, 0, 1),
    "conv9_1": (3, 256, 128, 1, 1, 0, 1),
    "conv9_2": (3, 128, 256, 3, 1, 0, 1),
    # The output channels are boxes per cell times 25, for 4 offsets and 21 logits.
    "conv4_3_norm_mbox": (38, 512, 4 * 25, 3, 1, 1, 1),
    "fc7_mbox": (19, 1024, 6 * 25, 3, 1, 1, 1),
    "conv6_2_mbox": (10, 512, 6 * 25, 3, 1, 1, 1),
    "conv7_2_mbox": (5, 256, 6 * 25, 3, 1, 1, 1),
    "conv8_2_mbox": (3, 256, 4 * 25, 3, 1, 1, 1),
    "conv9_2_mbox": (1, 256, 4 * 25, 3, 1, 1, 1),
}


def compute_forward_flops(
    side: int, inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int
) -> int:
    """Return the FLOPs of a convolution. The multiply-add of each kernel tap inside the image counts as two."""
    first_taps = range(-padding, side + padding - dilation * (kernel - 1), stride)
    taps = sum(0 <= first + dilation * tap < side for first in first_taps for tap in range(kernel))
    return 2 * taps**2 * inputs * outputs


SSD300_FLOPS = {name: compute_forward_flops(*layer) for name, layer in SSD300_LAYERS.items()}


def trace_ssd300(batch_size: int, differentiate: bool):
    model = SSD(load_config(ROOT / "configs" / "ssd300_voc0712.py").model)
    images = jax.ShapeDtypeStruct((batch_size, 300, 300, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]

    def compute_loss(params, images):
        return sum(output.sum() for output in model.apply({"params": params}, images))

    return jax.make_jaxpr(jax.grad(compute_loss) if differentiate else compute_loss)(params, images)


def test_count_flops_equals_the_formulas_for_the_forward_pass_of_ssd300():
    assert count_flops(trace_ssd300(2, False), 2) == sum(SSD300_FLOPS.values())


@pytest.mark.slow
def test_count_flops_equals_the_formulas_for_the_gradient_of_ssd300():
    """Training needs three times the FLOPs of the forward pass, but no gradient of the input of conv1_1."""
    expected = 32 * (3 * sum(SSD300_FLOPS.values()) - SSD300_FLOPS["conv1_1"])
    assert expected == pytest.approx(5.744e12, rel=1e-4)
    assert count_flops(trace_ssd300(32, True), 1) == expected
