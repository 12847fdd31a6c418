"""Tests of the number of steps that follows from epochs, and of the config with which a run is resumed."""

import dataclasses

import pytest

from ssd_jax.config import Config, Train
from ssd_jax.errors import UserError
from ssd_jax.runs.config_file import load_config
from ssd_jax.training.length import Length, adopt_length, count_steps, describe_length, describe_rule, resolve_length


def make_config(**options) -> Config:
    return Config(train=Train(**{"batch_size": 8, **options}))


@pytest.mark.parametrize(
    ("images", "steps"), [(1, 100), (80, 100), (120, 150), (1000, 1250), (1600, 2000), (5000, 2000), (10**9, 2000)]
)
def test_count_steps_follows_from_epochs_within_the_range(images, steps):
    assert count_steps(Train(epochs=10, batch_size=8, steps_range=(100, 2000)), images) == steps


def test_count_steps_without_range_is_at_least_one():
    assert [count_steps(Train(epochs=0.5, batch_size=32), images) for images in (1, 32, 640)] == [1, 1, 10]


def test_resolve_length_sets_steps_and_six_evaluations():
    resolved = resolve_length(make_config(epochs=30, eval_every=None), 100).train
    assert (resolved.steps, resolved.epochs, resolved.eval_every) == (375, 30, 63)
    assert [step for step in range(1, 376) if Length(resolved).evaluates_after(step)] == [63, 126, 189, 252, 315]
    assert resolve_length(make_config(steps=1200, eval_every=None), 100).train.eval_every == 200
    assert resolve_length(make_config(steps=1200, eval_every=7), 100).train.eval_every == 7
    assert resolve_length(make_config(steps=1200, eval_every=0), 100).train.eval_every == 0


def test_resolve_length_leaves_the_length_in_minutes_open():
    train = resolve_length(make_config(minutes=3, eval_every=None, steps=500), 100).train
    assert (train.steps, train.eval_every) == (None, None)


def test_resolve_length_accepts_its_own_result_and_rejects_other_steps():
    config = resolve_length(make_config(epochs=30), 100)
    assert resolve_length(config, 100) == config
    with pytest.raises(UserError) as error:
        resolve_length(config, 200)
    for word in ("train.steps is 375", "train.epochs 30", "200 images", "750 steps"):
        assert word in str(error.value)


def test_adopt_length_keeps_the_steps_of_the_run_although_images_were_added():
    given = make_config(epochs=30, eval_every=None)
    saved = resolve_length(given, 100)
    assert adopt_length(given, saved) == saved
    assert adopt_length(saved, saved) == saved


@pytest.mark.parametrize("options", [{"epochs": 31}, {"minutes": 3}, {"epochs": 30, "steps_range": (1, 400)}])
def test_adopt_length_does_not_hide_another_length(options):
    saved = resolve_length(make_config(epochs=30), 100)
    given = make_config(**options)
    assert adopt_length(given, saved) == given


def test_adopt_length_does_not_hide_other_steps():
    saved, given = make_config(steps=500), make_config(steps=600)
    assert adopt_length(given, saved) == given


def test_describe_length_names_steps_epochs_and_images():
    limited = dataclasses.replace(make_config(epochs=15, steps_range=(1200, 12_000)).train, steps=1200)
    assert describe_length(limited, 205) == "1200 steps of 8 images = 46.8 epochs of 205 images"
    assert "15 epochs, but 1200 to 12000 steps" in describe_rule(limited)
    assert "2.5 minutes" in describe_length(make_config(minutes=2.5).train, 1600)
    assert describe_rule(make_config(epochs=3).train) == describe_rule(make_config(steps=3).train) == ""


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("own_data", {50: 1200, 205: 1200, 292: 1200, 640: 1200, 1000: 1875, 100_000: 12_000}),
        ("own_data_512", {640: 1200, 1000: 1875}),
        ("own_data_from_coco", {640: 1200, 1000: 1875}),
        ("own_data_small", {75: 600, 640: 600, 1000: 938, 100_000: 6000}),
    ],
)
def test_configs_for_own_data_choose_steps_from_the_number_of_images(name, steps):
    """205 and 292 images are the train splits of docs/bccd.md, whose runs had 1200 steps."""
    config = load_config(name)
    for images, expected in steps.items():
        train = resolve_length(config, images).train
        assert (train.steps, train.eval_every) == (expected, -(-expected // 6))
    assert resolve_length(load_config(name, {"train.steps": 500}), 205).train.steps == 500
    assert resolve_length(load_config(name, {"train.epochs": 4}), 1000).train.steps == round(
        4000 / config.train.batch_size
    )
