"""Live against torchvision's ssd300_vgg16 with random weights: predictions, detections, loss, gradient, matcher."""

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
    random_image,
    random_scene,
    random_state_dict,
    to_params,
    torchvision_config,
)

from ssd_jax.data.image import read_image
from ssd_jax.inference.program import make_predict_fn, to_image_detections
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

CONFIG = torchvision_config()
DEFAULT_BOXES = make_default_boxes(CONFIG.model.default_boxes)
State = dict[str, np.ndarray]
Found = tuple[np.ndarray, ...]


@pytest.fixture(scope="module")
def state() -> State:
    return random_state_dict(seed=0)


@pytest.fixture(scope="module")
def params(state) -> dict[str, Any]:
    return to_params(state)


@pytest.fixture(scope="module")
def model(state) -> "torch.nn.Module":
    model = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Of the network's size and of others, smaller and larger."""
    return {
        "noise": np.random.RandomState(7).randint(0, 256, (300, 300, 3)).astype(np.uint8),
        "patches": random_image(1, 300, 300),
        "larger": random_image(2, 413, 517),
        "upright": random_image(3, 640, 290),
        "tiny": random_image(4, 37, 90),
    }


def as_torchvision_takes_it(image: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(image.copy()).permute(2, 0, 1) / 255


def anchors_of(model: "torch.nn.Module") -> "torch.Tensor":
    """xyxy, pixels."""
    maps = [torch.zeros(1, 1, side, side) for side in CONFIG.model.default_boxes.feature_maps]
    image = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    (anchors,) = model.anchor_generator(image, maps)
    return anchors


# ---- predictions ----


def test_default_boxes(model):
    """Ours are rounded once, from float64: a few units in the last place apart."""
    ours, theirs = cxcywh_to_xyxy(DEFAULT_BOXES), anchors_of(model).numpy() / 300
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-7)


def test_logits_and_offsets(model, params, images):
    pixels = np.stack([images["noise"], images["patches"]])
    with torch.no_grad():
        inputs, _ = model.transform([as_torchvision_takes_it(image) for image in pixels])
        theirs = model.head(list(model.backbone(inputs.tensors).values()))
    network = jax.jit(ssd.SSD(CONFIG.model).apply, compiler_options=compilation.compiler_options())
    ours = network({"params": params}, pixels.astype(np.float32))
    pairs = {
        "logits": (np.asarray(ours.logits), theirs["cls_logits"].numpy()),
        "offsets": (np.asarray(ours.offsets), theirs["bbox_regression"].numpy()),
    }
    for name, (here, there) in pairs.items():
        assert there.std() > 1, "weights that leave nothing to compare"
        far = np.abs(here - there).max() / np.abs(there).max()
        print(f"{name}: {far:.1e}")
        assert far < 1e-4


def test_resize(model, images):
    """What the network sees, 0 to 255, of images larger and smaller: no antialiasing, half-pixel centres."""
    for image in images.values():
        inputs, _ = model.transform([as_torchvision_takes_it(image)])
        theirs = inputs.tensors[0].permute(1, 2, 0).numpy()
        ours = np.asarray(resize(image, 300)) - np.array(CONFIG.model.mean, np.float32)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


# ---- detections ----


@pytest.fixture(scope="module")
def find(params) -> Callable[[np.ndarray], Found]:
    """The program's own way from an image to boxes in its pixels, scores, labels."""
    program = make_predict_fn(CONFIG, sharding.single_device_mesh())

    def find(image: np.ndarray) -> Found:
        height, width = image.shape[:2]
        canvas = np.zeros((1, 640, 640, 3), np.uint8)
        canvas[0, :height, :width] = image
        found = program(params, canvas, np.array([height], np.int32), np.array([width], np.int32))
        return tuple(to_image_detections(sharding.fetch(found), 0, width, height))

    return find


def torchvision_finds(model: "torch.nn.Module", image: np.ndarray) -> Found:
    with torch.no_grad():
        (found,) = model([as_torchvision_takes_it(image)])
    return in_numpy(found)


def in_numpy(found: dict[str, "torch.Tensor"]) -> Found:
    return tuple(found[name].numpy() for name in ("boxes", "scores", "labels"))


