"""Tests of loading config files, of checking the values of options, and of former option names."""

import contextlib
import dataclasses
import inspect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.cli import TINY
from helpers.paths import ROOT

from ssd_jax.config import Augment, Config, Data, DefaultBoxes, Detect, Devices, Model, Optimizer, Shapes, Train
from ssd_jax.config_fields import RENAMED_OPTIONS
from ssd_jax.errors import UserError
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.runs import config_file
from ssd_jax.runs.config_file import decode_config, load_config, validate
from ssd_jax.runtime import sharding
from ssd_jax.training.optimizer import make_schedule
from ssd_jax.training.train_step import compute_state_shapes


def replace_option(config: Any, option: str, value: Any) -> Any:
    """Return a copy of a config with another value of an option. The type of the value is not checked."""
    name, _, rest = option.partition(".")
    copy = dataclasses.replace(config)
    object.__setattr__(copy, name, replace_option(getattr(copy, name), rest, value) if rest else value)
    return copy


# ---- values ----


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("train.steps", 0, ">= 1"),
        ("train.steps", 5.5, "int"),
        ("train.steps", "5", "int"),
        ("train.seed", -1, ">= 0"),
        ("train.ema_decay", 1.0, "< 1"),
        ("data.root", 7, "str"),
        ("data.shapes.seed", -1, ">= 0"),
        ("data.shapes.val_images", 0, ">= 1"),
        ("data.shapes.image_size", 15, ">= 16"),
        ("data.val_fraction", 1.0, "< 1"),
        ("match.iou_threshold", 0.0, "> 0"),
        ("match.iou_threshold", 1.5, "<= 1"),
        ("loss.neg_pos_ratio", -1.0, ">= 0"),
        ("detect.max_detections", -1, ">= 1"),
        ("detect.score_threshold", 5.0, "<= 1"),
        ("detect.top_k_per", "image", "'class', 'map'"),
        ("optimizer.momentum", 1.0, "< 1"),
        ("optimizer.warmup_steps", -3, ">= 0"),
        ("optimizer.clip_norm", 0.0, "> 0"),
        ("optimizer.freeze_blocks", 6, "<= 5"),
        ("optimizer.learning_rate", float("nan"), "finite"),
        ("optimizer.learning_rate", float("inf"), "finite"),
        ("optimizer.name", "sdg", "'sgd', 'adamw', 'muon'"),
        ("augment.flip_probability", 1.5, "<= 1"),
        ("augment.expand_max_ratio", 0.5, ">= 1"),
        ("devices.fsdp", 0, ">= 1"),
        ("devices.virtual_shards", -2, ">= 0"),
        ("model.width", 0.0, "> 0"),
        ("model.default_boxes.variances", (0.1, 0.1, 0.2), "length 4"),
        ("optimizer.learning_rate", 1e300, "3.4e+38"),
        ("optimizer.weight_decay", 1e-300, "1.2e-38"),
        ("model.width", 1e9, "<= 100"),
        ("model.default_boxes.image_size", 10**9, "<= 8192"),
        ("data.max_image_size", 10**9, "<= 65535"),
        ("data.max_objects", 10**9, "<= 100000"),
        ("train.batch_size", 10**9, "<= 100000"),
        ("train.steps", 2**31, "<= 2147483647"),
        ("train.seed", 2**63, "<= 9223372036854775807"),
        ("train.seed", 10**40, "<= 9223372036854775807"),
        ("name", "", "length >= 1"),
    ],
)
def test_validate_error_names_the_option_the_value_and_the_bound(option, value, expected):
    with pytest.raises(UserError) as error:
        validate(replace_option(Config(), option, value))
    assert f"{option} is {value!r}" in str(error.value).replace("is nan", f"is {value!r}")
    assert expected in str(error.value).partition(" is ")[2]


