"""Tests that compare predictions, detections, loss, gradient and matching with torchvision's ssd300_vgg16.

The weights are random.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers.torchvision_ssd import (
    CLASSES,
    assert_same_detections,
    make_random_image,
    make_random_scene,
    make_random_state_dict,
    make_torchvision_config,
    to_params,
)

from ssd_jax.data.image import read_image
from ssd_jax.inference.detections import to_image_detections
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.models import ssd, vgg
from ssd_jax.ops import loss
from ssd_jax.ops.boxes import cxcywh_to_xyxy, encode_boxes, pairwise_iou
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import detect
from ssd_jax.ops.matching import Targets, assign_objects, match
from ssd_jax.ops.resample import resize
from ssd_jax.ops.suppression import multiclass_nms
from ssd_jax.runtime import compilation, sharding

torch = pytest.importorskip("torch", reason="needs torch and torchvision: make parity")
torchvision = pytest.importorskip("torchvision", reason="needs torch and torchvision: make parity")

CONFIG = make_torchvision_config()
DEFAULT_BOXES = make_default_boxes(CONFIG.model.default_boxes)
State = dict[str, np.ndarray]
Arrays = tuple[np.ndarray, ...]


@pytest.fixture(scope="module")
def random_state() -> State:
    return make_random_state_dict(seed=0)


@pytest.fixture(scope="module")
def params(random_state) -> dict[str, Any]:
    return to_params(random_state)


@pytest.fixture(scope="module")
def model(random_state) -> "torch.nn.Module":
    model = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in random_state.items()}, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Return images of the network's input size, and smaller and larger images."""
    return {
        "noise": np.random.RandomState(7).randint(0, 256, (300, 300, 3)).astype(np.uint8),
        "patches": make_random_image(1, 300, 300),
        "larger": make_random_image(2, 413, 517),
        "upright": make_random_image(3, 640, 290),
        "tiny": make_random_image(4, 37, 90),
    }


def to_torchvision_input(image: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(image.copy()).permute(2, 0, 1) / 255


def get_anchors(model: "torch.nn.Module") -> "torch.Tensor":
    """Return torchvision's default boxes as xyxy in pixels."""
    maps = [torch.zeros(1, 1, side, side) for side in CONFIG.model.default_boxes.feature_maps]
    image = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    (anchors,) = model.anchor_generator(image, maps)
    return anchors


# ---- predictions ----


def test_default_boxes_equal_torchvision(model):
    """This package computes default boxes in float64. Their last digits therefore differ from those of torchvision."""
    actual, expected = cxcywh_to_xyxy(DEFAULT_BOXES), get_anchors(model).numpy() / 300
    np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-7)


def test_logits_and_offsets_equal_torchvision(model, params, images):
    pixels = np.stack([images["noise"], images["patches"]])
    with torch.no_grad():
        inputs, _ = model.transform([to_torchvision_input(image) for image in pixels])
        outputs = model.head(list(model.backbone(inputs.tensors).values()))
    network = jax.jit(ssd.SSD(CONFIG.model).apply, compiler_options=compilation.compiler_options())
    predictions = network({"params": params}, pixels.astype(np.float32))
    pairs = {
        "logits": (np.asarray(predictions.logits), outputs["cls_logits"].numpy()),
        "offsets": (np.asarray(predictions.offsets), outputs["bbox_regression"].numpy()),
    }
    for name, (actual, expected) in pairs.items():
        assert expected.std() > 1, "the predictions should vary"
        distance = np.abs(actual - expected).max() / np.abs(expected).max()
        print(f"{name}: {distance:.1e}")
        assert distance < 1e-4


def test_resize_equals_torchvision(model, images):
    """Larger and smaller images are resized without antialiasing and with half-pixel centres."""
    for image in images.values():
        inputs, _ = model.transform([to_torchvision_input(image)])
        expected = inputs.tensors[0].permute(1, 2, 0).numpy()
        actual = np.asarray(resize(image, 300)) - np.array(CONFIG.model.mean, np.float32)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3)


