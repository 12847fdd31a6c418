"""Files of every layout, imported, beside an independent forward pass in torch: layers, boxes, scores, detections."""

import dataclasses
from pathlib import Path
from typing import Any

import helpers.published_layouts as published
import numpy as np
import pytest
from helpers.cli import command
from helpers.weight_writers import caffemodel_bytes
from weights.test_importing import COCO_PRIORS, WRITERS, caffe_bytes, full_classifier, keras_vgg16, save, trunk_of

from ssd_jax.commands.verify import generated_image, run_reference_on_file
from ssd_jax.config import SSD300_VOC_BOXES
from ssd_jax.data.image import read_image
from ssd_jax.ops.boxes import cxcywh_to_xyxy
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.weights import torch_reference
from ssd_jax.weights.importing import import_weights, write_run
from ssd_jax.weights.verification import compare

pytest.importorskip("torch", reason="needs torch and torchvision: make parity")
pytest.importorskip("torchvision", reason="needs torch and torchvision: make parity")

WIDTH = 0.125
BLOBS = {1: "Normalize", 4: "Convolution", 2: "InnerProduct"}


def assert_same(file: Path, picture: np.ndarray, bgr: bool | None = None, scales: str | None = None) -> set[str]:
    """Names of what was compared."""
    imported = import_weights(file, scales=scales, bgr=bgr)
    rows = compare(imported, run_reference_on_file(file, imported, picture, scales, bgr), picture)
    assert [row for row in rows if not row.holds] == []
    assert all(row.largest > 0.01 for row in rows), "weights that leave nothing to compare"
    worst = max(row.difference / row.largest for row in rows)
    print(f"{imported.layout.title}: {worst:.1e} of the largest value at most")
    return {row.name for row in rows}


@pytest.mark.parametrize("maps", [6, 7])
@pytest.mark.parametrize("project", WRITERS)
def test_detectors(project, maps, tmp_path):
    if project == "torchvision":
        pytest.skip("test_torchvision.py, of full width: torchvision's own network is run")
    file = WRITERS[project](tmp_path / "file", published.random_ssd_pytorch(maps, 21, WIDTH, seed=maps))
    names = assert_same(file, generated_image())
    assert len(names) == 15 + 1 + (8 if maps == 6 else 10) + 2 * maps + 6


@pytest.mark.parametrize("project", ["ssd.pytorch", "mmdetection", "caffe"])
def test_cocos_classes_on_a_photograph(project, bccd, tmp_path):
    photograph = read_image(sorted((bccd / "JPEGImages").iterdir())[0])
    file = WRITERS[project](tmp_path / "file", published.random_ssd_pytorch(7, 81, WIDTH, seed=2))
    assert_same(file, photograph)


@pytest.mark.parametrize("extras", [3, 4])
def test_caffes_first_versions(extras, tmp_path):
    layers = [(n, BLOBS[b[0].ndim], b) for n, b in published.random_pool6(extras, 21, WIDTH).items()]
    (tmp_path / "file").write_bytes(caffemodel_bytes(layers))
    assert "pool6_mbox_conf" in assert_same(tmp_path / "file", generated_image())


def test_release_1_0_of_lufficc(tmp_path):
    names = {"loc": "regression_headers", "conf": "classification_headers", "L2Norm": "l2_norm"}
    tensors = published.random_ssd_pytorch(7, 21, WIDTH).items()
    renamed = {".".join([names.get(k.split(".")[0], k.split(".")[0]), *k.split(".")[1:]]): v for k, v in tensors}
    assert_same(save(tmp_path / "file", renamed), generated_image())


def test_what_a_caffe_snapshot_and_the_options_say(tmp_path):
    tensors = published.random_ssd_pytorch(6, 21, WIDTH)
    (tmp_path / "caffe").write_bytes(caffe_bytes(tensors, COCO_PRIORS))
    assert_same(tmp_path / "caffe", generated_image())
    assert_same(save(tmp_path / "file", tensors), generated_image(), bgr=True, scales="coco")