@pytest.mark.parametrize(
    ("option", "value", "place"),
    [
        ("model.std", (1.0, 0.0, 1.0), "model.std[1]"),
        ("model.default_boxes.min_sizes", (30, 60, 111, -1, 213, 264), "model.default_boxes.min_sizes[3]"),
        ("model.default_boxes.aspect_ratios", ((2,),) * 5 + ((0.0,),), "model.default_boxes.aspect_ratios[5][0]"),
        ("augment.crop_scale", (0.0, 1.0), "augment.crop_scale[0]"),
        ("augment.crop_scale", (0.5, 1.5), "augment.crop_scale[1]"),
        ("augment.contrast", (-0.5, 1.5), "augment.contrast[0]"),
        ("detect.log_scale_bounds", (0.0, None), "detect.log_scale_bounds[0]"),
        ("model.default_boxes.min_sizes", (1e9, 60, 111, 162, 213, 264), "model.default_boxes.min_sizes[0]"),
        ("model.default_boxes.variances", (1e-30, 0.1, 0.2, 0.2), "model.default_boxes.variances[0]"),
        ("optimizer.milestones", (-1,), "optimizer.milestones[0]"),
    ],
)
def test_validate_error_names_the_tuple_entry(option, value, place):
    with pytest.raises(UserError) as error:
        validate(replace_option(Config(), option, value))
    assert f"{place} is " in str(error.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DefaultBoxes(min_sizes=(30,)), ["min_sizes", "1 entries", "6"]),
        (lambda: DefaultBoxes(max_sizes=(30, 111, 162, 213, 264, 315)), ["max_sizes", "30"]),
        (lambda: DefaultBoxes(aspect_ratios=((2, 1), (2,), (2,), (2,), (2,), (2,))), ["aspect_ratios", "1"]),
        (lambda: Model(class_names=("a", "b", "a")), ["class_names"]),
        (lambda: Model(extras=()), ["feature_maps", "(38, 19)"]),
        (lambda: Augment(contrast=(2.0, 1.0)), ["augment.contrast", "2.0"]),
        (lambda: Devices(virtual_shards=3), ["devices.virtual_shards is 3"]),
        (lambda: Devices(virtual_shards=2, fsdp=2), ["devices.virtual_shards", "devices.fsdp"]),
        (lambda: Train(transfer_names=(("a", "b"),)), ["train.transfer_names", "train.transfer"]),
        (lambda: Train(transfer=True, transfer_names=(("a", "b"), ("a", "c"))), ["train.transfer_names"]),
        (lambda: Train(transfer=True, backbone_only=True), ["train.transfer", "train.backbone_only"]),
        (lambda: Config(devices=Devices(virtual_shards=4), train=Train(batch_size=6)), ["train.batch_size is 6", "4"]),
        (
            lambda: Config(devices=Devices(virtual_shards=4), train=Train(accumulation_steps=2)),
            ["devices.virtual_shards", "train.accumulation_steps"],
        ),
    ],
)
def test_config_constructors_check_rules_that_involve_several_fields(build, words):
    with pytest.raises(UserError) as error:
        build()
    for word in words:
        assert word in str(error.value)


def test_validate_returns_an_equal_config():
    config = load_config(TINY)
    assert validate(config) == config and hash(validate(config)) == hash(config)


# ---- config.json ----


def test_decode_config_error_names_an_option_inside_a_list():
    tree = msgspec.to_builtins(Config())
    tree["model"]["extras"][0]["stride"] = 0
    with pytest.raises(UserError, match=r"model\.extras\[0\]\.stride is 0: expected int >= 1"):
        decode_config(msgspec.json.encode(tree))


VALUES = (0, -1, 1, 0.5, 1e-300, 1e300, 1e38, 2**31, 2**64, True, None, "", "x" * 10_000, [], {}, [0], [[]], [None],
          [1, 2], [1.0] * 50, [["a", "b"]], {"a": {}})  # fmt: skip


