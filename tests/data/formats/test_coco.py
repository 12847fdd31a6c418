"""Tests of reading the COCO format: layouts, content, and malformed files."""

import json

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.split_names import split_by_hash
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
    return open_source(Data(root=str(root)), split, class_names)


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
    assert len(source.notes) == 1 and source.image(0).shape == (30, 40, 3)  # the note is about a crowd


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


def test_split_train_matches_the_file_of_trainval_if_there_is_no_other(coco_folder):
    (coco_folder / "annotations" / "instances_train2017.json").rename(
        coco_folder / "annotations" / "instances_trainval2017.json"
    )
    assert len(open_folder(coco_folder, "train")) == 2
    write_json(
        coco_folder / "annotations" / "instances_train2014.json", make_content(images=make_content()["images"][:1])
    )
    assert len(open_folder(coco_folder, "train")) == 1


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
    with pytest.raises(UserError, match="'categories'"):
        open_source(Data(root=str(tmp_path), format="coco"), "train")
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


@pytest.mark.parametrize("bbox", [[5, 5, 0, 9], [5, 5, 9, 0], [40, 0, 5, 5], [-5, 0, 5, 5]])
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


def test_box_of_negative_size_is_read_with_its_corners_in_order(coco_folder):
    entries = [{"image_id": 42, "category_id": 3, "bbox": [20, 25, -15, -5]}]
    write_json(coco_folder / "annotations" / "instances_val2017.json", make_content(annotations=entries))
    source = open_folder(coco_folder)
    np.testing.assert_array_equal(source.annotation(1).boxes_px, [[5, 20, 20, 25]])
    np.testing.assert_array_equal(source.annotation(1).area_px, [75])
    # COCO's metrics are those of pycocotools, which uses the box as it is.
    np.testing.assert_array_equal(source.coco_truth.boxes_px_xywh, [[20, 25, -15, -5]])
    (note,) = source.notes
    assert note.startswith("1 ") and "swapped" in note and "two.jpg" in note


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
        (make_content_without_key("bbox", "annotations"), "annotations[1] of one.jpg"),
        (make_content_without_key("file_name", "images"), "$.images[1]"),
        (make_content_without_key("name", "categories"), "$.categories[1]"),
        (make_content_with_value("bbox", [1, 2, 3], "annotations"), "annotations[1]"),
        (make_content_with_value("bbox", [1, 2, 3, 4, 5], "annotations"), "annotations[1]"),
        (make_content_with_value("bbox", [1, 2, "x", 4], "annotations"), "annotations[1]"),
        (make_content_with_value("bbox", None, "annotations"), "annotations[1]"),
        (make_content_with_value("category_id", 91, "annotations"), "annotations[1] has category_id 91"),
        (make_content_with_value("image_id", 5, "annotations"), "annotations[1] has image_id 5"),
        (make_content_with_value("id", 139, "images"), "id 139"),
        (make_content_with_value("id", 90, "categories"), "id 90"),
        (make_content_with_value("name", "brush", "categories"), "'brush'"),
        (make_content(categories=[], annotations=[]), "'categories'"),
        (make_content(images=[], annotations=[]), "'val2017'"),
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
        open_source(Data(root=str(coco_folder)), "val", (), Problems(raise_errors=False))


def test_byte_order_mark_is_accepted(coco_folder):
    file = coco_folder / "annotations" / "instances_val2017.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(open_folder(coco_folder)) == 2


def test_unknown_class_is_reported(coco_folder):
    with pytest.raises(UserError, match=r"instances_val2017\.json.*'brush'"):
        open_folder(coco_folder, class_names=("car", "sign"))


def test_missing_image_is_reported_with_the_searched_folders(coco_folder):
    (coco_folder / "val2017" / "two.jpg").unlink()
    with pytest.raises(UserError, match=r"instances_val2017\.json: .*'two\.jpg'"):
        open_folder(coco_folder)


