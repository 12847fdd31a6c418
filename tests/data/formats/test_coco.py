"""COCO files: where they are looked for, what is read, and every way in which they can be wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.coco import open_coco
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.problems import Problems
from ssd_jax.data.source import hash_split
from ssd_jax.errors import UserError


def content(**changes):
    """Two images, 40 x 30; ids neither start at 0 nor follow each other, as in COCO."""
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


def write(file, what):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(what if isinstance(what, str) else json.dumps(what))


def write_images(folder, names=("one.jpg", "two.jpg")):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (40, 30), "navy").save(folder / name)


@pytest.fixture
def coco(tmp_path):
    """The layout of COCO 2017."""
    for split in ("train", "val"):
        write(tmp_path / "annotations" / f"instances_{split}2017.json", content())
        write_images(tmp_path / f"{split}2017")
    write(tmp_path / "annotations" / "captions_val2017.json", content(categories=[]))
    return tmp_path


def opened(root, split="val", class_names=()):
    return open_coco(Data(root=str(root)), split, class_names)


def test_annotations_are_read_with_boxes_as_corners(coco):
    source = opened(coco)
    found = source.annotation(0)
    assert source.class_names == ("car", "sign", "brush")  # by id: 3 13 90
    assert source.category_ids == (3, 13, 90)
    assert (found.image_id, found.width, found.height) == ("one.jpg", 40, 30)
    assert found.file == str(coco / "val2017" / "one.jpg")
    np.testing.assert_array_equal(found.boxes_px, [[1, 2, 11, 22], [0.5, 0.25, 4.5, 8.25], [5, 5, 10, 10]])
    np.testing.assert_array_equal(found.labels, [3, 1, 1])
    np.testing.assert_array_equal(found.crowd, [False, True, False])
    np.testing.assert_array_equal(found.difficult, [False, False, False])
    np.testing.assert_array_equal(found.area_px, [150.5, 30, 25])  # the last by its box
    assert source.notes == () and source.image(0).shape == (30, 40, 3)


def test_image_without_objects_is_kept_as_background(coco):
    source = opened(coco)
    assert len(source) == 2 and source.annotation(1).boxes_px.shape == (0, 4)


def test_numbers_of_the_file_can_be_told_again(coco):
    assert [opened(coco).annotation(i).number for i in range(2)] == [139, 42]


def test_given_class_names_set_the_labels(coco):
    source = opened(coco, class_names=("brush", "bird", "car", "sign"))
    np.testing.assert_array_equal(source.annotation(0).labels, [1, 3, 3])
    assert source.category_ids == (90, -1, 3, 13)


def test_unused_category_need_not_be_among_the_given_names(coco):
    np.testing.assert_array_equal(opened(coco, class_names=("car", "brush")).annotation(0).labels, [2, 1, 1])


def test_category_that_only_names_a_group_is_no_class(coco):
    """Roboflow's exports have one, with id 0."""
    groups = [{"id": 0, "name": "things", "supercategory": "none"}] + [
        {**category, "supercategory": "things"} for category in content()["categories"]
    ]
    write(coco / "annotations" / "instances_val2017.json", content(categories=groups))
    assert opened(coco).class_names == ("car", "sign", "brush")


# ---- layouts ----


def test_coco_2017(coco):
    data = Data(root=str(coco))
    assert find_format(data) == "coco"
    assert split_names(data) == ("train2017", "val2017", "trainval35k", "minival")
    assert opened(coco, "val2017").annotation(0).file == opened(coco, "val").annotation(0).file
    with pytest.raises(UserError, match=r"no split 'test'\. Its splits: train2017, val2017, "):
        open_source(data, "test")


def test_train_does_not_take_trainval_for_itself(coco):
    (coco / "annotations" / "instances_train2017.json").rename(coco / "annotations" / "instances_trainval2017.json")
    with pytest.raises(UserError, match="no split 'train'"):
        opened(coco, "train")


