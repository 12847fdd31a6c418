"""The step against a pipeline composed by hand, one image after the other; what a run does when the loss breaks."""

import dataclasses
import os
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import reference, tiny_config
from helpers.paths import TESTS
from helpers.random_predictors import with_random_predictors

from ssd_jax.config import Config, Loss, Match, Optimizer
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.data.loader import Batch, train_batches
from ssd_jax.errors import UserError
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.augmentation import augment
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.matching import match
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.log import read_log
from ssd_jax.runtime import sharding
from ssd_jax.training.loop import DispatchedStep, Trainer, check_finite
from ssd_jax.training.train_step import TrainState, ema_update, init_state, make_train_step

TINY = tiny_config.get_config()
# Values that are nobody's default, so that one which is not passed on shows.
TINY = dataclasses.replace(
    TINY,
    model=dataclasses.replace(
        TINY.model,
        class_names=CLASS_NAMES,
        default_boxes=dataclasses.replace(TINY.model.default_boxes, variances=(0.11, 0.12, 0.23, 0.24)),
    ),
    match=Match(iou_threshold=0.4),
    loss=Loss(neg_pos_ratio=2.0, min_negatives=30, location_weight=0.7),
)
TRAIN = ShapesSource(TINY.data.shapes, "train")


def batches(count: int) -> list[Batch]:
    stream = train_batches(TRAIN, TINY.data, TINY.train.batch_size, TINY.train.seed)
    return [next(stream) for _ in range(count)]


def fresh_state(config: Config = TINY) -> TrainState:
    return init_state(config, sharding.make_mesh())


def state_with_opinions() -> TrainState:
    """A fresh one but for its predictors: those start at constants, whatever the picture."""
    state = fresh_state()
    params = with_random_predictors(state.params)
    return state._replace(params=jax.device_put(params, jax.tree.map(lambda p: p.sharding, state.params)))


@pytest.fixture(scope="module")
def train_step() -> Any:
    return make_train_step(TINY, sharding.make_mesh())


# ---- state ----


def test_fresh_state():
    state = fresh_state()
    assert int(state.step) == 0
    assert state.ema_params is not None
    jax.tree.map(np.testing.assert_array_equal, state.params, state.ema_params)
    assert state.eval_params is state.ema_params
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


def test_parameters_follow_the_seed_and_no_average_where_none_is_asked_for():
    def kernel(seed: int) -> np.ndarray:
        train = dataclasses.replace(TINY.train, seed=seed, ema_decay=0.0)
        state = fresh_state(dataclasses.replace(TINY, train=train))
        assert state.ema_params is None
        assert state.eval_params is state.params
        return np.asarray(state.params["vgg"]["conv1_1"]["kernel"])

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert (kernel(1) != kernel(2)).any()


def test_moving_average_is_the_plain_loop():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3))
    slow, fast = values[0].copy(), {"kernel": jnp.asarray(values[0], jnp.float32)}
    for step, value in enumerate(values):
        decay = min(0.8, (1 + step) / (10 + step))  # 0.1, 2/11, ... up to 0.8, at step 35
        slow = slow * decay + value * (1 - decay)
        new = {"kernel": jnp.asarray(value, jnp.float32)}
        fast = ema_update(fast, new, jnp.int32(step), 0.8)
        np.testing.assert_allclose(fast["kernel"], slow, rtol=1e-5, atol=1e-6)
    assert ema_update(None, new, jnp.int32(0), 0.0) is None


# ---- the step ----


def targets_of(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Augmented images, and what is asked of each default box: image after image, keys as the batch's contract says."""
    boxes = make_default_boxes(TINY.model.default_boxes)

    @jax.jit
    def one(key: Any, image: Any, gt_boxes: Any, gt_labels: Any) -> Any:
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
        image, targets = one(key, content, batch.gt_boxes[slot], batch.gt_labels[slot])
        images.append(image)
        offsets.append(targets.offsets)
        labels.append(targets.labels)
    return np.stack(images), np.stack(offsets), np.stack(labels)


def test_first_loss_is_that_of_a_pipeline_composed_by_hand(train_step):
    (batch,) = batches(1)
    state = state_with_opinions()
    images, target_offsets, labels = targets_of(batch)
    offsets, logits = jax.jit(SSD(TINY.model).apply)({"params": state.params}, images)
    loss, loc, conf, positives = reference.multibox_loss(
        np.asarray(offsets), np.asarray(logits), target_offsets, labels, 2.0, 30, 0.7
    )
    _, metrics = train_step(state, batch)
    assert positives > 10
    assert int(metrics["num_positives"]) == positives
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-3)
    assert float(metrics["loc_loss"]) == pytest.approx(loc, rel=1e-3)
    assert float(metrics["conf_loss"]) == pytest.approx(conf, rel=1e-3)


