"""Tests of model folders: what is written, what is read back, and the messages about damaged folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.cli import run_command
from safetensors.numpy import load_file, save_file

import ssd_jax
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.errors import UserError
from ssd_jax.model_zoo import open_model, save_model_folder
from ssd_jax.model_zoo.catalog import BUNDLED_FOLDER
from ssd_jax.runs import run_folder


@pytest.fixture
def model_folder(trained_run: Path, tmp_path: Path) -> Path:
    """Return a model folder of a short run, with float32 parameters."""
    return save_model_folder(trained_run, tmp_path / "model", dtype="float32")


def replace_tensors(model_folder: Path, **changes: np.ndarray | None) -> None:
    """Replace tensors in model.safetensors by their paths, or delete those whose value is None."""
    file = model_folder / "model.safetensors"
    tensors = load_file(file) | changes
    save_file({path: value for path, value in tensors.items() if value is not None}, file)


# ---- writing and reading ----


def test_model_folder_has_the_parameters_of_the_run_and_gives_the_same_detections(trained_run, model_folder):
    expected, actual = ssd_jax.load(trained_run), ssd_jax.load(model_folder)
    assert {file.name for file in model_folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert actual.step == expected.step and actual.class_names == tuple(CLASS_NAMES)
    expected_params = flatten_dict(expected.params, sep="/")
    assert load_file(model_folder / "model.safetensors").keys() == expected_params.keys()
    for path, value in flatten_dict(actual.params, sep="/").items():
        np.testing.assert_array_equal(value, expected_params[path], err_msg=path)
    image = ShapesSource(expected.config.data.shapes, "test").image(0)
    detections = expected(image, score_threshold=0.02)
    assert detections and actual(image, score_threshold=0.02) == detections


@pytest.mark.parametrize("source", ["shapes", BUNDLED_FOLDER / "shapes"])
def test_exported_model_folder_keeps_its_card_and_numbers(source, tmp_path):
    assert run_command("export-weights", source, "--layout", "ssd-jax", "--out", tmp_path / "model") == 0
    for name in ("README.md", "config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (BUNDLED_FOLDER / "shapes" / name).read_bytes()
    actual, expected = (load_file(f / "model.safetensors") for f in (tmp_path / "model", BUNDLED_FOLDER / "shapes"))
    assert actual.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(actual[path], value, err_msg=path, strict=True)


def test_model_folder_can_be_rewritten_in_place_with_its_picture(model_folder, trained_run):
    (model_folder / "README.md").write_text("# my text\n")
    (model_folder / "detections.jpg").write_bytes(b"picture")
    save_model_folder(model_folder, model_folder, dtype="float16")
    assert (model_folder / "README.md").read_text() == "# my text\n"
    assert (model_folder / "detections.jpg").read_bytes() == b"picture"
    assert {value.dtype for value in load_file(model_folder / "model.safetensors").values()} == {np.dtype(np.float16)}


def test_card_of_an_exported_run_has_its_metrics(trained_run, tmp_path):
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    ssd_jax.evaluate(run)
    value = json.loads((run / "metrics.json").read_text())["voc_map_area"]
    card = (save_model_folder(run, tmp_path / "model") / "README.md").read_text()
    assert f"| VOC mAP, area, IoU 0.5 | {value:.3f} |" in card and 'ssd_jax.load("model")' in card


def test_float16_rounds_each_parameter_to_11_bits_and_halves_the_file(trained_run, model_folder, tmp_path):
    half = save_model_folder(ssd_jax.load(trained_run), tmp_path / "half")
    small, large = (load_file(folder / "model.safetensors") for folder in (half, model_folder))
    for path, value in large.items():
        assert small[path].dtype == np.float16
        # Half a unit in the last of 11 bits, and half the smallest number of float16.
        assert np.all(np.abs(small[path].astype(np.float64) - value) <= np.abs(value) * 2.0**-11 + 2.0**-25), path
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, model_folder)]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.1)
    params = ssd_jax.load(half).params
    assert all(leaf.dtype == np.float32 for leaf in flatten_dict(params).values())


def test_model_folder_has_no_paths_of_the_machine(trained_run, tmp_path):
    detector = ssd_jax.load(trained_run)
    config = ssd_jax.load_config("configs/own_data.py", {
        "data.root": "/srv/someone/photos", "data.tfds_dir": "/srv/someone/tfds",
        "train.pretrained": "/srv/someone/vgg.pth",
    })  # fmt: skip
    from ssd_jax.model_zoo.model_folder import remove_local_paths

    assert "someone" not in run_folder.config_to_json(remove_local_paths(config))
    kept = remove_local_paths(detector.config)
    assert kept.data.root == "shapes" and kept.model == detector.config.model


def test_writing_replaces_a_model_folder_and_refuses_any_other_folder(trained_run, model_folder, tmp_path):
    save_model_folder(trained_run, model_folder, card="# New card\n")
    assert (model_folder / "README.md").read_text() == "# New card\n"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    for folder in (tmp_path / "photos", trained_run, trained_run / "config.json"):
        with pytest.raises(UserError, match=rf"{folder.name}: "):
            save_model_folder(trained_run, folder)
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(("number", "word"), [(70_000.0, "too large for float16"), (np.nan, "NaN or infinite")])
def test_writing_refuses_numbers_that_cannot_be_stored(trained_run, tmp_path, number, word):
    detector = ssd_jax.load(trained_run)
    detector.params["vgg"]["conv1_1"]["bias"] = np.full_like(detector.params["vgg"]["conv1_1"]["bias"], number)
    with pytest.raises(UserError, match=rf"vgg/conv1_1/bias .*{word}"):
        save_model_folder(detector, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# ---- damaged folders ----


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("vgg/conv1_1/bias", None, "vgg/conv1_1/bias is missing"),
        ("vgg/conv1_1/bias", np.zeros((3, 2), np.float32), r"vgg/conv1_1/bias has the shape \(3, 2\)"),
        ("vgg/conv1_1/bias", "nan", "vgg/conv1_1/bias has numbers that are NaN"),
        ("vgg/conv1_1/bias", "int", "vgg/conv1_1/bias has the type int32"),
        ("evil\x1b[2J", np.zeros(3, np.float32), "does not belong"),
    ],
)
def test_load_rejects_tensors_that_do_not_fit_in_one_line(model_folder, path, value, words):
    if isinstance(value, str):
        old = load_file(model_folder / "model.safetensors")[path]
        value = np.full(old.shape, np.nan, np.float32) if value == "nan" else old.astype(np.int32)
    replace_tensors(model_folder, **{path: value})
    with pytest.raises(UserError, match=words) as error:
        ssd_jax.load(model_folder)
    assert "model.safetensors" in str(error.value) and "\n" not in str(error.value) and "\x1b" not in str(error.value)


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "page"])
def test_load_rejects_a_damaged_weight_file_in_one_line(model_folder, damage):
    file = model_folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes({
        "empty": b"", "cut": data[:-100], "header": (2**60).to_bytes(8, "little") + data[8:], "page": b"<html>" * 99,
    }[damage])  # fmt: skip
    with pytest.raises(UserError, match=r"model\.safetensors: is corrupt") as error:
        ssd_jax.load(model_folder)
    assert "\n" not in str(error.value)


def test_load_names_a_missing_or_changed_config(model_folder):
    file = model_folder / "config.json"
    config = json.loads(file.read_text())
    config["model"]["class_names"].append("hexagon")
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"conf/.* has the shape .* and \d+ more problems"):
        ssd_jax.load(model_folder)
    file.unlink()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        ssd_jax.load(model_folder)


def test_a_step_that_is_not_a_number_is_read_as_zero(model_folder):
    replace_tensors(model_folder)  # this writes no metadata
    assert open_model(model_folder).load_params()[1] == 0


# ---- commands ----


def test_commands_take_a_model_folder_like_a_run(trained_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command("export-weights", trained_run, "--out", "model", "--layout", "ssd-jax") == 0
    assert "MB" in capsys.readouterr().out
    expected = ssd_jax.evaluate(trained_run, out=tmp_path / "files")
    before = sorted((tmp_path / "model").iterdir())
    assert run_command("evaluate", "model") == 0
    assert "--out" in capsys.readouterr().out and sorted((tmp_path / "model").iterdir()) == before
    actual = ssd_jax.evaluate("model", out=tmp_path / "other")
    assert actual["checkpoint_step"] == expected["checkpoint_step"]
    assert actual["voc_map_area"] == pytest.approx(expected["voc_map_area"], abs=0.01)
    assert (tmp_path / "other" / "metrics.json").exists()
    assert run_command("evaluate", "model", "--report") == 2
    assert "--out" in capsys.readouterr().err
    assert run_command("predict", "model", tmp_path / "files" / "test_truth.jpg", "--score", "0.02") == 0
    assert (tmp_path / "predictions" / "predictions.json").exists()


def test_export_weights_refuses_a_dtype_for_other_projects(trained_run, tmp_path, capsys):
    assert run_command("export-weights", trained_run, "--out", tmp_path / "a.safetensors", "--dtype", "float16") == 2
    assert "--dtype" in capsys.readouterr().err
