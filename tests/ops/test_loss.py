"""Tests of the loss against plain loops and known values, and with degenerate inputs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference

from ssd_jax.config import Loss
from ssd_jax.ops.loss import hard_negative_mask, multibox_loss, smooth_l1
from ssd_jax.ops.matching import Targets

# The loss is compiled, because running it operation by operation takes several times as long.
jit_loss = jax.jit(multibox_loss, static_argnames="config")
MIN_3_NEGATIVES = Loss(min_negatives=3)


def make_random_batch(rng: np.random.Generator, b: int, n: int, c: int) -> tuple[np.ndarray, np.ndarray, Targets]:
    """Return random predictions and targets.

    One image has no positives. The others have so few that hard negative mining omits some negatives.
    """
    labels = np.where(rng.random((b, n)) < 0.15, rng.integers(1, c, (b, n)), 0).astype(np.int32)
    labels[b // 2] = 0
    targets = Targets(jnp.asarray(rng.normal(size=(b, n, 4)), jnp.float32), jnp.asarray(labels))
    offsets = targets.offsets + 1.5 * rng.normal(size=(b, n, 4))
    return np.asarray(offsets, np.float32), rng.normal(0, 2, (b, n, c)).astype(np.float32), targets


@pytest.mark.parametrize(
    ("ratio", "min_negatives", "location_weight"), [(3, 0, 1), (1.5, 4, 0.25), (0, 0, 1), (50, 0, 2)]
)
def test_multibox_loss_equals_plain_loops(ratio, min_negatives, location_weight):
    offsets, logits, targets = make_random_batch(np.random.default_rng(0), b=4, n=30, c=5)
    total, parts = jit_loss(offsets, logits, targets, config=Loss(ratio, min_negatives, location_weight))
    expected = reference.multibox_loss(
        offsets, logits, targets.offsets, np.asarray(targets.labels), ratio, min_negatives, location_weight
    )
    assert expected[3] > 4
    actual = (total, parts["loc_loss"], parts["conf_loss"], parts["num_positives"])
    np.testing.assert_allclose(actual, expected, rtol=2e-6)
    assert total.dtype == jnp.float32


@pytest.mark.parametrize("c", [2, 21, 81, 91])
def test_multibox_loss_of_equal_logits_is_the_log_of_the_class_count_per_box(c):
    """There are three negatives for each positive, and each of these boxes contributes ln c."""
    labels = jnp.zeros((2, 40), jnp.int32).at[:, 3:8].set(1)
    targets = Targets(jnp.zeros((2, 40, 4)), labels)
    total, parts = jit_loss(jnp.zeros((2, 40, 4)), jnp.zeros((2, 40, c)), targets)
    assert float(parts["conf_loss"]) == pytest.approx(4 * math.log(c), rel=1e-6)
    assert float(total) == float(parts["conf_loss"]) and int(parts["num_positives"]) == 10


def test_smooth_l1_returns_hand_computed_values():
    """The values follow from equation 3 of Girshick 2015."""
    error = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    np.testing.assert_array_equal(smooth_l1(error), [2.5, 0.5, 0.125, 0, 0.125, 0.5, 2.5])
    np.testing.assert_array_equal(jax.vmap(jax.grad(smooth_l1))(error), [-1, -1, -0.5, 0, 0.5, 1, 1])


def test_multibox_loss_gradient_equals_finite_differences():
    """Finite differences of the float64 loops give the expected gradient of positives, negatives and ignored boxes."""
    offsets, logits, targets = make_random_batch(np.random.default_rng(1), b=2, n=14, c=3)
    labels = np.asarray(targets.labels).copy()
    labels[0, :2] = (1, 2)
    targets = targets._replace(labels=jnp.asarray(labels))
    gradients = jax.grad(lambda inputs: jit_loss(*inputs, targets, config=Loss(location_weight=0.5))[0])(
        (offsets, logits)
    )
    inputs, step = [offsets.astype(np.float64), logits.astype(np.float64)], 1e-6
    for which in (0, 1):
        numeric = np.zeros(inputs[which].shape)
        for index in np.ndindex(numeric.shape):
            values = []
            for sign in (1, -1):
                moved = [array.copy() for array in inputs]
                moved[which][index] += sign * step
                values.append(reference.multibox_loss(*moved, targets.offsets, labels, 3, 0, 0.5)[0])
            numeric[index] = (values[0] - values[1]) / (2 * step)
        np.testing.assert_allclose(gradients[which], numeric, atol=2e-6)
        assert (numeric == 0).any() and (numeric != 0).any()


def test_multibox_loss_divides_by_the_number_of_positives_in_the_whole_batch():
    """One image has 1 positive and the other has 3, so the loss of the batch is not the mean of the images' losses."""
    labels = jnp.zeros((2, 20), jnp.int32).at[0, 0].set(1).at[1, :3].set(1)
    offsets = jnp.zeros((2, 20, 4)).at[0, 0, 0].set(4.5)
    targets = Targets(jnp.zeros((2, 20, 4)), labels)
    parts = jit_loss(offsets, jnp.zeros((2, 20, 3)), targets)[1]
    assert float(parts["loc_loss"]) == 4.0 / 4
    alone = [
        jit_loss(offsets[i : i + 1], jnp.zeros((1, 20, 3)), Targets(*(x[i : i + 1] for x in targets)))[1]
        for i in (0, 1)
    ]
    assert float(alone[0]["loc_loss"] + alone[1]["loc_loss"]) / 2 == 2.0


