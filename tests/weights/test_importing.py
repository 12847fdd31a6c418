"""One set of weights in every published layout is one detector; what does not fit is listed; nothing is lost."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers.published_layouts as published
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from helpers import tiny_config, torchvision_ssd
from helpers.cli import TINY, command
from helpers.published_layouts import Tensors
from helpers.weight_writers import caffemodel_bytes, write_keras
from PIL import Image
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as safetensors_bytes

from ssd_jax import config, files
from ssd_jax.data.class_names import COCO_CLASSES, VOC_CLASSES
from ssd_jax.errors import UserError
from ssd_jax.inference import detector
from ssd_jax.runs import run_folder
from ssd_jax.training.pretrained import initial_params, open_pretrained
from ssd_jax.weights.exporting import export_layout, to_layout
from ssd_jax.weights.formats.weight_file import read_weights
from ssd_jax.weights.importing import Imported, import_weights, write_run
from ssd_jax.weights.key_mappings import LAYOUTS
from ssd_jax.weights.networks import SSD300, SSD512, parameter_shapes

WIDTH = 0.125
TINY_BOXES, TINY_EXTRAS = (getattr(tiny_config.get_config().model, name) for name in ("default_boxes", "extras"))


def save(file: Path, tensors: Tensors) -> Path:
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, file)
    return file


def caffe_bytes(tensors: Tensors, priors: dict[str, Any] | None = None) -> bytes:
    kinds = {4: "Convolution", 1: "Normalize"}
    layers = [(name, kinds.get(b[0].ndim, "InnerProduct"), b) for name, b in published.caffe(tensors).items()]
    return caffemodel_bytes(layers, priors)


def save_caffe(file: Path, tensors: Tensors) -> Path:
    file.write_bytes(caffe_bytes(tensors))
    return file


def save_keras(file: Path, tensors: Tensors) -> Path:
    names = ("kernel:0", "bias:0")
    layers = [
        (layer, [(f"{layer}/{n}", v) for n, v in zip(names, values, strict=False)])
        for layer, values in published.ssd_keras(tensors).items()
    ]
    write_keras(file, layers)
    return file


def save_early_mmdetection(file: Path, tensors: Tensors) -> Path:
    return save(file, published.mmdetection(tensors, early=True))


WRITERS: dict[str, Callable[[Path, Tensors], Path]] = {
    "ssd.pytorch": save,
    "torchvision": lambda file, tensors: save(file, published.torchvision(tensors)),
    "lufficc": lambda file, tensors: save(file, published.lufficc(tensors)),
    "mmdetection": lambda file, tensors: save(file, published.mmdetection(tensors)),
    "mmdetection, early": save_early_mmdetection,
    "caffe": save_caffe,
    "ssd_keras": save_keras,
}


@pytest.fixture(scope="module")
def ssd300() -> Tensors:
    return published.random_ssd_pytorch(6, 21, WIDTH)


@pytest.fixture(scope="module")
def imported(ssd300, tmp_path_factory) -> Imported:
    return import_weights(save(tmp_path_factory.mktemp("weights") / "ssd300.safetensors", ssd300))


def test_by_hand(ssd300, imported):
    """A few numbers of ssd.pytorch's, each at its place here: OIHW there, HWIO here."""
    params = imported.params
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
def test_the_same_weights_in_every_layout_are_the_same_parameters(project, maps, ssd300, imported, tmp_path):
    if project == "torchvision" and maps == 7:
        pytest.skip("torchvision has published no SSD512")
    tensors = ssd300 if maps == 6 else published.random_ssd_pytorch(7, 21, WIDTH)
    expected = imported if maps == 6 else import_weights(save(tmp_path / "original", tensors))
    found = import_weights(WRITERS[project](tmp_path / "file", tensors))
    assert found.layout.project == project.split(",")[0]
    assert found.layout.network == expected.layout.network
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    assert found.config.model.class_names == VOC_CLASSES
    assert all(leaf.dtype == np.float32 and leaf.flags.c_contiguous for leaf in jax.tree.leaves(found.params))


