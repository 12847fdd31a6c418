"""Tests of reading the YOLO format: layouts, lines of label files, and malformed files."""

import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.split_names import split_by_hash
from ssd_jax.errors import UserError

CAT = "0 0.25 0.5 0.5 0.2\n"  # the xyxy box 0 12 20 18 in an image of 40 x 30 pixels
DOG = "1 0.5 0.5 1 1\n"


def write_image(file: Path, size=(40, 30), **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "navy").save(file, "PNG" if not options else "JPEG", **options)


def write_text(file: Path, text: str):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.fixture
def yolo_folder(tmp_path):
    """Create a YOLO folder with three images, and return the path.

    Images a (one cat) and b (no objects) are in images/train; image c (one dog) is in images/val.
    """
    write_text(tmp_path / "data.yaml", "train: images/train\nval: images/val\ntest:\nnames: [cat, dog]\n")
    for split, stem, label in (("train", "a", CAT), ("train", "b", ""), ("val", "c", DOG)):
        write_image(tmp_path / "images" / split / f"{stem}.jpg")
        write_text(tmp_path / "labels" / split / f"{stem}.txt", label)
    return tmp_path


def open_folder(root, split="train", class_names=(), problems=None, **data):
    data = {"val_split": "train"} | data  # so that no image is held out of train
    return open_source(Data(root=str(root), **data), split, class_names, problems)


def list_image_ids(source):
    return [annotation.image_id for annotation in source.annotations()]


def write_labels(root, text, split="train", stem="a"):
    (root / "labels" / split / f"{stem}.txt").write_text(text)


def read_boxes(root, text):
    write_labels(root, text)
    return open_folder(root).annotation(0).boxes_px


def test_annotations_have_boxes_in_pixels(yolo_folder):
    source = open_folder(yolo_folder)
    annotation = source.annotation(0)
    assert source.class_names == ("cat", "dog") and source.category_ids is None and source.notes == ()
    assert list_image_ids(source) == ["a", "b"] and (annotation.width, annotation.height) == (40, 30)
    assert annotation.file == str(yolo_folder / "images" / "train" / "a.jpg")
    np.testing.assert_allclose(annotation.boxes_px, [[0, 12, 20, 18]], atol=1e-5)
    np.testing.assert_array_equal(annotation.labels, [1])
    assert source.image(0).shape == (30, 40, 3)
    assert source.annotation(1).boxes_px.shape == (0, 4)
    np.testing.assert_array_equal(open_folder(yolo_folder, "val").annotation(0).labels, [2])


def test_labels_are_mapped_by_name(yolo_folder):
    source = open_folder(yolo_folder, "val", ("dog", "bird", "cat"))
    np.testing.assert_array_equal(source.annotation(0).labels, [1])
    with pytest.raises(UserError, match=r"a\.txt: line 1 .*'cat'.*dog, bird"):
        open_folder(yolo_folder, "train", ("dog", "bird"))


def test_image_without_a_label_file_is_kept_with_a_note(yolo_folder):
    (yolo_folder / "labels" / "train" / "b.txt").unlink()
    problems = Problems(raise_errors=False)
    source = open_folder(yolo_folder, problems=problems)
    assert list_image_ids(source) == ["a", "b"] and len(source.annotation(1).labels) == 0
    assert [(p.kind, p.file) for p in problems.collected][1:] == [
        (Kind.NO_LABELS, str(yolo_folder / "images" / "train" / "b.jpg"))
    ]
    assert any(note.startswith("1 ") and "label file" in note and "b.jpg" in note for note in source.notes)


@pytest.mark.parametrize(("labelled", "warned"), [(1, True), (17, True), (18, False), (19, False)])
def test_more_than_a_tenth_of_images_without_label_files_gives_a_warning(tmp_path, labelled, warned):
    for k in range(20):
        write_image(tmp_path / "images" / "train" / f"{k}.jpg")
    for k in range(labelled):
        write_text(tmp_path / "labels" / "train" / f"{k}.txt", CAT)
    (tmp_path / "classes.txt").write_text("cat\n")
    problems = Problems(raise_errors=False)
    open_folder(tmp_path, problems=problems)
    warnings = [p for p in problems.collected if p.kind is Kind.FEW_LABELS]
    assert [p.file for p in warnings] == [str(tmp_path / "images" / "train")] * warned
    for problem in warnings:
        assert problem.text.startswith(f"{20 - labelled} of 20 images")
        assert f"images/train/{labelled}.jpg" in problem.text and f"labels/train/{labelled}.txt" in problem.text


