"""Tests of importing weights: all key mappings, the settings of each project, and rejected tensors."""

import dataclasses
from pathlib import Path
from typing import Any

import helpers.published_keys as published
import jax
import numpy as np
import pytest
from helpers import torchvision_ssd
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
from PIL import Image
from safetensors.numpy import save as encode_safetensors

from ssd_jax import config, files
from ssd_jax.data.class_names import COCO_CLASSES, VOC_CLASSES
from ssd_jax.errors import UserError
from ssd_jax.inference.restoring import restore_params
from ssd_jax.model_zoo.opening import load
from ssd_jax.runs import run_folder
from ssd_jax.weights.formats.weight_file import read_weights
from ssd_jax.weights.importing import import_weights, write_run


def test_import_transposes_oihw_to_hwio(ssd300, imported_ssd300):
    """Single values of the imported parameters (HWIO) are compared with values of ssd.pytorch's tensors (OIHW)."""
    params = imported_ssd300.params
    assert params["vgg"]["conv1_1"]["kernel"].shape == (3, 3, 3, 8)
    assert params["vgg"]["conv1_1"]["kernel"][0, 1, 2, 3] == ssd300["vgg.0.weight"][3, 2, 0, 1]
    assert params["vgg"]["conv5_3"]["bias"][5] == ssd300["vgg.28.bias"][5]
    assert params["vgg"]["fc6"]["kernel"][2, 0, 7, 11] == ssd300["vgg.31.weight"][11, 7, 2, 0]
    assert params["conv4_3_norm"]["scale"][9] == ssd300["L2Norm.weight"][9]
    assert params["conv9_2"]["kernel"][1, 2, 3, 4] == ssd300["extras.7.weight"][4, 3, 1, 2]
    assert params["conv4_3_norm_mbox_loc"]["bias"][15] == ssd300["loc.0.bias"][15]
    assert params["conv9_2_mbox_conf"]["kernel"][0, 0, 1, 83] == ssd300["conf.5.weight"][83, 1, 0, 0]


@pytest.mark.parametrize("project", WRITERS)
@pytest.mark.parametrize("maps", [6, 7])
def test_import_gives_the_same_parameters_for_every_project(project, maps, ssd300, imported_ssd300, tmp_path):
    if project == "torchvision" and maps == 7:
        pytest.skip("torchvision has published no SSD512")
    tensors = ssd300 if maps == 6 else published.make_random_ssd_pytorch(7, 21, WIDTH)
    expected = imported_ssd300 if maps == 6 else import_weights(save_safetensors(tmp_path / "original", tensors))
    actual = import_weights(WRITERS[project](tmp_path / "file", tensors))
    assert actual.mapping.project == project.split(",")[0]
    assert actual.mapping.network == expected.mapping.network
    jax.tree.map(np.testing.assert_array_equal, actual.params, expected.params)
    assert actual.config.model.class_names == VOC_CLASSES
    assert all(leaf.dtype == np.float32 and leaf.flags.c_contiguous for leaf in jax.tree.leaves(actual.params))


def test_import_uses_every_tensor_once(ssd300, imported_ssd300):
    """There are as many parameters as tensors, and no two parameters are equal."""
    leaves = [leaf.tobytes() for leaf in jax.tree.leaves(imported_ssd300.params)]
    assert len(set(leaves)) == len(leaves) == len(ssd300)


@pytest.mark.parametrize(
    ("project", "classes", "names", "boxes"),
    [
        ("ssd.pytorch", 81, COCO_CLASSES, dict(min_sizes=(21, 45, 99, 153, 207, 261), clip="center_size")),
        ("lufficc", 21, VOC_CLASSES, dict(min_sizes=(30, 60, 111, 162, 213, 264), clip="center_size")),
        ("torchvision", 21, VOC_CLASSES, dict(min_sizes=(21, 45, 99, 153, 207, 261), clip="sizes")),
        ("caffe", 81, COCO_CLASSES, dict(min_sizes=(21, 45, 99, 153, 207, 261), clip="none", truncate_sizes=True)),
    ],
)
def test_import_sets_classes_and_default_boxes(project, classes, names, boxes, tmp_path):
    tensors = published.make_random_ssd_pytorch(6, classes, WIDTH)
    actual = import_weights(WRITERS[project](tmp_path / "file", tensors)).config.model
    assert actual.class_names == names and actual.width == WIDTH
    for name, value in boxes.items():
        assert getattr(actual.default_boxes, name) == value


