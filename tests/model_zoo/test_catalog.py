"""Tests of the catalog and of its names, wherever a trained network is named."""

import dataclasses
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import helpers.published_keys as published
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.cli import run_command
from helpers.file_server import run_file_server
from helpers.paths import ROOT
from helpers.published_files import COCO_PRIORS, WIDTH, make_caffe_file
from helpers.tiny_config import get_config

import ssd_jax
from ssd_jax.data.class_names import VOC_CLASSES
from ssd_jax.data.formats.shapes import CLASS_NAMES
from ssd_jax.errors import UserError
from ssd_jax.model_zoo import catalog, save_model_folder
from ssd_jax.model_zoo.catalog import CatalogModel
from ssd_jax.training.pretrained import open_pretrained
from ssd_jax.training.run import train
from ssd_jax.weights.importing import import_weights
from ssd_jax.weights.presets import PRESETS

TINY = CatalogModel("tiny", "SSD", 4, "generated images", "Apache-2.0 (us)", "0.1 mAP", "a test")


@pytest.fixture
def small_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, CatalogModel]:
    """Return a catalog that has only the bundled model tiny. The current folder and the cache are empty."""
    models = {"tiny": TINY}
    monkeypatch.setattr(catalog, "CATALOG", models)
    monkeypatch.setattr(catalog, "BUNDLED_FOLDER", tmp_path / "bundled")
    (tmp_path / "bundled" / "tiny").mkdir(parents=True)
    (tmp_path / "bundled" / "tiny" / "README.md").write_text("# The tiny one\n")
    monkeypatch.setenv("SSD_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return models


@pytest.fixture
def tiny(trained_run: Path, small_catalog: dict[str, CatalogModel]) -> CatalogModel:
    """Return the bundled model tiny of the small catalog, with the parameters of a short run."""
    (TINY.folder / "README.md").unlink()
    save_model_folder(trained_run, TINY.folder)
    return TINY


# ---- the table ----


@pytest.mark.parametrize("model", catalog.CATALOG.values(), ids=lambda model: model.name)
def test_each_row_of_the_catalog_is_complete(model):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", model.name)
    assert model.network and model.data and model.license
    assert bool(model.accuracy) <= bool(model.source)
    if model.is_bundled:
        return
    assert model.project in PRESETS and model.megabytes > 0 and model.url.startswith("http")
    algorithm, digits = model.digest.split(":")
    length = 2 * hashlib.new(algorithm).digest_size
    assert re.fullmatch(r"[0-9a-f]+", digits)
    # A part of a hash is only enough if the name of the file states the same part.
    assert len(digits) == length or (algorithm == "sha256" and len(digits) == 8 and f"-{digits}." in model.file_name)
    named = re.search(r"-([0-9a-f]{8})\.pth$", model.file_name)
    assert named is None or digits.startswith(named[1])


def test_file_names_in_the_cache_are_unique():
    names = [model.file_name for model in catalog.CATALOG.values() if not model.is_bundled]
    assert len(set(names)) == len(names) == len({model.digest for model in catalog.CATALOG.values()} - {""})


def test_docs_list_every_model():
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in catalog.CATALOG)


# ---- names of bundled models ----