def test_image_whose_size_differs_from_the_stated_size_is_rejected(coco_folder):
    Image.new("RGB", (20, 15)).save(coco_folder / "val2017" / "one.jpg")
    with pytest.raises(UserError, match=r"one\.jpg.*20 x 15.*40 x 30"):
        open_folder(coco_folder).image(0)


# ---- deviations from the format ----


def open_content(tmp_path, content, names=("one.jpg", "two.jpg"), problems=None):
    write_json(tmp_path / "val.json", content)
    write_images(tmp_path / "val", names)
    return open_source(Data(root=str(tmp_path)), "val", problems=problems)


@pytest.mark.parametrize("convert", [str, float, lambda number: 2**63 + number, "id-{}".format])
def test_ids_may_be_texts_floats_or_large_numbers(tmp_path, convert):
    content = make_content()
    for entry in content["images"]:
        entry["id"] = convert(entry["id"])
    for entry in content["annotations"]:
        entry["image_id"], entry["id"] = convert(entry["image_id"]), convert(entry["id"])
    source = open_content(tmp_path, content)
    assert [len(annotation.labels) for annotation in source.annotations()] == [3, 0]
    assert [annotation.number for annotation in source.annotations()] == (
        [139, 42] if convert in (str, float) else [1, 2]
    )
    assert set(source.coco_truth.image_ids) == {source.annotation(0).number}


def test_id_may_have_another_form_in_an_annotation(tmp_path):
    content = make_content()
    for entry in content["annotations"]:
        entry["image_id"], entry["category_id"] = str(entry["image_id"]), float(entry["category_id"])
    assert len(open_content(tmp_path, content).annotation(0).labels) == 3


@pytest.mark.parametrize(
    "size", [{}, {"width": None, "height": None}, {"width": 0, "height": 30}, {"width": "w", "height": "h"}]
)
def test_missing_size_is_read_from_the_image(tmp_path, size):
    images = [{"id": image["id"], "file_name": image["file_name"], **size} for image in make_content()["images"]]
    source = open_content(tmp_path, make_content(images=images))
    assert [(a.width, a.height) for a in source.annotations()] == [(40, 30)] * 2


@pytest.mark.parametrize("bbox", [{}, {"bbox": None}, {"bbox": []}])
def test_polygon_without_a_bbox_becomes_its_bounding_box(tmp_path, bbox):
    entry = {"id": 1, "image_id": 42, "category_id": 3, "segmentation": [[5, 6, 9, 6, 9, 20], [2, 8, 3, 8, 3, 9]]}
    source = open_content(tmp_path, make_content(annotations=[entry | bbox]))
    np.testing.assert_array_equal(source.annotation(1).boxes_px, [[2, 6, 9, 20]])


def test_numbers_of_a_bbox_may_be_texts(tmp_path):
    entry = {"id": 1, "image_id": 42, "category_id": 3, "bbox": ["1", 2, "3.5", "4"], "area": "7"}
    source = open_content(tmp_path, make_content(annotations=[entry]))
    np.testing.assert_array_equal(source.annotation(1).boxes_px, [[1, 2, 4.5, 6]])
    assert source.annotation(1).area_px.tolist() == [7]


