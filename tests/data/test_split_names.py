"""Tests of the names of splits."""

import pytest

from ssd_jax.data.split_names import find_split_name, is_split_name, split_kind, split_of_path
from ssd_jax.errors import UserError


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("train", "train Train TRAINING trainval train2017 train_1 obj_train_data TrainImages custom_train trainset"),
        ("val", "val Valid validate validation dev Eval valid2 instances_Validation labels_val valdata"),
        ("test", "test Testing test2015 test_images my-test"),
        (None, "minival test-dev test-dev2017 train_val all default images eval_results dev_kit contest trains 2017"),
    ],
)
def test_split_kind_recognises_synonyms_as_words(kind, names):
    assert {name: split_kind(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_is_split_name_also_knows_the_splits_of_coco():
    assert all(map(is_split_name, ("minival2014", "test-dev2017", "trainval35k", "valid")))
    assert not any(map(is_split_name, ("images", "minivan", "default")))


@pytest.mark.parametrize(
    ("split", "names", "expected"),
    [
        ("val", ["valid", "val", "dev"], "val"),
        ("val", ["dev", "valid"], "valid"),
        ("valid", ["train", "Validation"], "Validation"),
        ("train", ["Train", "train2017"], "Train"),
        ("train", ["train2017", "trainval2017"], "train2017"),
        ("train", ["trainval", "test"], "trainval"),
        ("trainval", ["train", "val"], None),
        ("train", ["obj_train_data", "obj_valid_data"], "obj_train_data"),
        ("test-dev", ["test-dev2017", "test2017"], "test-dev2017"),
        ("test", ["test-dev2017"], None),
        ("day1", ["day1", "day2"], "day1"),
        ("day", ["day1", "day2x"], "day1"),
        ("train", [], None),
    ],
)
def test_find_split_name_prefers_the_closest_name(split, names, expected):
    assert find_split_name(split, names) == expected


@pytest.mark.parametrize("names", [["val2014", "val2017"], ["a_val", "b_val"], ["eval1", "eval2"]])
def test_find_split_name_rejects_names_that_fit_equally_well(names):
    with pytest.raises(UserError, match=f"'val'.*{names[0]}, {names[1]}"):
        find_split_name("val", names)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("images/train/cam1", "train"), ("Valid/images", "Valid"), ("images", None), ("", None), ("a/test/train", "test")],
)
def test_split_of_path_is_its_first_part_with_the_name_of_a_split(path, expected):
    assert split_of_path(path) == expected
