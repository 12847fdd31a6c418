"""YOLO's folders: each layout, what its lines mean, and every way in which a file can be wrong."""

import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.formats.yolo import open_yolo
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import hash_split
from ssd_jax.errors import UserError

CAT = "0 0.25 0.5 0.5 0.2\n"  # of 40 x 30 pixels: 0 12 20 18
DOG = "1 0.5 0.5 1 1\n"


def write_image(file: Path, size=(40, 30), **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "navy").save(file, "PNG" if not options else "JPEG", **options)


def write_text(file: Path, text: str):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def yolo(tmp_path):
    """images/train holds a (a cat) and b (nothing), images/val c (a dog)."""
    write_text(tmp_path / "data.yaml", "train: images/train\nval: images/val\ntest:\nnames: [cat, dog]\n")
    for split, stem, label in (("train", "a", CAT), ("train", "b", ""), ("val", "c", DOG)):
        write_image(tmp_path / "images" / split / f"{stem}.jpg")
        write_text(tmp_path / "labels" / split / f"{stem}.txt", label)
    return tmp_path


def opened(root, split="train", class_names=(), problems=None, **data):
    return open_yolo(Data(root=str(root), **data), split, class_names, problems)


def ids(source):
    return [annotation.image_id for annotation in source.annotations()]


def relabel(root, text, split="train", stem="a"):
    (root / "labels" / split / f"{stem}.txt").write_text(text)


def boxes(root, text):
    relabel(root, text)
    return opened(root).annotation(0).boxes_px


def test_annotations_are_pixels_and_names(yolo):
    source = opened(yolo)
    found = source.annotation(0)
    assert source.class_names == ("cat", "dog") and source.category_ids is None and source.notes == ()
    assert ids(source) == ["a", "b"] and (found.width, found.height) == (40, 30)
    assert found.file == str(yolo / "images" / "train" / "a.jpg")
    np.testing.assert_allclose(found.boxes_px, [[0, 12, 20, 18]], atol=1e-5)
    np.testing.assert_array_equal(found.labels, [1])
    assert source.image(0).shape == (30, 40, 3)
    assert source.annotation(1).boxes_px.shape == (0, 4)
    np.testing.assert_array_equal(opened(yolo, "val").annotation(0).labels, [2])


def test_labels_follow_names_not_numbers(yolo):
    source = opened(yolo, "val", ("dog", "bird", "cat"))
    np.testing.assert_array_equal(source.annotation(0).labels, [1])
    with pytest.raises(UserError, match=r"a\.txt: line 1 is of class 'cat', which is not among the classes dog, bird"):
        opened(yolo, "train", ("dog", "bird"))


def test_image_without_a_label_file_is_background_and_noted(yolo):
    (yolo / "labels" / "train" / "b.txt").unlink()
    problems = Problems(raise_errors=False)
    source = opened(yolo, problems=problems)
    assert ids(source) == ["a", "b"] and len(source.annotation(1).labels) == 0
    assert [(p.kind, p.file) for p in problems.collected] == [
        (Kind.NO_LABELS, str(yolo / "images" / "train" / "b.jpg"))
    ]
    (note,) = source.notes
    assert note.startswith("1 images have no label file and count as images without objects") and "b.jpg" in note


@pytest.mark.parametrize(("labelled", "told"), [(1, True), (2, True), (3, False), (5, False)])
def test_label_files_for_less_than_half_of_the_images_are_warned_of(tmp_path, labelled, told):
    for k in range(6):
        write_image(tmp_path / "images" / "train" / f"{k}.jpg")
    for k in range(labelled):
        write_text(tmp_path / "labels" / "train" / f"{k}.txt", CAT)
    (tmp_path / "classes.txt").write_text("cat\n")
    problems = Problems(raise_errors=False)
    opened(tmp_path, problems=problems)
    expected = (
        f"{6 - labelled} of 6 images have no label file. That of {tmp_path}/images/train/{labelled}.jpg would be "
    )
    found = [p for p in problems.collected if p.kind is Kind.FEW_LABELS]
    assert [p.file for p in found] == [str(tmp_path / "images" / "train")] * told
    assert all(p.text.startswith(expected) and f"labels/train/{labelled}.txt" in p.text for p in found)


