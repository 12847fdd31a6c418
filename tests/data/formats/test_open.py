"""Tests of all formats: equal annotations from VOC, COCO and YOLO, the list of formats, and joined splits."""

import dataclasses
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from helpers.cli import run_command, write_voc_folder
from helpers.paths import ROOT
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, missing_split_message, open_source
from ssd_jax.data.formats.recognition import FOLDER_FORMATS, FolderFormatModule
from ssd_jax.data.formats.shapes import CLASS_NAMES
from ssd_jax.data.problems import Kind, Problems


def read_voc(root: Path, split: str):
    """Yield the stem, path, size and objects (class name and xyxy box) of each image, parsed with ElementTree."""
    for stem in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        (image,) = (root / "JPEGImages").glob(f"{stem}.*")
        with Image.open(image) as opened:
            size = opened.size
        tree = ElementTree.parse(root / "Annotations" / f"{stem}.xml")
        objects = [
            (node.findtext("name"), [float(node.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")])
            for node in tree.iter("object")
        ]
        yield stem, image, size, objects


def convert_to_coco(voc: Path, out: Path, splits: list[str], names: list[str]) -> Path:
    (out / "annotations").mkdir(parents=True)
    for split in splits:
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7 * k, "name": n} for k, n in enumerate(names)],
        }
        (out / split).mkdir()
        for number, (_, image, (width, height), objects) in enumerate(read_voc(voc, split), start=100):
            shutil.copy(image, out / split)
            content["images"].append({"id": number, "file_name": image.name, "width": width, "height": height})
            for name, (x1, y1, x2, y2) in objects:
                entry = {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 7 * names.index(name),
                }
                content["annotations"].append(
                    entry | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                )
        (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return out


def convert_to_yolo(voc: Path, out: Path, splits: list[str], names: list[str]) -> Path:
    for split in splits:
        for part in ("images", "labels"):
            (out / part / split).mkdir(parents=True)
        for stem, image, (width, height), objects in read_voc(voc, split):
            shutil.copy(image, out / "images" / split)
            lines = []
            for name, (x1, y1, x2, y2) in objects:
                box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(" ".join([str(names.index(name)), *(f"{value:.8f}" for value in box)]))
            (out / "labels" / split / f"{stem}.txt").write_text("\n".join(lines))
    listed = "\n".join(f"  {k}: {name}" for k, name in enumerate(names))
    paths = "\n".join(f"{split}: images/{split}" for split in splits)
    (out / "data.yaml").write_text(f"path: .\n{paths}\nnames:\n{listed}\n")
    return out


def read_sorted_annotations(root: Path, split: str):
    source = open_source(Data(root=str(root), val_split="test"), split)
    annotations = list(source.annotations())
    return source, sorted(annotations, key=lambda a: Path(a.file).stem)


def assert_equal_annotations(roots: dict[str, Path], splits: list[str]) -> None:
    for split in splits:
        source, expected = read_sorted_annotations(roots["voc"], split)
        for kind, root in roots.items():
            assert find_format(Data(root=str(root))) == kind
            other, annotations = read_sorted_annotations(root, split)
            assert other.class_names == source.class_names and len(annotations) == len(expected)
            for a, b in zip(annotations, expected, strict=True):
                assert Path(a.file).name == Path(b.file).name and (a.width, a.height) == (b.width, b.height)
                np.testing.assert_array_equal(a.labels, b.labels)
                # Boxes differ by rounding: COCO stores left and width, and YOLO normalised values with eight decimals.
                np.testing.assert_allclose(a.boxes_px, b.boxes_px, rtol=0, atol=2e-4)
                np.testing.assert_allclose(a.area_px, b.area_px, rtol=1e-3, atol=0.1)


def test_annotations_of_bccd_are_equal_in_three_formats(bccd, tmp_path):
    splits, names = ["val", "test"], ["Platelets", "RBC", "WBC"]
    coco, yolo = (
        convert_to_coco(bccd, tmp_path / "coco", splits, names),
        convert_to_yolo(bccd, tmp_path / "yolo", splits, names),
    )
    assert_equal_annotations({"voc": bccd, "coco": coco, "yolo": yolo}, splits)


@pytest.fixture(scope="module")
def folders_in_three_formats(tmp_path_factory):
    base = tmp_path_factory.mktemp("formats")
    voc = write_voc_folder(base / "voc", {"train": 4, "test": 12})
    return {
        "voc": voc,
        "coco": convert_to_coco(voc, base / "coco", ["train", "test"], list(CLASS_NAMES)),
        "yolo": convert_to_yolo(voc, base / "yolo", ["train", "test"], list(CLASS_NAMES)),
    }


def test_annotations_of_generated_images_are_equal_in_three_formats(folders_in_three_formats):
    assert_equal_annotations(folders_in_three_formats, ["train", "test"])


@pytest.mark.slow
def test_metrics_of_a_checkpoint_are_equal_in_three_formats(folders_in_three_formats, trained_run, tmp_path):
    metrics = {}
    for kind, root in folders_in_three_formats.items():
        run = shutil.copytree(trained_run, tmp_path / kind)
        assert run_command("evaluate", run, "--data.root", root) == 0
        metrics[kind] = json.loads((run / "metrics.json").read_text())
    assert metrics["voc"]["images"] == 12 and metrics["voc"]["voc_map_area"] > 0
    for kind in ("coco", "yolo"):
        for key, value in metrics["voc"].items():
            if isinstance(value, float):
                assert metrics[kind][key] == pytest.approx(value, abs=1e-9), (kind, key)
        assert metrics[kind]["voc_classes"] == metrics["voc"]["voc_classes"]


# ---- the list of formats ----


def test_format_option_accepts_all_formats():
    choices = get_args(get_type_hints(Data)["format"])
    assert sorted(choices) == sorted(["auto", "shapes", "tfds", *FOLDER_FORMATS])


@pytest.mark.parametrize("name", FOLDER_FORMATS)
def test_folder_formats_have_the_attributes_of_a_format_module(name):
    module = importlib.import_module(f"ssd_jax.data.formats.{name}")
    assert isinstance(module, FolderFormatModule) and module.LAYOUT
    for function in ("split_names", "open_split"):
        expected = list(inspect.signature(getattr(FolderFormatModule, function)).parameters)[1:]
        assert list(inspect.signature(getattr(module, function)).parameters) == expected


def test_opening_generated_images_imports_no_file_readers():
    program = """
import sys
from ssd_jax.config import Data
from ssd_jax.data.formats import open_source
assert len(open_source(Data(), "val"))
assert not {"tensorflow_datasets", "yaml", "ssd_jax.data.formats.coco"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


# ---- joined splits ----


def test_joined_splits_renumber_labels_and_collect_each_problem_once(tmp_path):
    for folder, name in (("one", "cat"), ("two", "ant")):
        (tmp_path / folder / "images").mkdir(parents=True)
        images, objects = [], []
        for number, stem in enumerate(("a", "b"), start=1):
            Image.new("RGB", (40, 30)).save(tmp_path / folder / "images" / f"{stem}.png")
            images.append({"id": number, "file_name": f"{stem}.png", "width": 40, "height": 30})
            objects.append({"image_id": number, "category_id": 5, "bbox": [1, 2, 3, 4]})
        # Both folders have the class bee. Their other classes, cat and ant, both have the label 1.
        categories = [{"id": 5, "name": name}, {"id": 7, "name": "bee"}]
        objects.append({"image_id": 1, "category_id": 7, "bbox": [5, 5, 0, 5]})
        objects.append({"image_id": 1, "category_id": 7, "bbox": [5, 5, 5, 5]})
        content = {"images": images, "annotations": objects, "categories": categories}
        (tmp_path / folder / "train.json").write_text(json.dumps(content))
    problems = Problems(raise_errors=False)
    source = open_source(Data(root=str(tmp_path)), "two/train+one/train", problems=problems)
    assert source.class_names == ("ant", "bee", "cat") and source.category_ids is None
    assert [a.labels.tolist() for a in source.annotations()] == [[1, 2], [1], [3, 2], [3]]
    assert [problem.kind for problem in problems.collected] == [Kind.NO_AREA] * 2, "once for each folder"


def test_val_is_held_out_of_joined_train_splits(tmp_path):
    for batch in ("batch1", "batch2"):
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
        for k in range(20):
            Image.new("RGB", (40, 30)).save(tmp_path / f"{batch}_{k}.jpg")
            content["images"].append({"id": k, "file_name": f"{batch}_{k}.jpg"})
            content["annotations"].append({"id": k, "image_id": k, "category_id": 1, "bbox": [1, 1, 9, 9]})
        (tmp_path / f"{batch}.json").write_text(json.dumps(content))
    data = Data(root=str(tmp_path), train_split="batch1+batch2", val_fraction=0.3)
    train, val = (open_source(data, split) for split in ("batch1+batch2", "val"))
    ids = [[annotation.image_id for annotation in source.annotations()] for source in (train, val)]
    assert len(set(ids[0])) + len(set(ids[1])) == len(set(ids[0] + ids[1])) == 40 and 3 <= len(ids[1]) <= 25
    assert any("are held out for it (--data.val_fraction 0.3)" in note for note in train.notes)
    assert missing_split_message(data, "val") is None
    assert len(open_source(dataclasses.replace(data, val_split="batch1+batch2"), "batch1+batch2")) == 40
