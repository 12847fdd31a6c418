"""Tests of `detect` against plain loops, and with inputs whose result is known.

The loops follow Caffe's DetectionOutput layer and the postprocessing of torchvision and mmdetection.
"""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from ssd_jax.config import Config, Detect
from ssd_jax.errors import UserError
from ssd_jax.ops.detection import Detections, detect
from ssd_jax.runs.config_file import validate

VARIANCES = (0.1, 0.1, 0.2, 0.2)

LOG_SCALE_LIMIT = float(np.log(1000 / 16))
TORCHVISION = Detect(log_scale_bounds=(None, LOG_SCALE_LIMIT), clip_before_nms=True)
MMDETECTION = Detect(
    score_threshold=0.02,
    top_k=1000,
    top_k_per="map",
    log_scale_bounds=(-LOG_SCALE_LIMIT, LOG_SCALE_LIMIT),
    clip_before_nms=True,
    drop_empty=True,
)

jit_detect = jax.jit(detect, static_argnames=("variances", "config", "boxes_per_map"))


def make_random_predictions(seed, n, c, logit_scale=2.0):
    """Return random offsets (n, 4), logits (n, c) and default boxes (n, 4) for one image. The boxes are cxcywh."""
    rng = np.random.default_rng(seed)
    center, size = rng.uniform(0, 1, (n, 2)), rng.uniform(0.05, 0.6, (n, 2))
    default_boxes = np.concatenate([center, size], axis=1).astype(np.float32)
    offsets, logits = rng.normal(0, 1, (n, 4)), rng.normal(0, logit_scale, (n, c))
    return offsets.astype(np.float32), logits.astype(np.float32), default_boxes


def make_side_by_side_boxes(n):
    """Return n default boxes (cxcywh) of equal width that divide the image into columns."""
    return np.stack([(np.arange(n) + 0.5) / n, np.full(n, 0.5), np.full(n, 1 / n), np.ones(n)], 1).astype(np.float32)


def run_detect(offsets, logits, default_boxes, config=Detect(), boxes_per_map=()):
    """Return the detections without padding, after checking shapes, types and padding."""
    k = config.max_detections
    detections = jax.tree.map(np.asarray, jit_detect(offsets, logits, default_boxes, VARIANCES, config, boxes_per_map))
    shapes = Detections((k, 4), (k,), (k,), (k,))
    types = Detections(np.float32, np.float32, np.int32, np.bool_)
    assert Detections(*(x.shape for x in detections)) == shapes
    assert Detections(*(x.dtype for x in detections)) == types
    count = detections.valid.sum()
    assert not any(x[count:].any() for x in detections), "padding must be zero, and at the end"
    return Detections(*(x[:count] for x in detections))


def get_thresholds_and_limits(config):
    """Return thresholds and limits of a config in the order in which the reference functions take them."""
    return config.score_threshold, config.top_k, config.nms_iou_threshold, config.max_detections


