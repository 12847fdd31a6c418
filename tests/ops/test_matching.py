"""Tests of matching against Caffe's algorithm written as plain loops, and against worked examples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from ssd_jax import config
from ssd_jax.ops.boxes import cxcywh_to_xyxy, encode_boxes
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.matching import assign_objects, match

VARIANCES = (0.1, 0.1, 0.2, 0.2)
jit_assign = jax.jit(assign_objects, static_argnums=1)
jit_match = jax.jit(match, static_argnums=(3, 4))

# Objects A to E of the worked example, with labels 1 to 5.
EXAMPLE = np.array(
    [[0.1, 0.1, 0.3, 0.4], [0.2, 0.3, 0.6, 0.8], [0.50, 0.50, 0.53, 0.53], [0, 0, 1, 1], [0.505, 0.505, 0.525, 0.525]],
    np.float32,
)


@pytest.mark.parametrize(
    ("box_config", "positives", "bipartite"),
    [
        (
            config.SSD300_VOC_BOXES,
            (13, 13, 1, 8, 1),
            {4: (8729, 0.9240), 2: (8261, 0.765479), 1: (6251, 0.683541), 3: (None, 0.09), 5: (None, 0.04)},
        ),
        (
            config.SSD300_COCO_BOXES,
            (7, 11, 1, 5, 1),
            {4: (8729, 0.9135), 2: (8261, 0.728775), 1: (6251, 0.672576), 3: (None, 0.183673), 5: (None, 0.081633)},
        ),
        (
            dataclasses.replace(config.SSD512_VOC_BOXES, truncate_sizes=True),
            (26, 22, 1, 4, 1),
            {4: (24561, None), 2: (24274, 0.763038), 1: (17765, 0.676828), 3: (8067, None)},
        ),
        (
            dataclasses.replace(config.SSD512_COCO_BOXES, truncate_sizes=True),
            (14, 15, 1, 4, 1),
            {4: (24561, None), 2: (24275, 0.776580), 1: (22837, 0.687316), 3: (8320, 0.445526)},
        ),
    ],
    ids=["ssd300-voc", "ssd300-coco", "ssd512-voc", "ssd512-coco"],
)
def test_match_equals_the_worked_example(box_config, positives, bipartite):
    """The numbers come from a greedy matching with NumPy in float64.

    Objects C and E are so small that many boxes have nearly the same IoU with them. Therefore only their number of
    boxes and their IoU are checked. Both are matched, even if they have the same best box (SSD512) or if torchvision's
    matcher leaves C without a box (SSD300 for COCO).
    """
    default_boxes = make_default_boxes(box_config)
    targets = jit_match(EXAMPLE, np.arange(1, 6, dtype=np.int32), default_boxes)
    labels = np.asarray(targets.labels)
    assert tuple(np.bincount(labels, minlength=6)[1:]) == positives
    corners = np.asarray(cxcywh_to_xyxy(default_boxes), np.float64)
    for label, (index, iou) in bipartite.items():
        overlaps = {
            i: reference.box_iou(EXAMPLE[label - 1].astype(float), corners[i]) for i in np.flatnonzero(labels == label)
        }
        best = max(overlaps, key=overlaps.get)
        if index is not None:
            assert labels[index] == label and overlaps[index] == pytest.approx(overlaps[best])
        if iou is not None:
            assert overlaps[best] == pytest.approx(iou, abs=6e-5 if iou > 0.9 else 2e-6)


def test_match_returns_the_offsets_of_the_worked_example():
    """The offsets equal those of torchvision's BoxCoder and of ssd.pytorch, and are 0 for background."""
    targets = jit_match(EXAMPLE, np.arange(1, 6, dtype=np.int32), make_default_boxes(config.SSD300_VOC_BOXES))
    np.testing.assert_allclose(targets.offsets[8261], (0.596583, -0.820302, -0.555358, 0.560360), atol=5e-6)
    np.testing.assert_allclose(targets.offsets[6251], (0.490143, 0.367607, -1.537964, 0.489361), atol=5e-6)
    assert not np.asarray(targets.offsets)[np.asarray(targets.labels) == 0].any()