def test_split_without_any_label_file_is_rejected(yolo_folder):
    shutil.rmtree(yolo_folder / "labels" / "train")
    with pytest.raises(UserError, match=r"2 images of 'train'.*a\.jpg.*labels"):
        open_folder(yolo_folder)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_relative_to_the_upright_image(yolo_folder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_image(yolo_folder / "images" / "train" / "a.jpg", exif=exif)
    source = open_folder(yolo_folder)
    annotation = source.annotation(0)
    assert (annotation.width, annotation.height) == ((40, 30) if orientation < 5 else (30, 40))
    expected = [0, 12, 20, 18] if orientation < 5 else [0, 16, 15, 24]
    np.testing.assert_allclose(annotation.boxes_px, [expected], atol=1e-5)
    assert source.image(0).shape[:2] == (annotation.height, annotation.width)


# ---- lines ----


def test_polygon_is_replaced_by_the_bounding_box(yolo_folder):
    boxes_px = read_boxes(yolo_folder, "0 0.5 0.1 0.75 0.5 0.25 0.2\n1 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.6\n" + CAT)
    np.testing.assert_allclose(boxes_px, [[10, 3, 30, 15], [4, 6, 12, 18], [0, 12, 20, 18]], atol=1e-5)


def test_keypoints_are_ignored(yolo_folder):
    """Read lines with keypoints of three or two numbers. Keypoints of two numbers look like the rest of a polygon."""
    for shape, rest in (("[2, 3]", " 0.9 0.9 2 0.8 0.8 1"), ("[2, 2]", " 0.9 0.9 0.8 0.8")):
        (yolo_folder / "data.yaml").write_text(f"train: images/train\nkpt_shape: {shape}\nnames: [cat]\n")
        np.testing.assert_allclose(read_boxes(yolo_folder, CAT.strip() + rest), [[0, 12, 20, 18]], atol=1e-5)


@pytest.mark.parametrize(
    ("lines", "boxes"),
    [
        # Two keypoints inside of each box; with and without a visibility.
        (["0 0.5 0.5 0.4 0.4 0.4 0.4 0.6 0.6"] * 2, [[12, 9, 28, 21]] * 2),
        (["0 0.5 0.5 0.4 0.4 0.4 0.4 2 0 0 0"], [[12, 9, 28, 21]]),
        # Two keypoints outside of the box, with which the line would be a polygon that crosses itself.
        (["0 0.5 0.3 0.2 0.4 0.9 0.9 0.1 0.95"], [[16, 3, 24, 15]]),
        # A quadrilateral; an oriented box; polygons with different numbers of points.
        (["0 0.1 0.1 0.5 0.2 0.6 0.8 0.2 0.6"], [[4, 3, 24, 24]]),
        (["0 0.5 0.1 0.75 0.5 0.5 0.9 0.25 0.5"], [[10, 3, 30, 27]]),
        (["0 0.1 0.1 0.5 0.2 0.6 0.8", "0 0.1 0.1 0.5 0.2 0.6 0.8 0.2 0.6"], [[4, 3, 24, 24]] * 2),
    ],
)
def test_keypoints_without_a_yaml_file_are_recognised(yolo_folder, lines, boxes):
    (yolo_folder / "data.yaml").unlink()
    (yolo_folder / "classes.txt").write_text("cat\n")
    write_labels(yolo_folder, "\n".join(lines))
    source = open_folder(yolo_folder)
    np.testing.assert_allclose(source.annotation(0).boxes_px, boxes, atol=1e-4)
    is_pose = boxes[0] in ([12, 9, 28, 21], [16, 3, 24, 15])
    assert any("keypoints are ignored" in note for note in source.notes) == is_pose


def test_class_number_may_be_written_as_a_float(yolo_folder):
    np.testing.assert_allclose(
        read_boxes(yolo_folder, "\n0.000000  0.25\t0.5 5e-1 0.2 \r\n\n"), [[0, 12, 20, 18]], atol=1e-5
    )


@pytest.mark.parametrize("decimals", [4, 5, 6])
def test_edges_at_the_border_are_corrected_for_rounding(yolo_folder, decimals):
    """Rounding moves the edges of these boxes beyond the image: .3333 - .6667 / 2 < 0 and .6667 + .6667 / 2 > 1."""
    third, two = (f"{v:.{decimals}f}" for v in (1 / 3, 2 / 3))
    write_labels(yolo_folder, f"0 {third} {third} {two} {two}\n0 {two} {two} {two} {two}\n")
    source = open_folder(yolo_folder)
    assert source.notes == ()
    boxes_px = source.annotation(0).boxes_px
    np.testing.assert_allclose(boxes_px, [[0, 0, 80 / 3, 20], [40 / 3, 10, 40, 30]], atol=40 * 10**-decimals)
    assert boxes_px.min() == 0 and boxes_px[1, 2] == 40 and boxes_px[1, 3] == 30


def test_out_of_image_empty_and_repeated_boxes_are_reported_in_notes(yolo_folder):
    write_labels(yolo_folder, "0 0.1 0.5 0.4 0.2\n0 0.5 0.5 0 0.2\n" + CAT + CAT)
    source = open_folder(yolo_folder)
    np.testing.assert_allclose(source.annotation(0).boxes_px[0], [-4, 12, 12, 18], atol=1e-5)
    assert len(source.annotation(0).labels) == 3
    beyond, no_area, repeated = source.notes
    assert "beyond" in beyond and "a.txt line 1 (cat -4 12 12 18)" in beyond
    assert "area" in no_area and "a.txt line 2" in no_area
    assert "line 4" in repeated and "line 3" in repeated


def test_values_beyond_the_tolerance_are_rejected(yolo_folder):
    assert len(read_boxes(yolo_folder, "0 1.01 -0.01 0.5 0.5\n")) == 1
    for line in ("0 1.0101 0.5 0.5 0.5", "0 0.5 -0.0101 0.5 0.5"):
        with pytest.raises(UserError, match="line 1 "):
            read_boxes(yolo_folder, line)


@pytest.mark.parametrize(
    ("line", "identifiers"),
    [
        ("0 0.5 0.5 0.1", ["4 numbers"]),
        ("0", ["1 numbers"]),
        ("0 0.5 0.5 0.1 0.1 0.9", ["6 numbers", "confidence"]),
        ("0 .1 .1 .2 .2 .3 .3 .4", ["8 numbers"]),
        ("dog 0.5 0.5 0.1 0.1", ["'dog'"]),
        ("0,0.5,0.5,0.1,0.1", ["'0,0.5,0.5,0.1,0.1'"]),
        ("0.5 0.5 0.5 0.1 0.1", ["starts with 0.5"]),
        ("-1 0.5 0.5 0.1 0.1", ["starts with -1"]),
        ("0 nan 0.5 0.1 0.1", ["NaN", "0 nan 0.5"]),
        ("0 0.5 0.5 inf 0.1", ["infinity", "inf 0.1"]),
        ("nan 0.5 0.5 0.1 0.1", ["NaN", "nan 0.5"]),
        ("0 20 15 10 6", [" 20,", "pixels"]),
        ("0 0.5 0.5 -0.2 0.1", [" -0.2,"]),
        ("0 10 10 20 10 20 20", [" 15,", "pixels"]),
    ],
)
def test_malformed_line_is_reported_and_the_other_lines_are_kept(yolo_folder, line, identifiers):
    write_labels(yolo_folder, f"{CAT}{line}\n1 0.5 0.5 0.5 0.5\n")
    with pytest.raises(UserError) as error:
        open_folder(yolo_folder)
    file = str(yolo_folder / "labels" / "train" / "a.txt")
    assert str(error.value).startswith(f"{file}: line 2 ")
    assert all(text in str(error.value) for text in identifiers)
    problems = Problems(raise_errors=False)
    source = open_folder(yolo_folder, problems=problems)
    (problem,) = problems.collected
    assert problem.kind is Kind.MALFORMED and problem.file == file and problem.text.startswith("line 2 ")
    np.testing.assert_array_equal(source.annotation(0).labels, [1, 2])


def test_class_number_without_a_name_is_reported(yolo_folder):
    write_labels(yolo_folder, CAT + "2 0.5 0.5 0.5 0.5\n")
    with pytest.raises(UserError, match=r"a\.txt: line 2 .*class 2.*data\.yaml.* 0 to 1"):
        open_folder(yolo_folder)
    problems = Problems(raise_errors=False)
    assert len(open_folder(yolo_folder, problems=problems).annotation(0).labels) == 1
    assert [p.kind for p in problems.collected] == [Kind.UNKNOWN_CLASS]


def test_binary_label_file_is_reported(yolo_folder):
    (yolo_folder / "labels" / "train" / "a.txt").write_bytes(b"0 0.5\xff\xfe")
    with pytest.raises(UserError, match=r"a\.txt: .*UTF-8"):
        open_folder(yolo_folder)
    problems = Problems(raise_errors=False)
    assert len(open_folder(yolo_folder, problems=problems)) == 2
    assert [p.kind for p in problems.collected] == [Kind.MALFORMED]


def test_byte_order_mark_is_accepted(yolo_folder):
    (yolo_folder / "labels" / "train" / "a.txt").write_text(CAT, encoding="utf-8-sig")
    assert len(open_folder(yolo_folder).annotation(0).labels) == 1
    (yolo_folder / "data.yaml").write_text("names: [cow, hen]\n", encoding="utf-8-sig")
    assert open_folder(yolo_folder).class_names == ("cow", "hen")


# ---- images ----


def test_unreadable_image_is_reported(yolo_folder):
    (yolo_folder / "images" / "train" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b\.jpg: .*image"):
        open_folder(yolo_folder)
    problems = Problems(raise_errors=False)
    assert list_image_ids(open_folder(yolo_folder, problems=problems)) == ["a"]
    assert [p.kind for p in problems.collected] == [Kind.UNREADABLE]


def test_label_file_without_an_image_is_reported(yolo_folder):
    (yolo_folder / "images" / "train" / "a.jpg").unlink()
    problems = Problems(raise_errors=False)
    assert list_image_ids(open_folder(yolo_folder, problems=problems)) == ["b"]
    file = str(yolo_folder / "labels" / "train" / "a.txt")
    assert [(p.kind, p.file) for p in problems.collected] == [(Kind.NO_IMAGE, file)]


def test_files_that_are_neither_labels_nor_images_are_ignored(yolo_folder):
    (yolo_folder / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    (yolo_folder / "labels" / "train" / "notes.txt").write_text("1 2 3 4 are the numbers of the good ones\n")
    (yolo_folder / "labels" / "train" / "._a.txt").write_bytes(b"\x00\x05\x16\x07")
    (yolo_folder / "images" / "train" / "._a.jpg").write_bytes(b"\x00\x05\x16\x07")
    (yolo_folder / "images" / "train" / "Thumbs.db").write_bytes(b"")
    assert list_image_ids(open_folder(yolo_folder)) == ["a", "b"]


def test_image_ids_contain_folder_and_extension_if_stems_repeat(yolo_folder):
    write_image(yolo_folder / "images" / "train" / "a.png")
    source = open_folder(yolo_folder)
    assert list_image_ids(source) == ["a", "b"], "a.png is taken for a mask, since a.jpg has the same label file"
    assert any("a.png" in note and "a.jpg" in note for note in source.notes)
    (yolo_folder / "images" / "train" / "a.png").unlink()
    write_image(yolo_folder / "images" / "train" / "more" / "a.png")
    assert list_image_ids(open_folder(yolo_folder)) == ["a", "b", "more/a"]
    (yolo_folder / "data.yaml").write_text("train: [images/train/more, images/val, images/train]\nnames: [cat, dog]\n")
    assert list_image_ids(open_folder(yolo_folder)) == ["more/a", "c", "a", "b"]
    write_image(yolo_folder / "images" / "val" / "a.jpg")
    assert list_image_ids(open_folder(yolo_folder))[1:3] == ["images/val/a.jpg", "images/val/c.jpg"]


# ---- YAML files ----


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat, dog]", ("cat", "dog")),
        ("nc: 2\nnames:\n- cat\n- 'black dog'", ("cat", "black dog")),
        ("names:\n  1: dog\n  0: cat  # the first", ("cat", "dog")),
        ("names: {'0': cat, 1: dog}", ("cat", "dog")),
        ("names: [no, 1.10]", ("no", "1.10")),
        ("names:\n  0: cat\n  1: dog\n  7: cow", ("cat", "dog", "cow")),
    ],
)
def test_yaml_names_are_read_as_written(yolo_folder, text, names):
    (yolo_folder / "data.yaml").write_text(f"train: images/train\nval: images/val\n{text}\n")
    source = open_folder(yolo_folder, "val")
    assert source.class_names == names
    np.testing.assert_array_equal(source.annotation(0).labels, [2])


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("names: cat", "'names'"),
        ("names: []", "'names'"),
        ("names: [cat, '']", "'names'"),
        ("names: {zero: cat}", "'names'"),
        ("names: [cat, cat]", "'cat'"),
        ("nc: 3\nnames: [cat, dog]", "'nc' is 3, but there are 2 names"),
        ("names: [cat, dog", "YAML: while parsing a flow sequence"),
        ("names: [cat]\n- dog", "YAML"),
    ],
)
def test_malformed_yaml_is_reported(yolo_folder, text, identifier):
    (yolo_folder / "data.yaml").write_text(f"train: images/train\n{text}\n")
    assert find_format(Data(root=str(yolo_folder))) == "yolo"
    with pytest.raises(UserError) as error:
        open_folder(yolo_folder)
    assert str(error.value).startswith(f"{yolo_folder / 'data.yaml'}: ") and identifier in str(error.value)