def test_split_without_any_label_file_is_an_error(yolo):
    shutil.move(yolo / "labels", yolo / "annotations")
    with pytest.raises(UserError, match=r"none of the 2 images of 'train' has a label file.*a\.jpg would be .*labels"):
        opened(yolo)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_shares_of_the_upright_image(yolo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_image(yolo / "images" / "train" / "a.jpg", exif=exif)
    source = opened(yolo)
    found = source.annotation(0)
    assert (found.width, found.height) == ((40, 30) if orientation < 5 else (30, 40))
    expected = [0, 12, 20, 18] if orientation < 5 else [0, 16, 15, 24]
    np.testing.assert_allclose(found.boxes_px, [expected], atol=1e-5)
    assert source.image(0).shape[:2] == (found.height, found.width)


# ---- lines ----


def test_polygon_becomes_the_box_around_it(yolo):
    found = boxes(yolo, "0 0.5 0.1 0.75 0.5 0.25 0.2\n1 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.6\n" + CAT)
    np.testing.assert_allclose(found, [[10, 3, 30, 15], [4, 6, 12, 18], [0, 12, 20, 18]], atol=1e-5)


def test_keypoints_after_a_box_are_left_out(yolo):
    """Two points of three numbers, or of two: the latter have as many columns as a polygon."""
    for shape, rest in (("[2, 3]", " 0.9 0.9 2 0.8 0.8 1"), ("[2, 2]", " 0.9 0.9 0.8 0.8")):
        (yolo / "data.yaml").write_text(f"train: images/train\nkpt_shape: {shape}\nnames: [cat]\n")
        np.testing.assert_allclose(boxes(yolo, CAT.strip() + rest), [[0, 12, 20, 18]], atol=1e-5)


def test_class_number_with_a_fraction_of_nothing(yolo):
    np.testing.assert_allclose(boxes(yolo, "\n0.000000  0.25\t0.5 5e-1 0.2 \r\n\n"), [[0, 12, 20, 18]], atol=1e-5)


@pytest.mark.parametrize("decimals", [4, 5, 6])
def test_rounding_at_the_border_is_no_problem(yolo, decimals):
    """Two thirds of the sides, from either corner: .3333 - .6667 / 2 is below 0, .6667 + .6667 / 2 above 1."""
    third, two = (f"{v:.{decimals}f}" for v in (1 / 3, 2 / 3))
    relabel(yolo, f"0 {third} {third} {two} {two}\n0 {two} {two} {two} {two}\n")
    source = opened(yolo)
    assert source.notes == ()
    found = source.annotation(0).boxes_px
    np.testing.assert_allclose(found, [[0, 0, 80 / 3, 20], [40 / 3, 10, 40, 30]], atol=40 * 10**-decimals)
    assert found.min() == 0 and found[1, 2] == 40 and found[1, 3] == 30


def test_box_beyond_the_image_and_box_without_area_are_noted(yolo):
    relabel(yolo, "0 0.1 0.5 0.4 0.2\n0 0.5 0.5 0 0.2\n" + CAT + CAT)
    source = opened(yolo)
    np.testing.assert_allclose(source.annotation(0).boxes_px[0], [-4, 12, 12, 18], atol=1e-5)
    assert len(source.annotation(0).labels) == 3
    beyond, no_area, twice = source.notes
    assert "reach beyond" in beyond and "a.txt line 1 (cat -4 12 12 18)" in beyond
    assert "no area" in no_area and "a.txt line 2" in no_area
    assert "count twice" in twice and "line 4" in twice and "as line 3" in twice


def test_values_at_the_tolerance(yolo):
    assert len(boxes(yolo, "0 1.01 -0.01 0.5 0.5\n")) == 1
    for line in ("0 1.0101 0.5 0.5 0.5", "0 0.5 -0.0101 0.5 0.5"):
        with pytest.raises(UserError, match="between 0 and 1"):
            boxes(yolo, line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.1", "line 2 has 4 numbers. A box has 5"),
        ("0", "line 2 has 1 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", "line 2 has 6 numbers, which is what detectors write"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "line 2 has 8 numbers"),
        ("dog 0.5 0.5 0.1 0.1", "line 2 holds something that is no number (could not convert string to float: 'dog')"),
        ("0,0.5,0.5,0.1,0.1", "line 2 holds something that is no number"),
        ("0.5 0.5 0.5 0.1 0.1", "line 2 starts with 0.5, but a class's number is 0 or another whole one"),
        ("-1 0.5 0.5 0.1 0.1", "line 2 starts with -1"),
        ("0 nan 0.5 0.1 0.1", "line 2 holds NaN or infinity"),
        ("0 0.5 0.5 inf 0.1", "line 2 holds NaN or infinity"),
        ("nan 0.5 0.5 0.1 0.1", "line 2 holds NaN or infinity"),
        ("0 20 15 10 6", "line 2 holds 20, but shares of the image lie between 0 and 1. These may be pixels: divide"),
        ("0 0.5 0.5 -0.2 0.1", "line 2 holds -0.2, but shares of the image lie between 0 and 1. Correct it"),
        ("0 10 10 20 10 20 20", "line 2 holds 15, but shares"),
    ],
)
def test_malformed_line_is_named_and_the_others_are_kept(yolo, line, words):
    relabel(yolo, f"{CAT}{line}\n1 0.5 0.5 0.5 0.5\n")
    with pytest.raises(UserError) as error:
        opened(yolo)
    file = str(yolo / "labels" / "train" / "a.txt")
    assert str(error.value).startswith(f"{file}: {words}")
    problems = Problems(raise_errors=False)
    source = opened(yolo, problems=problems)
    (problem,) = problems.collected
    assert problem.kind is Kind.MALFORMED and problem.file == file and problem.text.startswith(words)
    np.testing.assert_array_equal(source.annotation(0).labels, [1, 2])


