"""Tests of training from pretrained parameters: transfer of classes by name, printed messages, and errors."""

import dataclasses
import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from helpers import tiny_config
from helpers.cli import TINY, run_command, write_voc_folder

from ssd_jax.config import Config, Extra, Train
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.errors import UserError
from ssd_jax.inference.restoring import restore_params
from ssd_jax.models.ssd import SSD
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.log import read_log
from ssd_jax.runtime import sharding
from ssd_jax.training.loop import Trainer
from ssd_jax.training.pretrained import (
    load_initial_params,
    match_classes,
    open_pretrained,
    refit_first_conv,
    transfer_params,
)
from ssd_jax.training.train_step import init_state
from ssd_jax.weights import importing

# ---- transfer of parameters ----

BOXES = {"conv4_3_norm": 4, "fc7": 6, "conv6_2": 1}


def make_params(classes: int, seed: int) -> dict[str, Any]:
    """Return parameters of a backbone layer and of two predictors per feature map. All values are different."""
    numbers = iter(np.random.default_rng(seed).permutation(100_000).astype(np.float32))

    def make_array(*shape: int) -> np.ndarray:
        return np.array([next(numbers) for _ in range(np.prod(shape))], np.float32).reshape(shape)

    params = {"vgg": {"conv1_1": {"kernel": make_array(3, 3, 3, 2), "bias": make_array(2)}}}
    for source, boxes in BOXES.items():
        for name, each in ((f"{source}_mbox_loc", 4), (f"{source}_mbox_conf", classes + 1)):
            params[name] = {"kernel": make_array(3, 3, 2, boxes * each), "bias": make_array(boxes * each)}
    return params


def test_transfer_params_returns_hand_computed_biases():
    """The predictor has two default boxes per cell. The first channel of each box is the score of background."""

    def make_bias(*numbers: float) -> dict[str, Any]:
        return {"fc7_mbox_conf": {"bias": np.array(numbers, np.float32)}}

    old = make_bias(10, 11, 12, 20, 21, 22)
    fresh = make_bias(0, 1, 2, 3, 4, 5)
    moved = transfer_params(old, fresh, ("cat", "dog"), ("dog", "cow"), {"dog": "dog"})
    np.testing.assert_array_equal(moved["fc7_mbox_conf"]["bias"], [10, 12, 2, 20, 22, 5])
    np.testing.assert_array_equal(fresh["fc7_mbox_conf"]["bias"], [0, 1, 2, 3, 4, 5], "untouched")


@pytest.mark.parametrize(
    ("old", "new", "synonyms"),
    [
        ("abc", "abc", ""),
        ("abc", "bca", ""),
        ("abcd", "cxa", ""),
        ("abc", "xyzw", ""),
        ("a", "zaqb", ""),
        ("abc", "xbc", [("x", "a")]),
        ("abc", "acx", [("x", "a"), ("a", "b")]),
    ],
)
def test_transfer_params_copies_the_channels_of_each_kept_class(old, new, synonyms):
    params, fresh = make_params(len(old), 0), make_params(len(new), 1)
    kept = match_classes(list(old), list(new), synonyms).kept
    moved = transfer_params(params, fresh, list(old), list(new), kept)
    assert list(moved) == list(params)
    assert all(moved[name] is params[name] for name in params if not name.endswith("_mbox_conf"))
    origin = {name: name for name in old} | dict(synonyms)
    for source, boxes in BOXES.items():
        for part in ("kernel", "bias"):
            layer = moved[f"{source}_mbox_conf"][part]
            there, start = (tree[f"{source}_mbox_conf"][part] for tree in (params, fresh))
            assert layer.shape == start.shape and layer.dtype == np.float32
            seen = 0
            for box in range(boxes):
                for label, name in enumerate(["background", *new]):
                    channel = box * (len(new) + 1) + label
                    if name == "background":
                        expected = there[..., box * (len(old) + 1)]
                    elif name in origin:
                        expected = there[..., box * (len(old) + 1) + 1 + old.index(origin[name])]
                    else:
                        expected = start[..., channel]
                    np.testing.assert_array_equal(layer[..., channel], expected, f"{source} {part} {box} {name}")
                    seen += 1
            assert seen == layer.shape[-1]


def make_model_with_classes(names: tuple[str, ...]) -> Any:
    return dataclasses.replace(tiny_config.get_config().model, class_names=names)