def test_load_predict_and_evaluate_take_a_name(tiny, trained_run, tmp_path, capsys):
    detector = ssd_jax.load("tiny")
    assert detector.class_names == tuple(CLASS_NAMES) and detector.step == ssd_jax.load(trained_run).step
    assert run_command("evaluate", "tiny") == 0
    assert list(Path.cwd().iterdir()) == []
    assert sorted(file.name for file in tiny.folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    ssd_jax.evaluate("tiny", out=tmp_path / "files")
    assert run_command("predict", "tiny", tmp_path / "files" / "test_truth.jpg") == 0
    assert Path("predictions/predictions.json").exists()


def test_import_weights_writes_a_named_model_to_a_run_folder(tiny, capsys):
    assert run_command("import-weights", "tiny", "--out", "run") == 0
    expected, actual = (ssd_jax.load(name) for name in ("tiny", "run"))
    assert actual.step == expected.step and actual.config == expected.config
    for path, value in flatten_dict(actual.params).items():
        np.testing.assert_array_equal(value, flatten_dict(expected.params)[path])
    assert run_command("import-weights", "tiny", "--out", "other", "--scales", "coco") == 2
    assert "--scales" in capsys.readouterr().err and not Path("other").exists()


def test_training_starts_from_a_name_and_stores_the_name(tiny, capsys):
    config = get_config()
    steps = dataclasses.replace(config.train, steps=1, eval_every=0, pretrained="tiny")
    run = train(dataclasses.replace(config, train=steps), "run")
    assert "Starting from tiny, step " in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["train"]["pretrained"] == "tiny"
    with pytest.raises(UserError, match="tiny"):
        open_pretrained(ssd_jax.load_config("ssd300_voc", {"train.pretrained": "tiny"}))


def test_a_run_in_the_current_folder_takes_precedence_over_a_name(tiny, trained_run, caplog):
    Path("tiny").mkdir()
    assert ssd_jax.load("tiny").config.data.root == "shapes"  # a folder of anything else does not
    assert caplog.text == ""
    shutil.copytree(trained_run, "tiny", dirs_exist_ok=True)
    config = json.loads(Path("tiny/config.json").read_text())
    Path("tiny/config.json").write_text(json.dumps(config | {"name": "the run"}))
    assert ssd_jax.load("tiny").config.name == "the run"
    assert "tiny" in caplog.text


def test_unknown_names_get_similar_ones(small_catalog, capsys):
    with pytest.raises(UserError, match="Did you mean tiny"):
        ssd_jax.load("TINNY")
    for argv in (("predict", "tinny", "a.jpg"), ("models", "tinny"), ("import-weights", "tinny", "--out", "run")):
        Path("a.jpg").touch()
        assert run_command(*argv) == 2
        assert "tiny" in capsys.readouterr().err
    with pytest.raises(UserError, match="/no/such/folder: there is no such run"):
        ssd_jax.load("/no/such/folder")


# ---- names of models to download ----


@pytest.mark.parametrize("is_archive", [False, True])
def test_a_downloaded_file_is_used_with_the_settings_of_its_project(small_catalog, tmp_path, capsys, is_archive):
    tensors = published.make_random_ssd_pytorch(6, 21, WIDTH)
    content = make_caffe_file(tensors, COCO_PRIORS)
    file = tmp_path / "net.caffemodel"
    file.write_bytes(content)
    expected = import_weights(file)
    if is_archive:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as opened:
            opened.add(file, "models/net.caffemodel")
        content = archive.getvalue()
    with run_file_server(content) as server:
        name = "net.tar.gz" if is_archive else "net.caffemodel"
        small_catalog["small-net"] = CatalogModel(
            "small-net", "SSD300", 20, "VOC", "MIT (us)", "", "", f"{server.url}good/{name}",
            f"sha256:{hashlib.sha256(content).hexdigest()}", 10, "models/net.caffemodel" if is_archive else "", "caffe",
        )  # fmt: skip
        assert run_command("models", "small-net") == 0
        assert "to be downloaded" in capsys.readouterr().out
        assert run_command("import-weights", "small-net", "--out", "run") == 0
    output = capsys.readouterr()
    assert "MIT (us)" in output.err and "20 classes" in output.out
    detector = ssd_jax.load("small-net")  # from the cache, as the server has ended
    assert detector.class_names == tuple(VOC_CLASSES)
    assert detector.config == expected.config == ssd_jax.load("run").config
    for path, value in flatten_dict(detector.params).items():
        np.testing.assert_array_equal(value, flatten_dict(expected.params)[path])


def test_an_archive_without_the_file_is_an_error(small_catalog, tmp_path):
    file = tmp_path / "cache" / "models" / "net.tar.gz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz"):
        pass
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    url = "http://127.0.0.1:1/net.tar.gz"
    small_catalog["net"] = CatalogModel("net", "SSD300", 20, "VOC", "MIT", "", "", url, digest, 1, "a/b")
    with pytest.raises(UserError, match=r"net\.tar\.gz: a/b can't be extracted"):
        ssd_jax.load("net")


# ---- the command models ----


def test_models_lists_the_catalog_and_describes_a_model(small_catalog, tmp_path, capsys):
    assert run_command("models") == 0
    output = capsys.readouterr().out
    assert re.search(r"^tiny +bundled .* MB  Apache-2\.0\n    SSD, 4 classes, .*: 0\.1 mAP", output, re.MULTILINE)
    assert max(map(len, output.splitlines()[:-1])) <= 80
    assert str(tmp_path / "cache") in output
    assert run_command("models", "tiny") == 0
    output = capsys.readouterr().out
    assert output.startswith("# The tiny one\n") and str(TINY.folder) in output


def test_models_puts_a_file_into_the_cache(small_catalog, capsys):
    Path("right.bin").write_bytes(b"right")
    digest = f"sha256:{hashlib.sha256(b'right').hexdigest()}"
    url = "http://127.0.0.1:1/net.pth"
    small_catalog["net"] = CatalogModel("net", "SSD300", 20, "VOC", "MIT (us)", "", "", url, digest, 1)
    assert run_command("models", "net", "--from", "missing.bin") == 2
    assert "missing.bin" in capsys.readouterr().err
    assert run_command("models", "net", "--from", "right.bin") == 0
    assert "MIT (us)" in capsys.readouterr().out
    assert run_command("models", "net", "--fetch") == 0  # no connection is needed now
    assert run_command("models") == 0
    assert re.search(r"^net +cached ", capsys.readouterr().out, re.MULTILINE)
    for argv in (("models", "--fetch"), ("models", "tiny", "--fetch")):
        assert run_command(*argv) == 2