def test_class_number_that_nothing_names(yolo):
    relabel(yolo, CAT + "2 0.5 0.5 0.5 0.5\n")
    with pytest.raises(UserError, match=r"a\.txt: line 2 is of class 2, which .*data\.yaml does not name.* 0 to 1"):
        opened(yolo)
    problems = Problems(raise_errors=False)
    assert len(opened(yolo, problems=problems).annotation(0).labels) == 1
    assert [p.kind for p in problems.collected] == [Kind.UNKNOWN_CLASS]


def test_label_file_that_is_no_text(yolo):
    (yolo / "labels" / "train" / "a.txt").write_bytes(b"0 0.5\xff\xfe")
    with pytest.raises(UserError, match=r"a\.txt: not text in UTF-8"):
        opened(yolo)
    problems = Problems(raise_errors=False)
    assert len(opened(yolo, problems=problems)) == 2
    assert [p.kind for p in problems.collected] == [Kind.MALFORMED]


def test_byte_order_mark(yolo):
    (yolo / "labels" / "train" / "a.txt").write_text(CAT, encoding="utf-8-sig")
    assert len(opened(yolo).annotation(0).labels) == 1
    (yolo / "data.yaml").write_text("names: [cow, hen]\n", encoding="utf-8-sig")
    assert opened(yolo).class_names == ("cow", "hen")


# ---- images ----