def make_random_params(names: tuple[str, ...], images: np.ndarray, seed: int) -> Any:
    """Return random parameters of a network, drawn with NumPy to avoid the compilation of the initialisation."""
    shapes = jax.eval_shape(SSD(make_model_with_classes(names)).init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)


def test_transferred_network_has_the_same_logits_for_kept_classes():
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    old, new = ("cat", "dog", "cow", "ant"), ("ant", "cat", "cow", "dog")
    params = make_random_params(old, images, 0)
    moved = transfer_params(params, make_random_params(new, images, 1), old, new, match_classes(old, new).kept)
    before: Any = jax.jit(SSD(make_model_with_classes(old)).apply)({"params": params}, images)
    after: Any = jax.jit(SSD(make_model_with_classes(new)).apply)({"params": moved}, images)
    np.testing.assert_array_equal(after.offsets, before.offsets)
    np.testing.assert_array_equal(after.logits, before.logits[..., [0, 4, 1, 3, 2]])
    assert len(np.unique(before.logits)) > 1000


# ---- class names ----


def test_match_classes_lists_kept_new_and_dropped_classes():
    classes = match_classes(
        ("person", "airplane", "cat", "couch"),
        ("aeroplane", "cat", "ant", "sofa", "bee"),
        (("aeroplane", "airplane"), ("sofa", "couch")),
    )
    assert classes.kept == {"aeroplane": "airplane", "cat": "cat", "sofa": "couch"}
    assert (classes.new, classes.dropped) == (("ant", "bee"), ("person",))
    assert classes.format_table().splitlines() == [
        "  kept      3: aeroplane (there: airplane), cat, sofa (there: couch)",
        "  new       2: ant, bee",
        "  dropped   1: person",
    ]


def test_match_classes_accepts_no_and_all_classes_in_common():
    assert match_classes(("a",), ("b",)).format_table().splitlines() == [
        "  kept      0: -",
        "  new       1: b",
        "  dropped   1: a",
    ]
    assert match_classes(("a", "b"), ("b", "a")) == ({"b": "b", "a": "a"}, (), ())


def test_match_classes_prefers_a_synonym_to_an_equal_name():
    assert match_classes(("a", "b"), ("a", "c"), (("a", "b"), ("c", "b"))) == ({"a": "b", "c": "b"}, (), ("a",))


@pytest.mark.parametrize(
    ("synonym", "words"),
    [
        (("sofa", "couch"), "'sofa' .* cat, dog"),
        (("dog", "couch"), "'couch' .* cat, hound"),
    ],
)
def test_match_classes_rejects_a_synonym_of_an_unknown_class(synonym, words):
    with pytest.raises(UserError, match=f"train.transfer_names: {words}"):
        match_classes(("cat", "hound"), ("cat", "dog"), (("dog", "hound"), synonym))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transfer_names": (("a", "b"),)}, "train.transfer_names .*train.transfer"),
        ({"transfer": True, "transfer_names": (("a", "b"), ("a", "c"))}, "train.transfer_names .* twice"),
    ],
)
def test_train_config_rejects_invalid_transfer_names(options, words):
    with pytest.raises(UserError, match=words):
        Train(**options)


# ---- models that differ ----


def open_initial_params(config: Config, fresh_params: Any) -> Any:
    """Return the parameters that a run with this config starts from."""
    return load_initial_params(config, open_pretrained(config), fresh_params)


def make_config_with_pretrained(run: Path, **options: Any) -> Config:
    """Return a config whose ``train.pretrained`` is a run. ``options`` replaces fields of the model config."""
    config = tiny_config.get_config()
    boxes = dataclasses.replace(config.model.default_boxes, **options.pop("boxes", {}))
    model = dataclasses.replace(config.model, **{"class_names": CLASS_NAMES, "default_boxes": boxes} | options)
    return dataclasses.replace(config, model=model, train=dataclasses.replace(config.train, pretrained=str(run)))


@pytest.fixture(scope="module")
def fresh_params(trained_run) -> Any:
    return init_state(run_folder.read_config(trained_run), sharding.make_mesh()).params


def read_stored_params(run: Path, checkpoint: str = "best") -> Any:
    """Return the parameters and the step of a checkpoint of a run."""
    return restore_params(run, run_folder.read_config(run), checkpoint)


