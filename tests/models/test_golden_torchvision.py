"""Tests of SSD300 against numbers that torchvision's ssd300_vgg16 computed from the same weights and images.

tests/assets/golden/make_torchvision.py wrote these numbers. If torch is installed, tests/parity makes more comparisons.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.paths import ASSETS
from helpers.torchvision_ssd import (
    GOLDEN_DETECTION_IMAGE,
    GOLDEN_IMAGE,
    GOLDEN_SCENE_SEED,
    GOLDEN_WEIGHTS_SEED,
    L2_NORM,
    assert_same_detections,
    draw_random_rows,
    list_layers,
    make_random_image,
    make_random_scene,
    make_random_state_dict,
    make_torchvision_config,
    to_params,
)

from ssd_jax.inference.detections import to_image_detections
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.boxes import cxcywh_to_xyxy
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.loss import multibox_loss
from ssd_jax.ops.matching import Targets, match
from ssd_jax.runtime import compilation, sharding

# These programs are large, and run for longer than they compile.
pytestmark = pytest.mark.usefixtures("full_optimization")

CONFIG = make_torchvision_config()
DEFAULT_BOXES = make_default_boxes(CONFIG.model.default_boxes)


@pytest.fixture(scope="module")
def golden_results() -> dict[str, np.ndarray]:
    with np.load(ASSETS / "golden" / "torchvision_ssd300.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return to_params(make_random_state_dict(GOLDEN_WEIGHTS_SEED))


def test_default_boxes_equal_torchvision(golden_results):
    actual = draw_random_rows(np.asarray(cxcywh_to_xyxy(DEFAULT_BOXES)), 400)
    np.testing.assert_allclose(actual, golden_results["default_boxes_xyxy"], rtol=0, atol=3e-7)


@pytest.fixture(scope="module")
def ssd_outputs(params) -> tuple[Any, Any]:
    """Return the predictions for an image, and the outputs of all layers."""

    def run_and_capture(params: Any, images: Any) -> Any:
        return SSD(CONFIG.model).apply({"params": params}, images, capture_intermediates=True, mutable="intermediates")

    image = make_random_image(*GOLDEN_IMAGE)[None].astype(np.float32)
    compiled = jax.jit(run_and_capture, compiler_options=compilation.compiler_options())
    return sharding.fetch(compiled(params, image))


def compute_golden_targets() -> Targets:
    boxes, labels = make_random_scene(GOLDEN_SCENE_SEED)
    return jax.jit(match)(boxes / 300, labels, DEFAULT_BOXES)


def test_layers_and_predictions_equal_torchvision(golden_results, ssd_outputs):
    """Each layer is compared separately, so that a failure names the layer that differs."""
    predictions, captured = ssd_outputs
    for name, moments, expected_samples in zip(
        golden_results["layer_names"], golden_results["layer_moments"], golden_results["layer_samples"], strict=True
    ):
        output = captured["intermediates"]
        for part in (*name.split("/"), "__call__"):
            output = output[part]
        x = output[0][0] if "mbox" in name else np.maximum(output[0][0], 0)
        tolerance = 1e-5 * moments[1]  # relative to the root mean square
        actual = x.mean(dtype=np.float64), np.sqrt(np.square(x, dtype=np.float64).mean())
        np.testing.assert_allclose(actual, moments, rtol=0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(
            draw_random_rows(x.ravel(), 32), expected_samples, rtol=0, atol=10 * tolerance, err_msg=name
        )
    for name in ("logits", "offsets"):
        expected = golden_results[name]
        actual = draw_random_rows(getattr(predictions, name)[0], len(expected))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * abs(expected).max(), err_msg=name)


def test_matching_and_loss_equal_torchvision(golden_results, ssd_outputs):
    labels = make_random_scene(GOLDEN_SCENE_SEED)[1]
    targets = compute_golden_targets()
    expected = np.where(golden_results["matched"] >= 0, labels[golden_results["matched"]], 0)
    np.testing.assert_array_equal(targets.labels, expected)
    loss, parts = jax.jit(multibox_loss)(*ssd_outputs[0], jax.tree.map(lambda leaf: leaf[None], targets))
    assert parts["loc_loss"] == pytest.approx(golden_results["loc_loss"], rel=1e-5)
    assert parts["conf_loss"] == pytest.approx(golden_results["conf_loss"], rel=1e-5)
    assert loss == pytest.approx(golden_results["loc_loss"] + golden_results["conf_loss"], rel=1e-5)


def test_detections_in_a_resized_image_equal_torchvision(golden_results, params):
    image = make_random_image(*GOLDEN_DETECTION_IMAGE)
    height, width = image.shape[:2]
    program = make_predict_fn(CONFIG, sharding.single_device_mesh())
    detections = program(params, image[None], np.array([height], np.int32), np.array([width], np.int32))
    actual = to_image_detections(sharding.fetch(detections), 0, width, height)
    expected = [golden_results[f"found_{name}"] for name in ("boxes", "scores", "labels")]
    assert len(expected[1]) == 200 and len(set(expected[2])) > 20
    assert_same_detections(actual, expected)


@pytest.mark.slow
def test_loss_and_gradient_equal_torchvision(golden_results, params):
    """torchvision's gradient was computed in float64.

    Before a ReLU, a few activations near zero have another sign in float32 than in float64. Each of them changes the
    gradient of the layers before it by up to a thousandth. The tolerance is lower for the predictors and L2Norm, which
    come after the last ReLU.
    """
    targets = compute_golden_targets()

    def compute_loss(params: Any, images: Any) -> Any:
        predictions = SSD(CONFIG.model).apply({"params": params}, images)
        return multibox_loss(*predictions, jax.tree.map(lambda leaf: leaf[None], targets))

    step = jax.jit(jax.value_and_grad(compute_loss, has_aux=True), compiler_options=compilation.compiler_options())
    image = make_random_image(*GOLDEN_IMAGE)[None].astype(np.float32)
    (loss, parts), gradient = sharding.fetch(step(params, jnp.asarray(image)))
    assert parts["loc_loss"] == pytest.approx(golden_results["loc_loss"], rel=1e-5)
    assert parts["conf_loss"] == pytest.approx(golden_results["conf_loss"], rel=1e-5)
    assert loss == pytest.approx(golden_results["loc_loss"] + golden_results["conf_loss"], rel=1e-5)

    actual = {L2_NORM: gradient["conv4_3_norm"]["scale"]}
    for name, (stem, *_) in list_layers().items():
        group, _, layer = name.rpartition("/")
        leaves = (gradient[group] if group else gradient)[layer]
        actual |= {f"{stem}.weight": leaves["kernel"].transpose(3, 2, 0, 1), f"{stem}.bias": leaves["bias"]}
    assert sorted(actual) == golden_results["gradient_names"].tolist()
    for name, norm, expected_samples in zip(
        golden_results["gradient_names"],
        golden_results["gradient_norms"],
        golden_results["gradient_samples"],
        strict=True,
    ):
        after_last_relu = name.startswith("head.") or name == L2_NORM
        assert np.linalg.norm(np.float64(actual[name])) == pytest.approx(norm, rel=1e-5 if after_last_relu else 5e-3), (
            name
        )
        typical = norm / np.sqrt(actual[name].size)
        tolerance = (1e-3 if after_last_relu else 5e-2) * max(typical, abs(expected_samples).max())
        np.testing.assert_allclose(
            draw_random_rows(actual[name].ravel(), 32), expected_samples, rtol=0, atol=tolerance, err_msg=name
        )