def test_image_that_cannot_be_read(yolo):
    (yolo / "images" / "train" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b\.jpg: can't be read as an image"):
        opened(yolo)
    problems = Problems(raise_errors=False)
    assert ids(opened(yolo, problems=problems)) == ["a"]
    assert [p.kind for p in problems.collected] == [Kind.UNREADABLE]


def test_label_file_without_an_image(yolo):
    (yolo / "images" / "train" / "a.jpg").unlink()
    with pytest.raises(
        UserError, match=r"labels.train.a\.txt: there is no image for it: no .*images.train.a with \.jpg"
    ):
        opened(yolo)
    problems = Problems(raise_errors=False)
    assert ids(opened(yolo, problems=problems)) == ["b"]
    assert [p.kind for p in problems.collected] == [Kind.MISSING]


def test_other_files_beside_labels_and_images_are_passed_over(yolo):
    (yolo / "labels" / "train" / "classes.txt").write_text("cat\ndog\n")
    (yolo / "labels" / "train" / "notes.txt").write_text("1 2 3 4 are the numbers of the good ones\n")
    (yolo / "labels" / "train" / "._a.txt").write_bytes(b"\x00\x05\x16\x07")
    (yolo / "images" / "train" / "._a.jpg").write_bytes(b"\x00\x05\x16\x07")
    (yolo / "images" / "train" / "Thumbs.db").write_bytes(b"")
    assert ids(opened(yolo)) == ["a", "b"]


def test_ids_are_unique_where_names_are_not(yolo):
    write_image(yolo / "images" / "train" / "a.png")
    assert ids(opened(yolo)) == ["images/train/a.jpg", "images/train/a.png", "images/train/b.jpg"]
    (yolo / "images" / "train" / "a.png").unlink()
    write_image(yolo / "images" / "train" / "more" / "a.png")
    assert ids(opened(yolo)) == ["a", "b", "more/a"]
    (yolo / "data.yaml").write_text("train: [images/train/more, images/val, images/train]\nnames: [cat, dog]\n")
    assert ids(opened(yolo)) == ["more/a", "c", "a", "b"]
    write_image(yolo / "images" / "val" / "a.jpg")
    assert ids(opened(yolo))[1:3] == ["images/val/a.jpg", "images/val/c.jpg"]


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
def test_names_as_they_are_written(yolo, text, names):
    (yolo / "data.yaml").write_text(f"train: images/train\nval: images/val\n{text}\n")
    source = opened(yolo, "val")
    assert source.class_names == names
    np.testing.assert_array_equal(source.annotation(0).labels, [2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: cat", "'names' is neither a list of names nor one name for each number"),
        ("names: []", "'names' is neither"),
        ("names: [cat, '']", "'names' is neither"),
        ("names: {zero: cat}", "'names' is neither"),
        ("names: [cat, cat]", "two classes are called 'cat'"),
        ("nc: 3\nnames: [cat, dog]", "'nc' is 3, but there are 2 names"),
        ("names: [cat, dog", "not YAML: while parsing a flow sequence"),
        ("names: [cat]\n- dog", "not YAML"),
    ],
)
def test_yaml_that_is_wrong(yolo, text, words):
    (yolo / "data.yaml").write_text(f"train: images/train\n{text}\n")
    assert find_format(Data(root=str(yolo))) == "yolo"
    with pytest.raises(UserError) as error:
        opened(yolo)
    assert str(error.value).startswith(f"{yolo / 'data.yaml'}: {words}")


def test_yaml_without_names_given_as_root(yolo):
    (yolo / "other.yaml").write_text("a: b\n")
    with pytest.raises(UserError, match=r"other\.yaml: it has no key 'names'"):
        open_source(Data(root=str(yolo / "other.yaml")), "train")


def test_splits_of_a_yaml(yolo):
    data = Data(root=str(yolo))
    assert find_format(data) == "yolo" and split_names(data) == ("train", "val")
    for split in ("valid", "validation"):
        assert ids(opened(yolo, split)) == ["c"]
    with pytest.raises(UserError, match=r"no split 'test'\. Its splits: train, val"):
        opened(yolo, "test")
    joined = open_source(data, "val+train[:1]")
    assert ids(joined) == ["c", "a"]


def test_root_may_be_the_yaml(yolo):
    (yolo / "other.yaml").write_text("train: images/val\nval: images/train\nnames: [ant, bee]\n")
    with pytest.raises(UserError) as none:
        open_source(Data(root=str(yolo / "labels" / "train" / "a.txt")), "train")
    assert "neither a VOC folder" in str(none.value)
    data = Data(root=str(yolo / "other.yaml"))
    source = open_source(data, "train")
    assert find_format(data) == "yolo" and ids(source) == ["c"] and source.class_names == ("ant", "bee")
    assert opened(yolo).class_names == ("cat", "dog"), "data.yaml comes first"
    (yolo / "data.yaml").rename(yolo / "third.yml")
    with pytest.raises(UserError, match=r"any of other\.yaml, third\.yml\. Name one, with --data\.root FILE"):
        opened(yolo)


@pytest.mark.parametrize(
    "text",
    [
        "path: .\ntrain: images/train",
        "path: ../datasets/pets\ntrain: images/train",  # there is no such folder: beside the file
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
    ],
)
def test_where_a_yaml_says_that_images_are(yolo, text):
    (yolo / "train.txt").write_text("./images/train/a.jpg\n\nimages\\train\\b.jpg\n")
    write_text(yolo / "lists" / "part.txt", f"{yolo}/images/train/a.jpg\n../images/train/b.jpg\n")
    (yolo / "data.yaml").write_text(text.format(root=yolo) + "\nnames: [cat, dog]\n")
    source = opened(yolo)
    assert sorted(Path(source.annotation(i).file).name for i in range(len(source))) == ["a.jpg", "b.jpg"]
    assert sum(len(source.annotation(i).labels) for i in range(len(source))) == 1


def test_folder_that_is_not_there(yolo):
    (yolo / "data.yaml").write_text("train: images/train\nval: ../valid/images\ntest: images.zip\nnames: [cat, dog]\n")
    (yolo / "images.zip").write_bytes(b"")
    assert split_names(Data(root=str(yolo))) == ("train", "test")
    for split, entry in (("val", "valid/images"), ("test", r"images\.zip")):
        with pytest.raises(UserError, match=f"'{split}' of the YAML file is neither a folder nor .*{entry}"):
            opened(yolo, split)


def test_list_names_an_image_that_is_not_there(yolo):
    (yolo / "data.yaml").write_text("train: train.txt\nnames: [cat, dog]\n")
    (yolo / "train.txt").write_text("images/train/a.jpg\n\nimages/train/z.jpg\nimages/train/a.jpg\n")
    with pytest.raises(UserError, match=r"train\.txt line 3: there is no image 'images/train/z\.jpg'"):
        opened(yolo)
    problems = Problems(raise_errors=False)
    assert ids(opened(yolo, problems=problems)) == ["images/train/a"]
    assert [p.kind for p in problems.collected] == [Kind.MISSING]
    (yolo / "train.txt").write_text("/content/pets/images/train/b.jpg\nimages/train/a.jpg\n")
    assert ids(opened(yolo)) == ["images/train/b", "images/train/a"]
    (yolo / "train.txt").write_text("\n")
    for entry in ("train.txt", "[]"):
        (yolo / "data.yaml").write_text(f"train: {entry}\nnames: [cat, dog]\n")
        with pytest.raises(UserError, match="the split 'train' holds no images"):
            opened(yolo)


def test_yaml_that_names_only_classes(yolo):
    (yolo / "data.yaml").write_text("names: [cat, dog]\n")
    assert split_names(Data(root=str(yolo))) == ("train", "val")
    assert ids(opened(yolo)) == ["a", "b"]


# ---- without a YAML file ----


def layout(root, where):
    """Images a, b, c; a and c labelled. where: split and stem to the paths of image and label."""
    for split, stem, label in (("train", "a", CAT), ("train", "b", None), ("valid", "c", DOG)):
        image, text = (root / path.format(split=split, stem=stem) for path in where)
        write_image(image)
        if label is not None:
            write_text(text, label)


@pytest.mark.parametrize(
    "where",
    [
        ("images/{split}/{stem}.jpg", "labels/{split}/{stem}.txt"),
        ("{split}/images/{stem}.PNG", "{split}/labels/{stem}.txt"),
        ("{split}/{stem}.JPEG", "{split}/{stem}.txt"),
        ("images/{split}/{stem}.jpg", "images/{split}/{stem}.txt"),
        ("{split}/images/{stem}.jpg", "{split}/images/{stem}.txt"),
    ],
)
@pytest.mark.parametrize("names", ["classes.txt", "obj.names", "names.txt"])
def test_folders_of_splits(tmp_path, where, names):
    layout(tmp_path, where)
    (tmp_path / names).write_text("cat\ndog\n\n")
    data = Data(root=str(tmp_path))
    assert find_format(data) == "yolo" and split_names(data) == ("train", "valid")
    train, val = (open_source(data, split) for split in ("train", "val"))
    assert ids(train) == ["a", "b"] and ids(val) == ["c"]
    assert train.class_names == val.class_names == ("cat", "dog")
    np.testing.assert_array_equal(val.annotation(0).labels, [2])


def test_darknet_lists(tmp_path):
    """As CVAT exports them: the lists count from a folder above."""
    layout(tmp_path, ("obj_train_data/{stem}.jpg", "obj_train_data/{stem}.txt"))
    (tmp_path / "obj.names").write_text("cat\ndog\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/b.jpg\ndata/obj_train_data/a.jpg\n")
    (tmp_path / "valid.txt").write_text("data/obj_train_data/c.jpg\n")
    data = Data(root=str(tmp_path))
    assert find_format(data) == "yolo" and split_names(data) == ("train", "valid")
    assert ids(open_source(data, "train")) == ["obj_train_data/b", "obj_train_data/a"]


def test_roboflow_darknet_names_classes_beside_the_labels(tmp_path):
    layout(tmp_path, ("{split}/{stem}.jpg", "{split}/{stem}.txt"))
    for split in ("train", "valid"):
        (tmp_path / split / "_darknet.labels").write_text("cat\ndog\n")
    assert opened(tmp_path).class_names == ("cat", "dog")
    (tmp_path / "valid" / "_darknet.labels").write_text("dog\ncat\n")
    with pytest.raises(
        UserError, match=r"train.*_darknet\.labels and .*valid.*_darknet\.labels name different classes"
    ):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{}.jpg", "labels/{}.txt"),
        ("images/cam/{}.jpg", "labels/cam/{}.txt"),
        ("JPEGImages/../images/{}.jpg", "images/{}.txt"),
        ("{}.jpg", "{}.txt"),
    ],
)
def test_one_folder_is_divided_by_hash(tmp_path, image, label):
    for folder in ("JPEGImages", "runs"):
        (tmp_path / folder).mkdir()
    for k in range(12):
        write_image(tmp_path / image.format(f"i{k}"))
        write_text(tmp_path / label.format(f"i{k}"), CAT)
    (tmp_path / "classes.txt").write_text("cat\n")
    write_image(tmp_path / "runs" / "train_batch.jpg")
    data = Data(root=str(tmp_path), val_fraction=0.3)
    assert find_format(data) == "yolo" and split_names(data) == ("train", "val")
    found = [ids(open_source(data, split)) for split in ("train", "val")]
    prefix = "cam/" if "cam" in image else ""
    every = sorted(f"{prefix}i{k}" for k in range(12))
    assert sorted(found[0] + found[1]) == every
    assert found[1] == [i for i, held in zip(every, hash_split(every, 0.3), strict=True) if held]
    with pytest.raises(UserError, match=r"no split 'test'\. Its splits: train, val"):
        opened(tmp_path, "test")


