"""Tests of split specifications, and of the joined and sliced sources that the specifications describe."""

import re

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import missing_split_message, open_source
from ssd_jax.data.splits import Term, parse_split, slice_positions
from ssd_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("train", [("", "train", "", "")]),
        ("train+validation", [("", "train", "", ""), ("", "validation", "", "")]),
        ("train[:50%]", [("", "train", "", "50%")]),
        ("train[-10%:] + b[3:-1]", [("", "train", "-10%", ""), ("", "b", "3", "-1")]),
        ("VOC2007/trainval+VOC2012/trainval", [("VOC2007", "trainval", "", ""), ("VOC2012", "trainval", "", "")]),
        ("/data/cats/test-dev[:]", [("/data/cats", "test-dev", "", "")]),
    ],
)
def test_parse_split_returns_terms(text, terms):
    assert parse_split(text) == tuple(Term(*term) for term in terms)


@pytest.mark.parametrize("text", ["", "train+", "train[50%]", "train[:50%", "train[a:]", "train[::2]", "VOC2007/"])
def test_parse_split_rejects_malformed_text(text):
    with pytest.raises(UserError, match=f"^'{re.escape(text)}'"):
        parse_split(text)


@pytest.mark.parametrize(
    ("bounds", "length", "expected"),
    [
        (("", ""), 7, range(7)),
        (("", "50%"), 7, range(4)),  # 3.5 is rounded to the even number, as tensorflow-datasets does
        (("50%", ""), 7, range(4, 7)),
        (("-20%", ""), 10, range(8, 10)),
        (("2", "-1"), 7, range(2, 6)),
        (("5", "100"), 7, range(5, 7)),
        (("0%", "1%"), 7, range(0)),
    ],
)
def test_slice_positions_returns_the_range_of_the_slice(bounds, length, expected):
    assert list(slice_positions(Term("", "train", *bounds), length)) == list(expected)


def test_slice_positions_agrees_with_tensorflow_datasets():
    """Compare slices in percent for several numbers of images."""
    from tensorflow_datasets.core.splits import ReadInstruction

    class Info:
        def __init__(self, length):
            self.num_examples = length

    for length in (1, 7, 10, 99, 100, 333):
        for start, stop in ((0, 50), (50, 100), (33, 66), (10, 11), (-10, 100), (0, -25)):
            instruction = ReadInstruction("train", from_=start, to=stop, unit="%")
            (absolute,) = instruction.to_absolute({"train": Info(length)})
            expected = range(length)[absolute.from_ : absolute.to]
            assert slice_positions(Term("", "train", f"{start}%", f"{stop}%"), length) == expected


def write_voc_folder(folder, names):
    """Write a VOC folder with one image per class name. The grey value of an image is the index of the name."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for k, name in enumerate(names):
        Image.new("RGB", (40, 30 + k), (k, k, k)).save(folder / "JPEGImages" / f"i{k}.png")
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
        xml = f"<annotation><object><name>{name}</name>{box}</object></annotation>"
        (folder / "Annotations" / f"i{k}.xml").write_text(xml)
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(f"i{k}" for k in range(len(names))))
    (folder / "ImageSets" / "Main" / "test.txt").write_text("i0")


@pytest.fixture
def two_folders(tmp_path):
    write_voc_folder(tmp_path / "VOC2007", ["cat", "dog", "cat"])
    write_voc_folder(tmp_path / "VOC2012", ["dog", "bird"])
    return Data(root=str(tmp_path))


def test_joined_source_has_the_classes_of_all_folders(two_folders):
    source = open_source(two_folders, "VOC2007/trainval+VOC2012/trainval")
    assert source.class_names == ("cat", "dog", "bird") and len(source) == 5
    annotations = list(source.annotations())
    assert [a.image_id for a in annotations] == ["VOC2007/i0", "VOC2007/i1", "VOC2007/i2", "VOC2012/i0", "VOC2012/i1"]
    assert [a.labels.tolist() for a in annotations] == [[1], [2], [1], [2], [3]]
    assert source.sizes() == [(a.width, a.height) for a in annotations] == [(40, 30 + k) for k in (0, 1, 2, 0, 1)]
    assert [int(source.image(i)[0, 0, 0]) for i in range(5)] == [0, 1, 2, 0, 1]
    assert source.in_memory and source.category_ids is None


def test_joined_source_reads_reduced_images_of_its_parts(two_folders, tmp_path):
    Image.new("RGB", (400, 300), (200, 0, 0)).save(tmp_path / "VOC2012" / "JPEGImages" / "i1.jpg")
    xml = tmp_path / "VOC2012" / "Annotations" / "i1.xml"
    xml.write_text(xml.read_text().replace("<annotation>", "<annotation><filename>i1.jpg</filename>"))
    (tmp_path / "VOC2012" / "JPEGImages" / "i1.png").unlink()
    source = open_source(two_folders, "VOC2007/trainval+VOC2012/trainval")
    assert source.reduced_image(4, (50, 50)).shape == (75, 100, 3)
    assert source.reduced_image(0, (5, 5)).shape == source.image(0).shape, "a PNG file is read at full size"


def test_open_source_applies_class_names_to_every_joined_split(two_folders):
    names = ("bird", "dog", "cat")
    source = open_source(two_folders, "VOC2012/trainval+VOC2007/trainval", names)
    assert source.class_names == names
    assert [annotation.labels.tolist() for annotation in source.annotations()] == [[2], [1], [3], [2], [3]]
    with pytest.raises(UserError, match=r"VOC2012.*'bird'.*cat, dog"):
        open_source(two_folders, "VOC2007/trainval+VOC2012/trainval", ("cat", "dog"))


def test_slice_of_one_folder_keeps_image_ids(two_folders):
    source = open_source(two_folders, "VOC2007/trainval[1:]")
    assert [annotation.image_id for annotation in source.annotations()] == ["i1", "i2"]
    np.testing.assert_array_equal(source.image(0)[0, 0], [1, 1, 1])


def test_errors_name_missing_splits_and_folders(two_folders):
    assert missing_split_message(two_folders, "VOC2007/test+VOC2012/trainval") is None
    message = missing_split_message(two_folders, "VOC2007/test+VOC2012/val")
    assert "VOC2012" in message and "'val'" in message and "test, trainval" in message
    with pytest.raises(UserError, match=r"VOC2012.*'val'"):
        open_source(two_folders, "VOC2007/test+VOC2012/val")
    with pytest.raises(UserError, match="VOC2008"):
        open_source(two_folders, "VOC2008/test")
    with pytest.raises(UserError, match=r"'VOC2007/trainval\[3:\]'"):
        open_source(two_folders, "VOC2007/trainval[3:]")