@pytest.mark.parametrize("min_negatives", [0, 5])
def test_multibox_loss_without_objects_is_the_loss_of_the_minimum_negatives(min_negatives):
    rng = np.random.default_rng(2)
    offsets, logits = rng.normal(size=(2, 12, 4)).astype(np.float32), rng.normal(size=(2, 12, 3)).astype(np.float32)
    targets = Targets(jnp.zeros((2, 12, 4)), jnp.zeros((2, 12), jnp.int32))

    def compute_loss(offsets, logits):
        return jit_loss(offsets, logits, targets, config=Loss(min_negatives=min_negatives))[0]

    value, gradients = jax.value_and_grad(compute_loss, argnums=(0, 1))(offsets, logits)
    assert not np.asarray(gradients[0]).any() and np.isfinite(gradients[1]).all()
    expected = reference.multibox_loss(
        offsets, logits, targets.offsets, np.asarray(targets.labels), 3, min_negatives, 1
    )
    assert float(value) == pytest.approx(expected[0], rel=1e-6)
    assert (np.asarray(gradients[1]).any(axis=-1).sum(axis=1) == min_negatives).all()
    if not min_negatives:
        assert float(value) == 0


def test_multibox_loss_ignores_invalid_images():
    offsets, logits, targets = make_random_batch(np.random.default_rng(3), b=4, n=30, c=5)
    valid = np.array([True, False, True, True])
    whole = jax.value_and_grad(lambda x: jit_loss(offsets, x, targets, config=MIN_3_NEGATIVES, valid=valid)[0])(logits)
    chosen = Targets(targets.offsets[valid], targets.labels[valid])
    part = jax.value_and_grad(lambda x: jit_loss(offsets[valid], x, chosen, config=MIN_3_NEGATIVES)[0])(logits[valid])
    np.testing.assert_allclose(whole[0], part[0], rtol=1e-6)
    np.testing.assert_allclose(whole[1][valid], part[1], atol=1e-7)
    assert not np.asarray(whole[1][1]).any()
    total, parts = jit_loss(offsets, logits, targets, config=MIN_3_NEGATIVES, valid=np.zeros(4, bool))
    assert float(total) == 0 and int(parts["num_positives"]) == 0


def test_multibox_loss_of_bfloat16_inputs_is_computed_in_float32():
    offsets, logits, targets = make_random_batch(np.random.default_rng(4), b=2, n=30, c=5)
    rough = jnp.asarray(offsets, jnp.bfloat16), jnp.asarray(logits, jnp.bfloat16)
    total = jit_loss(*rough, targets)[0]
    assert total.dtype == jnp.float32
    assert float(total) == float(jit_loss(*(jnp.asarray(x, jnp.float32) for x in rough), targets)[0])


