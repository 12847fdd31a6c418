"""Tests of the training step, also against a pipeline that processes one image after another."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import reference, tiny_config
from helpers.random_predictors import randomize_predictors

from ssd_jax.config import Config, Optimizer
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.data.loader import Batch, train_batches
from ssd_jax.errors import UserError
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.augmentation import augment
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.matching import Targets, match
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runtime import sharding
from ssd_jax.training.loop import Trainer
from ssd_jax.training.optimizer import SchedulePoint, make_schedule_point
from ssd_jax.training.train_step import (
    TrainState,
    check_batch_size,
    compute_state_shapes,
    count_positives,
    init_state,
    make_grad_fn,
    make_train_step,
    update_ema,
)

TINY = tiny_config.get_step_config()
TRAIN = ShapesSource(TINY.data.shapes, "train")
MESH = sharding.make_mesh()


def read_first_batches(count: int) -> list[Batch]:
    stream = train_batches(TRAIN, TINY.data, TINY.train.batch_size, TINY.train.seed)
    return [next(stream) for _ in range(count)]


@pytest.fixture(scope="module")
def initial_state() -> TrainState:
    """Return the initial state as NumPy arrays. Each test puts a copy on the device, because the step donates it."""
    return jax.tree.map(np.asarray, init_state(TINY, MESH))


@pytest.fixture(scope="module")
def train_step() -> Any:
    return make_train_step(TINY, MESH)


def to_device(state: TrainState) -> TrainState:
    return jax.device_put(state, sharding.make_fsdp_sharding(state, MESH))


def make_state_with_random_predictors(state: TrainState) -> TrainState:
    """Return the state on the device with random predictors, since the initial predictors have constant outputs."""
    return to_device(state._replace(params=jax.tree.map(np.asarray, randomize_predictors(state.params))))


def make_point(step: int, config: Config = TINY) -> SchedulePoint:
    return make_schedule_point(config.optimizer, step, config.train.steps)


def run_step(train_step: Any, state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
    return train_step(state, sharding.shard_batch(batch, MESH), make_point(int(state.step)))


# ---- the state ----


def test_init_state_starts_the_moving_average_from_the_parameters(initial_state):
    state = init_state(TINY, MESH)
    assert int(state.step) == 0
    assert state.ema_params is not None and state.eval_params is state.ema_params
    jax.tree.map(np.testing.assert_array_equal, state.params, state.ema_params)
    jax.tree.map(np.testing.assert_array_equal, state, initial_state)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), state)
    assert (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), compute_state_shapes(TINY, MESH)) == shapes
    )


def test_init_state_depends_on_the_seed_and_has_no_average_without_ema_decay(initial_state):
    config = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, seed=1, ema_decay=0.0))
    state = init_state(config, MESH)
    assert state.ema_params is None
    assert state.eval_params is state.params
    kernel = np.asarray(state.params["vgg"]["conv1_1"]["kernel"])
    assert (kernel != initial_state.params["vgg"]["conv1_1"]["kernel"]).all()


def test_update_ema_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3))
    expected, ema = values[0].copy(), {"kernel": jnp.asarray(values[0], jnp.float32)}
    for step, value in enumerate(values):
        decay = min(0.8, (1 + step) / (10 + step))  # 0.1, 2/11, ... up to 0.8, at step 35
        expected = expected * decay + value * (1 - decay)
        new = {"kernel": jnp.asarray(value, jnp.float32)}
        ema = update_ema(ema, new, jnp.int32(step), 0.8)
        np.testing.assert_allclose(ema["kernel"], expected, rtol=1e-5, atol=1e-6)
    assert update_ema(None, new, jnp.int32(0), 0.0) is None


# ---- the step ----


def prepare_image_by_image(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Augment and match the images of a batch one by one. The random keys depend on seed, epoch and index.

    Returns:
        Augmented images, target offsets and target labels.
    """
    boxes = make_default_boxes(TINY.model.default_boxes)

    @jax.jit
    def prepare(key: Any, image: Any, gt_boxes: Any, gt_labels: Any) -> Any:
        image, gt_boxes, gt_labels = augment(key, image, 64, gt_boxes, gt_labels, TINY.augment, fill=TINY.model.mean)
        variances = TINY.model.default_boxes.variances
        return image, match(gt_boxes, gt_labels, boxes, variances, TINY.match)

    images, offsets, labels = [], [], []
    for slot in range(len(batch.index)):
        key = jax.random.key(TINY.train.seed)
        for number in (batch.epoch[slot], batch.index[slot]):
            key = jax.random.fold_in(key, number)
        height, width = batch.height[slot], batch.width[slot]
        content = batch.canvas[slot, :height, :width]
        image, targets = prepare(key, content, batch.gt_boxes[slot], batch.gt_labels[slot])
        images.append(image)
        offsets.append(targets.offsets)
        labels.append(targets.labels)
    return np.stack(images), np.stack(offsets), np.stack(labels)