def test_detections_in_random_images(model, find, images):
    for image in images.values():
        theirs = torchvision_finds(model, image)
        assert len(theirs[1]) == 200
        print(assert_same_detections(find(image), theirs))


def test_detections_in_photographs(model, find, bccd):
    for file in sorted((bccd / "JPEGImages").glob("*.jpg"))[:4]:
        image = read_image(file)
        print(assert_same_detections(find(image), torchvision_finds(model, image)))


@pytest.mark.parametrize(
    ("spread", "background"),
    [
        (3.0, 0.0),  # nearly all (box, class) pairs above the threshold: 400 of each class go on
        (1.0, 9.0),  # some hundreds: torchvision then keeps classes apart by moving their boxes
        (1.0, 9.6),  # about a hundred: all that NMS keeps are output
        (1.0, 30.0),  # none
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_post_processing_of_wild_predictions(model, spread, background, seed):
    """Boxes far outside of the image, without area in it, and of scales beyond torchvision's bound."""
    random = np.random.default_rng(seed)
    offsets = (random.standard_normal((8732, 4)) * [15, 15, 4, 4]).astype(np.float32)
    # So far out and so large that the bound decides how much of the image they cover.
    offsets[::50] = random.uniform([-400, -400, -30, -30], [400, 400, 40, 40], offsets[::50].shape)
    logits = (random.standard_normal((8732, CLASSES)) * spread).astype(np.float32)
    logits[:, 0] += background
    head = {"bbox_regression": torch.from_numpy(offsets)[None], "cls_logits": torch.from_numpy(logits)[None]}
    theirs = in_numpy(*model.postprocess_detections(head, [anchors_of(model)], [(300, 300)]))
    ours = detect(offsets, logits, DEFAULT_BOXES, CONFIG.model.default_boxes.variances, CONFIG.detect)
    count = int(ours.valid.sum())
    assert (count == 0) == (background == 30)
    boxes, scores, labels = (np.asarray(field[:count]) for field in ours[:3])
    print(assert_same_detections((boxes * 300, scores, labels), theirs))


def test_suppression_of_crowds(model):
    """Every box that is kept, in order, of thousands in heaps: hundreds of pairs lie within 0.001 of the threshold."""
    random = np.random.default_rng(0)
    heaps = random.uniform(0, 0.8, (40, 2)).repeat(75, axis=0)
    corner = heaps + random.normal(0, 0.02, heaps.shape)
    boxes = np.concatenate([corner, corner + random.uniform(0.08, 0.15, heaps.shape)], axis=1).astype(np.float32)
    scores, labels = random.permutation(len(boxes)).astype(np.float32) + 1, random.integers(1, 5, len(boxes))
    theirs = torchvision.ops.batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), 0.45).numpy()
    of_classes = np.where(np.arange(5) == labels[:, None], scores[:, None], 0)
    kept = multiclass_nms(boxes, of_classes, 0.45, len(boxes))
    np.testing.assert_array_equal(np.asarray(kept.boxes)[: int(kept.valid.sum())], theirs)


# ---- the loss ----


class Scene:
    """Objects of a size for each map in an image of 300 pixels, and what torchvision's matcher makes of them."""

    def __init__(self, model: "torch.nn.Module", seed: int):
        self.boxes, self.labels = random_scene(seed)
        iou = torchvision.ops.box_iou(torch.from_numpy(self.boxes), anchors_of(model))
        self.matched = model.proposal_matcher(iou).numpy()

    def targets(self, dtype: Any = np.float32) -> Targets:
        """What our loss takes, a batch of one, with torchvision's choice of object for each default box."""
        positive = self.matched >= 0
        boxes = self.boxes[self.matched].astype(dtype) / 300
        offsets = encode_boxes(boxes, DEFAULT_BOXES.astype(dtype))
        labels = jnp.where(positive, jnp.asarray(self.labels[self.matched], jnp.int32), 0)
        return Targets(jnp.where(positive[:, None], offsets, 0)[None], labels[None])


def torchvision_loss(
    model: "torch.nn.Module", pixels: np.ndarray, scenes: list[Scene], dtype: "torch.dtype"
) -> tuple[dict[str, float], State]:
    """Its forward in training, with its own matching: both parts, and the gradient of their sum by its keys."""
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