def test_two_years_of_one_split_are_told_apart(coco):
    write(coco / "annotations" / "instances_val2014.json", content())
    with pytest.raises(UserError, match=r"'val' could be any of val2014, val2017"):
        opened(coco, "val")
    assert len(opened(coco, "val2017")) == 2


@pytest.mark.parametrize("images", ["val", "images/val", "images", ".", "data"])
@pytest.mark.parametrize("folder", ["annotations", "."])
def test_split_json_with_images_in_many_places(tmp_path, folder, images):
    write(tmp_path / folder / "val.json", content())
    write_images(tmp_path / images)
    assert split_names(Data(root=str(tmp_path))) == ("val",)
    source = open_source(Data(root=str(tmp_path)), "val")
    assert source.image(1).shape == (30, 40, 3)
    with pytest.raises(UserError, match="no split 'train'"):
        opened(tmp_path, "train")


def test_file_names_may_hold_folders(tmp_path):
    images = [{**image, "file_name": f"deep/er/{image['file_name']}"} for image in content()["images"]]
    write(tmp_path / "val.json", content(images=images))
    write_images(tmp_path / "images" / "deep" / "er")
    assert opened(tmp_path).image(0).shape == (30, 40, 3)


@pytest.mark.parametrize("start", ["images\\", "images/", "C:\\proj\\images\\", "/srv/bob/proj/images/", "../images/"])
def test_file_names_may_come_from_another_machine(tmp_path, start):
    images = [{**image, "file_name": start + image["file_name"]} for image in content()["images"]]
    write(tmp_path / "annotations" / "val.json", content(images=images))
    write_images(tmp_path / "images")
    assert opened(tmp_path).image(0).shape == (30, 40, 3)


def test_of_two_images_of_a_name_the_one_in_the_folder_of_the_file_name_counts(tmp_path):
    images = [{**image, "file_name": f"proj\\b\\{image['file_name']}"} for image in content()["images"]]
    write(tmp_path / "val.json", content(images=images))
    for folder in (tmp_path / "val", tmp_path / "images" / "b"):
        write_images(folder)
    assert opened(tmp_path).annotation(0).file == str(tmp_path / "images" / "b" / "one.jpg")


def test_roboflow(tmp_path):
    for split in ("train", "valid", "test"):
        write(tmp_path / split / "_annotations.coco.json", content())
        write_images(tmp_path / split)
    data = Data(root=str(tmp_path))
    assert find_format(data) == "coco" and split_names(data) == ("test", "train", "valid")
    assert opened(tmp_path, "val").annotation(0).file == str(tmp_path / "valid" / "one.jpg")


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("name", ["labels.json", "annotations/instances_default.json"])
def test_single_file_is_divided_by_hash(tmp_path, name, by_file):
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 40, "height": 30} for k in range(10)]
    write(tmp_path / name, content(images=images, annotations=[]))
    write_images(tmp_path / "images", [f"{k}.jpg" for k in range(10)])
    write_images(tmp_path / "annotations", [f"{k}.jpg" for k in range(10)])
    write_images(tmp_path, [f"{k}.jpg" for k in range(10)])
    data = Data(root=str(tmp_path / name if by_file else tmp_path), val_fraction=0.3)
    assert find_format(data) == "coco" and split_names(data) == ("train", "val")
    parts = [open_source(data, split) for split in ("train", "val")]
    ids = [[annotation.number for annotation in part.annotations()] for part in parts]
    assert sorted(ids[0] + ids[1]) == list(range(10))
    assert ids[1] == [k for k, held in enumerate(hash_split([f"{k}.jpg" for k in range(10)], 0.3)) if held]
    with pytest.raises(UserError, match=r"no split 'test'.*train, val"):
        open_source(data, "test")


