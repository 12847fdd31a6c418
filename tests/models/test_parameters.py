"""Tests of the shapes of the parameters, and of kernels that are standardized before detection."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.tiny_detector import MODEL, make_random_params

from ssd_jax import config
from ssd_jax.models.parameters import compute_parameter_shapes, standardize_kernels
from ssd_jax.models.ssd import SSD

MODELS = {
    "ssd300": config.Model(class_names=("a", "b")),
    "ssd512": config.Model(
        class_names=("a",), default_boxes=config.SSD512_COCO_BOXES, extras=config.SSD512_EXTRAS, width=0.5
    ),
    "ssd500": config.Model(
        class_names=("a",), default_boxes=config.SSD500_VOC_BOXES, extras=config.SSD500_EXTRAS, global_pool=True
    ),
    "tiny": MODEL,
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_compute_parameter_shapes_equals_the_shapes_of_the_initial_parameters(model: config.Model) -> None:
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    params = jax.eval_shape(SSD(model).init, jax.random.key(0), images)["params"]
    expected = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
    assert dict(compute_parameter_shapes(model)) == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_network_with_standardized_kernels_makes_the_same_predictions(dtype: str, tolerance: float) -> None:
    model = dataclasses.replace(MODEL, dtype=dtype)
    params = make_random_params(model)
    images = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    expected = jax.jit(SSD(model).apply)({"params": params}, images)
    actual = jax.jit(SSD(model, is_standardized=True).apply)({"params": standardize_kernels(params, model)}, images)
    for one, other in zip(actual, expected, strict=True):
        assert np.abs(np.asarray(other)).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_standardize_kernels_keeps_the_parameters_of_a_network_without_norm() -> None:
    model = dataclasses.replace(MODEL, norm="none")
    params = make_random_params(model)
    assert standardize_kernels(params, model) is params