def iterate_paths(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path to each value in nested dicts and lists."""
    yield path
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from iterate_paths(value, (*path, key))


def replace_value(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy of nested dicts and lists with another value at a path."""
    if not path:
        return value
    copy = tree.copy()
    copy[path[0]] = replace_value(tree[path[0]], path[1:], value)
    return copy


def mutated_configs(every: int = 1) -> Iterator[tuple[tuple[str | int, ...], Any, dict[str, Any]]]:
    """Yield paths in a small config.json and values, with the tree that has this value at the path.

    Args:
        every: 1 for all combinations, n for each n-th one.
    """
    tree = json.loads(msgspec.json.encode(load_config(TINY)))
    for path, value in itertools.islice(itertools.product(iterate_paths(tree), VALUES), 0, None, every):
        yield path, value, replace_value(tree, path, value)


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_decode_config_accepts_or_explains_any_value_of_any_option(every):
    accepted = refused = 0
    for path, value, tree in mutated_configs(every):
        try:
            decode_config(json.dumps(tree).encode())
            accepted += 1
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 600, (path, value)
            refused += 1
    assert accepted > 200 / every and refused > 2000 / every


@pytest.mark.slow
def test_every_accepted_value_gives_a_network_and_an_optimizer():
    mesh = sharding.make_mesh()
    for path, value, tree in mutated_configs():
        with contextlib.suppress(UserError):
            config = decode_config(json.dumps(tree).encode())
            assert np.isfinite(make_default_boxes(config.model.default_boxes)).all(), (path, value)
            if path and path[0] in ("model", "optimizer"):
                compute_state_shapes(config, mesh)
                make_schedule(config.optimizer, config.train.steps)(0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\xff{}", b'{"name": "\xff"}', b"[" * 100_000, b'{"train":' * 100_000,
     b'{"train": {"seed": ' + b"9" * 5000 + b"}}"],
    ids=range(7),
)  # fmt: skip
def test_decode_config_rejects_odd_bytes_and_deep_nesting(data):
    with pytest.raises(UserError):
        decode_config(data)


def test_constructors_accept_former_option_names(tmp_path):
    for old, new in RENAMED_OPTIONS.items():
        (section, old_name), new_name = old.split("."), new.split(".")[1]
        cls = {"data": Data, "detect": Detect, "optimizer": Optimizer, "train": Train}[section]
        value = getattr(cls(), new_name)
        with pytest.warns(FutureWarning, match=f"{cls.__name__}.{old_name} .* {new_name}"):
            assert cls(**{old_name: value}) == cls()
    with pytest.warns(FutureWarning):
        assert dataclasses.replace(Data(), canvas=96) == Data(max_image_size=96)
    with pytest.raises(TypeError, match="canvass"):
        Data(canvass=96)


def test_decode_config_translates_former_option_names():
    written = Config(
        data=Data(max_image_size=320, shapes=Shapes(seed=3)),
        detect=Detect(top_k_per="map"),
        optimizer=Optimizer(adam_lr_multiplier=0.3, bias_lr_multiplier=1.5),
        train=Train(pretrained="runs/coco", backbone_only=True),
    )
    tree = json.loads(msgspec.json.encode(written))
    for old, new in RENAMED_OPTIONS.items():
        section, name = new.split(".")
        tree[section][old.split(".")[1]] = tree[section].pop(name)
    assert {"canvas", "root"} <= set(tree["data"]) and "max_image_size" not in tree["data"]
    assert decode_config(json.dumps(tree).encode()) == written


def test_decode_config_prefers_the_current_option_name():
    tree = {"data": {"canvas": 100, "max_image_size": 200}}
    assert decode_config(json.dumps(tree).encode()).data.max_image_size == 200


@pytest.mark.parametrize("text", ["[]", "5", '{"data": 5}', '{"data": [1]}', "{", '{"model": {"extras": [{}]}}'])
def test_decode_config_rejects_text_that_is_not_a_config(text):
    with pytest.raises(UserError):
        decode_config(text.encode())


# ---- config files ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef get_config(:\n", ["SyntaxError", "line 2"]),
        ("x = 1\n", ["get_config"]),
        ("def get_config():\n    return {}\n", ["ssd_jax.config.Config", "dict"]),
        ("def get_config():\n    return Confg()\n", ["NameError", "Confg", "line 2"]),
        ("import ssd_jax.confg\n", ["ModuleNotFoundError", "line 1"]),
        ("import sys\nsys.exit(0)\n", ["SystemExit", "line 2"]),
        (
            "from ssd_jax.config import Config, Train\ndef get_config():\n    return Config(train=Train(stepz=1))\n",
            ["stepz", "line 3"],
        ),
        (
            "from ssd_jax.config import Config, Train\ndef get_config():\n    return Config(train=Train(steps=0))\n",
            ["train.steps is 0"],
        ),
        (
            # Outside the tests, Data(root=7) has the same effect, because the constructor checks no types.
            "from ssd_jax.config import Config\ndef get_config():\n    config = Config()\n"
            "    object.__setattr__(config.data, 'root', 7)\n    return config\n",
            ["data.root is 7", "str"],
        ),
    ],
)
def test_load_config_error_names_the_file_and_the_mistake(tmp_path, text, words):
    file = tmp_path / "my_config.py"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(file)
    for word in (str(file), *words):
        assert word.lower() in str(error.value).lower()


