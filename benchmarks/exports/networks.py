"""The networks whose exported files are compared."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ssd_jax.config import Config, Model
from ssd_jax.errors import UserError
from ssd_jax.files import write_text
from ssd_jax.model_zoo.model_folder import write_model_folder
from ssd_jax.models.parameters import BOX_PREDICTOR, CLASS_PREDICTOR, Params, compute_parameter_shapes, nest_parameters
from ssd_jax.runs.config_file import load_config
from ssd_jax.weights.exporting import find_export_mapping, make_torchvision_code, to_tensors
from ssd_jax.weights.formats.safetensors_file import write_safetensors
from ssd_jax.weights.presets import COCO_NAMES_BY_ID, PRESETS, SSD300, choose_default_boxes, make_config

BUNDLED = MappingProxyType({"own_data": "blood-cells", "shapes": "shapes"})
"""Names in the catalog of the trained networks of the configs ``own_data`` and ``shapes``."""
BACKGROUND_BIAS = 8
"""Logit of background, so that most boxes are background, as in a trained network."""
LOGIT_STD = 2.0
OFFSET_STD = 1.0


def make_imported_config() -> Config:
    """Return the config of torchvision's SSD300 for COCO, as `import-weights` makes it."""
    preset = PRESETS["torchvision"]
    boxes = choose_default_boxes(preset, SSD300, len(COCO_NAMES_BY_ID), None)
    return make_config("torchvision_ssd300", SSD300.make_model(boxes, COCO_NAMES_BY_ID), preset)


RANDOM: Mapping[str, Callable[[], Config]] = MappingProxyType({
    "ssd300": lambda: load_config("ssd300_voc"),
    "ssd512": lambda: load_config("ssd512_voc"),
    "torchvision": make_imported_config,
})  # fmt: skip
"""Functions that return the configs of the networks with random weights."""
NETWORKS = ("ssd300", "ssd512", *BUNDLED, "torchvision")


def make_random_params(model: Model) -> Params:
    """Return random parameters of a network without normalization that preserve the scale of the activations.

    The standard deviation of the logits is about 2, and that of the offsets about 1.
    """
    rng = np.random.default_rng(0)
    params = {}
    for path, shape in compute_parameter_shapes(model).items():
        layer, kind = path.rsplit("/", 1)
        if kind == "scale":  # of conv4_3_norm
            params[path] = np.full(shape, 20, np.float32)
        elif kind == "bias":
            bias = np.zeros(shape, np.float32)
            if layer.endswith(CLASS_PREDICTOR):
                bias.reshape(-1, model.num_classes)[:, 0] = BACKGROUND_BIAS
            params[path] = bias
        else:
            inputs = np.prod(shape[:3])
            # The mean of the squares of the inputs is 1 behind a ReLU, and 20^2 / channels behind conv4_3_norm.
            std = np.sqrt(2 / inputs)
            if layer.endswith((BOX_PREDICTOR, CLASS_PREDICTOR)):
                std = (OFFSET_STD if layer.endswith(BOX_PREDICTOR) else LOGIT_STD) / np.sqrt(inputs)
                std *= np.sqrt(shape[2]) / 20 if layer.startswith("conv4_3_norm") else 1
            elif layer.endswith("conv1_1"):
                std /= 60  # about the standard deviation of pixels
            params[path] = (std * rng.standard_normal(shape, np.float32)).astype(np.float32)
    return nest_parameters(params)


def prepare_network(name: str, folder: Path) -> tuple[str, Path | None]:
    """Return what names a network in commands, after writing it if it has random weights.

    Args:
        name: One of `NETWORKS`.
        folder: Folder to write into.

    Returns:
        A model folder or a name in the catalog, and a file of Python code that makes the same network with torchvision,
        or None if torchvision has no such network.
    """
    if name in BUNDLED:
        return BUNDLED[name], None
    config = RANDOM[name]()
    if not config.model.class_names:
        names = tuple(f"class {number}" for number in range(1, 21))
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=names))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, root="", max_image_size=640))
    params = make_random_params(config.model)
    model_folder = folder / name
    write_model_folder(config, params, 0, model_folder, dtype="float32", card="Random weights.\n")
    try:
        mapping = find_export_mapping(config.model, "torchvision")
    except UserError:
        return str(model_folder), None
    weights, code = folder / f"{name}.safetensors", folder / f"{name}_torchvision.py"
    write_safetensors(weights, to_tensors(params, mapping))
    write_text(code, make_torchvision_code(config, str(weights.absolute())))
    return str(model_folder), code