def test_every_leaf_counts(ssd300, imported):
    """No two parameters come from one tensor, and none is constant."""
    leaves = [leaf.tobytes() for leaf in jax.tree.leaves(imported.params)]
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
def test_classes_and_boxes(project, classes, names, boxes, tmp_path):
    tensors = published.random_ssd_pytorch(6, classes, WIDTH)
    found = import_weights(WRITERS[project](tmp_path / "file", tensors)).config.model
    assert found.class_names == names and found.width == WIDTH
    for name, value in boxes.items():
        assert getattr(found.default_boxes, name) == value


@pytest.mark.parametrize(
    ("project", "mean", "detect"),
    [  # sources: those of tests/assets/weight_layouts, and docs/weights.md
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
def test_preprocessing_and_post_processing(project, mean, detect, ssd300, tmp_path):
    found = import_weights(WRITERS[project](tmp_path / "file", ssd300)).config
    assert (found.model.mean, found.model.std, found.detect) == (mean, (1, 1, 1), detect)
    assert found.model.default_boxes.variances == (0.1, 0.1, 0.2, 0.2)


def test_torchvisions_labels_are_cocos_category_ids(tmp_path):
    tensors = published.torchvision(published.random_ssd_pytorch(6, 91, WIDTH))
    names = import_weights(save(tmp_path / "file", tensors)).config.model.class_names
    assert len(names) == 90 and [name for name in names if not name.startswith("n/a")] == list(COCO_CLASSES)
    # instances_val2017.json: ids of some categories.
    for number, name in ((1, "person"), (11, "fire hydrant"), (13, "stop sign"), (44, "bottle"), (90, "toothbrush")):
        assert names[number - 1] == name


def test_torchvisions_file_by_another_hand(tmp_path):
    """tests/torchvision_ssd.py, which make parity compares with torchvision itself, says the same of it."""
    state = torchvision_ssd.random_state_dict(0)
    found = import_weights(save(tmp_path / "file", state))
    jax.tree.map(np.testing.assert_array_equal, found.params, torchvision_ssd.to_params(state))
    expected = torchvision_ssd.torchvision_config()
    assert found.config.detect == expected.detect
    names = found.config.model.class_names
    model = dataclasses.replace(expected.model, class_names=names, mean=found.config.model.mean)
    assert found.config.model == model
    np.testing.assert_allclose(found.config.model.mean, expected.model.mean, rtol=1e-12)


def test_own_classes_need_their_names(tmp_path):
    file = save(tmp_path / "cells.safetensors", published.random_ssd_pytorch(6, 4, WIDTH))
    with pytest.raises(
        UserError, match=r"3 classes besides background.*ssd-jax import-weights .*cells.safetensors.* --class-names A B"
    ):
        import_weights(file)
    with pytest.raises(UserError, match=r"--class-names: 2 names, but .*cells.safetensors has 3 classes"):
        import_weights(file, class_names=("RBC", "WBC"))
    assert import_weights(file, class_names=("RBC", "WBC", "Platelets")).config.model.num_classes == 4
    assert import_weights(file, class_names=None).config.model.class_names == ("1", "2", "3")
    for odd in ("background", "", "__background__"):
        with pytest.raises(UserError, match="Background, label 0, is not named"):
            import_weights(file, class_names=("RBC", odd, "Platelets"))
    with pytest.raises(UserError, match="holds a name twice"):
        import_weights(file, class_names=("RBC", "WBC", "RBC"))


def test_scales_and_channels_can_be_said(ssd300, imported, tmp_path):
    file = save(tmp_path / "file", ssd300)
    coco = import_weights(file, scales="coco").config.model.default_boxes
    assert coco == dataclasses.replace(config.SSD300_COCO_BOXES, clip="center_size")
    flipped = import_weights(file, bgr=True).params["vgg"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(flipped, imported.params["vgg"]["conv1_1"]["kernel"][:, :, ::-1])
    as_it_is = import_weights(file, bgr=False).params["vgg"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(as_it_is, imported.params["vgg"]["conv1_1"]["kernel"])


COCO_PRIORS = {
    f"{source}_mbox_priorbox": {
        "min_size": [low], "max_size": [high], "aspect_ratio": ratios, "flip": True, "clip": False,
        "variance": [0.1, 0.1, 0.2, 0.2], "step": step, "offset": 0.5,
    }
    for source, low, high, ratios, step in zip(
        ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2"),
        (21.0, 45.0, 99.0, 153.0, 207.0, 261.0),
        (45.0, 99.0, 153.0, 207.0, 261.0, 315.0),
        ([2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0], [2.0]),
        (8.0, 16.0, 32.0, 64.0, 100.0, 300.0),
        strict=True,
    )
}  # fmt: skip
"""Of a model of VOC that was trained on COCO first: the classes do not tell."""


def changed(**settings: Any) -> dict[str, Any]:
    return COCO_PRIORS | {"fc7_mbox_priorbox": COCO_PRIORS["fc7_mbox_priorbox"] | settings}


def test_a_caffe_snapshot_tells_its_own_default_boxes(ssd300, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(caffe_bytes(ssd300, COCO_PRIORS))
    coco = dataclasses.replace(config.SSD300_COCO_BOXES, truncate_sizes=True)
    voc = dataclasses.replace(config.SSD300_VOC_BOXES, truncate_sizes=True)
    assert import_weights(file).config.model.default_boxes == coco
    assert import_weights(file, scales="voc").config.model.default_boxes == voc
    some = {name: prior for name, prior in COCO_PRIORS.items() if not name.startswith("fc7")}
    file.write_bytes(caffe_bytes(ssd300, some))
    assert import_weights(file).config.model.default_boxes == voc, "as published, where one is missing"
    file.write_bytes(caffe_bytes(ssd300, changed(step=17.0)))
    assert import_weights(file).config.model.default_boxes.steps == (8, 17, 32, 64, 100, 300)
    without = {name: {k: v for k, v in p.items() if k != "step"} | {"clip": True} for name, p in COCO_PRIORS.items()}
    file.write_bytes(caffe_bytes(ssd300, without))
    found = import_weights(file).config.model.default_boxes
    assert (found.steps, found.clip) == (None, "corners")


@pytest.mark.parametrize(
    "settings", [{"flip": False}, {"offset": 0.0}, {"clip": True}, {"variance": [0.1]}, {"max_size": [400.0, 500.0]}]
)
def test_default_boxes_that_can_not_be_had(settings, ssd300, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(caffe_bytes(ssd300, changed(**settings)))
    with pytest.raises(UserError, match=r"file: .*default boxes"):
        import_weights(file)


def test_all_that_does_not_fit_is_listed_at_once(ssd300, tmp_path):
    tensors = dict(ssd300)
    del tensors["conf.3.weight"]
    tensors["loc.0.bias"] = tensors["loc.0.bias"][:3]
    tensors["extras.0.weight"] = tensors["extras.0.weight"].astype(np.int32)
    tensors["vgg.0.bias"] = np.full_like(tensors["vgg.0.bias"], np.nan)
    tensors["ema.decay"] = np.zeros((2, 3), np.float32)
    with pytest.raises(UserError) as error:
        import_weights(save(tmp_path / "file", tensors))
    head, *lines = str(error.value).splitlines()
    assert str(tmp_path / "file") in head and "ssd.pytorch's SSD300" in head
    assert {" ".join(line.split()) for line in lines} == {
        "missing conf.3.weight (126, 32, 3, 3)",
        "misshapen loc.0.bias (3,), (16,) expected",
        "no floats extras.0.weight int32",
        "infinite vgg.0.bias holds values that are not finite",
        "too many ema.decay (2, 3)",
    }


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module."])
def test_prefixes_of_wrappers(prefix, ssd300, imported, tmp_path):
    file = save(tmp_path / "file", {prefix + key: value for key, value in ssd300.items()})
    jax.tree.map(np.testing.assert_array_equal, import_weights(file).params, imported.params)


@pytest.mark.parametrize(
    "tensors",
    [
        {"layer1.0.conv1.weight": np.zeros((4, 3, 3, 3), np.float32), "fc.bias": np.zeros(3, np.float32)},
        {},
        {"vgg.0.weight": np.zeros((64, 3, 3, 3), np.float32)},
    ],
)
def test_another_network_is_told(tensors, tmp_path):
    with pytest.raises(UserError, match="file: neither an SSD on VGG16 nor a VGG16"):
        import_weights(save(tmp_path / "file", tensors))


def test_safetensors_whatever_their_headers_length(tmp_path):
    """Its lowest byte comes first in the file, and may be another format's mark."""
    seen = set()
    for padding in range(256):
        data = safetensors_bytes({"a" * (padding + 1): np.ones(3, np.float32)})
        seen.add(data[0])
        (tmp_path / "file").write_bytes(data)
        found = read_weights(tmp_path / "file")
        assert found.kind == "torch" and list(found.tensors) == ["a" * (padding + 1)]
    assert len(seen) >= 32 and 0x80 in seen


# ---- trunks ----


def trunk_of(tensors: Tensors) -> Tensors:
    return {key.removeprefix("vgg."): value for key, value in tensors.items() if key.startswith("vgg.")}


def full_classifier(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """A classifier of 4 x as many units, of which fc6 and fc7 are every fourth; and torch's names for all."""
    rng = np.random.default_rng(3)
    fc6, fc7 = tensors["vgg.31.weight"], tensors["vgg.33.weight"]
    units, channels = fc6.shape[:2]
    first = rng.normal(size=(4 * units, channels, 7, 7)).astype(np.float32)
    first[::4, :, ::3, ::3] = fc6
    second = rng.normal(size=(4 * units, 4 * units)).astype(np.float32)
    second[::4, ::4] = fc7[:, :, 0, 0]
    biases = [np.repeat(tensors[f"vgg.{place}.bias"], 4) for place in (31, 33)]
    classifier = {
        "0.weight": first.reshape(4 * units, -1),
        "0.bias": biases[0],
        "3.weight": second,
        "3.bias": biases[1],
    }
    classifier |= {"6.weight": rng.normal(size=(10, 4 * units)).astype(np.float32), "6.bias": np.zeros(10, np.float32)}
    named = {f"features.{k}": v for k, v in trunk_of(tensors).items() if int(k.split(".")[0]) < 30}
    return {f"classifier.{k}": v for k, v in classifier.items()}, named


@pytest.mark.parametrize("options", [{"class_names": ("a", "b")}, {"scales": "coco"}])
def test_a_trunk_has_neither_classes_nor_scales(options, ssd300, tmp_path):
    with pytest.raises(UserError, match="file: VGG16 alone"):
        import_weights(save(tmp_path / "file", trunk_of(ssd300)), **options)


def test_trunks_are_the_same_trunk(ssd300, imported, tmp_path):
    classifier, features = full_classifier(ssd300)
    caffe = {name: blobs for name, blobs in published.caffe(ssd300).items() if "_" not in name or name[4] < "6"}
    caffe = {name: blobs for name, blobs in caffe.items() if "mbox" not in name and name != "conv4_3_norm"}
    full = {
        **{name: blobs for name, blobs in caffe.items() if not name.startswith("fc")},
        "fc6": [classifier["classifier.0.weight"], classifier["classifier.0.bias"]],
        "fc7": [classifier["classifier.3.weight"], classifier["classifier.3.bias"]],
        "fc8": [classifier["classifier.6.weight"], classifier["classifier.6.bias"]],
    }
    files = {
        "vgg16_reducedfc": save(tmp_path / "reducedfc", trunk_of(ssd300)),
        "torchvision_vgg16": save(tmp_path / "torchvision", features | classifier),
    }
    for name, blobs in (("caffe_vgg16_reduced", caffe), ("caffe_vgg16", full)):
        files[name] = tmp_path / name
        kinds = {2: "InnerProduct", 4: "Convolution"}
        layers = [(layer, kinds[values[0].ndim], list(values)) for layer, values in blobs.items()]
        files[name].write_bytes(caffemodel_bytes(layers, v1=True))
    files["keras_vgg16"] = keras_vgg16(tmp_path / "keras", full)
    for name, file in files.items():
        found = import_weights(file)
        assert found.layout.project == name and found.config.model.class_names == ()
        assert list(found.params) == ["vgg"]
        jax.tree.map(np.testing.assert_array_equal, found.params["vgg"], imported.params["vgg"])


def keras_vgg16(file: Path, blobs: dict[str, list[np.ndarray]]) -> Path:
    """Keras' names; kernels HWIO, and the first classifier's rows in the order row, column, channel."""
    names = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    layers = []
    for layer, (weight, bias) in blobs.items():
        name = names.get(layer) or f"block{layer[4]}_{layer[:4]}{layer[6]}"
        if layer == "fc6":
            weight = weight.reshape(len(weight), -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            weight = weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)
        layers.append((name, [(f"{name}_W_1:0", weight), (f"{name}_b_1:0", bias)]))
    write_keras(file, layers)
    return file


def test_torchvisions_features_whose_classifier_is_not_valid(ssd300, imported, tmp_path):
    classifier, features = full_classifier(ssd300)
    broken = {key: np.full_like(value, np.nan) for key, value in classifier.items()}
    for tensors in (features | broken, features):
        found = import_weights(save(tmp_path / "file", tensors))
        assert found.layout.project == "torchvision_features"
        assert "fc6" not in found.params["vgg"] and len(found.params["vgg"]) == 13
        np.testing.assert_array_equal(
            found.params["vgg"]["conv5_3"]["kernel"], imported.params["vgg"]["conv5_3"]["kernel"]
        )
        assert found.config.model.std == (1, 1, 1)
    whole = import_weights(save(tmp_path / "file", features | classifier)).config.model
    assert whole.std == (58.395, 57.12, 57.375)


# ---- the program ----


@pytest.fixture(scope="module")
def run(ssd300, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    assert command("import-weights", save(folder / "voc.safetensors", ssd300), "--out", folder / "run") == 0
    return folder / "run"


def test_the_folder_is_as_of_a_run(run, imported):
    params, step = detector.restore_params(run, run_folder.read_config(run), "best")
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, params, imported.params)
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    found = detector.load(run)(image, score_threshold=0.0)
    assert found and {d.name for d in found} <= set(VOC_CLASSES)


def test_what_is_printed(run, ssd300, tmp_path, capsys):
    file = save(tmp_path / "voc.safetensors", ssd300)
    assert command("import-weights", file, "--out", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{file}: ssd.pytorch's SSD300\n")
    for words in (
        "20 classes, by their number; if they are others, --class-names: aeroplane",
        "8732 default boxes",
        "minus (123.0, 117.0, 104.0)",
        "--train.pretrained",
    ):
        assert words in printed
    assert command("import-weights", file, "--out", tmp_path / "run") == 2
    assert "is there already" in capsys.readouterr().err


def test_a_refused_file_leaves_no_folder(tmp_path, capsys):
    for name, content in (("empty", b""), ("page.pth", b"<!DOCTYPE html>"), ("text", b"hello")):
        (tmp_path / name).write_bytes(content)
        assert command("import-weights", tmp_path / name, "--out", tmp_path / "run") == 2
        assert str(tmp_path / name) in capsys.readouterr().err
    assert command("import-weights", tmp_path / "gone.pth", "--out", tmp_path / "run") == 2
    assert "gone.pth: no such file" in capsys.readouterr().err
    assert command("import-weights", tmp_path, "--out", tmp_path / "run") == 2
    assert "but a folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_not_written_whole_is_taken_away(imported, tmp_path, monkeypatch):
    def full(file: Path, text: str) -> None:
        raise UserError(f"{file}: can't be written (No space left on device)")

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(UserError, match="No space left"):
        write_run(imported, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trunk_detects_nothing(ssd300, tmp_path, capsys):
    file = save(tmp_path / "vgg.safetensors", trunk_of(ssd300))
    assert command("import-weights", file, "--out", tmp_path / "vgg") == 0
    assert "--train.pretrained" in capsys.readouterr().out
    picture = tmp_path / "picture.png"
    Image.new("RGB", (30, 20)).save(picture)
    assert command("predict", tmp_path / "vgg", picture, "--out", tmp_path / "out") == 2
    assert "--train.pretrained" in capsys.readouterr().err
    assert command("evaluate", tmp_path / "vgg", "--data.root", "shapes") == 2
    assert "--train.pretrained" in capsys.readouterr().err


# ---- to train from ----


def start_params(config, fresh):
    """Return the parameters that a run with this config starts from."""
    return initial_params(config, open_pretrained(config), fresh)


def starting_from(path: Path, model: config.Model, **options: Any) -> config.Config:
    return config.Config(model=model, train=config.Train(pretrained=str(path), **options))


def fresh_params(model: config.Model) -> Any:
    rng = np.random.default_rng(9)
    shapes = parameter_shapes(model).items()
    return unflatten_dict({path: jnp.asarray(rng.normal(size=s), jnp.float32) for path, s in shapes}, sep="/")


@pytest.fixture(scope="module")
def cells() -> config.Model:
    """SSD300 of the same width for other classes, one of which VOC has."""
    return dataclasses.replace(SSD300.model(config.SSD300_VOC_BOXES), class_names=("RBC", "car"), width=WIDTH)


def test_a_trunk_and_new_layers(ssd300, imported, cells, tmp_path, capsys):
    file = save(tmp_path / "vgg.safetensors", trunk_of(ssd300))
    fresh = fresh_params(cells)
    started = start_params(starting_from(file, cells), fresh)
    jax.tree.map(np.testing.assert_array_equal, started["vgg"], imported.params["vgg"])
    for name in fresh.keys() - {"vgg"}:
        jax.tree.map(np.testing.assert_array_equal, started[name], fresh[name])
    assert f"Starting from {file}: conv1_1, conv1_2" in capsys.readouterr().out
    write_run(import_weights(file), tmp_path / "run")
    again = start_params(starting_from(tmp_path / "run", cells), fresh)
    jax.tree.map(np.testing.assert_array_equal, again, started)


def test_features_alone_leave_fc6_new(ssd300, imported, cells, tmp_path, capsys):
    file, fresh = save(tmp_path / "features", full_classifier(ssd300)[1]), fresh_params(cells)
    started = start_params(starting_from(file, cells), fresh)
    for name, layer in started["vgg"].items():
        expected = fresh["vgg"][name] if name in ("fc6", "fc7") else imported.params["vgg"][name]
        if name != "conv1_1":  # torchvision's mean is another
            jax.tree.map(np.testing.assert_array_equal, layer, expected)
    assert "(122.99925" in capsys.readouterr().out


def test_a_detector_by_class_names(ssd300, imported, cells, tmp_path, capsys):
    file, fresh = save(tmp_path / "voc", ssd300), fresh_params(cells)
    boxes = imported.config.model.default_boxes
    model = dataclasses.replace(cells, default_boxes=boxes)
    with pytest.raises(UserError, match=r"--train\.transfer"):
        start_params(starting_from(file, model), fresh)
    started = start_params(starting_from(file, model, transfer=True), fresh)
    assert "kept      1: car" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, started["conv9_2"], imported.params["conv9_2"])
    conf = "fc7_mbox_conf"
    for box in range(6):
        bias = np.asarray(started[conf]["bias"]).reshape(6, 3)[box]
        voc = ssd300["conf.1.bias"].reshape(6, 21)[box]
        assert bias.tolist() == [voc[0], fresh[conf]["bias"][3 * box + 1], voc[1 + VOC_CLASSES.index("car")]]
    trunk = start_params(starting_from(file, model, backbone_only=True), fresh)
    jax.tree.map(np.testing.assert_array_equal, trunk["vgg"], imported.params["vgg"])
    jax.tree.map(np.testing.assert_array_equal, trunk["conv9_2"], fresh["conv9_2"])
    own = save(tmp_path / "own", published.random_ssd_pytorch(6, 8, WIDTH))
    assert start_params(starting_from(own, model, backbone_only=True), fresh), "names of classes do not matter"
    with pytest.raises(UserError, match="ssd-jax import-weights"):
        start_params(starting_from(own, model, transfer=True), fresh)


def test_what_does_not_fit_to_start_from(ssd300, cells, tmp_path):
    file = save(tmp_path / "voc", ssd300)
    wide = dataclasses.replace(cells, width=0.25)
    normed = dataclasses.replace(cells, norm="group")
    for model, line in ((wide, "model.width: 0.125 -> 0.25"), (normed, "model.norm: none -> group")):
        for options in ({"transfer": True}, {"backbone_only": True}):
            with pytest.raises(UserError, match=f"{file}: .*\n  {line}"):
                start_params(starting_from(file, model, **options), {})
    with pytest.raises(UserError, match="there is no file or folder"):
        start_params(starting_from(tmp_path / "gone", cells), {})
    with pytest.raises(UserError, match=r"--train\.pretrained"):
        start_params(config.Config(train=config.Train(backbone_only=True)), {})


def test_a_run_from_a_trunk_with_its_first_blocks_frozen(ssd300, imported, tmp_path):
    file = save(tmp_path / "vgg", trunk_of(ssd300))
    options = (
        "--model.norm",
        "none",
        "--train.steps",
        "3",
        "--train.eval-every",
        "0",
        "--optimizer.freeze-blocks",
        "2",
    )
    spread = ("--model.std", "1", "1", "1")
    assert command("train", TINY, "--workdir", tmp_path / "run", "--train.pretrained", file, *options, *spread) == 0
    params, step = detector.restore_params(tmp_path / "run", run_folder.read_config(tmp_path / "run"), "last")
    assert step == 3
    for name, layer in params["vgg"].items():
        stayed = jax.tree.map(lambda a, b: (np.asarray(a) == b).all(), layer, imported.params["vgg"][name])
        assert all(jax.tree.leaves(stayed)) == (name[:5] in ("conv1", "conv2")), name


# ---- and back ----


@pytest.mark.parametrize("maps", [6, 7])
def test_export_is_the_inverse(maps, tmp_path):
    tensors = published.random_ssd_pytorch(maps, 21, WIDTH)
    params = import_weights(save(tmp_path / "file", tensors)).params
    network = SSD300 if maps == 6 else SSD512
    layouts = [layout for layout in LAYOUTS["torch"] if layout.network is network]
    written = {"ssd.pytorch": tensors} | ({"torchvision": published.torchvision(tensors)} if maps == 6 else {})
    for project, expected in written.items():
        (layout,) = [layout for layout in layouts if layout.project == project]
        found = to_layout(params, layout)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].dtype == np.float32 and found[key].flags.c_contiguous
            np.testing.assert_array_equal(found[key], value)


def test_out_and_back_of_full_width(tmp_path, capsys):
    """The same bits of the file, and of the parameters."""
    tensors = published.random_ssd_pytorch(6, 4, 1.0)
    names = ("RBC", "WBC", "Platelets")
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    assert (
        command("import-weights", save(tmp_path / "a.safetensors", tensors), "--out", run, "--class-names", *names) == 0
    )
    assert command("export-weights", run, "--out", out, "--layout", "ssd.pytorch") == 0
    found = load_file(out)
    assert found.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(found[key], value)
    assert "3 classes: RBC, WBC, Platelets" in capsys.readouterr().out
    assert command("export-weights", run, "--out", out, "--layout", "ssd.pytorch") == 2
    assert "is there already" in capsys.readouterr().err
    assert command("export-weights", run, "--out", tmp_path / "tv.safetensors") == 2
    assert "clip 'center_size'" in capsys.readouterr().err


def test_a_file_of_another_ending_is_not_written(run, tmp_path, capsys):
    assert command("export-weights", run, "--out", tmp_path / "out.pth") == 2
    assert "end in .safetensors" in capsys.readouterr().err


def test_what_can_not_be_exported(run, trained_run, tmp_path, capsys):
    for folder, words in ((run, "model.width is 0.125"), (trained_run, "model.norm is 'group'")):
        assert command("export-weights", folder, "--out", tmp_path / "out.safetensors") == 2
        assert words in capsys.readouterr().err
    small = dataclasses.replace(SSD300.model(config.SSD300_VOC_BOXES), default_boxes=TINY_BOXES, extras=TINY_EXTRAS)
    with pytest.raises(UserError, match="What can be exported is torchvision's SSD300"):
        export_layout(small, "torchvision")
    boxes = dataclasses.replace(config.SSD300_VOC_BOXES, variances=(0.1, 0.1, 0.1, 0.1))
    with pytest.raises(UserError, match="variances"):
        export_layout(SSD300.model(boxes), "torchvision")