def test_multibox_loss_of_large_logits_is_finite():
    """A log-sum-exp that subtracts the maximum of the whole batch would underflow here."""
    logits = jnp.array([[[0.0, 1000.0], [-1000.0, -1001.0], [300.0, 0.0], [0.0, 0.0]]])
    targets = Targets(jnp.zeros((1, 4, 4)), jnp.array([[0, 1, 0, 0]]))
    value, gradient = jax.value_and_grad(lambda x: jit_loss(jnp.zeros((1, 4, 4)), x, targets)[0])(logits)
    assert float(value) == pytest.approx(1000 + 1 + math.log1p(math.exp(-1)) + 0 + math.log(2), rel=1e-6)
    assert np.isfinite(gradient).all()


def test_multibox_loss_ignores_target_offsets_of_background_boxes():
    offsets, logits, targets = make_random_batch(np.random.default_rng(5), b=2, n=30, c=5)
    spoiled = jnp.where(targets.labels[..., None] > 0, targets.offsets, jnp.nan)
    loss = lambda x, t: jit_loss(x, logits, Targets(t, targets.labels))[0]  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(offsets, spoiled)
    assert float(value) == float(loss(offsets, targets.offsets)) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("losses", "positives", "options", "expected"),
    [
        ([5, 1, 4, 2, 3, 0], [0], {}, [2, 4, 3]),  # 3 : 1; the positive itself is never chosen
        ([5, 1, 4, 2, 3, 0], [0], {"neg_pos_ratio": 2.0}, [2, 4]),
        ([5, 1, 4, 2, 3, 0], [0], {"neg_pos_ratio": 1.9}, [2]),  # rounded down
        ([5, 1, 4, 2, 3, 0], [0, 1], {"neg_pos_ratio": 0.5}, [2]),
        ([5, 1, 4, 2, 3, 0], [0], {"neg_pos_ratio": 0.0}, []),
        ([5, 1, 4, 2, 3, 0], [0, 1], {}, [2, 3, 4, 5]),  # fewer than three negatives for each positive are available
        ([5, 1, 4, 2, 3, 0], [0, 1, 2, 3, 4, 5], {}, []),
        ([5, 1, 4, 2, 3, 0], [], {}, []),
        ([5, 1, 4, 2, 3, 0], [], {"min_negatives": 2}, [0, 2]),
        ([5, 1, 4, 2, 3, 0], [0], {"min_negatives": 2}, [2, 4, 3]),  # three for the positive exceed the minimum
        ([5, 1, 4, 2, 3, 0], [], {"min_negatives": 99}, [0, 1, 2, 3, 4, 5]),
        ([1, 7, 1, 1, 1, 1], [1], {}, [0, 2, 3]),  # ties go to the lower index
        ([1, 7, 2, 1, 1, 1], [1], {}, [2, 0, 3]),
        ([-0.0, 7, 0.0, -0.0, 0.0], [1], {}, [0, 2, 3]),  # -0 equals 0
        ([-1, 7, -3, -2, -4], [1], {}, [0, 2, 3]),  # rounding may make a loss negative
        ([1, 7, np.inf, 2, 3], [1], {"neg_pos_ratio": 2.0}, [2, 4]),
        ([1, 7, np.inf, np.nan, -np.nan], [1], {"neg_pos_ratio": 2.0}, [3, 4]),
        ([-np.inf, 7, -np.inf, -np.inf, 1], [1], {"neg_pos_ratio": 2.0}, [4, 0]),
        ([1e-37, 7, 2e-37, 0, 3e38], [1], {"neg_pos_ratio": 2.0}, [4, 2]),
    ],
)
def test_hard_negative_mask_returns_hand_computed_masks(losses, positives, options, expected):
    positive = np.isin(np.arange(len(losses)), positives)
    mask = hard_negative_mask(np.array(losses, np.float32), positive, **options)
    assert np.flatnonzero(mask).tolist() == sorted(expected)


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_hard_negative_mask_equals_selection_by_sorting(levels):
    """With few distinct losses, several equal the threshold, but the number of negatives must still be exact."""
    rng = np.random.default_rng(levels)
    losses = (rng.integers(0, levels, (20, 200)) / 7).astype(np.float32)
    positive = rng.random((20, 200)) < rng.choice([0, 0.02, 0.1, 0.5], (20, 1))
    masks = jax.jit(jax.vmap(hard_negative_mask))(losses, positive)
    for loss, is_positive, mask in zip(losses, positive, masks, strict=True):
        assert set(np.flatnonzero(mask).tolist()) == reference.select_hard_negatives(loss, is_positive, 3, 0)
