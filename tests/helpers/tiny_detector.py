"""A network of 32 px with random parameters, which compiles in about a second and needs no training."""

import dataclasses

import numpy as np

from ssd_jax import config
from ssd_jax.inference.detector import Detector
from ssd_jax.models.parameters import Params, compute_parameter_shapes, nest_parameters

# The last feature map is a single cell, as in SSD300.
BOXES = config.DefaultBoxes(
    image_size=32, feature_maps=(4, 2, 1), min_sizes=(4, 8, 16), max_sizes=(8, 16, 30), aspect_ratios=((2,),) * 3,
    steps=None,
)  # fmt: skip
MODEL = config.Model(
    class_names=("a", "b"), default_boxes=BOXES, extras=(config.Extra(16, 16),), width=0.125, norm="group"
)
CONFIG = config.Config(name="tiny", model=MODEL, data=config.Data(max_image_size=64))


def make_random_params(model: config.Model = MODEL) -> Params:
    """Return random parameters, which are the same in every call."""
    rng = np.random.default_rng(0)
    shapes = compute_parameter_shapes(model).items()
    return nest_parameters({path: rng.normal(0.1, 0.2, shape).astype(np.float32) for path, shape in shapes})


def make_detector(**detect: object) -> Detector:
    """Return a detector with random parameters and with options of `config.Detect`."""
    settings = dataclasses.replace(CONFIG, detect=config.Detect(**detect))  # type: ignore[arg-type]
    return Detector.from_params(settings, make_random_params(), 0)
