"""Tests of the network: its shapes, parameters and layers equal published or independently computed values."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config
from helpers.random_predictors import randomize_predictors

from ssd_jax import config
from ssd_jax.errors import UserError
from ssd_jax.models.ssd import SSD, apply_prediction_head
from ssd_jax.models.vgg import (
    VGG16,
    L2Norm,
    conv_norm_relu,
    max_pool_3x3_stride1,
    max_pool_elementwise,
    max_pool_keeping_argmax,
)

Pool = Callable[[jax.Array], jax.Array]

SSD300 = config.Model()
SSD512 = config.Model(default_boxes=config.SSD512_VOC_BOXES, extras=config.SSD512_EXTRAS)
SMALL = tiny_config.get_config().model
SSD500 = config.Model(default_boxes=config.SSD500_VOC_BOXES, extras=config.SSD500_EXTRAS, global_pool=True)


def set_class_count(model: config.Model, count_with_background: int) -> config.Model:
    return dataclasses.replace(model, class_names=tuple(f"c{i}" for i in range(1, count_with_background)))


def get_parameter_shapes(model: config.Model) -> dict:
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    return jax.eval_shape(SSD(model).init, jax.random.key(0), images)["params"]


# The count of SSD300 with 91 classes is documented by torchvision for ssd300_vgg16, and that with 21 classes by
# OpenVINO as 26.285 M. The other counts are sums over the shapes of Caffe's layers, computed by hand.
@pytest.mark.parametrize(
    ("model", "classes", "count"),
    [
        (SSD300, 21, 26_285_486),
        (SSD300, 81, 34_305_206),
        (SSD300, 91, 35_641_826),
        (SSD300, 201, 50_344_646),
        (SSD512, 21, 27_188_676),
        (SSD512, 81, 36_038_196),
        (SSD500, 21, 26_746_511),
    ],
)
def test_init_creates_the_published_number_of_parameters(model: config.Model, classes: int, count: int) -> None:
    assert sum(leaf.size for leaf in jax.tree.leaves(get_parameter_shapes(set_class_count(model, classes)))) == count


@pytest.mark.parametrize(
    ("model", "boxes", "maps"),
    [
        (SSD300, 8732, (38, 19, 10, 5, 3, 1)),
        (SSD512, 24564, (64, 32, 16, 8, 4, 2, 1)),
        (SSD500, 20097, (63, 32, 16, 8, 4, 2, 1)),
    ],
)
def test_network_makes_one_prediction_per_default_box(model: config.Model, boxes: int, maps: tuple[int, ...]) -> None:
    model = set_class_count(model, 21)
    images = jax.ShapeDtypeStruct((2, model.image_size, model.image_size, 3), jnp.float32)
    predictions, _ = jax.eval_shape(SSD(model).init_with_output, jax.random.key(0), images)
    assert predictions.offsets.shape == (2, boxes, 4)
    assert predictions.logits.shape == (2, boxes, 21)
    assert model.feature_map_sizes == maps == model.default_boxes.feature_maps


def test_ssd300_has_the_layer_shapes_of_the_paper() -> None:
    """Figure 2 of the paper shows (300,300,3) -> ... -> (38,38,512) conv4_3 -> (19,19,1024) fc7 -> ... -> (1,1,256)."""
    model = set_class_count(SSD300, 21)

    def compute_intermediates(key: jax.Array, images: jax.Array) -> dict:
        variables = SSD(model).init(key, images)
        _, state = SSD(model).apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
        return state["intermediates"]

    shapes = jax.eval_shape(compute_intermediates, jax.random.key(0), jnp.zeros((1, 300, 300, 3)))
    expected = {
        "conv1_2": (300, 64), "conv2_2": (150, 128), "conv3_3": (75, 256), "conv4_3": (38, 512),
        "conv5_3": (19, 512), "fc6": (19, 1024), "fc7": (19, 1024),
    }  # fmt: skip
    for name, (side, channels) in expected.items():
        assert shapes["vgg"][name]["__call__"][0].shape == (1, side, side, channels), name
    for name, (side, channels) in {
        "conv6_1": (19, 256), "conv6_2": (10, 512), "conv7_1": (10, 128), "conv7_2": (5, 256),
        "conv8_1": (5, 128), "conv8_2": (3, 256), "conv9_1": (3, 128), "conv9_2": (1, 256),
    }.items():  # fmt: skip
        assert shapes[name]["__call__"][0].shape == (1, side, side, channels), name


def test_apply_prediction_head_follows_the_order_of_the_default_boxes() -> None:
    """A single non-zero pixel changes only the outputs of its cell, which are in the order row, column, box."""

    class Head(nn.Module):
        @nn.compact
        def __call__(self, feature_map: jax.Array) -> jax.Array:
            return apply_prediction_head(feature_map, "head", 4, 4, jnp.dtype("float32"))

    kernel = jnp.zeros((3, 3, 8, 16)).at[1, 1].set(1.0)
    feature_map = jnp.zeros((1, 8, 8, 8)).at[0, 2, 5].set(1.0)
    out = Head().apply({"params": {"head": {"kernel": kernel, "bias": jnp.zeros(16)}}}, feature_map)
    changed = np.flatnonzero(np.asarray(out[0, :, 0]))
    np.testing.assert_array_equal(changed, (2 * 8 + 5) * 4 + np.arange(4))


def max_pool_by_loops(x: np.ndarray, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Return the max pooling of an image in Caffe's ceil mode, computed cell by cell."""
    h, w, c = x.shape
    rows, cols = (-(-(n + 2 * pad - kernel) // stride) + 1 for n in (h, w))
    out = np.empty((rows, cols, c), x.dtype)
    for i in range(rows):
        for j in range(cols):
            top, left = i * stride - pad, j * stride - pad
            out[i, j] = x[max(top, 0) : top + kernel, max(left, 0) : left + kernel].max((0, 1))
    return out


POOLS = [(max_pool_elementwise, 2, 2), (max_pool_keeping_argmax, 2, 2), (max_pool_3x3_stride1, 3, 1)]


@pytest.mark.parametrize(("pool", "window", "stride"), POOLS)
@pytest.mark.parametrize("side", [(4, 6), (5, 7), (1, 1), (2, 3)])
def test_max_pools_equal_a_plain_loop(side: tuple[int, int], pool: Pool, window: int, stride: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, *side, 3)).astype(np.float32)
    for image, pooled in zip(x, pool(jnp.array(x)), strict=True):
        np.testing.assert_array_equal(pooled, max_pool_by_loops(image, window, stride, window - 2))


@pytest.mark.parametrize(("pool", "window", "stride"), POOLS)
def test_max_pool_gradients_equal_those_of_flax_without_ties(pool: Pool, window: int, stride: int) -> None:
    x = jax.random.permutation(jax.random.key(0), jnp.arange(2 * 5 * 7 * 3.0)).reshape(2, 5, 7, 3)

    def max_pool_with_flax(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (window, window), (stride, stride), "SAME")

    weights = jax.random.normal(jax.random.key(1), max_pool_with_flax(x).shape)
    expected, actual = (jax.grad(lambda x: jnp.sum(weights * f(x)))(x) for f in (max_pool_with_flax, pool))  # noqa: B023
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("side", [(4, 6), (5, 7), (1, 1), (2, 3)])
def test_max_pool_keeping_argmax_gives_the_gradient_to_the_first_of_equal_pixels(side: tuple[int, int]) -> None:
    x = np.random.default_rng(0).integers(-1, 2, (2, *side, 3)).astype(np.float32)
    expected = np.zeros_like(x)
    weights = np.random.default_rng(1).normal(size=max_pool_keeping_argmax(jnp.array(x)).shape).astype(np.float32)
    for b, i, j, c in np.ndindex(weights.shape):
        cell = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        row, column = np.unravel_index(cell.argmax(), cell.shape)
        expected[b, 2 * i + row, 2 * j + column, c] = weights[b, i, j, c]
    np.testing.assert_array_equal(
        jax.grad(lambda x: jnp.sum(weights * max_pool_keeping_argmax(x)))(jnp.array(x)), expected
    )


def test_max_pools_commute_with_relu() -> None:
    x = jax.random.permutation(jax.random.key(0), jnp.arange(-100, 110.0)).reshape(2, 5, 7, 3)
    a, b = (lambda x: nn.relu(max_pool_keeping_argmax(x))), (lambda x: max_pool_elementwise(nn.relu(x)))
    np.testing.assert_array_equal(a(x), b(x))
    np.testing.assert_array_equal(*(jax.grad(lambda x: jnp.sum(f(x) ** 2))(x) for f in (a, b)))  # noqa: B023


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_max_pools_propagate_infinities_and_nan(dtype: str) -> None:
    x = np.random.default_rng(0).integers(-2, 2, (2, 6, 8, 5)).astype(np.float32)
    x[x == -2] = -np.inf
    x[0, :2, :2, 0] = -np.inf
    x[0, 1, 3] = np.nan
    pooled = [
        np.asarray(pool(jnp.array(x, dtype)), np.float32) for pool in (max_pool_keeping_argmax, max_pool_elementwise)
    ]
    np.testing.assert_array_equal(*pooled)
    assert pooled[0][0, 0, 0, 0] == -np.inf and np.isnan(pooled[0][0, 0, 1]).all() and np.isnan(pooled[0]).sum() == 5


def count_checkpoints(function: Callable, *arguments: Any) -> int:
    text = str(jax.make_jaxpr(function)(*arguments))
    return text.count("checkpoint[") + text.count("remat")


def test_remat_is_applied_to_the_five_blocks_of_the_backbone() -> None:
    images = jnp.zeros((1, SMALL.image_size, SMALL.image_size, 3))
    params = jax.eval_shape(SSD(SMALL).init, jax.random.key(0), images)
    assert count_checkpoints(SSD(SMALL).apply, params, images) == 0
    assert count_checkpoints(SSD(dataclasses.replace(SMALL, remat=True)).apply, params, images) >= 5


@pytest.mark.slow  # compiles the gradient of the network twice
@pytest.mark.parametrize("norm", ["group", "none"])
def test_remat_does_not_change_loss_and_gradient(norm: str) -> None:
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    params = jax.jit(VGG16(0.125, norm).init)(jax.random.key(0, impl="rbg"), images)

    def compute_loss_and_gradient(remat: bool) -> Any:
        def compute_loss(params: Any) -> jax.Array:
            conv4_3, fc7 = VGG16(0.125, norm, remat=remat).apply(params, images)
            return (conv4_3**2).mean() + (fc7**2).mean()

        return jax.jit(jax.value_and_grad(compute_loss))(params)

    def assert_close(actual: jax.Array, expected: jax.Array) -> None:
        # Small values of a gradient are sums of large ones, so that their rounding is that of the large ones.
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5 * float(jnp.abs(expected).max()))

    jax.tree.map(assert_close, compute_loss_and_gradient(True), compute_loss_and_gradient(False))


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_precision_applies_to_every_convolution(precision: Literal["default", "high", "highest"]) -> None:
    model = dataclasses.replace(SMALL, precision=precision)
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    params = jax.eval_shape(SSD(model).init, jax.random.key(0), images)["params"]

    def compute_loss(params: Any) -> jax.Array:
        offsets, logits = SSD(model).apply({"params": params}, images)
        return offsets.sum() + logits.sum()

    precisions = Counter(re.findall(r"precision=(\S+)", str(jax.make_jaxpr(jax.grad(compute_loss))(params))))
    assert sum(precisions.values()) > 60, "the forward and the backward pass have more convolutions"
    assert all(word.strip("(,").endswith(precision.upper()) for word in precisions), precisions


