"""Tests of reading the COCO format: layouts, content, and malformed files."""

import json

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.coco import open_split
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import split_by_hash
from ssd_jax.errors import UserError


def make_content(**changes):
    """Return the content of a COCO file with two images of 40 x 30 pixels. As in COCO, there are gaps between ids."""
    images = [
        {"id": 139, "file_name": "one.jpg", "width": 40, "height": 30, "license": 2},
        {"id": 42, "file_name": "two.jpg", "width": 40, "height": 30},
    ]
    annotations = [
        {"id": 7, "image_id": 139, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 150.5, "iscrowd": 0},
        {"id": 8, "image_id": 139, "category_id": 3, "bbox": [0.5, 0.25, 4, 8], "area": 30, "iscrowd": 1},
        {"id": 9, "image_id": 139, "category_id": 3, "bbox": [5, 5, 5, 5], "segmentation": [[1, 2, 3, 4, 5, 6]]},
    ]
    categories = [
        {"id": 90, "name": "brush", "supercategory": "indoor"},
        {"id": 3, "name": "car", "supercategory": "vehicle"},
        {"id": 13, "name": "sign", "supercategory": "outdoor"},
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories, **changes}


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def write_images(folder, names=("one.jpg", "two.jpg")):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (40, 30), "navy").save(folder / name)


@pytest.fixture
def coco_folder(tmp_path):
    """Create a folder in the layout of COCO 2017, and return the path."""
    for split in ("train", "val"):
        write_json(tmp_path / "annotations" / f"instances_{split}2017.json", make_content())
        write_images(tmp_path / f"{split}2017")
    write_json(tmp_path / "annotations" / "captions_val2017.json", make_content(categories=[]))
    return tmp_path


def open_folder(root, split="val", class_names=()):
    return open_split(Data(root=str(root)), split, class_names)


def test_boxes_are_converted_to_xyxy(coco_folder):
    source = open_folder(coco_folder)
    annotation = source.annotation(0)
    assert source.class_names == ("car", "sign", "brush")  # in the order of the category ids 3, 13, 90
    assert source.category_ids == (3, 13, 90)
    assert (annotation.image_id, annotation.width, annotation.height) == ("one.jpg", 40, 30)
    assert annotation.file == str(coco_folder / "val2017" / "one.jpg")
    np.testing.assert_array_equal(annotation.boxes_px, [[1, 2, 11, 22], [0.5, 0.25, 4.5, 8.25], [5, 5, 10, 10]])
    np.testing.assert_array_equal(annotation.labels, [3, 1, 1])
    np.testing.assert_array_equal(annotation.crowd, [False, True, False])
    np.testing.assert_array_equal(annotation.difficult, [False, False, False])
    np.testing.assert_array_equal(
        annotation.area_px, [150.5, 30, 25]
    )  # the last object has no key 'area', so the area of its box is used
    assert source.notes == () and source.image(0).shape == (30, 40, 3)


def test_image_without_objects_is_kept(coco_folder):
    source = open_folder(coco_folder)
    assert len(source) == 2 and source.annotation(1).boxes_px.shape == (0, 4)


def test_annotation_number_is_the_image_id(coco_folder):
    assert [open_folder(coco_folder).annotation(i).number for i in range(2)] == [139, 42]


def test_given_class_names_determine_the_labels(coco_folder):
    source = open_folder(coco_folder, class_names=("brush", "bird", "car", "sign"))
    np.testing.assert_array_equal(source.annotation(0).labels, [1, 3, 3])
    assert source.category_ids == (90, -1, 3, 13)


def test_given_class_names_may_omit_an_unused_category(coco_folder):
    np.testing.assert_array_equal(
        open_folder(coco_folder, class_names=("car", "brush")).annotation(0).labels, [2, 1, 1]
    )


def test_category_that_names_a_group_is_not_a_class(coco_folder):
    """Read categories as in Roboflow's exports, where category 0 is the group that contains all other categories."""
    groups = [{"id": 0, "name": "things", "supercategory": "none"}] + [
        {**category, "supercategory": "things"} for category in make_content()["categories"]
    ]
    write_json(coco_folder / "annotations" / "instances_val2017.json", make_content(categories=groups))
    assert open_folder(coco_folder).class_names == ("car", "sign", "brush")


# ---- layouts ----


