"""detect against Caffe's DetectionOutput written as loops, and on inputs whose answer is known."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ssd_jax.config import Detect
from ssd_jax.detect import Detections, detect

VARIANCES = (0.1, 0.1, 0.2, 0.2)

compiled = jax.jit(detect, static_argnames=("variances", "config"))


def random_image(seed, n, c, logit_scale=2.0):
    rng = np.random.default_rng(seed)
    center, size = rng.uniform(0, 1, (n, 2)), rng.uniform(0.05, 0.6, (n, 2))
    default_boxes = np.concatenate([center, size], axis=1).astype(np.float32)
    offsets, logits = rng.normal(0, 1, (n, 4)), rng.normal(0, logit_scale, (n, c))
    return offsets.astype(np.float32), logits.astype(np.float32), default_boxes


def tiles(n):
    """n default boxes beside one another, cxcywh."""
    return np.stack([(np.arange(n) + 0.5) / n, np.full(n, 0.5), np.full(n, 1 / n), np.ones(n)], 1).astype(np.float32)


def run(offsets, logits, default_boxes, config=Detect()):  # noqa: B008 (frozen)
    k = config.max_detections
    found = jax.tree.map(np.asarray, compiled(offsets, logits, default_boxes, VARIANCES, config))
    shapes = Detections((k, 4), (k,), (k,), (k,))
    types = Detections(np.float32, np.float32, np.int32, np.bool_)
    assert Detections(*(x.shape for x in found)) == shapes
    assert Detections(*(x.dtype for x in found)) == types
    count = found.valid.sum()
    assert not any(x[count:].any() for x in found), "padding is zeros, and last"
    return Detections(*(x[:count] for x in found))


def assert_agrees_with_caffe(offsets, logits, default_boxes, config=Detect()):  # noqa: B008
    found = run(offsets, logits, default_boxes, config)
    expected = reference.detection_output(offsets, logits, default_boxes, VARIANCES, *dataclasses.astuple(config))
    assert found.labels.tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(found.boxes, np.array([box for _, _, box in expected]).reshape(-1, 4), atol=1e-6)
    return found


@pytest.mark.parametrize(
    ("n", "c", "config"),
    [
        (300, 5, Detect()),
        (300, 5, Detect(score_threshold=0.3, top_k=20, nms_iou_threshold=0.3, max_detections=40)),
        (500, 4, Detect(top_k=450, max_detections=1500)),
        (300, 2, Detect()),
        (30, 8, Detect()),
        (1, 3, Detect()),
    ],
    ids=["cut_at_200", "every_cut", "no_cut", "one_class", "n_below_top_k", "one_box"],
)
def test_agrees_with_caffe(n, c, config):
    assert len(assert_agrees_with_caffe(*random_image(n + c, n, c), config).scores)


def test_agrees_with_caffe_where_few_pass():
    offsets, logits, default_boxes = random_image(0, 600, 6)
    logits[:, 0] += 9  # most are background, as after training
    found = assert_agrees_with_caffe(offsets, logits, default_boxes)
    assert 5 < len(found.scores) < 200


def test_score_on_the_threshold_is_not_kept():
    logits = np.zeros((3, 4), np.float32)  # softmax: exactly 1/4
    logits[1, 2] = 1e-3
    found = run(np.zeros((3, 4), np.float32), logits, tiles(3), Detect(score_threshold=0.25))
    assert found.labels.tolist() == [2]
    np.testing.assert_allclose(found.boxes, [[1 / 3, 0, 2 / 3, 1]], atol=1e-6)


def test_top_k_cuts_ties_at_the_lower_box():
    found = run(np.zeros((10, 4), np.float32), np.zeros((10, 3), np.float32), tiles(10), Detect(top_k=3))
    assert found.labels.tolist() == [1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(found.boxes[:, 0], [0, 0.1, 0.2] * 2, atol=1e-6)
    np.testing.assert_allclose(found.scores, np.full(6, 1 / 3), rtol=1e-6)


def test_top_k_cuts_before_nms():
    # The two best are one object; the third, apart from them, never enters NMS.
    default_boxes = tiles(2)[[0, 0, 1]]
    logits = np.array([[0, 3], [0, 2], [0, 1]], np.float32)
    found = run(np.zeros((3, 4), np.float32), logits, default_boxes, Detect(top_k=2))
    np.testing.assert_allclose(found.boxes, [[0, 0, 0.5, 1]], atol=1e-6)


def test_max_detections_cuts_across_classes_by_score_then_class_then_box():
    logits = np.full((4, 3), -9, np.float32)
    logits[:, 1] = [5, 0, 0, 0]
    logits[:, 2] = [-9, 0, 0, 5]
    found = run(np.zeros((4, 4), np.float32), logits, tiles(4), Detect(max_detections=5))
    assert found.labels.tolist() == [1, 2, 1, 1, 2]  # one of the ties at one half is cut: class 2, box 2
    np.testing.assert_allclose(found.boxes[:, 0], [0, 0.75, 0.25, 0.5, 0.25], atol=1e-6)


def test_classes_do_not_suppress_each_other():
    logits = np.array([[0, 2, 1], [0, 1.5, 0.5]], np.float32)
    found = run(np.zeros((2, 4), np.float32), logits, tiles(1)[[0, 0]])
    assert found.labels.tolist() == [1, 2]


def test_boxes_are_clipped_only_when_emitted():
    # IoU 0.9 / 2 before clipping and 0.9 / 1 after.
    default_boxes = np.array([[0.225, 0.5, 1.45, 1], [0.775, 0.5, 1.45, 1]], np.float32)
    logits = np.array([[0, 2], [0, 1]], np.float32)
    found = run(np.zeros((2, 4), np.float32), logits, default_boxes, Detect(nms_iou_threshold=0.5))
    np.testing.assert_allclose(found.boxes, [[0, 0, 0.95, 1], [0.05, 0, 1, 1]], atol=1e-6)


def test_nothing_found():
    offsets, logits, default_boxes = random_image(1, 50, 4)
    logits[:, 0] += 50
    assert len(run(offsets, logits, default_boxes).scores) == 0


def test_nan_is_not_detected():
    offsets, logits, default_boxes = random_image(2, 20, 3)
    logits[0, 1] = np.nan
    expected = run(offsets[1:], logits[1:], default_boxes[1:])
    chex.assert_trees_all_close(run(offsets, logits, default_boxes), expected, rtol=1e-6)


def test_bfloat16_is_computed_in_float32():
    offsets, logits, default_boxes = random_image(3, 100, 4)
    offsets, logits = jnp.asarray(offsets, jnp.bfloat16), jnp.asarray(logits, jnp.bfloat16)
    expected = run(np.asarray(offsets, np.float32), np.asarray(logits, np.float32), default_boxes)
    chex.assert_trees_all_equal(run(offsets, logits, default_boxes), expected)
    assert_agrees_with_caffe(np.asarray(offsets, np.float32), np.asarray(logits, np.float32), default_boxes)


def test_batch_is_one_program_without_host_calls_and_equals_each_image():
    images = [random_image(seed, 80, 4, logit_scale) for seed, logit_scale in ((4, 2), (5, 0.1), (6, 5))]
    default_boxes, config = images[0][2], Detect(max_detections=60)
    offsets, logits = (np.stack([image[i] for image in images]) for i in (0, 1))
    logits[2, :, 0] += 50  # nothing in the last

    @jax.jit
    @chex.assert_max_traces(1)
    def detect_batch(offsets, logits):
        return jax.vmap(lambda o, x: detect(o, x, default_boxes, VARIANCES, config))(offsets, logits)

    assert "callback" not in detect_batch.lower(offsets, logits).as_text()
    batch = detect_batch(offsets, logits)
    detect_batch(offsets[::-1], logits[::-1])
    for i in range(3):
        alone = compiled(offsets[i], logits[i], default_boxes, VARIANCES, config)
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], batch), alone, rtol=1e-5, atol=1e-6)