def test_labelimg_names_classes_in_the_folder_of_labels(tmp_path):
    for k in range(2):
        write_image(tmp_path / "images" / f"i{k}.jpg")
        write_text(tmp_path / "labels" / f"i{k}.txt", CAT)
    with pytest.raises(UserError, match=r"nothing says what they mean\. Write the names into .*classes\.txt"):
        opened(tmp_path)
    (tmp_path / "labels" / "classes.txt").write_text("cat\r\ndog\r\n")
    assert opened(tmp_path).class_names == ("cat", "dog")
    (tmp_path / "labels" / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"classes\.txt: line 2 is empty"):
        opened(tmp_path)
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(UserError, match=r"classes\.txt: two classes are called 'cat'"):
        opened(tmp_path)


def test_half_without_labels_is_no_error(tmp_path):
    """Of images that are divided by hash, few have labels here; those held out may have none."""
    for k in range(8):
        write_image(tmp_path / f"i{k}.jpg")
    held = hash_split([f"i{k}" for k in range(8)], 0.1)
    write_text(tmp_path / f"i{held.index(False)}.txt", CAT)
    (tmp_path / "classes.txt").write_text("cat\n")
    assert len(opened(tmp_path, "val")) == sum(held)


def test_images_alone_are_no_yolo(tmp_path):
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "README.txt").write_text("pictures of my five little cats\n")
    (tmp_path / "config.yaml").write_text("train: x\n")
    with pytest.raises(UserError, match=r"neither a VOC folder.*nor YOLO's"):
        find_format(Data(root=str(tmp_path)))


