"""Tests of the IoU, the conversion and the encoding of boxes, against plain loops and published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from ssd_jax import config
from ssd_jax.ops.boxes import cxcywh_to_xyxy, decode_boxes, encode_boxes, pairwise_iou, xyxy_to_cxcywh
from ssd_jax.ops.default_boxes import make_default_boxes

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def make_random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.uniform(-0.2, 0.9, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.01, 0.8, (count, 2))], axis=1).astype(np.float32)


def test_box_conversions_return_hand_computed_boxes():
    boxes = np.array([[0.25, 0.5, 0.75, 0.625], [-0.5, 0.0, 1.5, 1.0]], np.float32)
    boxes_cxcywh = np.array([[0.5, 0.5625, 0.5, 0.125], [0.5, 0.5, 2.0, 1.0]], np.float32)
    np.testing.assert_array_equal(xyxy_to_cxcywh(boxes), boxes_cxcywh)
    np.testing.assert_array_equal(cxcywh_to_xyxy(boxes_cxcywh), boxes)


def test_pairwise_iou_returns_hand_computed_values():
    a = np.array([[0, 0, 0.5, 0.5]], np.float32)
    b = np.array(
        [
            [0, 0, 0.5, 0.5],  # the same box
            [0.25, 0, 0.75, 0.5],  # overlaps half of the first box: 1/8 over 3/8
            [0, 0, 1, 0.5],  # twice the size: exactly the threshold of matching
            [0.5, 0, 1, 0.5],  # touches at an edge
            # Apart along both axes: the product of two negative lengths must not count as an area.
            [0.6, 0.6, 0.9, 0.9],
            [0.125, 0.125, 0.25, 0.25],  # inside the first box
        ],
        np.float32,
    )
    np.testing.assert_array_equal(pairwise_iou(a, b), np.array([[1, 1 / 3, 0.5, 0, 0, 1 / 16]], np.float32))


def test_pairwise_iou_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    a, b = make_random_boxes(rng, 7), make_random_boxes(rng, 11)
    expected = [[reference.box_iou(p.astype(float), q.astype(float)) for q in b] for p in a]
    np.testing.assert_allclose(jax.jit(pairwise_iou)(a, b), expected, rtol=1e-5, atol=1e-7)


def test_pairwise_iou_of_tiny_boxes_is_not_rounded_to_zero():
    tiny = np.array([[0.5, 0.5, 0.501, 0.501]], np.float32)  # an area of 1e-6 of the image
    np.testing.assert_allclose(pairwise_iou(tiny, tiny), 1, rtol=1e-6)


def test_pairwise_iou_of_boxes_without_area_is_zero_with_finite_gradient():
    flat = jnp.array([[0.2, 0.2, 0.2, 0.6], [0.3, 0.3, 0.3, 0.3], [0.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.5, 0.5]])
    iou = pairwise_iou(flat, flat)
    np.testing.assert_array_equal(iou, np.diag([0.0, 0.0, 0.0, 1.0]))
    assert np.isfinite(jax.jit(jax.grad(lambda boxes: pairwise_iou(boxes, flat).sum()))(flat)).all()


@pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 0), (0, 0)])
def test_pairwise_iou_of_empty_inputs_is_empty(m, n):
    assert pairwise_iou(jnp.zeros((m, 4)), jnp.zeros((n, 4))).shape == (m, n)


def test_encode_boxes_returns_hand_computed_offsets():
    gt = cxcywh_to_xyxy(np.array([[0.5, 0.55, 0.3, 0.3]], np.float32))
    encoded = encode_boxes(gt, np.array([[0.5, 0.5, 0.2, 0.3]], np.float32), VARIANCES)
    # 0, .05 / .3 / .1, ln 1.5 / .2, ln 1 / .2
    np.testing.assert_allclose(encoded, [[0, 1.666667, 2.027326, 0]], atol=2e-6)


@pytest.mark.parametrize(
    ("index", "gt", "offsets"),
    [
        (8261, (0.2, 0.3, 0.6, 0.8), (0.596583, -0.820302, -0.555358, 0.560360)),
        (6251, (0.1, 0.1, 0.3, 0.4), (0.490143, 0.367607, -1.537964, 0.489361)),
    ],
)
def test_encode_boxes_equals_torchvision_and_ssd_pytorch(index, gt, offsets):
    """The expected offsets were computed by BoxCoder of torchvision 0.29, and by encode of ssd.pytorch."""
    default_box = make_default_boxes(config.SSD300_VOC_BOXES)[index : index + 1]
    np.testing.assert_allclose(encode_boxes(np.array([gt], np.float32), default_box, VARIANCES), [offsets], atol=5e-6)


def test_decode_boxes_returns_hand_computed_boxes():
    decoded = decode_boxes(
        np.array([[1, -2, 0, 0], [0, 0, 5 * np.log(2), -5 * np.log(2)]], np.float32),
        np.array([[0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4]], np.float32),
        VARIANCES,
    )
    # The first box is shifted by (.1 * .2, -.2 * .4); the second is twice as wide and half as high.
    np.testing.assert_allclose(decoded, [[0.42, 0.22, 0.62, 0.62], [0.3, 0.4, 0.7, 0.6]], atol=1e-6)


@pytest.mark.parametrize("variances", [VARIANCES, (1.0, 0.5, 0.25, 2.0)])
def test_decode_boxes_inverts_encode_boxes(variances):
    rng = np.random.default_rng(1)
    gt, default_boxes = make_random_boxes(rng, 50), np.asarray(xyxy_to_cxcywh(make_random_boxes(rng, 50)))
    offsets = encode_boxes(gt, default_boxes, variances)
    np.testing.assert_allclose(decode_boxes(offsets, default_boxes, variances), gt, atol=2e-6)


def test_decode_boxes_applies_lower_and_upper_scale_bounds():
    # For a width of 1, ln(width / .016) / .2 is 5 ln 62.5 = 20.67; the height shrinks by the same factor.
    offsets = np.array([[0, 0, 30, -30], [0, 0, 5 * np.log(62.5), -5 * np.log(62.5)], [0, 0, 5, -5]], np.float32)
    default_boxes = np.array([[0.5, 0.5, 0.016, 0.625]] * 3, np.float32)
    limit = float(np.log(1000 / 16))

    def decode_sizes(bounds):
        return np.asarray(xyxy_to_cxcywh(decode_boxes(offsets, default_boxes, VARIANCES, bounds)))[:, 2:]

    unbounded = np.array([[0.016 * np.exp(6), 0.625 * np.exp(-6)], [1, 0.01], [0.016 * np.e, 0.625 / np.e]])
    np.testing.assert_allclose(decode_sizes((None, None)), unbounded, rtol=2e-5)
    np.testing.assert_allclose(decode_sizes((None, limit)), [[1, unbounded[0, 1]], *unbounded[1:]], rtol=2e-5)
    np.testing.assert_allclose(decode_sizes((-limit, limit)), [[1, 0.01], *unbounded[1:]], rtol=2e-5)


def test_decode_boxes_does_not_bound_centres():
    box = decode_boxes(np.array([[100, -100, 0, 0]], np.float32), np.full((1, 4), 0.5, np.float32), VARIANCES, (-1, 1))
    np.testing.assert_allclose(xyxy_to_cxcywh(box), [[5.5, -4.5, 0.5, 0.5]], rtol=1e-5)


def test_decode_boxes_with_bounds_is_finite_for_infinite_offsets():
    offsets = np.array([[0, 0, np.inf, -np.inf]], np.float32)
    assert np.isfinite(decode_boxes(offsets, np.full((1, 4), 0.5, np.float32), VARIANCES, (-4, 4))).all()


def test_encode_boxes_of_a_box_without_area_is_finite():
    gt = jnp.array([[0.2, 0.3, 0.2, 0.6], [0.2, 0.3, 0.5, 0.3], [0.0, 0.0, 0.0, 0.0]])
    default_boxes = jnp.full((3, 4), 0.5)
    offsets = np.asarray(encode_boxes(gt, default_boxes, VARIANCES))
    assert np.isfinite(offsets).all()
    # The offset is ln(1e-6 / .5) / .2, because a side below a millionth of the image counts as a millionth.
    np.testing.assert_allclose(offsets[[0, 2, 1, 2], [2, 2, 3, 3]], -65.61182, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda boxes: encode_boxes(boxes, default_boxes, VARIANCES).sum()))(gt)
    assert np.isfinite(gradient).all()


def test_encode_boxes_relative_to_a_default_box_without_area_is_finite():
    """Clipping the corners of a default box outside the image gives a box without area."""
    assert np.isfinite(encode_boxes(np.array([[0.2, 0.2, 0.4, 0.4]]), np.array([[1.0, 1.0, 0.0, 0.0]]))).all()