def test_yaml_without_names_is_rejected_as_root(yolo_folder):
    (yolo_folder / "other.yaml").write_text("a: b\n")
    with pytest.raises(UserError, match=r"other\.yaml: .*'names'"):
        open_source(Data(root=str(yolo_folder / "other.yaml")), "train")


def test_yaml_splits_can_be_opened_by_alias_and_joined(yolo_folder):
    data = Data(root=str(yolo_folder))
    assert find_format(data) == "yolo" and split_names(data) == ("train", "val")
    for split in ("valid", "validation"):
        assert list_image_ids(open_folder(yolo_folder, split)) == ["c"]
    with pytest.raises(UserError, match=r"'test'.*: train, val"):
        open_folder(yolo_folder, "test")
    joined = open_source(data, "val+train[:1]")
    assert list_image_ids(joined) == ["c", "a"]


def test_root_may_be_a_yaml_file(yolo_folder):
    (yolo_folder / "other.yaml").write_text("train: images/val\nval: images/train\nnames: [ant, bee]\n")
    with pytest.raises(UserError, match=r"data\.root: .*a\.txt"):
        open_source(Data(root=str(yolo_folder / "labels" / "train" / "a.txt")), "train")
    data = Data(root=str(yolo_folder / "other.yaml"))
    source = open_source(data, "train")
    assert find_format(data) == "yolo" and list_image_ids(source) == ["c"] and source.class_names == ("ant", "bee")
    assert open_folder(yolo_folder).class_names == ("cat", "dog"), "data.yaml is preferred"
    (yolo_folder / "data.yaml").rename(yolo_folder / "third.yml")
    with pytest.raises(UserError, match=r"other\.yaml, third\.yml.*--data\.root"):
        open_folder(yolo_folder)