# ---- detections ----


@pytest.fixture(scope="module")
def predict(params) -> Callable[[np.ndarray], Arrays]:
    """Return a function that detects objects in an image, with the same program as `ssd-jax predict`.

    It returns boxes in pixels of the image, scores and labels.
    """
    program = make_predict_fn(CONFIG, sharding.single_device_mesh())

    def predict(image: np.ndarray) -> Arrays:
        height, width = image.shape[:2]
        canvas = np.zeros((1, 640, 640, 3), np.uint8)
        canvas[0, :height, :width] = image
        detections = program(params, canvas, np.array([height], np.int32), np.array([width], np.int32))
        return tuple(to_image_detections(sharding.fetch(detections), 0, width, height))

    return predict


def predict_with_torchvision(model: "torch.nn.Module", image: np.ndarray) -> Arrays:
    with torch.no_grad():
        (detections,) = model([to_torchvision_input(image)])
    return to_numpy(detections)


def to_numpy(detections: dict[str, "torch.Tensor"]) -> Arrays:
    return tuple(detections[name].numpy() for name in ("boxes", "scores", "labels"))


def test_detections_in_random_images_equal_torchvision(model, predict, images):
    for image in images.values():
        expected = predict_with_torchvision(model, image)
        assert len(expected[1]) == 200
        print(assert_same_detections(predict(image), expected))


def test_detections_in_bccd_images_equal_torchvision(model, predict, bccd):
    for file in sorted((bccd / "JPEGImages").glob("*.jpg"))[:4]:
        image = read_image(file)
        print(assert_same_detections(predict(image), predict_with_torchvision(model, image)))


@pytest.mark.parametrize(
    ("spread", "background"),
    [
        (3.0, 0.0),  # nearly all pairs of box and class are above the threshold, and 400 of each class enter NMS
        (1.0, 9.0),  # some hundreds of pairs are above the threshold: torchvision shifts boxes to separate classes
        (1.0, 9.6),  # about a hundred pairs are above the threshold, and all that NMS keeps are returned
        (1.0, 30.0),  # no pair is above the threshold
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_detect_equals_torchvision_on_extreme_predictions(model, spread, background, seed):
    """Some boxes are far outside the image, have no area within it, or have a scale beyond torchvision's bound."""
    random = np.random.default_rng(seed)
    offsets = (random.standard_normal((8732, 4)) * [15, 15, 4, 4]).astype(np.float32)
    # Every fiftieth box is so far outside and so large that the bound determines how much of the image it covers.
    offsets[::50] = random.uniform([-400, -400, -30, -30], [400, 400, 40, 40], offsets[::50].shape)
    logits = (random.standard_normal((8732, CLASSES)) * spread).astype(np.float32)
    logits[:, 0] += background
    head = {"bbox_regression": torch.from_numpy(offsets)[None], "cls_logits": torch.from_numpy(logits)[None]}
    expected = to_numpy(*model.postprocess_detections(head, [get_anchors(model)], [(300, 300)]))
    actual = detect(offsets, logits, DEFAULT_BOXES, CONFIG.model.default_boxes.variances, CONFIG.detect)
    count = int(actual.valid.sum())
    assert (count == 0) == (background == 30)
    boxes, scores, labels = (np.asarray(field[:count]) for field in actual[:3])
    print(assert_same_detections((boxes * 300, scores, labels), expected))


def test_multiclass_nms_equals_torchvision_on_crowded_boxes(model):
    """Thousands of boxes overlap, and hundreds of pairs have an IoU within 0.001 of the threshold."""
    random = np.random.default_rng(0)
    clusters = random.uniform(0, 0.8, (40, 2)).repeat(75, axis=0)
    corner = clusters + random.normal(0, 0.02, clusters.shape)
    boxes = np.concatenate([corner, corner + random.uniform(0.08, 0.15, clusters.shape)], axis=1).astype(np.float32)
    scores, labels = random.permutation(len(boxes)).astype(np.float32) + 1, random.integers(1, 5, len(boxes))
    expected = torchvision.ops.batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), 0.45).numpy()
    class_scores = np.where(np.arange(5) == labels[:, None], scores[:, None], 0)
    kept = multiclass_nms(boxes, class_scores, 0.45, len(boxes))
    np.testing.assert_array_equal(np.asarray(kept.boxes)[: int(kept.valid.sum())], expected)