def test_a_step_moves_the_state_and_the_average(train_step):
    (batch,) = batches(1)
    before = jax.tree.map(np.asarray, fresh_state())
    after, metrics = train_step(fresh_state(), batch)
    assert int(after.step) == 1
    assert float(metrics["gradient_norm"]) > 0
    # The first decay is 1/10. Adam's first step is the rate in every weight that has a gradient.
    expected = jax.tree.map(lambda a, p: 0.1 * a + 0.9 * np.asarray(p), before.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), expected, after.ema_params)
    rate = TINY.optimizer.learning_rate / TINY.optimizer.warmup_steps
    moved = np.abs(after.params["fc7_mbox_loc"]["bias"] - before.params["fc7_mbox_loc"]["bias"])
    assert np.median(moved) == pytest.approx(rate, rel=0.1)


def test_a_batch_shown_again_and_again_is_learned(train_step):
    """Same epoch, same index: the same augmented pictures."""
    (batch,) = batches(1)
    state = fresh_state()
    losses = []
    for _ in range(TINY.train.steps):
        state, metrics = train_step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.25 * losses[0]


def test_image_that_could_not_be_read_counts_for_nothing(train_step):
    (batch,) = batches(1)
    blank = batch._replace(valid=np.array([True, True, False, True]))
    noise = np.random.default_rng(0).integers(0, 256, batch.canvas[2].shape, np.uint8)
    other = blank._replace(canvas=batch.canvas.copy())
    other.canvas[2] = noise
    losses = [train_step(state_with_opinions(), b)[1] for b in (blank, other)]
    # Only rounding differs: GroupNorm and all else look at one image at a time.
    assert float(losses[0]["loss"]) == pytest.approx(float(losses[1]["loss"]), rel=1e-6)
    assert float(losses[0]["gradient_norm"]) == pytest.approx(float(losses[1]["gradient_norm"]), rel=1e-5)
    assert int(losses[0]["num_positives"]) < int(train_step(fresh_state(), batch)[1]["num_positives"])


def test_same_picture_on_any_place_in_the_batch(train_step):
    (batch,) = batches(1)
    turned = Batch(*(np.roll(field, 1, axis=0) for field in batch))
    one, other = (float(train_step(state_with_opinions(), b)[1]["loss"]) for b in (batch, turned))
    assert one == pytest.approx(other, rel=1e-5)


class Slow:
    """A number that a device is still busy with; it takes a quarter of a second for each, one after the other."""

    free = 0.0

    def __init__(self) -> None:
        self.ready = Slow.free = max(Slow.free, time.perf_counter()) + 0.25

    def block_until_ready(self) -> "Slow":
        time.sleep(max(0.0, self.ready - time.perf_counter()))
        return self

    def __float__(self) -> float:
        self.block_until_ready()
        return 1.0


def test_images_per_second_counts_the_steps_whole(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=6, log_every=3, eval_every=0))
    loop = Trainer(config, tmp_path, TRAIN, None)
    names = ("loss", "loc_loss", "conf_loss", "gradient_norm")
    loop.train_step = lambda state, batch: (state, dict.fromkeys(names, Slow()))
    monkeypatch.setattr(loop, "save", lambda *_: None)
    loop.run()
    speeds = [line["images_per_second"] for line in read_log(tmp_path)]
    assert len(speeds) == 2 and all(4 < speed < 16.5 for speed in speeds), "four images in a quarter of a second"


def test_one_compilation():
    step = make_train_step(TINY, sharding.make_mesh())
    state = fresh_state()
    for batch in batches(3):
        state, _ = step(state, sharding.shard_batch(batch, sharding.make_mesh()))
    assert step._cache_size() == 1