def test_layout_of_coco_2017_is_recognised(coco_folder):
    data = Data(root=str(coco_folder))
    assert find_format(data) == "coco"
    assert split_names(data) == ("train2017", "val2017", "trainval35k", "minival")
    assert open_folder(coco_folder, "val2017").annotation(0).file == open_folder(coco_folder, "val").annotation(0).file
    with pytest.raises(UserError, match=r"'test'.*: train2017, val2017, "):
        open_source(data, "test")


def test_split_train_does_not_match_the_file_of_trainval(coco_folder):
    (coco_folder / "annotations" / "instances_train2017.json").rename(
        coco_folder / "annotations" / "instances_trainval2017.json"
    )
    with pytest.raises(UserError, match="split 'train'"):
        open_folder(coco_folder, "train")


def test_split_with_files_of_two_years_is_ambiguous(coco_folder):
    write_json(coco_folder / "annotations" / "instances_val2014.json", make_content())
    with pytest.raises(UserError, match=r"'val'.*val2014, val2017"):
        open_folder(coco_folder, "val")
    assert len(open_folder(coco_folder, "val2017")) == 2


@pytest.mark.parametrize("images", ["val", "images/val", "images", ".", "data"])
@pytest.mark.parametrize("folder", ["annotations", "."])
def test_images_are_found_in_all_supported_folders(tmp_path, folder, images):
    write_json(tmp_path / folder / "val.json", make_content())
    write_images(tmp_path / images)
    assert split_names(Data(root=str(tmp_path))) == ("val",)
    source = open_source(Data(root=str(tmp_path)), "val")
    assert source.image(1).shape == (30, 40, 3)
    with pytest.raises(UserError, match="split 'train'"):
        open_folder(tmp_path, "train")


def test_file_name_may_contain_folders(tmp_path):
    images = [{**image, "file_name": f"deep/er/{image['file_name']}"} for image in make_content()["images"]]
    write_json(tmp_path / "val.json", make_content(images=images))
    write_images(tmp_path / "images" / "deep" / "er")
    assert open_folder(tmp_path).image(0).shape == (30, 40, 3)


@pytest.mark.parametrize("start", ["images\\", "images/", "C:\\proj\\images\\", "/srv/bob/proj/images/", "../images/"])
def test_file_name_from_another_machine_is_resolved(tmp_path, start):
    images = [{**image, "file_name": start + image["file_name"]} for image in make_content()["images"]]
    write_json(tmp_path / "annotations" / "val.json", make_content(images=images))
    write_images(tmp_path / "images")
    assert open_folder(tmp_path).image(0).shape == (30, 40, 3)


def test_file_name_with_a_folder_selects_between_images_of_the_same_name(tmp_path):
    images = [{**image, "file_name": f"proj\\b\\{image['file_name']}"} for image in make_content()["images"]]
    write_json(tmp_path / "val.json", make_content(images=images))
    for folder in (tmp_path / "val", tmp_path / "images" / "b"):
        write_images(folder)
    assert open_folder(tmp_path).annotation(0).file == str(tmp_path / "images" / "b" / "one.jpg")


def test_layout_of_roboflow_is_recognised(tmp_path):
    for split in ("train", "valid", "test"):
        write_json(tmp_path / split / "_annotations.coco.json", make_content())
        write_images(tmp_path / split)
    data = Data(root=str(tmp_path))
    assert find_format(data) == "coco" and split_names(data) == ("test", "train", "valid")
    assert open_folder(tmp_path, "val").annotation(0).file == str(tmp_path / "valid" / "one.jpg")


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("name", ["labels.json", "annotations/instances_default.json"])
def test_single_file_is_split_by_hash(tmp_path, name, by_file):
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 40, "height": 30} for k in range(10)]
    write_json(tmp_path / name, make_content(images=images, annotations=[]))
    write_images(tmp_path / "images", [f"{k}.jpg" for k in range(10)])
    write_images(tmp_path / "annotations", [f"{k}.jpg" for k in range(10)])
    write_images(tmp_path, [f"{k}.jpg" for k in range(10)])
    data = Data(root=str(tmp_path / name if by_file else tmp_path), val_fraction=0.3)
    assert find_format(data) == "coco" and split_names(data) == ("train", "val")
    parts = [open_source(data, split) for split in ("train", "val")]
    ids = [[annotation.number for annotation in part.annotations()] for part in parts]
    assert sorted(ids[0] + ids[1]) == list(range(10))
    assert ids[1] == [k for k, in_val in enumerate(split_by_hash([f"{k}.jpg" for k in range(10)], 0.3)) if in_val]
    with pytest.raises(UserError, match=r"'test'.*train, val"):
        open_source(data, "test")