def our_loss(params: Any, pixels: np.ndarray, targets: Targets) -> tuple[Any, Any]:
    """Loss with its parts, and gradient, as a training step takes them."""

    def loss_of(params: Any, pixels: Any) -> Any:
        predictions = ssd.SSD(CONFIG.model).apply({"params": params}, pixels)
        return loss.multibox_loss(predictions.offsets, predictions.logits, targets)

    step = jax.jit(jax.value_and_grad(loss_of, has_aux=True), compiler_options=compilation.compiler_options())
    return sharding.fetch(step(params, pixels))


def distances(gradient: Any, theirs: State) -> dict[str, float]:
    """By the path of the parameter: norm of the difference over norm."""
    far = {}

    def compare(path: Any, ours: np.ndarray, theirs: np.ndarray) -> None:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.linalg.norm(theirs) > 0, f"{name} has no gradient"
        far[name] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))

    jax.tree_util.tree_map_with_path(compare, gradient, to_params(theirs))
    worst = sorted(far, key=far.__getitem__)[-3:]
    print(", ".join(f"{name} {far[name]:.1e}" for name in worst))
    return far


def test_loss_and_gradient(model, params, images):
    """In float32, of two images.

    Predictors and L2Norm stand behind the last ReLU. Below, the gradient passes ReLUs, and gates differ: of tens of
    millions of units a few lie so near to zero that rounding has them on for one and off for the other, and each
    of these is up to a thousandth of the gradient of the layers below it. (torchvision's own gradient in float32
    is 2e-4 from that in float64, of conv1_1.) The next test has no rounding to speak of.
    """
    pixels = np.stack([images["noise"], images["patches"]])
    scenes = [Scene(model, seed=1), Scene(model, seed=2)]
    targets = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(scene.targets() for scene in scenes))
    theirs, their_gradient = torchvision_loss(model, pixels, scenes, torch.float32)
    (total, parts), gradient = our_loss(params, pixels.astype(np.float32), targets)
    assert parts["num_positives"] == sum((scene.matched >= 0).sum() for scene in scenes)
    assert parts["loc_loss"] == pytest.approx(theirs["bbox_regression"], rel=1e-5)
    assert parts["conf_loss"] == pytest.approx(theirs["classification"], rel=1e-5)
    assert total == pytest.approx(sum(theirs.values()), rel=1e-5)
    for name, far in distances(gradient, their_gradient).items():
        ungated = "mbox" in name or "norm" in name
        assert far < (1e-4 if ungated else 1e-2), name


class _Double:
    """jax.numpy, where float32 is float64."""

    float32 = jnp.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    def dtype(self, name: str) -> Any:
        return jnp.dtype(name.replace("32", "64"))


def _convolve(x: Any, kernel: Any, strides: Any, padding: Any, *, rhs_dilation: Any, **_: Any) -> Any:
    """lax.conv_general_dilated as a sum of matrix products: XLA has no fast one in float64 on a CPU."""
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
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Network and loss compute in float64 whatever their code says; mining still ranks in float32."""
    ordered_bits = loss._ordered_bits
    with jax.enable_x64(True), monkeypatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the annotations say Float32
        for module in (ssd, vgg, loss):
            patch.setattr(module, "jnp", _Double())
        patch.setattr(loss, "_ordered_bits", lambda values: ordered_bits(values.astype(np.float32)))
        patch.setattr(jax.lax, "conv_general_dilated", _convolve)
        yield


def test_loss_and_gradient_in_double_precision(model, params, images, monkeypatch):
    """The gradient of every parameter is torchvision's."""
    pixels, scene = images["patches"][None], Scene(model, seed=1)
    theirs, their_gradient = torchvision_loss(model, pixels, [scene], torch.float64)
    with in_double(monkeypatch):
        doubles = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        (total, _), gradient = our_loss(doubles, pixels.astype(np.float64), scene.targets(np.float64))
    assert {leaf.dtype for leaf in (total, *jax.tree.leaves(gradient))} == {np.dtype(np.float64)}
    assert total == pytest.approx(sum(theirs.values()), rel=1e-9)
    assert max(distances(gradient, their_gradient).values()) < 1e-9


# ---- the matcher ----