def test_other_json_files_are_passed_over(tmp_path):
    write(tmp_path / "settings.json", {"a": 1})
    assert split_names(Data(root=str(tmp_path), format="coco")) == ()
    with pytest.raises(UserError, match="no COCO file"):
        opened(tmp_path)
    with pytest.raises(UserError, match="neither"):
        find_format(Data(root=str(tmp_path)))


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("name", ["result.json", "annotations/result.json"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        (json.dumps(content())[:300], "not a JSON file: Input data was truncated"),
        ({"images": [], "annotations": []}, "not in COCO's format: .*`categories`"),
    ],
)
def test_file_that_is_almost_cocos_is_named(tmp_path, name, by_file, what, words):
    write(tmp_path / name, what)
    with pytest.raises(UserError, match=rf"neither a VOC folder.*COCO's: .*{name}: {words}"):
        find_format(Data(root=str(tmp_path / name if by_file else tmp_path)))


def test_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(UserError, match=r"neither a VOC folder.*result\.json: can't be read \(Is a directory\)"):
        find_format(Data(root=str(tmp_path)))


def test_file_that_lists_images_without_objects(coco):
    """COCO's image_info_test-dev2017.json, beside that of the whole test split."""
    images_alone = {key: value for key, value in content().items() if key != "annotations"}
    for split in ("test", "test-dev"):
        write(coco / "annotations" / f"image_info_{split}2017.json", images_alone)
    write(coco / "annotations" / "image_info_val2017.json", images_alone)
    write_images(coco / "test2017")
    assert split_names(Data(root=str(coco))) == (
        "test-dev2017", "test2017", "train2017", "val2017", "trainval35k", "minival",
    )  # fmt: skip
    for split in ("test", "test-dev", "test-dev2017"):
        source = opened(coco, split)
        assert source.annotation(0).file == str(coco / "test2017" / "one.jpg")
        assert not source.annotated and source.class_names == ("car", "sign", "brush")
        assert [source.annotation(i).number for i in range(2)] == [139, 42]
        assert source.annotation(0).boxes_px.shape == (0, 4)
    assert opened(coco, "val").annotated, "of two files the one with objects"
    write(coco / "annotations" / "instances_val2017.json", content(annotations=[]))
    assert opened(coco, "val").annotated, "no object is something else than nothing said"


# ---- odd boxes ----


@pytest.mark.parametrize("bbox", [[5, 5, 0, 9], [5, 5, 9, 0], [5, 5, -2, 9], [40, 0, 5, 5], [-5, 0, 5, 5]])
def test_box_without_area_inside_the_image_is_left_out_and_noted(coco, bbox):
    entries = [
        {"image_id": 42, "category_id": 3, "bbox": bbox},
        {"image_id": 42, "category_id": 13, "bbox": [0, 0, 9, 9]},
    ]
    write(coco / "annotations" / "instances_val2017.json", content(annotations=entries))
    source = opened(coco)
    np.testing.assert_array_equal(source.annotation(1).labels, [2])
    (note,) = source.notes
    assert note.startswith("1 boxes have no area") and "two.jpg" in note


def test_box_beyond_the_image_is_kept_as_it_stands_and_noted(coco):
    entries = [{"image_id": 42, "category_id": 3, "bbox": [-1, 0, 42, 30]}]
    write(coco / "annotations" / "instances_val2017.json", content(annotations=entries))
    source = opened(coco)
    np.testing.assert_array_equal(source.annotation(1).boxes_px, [[-1, 0, 41, 30]])
    (note,) = source.notes
    assert note.startswith("1 boxes reach beyond") and "two.jpg" in note


# ---- mistakes ----


def without(key, section):
    entries = content()[section]
    del entries[1][key]
    return content(**{section: entries})