@pytest.mark.parametrize(
    "text",
    [
        "path: .\ntrain: images/train",
        "path: ../datasets/pets\ntrain: images/train",  # this path does not exist; train is relative to the YAML file
        "path: {root}\ntrain: images/train",
        "train: {root}/images/train",
        "train: ./images/train/",
        "path: images\ntrain: train",
        "train: ../images/train",  # as Roboflow writes it
        "train: '..\\images\\train'",
        "train: [images/train]",
        "train: train.txt",
        "path: lists\ntrain: part.txt",
        "train: [lists/part.txt, images/train]",
        "train: [images/train/a.jpg, images/train/b.jpg]",
        "path: /content/drive/pets\ntrain: images/train",
        "train: C:\\pets\\Images\\train",
    ],
)
def test_yaml_paths_are_resolved(yolo_folder, text):
    (yolo_folder / "train.txt").write_text("./images/train/a.jpg\n\nimages\\train\\b.jpg\n")
    write_text(yolo_folder / "lists" / "part.txt", f"{yolo_folder}/images/train/a.jpg\n../images/train/b.jpg\n")
    (yolo_folder / "data.yaml").write_text(text.format(root=yolo_folder) + "\nnames: [cat, dog]\n")
    source = open_folder(yolo_folder)
    assert sorted(Path(source.annotation(i).file).name for i in range(len(source))) == ["a.jpg", "b.jpg"]
    assert sum(len(source.annotation(i).labels) for i in range(len(source))) == 1