def test_initial_params_equal_those_of_a_run_with_the_same_classes(trained_run, fresh_params, capsys):
    params, step = read_stored_params(trained_run)
    started = open_initial_params(make_config_with_pretrained(trained_run), fresh_params)
    jax.tree.map(np.testing.assert_array_equal, started, params)
    assert capsys.readouterr().out == f"Starting from {trained_run}, step {step}.\n"
    kernels = [tree["conv4_3_norm_mbox_conf"]["kernel"] for tree in (started, fresh_params)]
    assert (kernels[0] != kernels[1]).any()


def test_load_initial_params_prints_allowed_differences_of_the_model(trained_run, fresh_params, capsys):
    options = {"mean": (0.0, 0.0, 0.0), "l2_norm_scale": 3.0, "boxes": {"min_sizes": (6, 18, 36)}}
    params, step = read_stored_params(trained_run)
    jax.tree.map(
        np.testing.assert_array_equal,
        open_initial_params(make_config_with_pretrained(trained_run, **options), fresh_params),
        params,
    )
    assert capsys.readouterr().out.splitlines() == [
        f"  note: the model of {trained_run} differs (pretrained -> this config):",
        "    model.default_boxes.min_sizes: (8.0, 20.0, 36.0) -> (6, 18, 36)",
        "    model.mean: (123.0, 117.0, 104.0) -> (0.0, 0.0, 0.0)",
        f"Starting from {trained_run}, step {step}.",
    ]


def test_open_pretrained_rejects_a_run_with_another_architecture(trained_run):
    options = {"width": 0.25, "norm": "none", "boxes": {"aspect_ratios": ((2,), (2, 3), (2,))}}
    with pytest.raises(UserError) as error:
        open_initial_params(make_config_with_pretrained(trained_run, **options), {})
    assert str(error.value).splitlines()[:4] == [
        f"{trained_run}: its network has other layers than that of this config (there -> here):",
        "  normalization, model.norm: group -> none",
        "  width, model.width: 0.125 -> 0.25",
        "  default boxes per cell of each feature map: 4, 4, 4 -> 4, 6, 4",
    ]
    assert "--train.backbone-only" not in str(error.value)


@pytest.mark.parametrize(
    ("extras", "boxes", "line"),
    [
        (
            (Extra(64, 128), Extra(32, 96)),
            {
                "feature_maps": (8, 4, 2, 1),
                "min_sizes": (8, 20, 36, 60),
                "max_sizes": (20, 36, 60, 70),
                "aspect_ratios": ((2,),) * 4,
            },
            "128 channels -> 128 channels, 96 channels",
        ),
        (
            (Extra(32, 128, stride=1),),
            {"feature_maps": (8, 4, 4)},
            "block 1: bottleneck 64 -> 32; block 1: stride 2 -> 1",
        ),
    ],
)
def test_open_pretrained_says_which_layers_on_top_of_the_backbone_differ(trained_run, extras, boxes, line):
    config = make_config_with_pretrained(trained_run, extras=extras, boxes=boxes)
    with pytest.raises(UserError) as error:
        open_pretrained(config)
    assert f"  layers on top of the backbone, model.extras: {line}" in str(error.value).splitlines()
    assert "Extra(" not in str(error.value) and "the config of that network, tiny," in str(error.value)
    assert "--train.backbone-only" in str(error.value)


# ---- the first layer ----