# ---- the loss ----


class Scene:
    """Objects in an image of 300 x 300 pixels, one per feature map, and the boxes that torchvision matches to them."""

    def __init__(self, model: "torch.nn.Module", seed: int):
        self.boxes, self.labels = make_random_scene(seed)
        iou = torchvision.ops.box_iou(torch.from_numpy(self.boxes), get_anchors(model))
        self.matched = model.proposal_matcher(iou).numpy()

    def make_targets(self, dtype: Any = np.float32) -> Targets:
        """Return the targets of a batch of one image, made from torchvision's matching."""
        positive = self.matched >= 0
        boxes = self.boxes[self.matched].astype(dtype) / 300
        offsets = encode_boxes(boxes, DEFAULT_BOXES.astype(dtype))
        labels = jnp.where(positive, jnp.asarray(self.labels[self.matched], jnp.int32), 0)
        return Targets(jnp.where(positive[:, None], offsets, 0)[None], labels[None])


def compute_torchvision_loss_and_gradient(
    model: "torch.nn.Module", pixels: np.ndarray, scenes: list[Scene], dtype: "torch.dtype"
) -> tuple[dict[str, float], State]:
    """Return both losses of torchvision's model, and the gradient of their sum with torchvision's parameter names."""
    model.to(dtype).train()
    try:
        model.zero_grad()
        losses = model(
            [torch.from_numpy(image.copy()).permute(2, 0, 1).to(dtype) / 255 for image in pixels],
            [{"boxes": torch.from_numpy(s.boxes).to(dtype), "labels": torch.from_numpy(s.labels)} for s in scenes],
        )
        sum(losses.values()).backward()
        gradient = {key: value.grad.numpy().copy() for key, value in model.named_parameters()}
        return {key: value.item() for key, value in losses.items()}, gradient
    finally:
        model.to(torch.float32).eval()


def compute_loss_and_gradient(params: Any, pixels: np.ndarray, targets: Targets) -> tuple[Any, Any]:
    """Return the loss, its parts and the gradient, which this package computes as in a training step."""

    def compute_loss(params: Any, pixels: Any) -> Any:
        predictions = ssd.SSD(CONFIG.model).apply({"params": params}, pixels)
        return loss.multibox_loss(predictions.offsets, predictions.logits, targets)

    step = jax.jit(jax.value_and_grad(compute_loss, has_aux=True), compiler_options=compilation.compiler_options())
    return sharding.fetch(step(params, pixels))


def compute_relative_distances(gradient: Any, expected: State) -> dict[str, float]:
    """Return the norm of the error of each parameter's gradient, relative to the norm of the expected gradient."""
    distance = {}

    def record_distance(path: Any, actual: np.ndarray, expected: np.ndarray) -> None:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.linalg.norm(expected) > 0, f"{name} has no gradient"
        distance[name] = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))

    jax.tree_util.tree_map_with_path(record_distance, gradient, to_params(expected))
    worst = sorted(distance, key=distance.__getitem__)[-3:]
    print(", ".join(f"{name} {distance[name]:.1e}" for name in worst))
    return distance