def test_train_step_loss_equals_that_of_a_hand_written_pipeline(train_step, initial_state):
    (batch,) = read_first_batches(1)
    state = make_state_with_random_predictors(initial_state)
    images, target_offsets, labels = prepare_image_by_image(batch)
    offsets, logits = jax.jit(SSD(TINY.model).apply)({"params": state.params}, images)
    loss, loc, conf, positives = reference.multibox_loss(
        np.asarray(offsets), np.asarray(logits), target_offsets, labels, 2.0, 30, 0.7
    )
    _, metrics = run_step(train_step, state, batch)
    assert positives > 10
    assert int(metrics["num_positives"]) == positives
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-3)
    assert float(metrics["loc_loss"]) == pytest.approx(loc, rel=1e-3)
    assert float(metrics["conf_loss"]) == pytest.approx(conf, rel=1e-3)


def test_train_step_updates_parameters_and_moving_average(train_step, initial_state):
    (batch,) = read_first_batches(1)
    after, metrics = run_step(train_step, to_device(initial_state), batch)
    assert int(after.step) == 1
    assert float(metrics["gradient_norm"]) > 0
    # The decay of the first step is 1/10. Adam's first step changes each weight with a gradient by the learning rate.
    expected = jax.tree.map(lambda a, p: 0.1 * a + 0.9 * np.asarray(p), initial_state.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), expected, after.ema_params)
    rate = TINY.optimizer.learning_rate / TINY.optimizer.warmup_steps
    moved = np.abs(after.params["fc7_mbox_loc"]["bias"] - initial_state.params["fc7_mbox_loc"]["bias"])
    assert np.median(moved) == pytest.approx(rate, rel=0.1)


