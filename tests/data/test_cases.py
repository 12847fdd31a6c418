"""Tests of small folders as labelling tools and people write them.

The folders are not part of the repository. The environment variable SSD_JAX_TEST_CASES names the folder that contains
them, and its README describes each of them. Most images have two boxes, a red and a green one.
"""

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers.tiny_config import get_config

from ssd_jax.config import Data
from ssd_jax.data.check.checks import DataSetCheck, check_data_set
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.image import read_image
from ssd_jax.data.problems import Kind, Problem, Problems
from ssd_jax.errors import UserError
from ssd_jax.inputs.finding import find_inputs
from ssd_jax.runs.run_folder import read_config

COCO = {"train": 16, "val": 6}
"""Number of objects in the splits of most COCO and YOLO folders: two in each of 8 and 3 images."""
SMALL = {"train": 12, "val": 6}
ALL_VOC = 16
"""Number of objects of most VOC folders, which have 8 images and no splits."""
HELD_OUT = {Kind.HELD_OUT: "no val split"}


class Outcome(NamedTuple):
    """Expected outcome of the check of a folder."""

    objects: Mapping[str, int] | int
    """Number of objects in each split, or in train and val together if images are held out of train."""
    problems: Mapping[Kind, str]
    """Regular expression by kind that the file and text of at least one problem match. There are no other kinds."""


OUTCOMES = {
    "c_appledouble": Outcome(ALL_VOC, HELD_OUT),
    "c_caps": Outcome(COCO, {}),
    "c_colab": Outcome(COCO, {Kind.NAME_DIFFERS: r"data\.yaml.*content/drive.* is images/val"}),
    "c_cvat_img": Outcome(12, HELD_OUT),
    "c_cvat_yolo": Outcome(SMALL, {}),
    "c_cvat_yolo1": Outcome(ALL_VOC, HELD_OUT),
    "c_diff": Outcome(ALL_VOC, HELD_OUT | {Kind.FIELD_IGNORED: r"p00\.xml.*difficult.*Unspecified"}),
    "c_idea": Outcome(COCO, {}),
    "c_nested": Outcome(ALL_VOC, HELD_OUT),
    "c_nested1": Outcome(ALL_VOC, HELD_OUT),
    "c_rf_same": Outcome(SMALL, {}),
    "c_voc_sub": Outcome(SMALL, {Kind.LAYOUT: r"annotations/.*images/"}),
    "d_annidstr": Outcome(COCO, {}),
    "d_cvatcoco": Outcome(COCO, {}),
    "d_dupann": Outcome(COCO, {Kind.REPEATED_ID: r"instances_train\.json"}),
    "d_dupfile": Outcome(COCO, {Kind.JOINED: r"t00\.jpg.*2 records"}),
    "d_emptybbox1": Outcome(COCO, {Kind.OUTLINES: "polygon without bbox"}),
    "d_fiftyone": Outcome(COCO, {}),
    "d_floatid": Outcome(COCO, {}),
    "d_nfd": Outcome(COCO, {Kind.NAME_DIFFERS: "t00"}),
    "d_nobbox": Outcome(COCO, {Kind.OUTLINES: "polygon without bbox"}),
    "d_nowh": Outcome(COCO, {}),
    "d_nullwh": Outcome(COCO, {}),
    "d_pct": Outcome(COCO, {Kind.NAME_DIFFERS: "photos of t00"}),
    "d_strid": Outcome(COCO, {}),
    "d_url": Outcome(COCO, {Kind.NAME_DIFFERS: r"sig=abc"}),
    "d_allempty": Outcome({"train": 0, "val": 0}, {Kind.NO_OBJECTS: "'train' have no object", Kind.NO_BEST: "'val'"}),
    "d_valempty": Outcome({"train": 16, "val": 0}, {Kind.NO_BEST: "'val' have no object.*best checkpoint"}),
    "e_gbk": Outcome(ALL_VOC, HELD_OUT),
    "e_jfif": Outcome(ALL_VOC, HELD_OUT),
    "e_masks_yolo": Outcome(COCO, {Kind.SAME_NAME: r"q00\.png.*mask"}),
    "e_pose_noyaml": Outcome(COCO, {Kind.LAYOUT: "keypoints are ignored"}),
    "e_voc_lists_abs": Outcome({"train": 12, "val": 4}, {}),
    "e_voc_lists_rel": Outcome({"train": 12, "val": 2}, {Kind.IN_NO_SPLIT: "p07"}),
    "g_dollar": Outcome(COCO, {}),
    "g_tif3": Outcome(COCO, {}),
    "h_both": Outcome(ALL_VOC, HELD_OUT | {Kind.TWO_FORMATS: "VOC is used"}),
    "h_sliver": Outcome(32, HELD_OUT | {Kind.SLIVER: r"p00\.jpg.*159\.999"}),
    "hostile/json_i64": Outcome(4, HELD_OUT),
    "j_cvat_ultra": Outcome(ALL_VOC, HELD_OUT | {Kind.IN_NO_SPLIT: r"images/val/q00\.jpg"}),
    "j_cvatvoc": Outcome(ALL_VOC, HELD_OUT),
    "j_fo_voc": Outcome(ALL_VOC, HELD_OUT | {Kind.LAYOUT: r"labels/.*data/"}),
    "j_imgroot": Outcome(ALL_VOC, HELD_OUT | {Kind.LAYOUT: "labels/"}),
    "j_trainlabels": Outcome(SMALL, {Kind.LAYOUT: r"train.labels.*train.img"}),
    "j_trainonly": Outcome(ALL_VOC, HELD_OUT),
    "m_jpgxml": Outcome(ALL_VOC, HELD_OUT),
    "n_add": Outcome(SMALL, {Kind.MANY_EMPTY: "5 of the 11 images", Kind.UNANNOTATED: r"images/train.* 2 images"}),
}
"""Expected outcome of each folder that can be read."""