def test_one_compilation_after_going_on(trained_run, tmp_path):
    """A restored state is laid out as a fresh one."""
    loop = Trainer(run_folder.read_config(trained_run), trained_run, TRAIN, None)
    with Checkpoints(trained_run / "checkpoints") as loop.checkpoints:
        state = loop.resume_or_init()
    assert int(state.step) == 30
    for batch in batches(2):
        state, _ = loop.train_step(state, sharding.shard_batch(batch, loop.mesh))
    assert loop.train_step._cache_size() == 1


def test_a_batch_in_parts_is_one_batch():
    def step(parts: int) -> tuple[TrainState, Any]:
        train = dataclasses.replace(TINY.train, batch_size=32, accumulation_steps=parts)
        # Of Adam's first step only the gradient's signs are left.
        config = dataclasses.replace(TINY, train=train, optimizer=Optimizer(learning_rate=0.1, clip_norm=1.0))
        batch = next(train_batches(TRAIN, config.data, 32, 0))
        batch = batch._replace(valid=np.arange(32) % 5 > 0)
        state = fresh_state(config)._replace(params=state_with_opinions().params)
        return make_train_step(config, sharding.make_mesh())(state, batch)

    (whole, expected), (parts, metrics) = step(1), step(4)
    assert int(metrics["num_positives"]) == int(expected["num_positives"]) > 100
    for name in expected:
        assert float(metrics[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
    difference = jax.tree.map(lambda a, b: a - b, parts.params, whole.params)
    assert float(optax.tree.norm(difference)) <= 1e-6 * float(optax.tree.norm(whole.params))
    for here, there in zip(jax.tree.leaves(parts.opt_state), jax.tree.leaves(whole.opt_state), strict=True):
        assert np.abs(here - there).max() <= 1e-3 * np.abs(there).max(), "momentum: the update itself"


FOUR_DEVICES = """
import dataclasses, jax, numpy as np
import test_training as t
from ssd_jax.runtime import sharding
from ssd_jax.training.train_step import check_batch_size, make_train_step
from ssd_jax.errors import UserError
mesh = sharding.make_mesh()
assert mesh.size == 4
step = make_train_step(t.TINY, mesh)
state = t.fresh_state()
for batch in t.batches(2):
    state, metrics = step(state, sharding.shard_batch(batch, mesh))
    print(float(metrics["loss"]), float(metrics["gradient_norm"]), int(metrics["num_positives"]))
assert step._cache_size() == 1
try:
    six = dataclasses.replace(t.TINY.train, batch_size=6)
    check_batch_size(dataclasses.replace(t.TINY, train=six), mesh)
except UserError as error:
    print(error)
"""


def test_loss_and_gradient_do_not_depend_on_the_number_of_devices(train_step):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    result = subprocess.run([sys.executable, "-c", FOUR_DEVICES], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    *steps, refusal = result.stdout.splitlines()
    state = fresh_state()
    for line, batch, tolerance in zip(steps, batches(2), (1e-5, 1e-3), strict=True):
        # The second step, after Adam's first, whose size doesn't shrink with the gradient's: rounding grows.
        state, metrics = train_step(state, batch)
        loss, norm, positives = map(float, line.split())
        assert loss == pytest.approx(float(metrics["loss"]), rel=tolerance)
        assert norm == pytest.approx(float(metrics["gradient_norm"]), rel=10 * tolerance)
        assert positives == int(metrics["num_positives"])
    assert refusal == "train.batch_size is 6, which 4 devices can't share evenly: take a multiple of 4"


# ---- a loss that is not finite ----


@pytest.mark.parametrize("broken", ["loss", "gradient_norm"])
def test_loss_that_is_not_finite_is_told_with_its_step_and_images(broken):
    fine = {"loss": jnp.float32(1.5), "gradient_norm": jnp.float32(2)}
    pending = [
        DispatchedStep(7, np.array([0, 1]), fine),
        DispatchedStep(8, np.array([2, 5]), fine | {broken: jnp.float32(np.nan)}),
        DispatchedStep(9, np.array([3, 4]), fine | {broken: jnp.float32(np.nan)}),
    ]
    assert check_finite(pending[:1], TRAIN) == [{"loss": 1.5, "gradient_norm": 2.0}]
    with pytest.raises(UserError) as error:
        check_finite(pending, TRAIN)
    message = str(error.value)
    assert message.startswith("step 8:")
    assert "Images of this step: train_000002, train_000005." in message
    for advice in ("--optimizer.learning_rate", "--optimizer.warmup_steps", "--optimizer.clip_norm", "new --workdir"):
        assert advice in message
