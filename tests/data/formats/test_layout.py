"""Tests of finding the images of annotation files in many layouts of folders."""

import json

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Config, Data, Train
from ssd_jax.data.formats.layout import folder_distance
from ssd_jax.data.formats.open import find_format, missing_split_message, open_source, split_names
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.run_splits import open_training_splits
from ssd_jax.errors import UserError

XML = (
    "<annotation><object><name>cat</name><bndbox><xmin>{x}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    "</object></annotation>"
)
COLOURS = {"train": 40, "val": 200}


def write_image(file, split):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 30), COLOURS[split]).save(file)


def write_layout(root, image, annotation, kind):
    """Write two images of train and one of val, with equal names and boxes that start at 1 (train) or 5 (val)."""
    for split, count in (("train", 2), ("val", 1)):
        for k in range(count):
            write_image(root / image.format(split=split, k=k), split)
            file = root / annotation.format(split=split, k=k)
            file.parent.mkdir(parents=True, exist_ok=True)
            left = 1 if split == "train" else 5
            text = XML.format(x=left) if kind == "voc" else f"0 {(left + 30) / 80} {11 / 30} {(30 - left) / 40} 0.6\n"
            file.write_text(text)
    if kind == "yolo":
        (root / "classes.txt").write_text("cat\n")


LAYOUTS = [
    ("images/{split}/{k}.jpg", "{labels}/{split}/{k}{ending}"),
    ("{split}/images/{k}.jpg", "{split}/{labels}/{k}{ending}"),
    ("{split}/img/{k}.jpg", "{split}/{labels}/{k}{ending}"),
    ("{split}/{k}.JPG", "{split}/{k}{ending}"),
    ("{split}/{k}.jpg", "{labels}/{split}/{k}{ending}"),
    ("photos/{split}/cam/{k}.png", "{labels}/{split}/cam/{k}{ending}"),
    ("data/images/{split}/{k}.jpg", "data/{labels}/{split}/{k}{ending}"),
    ("{split}/JPEGImages/{k}.jpg", "{split}/{labels}/{k}{ending}"),
]


@pytest.mark.parametrize("kind", ["voc", "yolo"])
@pytest.mark.parametrize(("image", "annotation"), LAYOUTS)
def test_images_of_splits_with_equal_names_are_paired(tmp_path, kind, image, annotation):
    labels, ending = ("annots", ".XML") if kind == "voc" else ("labels", ".txt")
    annotation = annotation.replace("{labels}", labels).replace("{ending}", ending)
    write_layout(tmp_path, image, annotation, kind)
    data = Data(root=str(tmp_path))
    assert find_format(data) == kind and split_names(data) == ("train", "val")
    for split, count, left in (("train", 2, 1), ("val", 1, 5)):
        source = open_source(data, split)
        assert len(source) == count
        for index, record in enumerate(source.annotations()):
            np.testing.assert_allclose(record.boxes_px, [[left, 2, 30, 20]], atol=1e-4)
            assert abs(int(source.image(index).mean()) - COLOURS[split]) < 3


def test_image_does_not_get_the_label_file_of_another_split(tmp_path):
    write_layout(
        tmp_path,
        *(path.format(labels="labels", ending=".txt", split="{split}", k="{k}") for path in LAYOUTS[0]),
        "yolo",
    )
    write_image(tmp_path / "images" / "val" / "1.jpg", "val")  # train has an image and a label file of this name
    source = open_source(Data(root=str(tmp_path)), "val")
    assert [len(record.labels) for record in source.annotations()] == [1, 0]


@pytest.mark.parametrize(
    ("image", "annotation", "told"),
    [
        ("images/{k}.jpg", "annots/{k}.xml", "annots/, images in images/"),
        ("JPEGImages/cam{k}/{k}.jpg", "Annotations/cam{k}/{k}.xml", ""),
        ("data/{k}.jpg", "labels/{k}.xml", "labels/, images in data/"),
        ("{k}.jpg", "labels/{k}.xml", "labels/, images in ./"),
        ("a/b/images/{k}.jpg", "a/b/annotations/{k}.xml", "a/b/annotations/, images in a/b/images/"),
        ("JPEGImages/{k}.jpg", "Annotations/{k}.xml", ""),
        ("{k}.jpg", "{k}.jpg.xml", ""),
    ],
)
def test_unusual_layout_is_noted(tmp_path, image, annotation, told):
    for k in range(4):
        write_image(tmp_path / image.format(k=k), "train")
        file = tmp_path / annotation.format(k=k)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(XML.format(x=1))
    source = open_source(Data(root=str(tmp_path)), "train")
    layouts = [note for note in source.notes if "layout" in note]
    assert [told in note for note in layouts] == [True] * bool(told)
    assert len(source) + len(open_source(Data(root=str(tmp_path)), "val")) == 4


def test_masks_and_results_are_not_paired(tmp_path):
    for k in range(2):
        write_image(tmp_path / "JPEGImages" / f"{k}.jpg", "train")
        for folder in ("SegmentationClass", "SegmentationObject", "predictions"):
            write_image(tmp_path / folder / f"{k}.png", "val")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{k}.xml").write_text(XML.format(x=1))
    source = open_source(Data(root=str(tmp_path)), "train")
    assert "JPEGImages" in source.annotation(0).file and not any("annotation file" in note for note in source.notes)