def test_missing_folder_of_a_yaml_is_reported(yolo_folder):
    (yolo_folder / "data.yaml").write_text(
        "train: images/train\nval: ../valid/images\ntest: images.zip\nnames: [cat, dog]\n"
    )
    (yolo_folder / "images.zip").write_bytes(b"")
    assert split_names(Data(root=str(yolo_folder))) == ("train", "test", "val")
    with pytest.raises(UserError, match=r"'test' .*images\.zip"):
        open_folder(yolo_folder, "test")
    parts = [open_source(Data(root=str(yolo_folder)), split) for split in ("train", "val")]
    assert sorted(map(len, parts)) == [1, 1], "val is held out of train"
    for part in parts:
        assert any("'val'" in note and "valid/images" in note for note in part.notes)
    (yolo_folder / "data.yaml").write_text("train: train/images\nval: images/val\nnames: [cat, dog]\n")
    with pytest.raises(UserError, match=r"'train' .*train/images"):
        open_folder(yolo_folder)


def test_folders_are_used_if_those_of_the_yaml_do_not_exist(yolo_folder):
    (yolo_folder / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n")
    parts = [open_source(Data(root=str(yolo_folder)), split) for split in ("train", "val")]
    assert list(map(list_image_ids, parts)) == [["a", "b"], ["c"]]
    assert all(any("valid/images" in note for note in part.notes) for part in parts)


def test_missing_image_of_a_list_is_reported(yolo_folder):
    (yolo_folder / "data.yaml").write_text("train: train.txt\nnames: [cat, dog]\n")
    (yolo_folder / "train.txt").write_text("images/train/a.jpg\n\nimages/train/z.jpg\nimages/train/a.jpg\n")
    with pytest.raises(UserError, match=r"train\.txt line 3: .*'images/train/z\.jpg'"):
        open_folder(yolo_folder)
    problems = Problems(raise_errors=False)
    assert list_image_ids(open_folder(yolo_folder, problems=problems)) == ["images/train/a"]
    assert [p.kind for p in problems.collected] == [Kind.MISSING, Kind.IN_NO_SPLIT]
    (yolo_folder / "train.txt").write_text("/content/pets/images/train/b.jpg\nimages/train/a.jpg\n")
    assert list_image_ids(open_folder(yolo_folder)) == ["images/train/b", "images/train/a"]
    (yolo_folder / "train.txt").write_text("\n")
    for entry in ("train.txt", "[]"):
        (yolo_folder / "data.yaml").write_text(f"train: {entry}\nnames: [cat, dog]\n")
        with pytest.raises(UserError, match="'train'"):
            open_folder(yolo_folder)


def test_yaml_without_splits_uses_the_folders_as_splits(yolo_folder):
    (yolo_folder / "data.yaml").write_text("names: [cat, dog]\n")
    assert split_names(Data(root=str(yolo_folder))) == ("train", "val")
    assert list_image_ids(open_folder(yolo_folder)) == ["a", "b"]


# ---- without a YAML file ----


def write_layout(root, path_templates):
    """Write the images a and b (train) and c (valid), and the label files of a and c.

    ``path_templates`` contains templates for the paths of images and of label files, with ``{split}`` and ``{stem}``.
    """
    for split, stem, label in (("train", "a", CAT), ("train", "b", None), ("valid", "c", DOG)):
        image, text = (root / path.format(split=split, stem=stem) for path in path_templates)
        write_image(image)
        if label is not None:
            write_text(text, label)


@pytest.mark.parametrize(
    "path_templates",
    [
        ("images/{split}/{stem}.jpg", "labels/{split}/{stem}.txt"),
        ("{split}/images/{stem}.PNG", "{split}/labels/{stem}.txt"),
        ("{split}/{stem}.JPEG", "{split}/{stem}.txt"),
        ("images/{split}/{stem}.jpg", "images/{split}/{stem}.txt"),
        ("{split}/images/{stem}.jpg", "{split}/images/{stem}.txt"),
    ],
)
@pytest.mark.parametrize("names", ["classes.txt", "obj.names", "names.txt"])
def test_folders_are_read_as_splits(tmp_path, path_templates, names):
    write_layout(tmp_path, path_templates)
    (tmp_path / names).write_text("cat\ndog\n\n")
    data = Data(root=str(tmp_path))
    assert find_format(data) == "yolo" and split_names(data) == ("train", "valid")
    train, val = (open_source(data, split) for split in ("train", "val"))
    assert list_image_ids(train) == ["a", "b"] and list_image_ids(val) == ["c"]
    assert train.class_names == val.class_names == ("cat", "dog")
    np.testing.assert_array_equal(val.annotation(0).labels, [2])


def test_darknet_lists_are_read_as_splits(tmp_path):
    """Read lists as in CVAT's exports, where paths start with a folder that does not exist."""
    write_layout(tmp_path, ("obj_train_data/{stem}.jpg", "obj_train_data/{stem}.txt"))
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/b.jpg\ndata/obj_train_data/a.jpg\n")
    (tmp_path / "valid.txt").write_text("data/obj_train_data/c.jpg\n")
    data = Data(root=str(tmp_path))
    assert find_format(data) == "yolo" and split_names(data) == ("train", "valid")
    assert list_image_ids(open_source(data, "train")) == ["obj_train_data/b", "obj_train_data/a"]


def test_class_lists_in_label_folders_must_be_equal_in_all_splits(tmp_path):
    write_layout(tmp_path, ("{split}/{stem}.jpg", "{split}/{stem}.txt"))
    for split in ("train", "valid"):
        (tmp_path / split / "_darknet.labels").write_text("cat\ndog\n")
    assert open_folder(tmp_path).class_names == ("cat", "dog")
    (tmp_path / "valid" / "_darknet.labels").write_text("dog\ncat\n")
    with pytest.raises(UserError, match=r"train.*_darknet\.labels and .*valid.*_darknet\.labels"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{}.jpg", "labels/{}.txt"),
        ("images/cam/{}.jpg", "labels/cam/{}.txt"),
        ("JPEGImages/../images/{}.jpg", "images/{}.txt"),
        ("{}.jpg", "{}.txt"),
    ],
)
def test_folder_without_splits_is_split_by_hash(tmp_path, image, label):
    for folder in ("JPEGImages", "runs"):
        (tmp_path / folder).mkdir()
    for k in range(12):
        write_image(tmp_path / image.format(f"i{k}"))
        write_text(tmp_path / label.format(f"i{k}"), CAT)
    (tmp_path / "classes.txt").write_text("cat\n")
    write_image(tmp_path / "runs" / "train_batch.jpg")
    data = Data(root=str(tmp_path), val_fraction=0.3)
    assert find_format(data) == "yolo" and split_names(data) == ("train", "val")
    parts = [list_image_ids(open_source(data, split)) for split in ("train", "val")]
    prefix = "cam/" if "cam" in image else ""
    every = sorted(f"{prefix}i{k}" for k in range(12))
    assert sorted(parts[0] + parts[1]) == every
    assert parts[1] == [i for i, in_val in zip(every, split_by_hash(every, 0.3), strict=True) if in_val]
    with pytest.raises(UserError, match=r"'test'.*: train, val"):
        open_folder(tmp_path, "test")


