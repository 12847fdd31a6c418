"""Compare our forward pass and detections with those of `torch_reference`, layer by layer."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jaxtyping import Float, UInt8
from PIL import Image

from ssd_jax.config import Model
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections, to_image_detections
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.models.parameters import BOX_PREDICTOR, CLASS_PREDICTOR, Params, compute_parameter_shapes
from ssd_jax.models.ssd import SSD
from ssd_jax.models.vgg import VGG16
from ssd_jax.ops.boxes import decode_boxes
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.resample import resize
from ssd_jax.runtime import compilation, sharding
from ssd_jax.weights.formats.weight_file import read_weights
from ssd_jax.weights.importing import Imported, import_weights
from ssd_jax.weights.presets import Scales
from ssd_jax.weights.torch_reference import Detection, Reference, run_reference

LAYER_TOLERANCE = 1e-4
"""Maximum difference of a layer's outputs, relative to the largest absolute value of the layer."""
DEFAULT_BOX_TOLERANCE = 1e-6
"""Maximum difference of default boxes, relative to the image side."""
SCORE_TOLERANCE = 1e-5
"""Maximum difference of scores, which are probabilities."""
BOX_TOLERANCE = 0.01
"""Maximum difference of decoded and of final boxes, in pixels of the original image."""


class Comparison(NamedTuple):
    """Result of comparing one array with the reference."""

    name: str
    """Name of the layer or output."""
    shape: tuple[int, ...]
    """Shape of the array."""
    largest: float
    """Largest absolute value in the reference."""
    difference: float
    """Largest absolute difference from the reference."""
    tolerance: float
    """Largest difference that is accepted."""

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return self.difference <= self.tolerance  # False for NaN


def verify_weights(
    file: Path, image: UInt8[np.ndarray, "h w 3"], scales: Scales | None = None, bgr: bool | None = None
) -> tuple[Imported, list[Comparison]]:
    """Import a published weight file, and compare our outputs for an image with those of the reference in torch.

    Args:
        file: Weight file: .pth, .safetensors, .caffemodel or .h5.
        image: RGB image that both networks are run on.
        scales: Scales of the default boxes, as for `import_weights`.
        bgr: Whether the input channels of conv1_1 in the file are blue, green, red, as for `import_weights`.

    Returns:
        The imported weights, and a comparison for each layer and output.

    Raises:
        UserError: If the file cannot be imported, or torch is not installed.
    """
    imported = import_weights(file, class_names=None, scales=scales, bgr=bgr)
    weights, mapping, model = read_weights(file), imported.mapping, imported.config.model
    # torchvision uses COCO's default boxes for any number of classes.
    coco = scales == "coco" if scales else mapping.project == "torchvision" or len(model.class_names) in (80, 90)
    feature_maps = mapping.network.feature_maps if mapping.network and not scales else ()
    layers = [f"{name}_mbox_priorbox" for name in feature_maps]
    priors = [weights.priors[layer] for layer in layers] if all(layer in weights.priors for layer in layers) else []
    try:
        reference = run_reference(mapping.project, weights.tensors, image, model.image_size, coco, priors, bgr)
    except ImportError as error:
        raise UserError(
            f"verify needs torch and torchvision ({error}). Install them in a checkout: pip install -e '.[parity]'"
        ) from None
    return imported, compare_with_reference(imported, reference, image)


def make_sample_image() -> UInt8[np.ndarray, "375 500 3"]:
    """Return an image of smooth random colours, which is the same on every call."""
    noise = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC))


def compare_with_reference(
    imported: Imported, reference: Reference, image: UInt8[np.ndarray, "h w 3"]
) -> list[Comparison]:
    """Run imported weights on an image and compare all outputs with those of the reference.

    Args:
        imported: Weights and their config.
        reference: Outputs of the reference for the same image.
        image: RGB image.

    Returns:
        A comparison for the output of each convolution (before norm and ReLU) and of conv4_3_norm, in the order of the
        reference. For a detector, comparisons of its default boxes (relative to the image side), decoded boxes
        (clipped, in pixels of ``image``), scores and final detections follow.
    """
    model = imported.config.model
    outputs = compute_layer_outputs(imported.params, model, image)
    comparisons = []
    for name, expected in reference.layers.items():
        largest = float(np.abs(expected).max())
        difference = float(np.abs(outputs[name] - expected).max())
        comparisons.append(Comparison(name, expected.shape, largest, difference, LAYER_TOLERANCE * largest))
    if model.class_names:
        comparisons += _compare_predictions(imported, reference, image, outputs)
    return comparisons