def assert_detections(detections, expected):
    """Assert that detections equal a list of (score, label, box index, box)."""
    assert detections.labels.tolist() == [label for _, label, _, _ in expected]
    np.testing.assert_allclose(detections.scores, [score for score, _, _, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(detections.boxes, np.array([box for _, _, _, box in expected]).reshape(-1, 4), atol=1e-5)


def assert_equals_caffe(offsets, logits, default_boxes, config=Detect()):
    """Assert that the detections equal those of Caffe's DetectionOutput, and return them."""
    detections = run_detect(offsets, logits, default_boxes, config)
    expected = reference.detect_like_caffe(
        offsets, logits, default_boxes, VARIANCES, *get_thresholds_and_limits(config)
    )
    assert detections.labels.tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(detections.scores, [score for score, _, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(detections.boxes, np.array([box for _, _, box in expected]).reshape(-1, 4), atol=1e-6)
    return detections


@pytest.mark.parametrize(
    ("n", "c", "config"),
    [
        (300, 5, Detect()),
        (300, 5, Detect(score_threshold=0.3, top_k=20, nms_iou_threshold=0.3, max_detections=40)),
        pytest.param(500, 4, Detect(top_k=450, max_detections=1500), marks=pytest.mark.slow),
        (200, 4, Detect(top_k=200, max_detections=600)),
        pytest.param(300, 2, Detect(), marks=pytest.mark.slow),
        pytest.param(30, 8, Detect(), marks=pytest.mark.slow),
        (1, 3, Detect()),
    ],
    ids=["max_detections", "all_limits", "no_limit", "top_k_equals_n", "one_class", "n_below_top_k", "one_box"],
)
def test_detect_equals_caffe(n, c, config):
    assert len(assert_equals_caffe(*make_random_predictions(n + c, n, c), config).scores)


def test_detect_equals_caffe_with_few_candidates():
    offsets, logits, default_boxes = make_random_predictions(0, 600, 6)
    logits[:, 0] += 9  # most boxes are background, as after training
    detections = assert_equals_caffe(offsets, logits, default_boxes)
    assert 5 < len(detections.scores) < 200


@pytest.mark.parametrize("clip_before_nms", [False, True])
def test_detect_drops_boxes_and_scores_that_are_not_finite(clip_before_nms):
    """In each image of the batch, one offset or one logit of the second of four boxes has an unusual value."""
    cases = [
        (array, column, value) for value in (np.nan, np.inf, -np.inf, 1e38) for array in (0, 1) for column in range(3)
    ]
    offsets, logits = np.zeros((len(cases), 4, 4), np.float32), np.zeros((len(cases), 4, 3), np.float32)
    for image, (array, column, value) in enumerate(cases):
        (offsets, logits)[array][image, 1, column + (array == 0)] = value
    detect_image = partial(detect, variances=VARIANCES, config=Detect(clip_before_nms=clip_before_nms))
    batch = jax.jit(jax.vmap(detect_image, in_axes=(0, 0, None)))(offsets, logits, make_side_by_side_boxes(4))
    assert np.isfinite(batch.boxes).all() and np.isfinite(batch.scores).all()
    for case, boxes, valid in zip(cases, np.asarray(batch.boxes), np.asarray(batch.valid), strict=True):
        kept = boxes[valid]
        assert all(np.isclose(kept[:, 0], edge).any() for edge in (0, 0.5, 0.75)), f"other boxes are kept: {case}"
        if case[0] == 0 and not case[2] < np.inf:  # a width of exp(-inf) is finite
            assert len(kept) == 6, f"two classes of three boxes: {case}"


def test_detect_drops_detections_with_scores_at_the_threshold():
    logits = np.zeros((3, 4), np.float32)  # the softmax of a row of zeros is exactly 1/4
    logits[1, 2] = 1e-3
    detections = run_detect(
        np.zeros((3, 4), np.float32), logits, make_side_by_side_boxes(3), Detect(score_threshold=0.25)
    )
    assert detections.labels.tolist() == [2]
    np.testing.assert_allclose(detections.boxes, [[1 / 3, 0, 2 / 3, 1]], atol=1e-6)


def test_detect_top_k_prefers_boxes_of_lower_index_among_ties():
    detections = run_detect(
        np.zeros((10, 4), np.float32), np.zeros((10, 3), np.float32), make_side_by_side_boxes(10), Detect(top_k=3)
    )
    assert detections.labels.tolist() == [1, 2, 1, 2, 1, 2]
    np.testing.assert_allclose(detections.boxes[:, 0], [0, 0, 0.1, 0.1, 0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(detections.scores, np.full(6, 1 / 3), rtol=1e-6)


def test_detect_applies_top_k_before_nms():
    # The two best boxes are equal; the third box does not overlap them, but top_k excludes it from NMS.
    default_boxes = make_side_by_side_boxes(2)[[0, 0, 1]]
    logits = np.array([[0, 3], [0, 2], [0, 1]], np.float32)
    detections = run_detect(np.zeros((3, 4), np.float32), logits, default_boxes, Detect(top_k=2))
    np.testing.assert_allclose(detections.boxes, [[0, 0, 0.5, 1]], atol=1e-6)


def test_detect_sorts_detections_by_score_then_box_then_class():
    logits = np.full((4, 3), -9, np.float32)
    logits[:, 1] = [5, 0, 0, 0]
    logits[:, 2] = [-9, 0, 0, 5]
    detections = run_detect(np.zeros((4, 4), np.float32), logits, make_side_by_side_boxes(4), Detect(max_detections=5))
    # Class 2 of box 2 has the same score as the last three detections, but exceeds max_detections.
    assert detections.labels.tolist() == [1, 2, 1, 2, 1]
    np.testing.assert_allclose(detections.boxes[:, 0], [0, 0.75, 0.25, 0.25, 0.5], atol=1e-6)


def test_detect_suppresses_boxes_only_within_a_class():
    logits = np.array([[0, 2, 1], [0, 1.5, 0.5]], np.float32)
    detections = run_detect(np.zeros((2, 4), np.float32), logits, make_side_by_side_boxes(1)[[0, 0]])
    assert detections.labels.tolist() == [1, 2]


def test_detect_clips_boxes_after_nms():
    # The IoU is 0.9 / 2 before clipping and 0.9 / 1 after it.
    default_boxes = np.array([[0.225, 0.5, 1.45, 1], [0.775, 0.5, 1.45, 1]], np.float32)
    logits = np.array([[0, 2], [0, 1]], np.float32)
    detections = run_detect(np.zeros((2, 4), np.float32), logits, default_boxes, Detect(nms_iou_threshold=0.5))
    np.testing.assert_allclose(detections.boxes, [[0, 0, 0.95, 1], [0.05, 0, 1, 1]], atol=1e-6)


def test_detect_returns_only_padding_if_all_boxes_are_background():
    offsets, logits, default_boxes = make_random_predictions(1, 50, 4)
    logits[:, 0] += 50
    assert len(run_detect(offsets, logits, default_boxes).scores) == 0


def test_detect_ignores_boxes_with_nan_logits():
    offsets, logits, default_boxes = make_random_predictions(2, 20, 3)
    logits[0, 1] = np.nan
    expected = run_detect(offsets[1:], logits[1:], default_boxes[1:])
    chex.assert_trees_all_close(run_detect(offsets, logits, default_boxes), expected, rtol=1e-6)


def test_detect_processes_bfloat16_inputs_in_float32():
    offsets, logits, default_boxes = make_random_predictions(3, 100, 4)
    offsets, logits = jnp.asarray(offsets, jnp.bfloat16), jnp.asarray(logits, jnp.bfloat16)
    expected = run_detect(np.asarray(offsets, np.float32), np.asarray(logits, np.float32), default_boxes)
    chex.assert_trees_all_equal(run_detect(offsets, logits, default_boxes), expected)
    assert_equals_caffe(np.asarray(offsets, np.float32), np.asarray(logits, np.float32), default_boxes)


def test_detect_under_vmap_compiles_once_and_equals_single_images():
    images = [make_random_predictions(seed, 80, 4, logit_scale) for seed, logit_scale in ((4, 2), (5, 0.1), (6, 5))]
    default_boxes, config = images[0][2], Detect(max_detections=60)
    offsets, logits = (np.stack([image[i] for image in images]) for i in (0, 1))
    logits[2, :, 0] += 50  # the last image has no detections

    @jax.jit
    @chex.assert_max_traces(1)
    def detect_batch(offsets, logits):
        return jax.vmap(lambda o, x: detect(o, x, default_boxes, VARIANCES, config))(offsets, logits)

    assert "callback" not in detect_batch.lower(offsets, logits).as_text()
    batch = detect_batch(offsets, logits)
    detect_batch(offsets[::-1], logits[::-1])
    for i in range(3):
        alone = jit_detect(offsets[i], logits[i], default_boxes, VARIANCES, config)
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], batch), alone, rtol=1e-5, atol=1e-6)


def make_random_predictions_with_extreme_boxes(seed, n, c):
    """Return random predictions. Many boxes lie outside the image, or exceed the bounds of the log scale."""
    offsets, logits, default_boxes = make_random_predictions(seed, n, c)
    offsets *= np.array([8, 8, 12, 12], np.float32)
    default_boxes[:, 2:] *= 0.3
    return offsets, logits, default_boxes


@pytest.mark.parametrize(
    ("n", "c", "changes"),
    [(300, 5, {}), (300, 4, {"score_threshold": 0.3, "top_k": 20, "max_detections": 30}), (40, 3, {})],
    ids=["default", "all_limits", "few_boxes"],
)
def test_detect_equals_torchvision(n, c, changes):
    image, config = make_random_predictions_with_extreme_boxes(n + c, n, c), dataclasses.replace(TORCHVISION, **changes)
    expected = reference.detect_like_torchvision(*image, *get_thresholds_and_limits(config))
    assert_detections(run_detect(*image, config), expected)
    assert any(x2 <= x1 or y2 <= y1 for _, _, _, (x1, y1, x2, y2) in expected), "some boxes should have no area"


@pytest.mark.parametrize(
    ("per_map", "c", "changes"),
    [
        ((200, 60, 8, 1), 6, {"top_k": 100}),
        ((200, 60, 8, 1), 6, {"top_k": 40, "score_threshold": 0.3, "max_detections": 25}),
        pytest.param((200, 60, 8, 1), 6, {}, marks=pytest.mark.slow),
        pytest.param((90,), 4, {"top_k": 50}, marks=pytest.mark.slow),
    ],
    ids=["top_k_in_two_maps", "all_limits", "no_limit", "one_map"],
)
def test_detect_equals_mmdetection(per_map, c, changes):
    image, config = (
        make_random_predictions_with_extreme_boxes(c, sum(per_map), c),
        dataclasses.replace(MMDETECTION, **changes),
    )
    expected = reference.detect_like_mmdetection(*image, per_map, *get_thresholds_and_limits(config))
    assert len(expected) > 20
    assert_detections(run_detect(*image, config, per_map), expected)


def test_detect_top_k_per_map_keeps_the_best_pairs_of_box_and_class():
    # There are two feature maps of two boxes each. The best three pairs of the first map are both classes of its first
    # box and one of its second box; the second map adds weaker ones.
    logits = np.array([[0, 4, 3], [0, 2, 1], [-9, 0, -9], [-9, -9, 0]], np.float32)
    detections = run_detect(
        np.zeros((4, 4), np.float32), logits, make_side_by_side_boxes(4), Detect(top_k_per="map", top_k=3), (2, 2)
    )
    pairs = list(zip(detections.labels.tolist(), (detections.boxes[:, 0] * 4).round().tolist(), strict=True))
    # The scores are .9998 for boxes 2 and 3, .72 and .27 for box 0, .67 for box 1. Class 2 of box 1, .24, is excluded.
    assert pairs == [(1, 2), (2, 3), (1, 0), (1, 1), (2, 0)]


def test_detect_top_k_per_map_orders_ties_by_box_then_class():
    detections = run_detect(
        np.zeros((6, 4), np.float32),
        np.zeros((6, 3), np.float32),
        make_side_by_side_boxes(6),
        Detect(top_k_per="map", top_k=5),
        (4, 2),
    )
    assert detections.labels.tolist() == [1, 2, 1, 2, 1, 1, 2, 1, 2]
    np.testing.assert_allclose(detections.boxes[:, 0] * 6, [0, 0, 1, 1, 2, 4, 4, 5, 5], atol=1e-5)


def test_detect_top_k_per_map_ignores_boxes_with_nan_logits():
    logits = np.zeros((100, 3), np.float32)
    logits[:60], logits[70, 2] = np.nan, 9
    config = Detect(top_k_per="map", top_k=20, max_detections=1)
    detections = run_detect(np.zeros((100, 4), np.float32), logits, make_side_by_side_boxes(100), config, (100,))
    assert detections.labels.tolist() == [2] and detections.scores[0] > 0.99


def test_detect_top_k_per_map_drops_detections_with_scores_at_the_threshold():
    logits = np.zeros((3, 4), np.float32)  # the softmax of a row of zeros is exactly 1/4
    logits[1, 2] = 1e-3
    config = Detect(score_threshold=0.25, top_k_per="map")
    assert run_detect(
        np.zeros((3, 4), np.float32), logits, make_side_by_side_boxes(3), config, (2, 1)
    ).labels.tolist() == [2]


@pytest.mark.parametrize("per_map", [(), (2,), (2, 2), (3, 1)])
def test_detect_rejects_boxes_per_map_with_a_wrong_sum(per_map):
    with pytest.raises(ValueError, match="boxes_per_map"):
        detect(
            np.zeros((3, 4)), np.zeros((3, 2)), make_side_by_side_boxes(3), VARIANCES, Detect(top_k_per="map"), per_map
        )


def test_detect_does_not_suppress_at_exactly_the_iou_threshold_after_clipping():
    # One box is twice as wide as the image, the other is half inside it: the IoU is 1/2 after clipping.
    default_boxes = np.array([[0.5, 0.5, 2, 1], [0, 0.5, 1, 1]], np.float32)
    logits = np.array([[0, 2], [0, 1]], np.float32)

    def count_detections(iou_threshold):
        config = Detect(nms_iou_threshold=iou_threshold, clip_before_nms=True)
        return len(run_detect(np.zeros((2, 4), np.float32), logits, default_boxes, config).scores)

    assert (count_detections(0.5), count_detections(0.49)) == (2, 1)


def test_detect_drops_boxes_without_area_after_top_k():
    # One box is left of the image, one is below it, and one is inside.
    default_boxes = np.array([[-1, 0.5, 1, 1], [0.5, 2, 1, 1], [0.5, 0.5, 0.2, 0.2]], np.float32)
    logits = np.array([[0, 3], [0, 2], [0, 1]], np.float32)

    def count_detections(**changes):
        config = Detect(clip_before_nms=True, **changes)
        return len(run_detect(np.zeros((3, 4), np.float32), logits, default_boxes, config).scores)

    assert count_detections() == 3
    assert count_detections(drop_empty=True) == 1
    assert count_detections(drop_empty=True, top_k=2) == 0


def test_detect_applies_log_scale_bounds():
    offsets = np.array([[0, 0, 30, -30]], np.float32)  # e^6 times the width, e^-6 times the height
    image = (offsets, np.array([[0, 5]], np.float32), np.array([[0.5, 0.5, 0.001, 0.5]], np.float32))
    width, height = np.exp(1) * 0.001, np.exp(-2) * 0.5
    bounded = run_detect(*image, Detect(log_scale_bounds=(-2, 1)))
    np.testing.assert_allclose(bounded.boxes[0, 2:] - bounded.boxes[0, :2], [width, height], rtol=1e-3)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 0), (1, 2), (-2, -1), (0.5, None), (None, -0.5)])
def test_config_rejects_log_scale_bounds_that_do_not_enclose_zero(bounds):
    with pytest.raises(UserError, match="log_scale_bounds"):
        validate(Config(detect=Detect(log_scale_bounds=bounds)))