REFUSED = {
    "hostile/yaml_lol_train": r"data\.yaml: .*aliases expand",
    "jfifdir": "no known format",
    "m_dupkey": r"data\.yaml: line 5 has the key '0' a second time",
}
"""Regular expression of the error message of each folder that cannot be read."""


@pytest.fixture(scope="module")
def cases() -> Path:
    """Folder of the small folders."""
    folder = os.environ.get("SSD_JAX_TEST_CASES")
    if folder is None:
        pytest.skip("needs small odd folders: set SSD_JAX_TEST_CASES to the folder that contains them")
    return Path(folder)


def check_folder(root: Path) -> DataSetCheck:
    """Check the annotations of a folder without decoding its images, and return the result."""
    config = get_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(root), max_objects=16))
    return check_data_set(config, read_images=False, problems=Problems(raise_errors=False))


def count_objects(check: DataSetCheck) -> dict[str, int]:
    return {split: sum(count.objects.values()) for split, count in check.counts.items()}


@pytest.mark.parametrize("name", OUTCOMES)
def test_check_finds_all_objects_and_exactly_the_expected_problems(cases, name):
    expected = OUTCOMES[name]
    check = check_folder(cases / name)
    objects = count_objects(check)
    if isinstance(expected.objects, int):
        assert sum(objects.values()) == expected.objects
        assert objects["train"] > objects["val"] > 0
    else:
        assert objects == expected.objects
    by_kind: dict[Kind, list[Problem]] = {}
    for problem in check.problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    assert set(by_kind) == set(expected.problems), check.problems
    for kind, pattern in expected.problems.items():
        lines = [f"{problem.file}: {problem.text}" for problem in by_kind[kind]]
        assert any(re.search(pattern, line) for line in lines), lines


@pytest.mark.parametrize("name", REFUSED)
def test_check_refuses_a_folder_that_cannot_be_read_in_one_sentence(cases, name):
    with pytest.raises(UserError, match=REFUSED[name]):
        check_folder(cases / name)


def test_deep_nesting_in_an_unused_field_is_harmless(cases):
    """The polygon of an object is nested 5,000 deep. Python 3.13 reads such files, and older versions do not."""
    try:
        check = check_folder(cases / "hostile" / "json_deep5k")
    except UserError as error:
        assert re.search(r"train\.json: .*nested too deeply", str(error))
    else:
        assert sum(count.images for count in check.counts.values()) == 4


def test_classes_of_the_group_category_of_roboflow_are_joined(cases):
    assert check_folder(cases / "c_rf_same").splits["train"].class_names == ("red",)


def test_class_names_are_read_in_the_declared_encoding(cases):
    assert "红" in check_folder(cases / "e_gbk").splits["train"].class_names


def test_masks_are_not_images_of_the_data_set(cases):
    counts = check_folder(cases / "e_masks_yolo").counts
    assert {split: count.images for split, count in counts.items()} == {"train": 8, "val": 3}


def test_rotated_tiff_files_have_the_pixels_of_the_upright_jpeg_files(cases):
    for split in ("train", "val"):
        tiff, jpeg = (open_source(Data(root=str(cases / name)), split) for name in ("g_tif3", "d_dupann"))
        for index in range(len(jpeg)):
            difference = np.abs(tiff.image(index).astype(int) - jpeg.image(index))
            assert difference.mean() < 3, tiff.annotation(index).file


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("c_appledouble/JPEGImages", [f"p0{i}.jpg" for i in range(8)]),
        ("heicdir", ["IMG_0001.HEIC", "a.jpg"]),
        ("jfifdir", ["a.jpg", "b.jfif", "exif6.avif", "jp2.jp2"]),
        ("pics", ["grey12in16.png", "noeoi.jpg"]),
    ],
)
def test_find_inputs_finds_photographs_with_all_endings(cases, tmp_path, folder, names):
    found = find_inputs([cases / folder], tmp_path)
    assert sorted(Path(item.location).name for item in found.inputs) == names
    assert bool(found.skipped) == (folder == "c_appledouble/JPEGImages")


@pytest.mark.parametrize("file", ["pics/grey12in16.png", "pics/noeoi.jpg", "jfifdir/b.jfif", "jfifdir/exif6.avif"])
def test_read_image_returns_a_bright_image(cases, file):
    assert read_image(str(cases / file)).mean() > 60


def test_read_image_refuses_a_small_file_that_claims_many_pixels(cases):
    with pytest.raises(UserError, match=r"claim65500\.jpg.*65500 x 65500"):
        read_image(str(cases / "hostile" / "claim65500.jpg"))


def test_read_config_refuses_a_stride_of_zero(cases, tmp_path):
    shutil.copy(cases / "hostile" / "stride0.json", tmp_path / "config.json")
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path)