def test_loss_and_gradient_equal_torchvision(model, params, images):
    """The comparison uses two images and float32.

    Predictors and L2Norm come after the last ReLU. The layers before it have a larger tolerance: among tens of millions
    of activations, a few are so close to zero that rounding makes them positive in only one of the programs, and each
    of these changes the gradient of the layers before it by up to a thousandth. (For conv1_1, torchvision's gradient in
    float32 differs by 2e-4 from that in float64.) The next test uses float64, where rounding is negligible.
    """
    pixels = np.stack([images["noise"], images["patches"]])
    scenes = [Scene(model, seed=1), Scene(model, seed=2)]
    targets = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(scene.make_targets() for scene in scenes))
    expected, expected_gradient = compute_torchvision_loss_and_gradient(model, pixels, scenes, torch.float32)
    (total, parts), gradient = compute_loss_and_gradient(params, pixels.astype(np.float32), targets)
    assert parts["num_positives"] == sum((scene.matched >= 0).sum() for scene in scenes)
    assert parts["loc_loss"] == pytest.approx(expected["bbox_regression"], rel=1e-5)
    assert parts["conf_loss"] == pytest.approx(expected["classification"], rel=1e-5)
    assert total == pytest.approx(sum(expected.values()), rel=1e-5)
    for name, distance in compute_relative_distances(gradient, expected_gradient).items():
        after_last_relu = "mbox" in name or "norm" in name
        assert distance < (1e-4 if after_last_relu else 1e-2), name


class _Float64Numpy:
    """A stand-in for jax.numpy that uses float64 in place of float32."""

    float32 = jnp.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    def dtype(self, name: str) -> Any:
        return jnp.dtype(name.replace("32", "64"))


def _convolve_by_matmuls(x: Any, kernel: Any, strides: Any, padding: Any, *, rhs_dilation: Any, **_: Any) -> Any:
    """Convolve like lax.conv_general_dilated. Matrix products are faster than XLA's float64 convolution on a CPU."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (rows, columns), (down, across), (dy, dx) = kernel.shape[:2], strides, rhs_dilation
    height = (x.shape[1] - dy * (rows - 1) - 1) // down + 1
    width = (x.shape[2] - dx * (columns - 1) - 1) // across + 1
    return sum(
        x[:, i * dy :, j * dx :][:, : down * height : down, : across * width : across] @ kernel[i, j]
        for i in range(rows)
        for j in range(columns)
    )


@contextmanager
def use_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute network and loss in float64 within the context. Only the ranking of negatives stays in float32."""
    to_ordered_integers = loss._to_ordered_integers
    with jax.enable_x64(True), monkeypatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the type annotations demand Float32
        for module in (ssd, vgg, loss):
            patch.setattr(module, "jnp", _Float64Numpy())
        patch.setattr(loss, "_to_ordered_integers", lambda values: to_ordered_integers(values.astype(np.float32)))
        patch.setattr(jax.lax, "conv_general_dilated", _convolve_by_matmuls)
        yield


def test_loss_and_gradient_in_float64_equal_torchvision(model, params, images, monkeypatch):
    """In float64, the gradients of all parameters agree to nine digits."""
    pixels, scene = images["patches"][None], Scene(model, seed=1)
    expected, expected_gradient = compute_torchvision_loss_and_gradient(model, pixels, [scene], torch.float64)
    with use_float64(monkeypatch):
        doubles = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        (total, _), gradient = compute_loss_and_gradient(
            doubles, pixels.astype(np.float64), scene.make_targets(np.float64)
        )
    assert {leaf.dtype for leaf in (total, *jax.tree.leaves(gradient))} == {np.dtype(np.float64)}
    assert total == pytest.approx(sum(expected.values()), rel=1e-9)
    assert max(compute_relative_distances(gradient, expected_gradient).values()) < 1e-9


# ---- the matcher ----


