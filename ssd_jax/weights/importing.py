"""Import published weight files as a config and parameters, and write both to a run folder."""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import msgspec
import numpy as np
from flax.traverse_util import unflatten_dict

from ssd_jax import files
from ssd_jax.config import Config, DefaultBoxes
from ssd_jax.errors import UserError
from ssd_jax.exported.reading import find_format
from ssd_jax.models.parameters import BLOCKS, CLASS_PREDICTOR, Params, Shape, compute_parameter_shapes
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.weights import presets
from ssd_jax.weights.formats.caffe_file import PriorBox
from ssd_jax.weights.formats.weight_file import WeightFile, read_weights
from ssd_jax.weights.key_mappings import TORCHVISION_FEATURES, KeyMapping, find_key_mapping
from ssd_jax.weights.presets import (
    PRESETS,
    SSD300,
    Network,
    Scales,
    make_numbered_classes,
)

# Minimum similarity of a file and its key mapping. Files of unsupported networks are less similar to every mapping.
_MIN_SIMILARITY = 0.5
Tensors = Mapping[str, np.ndarray]


class Imported(NamedTuple):
    """Imported weights, and the config to use them with."""

    mapping: KeyMapping
    """Key mapping of the file."""
    config: Config
    """Config with the project's settings. The config of a backbone has no class names."""
    params: Params
    """Parameters as float32 arrays. Those of a backbone are only ``{"vgg": ...}``, possibly without fc6 and fc7."""


def import_weights(
    file: Path, *, class_names: Sequence[str] | None = (), scales: Scales | None = None, bgr: bool | None = None
) -> Imported:
    """Load the weight file of a published detector or backbone. The project is recognised from the keys of the file.

    Args:
        file: Weight file: .pth, .safetensors, .caffemodel or .h5.
        class_names: Class names without background, in the order of the labels. If empty, the names of VOC, COCO or
            ILSVRC are used, depending on the number of classes; a detector with another number of classes needs names.
            None: the names do not matter, and the classes are named "1", "2", ...
        scales: Data set whose scales the default boxes have. None: the scales that the project uses for this number of
            classes.
        bgr: Whether the input channels of conv1_1 in the file are blue, green, red. None: the project's usual order.

    Returns:
        The key mapping of the file, the config to use the weights with, and the parameters with our names and axes.

    Raises:
        UserError: If the file cannot be read, belongs to no known project, or has tensors that are missing, unexpected
            or of a wrong shape. The message lists all of these tensors.
    """
    if find_format(file) is not None:
        raise UserError(f"{file}: is an exported file, which can only detect. Name the weights that it was made from")
    weights = read_weights(file)
    mapping = _find_mapping(file, weights)
    preset = PRESETS[mapping.project]
    network = mapping.network or SSD300
    width = _find_width(mapping, weights.tensors)
    class_count = _count_classes(mapping, weights.tensors)
    boxes = presets.choose_default_boxes(preset, network, class_count, scales)
    expected = compute_parameter_shapes(network.make_model(boxes, make_numbered_classes(class_count), width))
    _check_tensors(file, mapping, weights.tensors, expected)
    flat = {path: conversion.load(weights.tensors[key]) for path, (key, conversion) in mapping.entries.items()}
    if bgr is not None and bgr != mapping.bgr:
        flat["vgg/conv1_1/kernel"] = flat["vgg/conv1_1/kernel"][:, :, ::-1]
    names: tuple[str, ...] = ()
    if mapping.network is None:
        if class_names or scales:
            raise UserError(f"{file}: is a VGG16 without predictors, so class names and scales cannot be set")
    else:
        names = presets.choose_class_names(file, class_count, class_names)
        boxes = boxes if scales else _read_stored_default_boxes(file, network, boxes, weights.priors)
    config = presets.make_config(file.stem, network.make_model(boxes, names, width), preset)
    params = {path: np.ascontiguousarray(value, np.float32) for path, value in flat.items()}
    return Imported(mapping, config, unflatten_dict(params, sep="/"))


def write_run(imported: Imported, folder: Path) -> None:
    """Write imported weights to a new run folder, with one checkpoint at step 0.

    If an error occurs, the incomplete folder is removed.
    """
    write_params_as_run(imported.config, imported.params, 0, folder)