@pytest.mark.parametrize("flag", [None, 0, 1, "1", "0", True, 1.0])
def test_crowd_flag_may_have_any_type(tmp_path, flag):
    entry = {"id": 1, "image_id": 42, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": flag}
    source = open_content(tmp_path, make_content(annotations=[entry]))
    assert source.annotation(1).crowd.tolist() == [flag in (1, "1")]


def test_category_name_may_be_a_number(tmp_path):
    categories = [{"id": 3, "name": 7}, {"id": 13, "name": "sign"}, {"id": 90, "name": 1.5}]
    assert open_content(tmp_path, make_content(categories=categories)).class_names == ("7", "sign", "1.5")


def test_group_with_the_name_of_its_only_class_is_not_a_class(tmp_path):
    categories = [{"id": 0, "name": "red", "supercategory": "none"}, {"id": 1, "name": "red", "supercategory": "red"}]
    entry = {"id": 1, "image_id": 42, "category_id": 1, "bbox": [1, 2, 3, 4]}
    source = open_content(tmp_path, make_content(categories=categories, annotations=[entry]))
    assert source.class_names == ("red",) and source.category_ids == (1,)
    assert source.annotation(1).labels.tolist() == [1]


def test_records_of_one_image_are_joined(tmp_path):
    content = make_content()
    content["images"][1]["file_name"] = "one.jpg"
    content["annotations"][1]["image_id"] = 42
    problems = Problems(raise_errors=False)
    source = open_content(tmp_path, content, problems=problems)
    assert len(source) == 1 and sorted(source.annotation(0).labels.tolist()) == [1, 1, 3]
    assert source.annotation(0).number == 139 and set(source.coco_truth.image_ids) == {139}
    assert [p.kind for p in problems.collected] == [Kind.UNANNOTATED, Kind.JOINED, Kind.CROWD], (
        "nothing names two.jpg any more"
    )


def test_repeated_annotation_ids_are_a_warning(tmp_path):
    content = make_content()
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    problems = Problems(raise_errors=False)
    assert len(open_content(tmp_path, content, problems=problems).annotation(0).labels) == 3
    assert [p.kind for p in problems.collected] == [Kind.REPEATED_ID, Kind.CROWD] and "7" in problems.collected[0].text


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("caf%C3%A9%20bar.jpg", "caf\u00e9 bar.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("one.jpg?size=big", "one.jpg"),
        ("ONE.JPG", "one.jpg"),
        ("https://example.org/a/one.jpg", "one.jpg"),
    ],
)
def test_file_name_in_another_spelling_is_found(tmp_path, written, stored):
    images = [{"id": 42, "file_name": written, "width": 40, "height": 30}]
    source = open_content(tmp_path, make_content(images=images, annotations=[]), [stored])
    assert source.annotation(0).file == str(tmp_path / "val" / stored)
    assert any(stored in note for note in source.notes) == (not written.startswith("https"))


def test_missing_image_error_names_the_most_similar_file(tmp_path):
    images = [{"id": 42, "file_name": "photo_00l.jpg", "width": 40, "height": 30}]
    with pytest.raises(UserError, match=r"'photo_00l\.jpg'.*val/photo_001\.jpg"):
        open_content(tmp_path, make_content(images=images, annotations=[]), ["photo_001.jpg", "other.jpg"])


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("annotations/instances_Train.json", "annotations/instances_Validation.json"),
        ("custom_train.json", "custom_val.json"),
        ("labels_train.json", "labels_valid.json"),
        ("train/labels.json", "val/labels.json"),
        ("coco/training.json", "coco/eval.json"),
    ],
)
def test_annotation_files_of_splits_have_many_names(tmp_path, train, val):
    """Open splits whose images have the same names, in the folders images/Train and images/Validation."""
    for file, folder, colour in ((train, "Train", "red"), (val, "Validation", "blue")):
        write_json(tmp_path / file, make_content())
        write_images(tmp_path / "images" / folder)
        for name in ("one.jpg", "two.jpg"):
            Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / folder / name)
    data = Data(root=str(tmp_path))
    for split, folder in (("train", "Train"), ("val", "Validation")):
        assert open_source(data, split).annotation(0).file == str(tmp_path / "images" / folder / "one.jpg")


def test_image_in_one_of_two_equal_folders_is_ambiguous(tmp_path):
    for folder in ("photos_a", "photos_b"):
        write_images(tmp_path / folder)
    write_json(tmp_path / "val.json", make_content())
    with pytest.raises(UserError, match=r"one\.jpg.*photos_a/one\.jpg, photos_b/one\.jpg"):
        open_source(Data(root=str(tmp_path)), "val")


# ---- nothing is lost in silence ----


