"""A weight file of any known layout to our config and parameters, and from there to a folder as of a run."""

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
from ssd_jax.models.ssd import CLASS_PREDICTOR, Params
from ssd_jax.models.vgg import BLOCKS
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.weights import origins
from ssd_jax.weights.formats.caffe_file import Prior
from ssd_jax.weights.formats.weight_file import WeightFile, read_weights
from ssd_jax.weights.key_mappings import FEATURES, Layout, find_layout
from ssd_jax.weights.networks import SSD300, Network, Shape, numbered, parameter_shapes
from ssd_jax.weights.origins import ORIGINS, Scales

# Files of other networks share fewer keys with any layout.
_LEAST_LIKENESS = 0.5
Tensors = Mapping[str, np.ndarray]


class Imported(NamedTuple):
    """A file as this program would have written it."""

    layout: Layout
    config: Config
    """Without classes: a trunk alone."""
    params: Params
    """float32 numpy arrays; of a trunk ``{"vgg": ...}``, which may lack fc6 and fc7."""


def import_weights(
    file: Path, *, class_names: Sequence[str] | None = (), scales: Scales | None = None, bgr: bool | None = None
) -> Imported:
    """The detector or trunk in a file, whose layout is found from its keys.

    class_names: without background, of a detector of other classes than VOC, COCO or ILSVRC. None: they do not
        matter, and are numbers.
    scales: of the default boxes, where they are not those of its classes.
    bgr: whether conv1_1 takes blue, green, red. None: as its project does.

    Raises UserError where the file can't be read or its layout is none that is known, and listing
    every tensor that is missing, of another shape or too many.
    """
    weights = read_weights(file)
    layout = _layout(file, weights)
    network = layout.network or SSD300
    width = _width(layout, weights.tensors)
    classes = _count_classes(layout, weights.tensors)
    boxes = origins.default_boxes(ORIGINS[layout.project], network, classes, scales)
    expected = parameter_shapes(network.model(boxes, numbered(classes), width))
    _check(file, layout, weights.tensors, expected)
    flat = {path: entry.load(weights.tensors[entry.key]) for path, entry in layout.entries.items()}
    if bgr is not None and bgr != layout.bgr:
        flat["vgg/conv1_1/kernel"] = flat["vgg/conv1_1/kernel"][:, :, ::-1]
    names: tuple[str, ...] = ()
    if layout.network is None:
        if class_names or scales:
            raise UserError(f"{file}: VGG16 alone, without predictors: it has neither class names nor scales")
    else:
        names = origins.class_names(file, classes, class_names)
        boxes = boxes if scales else _boxes_of_priors(file, network, boxes, weights.priors)
    config = origins.make_config(file.stem, network.model(boxes, names, width), ORIGINS[layout.project])
    params = {path: np.ascontiguousarray(value, np.float32) for path, value in flat.items()}
    return Imported(layout, config, unflatten_dict(params, sep="/"))


def write_run(imported: Imported, folder: Path) -> None:
    """As the folder of a run whose only checkpoint is of step 0. What can't be written whole is taken away again."""
    with files.user_errors_on_write(folder, "Name another --out."):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with Checkpoints(folder / "checkpoints", for_writing=True) as checkpoints:
            checkpoints.save(0, {"params": imported.params}, {"config": msgspec.to_builtins(imported.config)})
        files.write_text(folder / "config.json", run_folder.config_to_json(imported.config))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _layout(file: Path, weights: WeightFile) -> Layout:
    shapes = {key: tuple(value.shape) for key, value in weights.tensors.items()}
    layout, likeness = find_layout(shapes, weights.kind)
    if likeness < _LEAST_LIKENESS:
        some = ", ".join(list(shapes)[:5])
        raise UserError(
            f"{file}: neither an SSD on VGG16 nor a VGG16 in a layout that is known here. It holds {len(shapes)} "
            f"tensors: {some}{', ...' if len(shapes) > 5 else ''}"
        )
    classifier = [weights.tensors[entry.key] for entry in layout.entries.values() if entry.key in weights.tensors]
    if layout.project == "torchvision_vgg16" and not all(np.isfinite(tensor).all() for tensor in classifier):
        return FEATURES
    return layout


def _width(layout: Layout, tensors: Tensors) -> float:
    """Of the network: conv1_1's channels over VGG16's; where they can't be told, 1."""
    bias = tensors.get(layout.entries["vgg/conv1_1/bias"].key, np.zeros(0))
    (_, channels), *_ = BLOCKS[0]
    return bias.size / channels or 1.0


def _count_classes(layout: Layout, tensors: Tensors) -> int:
    """Without background: what most predictors of classes say; of a trunk, or where none tells, 1."""
    if layout.network is None:
        return 1
    counts: Counter[int] = Counter()
    for source, boxes in zip(layout.network.sources, layout.network.boxes_per_cell, strict=True):
        bias = tensors.get(layout.entries[f"{source}{CLASS_PREDICTOR}/bias"].key)
        if bias is not None and bias.size % boxes == 0 and bias.size >= 2 * boxes:
            counts[bias.size // boxes - 1] += 1
    return counts.most_common(1)[0][0] if counts else 1


def _check(file: Path, layout: Layout, tensors: Tensors, expected: Mapping[str, Shape]) -> None:
    """Raises UserError listing every tensor that does not fit."""
    wanted = {entry.key: entry.shape(expected[path]) for path, entry in layout.entries.items()}
    lines = [f"missing    {key} {shape}" for key, shape in wanted.items() if key not in tensors]
    for key, value in tensors.items():
        if key not in wanted:
            if not layout.ignores(key):
                lines.append(f"too many   {key} {value.shape}")
        elif value.shape != wanted[key]:
            lines.append(f"misshapen  {key} {value.shape}, {wanted[key]} expected")
        elif not (np.issubdtype(value.dtype, np.floating) or value.dtype == ml_dtypes.bfloat16):
            lines.append(f"no floats  {key} {value.dtype}")
        elif not np.isfinite(value).all():
            lines.append(f"infinite   {key} holds values that are not finite")
    if lines:
        listing = "\n  ".join(lines)
        raise UserError(f"{file}: looks like {layout.title}, but its tensors do not fit:\n  {listing}")


def _boxes_of_priors(
    file: Path, network: Network, published: DefaultBoxes, priors: Mapping[str, Prior]
) -> DefaultBoxes:
    """The default boxes that a Caffe snapshot itself tells; those published where it does not."""
    layers = [priors.get(f"{source}_mbox_priorbox") for source in network.sources]
    found = [prior for prior in layers if prior is not None]
    if len(found) < len(layers):
        return published
    sides = {None, published.image_size}
    for prior in found:
        one_size = len(prior.min_sizes) == 1 and len(prior.max_sizes) <= 1
        as_first = (prior.clip, prior.variances) == (found[0].clip, found[0].variances)
        if not (one_size and as_first and prior.flip and prior.offset == 0.5 and prior.image_size in sides):
            raise UserError(
                f"{file}: has default boxes that there is no setting for here: {prior}. To take the published ones, "
                "name their --scales"
            )
    steps = tuple(prior.step for prior in found if prior.step is not None)
    return dataclasses.replace(
        published,
        min_sizes=tuple(prior.min_sizes[0] for prior in found),
        max_sizes=tuple(prior.max_sizes[0] if prior.max_sizes else None for prior in found),
        aspect_ratios=tuple(prior.aspect_ratios for prior in found),
        steps=steps if len(steps) == len(found) else None,
        clip="corners" if found[0].clip else "none",
        variances=found[0].variances,  # type: ignore[arg-type]
    )