@pytest.mark.parametrize(
    ("project", "mean", "detect"),
    [  # The numbers come from the sources that tests/assets/weight_keys and docs/weights.md name.
        ("ssd.pytorch", (123, 117, 104), config.Detect(0.01, 200, 0.45, 200 * 20)),
        ("lufficc", (123, 117, 104), config.Detect(0.01, 1_000_000, 0.45, 100)),
        (
            "mmdetection",
            (123.675, 116.28, 103.53),
            config.Detect(0.02, 1000, 0.45, 200, "map", (-4.135166556742356, 4.135166556742356), True, True),
        ),
        ("caffe", (123, 117, 104), config.Detect(0.01, 400, 0.45, 200)),
        ("ssd_keras", (123, 117, 104), config.Detect(0.01, 1_000_000, 0.45, 200)),
    ],
)
def test_import_sets_preprocessing_and_postprocessing(project, mean, detect, ssd300, tmp_path):
    actual = import_weights(WRITERS[project](tmp_path / "file", ssd300)).config
    assert (actual.model.mean, actual.model.std, actual.detect) == (mean, (1, 1, 1), detect)
    assert actual.model.default_boxes.variances == (0.1, 0.1, 0.2, 0.2)


def test_torchvision_labels_are_coco_category_ids(tmp_path):
    tensors = published.to_torchvision(published.make_random_ssd_pytorch(6, 91, WIDTH))
    names = import_weights(save_safetensors(tmp_path / "file", tensors)).config.model.class_names
    assert len(names) == 90 and [name for name in names if not name.startswith("n/a")] == list(COCO_CLASSES)
    # Ids of some categories in instances_val2017.json.
    for number, name in ((1, "person"), (11, "fire hydrant"), (13, "stop sign"), (44, "bottle"), (90, "toothbrush")):
        assert names[number - 1] == name


def test_torchvision_import_equals_the_independent_conversion(tmp_path):
    """The expected parameters come from helpers/torchvision_ssd.py, which ``make parity`` compares with torchvision."""
    state = torchvision_ssd.make_random_state_dict(0)
    actual = import_weights(save_safetensors(tmp_path / "file", state))
    jax.tree.map(np.testing.assert_array_equal, actual.params, torchvision_ssd.to_params(state))
    expected = torchvision_ssd.make_torchvision_config()
    assert actual.config.detect == expected.detect
    names = actual.config.model.class_names
    model = dataclasses.replace(expected.model, class_names=names, mean=actual.config.model.mean)
    assert actual.config.model == model
    np.testing.assert_allclose(actual.config.model.mean, expected.model.mean, rtol=1e-12)


def test_import_requires_class_names_for_an_unpublished_number_of_classes(tmp_path):
    file = save_safetensors(tmp_path / "cells.safetensors", published.make_random_ssd_pytorch(6, 4, WIDTH))
    with pytest.raises(UserError, match=r"3 classes .*cells\.safetensors.* --class-names"):
        import_weights(file)
    with pytest.raises(UserError, match=r"--class-names: 2 .*cells\.safetensors.* 3 "):
        import_weights(file, class_names=("RBC", "WBC"))
    assert import_weights(file, class_names=("RBC", "WBC", "Platelets")).config.model.num_classes == 4
    assert import_weights(file, class_names=None).config.model.class_names == ("1", "2", "3")
    for invalid in ("background", "", "__background__"):
        with pytest.raises(UserError, match=f"--class-names: {invalid!r}"):
            import_weights(file, class_names=("RBC", invalid, "Platelets"))
    with pytest.raises(UserError, match="twice"):
        import_weights(file, class_names=("RBC", "WBC", "RBC"))


