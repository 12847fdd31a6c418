"""Tests of reading ILSVRC DET: splits, synsets, and missing files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.ilsvrc import SYNSETS
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

DOG, PERSON, ZEBRA = "n02084071", "n00007846", "n02391049"
OLD = f"ILSVRC2013_train/{DOG}/{DOG}_12"
NEW = "ILSVRC2014_train_0003/ILSVRC2014_train_00031000"
NEGATIVE = "ILSVRC2013_train_extra0/ILSVRC2013_train_00000001"
VAL = [f"ILSVRC2012_val_0000000{k}" for k in (1, 2, 3)]


def write_xml(file: Path, *objects):
    """Write an annotation file as in ILSVRC: <name> contains a synset, and there is <occluded> but no <difficult>."""
    nodes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><xmax>{box[2]}</xmax><ymin>{box[1]}</ymin>"
        f"<ymax>{box[3]}</ymax></bndbox><subcategory>n02095314</subcategory><occluded>0</occluded></object>"
        for name, box in objects
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"<annotation><folder>x</folder><filename>{file.stem}</filename><size><width>40</width><height>30</height>"
        f"<depth>3</depth></size>{nodes}</annotation>",
        encoding="utf-8",
    )


@pytest.fixture
def ilsvrc_folder(tmp_path):
    for subset, images in (("train", [OLD, NEW, NEGATIVE]), ("val", VAL), ("test", ["ILSVRC2012_test_00000001"])):
        for image in images:
            file = tmp_path / "Data" / "DET" / subset / f"{image}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), "navy").save(file)
    annotations = tmp_path / "Annotations" / "DET"
    write_xml(annotations / "train" / f"{OLD}.xml", (DOG, (1, 2, 30, 20)))
    write_xml(annotations / "train" / f"{NEW}.xml", (ZEBRA, (0, 0, 40, 30)), (PERSON, (3, 4, 5, 6)))
    write_xml(annotations / "val" / f"{VAL[0]}.xml", (PERSON, (1, 1, 9, 9)))
    write_xml(annotations / "val" / f"{VAL[1]}.xml")
    write_xml(annotations / "val" / f"{VAL[2]}.xml", (DOG, (1, 1, 9, 9)))
    lists = tmp_path / "ImageSets" / "DET"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"{NEW} 1\n{OLD} 2\n{NEGATIVE} 3\n")
    (lists / "train_58.txt").write_text(f"{OLD} 1\n{NEGATIVE} -1\n{NEW} 0\n")
    (lists / "train_pos_58.txt").write_text(f"{OLD}\n")
    (lists / "val.txt").write_text("".join(f"{image} {k}\n" for k, image in enumerate(VAL, start=1)))
    (lists / "test.txt").write_text("ILSVRC2012_test_00000001 1\n")
    return tmp_path


def open_folder(root, split="train", class_names=(), problems=None):
    return open_source(Data(root=str(root)), split, class_names, problems)


def list_image_ids(source):
    return [annotation.image_id for annotation in source.annotations()]


def test_synsets_match_the_label_map_of_caffe():
    """Compare with data/ILSVRC2016/labelmap_ilsvrc_det.prototxt of weiliu89/caffe.

    The expected hash is computed from all pairs of name and display_name in this file, joined by spaces, at commit
    24c2358c09f5376e9bea21d4f2ba4bc6d32bd288.
    """
    assert len(SYNSETS) == len(set(SYNSETS.values())) == 200
    text = " ".join(word for pair in SYNSETS.items() for word in pair)
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "4cadbbf37ec5aaa8e43ac30dc331bcb7af6e470ca6a91bb6d72fecbe69203622"
    )
    assert list(SYNSETS.values()).index("dog") == 57 and SYNSETS["n03942813"] == "ping-pong_ball"


def test_training_images_without_an_annotation_file_are_left_out(ilsvrc_folder):
    source = open_folder(ilsvrc_folder)
    assert source.class_names == tuple(SYNSETS.values()) and list_image_ids(source) == [NEW, OLD]
    first = source.annotation(0)
    assert [source.class_names[label - 1] for label in first.labels] == ["zebra", "person"]
    np.testing.assert_array_equal(first.labels, [200, 124])
    np.testing.assert_array_equal(first.boxes_px, [[0, 0, 40, 30], [3, 4, 5, 6]])
    assert (first.width, first.height) == (40, 30) and source.image(0).shape == (30, 40, 3)
    assert first.file == str(ilsvrc_folder / "Data" / "DET" / "train" / f"{NEW}.JPEG")
    (note,) = source.notes
    assert note.startswith("1 image of 'train' has no annotation file")


def test_split_without_a_list_contains_the_annotated_images_of_the_folder(ilsvrc_folder):
    (ilsvrc_folder / "ImageSets" / "DET" / "train.txt").unlink()
    source = open_folder(ilsvrc_folder)
    assert list_image_ids(source) == [OLD, NEW] and source.notes == ()


def test_validation_image_without_objects_is_kept(ilsvrc_folder):
    source = open_folder(ilsvrc_folder, "valid")
    assert list_image_ids(source) == VAL and [len(source.annotation(i).labels) for i in range(3)] == [1, 0, 1]


def test_open_split_rejects_test_and_unknown_splits(ilsvrc_folder):
    data = Data(root=str(ilsvrc_folder))
    assert find_format(data) == "ilsvrc" and split_names(data) == ("train", "val")
    with pytest.raises(UserError, match=r"'test'.*: train, val"):
        open_folder(ilsvrc_folder, "test")
    with pytest.raises(UserError, match=r"'val2'.*train, val"):
        open_folder(ilsvrc_folder, "val2")


def test_find_format_suggests_a_subfolder_in_a_known_format(ilsvrc_folder):
    (ilsvrc_folder / "ILSVRC").mkdir()
    for name in ("Annotations", "Data", "ImageSets"):
        (ilsvrc_folder / name).rename(ilsvrc_folder / "ILSVRC" / name)
    with pytest.raises(UserError, match=f"'{ilsvrc_folder / 'ILSVRC'}'"):
        find_format(Data(root=str(ilsvrc_folder)))


def test_lists_of_rcnn_are_read_as_splits(ilsvrc_folder):
    """Open the lists val1 and val2 of R-CNN as splits. R-CNN was trained on train and val1, and tested on val2."""
    lists = ilsvrc_folder / "ImageSets" / "DET"
    (lists / "val1.txt").write_text(f"{VAL[2]} 3\n{VAL[0]} 1\n")
    (lists / "val2.txt").write_text(f"{VAL[1]} 2\n")
    data = Data(root=str(ilsvrc_folder))
    assert split_names(data) == ("train", "val", "val1", "val2")
    train = open_source(data, "train+val1")
    assert list_image_ids(train) == [NEW, OLD, VAL[2], VAL[0]] and train.class_names == tuple(SYNSETS.values())
    assert list_image_ids(open_source(data, "val2")) == [VAL[1]]
    (lists / "trainval1.txt").write_text(f"{OLD}\n{VAL[0]}\n")
    assert list_image_ids(open_folder(ilsvrc_folder, "trainval1")) == [OLD, VAL[0]]


@pytest.mark.parametrize("folder", [".", "devkit/data"])
def test_class_names_are_read_from_map_det_txt(ilsvrc_folder, folder):
    file = ilsvrc_folder / folder / "map_det.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{ZEBRA} 1 striped horse\n\n{DOG} 2 dog\n{PERSON} 3 person\n")
    source = open_folder(ilsvrc_folder)
    assert source.class_names == ("striped horse", "dog", "person")
    np.testing.assert_array_equal(source.annotation(0).labels, [1, 3])
    file.write_text(f"{ZEBRA} zebra\n")
    with pytest.raises(UserError, match=r"map_det\.txt: line 1 .*'n02391049 zebra'"):
        open_folder(ilsvrc_folder)
    for text in ("", f"{ZEBRA} 1 dog\n{DOG} 2 dog\n"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"map_det\.txt: "):
            open_folder(ilsvrc_folder)


def test_given_class_names_determine_the_labels(ilsvrc_folder):
    source = open_folder(ilsvrc_folder, "val", ("person", "dog"))
    assert [source.annotation(i).labels.tolist() for i in range(3)] == [[1], [], [2]]
    with pytest.raises(UserError, match=r"'zebra'.*person, dog"):
        open_folder(ilsvrc_folder, "train", ("person", "dog"))


# ---- errors ----


def collect_only_problem(root, split, kind, count):
    """Return the only problem of a split, after checking its kind and the number of images that can be used."""
    problems = Problems(raise_errors=False)
    source = open_folder(root, split, problems=problems)
    assert [p.kind for p in problems.collected] == [kind] and len(source) == count
    return problems.collected[0]


def test_unknown_synset_is_reported(ilsvrc_folder):
    file = ilsvrc_folder / "Annotations" / "DET" / "val" / f"{VAL[0]}.xml"
    write_xml(file, ("n01440764", (1, 1, 9, 9)), (DOG, (1, 1, 9, 9)))
    with pytest.raises(UserError, match=r"00001\.xml: object 1 .*'n01440764'"):
        open_folder(ilsvrc_folder, "val")
    assert collect_only_problem(ilsvrc_folder, "val", Kind.UNKNOWN_CLASS, 3).file == str(file)


def test_missing_image_is_reported(ilsvrc_folder):
    (ilsvrc_folder / "Data" / "DET" / "val" / f"{VAL[1]}.JPEG").unlink()
    with pytest.raises(UserError, match=r"val\.txt line 2: .*00002\.JPEG"):
        open_folder(ilsvrc_folder, "val")
    assert collect_only_problem(ilsvrc_folder, "val", Kind.MISSING, 2).file.endswith("val.txt line 2")
    (ilsvrc_folder / "ImageSets" / "DET" / "val.txt").unlink()
    with pytest.raises(UserError, match=r"00002\.xml: .*00002\.JPEG"):
        open_folder(ilsvrc_folder, "val")


def test_missing_annotation_of_a_validation_image_is_reported(ilsvrc_folder):
    (ilsvrc_folder / "Annotations" / "DET" / "val" / f"{VAL[1]}.xml").unlink()
    with pytest.raises(UserError, match=r"val\.txt line 2: .*00002\.xml"):
        open_folder(ilsvrc_folder, "val")
    collect_only_problem(ilsvrc_folder, "val", Kind.MISSING, 2)


def test_list_line_without_an_image_id_is_reported(ilsvrc_folder):
    (ilsvrc_folder / "ImageSets" / "DET" / "val.txt").write_text(f"\n{VAL[0]} 1\nmy_values/1.jpg 1\n")
    with pytest.raises(UserError, match=r"val\.txt line 3: 'my_values/1\.jpg'"):
        open_folder(ilsvrc_folder, "val")
    collect_only_problem(ilsvrc_folder, "val", Kind.MISSING, 1)


def test_malformed_annotation_is_reported(ilsvrc_folder):
    (ilsvrc_folder / "Annotations" / "DET" / "val" / f"{VAL[1]}.xml").write_text(
        "<annotation>\n<object>\n</annotation>"
    )
    with pytest.raises(UserError, match=r"00002\.xml: .*line 3"):
        open_folder(ilsvrc_folder, "val")
    collect_only_problem(ilsvrc_folder, "val", Kind.MALFORMED, 2)


def test_split_without_annotations_is_rejected(ilsvrc_folder):
    (ilsvrc_folder / "ImageSets" / "DET" / "train.txt").write_text(f"{NEGATIVE} 1\n")
    with pytest.raises(UserError, match=r"'train'.*Annotations/DET"):
        open_folder(ilsvrc_folder)