def test_folder_above_is_told(yolo, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    shutil.copytree(yolo, outer / "inner")
    with pytest.raises(UserError, match=f"Is it '{outer / 'inner'}'"):
        find_format(Data(root=str(outer)))


# ---- real photographs ----


def test_bccd_is_the_same_as_yolo_and_as_voc(bccd, tmp_path):
    """Converted here from the XML by itself, with six decimals as LabelImg writes them."""
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
                shares = (left + right) / 2 / 640, (top + bottom) / 2 / 480, (right - left) / 640, (bottom - top) / 480
                lines.append(" ".join([str(numbers[node.find("name").text]), *(f"{v:.6f}" for v in shares)]))
            (tmp_path / folder / "labels" / f"{stem}.txt").write_text("\n".join(lines))
    for split in ("train", "val"):
        voc = open_source(Data(root=str(bccd)), split)
        yolo = open_source(Data(root=str(tmp_path)), split, voc.class_names)
        assert len(yolo) == len(voc) and yolo.class_names == voc.class_names
        theirs = {voc.annotation(i).image_id: i for i in range(len(voc))}
        assert sum("no area" in note for note in yolo.notes) == sum("no area" in note for note in voc.notes)
        assert not any("beyond" in note for note in yolo.notes)
        for i in range(len(yolo)):
            a, b = yolo.annotation(i), voc.annotation(theirs[yolo.annotation(i).image_id])
            assert (a.width, a.height) == (b.width, b.height)
            np.testing.assert_array_equal(a.labels, b.labels)
            # Centre and width are off by half of the sixth decimal each, so an edge by 0.75 of it.
            np.testing.assert_allclose(a.boxes_px, b.boxes_px, atol=0.75e-6 * 640 + 1e-4)
        np.testing.assert_array_equal(yolo.image(0), voc.image(theirs[yolo.annotation(0).image_id]))