def test_image_in_two_equal_folders_is_rejected_with_the_choices(tmp_path):
    for folder in ("photos_a", "photos_b"):
        write_image(tmp_path / folder / "0.jpg", "train")
    (tmp_path / "annots").mkdir()
    (tmp_path / "annots" / "0.xml").write_text(XML.format(x=1))
    with pytest.raises(UserError, match=r"annots/0\.xml: .*photos_a/0\.jpg, photos_b/0\.jpg"):
        open_source(Data(root=str(tmp_path)), "train")


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_two_folders_of_annotations_for_the_same_images_are_rejected(tmp_path, kind):
    for k in range(4):
        write_image(tmp_path / "photos" / f"{k}.jpg", "train")
        for folder in ("by_anna", "by_bob"):
            (tmp_path / folder).mkdir(exist_ok=True)
            file, text = (f"{k}.xml", XML.format(x=1)) if kind == "voc" else (f"{k}.txt", "0 0.5 0.5 0.5 0.5\n")
            (tmp_path / folder / file).write_text(text)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(UserError, match=r"by_anna.*by_bob|by_bob.*by_anna"):
        open_source(Data(root=str(tmp_path)), "train")


def test_folder_distance_orders_folders():
    order = ["a/labels", "a/images", "a/b/other", "a/masks", "b/images", "masks"]
    assert sorted(order, key=lambda place: folder_distance("a/labels", place)) == order


def test_two_formats_are_reported_and_the_larger_one_is_read(tmp_path):
    for k in range(4):
        write_image(tmp_path / "images" / f"{k}.jpg", "train")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{k}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "images" / "0.xml").write_text(XML.format(x=1))
    problems = Problems(raise_errors=False)
    assert len(open_source(Data(root=str(tmp_path)), "train", problems=problems)) == 3
    (problem,) = (p for p in problems.collected if p.kind is Kind.TWO_FORMATS)
    assert "YOLO is used" in problem.text and "VOC" in problem.text and "--data.format" in problem.text
    assert find_format(Data(root=str(tmp_path), format="voc")) == "voc"


def test_tables_that_repeat_images_do_not_take_precedence_over_one_file_per_image(tmp_path):
    rows = []
    for k in range(2):
        write_image(tmp_path / "images" / f"{k}.jpg", "train")
        (tmp_path / "images" / f"{k}.xml").write_text(XML.format(x=1))
        rows.append(f"{k}.jpg,40,30,cat,1,2,30,20\n")
    for name in ("all", "train"):
        (tmp_path / f"{name}.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n" + "".join(rows))
    assert find_format(Data(root=str(tmp_path))) == "voc"


@pytest.mark.parametrize("val_split", ["val", "valid", "test"])
def test_val_is_held_out_of_train_only_if_it_is_needed(tmp_path, val_split):
    for split, count in (("train", 10), ("test", 2)):
        for k in range(count):
            write_image(tmp_path / split / f"{k}.jpg", "train")
            (tmp_path / split / f"{k}.xml").write_text(XML.format(x=1))
    data = Data(root=str(tmp_path), val_split=val_split)
    train, val = open_source(data, "train"), open_source(data, val_split)
    if val_split == "test":
        assert (len(train), len(val)) == (10, 2) and split_names(data) == ("test", "train")
        return
    files = [{annotation.file for annotation in source.annotations()} for source in (train, val)]
    assert not files[0] & files[1] and len(files[0] | files[1]) == 10 and files[1]
    assert all(any("images of 'train' are held out" in note for note in source.notes) for source in (train, val))
    assert missing_split_message(data, val_split) is None
    assert len(open_source(data, "test")) == 2


def test_val_is_not_held_out_if_training_does_not_evaluate(tmp_path):
    for k in range(10):
        write_image(tmp_path / "train" / f"{k}.jpg", "train")
        (tmp_path / "train" / f"{k}.xml").write_text(XML.format(x=1))
    for eval_every, count in ((0, 10), (5, 9)):
        config = Config(data=Data(root=str(tmp_path)), train=Train(eval_every=eval_every))
        _, train_source, val_source = open_training_splits(config)
        assert len(train_source) == count and (val_source is None) == (eval_every == 0)


def test_message_about_a_missing_split_names_the_option(tmp_path):
    write_image(tmp_path / "test" / "0.jpg", "train")
    (tmp_path / "test" / "0.xml").write_text(XML.format(x=1))
    for split, option in (("train", "--data.train_split"), ("other", "--split")):
        with pytest.raises(UserError, match=f"'{split}'.*{option}: test"):
            open_source(Data(root=str(tmp_path)), split)


@pytest.mark.parametrize("name", ["default.txt", "all.txt"])
def test_single_list_with_another_name_is_divided(tmp_path, name):
    for k in range(6):
        write_image(tmp_path / "JPEGImages" / f"{k}.jpg", "train")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{k}.xml").write_text(XML.format(x=1))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / name).write_text("0\n1\n2\n3\n4\n")
    data = Data(root=str(tmp_path))
    assert split_names(data) == ("train", "val")
    assert len(open_source(data, "train")) + len(open_source(data, "val")) == 5
    assert len(open_source(data, name.removesuffix(".txt"))) == 5


@pytest.mark.parametrize(
    ("file", "content", "name"),
    [
        ("annotations.xml", "<annotations><track id='0' label='cat'/></annotations>", "CVAT for video"),
        ("via3.json", json.dumps({"view": {"1": {"fid_list": ["1"]}}}), "VGG Image Annotator 3"),
        ("train.tfrecord", "abc", "TFRecord"),
        ("labels.pkl", "abc", "Python's pickle"),
        ("labels.xlsx", "abc", "Excel"),
        ("boxes.csv", "name,bbox\na,[1 2 3 4]\n", "a spreadsheet"),
    ],
)
def test_formats_that_are_not_read_are_called_by_their_names(tmp_path, file, content, name):
    write_image(tmp_path / "a.jpg", "train")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=rf"{file} is in the format of {name}.*Export"):
        find_format(Data(root=str(tmp_path)))