def test_train_step_reduces_the_loss_of_a_repeated_batch(train_step, initial_state):
    """The augmented images are the same in each step, because they depend only on seed, epoch and index."""
    (batch,) = read_first_batches(1)
    state = to_device(initial_state)
    losses = []
    for _ in range(TINY.train.steps):
        state, metrics = run_step(train_step, state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.25 * losses[0]


def test_train_step_ignores_an_invalid_image(train_step, initial_state):
    (batch,) = read_first_batches(1)
    blank = batch._replace(valid=np.arange(8) != 2)
    noise = np.random.default_rng(0).integers(0, 256, batch.canvas[2].shape, np.uint8)
    other = blank._replace(canvas=batch.canvas.copy())
    other.canvas[2] = noise
    metrics = [run_step(train_step, make_state_with_random_predictors(initial_state), b)[1] for b in (blank, other)]
    # Only rounding differs: GroupNorm and all other layers process each image on its own.
    assert float(metrics[0]["loss"]) == pytest.approx(float(metrics[1]["loss"]), rel=1e-6)
    assert float(metrics[0]["gradient_norm"]) == pytest.approx(float(metrics[1]["gradient_norm"]), rel=1e-5)
    whole = run_step(train_step, to_device(initial_state), batch)[1]
    assert int(metrics[0]["num_positives"]) < int(whole["num_positives"])


@pytest.mark.parametrize(
    ("valid", "expected"), [([True, True], 3), ([True, False], 1), ([False, True], 2), ([False] * 2, 1)]
)
def test_count_positives_counts_boxes_of_valid_images(valid, expected):
    """The result is at least 1, because the loss is divided by it."""
    targets = Targets(labels=jnp.array([[1, 0, 0], [2, 3, 0]]), offsets=jnp.zeros((2, 3, 4)))
    assert int(count_positives(targets, jnp.array(valid))) == expected


def test_loss_does_not_depend_on_the_order_of_the_images(train_step, initial_state):
    (batch,) = read_first_batches(1)
    rolled = Batch(*(np.roll(field, 1, axis=0) for field in batch))
    one, other = (
        float(run_step(train_step, make_state_with_random_predictors(initial_state), b)[1]["loss"])
        for b in (batch, rolled)
    )
    assert one == pytest.approx(other, rel=1e-5)


def test_train_step_is_not_compiled_again_for_a_restored_state(train_step, initial_state, trained_run):
    """The restored state must have the shardings of the initial state to avoid a second compilation."""
    trainer = Trainer(run_folder.read_config(trained_run), trained_run, TRAIN, None)
    with Checkpoints(trained_run / "checkpoints") as checkpoints:
        restored = trainer.restore_or_init_state(checkpoints)
    assert int(restored.step) == 30
    for state in (to_device(initial_state), restored):
        for batch in read_first_batches(2):
            state, _ = run_step(train_step, state, batch)
    assert train_step._cache_size() == 1


# ---- accumulation steps ----


def test_accumulated_gradient_equals_that_of_the_whole_batch():
    """The test uses a small model in place of the network."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(5, 3)).astype(np.float32)}
    images, labels = rng.normal(size=(12, 5)).astype(np.float32), rng.integers(0, 3, 12).astype(np.int32)
    valid = np.arange(12) % 5 > 0

    def loss_fn(params: Any, images: Any, labels: Any, valid: Any, normalizer: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(jnp.tanh(images @ params["kernel"]), labels)
        return jnp.where(valid, losses, 0).sum() / normalizer, {"count": valid.sum()}

    arguments = params, images, labels, valid, jnp.int32(7)
    expected, expected_grads = make_grad_fn(loss_fn, 1)(*arguments)
    for accumulation_steps in (2, 3, 12):
        metrics, grads = jax.jit(make_grad_fn(loss_fn, accumulation_steps))(*arguments)
        assert int(metrics["count"]) == int(expected["count"]) == 9
        assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-5)
        np.testing.assert_allclose(grads["kernel"], expected_grads["kernel"], rtol=1e-5, atol=1e-6)


def test_train_step_splits_a_batch_into_accumulation_steps():
    config = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, accumulation_steps=4))
    (batch,) = read_first_batches(1)
    jaxpr = str(make_train_step(config, MESH).trace(compute_state_shapes(config, MESH), batch, make_point(0)).jaxpr)
    assert "f32[2,64,64,3]" in jaxpr, "two images at a time"


@pytest.mark.slow
def test_accumulated_network_update_equals_that_of_the_whole_batch(initial_state):
    def train_one_step(accumulation_steps: int) -> tuple[TrainState, Any]:
        train = dataclasses.replace(TINY.train, batch_size=32, accumulation_steps=accumulation_steps)
        # The optimizer is SGD, because Adam's first update depends only on the sign of each gradient.
        config = dataclasses.replace(TINY, train=train, optimizer=Optimizer(learning_rate=0.1, clip_norm=1.0))
        batch = next(train_batches(TRAIN, config.data, 32, 0))
        batch = batch._replace(valid=np.arange(32) % 5 > 0)
        state = init_state(config, MESH)._replace(params=make_state_with_random_predictors(initial_state).params)
        return make_train_step(config, MESH)(state, batch, make_point(0, config))

    (whole, expected), (accumulated, metrics) = train_one_step(1), train_one_step(4)
    assert int(metrics["num_positives"]) == int(expected["num_positives"]) > 100
    for name in expected:
        assert float(metrics[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    difference = jax.tree.map(lambda a, b: a - b, accumulated.params, whole.params)
    assert float(optax.tree.norm(difference)) <= 1e-6 * float(optax.tree.norm(whole.params))
    for ours, whole_leaf in zip(jax.tree.leaves(accumulated.opt_state), jax.tree.leaves(whole.opt_state), strict=True):
        assert np.abs(ours - whole_leaf).max() <= 1e-3 * np.abs(whole_leaf).max(), "momentum: the update itself"


@pytest.mark.parametrize(
    ("train", "shards", "words"),
    [
        ({"batch_size": 6}, 0, ("train.batch_size", "6", "multiple of 4")),
        ({"batch_size": 12, "accumulation_steps": 2}, 0, ("train.batch_size", "12", "multiple of 8")),
        ({"batch_size": 8}, 2, ("devices.virtual_shards", "2", "4")),
        ({"batch_size": 8, "accumulation_steps": 2}, 0, ()),
        ({"batch_size": 8}, 8, ()),
    ],
)
def test_batch_size_must_be_a_multiple_of_devices_and_accumulation_steps(train, shards, words):
    config: Config = dataclasses.replace(
        TINY,
        train=dataclasses.replace(TINY.train, **train),
        devices=dataclasses.replace(TINY.devices, virtual_shards=shards),
    )
    if not words:
        check_batch_size(config, 4)
        return
    with pytest.raises(UserError) as error:
        check_batch_size(config, 4)
    assert all(word in str(error.value) for word in words)