def test_import_applies_given_scales_and_channel_order(ssd300, imported_ssd300, tmp_path):
    file = save_safetensors(tmp_path / "file", ssd300)
    coco = import_weights(file, scales="coco").config.model.default_boxes
    assert coco == dataclasses.replace(config.SSD300_COCO_BOXES, clip="center_size")
    flipped = import_weights(file, bgr=True).params["vgg"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(flipped, imported_ssd300.params["vgg"]["conv1_1"]["kernel"][:, :, ::-1])
    unchanged = import_weights(file, bgr=False).params["vgg"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(unchanged, imported_ssd300.params["vgg"]["conv1_1"]["kernel"])


def change_fc7_of_coco_priors(**settings: Any) -> dict[str, Any]:
    """Return COCO_PRIORS with the given settings for the feature map fc7."""
    return COCO_PRIORS | {"fc7_mbox_priorbox": COCO_PRIORS["fc7_mbox_priorbox"] | settings}


def test_import_uses_the_default_boxes_stored_in_a_caffe_snapshot(ssd300, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(make_caffe_file(ssd300, COCO_PRIORS))
    coco = dataclasses.replace(config.SSD300_COCO_BOXES, truncate_sizes=True)
    voc = dataclasses.replace(config.SSD300_VOC_BOXES, truncate_sizes=True)
    assert import_weights(file).config.model.default_boxes == coco
    assert import_weights(file, scales="voc").config.model.default_boxes == voc
    some = {name: prior for name, prior in COCO_PRIORS.items() if not name.startswith("fc7")}
    file.write_bytes(make_caffe_file(ssd300, some))
    assert import_weights(file).config.model.default_boxes == voc, (
        "the published default boxes are used if a layer has none"
    )
    file.write_bytes(make_caffe_file(ssd300, change_fc7_of_coco_priors(step=17.0)))
    assert import_weights(file).config.model.default_boxes.steps == (8, 17, 32, 64, 100, 300)
    without = {name: {k: v for k, v in p.items() if k != "step"} | {"clip": True} for name, p in COCO_PRIORS.items()}
    file.write_bytes(make_caffe_file(ssd300, without))
    actual = import_weights(file).config.model.default_boxes
    assert (actual.steps, actual.clip) == (None, "corners")


@pytest.mark.parametrize(
    "settings", [{"flip": False}, {"offset": 0.0}, {"clip": True}, {"variance": [0.1]}, {"max_size": [400.0, 500.0]}]
)
def test_import_rejects_unsupported_default_boxes(settings, ssd300, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(make_caffe_file(ssd300, change_fc7_of_coco_priors(**settings)))
    with pytest.raises(UserError, match=r"file: .*default boxes"):
        import_weights(file)


def test_import_lists_all_tensors_that_do_not_fit(ssd300, tmp_path):
    tensors = dict(ssd300)
    del tensors["conf.3.weight"]
    tensors["loc.0.bias"] = tensors["loc.0.bias"][:3]
    tensors["extras.0.weight"] = tensors["extras.0.weight"].astype(np.int32)
    tensors["vgg.0.bias"] = np.full_like(tensors["vgg.0.bias"], np.nan)
    tensors["ema.decay"] = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError) as error:
        import_weights(save_safetensors(tmp_path / "file", tensors))
    head, *lines = str(error.value).splitlines()
    assert str(tmp_path / "file") in head and "ssd.pytorch's SSD300" in head
    problems = {line.split(" (")[0].strip().rsplit(maxsplit=1)[1]: line for line in lines if " (" in line}
    assert set(problems) == {"conf.3.weight", "loc.0.bias", "ema.decay"}
    assert "(126, 32, 3, 3)" in problems["conf.3.weight"] and "(2, 3)" in problems["ema.decay"]
    assert "(3,)" in problems["loc.0.bias"] and "(16,)" in problems["loc.0.bias"]
    others = [line for line in lines if " (" not in line]
    assert len(others) == 2
    assert any("extras.0.weight" in line and "int32" in line for line in others)
    assert any("vgg.0.bias" in line and "NaN" in line for line in others)


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module."])
def test_import_removes_key_prefixes_of_wrappers(prefix, ssd300, imported_ssd300, tmp_path):
    file = save_safetensors(tmp_path / "file", {prefix + key: value for key, value in ssd300.items()})
    jax.tree.map(np.testing.assert_array_equal, import_weights(file).params, imported_ssd300.params)


@pytest.mark.parametrize(
    "tensors",
    [
        {"layer1.0.conv1.weight": np.zeros((4, 3, 3, 3), np.float32), "fc.bias": np.zeros(3, np.float32)},
        {},
        {"vgg.0.weight": np.zeros((64, 3, 3, 3), np.float32)},
    ],
)
def test_import_rejects_unknown_networks(tensors, tmp_path):
    with pytest.raises(UserError, match=f"file: .*{len(tensors)} tensors"):
        import_weights(save_safetensors(tmp_path / "file", tensors))


def test_read_weights_recognises_safetensors_with_any_header_length(tmp_path):
    """A safetensors file begins with the header's length, whose first byte may be the first byte of another format."""
    first_bytes = set()
    for padding in range(256):
        data = encode_safetensors({"a" * (padding + 1): np.ones(3, np.float32)})
        first_bytes.add(data[0])
        (tmp_path / "file").write_bytes(data)
        actual = read_weights(tmp_path / "file")
        assert actual.kind == "torch" and list(actual.tensors) == ["a" * (padding + 1)]
    assert len(first_bytes) >= 32 and 0x80 in first_bytes


# ---- backbones ----


@pytest.mark.parametrize("options", [{"class_names": ("a", "b")}, {"scales": "coco"}])
def test_import_rejects_class_names_and_scales_for_a_backbone(options, ssd300, tmp_path):
    with pytest.raises(UserError, match=r"file: .*VGG16"):
        import_weights(save_safetensors(tmp_path / "file", select_backbone(ssd300)), **options)


def test_import_gives_the_same_backbone_for_every_project(ssd300, imported_ssd300, tmp_path):
    classifier, features = make_classifier_and_features(ssd300)
    caffe = {name: blobs for name, blobs in published.to_caffe(ssd300).items() if "_" not in name or name[4] < "6"}
    caffe = {name: blobs for name, blobs in caffe.items() if "mbox" not in name and name != "conv4_3_norm"}
    full = {
        **{name: blobs for name, blobs in caffe.items() if not name.startswith("fc")},
        "fc6": [classifier["classifier.0.weight"], classifier["classifier.0.bias"]],
        "fc7": [classifier["classifier.3.weight"], classifier["classifier.3.bias"]],
        "fc8": [classifier["classifier.6.weight"], classifier["classifier.6.bias"]],
    }
    files = {
        "vgg16_reducedfc": save_safetensors(tmp_path / "reducedfc", select_backbone(ssd300)),
        "torchvision_vgg16": save_safetensors(tmp_path / "torchvision", features | classifier),
    }
    for name, blobs in (("caffe_vgg16_reduced", caffe), ("caffe_vgg16", full)):
        files[name] = tmp_path / name
        kinds = {2: "InnerProduct", 4: "Convolution"}
        layers = [(layer, kinds[values[0].ndim], list(values)) for layer, values in blobs.items()]
        files[name].write_bytes(encode_caffemodel(layers, v1=True))
    files["keras_vgg16"] = save_keras_vgg16(tmp_path / "keras", full)
    for name, file in files.items():
        actual = import_weights(file)
        assert actual.mapping.project == name and actual.config.model.class_names == ()
        assert list(actual.params) == ["vgg"]
        jax.tree.map(np.testing.assert_array_equal, actual.params["vgg"], imported_ssd300.params["vgg"])


def test_import_of_torchvision_features_ignores_an_invalid_classifier(ssd300, imported_ssd300, tmp_path):
    classifier, features = make_classifier_and_features(ssd300)
    broken = {key: np.full_like(value, np.nan) for key, value in classifier.items()}
    for tensors in (features | broken, features):
        actual = import_weights(save_safetensors(tmp_path / "file", tensors))
        assert actual.mapping.project == "torchvision_features"
        assert "fc6" not in actual.params["vgg"] and len(actual.params["vgg"]) == 13
        np.testing.assert_array_equal(
            actual.params["vgg"]["conv5_3"]["kernel"], imported_ssd300.params["vgg"]["conv5_3"]["kernel"]
        )
        assert actual.config.model.std == (1, 1, 1)
    full = import_weights(save_safetensors(tmp_path / "file", features | classifier)).config.model
    assert full.std == (58.395, 57.12, 57.375)


# ---- commands ----


def test_imported_run_detects_objects(imported_run, imported_ssd300):
    params, step = restore_params(imported_run, run_folder.read_config(imported_run), "best")
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, params, imported_ssd300.params)
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    actual = load(imported_run)(image, score_threshold=0.0)
    assert actual and {d.name for d in actual} <= set(VOC_CLASSES)


def test_import_command_describes_the_weights(imported_run, ssd300, tmp_path, capsys):
    file = save_safetensors(tmp_path / "voc.safetensors", ssd300)
    assert run_command("import-weights", file, "--out", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{file}: ssd.pytorch's SSD300\n")
    for words in (
        "20 classes",
        "aeroplane",
        "--class-names",
        "8732 default boxes",
        "(123.0, 117.0, 104.0)",
        "--train.pretrained",
    ):
        assert words in printed
    assert run_command("import-weights", file, "--out", tmp_path / "run") == 2
    assert "--out" in capsys.readouterr().err


def test_import_command_creates_no_folder_for_a_rejected_file(tmp_path, capsys):
    for name, content in (("empty", b""), ("page.pth", b"<!DOCTYPE html>"), ("text", b"hello")):
        (tmp_path / name).write_bytes(content)
        assert run_command("import-weights", tmp_path / name, "--out", tmp_path / "run") == 2
        assert str(tmp_path / name) in capsys.readouterr().err
    assert run_command("import-weights", tmp_path / "gone.pth", "--out", tmp_path / "run") == 2
    assert "gone.pth" in capsys.readouterr().err
    assert run_command("import-weights", tmp_path, "--out", tmp_path / "run") == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_write_run_removes_an_incomplete_folder(imported_ssd300, tmp_path, monkeypatch):
    def fail_to_write(file: Path, text: str) -> None:
        raise UserError(f"{file}: can't be written (No space left on device)")

    monkeypatch.setattr(files, "write_text", fail_to_write)
    with pytest.raises(UserError, match="No space left"):
        write_run(imported_ssd300, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_predict_and_evaluate_reject_a_backbone(ssd300, tmp_path, capsys):
    file = save_safetensors(tmp_path / "vgg.safetensors", select_backbone(ssd300))
    assert run_command("import-weights", file, "--out", tmp_path / "vgg") == 0
    assert "--train.pretrained" in capsys.readouterr().out
    image = tmp_path / "image.png"
    Image.new("RGB", (30, 20)).save(image)
    assert run_command("predict", tmp_path / "vgg", image, "--out", tmp_path / "out") == 2
    assert "--train.pretrained" in capsys.readouterr().err
    assert run_command("evaluate", tmp_path / "vgg", "--data.root", "shapes") == 2
    assert "--train.pretrained" in capsys.readouterr().err