def test_refit_first_conv_keeps_the_output_for_another_mean_and_std():
    """If the means differ, the output at the image border changes, because zero padding stands for another colour."""
    model = tiny_config.get_config().model
    there = dataclasses.replace(model, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    rng = np.random.default_rng(0)
    layer = {"kernel": rng.normal(size=(3, 3, 3, 5)), "bias": rng.normal(size=5)}
    layer = jax.tree.map(lambda leaf: leaf.astype(np.float32), layer)
    params = {"vgg": {"conv1_1": layer, "conv1_2": {"bias": np.ones(2)}}, "fc": np.ones(3)}
    image = rng.uniform(0, 255, (6, 7, 3))

    def convolve_by_loops(params: Any, model: Any) -> np.ndarray:
        padded = np.pad((image - model.mean) / model.std, ((1, 1), (1, 1), (0, 0)))
        out = np.zeros((6, 7, 5)) + params["vgg"]["conv1_1"]["bias"]
        for y, x, i, j in np.ndindex(6, 7, 3, 3):
            out[y, x] += padded[y + i, x + j] @ params["vgg"]["conv1_1"]["kernel"][i, j].astype(float)
        return out

    for mean, everywhere in (((123.0, 117.0, 104.0), False), (there.mean, True)):
        here = dataclasses.replace(model, mean=mean, std=(1.0, 2.0, 64.0))
        fitted = refit_first_conv(params, there, here)
        before, after = convolve_by_loops(params, there), convolve_by_loops(fitted, here)
        np.testing.assert_allclose(after[1:-1, 1:-1], before[1:-1, 1:-1], rtol=1e-4, atol=1e-4)
        assert np.allclose(after, before, rtol=1e-4, atol=1e-4) == everywhere
        assert fitted["vgg"]["conv1_2"] is params["vgg"]["conv1_2"] and fitted["fc"] is params["fc"]
    assert refit_first_conv(params, there, there) is params


# ---- missing files ----


def test_open_pretrained_rejects_a_folder_without_config_json_or_checkpoint(tmp_path, trained_run):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        open_initial_params(make_config_with_pretrained(tmp_path), {})
    shutil.copy(trained_run / "config.json", tmp_path)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        open_initial_params(make_config_with_pretrained(tmp_path), {})


def test_load_initial_params_returns_fresh_params_without_pretrained(fresh_params, capsys):
    assert open_initial_params(tiny_config.get_config(), fresh_params) is fresh_params
    assert capsys.readouterr().out == ""
    config = tiny_config.get_config()
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, norm="none"))
    assert open_initial_params(plain, fresh_params) is fresh_params
    assert "Starting from random weights" in capsys.readouterr().out, "unlike the networks of the paper"


