"""Tests of COCO's splits trainval35k and minival, made from the files of 2017 and of 2014."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.minival import minival_ids
from ssd_jax.data.formats.open import missing_split_message, open_source, split_names
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.evaluation.evaluator import compute_metrics
from ssd_jax.inference.detections import ImageDetections

# Ids of images: MINIVAL contains the first two and the last id of val2017, OTHER_VAL ids of val2014 that are not in
# val2017, and TRAIN ids of train2014.
MINIVAL = (139, 285, 581781)
OTHER_VAL = (42, 581929)
TRAIN = (9, 25, 581921)
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]


def write_coco_file(root: Path, name: str, images: dict[int, str], folder: str) -> None:
    """Write images and a COCO file. ``images`` maps ids to file names; the id of an image determines the objects."""
    content = {
        "images": [{"id": i, "file_name": file, "width": 40, "height": 30} for i, file in images.items()],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": category, "bbox": [i % 7, k, 10.5, 12], "area": 90.25}
            for i in images
            for k, category in enumerate((1, 18) if i % 2 else (18,))
        ],
        "categories": CATEGORIES,
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    (root / folder).mkdir(exist_ok=True)
    for i, file in images.items():
        Image.new("RGB", (40, 30), (i % 256, 0, 0)).save(root / folder / file)


def write_files_of_2017(root: Path) -> None:
    train = {i: f"{i:012}.jpg" for i in sorted(TRAIN + OTHER_VAL, reverse=True)}  # the file is not sorted by id
    write_coco_file(root, "train2017", train, "train2017")
    write_coco_file(root, "val2017", {i: f"{i:012}.jpg" for i in MINIVAL}, "val2017")


def write_files_of_2014(root: Path) -> None:
    write_coco_file(root, "train2014", {i: f"COCO_train2014_{i:012}.jpg" for i in TRAIN}, "train2014")
    val = {i: f"COCO_val2014_{i:012}.jpg" for i in sorted(MINIVAL + OTHER_VAL)}
    write_coco_file(root, "val2014", val, "val2014")


def read_content_by_id(source: Source) -> dict[int | None, tuple[list, ...]]:
    """Return, by image id, the boxes, labels, areas and size of each image, and the red value of the first pixel."""
    content = {}
    for k in range(len(source)):
        a = source.annotation(k)
        red = int(source.image(k)[0, 0, 0])
        content[a.number] = (a.boxes_px.tolist(), a.labels.tolist(), a.area_px.tolist(), [a.width, a.height, red])
    assert len(content) == len(source)
    return content


def test_minival_ids_match_the_published_lists():
    ids = sorted(minival_ids())
    assert len(ids) == 5000 and ids[:3] == [139, 285, 632] and ids[-1] == 581781
    # These ids are at the same positions in two published lists: data/coco/val2017.txt of sweetagar/yolov5 and, with
    # the file names of val2014, data/coco/minival.txt of gaopeng-eugene/real-time-instance-segmentation.
    assert [ids[place] for place in (1000, 1111, 1288, 3000, 3332)] == [119365, 131273, 152214, 347544, 384527]
    assert not set(ids) & set(TRAIN + OTHER_VAL)
    assert sum(ids) == 1_447_811_683, "the list has been edited"


@pytest.mark.parametrize(("split", "ids"), [("trainval35k", sorted(TRAIN + OTHER_VAL)), ("minival", sorted(MINIVAL))])
def test_derived_splits_are_equal_for_files_of_2014_and_2017(tmp_path: Path, split: str, ids: list[int]):
    write_files_of_2017(tmp_path / "2017")
    write_files_of_2014(tmp_path / "2014")
    later, earlier = (open_source(Data(root=str(tmp_path / year)), split) for year in ("2017", "2014"))
    assert read_content_by_id(later) == read_content_by_id(earlier)
    assert sorted(read_content_by_id(earlier)) == ids
    for source in (later, earlier):
        assert source.class_names == ("person", "dog") and source.category_ids == (1, 18)


def test_images_of_2014_keep_their_folders_and_names(tmp_path: Path):
    write_files_of_2014(tmp_path)
    source = open_source(Data(root=str(tmp_path)), "trainval35k")
    files = [annotation.file for annotation in source.annotations()]
    train = [str(tmp_path / "train2014" / f"COCO_train2014_{i:012}.jpg") for i in TRAIN]
    assert files == train + [str(tmp_path / "val2014" / f"COCO_val2014_{i:012}.jpg") for i in sorted(OTHER_VAL)]
    assert source.annotation(0).image_id == "COCO_train2014_000000000009.jpg"


def test_derived_splits_can_be_listed_joined_and_sliced(tmp_path: Path):
    write_files_of_2014(tmp_path)
    data = Data(root=str(tmp_path))
    assert split_names(data) == ("train2014", "val2014", "trainval35k", "minival")
    assert missing_split_message(data, "trainval35k+minival") is None
    assert len(open_source(data, "trainval35k+minival")) == len(TRAIN + OTHER_VAL + MINIVAL)
    assert len(open_source(data, "trainval35k[:2]")) == 2
    dogs_first = open_source(data, "trainval35k", ("dog", "person"))
    assert dogs_first.annotation(0).labels.tolist() == [2, 1]
    with pytest.raises(UserError, match=r"instances_train2014\.json.*'dog'"):
        open_source(data, "trainval35k", ("person",))


def update_file(root: Path, name: str, **values) -> None:
    """Replace the values of some keys of a COCO file."""
    file = root / "annotations" / f"instances_{name}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_derived_split_has_the_classes_of_the_first_file(tmp_path: Path):
    write_files_of_2014(tmp_path)
    dog = {"image_id": OTHER_VAL[0], "category_id": 18, "bbox": [1, 1, 9, 9]}
    update_file(tmp_path, "val2014", categories=CATEGORIES[:1], annotations=[dog])
    source = open_source(Data(root=str(tmp_path)), "trainval35k")
    assert source.class_names == ("person", "dog")
    assert source.annotation(len(TRAIN)).labels.tolist() == [2]


def test_derived_split_has_separate_notes_for_each_file(tmp_path: Path):
    write_files_of_2014(tmp_path)
    for name, i in (("train2014", TRAIN[0]), ("val2014", OTHER_VAL[0])):
        update_file(tmp_path, name, annotations=[{"image_id": i, "category_id": 1, "bbox": [1, 1, 90, 9]}])
    notes = open_source(Data(root=str(tmp_path)), "trainval35k").notes
    assert [note.split("instances_")[1].split(".json")[0] for note in notes] == ["train2014", "val2014"]


def test_coco_metrics_on_minival_use_only_images_of_minival(tmp_path: Path):
    write_files_of_2014(tmp_path)
    source = open_source(Data(root=str(tmp_path)), "minival")
    perfect = [
        ImageDetections(a.boxes_px, np.ones(len(a.labels), np.float32), a.labels)
        for a in (source.annotation(k) for k in range(len(source)))
    ]
    assert source.coco_truth is not None
    assert compute_metrics(perfect, source)["coco_ap"] == pytest.approx(1)


def test_derived_splits_prefer_files_of_2017(tmp_path: Path):
    write_files_of_2014(tmp_path)
    write_files_of_2017(tmp_path)
    data = Data(root=str(tmp_path))
    assert "train2017" in open_source(data, "trainval35k").annotation(0).file
    assert "val2017" in open_source(data, "minival").annotation(0).file


def test_minival_prefers_val2017_to_files_of_2014(tmp_path: Path):
    write_files_of_2014(tmp_path)
    write_coco_file(tmp_path, "val2017", {MINIVAL[0]: "one.jpg"}, "val2017")
    data = Data(root=str(tmp_path))
    assert sorted(read_content_by_id(open_source(data, "trainval35k"))) == sorted(TRAIN + OTHER_VAL)
    assert sorted(read_content_by_id(open_source(data, "minival"))) == [MINIVAL[0]]


def test_derived_split_prefers_a_file_with_the_name_of_the_split(tmp_path: Path):
    write_files_of_2014(tmp_path)
    write_coco_file(tmp_path, "minival", {42: "mine.jpg"}, "minival")
    assert sorted(read_content_by_id(open_source(Data(root=str(tmp_path)), "minival"))) == [42]


@pytest.mark.parametrize(("kept", "split"), [("val2014", "trainval35k"), ("train2014", "minival")])
def test_derived_split_with_missing_files_is_rejected(tmp_path: Path, kept: str, split: str):
    write_files_of_2014(tmp_path)
    other = "val2014" if kept == "train2014" else "train2014"
    (tmp_path / "annotations" / f"instances_{other}.json").unlink()
    data = Data(root=str(tmp_path))
    assert missing_split_message(data, split)
    with pytest.raises(UserError, match=rf"'{split}'.*: {kept}"):
        open_source(data, split)