@pytest.mark.parametrize(
    ("iou", "expected"),
    [
        # Both objects overlap box 0 most. Object 0 has the higher IoU and gets it; object 1 gets its second best box,
        # although that IoU is below 0.5.
        ([[0.9, 0.2, 0.1], [0.8, 0.3, 0.0]], [0, 1, -1]),
        # In this chain, object 2 takes box 0 from object 1, which takes box 1 from object 0, which takes box 2.
        ([[0.0, 0.7, 0.1, 0.0], [0.8, 0.75, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0]], [2, 1, 0, -1]),
        # Among equal IoUs, the lower index of the box and of the object comes first.
        ([[0.4, 0.4, 0.4], [0.4, 0.4, 0.4]], [0, 1, -1]),
        # The index of the box is compared before that of the object: box 0 is assigned first.
        ([[0.0, 0.4, 0.4], [0.4, 0.4, 0.0]], [1, 0, -1]),
        # With more objects than boxes, some objects get none.
        ([[0.3], [0.5], [0.4]], [1]),
        # The IoU of box 1 is exactly the threshold, and that of box 2 is just below it.
        ([[0.9, 0.5, np.nextafter(np.float32(0.5), np.float32(0))]], [0, 0, -1]),
        # Both objects have the same IoU above the threshold with box 2, which goes to the object of lower index.
        ([[0.9, 0.0, 0.6], [0.0, 0.9, 0.6]], [0, 1, 0]),
        # An IoU of 1e-6 does not count; a slightly higher one does.
        ([[1e-6, 0.0], [0.0, 1.1e-6]], [-1, 1]),
        ([[0.0, 0.0], [0.0, 0.0]], [-1, -1]),
        # Box 0 is assigned to object 0 in the first step, and stays so although object 1 overlaps it more.
        ([[0.6, 0.0, 0.0], [0.7, 0.9, 0.0]], [0, 1, -1]),
    ],
)
def test_assign_objects_returns_hand_computed_assignments(iou, expected):
    iou = np.array(iou, np.float32)
    assert reference.greedy_match(iou, 0.5) == expected
    np.testing.assert_array_equal(jit_assign(iou), expected)


def test_assign_objects_with_threshold_zero_ignores_boxes_without_overlap():
    np.testing.assert_array_equal(jit_assign(np.array([[0.9, 0.0, 1e-6, 0.1]], np.float32), 0.0), [0, -1, -1, 0])


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_assign_objects_equals_caffe_on_random_overlaps(levels):
    """With few distinct IoUs, most pairs tie, and objects displace each other many times."""
    rng = np.random.default_rng(levels)
    for _ in range(60):
        iou = (rng.integers(0, levels + 1, (6, 9)) / levels * (rng.random((6, 9)) < 0.7)).astype(np.float32)
        np.testing.assert_array_equal(jit_assign(iou), reference.greedy_match(iou, 0.5), err_msg=str(iou))


def test_assign_objects_equals_caffe_on_long_chains_of_conflicts():
    """All objects rank the boxes in the same order, so each round assigns a final box to only one object."""
    g = 12
    iou = (1 - 0.02 * np.arange(g)[:, None] - 0.05 * np.arange(g)[None, :]).astype(np.float32)
    for rows in (iou, iou[::-1], np.repeat(iou[:1], g, axis=0)):
        np.testing.assert_array_equal(jit_assign(rows, 2.0), reference.greedy_match(rows, 2.0))


