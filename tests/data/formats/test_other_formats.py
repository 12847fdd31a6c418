"""Tests of naming annotation files that are not read, and folders that are only a part of a data set."""

import json
import zipfile

import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

LABELME = json.dumps({"version": "5.0", "shapes": [], "imagePath": "a.jpg", "imageData": None})
VOC = (
    "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    "</object></annotation>"
)
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 6]}],
    "categories": [{"id": 1, "name": "cat"}],
}
LABEL = "0 0.5 0.5 0.2 0.2\n"


def write_files(root, files):
    """Write files by their relative path. An empty text stands for an image."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            Image.new("RGB", (40, 30)).save(file, "PNG")


def open_folder(root, problems=None):
    return open_source(Data(root=str(root), val_split="train"), "train", problems=problems)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("_annotations.txt", "a.jpg 1,2,9,8,0 3,4,5,6,0\n", "Keras YOLOv3"),
        ("output.manifest", '{"source-ref": "s3://b/a.jpg"}\n', "SageMaker"),
        ("a.ndjson", '{"type": "dataset", "task": "detect"}\n', "NDJSON"),
        ("default.json", '{"info": {}, "categories": {"label": {}}, "items": []}', "Datumaro"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 565\n", "git lfs pull"),
        ("boxes.csv", "a.jpg,1,2,3,4,5,6,7,8,9\n", "columns are not recognised"),
        ("a.xml", "<annotations><object/></annotations>", "root element <annotations>"),
        ("a.json", str(COCO), "printed Python dict"),
        ("labels/a_label.txt", LABEL, "Beside images, it contains labels/a_label.txt"),
    ],
)
def test_files_that_are_not_read_are_named(name, content, words, tmp_path):
    write_files(tmp_path, {"images/a.jpg": "", name: content})
    with pytest.raises(UserError) as error:
        open_folder(tmp_path)
    assert words in (text := " ".join(error.value.args)) and name in text and "images only" not in text


def test_archive_that_was_not_unpacked_is_named(tmp_path):
    write_files(tmp_path, {"images/a.jpg": "", "data.yaml": "names: [cat]\n"})
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as archive:
        archive.writestr("a.txt", LABEL)
    with pytest.raises(UserError, match=r"none of the 1 images has a label file.*archive labels.zip. Unpack it"):
        open_folder(tmp_path)


@pytest.mark.parametrize("extra", ["", ".jpg"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_label_files_are_read_with_the_extension_of_the_image_and_in_unicode_encodings(extra, encoding, tmp_path):
    files = {f"labels/a{extra}.txt": LABEL.encode(encoding), "classes.txt": "cat\n".encode(encoding)}
    write_files(tmp_path, {"images/a.jpg": "", **files})
    assert len(open_folder(tmp_path).annotation(0).labels) == 1


def test_label_file_without_the_extension_of_the_image_is_preferred(tmp_path):
    files = {"l/a.txt": LABEL + LABEL.replace("0.5", "0.4"), "l/a.jpg.txt": LABEL, "classes.txt": "cat\n"}
    write_files(tmp_path, {"images/a.jpg": "", **files})
    assert len(open_folder(tmp_path).annotation(0).labels) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-le"])
def test_coco_file_is_read_in_unicode_encodings(encoding, tmp_path):
    mark = b"\xff\xfe\0\0" if encoding == "utf-32-le" else b""
    write_files(tmp_path, {"a.jpg": "", "train.json": mark + json.dumps(COCO).encode(encoding)})
    problems = Problems()
    assert len(open_folder(tmp_path, problems).annotation(0).labels) == 1
    assert Kind.UNANNOTATED not in [p.kind for p in problems.collected]


@pytest.mark.parametrize("files", [{"b.xml": VOC}, {"b.txt": LABEL, "classes.txt": "cat\n"}], ids=["voc", "yolo"])
def test_image_with_a_labelme_file_is_left_out_with_a_warning(files, tmp_path):
    write_files(tmp_path, {"a.jpg": "", "a.json": LABELME, "b.jpg": "", **files})
    problems = Problems()
    source = open_folder(tmp_path, problems)
    assert [annotation.image_id for annotation in source.annotations()] == ["b"]
    (warning,) = [p for p in problems.collected if p.kind is Kind.OTHER_FORMAT]
    assert warning.file.endswith("a.jpg") and "labelme" in warning.group


def test_labelme_file_of_an_image_with_labels_is_ignored(tmp_path):
    write_files(tmp_path, {"a.jpg": "", "a.json": LABELME, "a.txt": LABEL, "classes.txt": "cat\n"})
    problems = Problems()
    assert len(open_folder(tmp_path, problems)) == 1
    assert Kind.OTHER_FORMAT not in [p.kind for p in problems.collected]


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({"Annotations/a.xml": VOC, "JPEGImages/a.jpg": ""}, "Annotations"),
        ({"Annotations/a.xml": VOC, "JPEGImages/a.jpg": ""}, "JPEGImages"),
        ({"labels/a.txt": LABEL, "images/a.jpg": "", "classes.txt": "cat\n"}, "labels"),
        ({"labels/a.txt": LABEL, "images/a.jpg": "", "classes.txt": "cat\n"}, "images"),
        ({"annotations/a.json": json.dumps(COCO), "images/a.jpg": ""}, "annotations"),
    ],
)
def test_parent_of_a_part_of_a_data_set_is_suggested_if_it_can_be_read(files, part, tmp_path):
    root = tmp_path / "set"
    write_files(root, files)
    with pytest.raises(UserError) as error:
        open_folder(root / part)
    assert f"Did you mean '{root}'?" in " ".join(error.value.args)
    for name, content in files.items():
        if content:
            (root / name).write_text("nothing")
    with pytest.raises(UserError) as error:
        open_folder(root / part)
    assert "Did you mean" not in " ".join(error.value.args)


def test_image_without_an_ending_is_named(tmp_path):
    write_files(tmp_path, {"a": "", "a.xml": VOC})
    with pytest.raises(UserError, match=r"no images. The file a is an image, but its name has no ending. Add '.png'"):
        open_folder(tmp_path)


def test_output_of_the_program_inside_a_data_set_is_passed_over(tmp_path):
    own = {"data_check/check.json": "{}", "data_check/problems.csv": "a", "data_check/train_samples.jpg": ""}
    own |= {"runs/x/config.json": "{}", "runs/x/log.jsonl": "{}", "runs/x/train_batch.jpg": ""}
    write_files(tmp_path, {"a.jpg": "", "a.txt": LABEL, "classes.txt": "cat\n", **own})
    problems = Problems()
    assert len(open_folder(tmp_path, problems)) == 1
    assert {p.kind for p in problems.collected} == {Kind.HELD_OUT}