def test_load_config_replaces_values_with_the_given_options():
    base = load_config(TINY)
    options = {"data.root": "folder", "train.steps": 7, "model.std": (2.0, 2.0, 2.0), "data.canvas": 96}
    config = load_config(TINY, options)
    assert (config.data.root, config.train.steps, config.data.max_image_size) == ("folder", 7, 96)
    assert config.model.std == (2.0, 2.0, 2.0)
    assert dataclasses.replace(config, data=base.data, train=base.train, model=base.model) == base


def test_load_config_replaces_the_length_with_the_given_one(tmp_path):
    train = load_config(TINY, {"train.minutes": 2}).train
    assert (train.steps, train.minutes, train.eval_every) == (None, 2, None)
    train = load_config(TINY, {"train.epochs": 2, "train.minutes": None}).train
    assert (train.steps, train.epochs, train.minutes) == (None, 2, None)
    with pytest.raises(UserError, match=r"train\.steps and train\.epochs are given"):
        load_config(TINY, {"train.epochs": 2, "train.steps": 5})
    file = tmp_path / "two_lengths.py"
    file.write_text("from ssd_jax.config import *\ndef get_config(): return Config(train=Train(steps=5, minutes=2))\n")
    with pytest.raises(UserError, match=r"two_lengths\.py.*train\.steps and train\.minutes are set"):
        load_config(file)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train.stepz": 7}, ["train.stepz"]),
        ({"steps": 7}, ["steps"]),
        ({"train.steps.more": 7}, ["train.steps.more"]),
        ({"train.steps": 0}, ["train.steps is 0"]),
        ({"train": {"steps": 7}}, ["train", "train.steps"]),
        ({"data.root": 7}, ["data.root", "str"]),
    ],
)
def test_load_config_error_names_the_wrong_option(options, words):
    with pytest.raises(UserError) as error:
        load_config(TINY, options)
    for word in (TINY, *words):
        assert word in str(error.value)


def test_load_config_accepts_a_string_or_a_path():
    assert load_config(TINY) == load_config(Path(TINY))
    assert config_file.load_config(TINY).name == "tiny"


def test_load_config_accepts_a_path_as_the_value_of_an_option():
    assert load_config(ROOT / "configs" / "own_data.py", {"data.root": Path("folder")}).data.root == "folder"


@pytest.mark.parametrize("config", [{"train.steps": 3}, "configs/shapes.py", None])
def test_validate_rejects_arguments_other_than_a_config(config):
    with pytest.raises(UserError, match="load_config"):
        inspect.unwrap(validate)(config)  # without the type checks of the tests