def make_random_scene(
    rng: np.random.Generator, object_count: int, box_count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (xyxy) and labels of objects, and default boxes (cxcywh), on a grid of sixteenths.

    On this grid, areas are exact in float32, and many IoUs are equal. Some objects are copies of others, and some have
    no area. Padding occurs at any index, not only at the end.
    """
    corners = np.sort(rng.integers(0, 17, (object_count + box_count, 2, 2)), axis=1).reshape(-1, 4) / 16
    gt, priors = corners[:object_count], corners[object_count:]
    copies = rng.random(object_count) < 0.3
    gt[copies] = gt[rng.integers(0, object_count, copies.sum())]
    labels = np.where(rng.random(object_count) < 0.7, rng.integers(1, 4, object_count), 0)
    gt[labels == 0] *= rng.integers(0, 2)  # the boxes of padding are zero in some scenes only
    cxcywh = np.concatenate([(priors[:, :2] + priors[:, 2:]) / 2, priors[:, 2:] - priors[:, :2]], axis=1)
    return gt.astype(np.float32), labels.astype(np.int32), cxcywh.astype(np.float32)


def compute_expected_matches(gt: np.ndarray, labels: np.ndarray, default_boxes: np.ndarray, threshold: float):
    """Return the object (or -1) and the label (or 0) of each default box according to Caffe's algorithm."""
    low, high = default_boxes[:, :2] - default_boxes[:, 2:] / 2, default_boxes[:, :2] + default_boxes[:, 2:] / 2
    iou = [
        [reference.box_iou(g, d) if label > 0 else 0.0 for d in np.concatenate([low, high], axis=1).astype(float)]
        for g, label in zip(gt.astype(float), labels, strict=True)
    ]
    objects = reference.greedy_match(iou, threshold)
    return objects, [labels[o] if o >= 0 else 0 for o in objects]


@pytest.mark.parametrize("threshold", [0.5, 0.25])
def test_match_equals_caffe_on_random_scenes(threshold):
    rng = np.random.default_rng(3)
    for _ in range(40):
        gt, labels, default_boxes = make_random_scene(rng, object_count=7, box_count=40)
        objects, expected = compute_expected_matches(gt, labels, default_boxes, threshold)
        targets = jit_match(gt, labels, default_boxes, VARIANCES, config.Match(threshold))
        np.testing.assert_array_equal(targets.labels, expected)
        # The object must be the same, not only its class.
        matched = np.array(objects) >= 0
        offsets = encode_boxes(gt[np.array(objects)], default_boxes, VARIANCES)
        np.testing.assert_allclose(targets.offsets, np.where(matched[:, None], offsets, 0), rtol=1e-5, atol=1e-5)


def test_match_under_vmap_equals_single_images():
    """The images of the batch need different numbers of proposal rounds."""
    rng = np.random.default_rng(4)
    scenes = [make_random_scene(rng, object_count=7, box_count=40)[:2] for _ in range(8)]
    gt, labels = (np.stack(column) for column in zip(*scenes, strict=True))
    default_boxes = make_random_scene(rng, object_count=7, box_count=40)[2]
    targets = jax.jit(jax.vmap(match, in_axes=(0, 0, None)))(gt, labels, default_boxes)
    for b in range(8):
        np.testing.assert_array_equal(
            targets.labels[b], compute_expected_matches(gt[b], labels[b], default_boxes, 0.5)[1]
        )


def test_match_gives_every_object_a_default_box():
    """64 objects of 7 x 7 pixels lie close together. In some other implementations, a few of them get no box."""
    rng = np.random.default_rng(5)
    low = rng.uniform(0.4, 0.5, (64, 2))
    gt = np.concatenate([low, low + 0.024], axis=1).astype(np.float32)
    labels = np.arange(1, 65, dtype=np.int32)
    targets = jit_match(gt, labels, make_default_boxes(config.SSD300_VOC_BOXES))
    assert set(np.asarray(targets.labels).tolist()) == set(range(65))


@pytest.mark.parametrize("object_count", [0, 1, 5])
def test_match_without_objects_labels_all_boxes_background(object_count):
    gt = np.tile(np.array([[0.1, 0.1, 0.6, 0.6]], np.float32), (object_count, 1))
    default_boxes = np.array([[0.35, 0.35, 0.5, 0.5], [0.5, 0.5, 0.1, 0.1]], np.float32)
    targets = jit_match(gt, np.zeros(object_count, np.int32), default_boxes)
    np.testing.assert_array_equal(targets.labels, [0, 0])
    np.testing.assert_array_equal(targets.offsets, np.zeros((2, 4)))


def test_match_ignores_padding():
    default_boxes = make_default_boxes(config.SSD300_VOC_BOXES)
    labels = np.arange(1, 6, dtype=np.int32)
    unpadded = jit_match(EXAMPLE, labels, default_boxes)
    padded = jit_match(np.pad(EXAMPLE, ((0, 11), (0, 0))), np.pad(labels, (0, 11)), default_boxes)
    np.testing.assert_array_equal(unpadded.labels, padded.labels)
    np.testing.assert_array_equal(unpadded.offsets, padded.offsets)


def test_match_ignores_objects_without_area():
    gt = jnp.array([[0.2, 0.2, 0.2, 0.9], [0.3, 0.3, 0.3, 0.3], [0.1, 0.1, 0.6, 0.6]])
    targets = jit_match(gt, jnp.array([1, 2, 3]), make_default_boxes(config.SSD300_VOC_BOXES))
    assert set(np.asarray(targets.labels).tolist()) == {0, 3}
    assert np.isfinite(targets.offsets).all()