def test_json_files_without_coco_keys_are_ignored(tmp_path):
    write_json(tmp_path / "settings.json", {"a": 1})
    assert split_names(Data(root=str(tmp_path), format="coco")) == ()
    with pytest.raises(UserError, match="annotations/"):
        open_folder(tmp_path)
    with pytest.raises(UserError, match=r"data\.root: .*format"):
        find_format(Data(root=str(tmp_path)))


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("name", ["result.json", "annotations/result.json"])
@pytest.mark.parametrize(
    ("content", "error"),
    [(json.dumps(make_content())[:300], "truncated"), ({"images": [], "annotations": []}, "`categories`")],
)
def test_find_format_error_contains_the_error_in_a_json_file(tmp_path, name, by_file, content, error):
    write_json(tmp_path / name, content)
    with pytest.raises(UserError, match=rf"data\.root: .*{name}: .*{error}"):
        find_format(Data(root=str(tmp_path / name if by_file else tmp_path)))


def test_find_format_error_names_an_unreadable_file(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(UserError, match=r"data\.root: .*result\.json: .*Is a directory"):
        find_format(Data(root=str(tmp_path)))


def test_image_info_file_gives_an_unannotated_source(coco_folder):
    """Read files like COCO's image_info_test2017.json and image_info_test-dev2017.json, which have no boxes."""
    images_alone = {key: value for key, value in make_content().items() if key != "annotations"}
    for split in ("test", "test-dev"):
        write_json(coco_folder / "annotations" / f"image_info_{split}2017.json", images_alone)
    write_json(coco_folder / "annotations" / "image_info_val2017.json", images_alone)
    write_images(coco_folder / "test2017")
    assert split_names(Data(root=str(coco_folder))) == (
        "test-dev2017", "test2017", "train2017", "val2017", "trainval35k", "minival",
    )  # fmt: skip
    for split in ("test", "test-dev", "test-dev2017"):
        source = open_folder(coco_folder, split)
        assert source.annotation(0).file == str(coco_folder / "test2017" / "one.jpg")
        assert not source.annotated and source.class_names == ("car", "sign", "brush")
        assert [source.annotation(i).number for i in range(2)] == [139, 42]
        assert source.annotation(0).boxes_px.shape == (0, 4)
    assert open_folder(coco_folder, "val").annotated, "the file with objects is preferred"
    write_json(coco_folder / "annotations" / "instances_val2017.json", make_content(annotations=[]))
    assert open_folder(coco_folder, "val").annotated, "an empty list of annotations is not the same as none"


# ---- odd boxes ----


@pytest.mark.parametrize("bbox", [[5, 5, 0, 9], [5, 5, 9, 0], [5, 5, -2, 9], [40, 0, 5, 5], [-5, 0, 5, 5]])
def test_box_without_area_is_left_out_with_a_note(coco_folder, bbox):
    entries = [
        {"image_id": 42, "category_id": 3, "bbox": bbox},
        {"image_id": 42, "category_id": 13, "bbox": [0, 0, 9, 9]},
    ]
    write_json(coco_folder / "annotations" / "instances_val2017.json", make_content(annotations=entries))
    source = open_folder(coco_folder)
    np.testing.assert_array_equal(source.annotation(1).labels, [2])
    (note,) = source.notes
    assert note.startswith("1 ") and "area" in note and "two.jpg" in note


def test_box_beyond_the_image_is_kept_with_a_note(coco_folder):
    entries = [{"image_id": 42, "category_id": 3, "bbox": [-1, 0, 42, 30]}]
    write_json(coco_folder / "annotations" / "instances_val2017.json", make_content(annotations=entries))
    source = open_folder(coco_folder)
    np.testing.assert_array_equal(source.annotation(1).boxes_px, [[-1, 0, 41, 30]])
    (note,) = source.notes
    assert note.startswith("1 ") and "beyond" in note and "two.jpg" in note


# ---- errors ----


def make_content_without_key(key, section):
    entries = make_content()[section]
    del entries[1][key]
    return make_content(**{section: entries})


def make_content_with_value(key, value, section):
    entries = make_content()[section]
    entries[1][key] = value
    return make_content(**{section: entries})


@pytest.mark.parametrize(
    ("content", "position"),
    [
        ("{", "JSON"),
        ("", "JSON"),
        ("[]", "`object`"),
        ({k: v for k, v in make_content().items() if k != "categories"}, "`categories`"),
        (make_content_without_key("bbox", "annotations"), "$.annotations[1]"),
        (make_content_without_key("file_name", "images"), "$.images[1]"),
        (make_content_without_key("name", "categories"), "$.categories[1]"),
        (make_content_with_value("bbox", [1, 2, 3], "annotations"), "$.annotations[1].bbox"),
        (make_content_with_value("bbox", [1, 2, 3, 4, 5], "annotations"), "$.annotations[1].bbox"),
        (make_content_with_value("bbox", [1, 2, "3", 4], "annotations"), "$.annotations[1].bbox"),
        (make_content_with_value("bbox", None, "annotations"), "$.annotations[1].bbox"),
        (make_content_with_value("category_id", 91, "annotations"), "annotations[1] has category_id 91"),
        (make_content_with_value("image_id", 5, "annotations"), "annotations[1] has image_id 5"),
        (make_content_with_value("id", 139, "images"), "id 139"),
        (make_content_with_value("id", 90, "categories"), "id 90"),
        (make_content_with_value("name", "brush", "categories"), "'brush'"),
        (make_content_with_value("width", 0, "images"), "image 42 (two.jpg) has the size 0 x 30"),
        (make_content(categories=[], annotations=[]), "'categories'"),
        (make_content(images=[], annotations=[]), "'val'"),
    ],
)
def test_malformed_file_is_reported_with_the_position_of_the_error(coco_folder, content, position):
    file = coco_folder / "annotations" / "instances_val2017.json"
    write_json(file, content)
    with pytest.raises(UserError) as error:
        open_folder(coco_folder)
    assert str(file) in str(error.value) and position in str(error.value)


def test_normalised_boxes_are_rejected(coco_folder):
    """Check that normalised boxes of one image are rejected even if another image has boxes in pixels."""
    entries = [
        {"image_id": 139, "category_id": 3, "bbox": [5, 5, 9, 9]},
        {"image_id": 42, "category_id": 3, "bbox": [0.25, 0.5, 0.5, 0.5]},
    ]
    write_json(coco_folder / "annotations" / "instances_val2017.json", make_content(annotations=entries))
    with pytest.raises(UserError, match=r"val2017\.json: two\.jpg: .*between 0 and 1"):
        open_folder(coco_folder)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_reported_with_the_line_number(coco_folder, value):
    file = coco_folder / "annotations" / "instances_val2017.json"
    write_json(file, json.dumps(make_content_with_value("area", float(value), "annotations"), indent=1))
    line = next(k for k, line in enumerate(file.read_text().splitlines(), start=1) if value in line)
    with pytest.raises(UserError, match=rf'line {line}: .*"area": {value}.*NaN or Infinity'):
        open_folder(coco_folder)


def test_invalid_json_is_reported_with_the_line_number(coco_folder):
    write_json(coco_folder / "annotations" / "instances_val2017.json", '{"images": [],\n"categories": (1)}')
    with pytest.raises(UserError, match=r'line 2: .*"categories": \(1\)}'):
        open_folder(coco_folder)


@pytest.mark.parametrize("rest", ['{"bbox": [NaN', '{"bbox": [1, 2', '{"bbox": [1, 2, 1e999, 1]}]}'])
def test_invalid_json_after_a_malformed_entry_is_reported(coco_folder, rest):
    write_json(coco_folder / "annotations" / "instances_val2017.json", '{"images": [], "annotations": [{}, ' + rest)
    with pytest.raises(UserError, match="not valid JSON"):
        open_split(Data(root=str(coco_folder)), "val", (), Problems(raise_errors=False))


def test_byte_order_mark_is_accepted(coco_folder):
    file = coco_folder / "annotations" / "instances_val2017.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(open_folder(coco_folder)) == 2


def test_unknown_class_is_reported(coco_folder):
    with pytest.raises(UserError, match=r"instances_val2017\.json.*'brush'"):
        open_folder(coco_folder, class_names=("car", "sign"))


def test_missing_image_is_reported_with_the_searched_folders(coco_folder):
    (coco_folder / "val2017" / "two.jpg").unlink()
    with pytest.raises(UserError, match=r"'two\.jpg'.*val2017"):
        open_folder(coco_folder)


def test_image_whose_size_differs_from_the_stated_size_is_rejected(coco_folder):
    Image.new("RGB", (20, 15)).save(coco_folder / "val2017" / "one.jpg")
    with pytest.raises(UserError, match=r"one\.jpg.*20 x 15.*40 x 30"):
        open_folder(coco_folder).image(0)