def replaced(key, value, section):
    entries = content()[section]
    entries[1][key] = value
    return content(**{section: entries})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("{", "not a JSON file"),
        ("", "not a JSON file"),
        ("[]", "not in COCO's format"),
        ({k: v for k, v in content().items() if k != "categories"}, "`categories`"),
        (without("bbox", "annotations"), "$.annotations[1]"),
        (without("file_name", "images"), "$.images[1]"),
        (without("name", "categories"), "$.categories[1]"),
        (replaced("bbox", [1, 2, 3], "annotations"), "$.annotations[1].bbox"),
        (replaced("bbox", [1, 2, 3, 4, 5], "annotations"), "$.annotations[1].bbox"),
        (replaced("bbox", [1, 2, "3", 4], "annotations"), "$.annotations[1].bbox"),
        (replaced("bbox", None, "annotations"), "$.annotations[1].bbox"),
        (replaced("category_id", 91, "annotations"), "annotations[1] has category_id 91"),
        (replaced("image_id", 5, "annotations"), "annotations[1] is of image 5"),
        (replaced("id", 139, "images"), "139 stands for two images"),
        (replaced("id", 90, "categories"), "90 stands for two categories"),
        (replaced("name", "brush", "categories"), "two categories are called 'brush'"),
        (replaced("width", 0, "images"), "image 42 (two.jpg) is stated as 0 x 30"),
        (content(categories=[], annotations=[]), "'categories' is empty"),
        (content(images=[], annotations=[]), "holds no images"),
    ],
)
def test_malformed_file_is_named_with_the_place(coco, what, words):
    file = coco / "annotations" / "instances_val2017.json"
    write(file, what)
    with pytest.raises(UserError) as error:
        opened(coco)
    assert str(file) in str(error.value) and words in str(error.value)


def test_boxes_that_are_shares_of_the_image_are_refused(coco):
    """All of one image: those of another don't hide them."""
    entries = [
        {"image_id": 139, "category_id": 3, "bbox": [5, 5, 9, 9]},
        {"image_id": 42, "category_id": 3, "bbox": [0.25, 0.5, 0.5, 0.5]},
    ]
    write(coco / "annotations" / "instances_val2017.json", content(annotations=entries))
    with pytest.raises(UserError, match=r"val2017\.json: two\.jpg: its boxes lie between 0 and 1"):
        opened(coco)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_number_that_json_does_not_have_is_shown_with_its_line(coco, value):
    file = coco / "annotations" / "instances_val2017.json"
    write(file, json.dumps(replaced("area", float(value), "annotations"), indent=1))
    line = next(k for k, line in enumerate(file.read_text().splitlines(), start=1) if value in line)
    with pytest.raises(UserError, match=rf'in line {line}: .*"area": {value}.*no NaN or Infinity: write a number'):
        opened(coco)


def test_stray_character_is_shown_with_its_line(coco):
    write(coco / "annotations" / "instances_val2017.json", '{"images": [],\n"categories": (1)}')
    with pytest.raises(UserError, match=r'in line 2: .*"categories": \(1\)}.*Export or copy'):
        opened(coco)


@pytest.mark.parametrize("rest", ['{"bbox": [NaN', '{"bbox": [1, 2', '{"bbox": [1, 2, 1e999, 1]}]}'])
def test_fault_of_the_file_behind_one_of_an_entry_is_named(coco, rest):
    write(coco / "annotations" / "instances_val2017.json", '{"images": [], "annotations": [{}, ' + rest)
    with pytest.raises(UserError, match="not a JSON file"):
        open_coco(Data(root=str(coco)), "val", (), Problems(raise_errors=False))


def test_byte_order_mark(coco):
    file = coco / "annotations" / "instances_val2017.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(opened(coco)) == 2


def test_unknown_class_is_named(coco):
    with pytest.raises(UserError, match=r"instances_val2017\.json.*'brush'"):
        opened(coco, class_names=("car", "sign"))


def test_missing_image_is_named_with_the_folders_searched(coco):
    (coco / "val2017" / "two.jpg").unlink()
    with pytest.raises(UserError, match=r"'two\.jpg' is in none of .*val2017"):
        opened(coco)


def test_image_of_another_size_than_stated_is_refused_when_read(coco):
    Image.new("RGB", (20, 15)).save(coco / "val2017" / "one.jpg")
    with pytest.raises(UserError, match=r"one\.jpg.*20 x 15.*40 x 30"):
        opened(coco).image(0)