def test_pretrained_file_is_read_once(trained_run, fresh_params, tmp_path, monkeypatch):
    params, _ = read_stored_params(trained_run)
    model = run_folder.read_config(trained_run).model
    config = make_config_with_pretrained(tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").touch()
    reads = []

    def fake_import_weights(path: Path, **options: Any) -> Any:
        reads.append(path)
        return SimpleNamespace(config=dataclasses.replace(config, model=model), params=params)

    monkeypatch.setattr(importing, "import_weights", fake_import_weights)
    opened = open_pretrained(config)
    trainer = Trainer(config, tmp_path, ShapesSource(config.data.shapes, "train"), None, opened)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        state = trainer.restore_or_init_state(checkpoints)
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    assert reads == [tmp_path / "weights.safetensors"]


# ---- the command ----

OPTIONS = ("--train.steps", "6", "--train.eval-every", "0", "--train.checkpoint-every", "3")
CLASSES = ("hexagon", "star", "triangle")


@pytest.fixture(scope="module")
def hexagon_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of generated images. Squares are annotated as hexagons, and circles are not annotated."""
    root = write_voc_folder(tmp_path_factory.mktemp("other") / "data", {"train": 8, "val": 4, "test": 4})
    for file in (root / "Annotations").iterdir():
        start, *objects = file.read_text().removesuffix("</annotation>").split("<object>")
        kept = [text for text in objects if "<name>circle" not in text]
        file.write_text("<object>".join([start, *kept]).replace("square", "hexagon") + "</annotation>")
    return root


class TransferRun(NamedTuple):
    start: Path
    """Folder of the pretrained run. It is a copy, so that a test may move it."""
    options: tuple[str | Path, ...]
    run: Path
    printed: str


@pytest.fixture(scope="module")
def transfer_run(trained_run, hexagon_folder, tmp_path_factory) -> TransferRun:
    base = tmp_path_factory.mktemp("transferred")
    start = Path(shutil.copytree(trained_run, base / "start"))
    options = (TINY, "--data.root", hexagon_folder, *OPTIONS, "--train.pretrained", start, "--train.transfer")
    with redirect_stdout(io.StringIO()) as printed:
        assert run_command("train", *options, "--workdir", base / "run") == 0
    return TransferRun(start, options, base / "run", printed.getvalue())


def test_train_prints_which_classes_are_transferred(transfer_run):
    step = read_stored_params(transfer_run.start)[1]
    assert (
        f"Starting from {transfer_run.start}, step {step}.\n"
        "Classes, by name:\n"
        "  kept      2: star, triangle\n"
        "  new       1: hexagon\n"
        "  dropped   2: circle, square\n"
    ) in transfer_run.printed


def test_run_with_transfer_starts_from_pretrained_params_and_fresh_optimizer_state(transfer_run, tmp_path):
    """Parameters come from the moving average of the pretrained run. The rest of the state is that of a new run."""
    config = run_folder.read_config(transfer_run.run)
    assert config.model.class_names == CLASSES
    trainer = Trainer(config, tmp_path, open_source(config.data, "train"), None)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        state = trainer.restore_or_init_state(checkpoints)
    fresh = init_state(config, sharding.make_mesh())
    params, _ = read_stored_params(transfer_run.start)
    assert int(state.step) == 0
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, fresh.opt_state)
    jax.tree.map(np.testing.assert_array_equal, state.ema_params, state.params)
    assert state.ema_params is not state.params
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, fresh)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state.params, state.ema_params))]
    assert len(set(pointers)) == len(pointers), "no buffer may be shared, because the step donates all buffers"
    for name, layer in state.params.items():
        if name.endswith("_mbox_conf"):
            here, there, new = (np.asarray(tree[name]["bias"]) for tree in (state.params, params, fresh.params))
            for box in range(4):
                # Pretrained classes: circle, square, star, triangle. Classes of this run: hexagon, star, triangle.
                assert here[4 * box] == there[5 * box] != new[4 * box]
                assert here[4 * box + 1] == new[4 * box + 1]
                assert list(here[4 * box + 2 : 4 * box + 4]) == list(there[5 * box + 3 : 5 * box + 5])
        else:
            jax.tree.map(np.testing.assert_array_equal, layer, params[name])


def test_train_rejects_different_classes_without_the_transfer_option(trained_run, hexagon_folder, tmp_path, capsys):
    options = (TINY, "--workdir", tmp_path / "run", "--data.root", hexagon_folder, *OPTIONS)
    assert run_command("train", *options, "--train.pretrained", trained_run) == 2
    error = capsys.readouterr().err
    assert f"error: {trained_run}: " in error
    assert "\n  only in the checkpoint: circle, square\n  only in the data: hexagon\n" in error
    assert "add --train.transfer" in error
    assert run_command("train", *options, "--train.transfer") == 2
    assert "--train.pretrained PATH" in capsys.readouterr().err


def test_resumed_run_does_not_read_pretrained_and_gives_the_same_result(transfer_run, tmp_path, capsys):
    run = Path(shutil.copytree(transfer_run.run, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints" / "6")
    assert read_stored_params(run, "last")[1] == 3
    away = transfer_run.start.rename(transfer_run.start.with_name("away"))
    try:
        assert run_command("train", *transfer_run.options, "--workdir", run) == 0
    finally:
        away.rename(transfer_run.start)
    printed = capsys.readouterr().out
    assert "3 of 6 steps are done" in printed and "Starting from" not in printed
    losses = [[line["loss"] for line in read_log(folder)] for folder in (run, transfer_run.run)]
    assert len(losses[0]) == 6 and losses[0] == losses[1]
    jax.tree.map(
        np.testing.assert_array_equal, read_stored_params(run, "last"), read_stored_params(transfer_run.run, "last")
    )


def test_train_records_the_absolute_path_of_pretrained(transfer_run, tmp_path, monkeypatch, capsys):
    """The absolute path lets the same command, with a relative path to the pretrained run, resume the run."""
    monkeypatch.chdir(transfer_run.start.parent)
    options = ["start" if word == transfer_run.start else word for word in transfer_run.options]
    assert run_command("train", *options, "--workdir", transfer_run.run) == 0
    assert run_folder.read_config(transfer_run.run).train.pretrained == str(transfer_run.start)


def test_evaluate_rejects_data_with_a_class_that_the_run_lacks(trained_run, hexagon_folder, capsys):
    assert run_command("evaluate", trained_run, "--data.root", hexagon_folder) == 2
    error = capsys.readouterr().err
    assert "is of class 'hexagon'" in error
    assert "\n  only in the run: circle, square\n  only in the data: hexagon\n" in error


def test_evaluate_accepts_data_with_fewer_classes(transfer_run, tmp_path, capsys):
    """The labels of the objects must follow the class names of the run, not those of the data."""
    root = write_voc_folder(tmp_path / "data", {"test": 4})
    for file in (root / "Annotations").iterdir():
        start, *objects = file.read_text().removesuffix("</annotation>").split("<object>")
        kept = [text for text in objects if "<name>star" in text]
        file.write_text("<object>".join([start, *kept]) + "</annotation>")
    assert run_command("evaluate", transfer_run.run, "--data.root", root) == 0
    (root / "Annotations" / "test2.xml").write_text("<annotation><object>")
    assert run_command("evaluate", transfer_run.run, "--data.root", root) == 2
    error = capsys.readouterr().err
    assert "test2.xml" in error and "differ from those of the run" not in error
