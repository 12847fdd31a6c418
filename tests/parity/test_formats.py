"""Tests that compare imported files of each project with an independent forward pass in torch, layer by layer."""

import dataclasses
from pathlib import Path
from typing import Any

import helpers.published_keys as published
import numpy as np
import pytest
from helpers.cli import run_command
from helpers.published_files import (
    COCO_PRIORS,
    WIDTH,
    WRITERS,
    make_caffe_file,
    make_classifier_and_features,
    save_keras_vgg16,
    save_safetensors,
    select_backbone,
)
from helpers.weight_writers import encode_caffemodel

from ssd_jax.config import SSD300_VOC_BOXES
from ssd_jax.data.image import read_image
from ssd_jax.ops.boxes import cxcywh_to_xyxy
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.weights import torch_reference
from ssd_jax.weights.importing import import_weights, write_run
from ssd_jax.weights.presets import Scales
from ssd_jax.weights.verification import make_sample_image, verify_weights

pytest.importorskip("torch", reason="needs torch and torchvision: make parity")
pytest.importorskip("torchvision", reason="needs torch and torchvision: make parity")

BLOBS = {1: "Normalize", 4: "Convolution", 2: "InnerProduct"}
"""Type of a Caffe layer by the number of axes of its weight."""


def assert_verified(file: Path, image: np.ndarray, bgr: bool | None = None, scales: Scales | None = None) -> set[str]:
    """Assert that all comparisons of a file with the reference pass, and return the names of the comparisons."""
    imported, comparisons = verify_weights(file, image, scales, bgr)
    assert [comparison for comparison in comparisons if not comparison.passed] == []
    assert all(comparison.largest > 0.01 for comparison in comparisons), "all values are large enough for a comparison"
    worst = max(comparison.difference / comparison.largest for comparison in comparisons)
    print(f"{imported.mapping.title}: {worst:.1e} of the largest value at most")
    return {comparison.name for comparison in comparisons}


@pytest.mark.parametrize("maps", [6, 7])
@pytest.mark.parametrize("project", WRITERS)
def test_imported_detectors_equal_the_reference(project, maps, tmp_path):
    if project == "torchvision":
        pytest.skip(
            "test_torchvision.py compares this network, with full width, because torchvision's own network is run"
        )
    file = WRITERS[project](tmp_path / "file", published.make_random_ssd_pytorch(maps, 21, WIDTH, seed=maps))
    names = assert_verified(file, make_sample_image())
    assert len(names) == 15 + 1 + (8 if maps == 6 else 10) + 2 * maps + 6


@pytest.mark.parametrize("project", ["ssd.pytorch", "mmdetection", "caffe"])
def test_imported_coco_detectors_equal_the_reference_on_a_real_image(project, bccd, tmp_path):
    image = read_image(sorted((bccd / "JPEGImages").iterdir())[0])
    file = WRITERS[project](tmp_path / "file", published.make_random_ssd_pytorch(7, 81, WIDTH, seed=2))
    assert_verified(file, image)


@pytest.mark.parametrize("extras", [3, 4])
def test_imported_first_caffe_versions_equal_the_reference(extras, tmp_path):
    layers = [(n, BLOBS[b[0].ndim], b) for n, b in published.make_random_caffe_pool6(extras, 21, WIDTH).items()]
    (tmp_path / "file").write_bytes(encode_caffemodel(layers))
    assert "pool6_mbox_conf" in assert_verified(tmp_path / "file", make_sample_image())


def test_imported_lufficc_release_1_0_equals_the_reference(tmp_path):
    names = {"loc": "regression_headers", "conf": "classification_headers", "L2Norm": "l2_norm"}
    tensors = published.make_random_ssd_pytorch(7, 21, WIDTH).items()
    renamed = {".".join([names.get(k.split(".")[0], k.split(".")[0]), *k.split(".")[1:]]): v for k, v in tensors}
    assert_verified(save_safetensors(tmp_path / "file", renamed), make_sample_image())


def test_import_with_stored_default_boxes_or_options_equals_the_reference(tmp_path):
    tensors = published.make_random_ssd_pytorch(6, 21, WIDTH)
    (tmp_path / "caffe").write_bytes(make_caffe_file(tensors, COCO_PRIORS))
    assert_verified(tmp_path / "caffe", make_sample_image())
    assert_verified(save_safetensors(tmp_path / "file", tensors), make_sample_image(), bgr=True, scales="coco")