def test_trunks(tmp_path):
    tensors = published.random_ssd_pytorch(6, 21, WIDTH, seed=5)
    classifier, features = full_classifier(tensors)
    caffe = {n: b for n, b in published.caffe(tensors).items() if n[:4] in ("conv", "fc6", "fc7") and "norm" not in n}
    caffe = {n: b for n, b in caffe.items() if "mbox" not in n and n[4:5] not in tuple("6789")}
    full = caffe | {
        f"fc{6 + k}": [classifier[f"classifier.{3 * k}.weight"], classifier[f"classifier.{3 * k}.bias"]] for k in (0, 1)
    }
    broken = {key: np.full_like(value, np.nan) for key, value in classifier.items()}
    files = [
        save(tmp_path / "reducedfc", trunk_of(tensors)),
        save(tmp_path / "torchvision", features | classifier),
        save(tmp_path / "features", features | broken),
        keras_vgg16(tmp_path / "keras", full | {"fc8": [classifier["classifier.6.weight"], np.zeros(10, np.float32)]}),
    ]
    for name, blobs in (("reduced", caffe), ("full", full)):
        files.append(tmp_path / name)
        layers = [(layer, BLOBS[b[0].ndim], b) for layer, b in blobs.items()]
        files[-1].write_bytes(caffemodel_bytes(layers, v1=True))
    for file in files:
        assert len(assert_same(file, generated_image())) == (13 if file.name == "features" else 15)


def test_the_command(tmp_path, capsys):
    """On torchvision's own keys, of full width; and what it says of a difference."""
    tensors = published.torchvision(published.random_ssd_pytorch(6, 21, 1.0))
    assert command("verify", save(tmp_path / "file", tensors)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "torchvision's SSD300, on an image of 500 x 375" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["conv1_1", "conv1_2", "conv2_1"]
    assert "tolerance" in lines[-1]
    assert command("verify", tmp_path / "gone") == 2


def test_options_of_torchvisions_files(tmp_path):
    file = save(tmp_path / "file", published.torchvision(published.random_ssd_pytorch(6, 21, 1.0)))
    assert_same(file, generated_image(), bgr=True, scales="voc")


def test_a_difference_is_told(tmp_path, capsys, monkeypatch):
    recipe = torch_reference.RECIPES["lufficc"]._replace(mean=(104.0, 117.0, 123.0))
    monkeypatch.setitem(torch_reference.RECIPES, "lufficc", recipe)
    file = WRITERS["lufficc"](tmp_path / "file", published.random_ssd_pytorch(6, 21, WIDTH))
    assert command("verify", file) == 1
    out = capsys.readouterr().out
    assert "<-- too large" in out and "Exceeds tolerance: conv1_1" in out


def test_torchvision_takes_what_is_exported_with_the_lines_that_are_printed(tmp_path, capsys):
    """Of VOC's default boxes and another mean, so that the lines have something to say."""
    tensors = published.random_ssd_pytorch(6, 4, 1.0)
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    imported = import_weights(save(tmp_path / "file", tensors), class_names=("RBC", "WBC", "Platelets"))
    boxes = dataclasses.replace(SSD300_VOC_BOXES, clip="sizes")
    model = dataclasses.replace(imported.config.model, default_boxes=boxes, mean=(120.0, 110.0, 100.0), std=(50.0,) * 3)
    write_run(imported._replace(config=dataclasses.replace(imported.config, model=model)), run)
    assert command("export-weights", run, "--out", out) == 0
    printed = capsys.readouterr().out
    made: dict[str, Any] = {}
    exec(printed[printed.index("from safetensors") :], made)
    theirs = made["model"]
    for key, value in published.torchvision(tensors).items():
        np.testing.assert_array_equal(theirs.state_dict()[key].numpy(), value)
    image = made["load_file"](out)["backbone.scale_weight"].new_zeros(3, 300, 300)
    inputs, _ = theirs.transform([image])
    anchors = theirs.anchor_generator(inputs, list(theirs.backbone(inputs.tensors).values()))[0].numpy() / 300
    np.testing.assert_allclose(anchors, cxcywh_to_xyxy(make_default_boxes(boxes)), rtol=0, atol=1e-6)
    assert (theirs.score_thresh, theirs.topk_candidates, theirs.detections_per_img) == (0.01, 200, 600)
    np.testing.assert_allclose(inputs.tensors[0, :, 0, 0], [-2.4, -2.2, -2.0], rtol=1e-6)