def compute_layer_outputs(params: Params, model: Model, image: UInt8[np.ndarray, "h w 3"]) -> dict[str, np.ndarray]:
    """Return the output (h, w, channels) of every layer with parameters for one image, by the name of the layer."""

    def run_network(params: Params, image: UInt8[Array, "h w 3"]) -> Any:
        images = resize(image, model.image_size)[None]
        capture: Any = {"capture_intermediates": True, "mutable": ["intermediates"]}
        if model.class_names:
            return SSD(model).apply({"params": params}, images, **capture)[1]
        x = (images - jnp.array(model.mean, jnp.float32)) / jnp.array(model.std, jnp.float32)
        return VGG16(model.width, dtype=jnp.dtype(jnp.float32)).apply({"params": params}, x, **capture)[1]

    if not model.class_names:
        params = _add_missing_layers(params, model)["vgg"]
    compiled = jax.jit(run_network, compiler_options=compilation.compiler_options())
    outputs = flatten_dict(sharding.fetch(compiled(params, image)["intermediates"]))
    return {path[-2]: value[0][0] for path, value in outputs.items() if len(path) > 1 and path[-2] != "vgg"}


def _add_missing_layers(params: Params, model: Model) -> Params:
    """Return the parameters, with zeros for fc6 and fc7 if a backbone does not have these layers."""
    zeros = {path: np.zeros(shape, np.float32) for path, shape in compute_parameter_shapes(model).items()}
    return unflatten_dict(zeros | flatten_dict(params, sep="/"), sep="/")


def _compare_predictions(
    imported: Imported, reference: Reference, image: UInt8[np.ndarray, "h w 3"], outputs: dict[str, np.ndarray]
) -> list[Comparison]:
    """Compare default boxes, decoded boxes, scores and final detections of a detector with the reference."""
    config = imported.config
    box_config, (height, width) = config.model.default_boxes, image.shape[:2]
    to_pixels = np.array([width, height, width, height])
    default_boxes = make_default_boxes(box_config)
    assert imported.mapping.network is not None
    feature_maps, classes = imported.mapping.network.feature_maps, config.model.num_classes
    offsets = np.concatenate([outputs[name + BOX_PREDICTOR].reshape(-1, 4) for name in feature_maps])
    logits = np.concatenate([outputs[name + CLASS_PREDICTOR].reshape(-1, classes) for name in feature_maps])
    decoded = decode_boxes(offsets, default_boxes, box_config.variances, config.detect.log_scale_bounds)
    boxes, expected_boxes = (np.clip(np.asarray(b, np.float64), 0, 1) * to_pixels for b in (decoded, reference.boxes))
    scores = np.asarray(jax.nn.softmax(logits))
    predict = make_predict_fn(config, sharding.single_device_mesh())
    detections = sharding.fetch(predict(imported.params, image[None], np.array([height]), np.array([width])))
    return [
        _compare_arrays("default boxes", default_boxes, reference.default_boxes, DEFAULT_BOX_TOLERANCE),
        _compare_arrays("decoded boxes, px", boxes, expected_boxes, BOX_TOLERANCE),
        _compare_arrays("scores", scores, reference.scores, SCORE_TOLERANCE),
        *compare_detections(to_image_detections(detections, 0, width, height), reference.detections, width, height),
    ]


def _compare_arrays(
    name: str, actual: Float[np.ndarray, "*n"], expected: Float[np.ndarray, "*n"], tolerance: float
) -> Comparison:
    difference = float(np.abs(actual - expected).max())
    return Comparison(name, expected.shape, float(np.abs(expected).max()), difference, tolerance)


def compare_detections(actual: ImageDetections, expected: list[Detection], width: int, height: int) -> list[Comparison]:
    """Compare our final detections of an image with those of the reference.

    Detections whose scores differ by less than SCORE_TOLERANCE may be in any order.

    Args:
        actual: Our detections, with boxes as xyxy in pixels.
        expected: Detections of the reference, with boxes as xyxy from 0 to 1.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        Three comparisons. The first has as its difference the number of detections that are out of order or in only one
        of the two lists. The second and third compare the boxes and scores of the detections that are in both lists.
    """
    to_pixels = np.array([width, height, width, height])
    unmatched, pairs = dict(enumerate(expected)), []
    for box, score, label in zip(*actual, strict=True):
        candidates = [
            (float(np.abs(np.array(other.box) * to_pixels - box).max()), index)
            for index, other in unmatched.items()
            if other.label == label and abs(other.score - score) <= SCORE_TOLERANCE
        ]
        if candidates and min(candidates)[0] <= BOX_TOLERANCE:
            difference, index = min(candidates)
            pairs.append((difference, abs(unmatched.pop(index).score - float(score)), expected[index].score))
    scores = np.array([score for *_, score in pairs])
    misplaced = int((scores > np.minimum.accumulate(scores) + SCORE_TOLERANCE).sum())
    mismatches = len(actual.scores) - len(pairs) + len(unmatched) + misplaced
    box_difference, score_difference = (max((pair[i] for pair in pairs), default=0.0) for i in (0, 1))
    count, largest = len(expected), max((d.score for d in expected), default=0.0)
    return [
        Comparison("detections, number and order", (count,), float(count), float(mismatches), 0.0),
        Comparison("detections, boxes in px", (count, 4), float(max(width, height)), box_difference, BOX_TOLERANCE),
        Comparison("detections, scores", (count,), largest, score_difference, SCORE_TOLERANCE),
    ]