def test_l2_norm_scales_each_cell_and_keeps_gradients_finite() -> None:
    """With a scale of 20, the norm of each output cell over channels is 20, or 0 if all inputs of the cell are 0."""
    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 16)).at[0, 1, 1].set(0.0)
    module = L2Norm()
    apply, variables = jax.jit(module.apply), module.init(jax.random.key(0), x)
    norms = np.linalg.norm(apply(variables, x), axis=-1)
    expected = np.full((1, 3, 3), 20.0)
    expected[0, 1, 1] = 0
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    gradient = jax.grad(lambda x: apply(variables, x).sum())(x)
    chex.assert_tree_all_finite(gradient)
    doubled = jax.tree.map(lambda s: s.at[3].mul(2), variables)
    np.testing.assert_allclose(apply(doubled, x)[..., 3], 2 * apply(variables, x)[..., 3], rtol=1e-6)


def test_strided_convolution_pads_all_sides() -> None:
    """With a stride of 2, the padding `SAME` would pad an input of even size only on the bottom and on the right."""
    x = jnp.ones((1, 10, 10, 8))

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return conv_norm_relu(x, "conv", 8, norm="none", dtype=jnp.dtype("float32"), stride=2)

    params = {"conv": {"kernel": jnp.ones((3, 3, 8, 8)), "bias": jnp.zeros(8)}}
    out = Layer().apply({"params": params}, x)[0, :, :, 0] / 8
    assert out.shape == (5, 5)
    np.testing.assert_array_equal(out[0], [4, 6, 6, 6, 6])
    np.testing.assert_array_equal(out[4], [6, 9, 9, 9, 9])