def test_classes_txt_is_required_and_validated(tmp_path):
    for k in range(2):
        write_image(tmp_path / "images" / f"i{k}.jpg")
        write_text(tmp_path / "labels" / f"i{k}.txt", CAT)
    with pytest.raises(UserError, match=r"classes\.txt"):
        open_folder(tmp_path)
    (tmp_path / "labels" / "classes.txt").write_text("cat\r\ndog\r\n")
    assert open_folder(tmp_path).class_names == ("cat", "dog")
    (tmp_path / "labels" / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"classes\.txt: line 2 "):
        open_folder(tmp_path)
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(UserError, match=r"classes\.txt: .*'cat'"):
        open_folder(tmp_path)


def test_split_by_hash_may_have_no_label_files(tmp_path):
    """Check that val can be opened if the only label file is that of a train image."""
    for k in range(8):
        write_image(tmp_path / f"i{k}.jpg")
    in_val = split_by_hash([f"i{k}" for k in range(8)], 0.1)
    write_text(tmp_path / f"i{in_val.index(False)}.txt", CAT)
    (tmp_path / "classes.txt").write_text("cat\n")
    assert len(open_folder(tmp_path, "val")) == sum(in_val)


def test_folder_of_images_without_labels_is_not_recognised(tmp_path):
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "README.txt").write_text("photos of five cats\n")
    (tmp_path / "config.yaml").write_text("train: x\n")
    with pytest.raises(UserError, match=r"data\.root: (.|\n)*yolo"):
        find_format(Data(root=str(tmp_path)))


