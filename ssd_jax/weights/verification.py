"""Our forward pass beside that of `torch_reference`, layer by layer, and what comes of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jaxtyping import Float, UInt8

from ssd_jax.config import Model
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.inference.program import make_predict_fn, to_image_detections
from ssd_jax.models.ssd import BOX_PREDICTOR, CLASS_PREDICTOR, SSD, Params
from ssd_jax.models.vgg import VGG16
from ssd_jax.ops.boxes import decode_boxes
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.resample import resize
from ssd_jax.runtime import compilation, sharding
from ssd_jax.weights.importing import Imported
from ssd_jax.weights.networks import parameter_shapes
from ssd_jax.weights.torch_reference import Found, Reference

# Of a layer's largest value; of the image's side; of probabilities; pixels of the picture.
LAYER_TOLERANCE, DEFAULT_BOX_TOLERANCE, SCORE_TOLERANCE, BOX_TOLERANCE = 1e-4, 1e-6, 1e-5, 0.01


class Row(NamedTuple):
    """One comparison."""

    name: str
    shape: tuple[int, ...]
    largest: float
    """Absolute value in the reference."""
    difference: float
    """Largest, absolute."""
    allowed: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.allowed  # NaN does not


def compare(imported: Imported, reference: Reference, picture: UInt8[np.ndarray, "h w 3"]) -> list[Row]:
    """Every convolution before norm and ReLU, and conv4_3_norm, in the order of the reference; of a detector default
    boxes (of the image's side), decoded boxes within the image (pixels of the picture), scores and detections."""
    model = imported.config.model
    outputs = layer_outputs(imported.params, model, picture)
    rows = []
    for name, theirs in reference.layers.items():
        largest = float(np.abs(theirs).max())
        difference = float(np.abs(outputs[name] - theirs).max())
        rows.append(Row(name, theirs.shape, largest, difference, LAYER_TOLERANCE * largest))
    return [*rows, *_compare_detections(imported, reference, picture, outputs)] if model.class_names else rows


def layer_outputs(params: Params, model: Model, picture: UInt8[np.ndarray, "h w 3"]) -> dict[str, np.ndarray]:
    """Output (h, w, channels) of every module that has parameters, by its name."""

    def run(params: Params, picture: UInt8[Array, "h w 3"]) -> Any:
        images = resize(picture, model.image_size)[None]
        capture: Any = {"capture_intermediates": True, "mutable": ["intermediates"]}
        if model.class_names:
            return SSD(model).apply({"params": params}, images, **capture)[1]
        x = (images - jnp.array(model.mean, jnp.float32)) / jnp.array(model.std, jnp.float32)
        return VGG16(model.width, dtype=jnp.dtype(jnp.float32)).apply({"params": params}, x, **capture)[1]

    if not model.class_names:
        params = _with_zeros(params, model)["vgg"]
    compiled = jax.jit(run, compiler_options=compilation.compiler_options())
    outputs = flatten_dict(sharding.fetch(compiled(params, picture)["intermediates"]))
    return {path[-2]: value[0][0] for path, value in outputs.items() if len(path) > 1 and path[-2] != "vgg"}


def _with_zeros(params: Params, model: Model) -> Params:
    """With zeros for what a trunk may lack, fc6 and fc7."""
    zeros = {path: np.zeros(shape, np.float32) for path, shape in parameter_shapes(model).items()}
    return unflatten_dict(zeros | flatten_dict(params, sep="/"), sep="/")


def _compare_detections(
    imported: Imported, reference: Reference, picture: UInt8[np.ndarray, "h w 3"], outputs: dict[str, np.ndarray]
) -> list[Row]:
    config = imported.config
    layout, (height, width) = config.model.default_boxes, picture.shape[:2]
    to_pixels = np.array([width, height, width, height])
    default_boxes = make_default_boxes(layout)
    assert imported.layout.network is not None
    sources, classes = imported.layout.network.sources, config.model.num_classes
    offsets = np.concatenate([outputs[source + BOX_PREDICTOR].reshape(-1, 4) for source in sources])
    logits = np.concatenate([outputs[source + CLASS_PREDICTOR].reshape(-1, classes) for source in sources])
    boxes = decode_boxes(offsets, default_boxes, layout.variances, config.detect.log_scale_bounds)
    ours, theirs = (np.clip(np.asarray(b, np.float64), 0, 1) * to_pixels for b in (boxes, reference.boxes))
    scores = np.asarray(jax.nn.softmax(logits))
    program = make_predict_fn(config, sharding.single_device_mesh())
    found = sharding.fetch(program(imported.params, picture[None], np.array([height]), np.array([width])))
    return [
        _row("default boxes", default_boxes, reference.default_boxes, DEFAULT_BOX_TOLERANCE),
        _row("decoded boxes, px", ours, theirs, BOX_TOLERANCE),
        _row("scores", scores, reference.scores, SCORE_TOLERANCE),
        *compare_found(to_image_detections(found, 0, width, height), reference.detections, width, height),
    ]


def _row(name: str, ours: Float[np.ndarray, "*n"], theirs: Float[np.ndarray, "*n"], allowed: float) -> Row:
    return Row(name, theirs.shape, float(np.abs(theirs).max()), float(np.abs(ours - theirs).max()), allowed)


def compare_found(ours: ImageDetections, theirs: list[Found], width: int, height: int) -> list[Row]:
    """Final detections: how many are in one list only or out of order, then boxes and scores of those in both.

    Those whose scores are closer than what scores are allowed to differ by may change places.
    """
    to_pixels = np.array([width, height, width, height])
    left, pairs = dict(enumerate(theirs)), []
    for box, score, label in zip(*ours, strict=True):
        near = [
            (float(np.abs(np.array(other.box) * to_pixels - box).max()), place)
            for place, other in left.items()
            if other.label == label and abs(other.score - score) <= SCORE_TOLERANCE
        ]
        if near and min(near)[0] <= BOX_TOLERANCE:
            difference, place = min(near)
            pairs.append((difference, abs(left.pop(place).score - float(score)), theirs[place].score))
    scores = np.array([score for *_, score in pairs])
    misplaced = int((scores > np.minimum.accumulate(scores) + SCORE_TOLERANCE).sum())
    strangers = len(ours.scores) - len(pairs) + len(left) + misplaced
    box_difference, score_difference = (max((pair[i] for pair in pairs), default=0.0) for i in (0, 1))
    count, largest = len(theirs), max((f.score for f in theirs), default=0.0)
    return [
        Row("detections, number and order", (count,), float(count), float(strangers), 0.0),
        Row("their boxes, px", (count, 4), float(max(width, height)), box_difference, BOX_TOLERANCE),
        Row("their scores", (count,), largest, score_difference, SCORE_TOLERANCE),
    ]