def test_images_in_the_folder_of_another_split_are_found_if_its_file_does_not_name_them(tmp_path):
    write_images(tmp_path / "train", ("one.jpg", "two.jpg", "three.jpg"))
    three = make_content(images=[{"id": 1, "file_name": "three.jpg", "width": 40, "height": 30}], annotations=[])
    write_json(tmp_path / "annotations" / "train.json", make_content())
    write_json(tmp_path / "annotations" / "val.json", three)
    assert [a.file for a in open_folder(tmp_path).annotations()] == [str(tmp_path / "train" / "three.jpg")]
    write_json(tmp_path / "annotations" / "val.json", make_content())
    with pytest.raises(UserError, match=r"val\.json: the image 'one\.jpg' is missing"):
        open_folder(tmp_path)  # these may be other images of the same names


def test_second_file_of_a_split_is_a_warning(tmp_path):
    write_images(tmp_path / "images", ("one.jpg", "two.jpg", "three.jpg"))
    three = make_content(images=[{"id": 1, "file_name": "three.jpg", "width": 40, "height": 30}], annotations=[])
    write_json(tmp_path / "train.json", make_content())
    write_json(tmp_path / "val.json", make_content())
    write_json(tmp_path / "train_batch2.json", three)
    problems = Problems()
    open_source(Data(root=str(tmp_path)), "train", problems=problems)
    assert [p.text.split("'")[1] for p in problems.collected if p.kind is Kind.UNUSED_SPLIT] == ["train_batch2"]
    write_json(tmp_path / "train_batch2.json", make_content())  # the same images as in train.json
    problems = Problems()
    open_source(Data(root=str(tmp_path)), "train", problems=problems)
    assert Kind.UNUSED_SPLIT not in [p.kind for p in problems.collected]


def test_file_whose_images_are_missing_is_a_warning(tmp_path):
    write_images(tmp_path / "images", ("one.jpg", "two.jpg"))
    for name in ("train", "val"):
        write_json(tmp_path / f"{name}.json", make_content())
    absent = make_content(images=[{"id": 1, "file_name": "absent.jpg", "width": 40, "height": 30}], annotations=[])
    write_json(tmp_path / "default.json", absent)
    problems = Problems()
    open_source(Data(root=str(tmp_path)), "train", problems=problems)
    assert [p.text.split("'")[1] for p in problems.collected if p.kind is Kind.UNUSED_SPLIT] == ["default"]


def test_split_whose_name_contains_folders_can_be_named(tmp_path):
    for job, name in (("job1", "one.jpg"), ("job2", "two.jpg")):
        image = {"id": 1, "file_name": name, "width": 40, "height": 30}
        content = make_content(images=[image], annotations=[])
        write_json(tmp_path / job / "annotations" / "instances_default.json", content)
        write_images(tmp_path / job / "images", (name,))
    names = [f"{job}/annotations/instances_default" for job in ("job1", "job2")]
    assert sorted(split_names(Data(root=str(tmp_path)))) == names
    data = Data(root=str(tmp_path), train_split="+".join(names), val_split=names[1])
    assert len(open_source(data, data.train_split)) == 2 and len(open_source(data, data.val_split)) == 1


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_repeated_key_of_a_file_is_rejected(coco_folder, key):
    text = json.dumps(make_content())
    file = coco_folder / "annotations" / "instances_val2017.json"
    write_json(file, f'{text[:-1]}, "{key}": []}}')
    with pytest.raises(UserError, match=rf"instances_val2017\.json: the key '{key}' occurs twice"):
        open_folder(coco_folder)


def test_ids_that_may_have_lost_digits_are_rejected(coco_folder):
    content = make_content()
    content["annotations"][0]["image_id"] = 2.0**53 + 2
    write_json(coco_folder / "annotations" / "instances_val2017.json", content)
    with pytest.raises(UserError, match=r"image_id .* may have lost digits"):
        open_folder(coco_folder)


def test_crowds_are_counted_in_a_note(coco_folder):
    problems = Problems()
    open_source(Data(root=str(coco_folder)), "val", problems=problems)
    (note,) = [p for p in problems.collected if p.kind is Kind.CROWD]
    assert note.text.startswith("1 of the 3 objects")