def matched(model: "torch.nn.Module", iou: Any) -> tuple[list[int], list[int]]:
    """The object of each default box by our rule and by torchvision's SSDMatcher, of one matrix of overlaps."""
    iou = np.array(iou, np.float32)
    return np.asarray(assign_objects(iou, 0.5)).tolist(), model.proposal_matcher(torch.from_numpy(iou)).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_matchers_agree_where_no_two_objects_want_one_box(model, seed):
    """Each on its own overlaps: torchvision's are of pixels, ours of shares of the image."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 0.7, (8, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.05, 0.3, (8, 2))], axis=1).astype(np.float32)
    labels = random.integers(1, CLASSES, 8)
    iou = torchvision.ops.box_iou(torch.from_numpy(boxes * 300), anchors_of(model))
    _, alone = np.unique(iou.argmax(1).numpy(), return_index=True)
    theirs = model.proposal_matcher(iou[alone]).numpy()
    ours = match(boxes[alone], labels[alone], DEFAULT_BOXES)
    expected = np.where(theirs >= 0, labels[alone][theirs], 0)
    assert set(theirs) >= set(range(len(alone))), "each object has at least one box"
    np.testing.assert_array_equal(ours.labels, expected)


def test_both_take_an_overlap_of_just_the_threshold(model):
    """The paper says "higher than"; Caffe's code, torchvision and we take it."""
    below = np.nextafter(np.float32(0.5), np.float32(0))
    ours, theirs = matched(model, [[0.9, 0.5, below]])
    assert ours == theirs == [0, 0, -1]


def test_both_take_the_first_of_equal_overlaps(model):
    ours, theirs = matched(model, [[0.3, 0.3, 0.0], [0.0, 0.1, 0.2]])
    assert ours == theirs == [0, -1, 1]
    ours, theirs = matched(model, [[0.6, 0.7, 0.0], [0.6, 0.0, 0.9]])
    assert ours == theirs == [0, 0, 1]


def test_both_give_a_box_to_the_object_whose_best_it_is(model):
    """Box 0 is the best of object 1, at 0.3, though object 0, which has box 1, overlaps it more."""
    ours, theirs = matched(model, [[0.8, 0.9], [0.3, 0.0]])
    assert ours == theirs == [1, 0]


def test_where_two_objects_want_one_box_torchvision_gives_it_to_the_later(model):
    """Here to that of greater overlap, and the other has its next best; there the earlier has none."""
    ours, theirs = matched(model, [[0.1, 0.4, 0.0], [0.0, 0.3, 0.2]])
    assert theirs == [-1, 1, -1]
    assert ours == [-1, 0, 1]


def test_where_the_earlier_object_has_other_boxes(model):
    ours, theirs = matched(model, [[0.6, 0.8, 0.0], [0.0, 0.7, 0.2]])
    assert theirs == [0, 1, -1]
    assert ours == [0, 0, 1]


def test_an_object_that_overlaps_nothing_has_the_first_box_in_torchvision(model):
    ours, theirs = matched(model, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.6]])
    assert theirs == [0, -1, 1]
    assert ours == [-1, -1, 1]


def test_two_small_objects_one_in_the_other(model):
    """The same box is the best for both; torchvision loses the outer one, number 2."""
    boxes = np.array(
        [(0.1, 0.1, 0.3, 0.4), (0.2, 0.3, 0.6, 0.8), (0.5, 0.5, 0.53, 0.53), (0, 0, 1, 1), (0.505, 0.505, 0.525, 0.525)]
    )
    ours, theirs = matched(model, pairwise_iou(boxes, cxcywh_to_xyxy(DEFAULT_BOXES)))
    assert [theirs.count(i) for i in range(5)] == [7, 11, 0, 5, 1]
    assert [ours.count(i) for i in range(5)] == [7, 11, 1, 5, 1]
    assert {a for a, b in zip(ours, theirs, strict=True) if a != b} <= {2, 4}, "nothing but these two"


def test_the_bound_of_scales_is_torchvisions(model):
    assert CONFIG.detect.log_scale_bounds == (None, model.box_coder.bbox_xform_clip)
    assert CONFIG.detect.log_scale_bounds == (None, math.log(1000 / 16))