def match_with_both(model: "torch.nn.Module", iou: Any) -> tuple[list[int], list[int]]:
    """Return the object index of each default box according to this package, and according to torchvision."""
    iou = np.array(iou, np.float32)
    return np.asarray(assign_objects(iou, 0.5)).tolist(), model.proposal_matcher(torch.from_numpy(iou)).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_match_equals_torchvision_if_no_two_objects_share_a_best_box(model, seed):
    """torchvision computes the IoU in pixels, and this package in normalised coordinates."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.7, (8, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.05, 0.3, (8, 2))], axis=1).astype(np.float32)
    labels = random.integers(1, CLASSES, 8)
    iou = torchvision.ops.box_iou(torch.from_numpy(boxes * 300), get_anchors(model))
    _, alone = np.unique(iou.argmax(1).numpy(), return_index=True)
    matched = model.proposal_matcher(iou[alone]).numpy()
    targets = match(boxes[alone], labels[alone], DEFAULT_BOXES)
    expected = np.where(matched >= 0, labels[alone][matched], 0)
    assert set(matched) >= set(range(len(alone))), "each object should have a box"
    np.testing.assert_array_equal(targets.labels, expected)


def test_assign_objects_matches_pairs_at_the_threshold_like_torchvision(model):
    """The paper says "higher than"; in Caffe, torchvision and this package, a pair at the threshold matches."""
    below = np.nextafter(np.float32(0.5), np.float32(0))
    actual, expected = match_with_both(model, [[0.9, 0.5, below]])
    assert actual == expected == [0, 0, -1]


def test_assign_objects_breaks_ties_like_torchvision(model):
    actual, expected = match_with_both(model, [[0.3, 0.3, 0.0], [0.0, 0.1, 0.2]])
    assert actual == expected == [0, -1, 1]
    actual, expected = match_with_both(model, [[0.6, 0.7, 0.0], [0.6, 0.0, 0.9]])
    assert actual == expected == [0, 0, 1]


def test_assign_objects_keeps_the_best_box_of_an_object_like_torchvision(model):
    """Box 0 is the best box of object 1, and stays with object 1 although object 0 has a higher IoU with the box."""
    actual, expected = match_with_both(model, [[0.8, 0.9], [0.3, 0.0]])
    assert actual == expected == [1, 0]


def test_assign_objects_differs_from_torchvision_if_two_objects_share_a_best_box(model):
    """In this package, the object with the higher IoU gets the shared box, and the other gets its second best box.

    In torchvision, the later object gets the shared box, and the earlier object gets no box.
    """
    actual, expected = match_with_both(model, [[0.1, 0.4, 0.0], [0.0, 0.3, 0.2]])
    assert expected == [-1, 1, -1]
    assert actual == [-1, 0, 1]


def test_assign_objects_differs_from_torchvision_if_the_displaced_object_has_further_matches(model):
    actual, expected = match_with_both(model, [[0.6, 0.8, 0.0], [0.0, 0.7, 0.2]])
    assert expected == [0, 1, -1]
    assert actual == [0, 0, 1]


def test_assign_objects_ignores_objects_without_overlap_unlike_torchvision(model):
    actual, expected = match_with_both(model, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.6]])
    assert expected == [0, -1, 1]
    assert actual == [-1, -1, 1]


def test_assign_objects_matches_both_of_two_nested_objects_unlike_torchvision(model):
    """Objects 2 and 4 have the same best box. In torchvision, object 2, the outer of the two, gets no box."""
    boxes = np.array(
        [(0.1, 0.1, 0.3, 0.4), (0.2, 0.3, 0.6, 0.8), (0.5, 0.5, 0.53, 0.53), (0, 0, 1, 1), (0.505, 0.505, 0.525, 0.525)]
    )
    actual, expected = match_with_both(model, pairwise_iou(boxes, cxcywh_to_xyxy(DEFAULT_BOXES)))
    assert [expected.count(i) for i in range(5)] == [7, 11, 0, 5, 1]
    assert [actual.count(i) for i in range(5)] == [7, 11, 1, 5, 1]
    differing = {a for a, b in zip(actual, expected, strict=True) if a != b}
    assert differing <= {2, 4}, "only boxes of these two objects may differ"


def test_log_scale_bounds_equal_those_of_torchvision(model):
    assert CONFIG.detect.log_scale_bounds == (None, model.box_coder.bbox_xform_clip)
    assert CONFIG.detect.log_scale_bounds == (None, math.log(1000 / 16))