def test_imported_backbones_equal_the_reference(tmp_path):
    tensors = published.make_random_ssd_pytorch(6, 21, WIDTH, seed=5)
    classifier, features = make_classifier_and_features(tensors)
    caffe = {
        n: b for n, b in published.to_caffe(tensors).items() if n[:4] in ("conv", "fc6", "fc7") and "norm" not in n
    }
    caffe = {n: b for n, b in caffe.items() if "mbox" not in n and n[4:5] not in tuple("6789")}
    full = caffe | {
        f"fc{6 + k}": [classifier[f"classifier.{3 * k}.weight"], classifier[f"classifier.{3 * k}.bias"]] for k in (0, 1)
    }
    broken = {key: np.full_like(value, np.nan) for key, value in classifier.items()}
    files = [
        save_safetensors(tmp_path / "reducedfc", select_backbone(tensors)),
        save_safetensors(tmp_path / "torchvision", features | classifier),
        save_safetensors(tmp_path / "features", features | broken),
        save_keras_vgg16(
            tmp_path / "keras", full | {"fc8": [classifier["classifier.6.weight"], np.zeros(10, np.float32)]}
        ),
    ]
    for name, blobs in (("reduced", caffe), ("full", full)):
        files.append(tmp_path / name)
        layers = [(layer, BLOBS[b[0].ndim], b) for layer, b in blobs.items()]
        files[-1].write_bytes(encode_caffemodel(layers, v1=True))
    for file in files:
        assert len(assert_verified(file, make_sample_image())) == (13 if file.name == "features" else 15)


def test_verify_command_passes_for_a_torchvision_file(tmp_path, capsys):
    tensors = published.to_torchvision(published.make_random_ssd_pytorch(6, 21, 1.0))
    assert run_command("verify", save_safetensors(tmp_path / "file", tensors)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "torchvision's SSD300" in lines[0] and "500 x 375" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["conv1_1", "conv1_2", "conv2_1"]
    assert not any("<--" in line for line in lines)
    assert run_command("verify", tmp_path / "gone") == 2


def test_imported_torchvision_file_with_given_options_equals_the_reference(tmp_path):
    file = save_safetensors(tmp_path / "file", published.to_torchvision(published.make_random_ssd_pytorch(6, 21, 1.0)))
    assert_verified(file, make_sample_image(), bgr=True, scales="voc")


def test_verify_command_reports_a_difference(tmp_path, capsys, monkeypatch):
    settings = torch_reference.PROJECT_SETTINGS["lufficc"]._replace(mean=(104.0, 117.0, 123.0))
    monkeypatch.setitem(torch_reference.PROJECT_SETTINGS, "lufficc", settings)
    file = WRITERS["lufficc"](tmp_path / "file", published.make_random_ssd_pytorch(6, 21, WIDTH))
    assert run_command("verify", file) == 1
    out = capsys.readouterr().out
    assert "<--" in out and "conv1_1" in out.splitlines()[-1]


def test_code_printed_by_export_loads_the_file_with_torchvision(tmp_path, capsys):
    """The run's default boxes and mean differ from torchvision's defaults, so that the printed code has to set them."""
    tensors = published.make_random_ssd_pytorch(6, 4, 1.0)
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    imported = import_weights(save_safetensors(tmp_path / "file", tensors), class_names=("RBC", "WBC", "Platelets"))
    boxes = dataclasses.replace(SSD300_VOC_BOXES, clip="sizes")
    model = dataclasses.replace(imported.config.model, default_boxes=boxes, mean=(120.0, 110.0, 100.0), std=(50.0,) * 3)
    write_run(imported._replace(config=dataclasses.replace(imported.config, model=model)), run)
    assert run_command("export-weights", run, "--out", out) == 0
    output = capsys.readouterr().out
    namespace: dict[str, Any] = {}
    exec(output[output.index("from safetensors") :], namespace)
    model_tv = namespace["model"]
    for key, value in published.to_torchvision(tensors).items():
        np.testing.assert_array_equal(model_tv.state_dict()[key].numpy(), value)
    image = namespace["load_file"](out)["backbone.scale_weight"].new_zeros(3, 300, 300)
    inputs, _ = model_tv.transform([image])
    anchors = model_tv.anchor_generator(inputs, list(model_tv.backbone(inputs.tensors).values()))[0].numpy() / 300
    np.testing.assert_allclose(anchors, cxcywh_to_xyxy(make_default_boxes(boxes)), rtol=0, atol=1e-6)
    assert (model_tv.score_thresh, model_tv.topk_candidates, model_tv.detections_per_img) == (0.01, 200, 600)
    np.testing.assert_allclose(inputs.tensors[0, :, 0, 0], [-2.4, -2.2, -2.0], rtol=1e-6)