def write_params_as_run(config: Config, params: Params, step: int, folder: Path) -> None:
    """Write the parameters of a network to a new run folder, as the checkpoint of a step.

    If an error occurs, the incomplete folder is removed.
    """
    with files.convert_write_errors(folder, "Name another --out."):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with Checkpoints(folder / "checkpoints", for_writing=True) as checkpoints:
            checkpoints.save(step, {"params": params}, {"config": msgspec.to_builtins(config)})
        files.write_text(folder / "config.json", run_folder.config_to_json(config))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _find_mapping(file: Path, weights: WeightFile) -> KeyMapping:
    """Return the key mapping that fits a file. Raises UserError if no mapping is similar enough."""
    shapes = {key: tuple(value.shape) for key, value in weights.tensors.items()}
    mapping, similarity = find_key_mapping(shapes, weights.kind)
    if similarity < _MIN_SIMILARITY:
        examples = ", ".join(list(shapes)[:5])
        raise UserError(
            f"{file}: has the keys of no supported SSD or VGG16. It contains {len(shapes)} tensors: "
            f"{examples}{', ...' if len(shapes) > 5 else ''}. docs/weights.md lists what can be imported"
        )
    if mapping.project == "torchvision_vgg16":
        tensors = [weights.tensors[key] for key, _ in mapping.entries.values() if key in weights.tensors]
        if not all(np.isfinite(tensor).all() for tensor in tensors):
            return TORCHVISION_FEATURES
    return mapping


def _find_width(mapping: KeyMapping, tensors: Tensors) -> float:
    """Return the number of channels of conv1_1 as a multiple of VGG16's, or 1 if conv1_1 is missing."""
    bias = tensors.get(mapping.entries["vgg/conv1_1/bias"].key, np.zeros(0))
    (_, channels), *_ = BLOCKS[0]
    return bias.size / channels or 1.0


def _count_classes(mapping: KeyMapping, tensors: Tensors) -> int:
    """Return the number of classes, without background, that most class predictors have, or 1 for a backbone."""
    if mapping.network is None:
        return 1
    counts: Counter[int] = Counter()
    for name, boxes in zip(mapping.network.feature_maps, mapping.network.boxes_per_cell, strict=True):
        bias = tensors.get(mapping.entries[f"{name}{CLASS_PREDICTOR}/bias"].key)
        if bias is not None and bias.size % boxes == 0 and bias.size >= 2 * boxes:
            counts[bias.size // boxes - 1] += 1
    return counts.most_common(1)[0][0] if counts else 1


def _check_tensors(file: Path, mapping: KeyMapping, tensors: Tensors, expected: Mapping[str, Shape]) -> None:
    """Raise UserError with a list of all tensors that are missing, unexpected or have wrong shapes, types or values."""
    shapes = {key: conversion.shape(expected[path]) for path, (key, conversion) in mapping.entries.items()}
    problems = [f"missing     {key} {shape}" for key, shape in shapes.items() if key not in tensors]
    for key, value in tensors.items():
        if key not in shapes:
            if not mapping.ignores(key):
                problems.append(f"unexpected  {key} {value.shape}")
        elif value.shape != shapes[key]:
            problems.append(f"shape       {key} {value.shape}, expected {shapes[key]}")
        elif not (np.issubdtype(value.dtype, np.floating) or value.dtype == ml_dtypes.bfloat16):
            problems.append(f"type        {key} {value.dtype}, expected floats")
        elif not np.isfinite(value).all():
            problems.append(f"not finite  {key} contains NaN or infinity")
    if problems:
        listing = (f"  {problem}" for problem in problems)
        raise UserError(f"{file}: looks like {mapping.title}, but these tensors do not fit:", *listing)


def _read_stored_default_boxes(
    file: Path, network: Network, published: DefaultBoxes, priors: Mapping[str, PriorBox]
) -> DefaultBoxes:
    """Return the default boxes stored in a Caffe snapshot, or ``published`` if those of a feature map are missing."""
    layers = [priors.get(f"{name}_mbox_priorbox") for name in network.feature_maps]
    stored = [prior for prior in layers if prior is not None]
    if len(stored) < len(layers):
        return published
    image_sizes = {None, published.image_size}
    for prior in stored:
        one_size = len(prior.min_sizes) == 1 and len(prior.max_sizes) <= 1
        like_first = (prior.clip, prior.variances) == (stored[0].clip, stored[0].variances)
        if not (one_size and like_first and prior.flip and prior.offset == 0.5 and prior.image_size in image_sizes):
            raise UserError(
                f"{file}: has default boxes that are not supported: {prior}. Use --scales to take the published ones"
            )
    steps = tuple(prior.step for prior in stored if prior.step is not None)
    return dataclasses.replace(
        published,
        min_sizes=tuple(prior.min_sizes[0] for prior in stored),
        max_sizes=tuple(prior.max_sizes[0] if prior.max_sizes else None for prior in stored),
        aspect_ratios=tuple(prior.aspect_ratios for prior in stored),
        steps=steps if len(steps) == len(stored) else None,
        clip="corners" if stored[0].clip else "none",
        variances=stored[0].variances,  # type: ignore[arg-type]
    )