def test_images_are_normalised_by_mean_and_std() -> None:
    boxes = config.DefaultBoxes(
        image_size=64, feature_maps=(8, 4, 2), min_sizes=(8, 16, 32), max_sizes=(16, 32, 64),
        aspect_ratios=((2,), (2,), (2,)), steps=None,
    )  # fmt: skip
    mean, std = (100.0, 120.0, 90.0), (50.0, 60.0, 70.0)
    model = config.Model(class_names=("a",), default_boxes=boxes, extras=(config.Extra(32, 64),), width=0.125)
    images = 255 * jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    plain = dataclasses.replace(model, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    variables = jax.jit(SSD(plain).init)(jax.random.key(0, impl="rbg"), images)
    expected = jax.jit(SSD(plain).apply)(variables, (images - jnp.array(mean)) / jnp.array(std))
    actual = jax.jit(SSD(dataclasses.replace(model, mean=mean, std=std)).apply)(variables, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected)


@pytest.mark.parametrize(
    ("norm", "dtype"),
    [
        ("none", "float32"),
        ("group", "bfloat16"),
        pytest.param("none", "bfloat16", marks=pytest.mark.slow),
        pytest.param("group", "float32", marks=pytest.mark.slow),
    ],
)
def test_narrow_network_runs_with_every_dtype_and_norm(norm: str, dtype: str) -> None:
    boxes = config.DefaultBoxes(
        image_size=64, feature_maps=(8, 4, 2), min_sizes=(8, 16, 32), max_sizes=(16, 32, 64),
        aspect_ratios=((2,), (2,), (2,)), steps=None,
    )  # fmt: skip
    model = config.Model(
        class_names=("a", "b"), default_boxes=boxes, extras=(config.Extra(32, 64),), width=0.125,
        norm=norm, dtype=dtype,
    )  # fmt: skip
    images = 255 * jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    variables = jax.jit(SSD(model).init)(jax.random.key(0, impl="rbg"), images)
    predictions = jax.jit(SSD(model).apply)(variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, predictions))} == {jnp.dtype("float32")}
    chex.assert_tree_all_finite(predictions)
    assert predictions.logits.shape == (2, boxes.count, 3)
    if norm == "group":
        # Before training from scratch, all offsets are 0, and background is three times as likely as an object.
        np.testing.assert_array_equal(predictions.offsets, 0)
        expected = jnp.broadcast_to(jnp.float32([0.75, 0.125, 0.125]), predictions.logits.shape)
        # The precision of bfloat16 allows no lower tolerance.
        np.testing.assert_allclose(jax.nn.softmax(predictions.logits), expected, rtol=1e-2)
        predictions = jax.jit(SSD(model).apply)(randomize_predictors(variables), images)
    assert 0.01 < float(predictions.logits.std()) < 20  # activations neither vanish nor explode
    spread = jnp.abs(predictions.logits[0] - predictions.logits[1]).mean()
    assert spread > 1e-3  # the outputs depend on the image


def test_config_rejects_feature_maps_that_the_network_does_not_produce() -> None:
    with pytest.raises(UserError, match=r"default_boxes\.feature_maps"):
        config.Model(default_boxes=config.DefaultBoxes(feature_maps=(37, 19, 10, 5, 3, 1)))