def test_data_set_in_a_subfolder_is_read(yolo_folder, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    shutil.copytree(yolo_folder, outer / "inner")
    assert list_image_ids(open_folder(outer)) == ["a", "b"]
    shutil.copytree(yolo_folder, outer / "other")
    with pytest.raises(UserError, match=r"inner/data\.yaml, other/data\.yaml"):
        open_folder(outer)


def test_find_format_suggests_the_parent_of_a_folder_of_images(yolo_folder):
    with pytest.raises(UserError, match=f"'{yolo_folder}'"):
        find_format(Data(root=str(yolo_folder / "images" / "train")))


# ---- real images ----


def test_annotations_of_bccd_are_equal_in_yolo_and_voc(bccd, tmp_path):
    """Compare BCCD's XML files with the same boxes in YOLO's format, with six decimals, as LabelImg writes them."""
    numbers = {"WBC": 0, "RBC": 1, "Platelets": 2}
    (tmp_path / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [WBC, RBC, Platelets]\n")
    for split, folder in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            (tmp_path / folder / kind).mkdir(parents=True)
        for stem in (bccd / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            shutil.copy(bccd / "JPEGImages" / f"{stem}.jpg", tmp_path / folder / "images")
            lines = []
            for node in ElementTree.parse(bccd / "Annotations" / f"{stem}.xml").getroot().iter("object"):
                left, top, right, bottom = (
                    int(node.find("bndbox").find(e).text) for e in ("xmin", "ymin", "xmax", "ymax")
                )
                normalised = (
                    (left + right) / 2 / 640,
                    (top + bottom) / 2 / 480,
                    (right - left) / 640,
                    (bottom - top) / 480,
                )
                lines.append(" ".join([str(numbers[node.find("name").text]), *(f"{v:.6f}" for v in normalised)]))
            (tmp_path / folder / "labels" / f"{stem}.txt").write_text("\n".join(lines))
    for split in ("train", "val"):
        voc = open_source(Data(root=str(bccd)), split)
        yolo = open_source(Data(root=str(tmp_path)), split, voc.class_names)
        assert len(yolo) == len(voc) and yolo.class_names == voc.class_names
        index_by_id = {voc.annotation(i).image_id: i for i in range(len(voc))}
        assert sum("no area" in note for note in yolo.notes) == sum("no area" in note for note in voc.notes)
        assert not any("beyond" in note for note in yolo.notes)
        for i in range(len(yolo)):
            a, b = yolo.annotation(i), voc.annotation(index_by_id[yolo.annotation(i).image_id])
            assert (a.width, a.height) == (b.width, b.height)
            np.testing.assert_array_equal(a.labels, b.labels)
            # Rounding changes centre and width by up to 0.5e-6, so an edge is wrong by up to 0.75e-6.
            np.testing.assert_allclose(a.boxes_px, b.boxes_px, atol=0.75e-6 * 640 + 1e-4)
        np.testing.assert_array_equal(yolo.image(0), voc.image(index_by_id[yolo.annotation(0).image_id]))


# ---- names of classes ----


@pytest.mark.parametrize("file", ["classes.txt", "b/classes.txt", "obj.names"])
def test_yaml_file_and_list_that_name_different_classes_are_rejected(yolo_folder, file):
    write_text(yolo_folder / file, "dog\ncat\n")
    with pytest.raises(UserError, match=rf"data\.yaml and \S*{file} name different classes"):
        open_folder(yolo_folder)


@pytest.mark.parametrize("names", ["cat\ndog\n", "cat\n", "cat\ndog\nbird\n", "0 cat\n1 dog\n", "0: cat\n1: dog\n"])
def test_yaml_file_and_list_that_agree_are_accepted(yolo_folder, names):
    write_text(yolo_folder / "classes.txt", names)
    assert open_folder(yolo_folder).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("0 cat\n1 dog\n", ("cat", "dog")),
        ("0 cat\n2 dog\n", ("0 cat", "2 dog")),  # not the class numbers
        ("7 up\ncola\n", ("7 up", "cola")),
    ],
)
def test_class_numbers_before_the_names_in_a_list_are_removed(yolo_folder, names, expected):
    (yolo_folder / "data.yaml").unlink()
    write_text(yolo_folder / "classes.txt", names)
    assert open_folder(yolo_folder).class_names == expected


@pytest.mark.parametrize("names", ["cta\ndog\n", "bus\ntram\n"])
def test_list_with_other_names_than_the_yaml_file_is_a_warning(yolo_folder, names):
    write_text(yolo_folder / "classes.txt", names)
    problems = Problems()
    assert open_folder(yolo_folder, problems=problems).class_names == ("cat", "dog")
    found = [p.text for p in problems.collected if p.kind is Kind.SIMILAR_NAMES]
    assert found[0] == f"'{names.split()[0]}' is 'cat' in data.yaml, which is used"
    assert len(found) == len({*names.split()} - {"dog"})


def test_comment_in_a_list_of_names_is_rejected(yolo_folder):
    (yolo_folder / "data.yaml").unlink()
    write_text(yolo_folder / "classes.txt", "# my classes\ncat\ndog\n")
    with pytest.raises(UserError, match=r"classes\.txt: line 1 is a comment"):
        open_folder(yolo_folder)


def test_second_val_folder_is_a_warning(yolo_folder):
    write_image(yolo_folder / "images" / "valid" / "d.jpg")
    write_text(yolo_folder / "labels" / "valid" / "d.txt", DOG)
    (yolo_folder / "data.yaml").write_text("names: [cat, dog]\n")
    problems = Problems()
    open_folder(yolo_folder, problems=problems, val_split="val")
    assert [p.text.split("'")[1] for p in problems.collected if p.kind is Kind.UNUSED_SPLIT] == ["valid"]


def test_boxes_with_keypoints_outside_of_them_are_recognised_by_the_visibilities(yolo_folder):
    points = " 0.9 0.9 2 0.95 0.1 0 0.1 0.1 1"
    np.testing.assert_allclose(read_boxes(yolo_folder, CAT.strip() + points + "\n"), [[0, 12, 20, 18]], atol=1e-4)


def test_keypoints_of_some_lines_are_named_in_the_error(yolo_folder):
    with pytest.raises(
        UserError, match=r"line 2 has 8 numbers, like a box with 1 keypoints. Write kpt_shape: \[1, 3\]"
    ):
        read_boxes(yolo_folder, CAT + CAT.strip() + " 0.9 0.9 2\n")
