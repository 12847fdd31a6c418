"""Tests of whole ONNX models, from pixels to boxes, against the detection program of this package."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from helpers import tiny_detector
from helpers.onnx_models import run_model
from onnx import checker

from ssd_jax.config import Config, DefaultBoxes, Detect, Extra, Model
from ssd_jax.export.network import ExportOptions, make_network
from ssd_jax.export.onnx_model import make_onnx_model
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.models.parameters import Params
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.boxes import decode_boxes
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.resample import resize
from ssd_jax.runtime import sharding

# Odd sizes at every pool, as in SSD300 and SSD500, a stride of 1 without padding, a kernel of 4, and pool6.
ODD_BOXES = DefaultBoxes(
    image_size=75, feature_maps=(10, 5, 3, 2, 1), min_sizes=(8, 16, 24, 32, 40), max_sizes=(None, 24, 32, 40, 60),
    aspect_ratios=((2,), (2, 3), (2,), (), (3,)), steps=None, clip="corners",
)  # fmt: skip
ODD_MODEL = Model(
    class_names=("a", "b", "c"), default_boxes=ODD_BOXES, width=0.125, global_pool=True, mean=(120, 110, 100),
    extras=(Extra(16, 24), Extra(16, 32, kernel=4, stride=1)), norm="none", std=(50, 60, 70),
)  # fmt: skip
MODELS = {
    "group_norm": tiny_detector.MODEL,
    "no_norm": dataclasses.replace(tiny_detector.MODEL, norm="none"),
    "odd_sizes": ODD_MODEL,
}


@cache
def make_case(name: str) -> tuple[Config, Params]:
    """Return a config and random parameters, with which scores are neither all equal nor close to 0 or 1."""
    model = MODELS[name]
    params = tiny_detector.make_random_params(model)
    if model.norm == "none":  # keep the scale of the activations
        params = jax.tree.map(lambda leaf: (leaf - 0.1) * 5 / np.sqrt(leaf.size / leaf.shape[-1]), params)
    return Config(name="tiny", model=model, detect=Detect(max_detections=50)), params


def make_model(config: Config, params: Params, **options: Any) -> Any:
    return make_onnx_model(make_network(config, params, 0, ExportOptions(**options)))


def make_images(batch: int, height: int, width: int) -> np.ndarray:
    """Return images of random colored blocks, whose features differ more than those of noise."""
    blocks = np.random.default_rng(1).integers(0, 256, (batch, height // 9 + 1, width // 7 + 1, 3), dtype=np.uint8)
    return blocks.repeat(9, axis=1).repeat(7, axis=2)[:, :height, :width]


@cache
def make_program(config: Config) -> Callable[..., Any]:
    return make_predict_fn(config, sharding.single_device_mesh())


def predict(config: Config, params: Params, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of this package's program, in the form of an exported file."""
    _, height, width, _ = images.shape
    canvases = np.zeros((len(images), 1, 512, 512, 3), np.uint8)  # all tests compile one program for a config
    canvases[:, 0, :height, :width] = images
    sizes = [np.array([length], np.int32) for length in (height, width)]
    outputs = [make_program(config)(params, canvas, *sizes) for canvas in canvases]
    boxes, scores, labels, valid = (np.concatenate(field) for field in zip(*outputs, strict=True))
    to_pixels = np.array([width, height, width, height], np.float32)
    return {"boxes": boxes * to_pixels, "scores": scores, "labels": labels, "count": valid.sum(1)}


def assert_same_detections(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(found["count"], expected["count"])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.1)
    assert found["count"].min() > 10 and np.ptp(found["scores"]) > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_model_returns_the_same_detections(name: str):
    config, params = make_case(name)
    model = make_model(config, params)
    images = make_images(3, 90, 64)
    assert_same_detections(run_model(model, images=images), predict(config, params, images))


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 20, 31), (2, 33, 500), (1, 1, 1), (1, 256, 256)])
def test_model_resizes_images_of_any_size_like_the_program(shape: tuple[int, int, int]):
    config, params = make_case("group_norm")
    images = make_images(*shape)
    assert_same_detections(run_model(make_model(config, params), images=images), predict(config, params, images))


@pytest.mark.parametrize("name", MODELS)
def test_model_without_nms_returns_all_boxes_and_probabilities(name: str):
    config, params = make_case(name)
    images = make_images(2, 40, 80)
    found = run_model(make_model(config, params, nms=False), images=images)
    small = np.stack([resize(image, config.model.image_size) for image in images])
    offsets, logits = jax.jit(SSD(config.model).apply)({"params": params}, small)
    boxes = [decode_boxes(image, make_default_boxes(config.model.default_boxes)) for image in offsets]
    np.testing.assert_allclose(found["boxes"], np.array(boxes) * [80, 40, 80, 40], rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(found["scores"], jax.nn.softmax(logits)[..., 1:], atol=1e-4)
    assert set(found) == {"boxes", "scores"}


def test_model_with_half_weights_computes_with_the_rounded_kernels():
    config, params = make_case("no_norm")
    images = make_images(1, 32, 32)
    half, full = (make_model(config, params, half=half) for half in (True, False))
    assert half.ByteSize() < 0.6 * full.ByteSize()
    rounded = jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), params)
    assert_same_detections(run_model(half, images=images), predict(config, rounded, images))


def test_model_with_a_fixed_batch_says_so_in_its_shapes():
    config, params = make_case("group_norm")
    model = make_model(config, params, batch=2)
    found = run_model(model, images=make_images(2, 32, 40))
    assert found["boxes"].shape == (2, 50, 4)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [2, 0, 0, 3]
    assert [d.dim_value for d in model.graph.output[1].type.tensor_type.shape.dim] == [2, 50]


def test_model_uses_only_operators_and_versions_that_runtimes_since_2023_have():
    model = make_model(*make_case("odd_sizes"))
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    checker.check_model(model, full_check=True)


def test_names_of_the_weights_are_the_paths_of_the_parameters():
    model = make_model(*make_case("group_norm"))
    names = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert names["vgg/conv1_1/kernel"] == (8, 3, 3, 3)
    assert names["vgg/conv1_1_group_norm/scale"] == (8, 1, 1)
    assert names["fc7_mbox_conf/bias"] == (12,)
