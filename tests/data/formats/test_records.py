"""Tests of the formats of labelling tools: equal annotations from all of them, and files as people write them."""

import base64
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run_command
from helpers.label_files import (
    BOXES,
    HEADER,
    WITHOUT_EMPTY_IMAGES,
    WRITERS,
    label_studio_value,
    via_region,
    write,
    write_createml,
    write_cvat,
    write_dota,
    write_images,
    write_kitti,
    write_labelme,
    write_open_images,
    write_supervisely,
    write_via,
)

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

SPLITS = {"a.jpg": "train", "b c.png": "train", "ç.jpg": "val"}
ALL = [pytest.param(form, writer, id=writer.__name__[6:]) for form, writers in WRITERS.items() for writer in writers]


def read_objects(root: Path, splits=("train", "val"), problems=None):
    """Return the class and box of each object, by the name of the image, of all images of some splits."""
    found = {}
    for split in splits:
        data = Data(root=str(root), val_split="val" if "val" in splits else splits[0])
        source = open_source(data, split, problems=problems or Problems())
        for annotation in source.annotations():
            names = [source.class_names[label - 1] for label in annotation.labels]
            boxes = [tuple(box) for box in annotation.boxes_px.round(3).tolist()]
            found[Path(annotation.file).name] = list(zip(names, boxes, strict=True))
    return found


@pytest.mark.parametrize(("form", "writer"), ALL)
def test_formats_of_labelling_tools_give_equal_annotations(form, writer, tmp_path):
    writer(tmp_path, BOXES)
    assert find_format(Data(root=str(tmp_path))) == form and split_names(Data(root=str(tmp_path))) == ("train", "val")
    problems = Problems()
    expected = {i: o for i, o in BOXES.items() if o or writer not in WITHOUT_EMPTY_IMAGES}
    assert read_objects(tmp_path, problems=problems) == expected
    allowed = {Kind.HELD_OUT, Kind.LAYOUT} | ({Kind.UNANNOTATED} if writer in WITHOUT_EMPTY_IMAGES else set())
    assert {problem.kind for problem in problems.collected} <= allowed, problems.collected


@pytest.mark.parametrize(("form", "writer"), ALL)
def test_splits_are_the_folders_of_the_annotations(form, writer, tmp_path):
    for split in ("train", "val"):
        writer(tmp_path / split, {image: o for image, o in BOXES.items() if SPLITS[image] == split or image == "a.jpg"})
    names = split_names(Data(root=str(tmp_path)))
    assert names == ("train", "val")
    assert {"a.jpg", "b c.png"} == set(read_objects(tmp_path, ["train"]))
    assert read_objects(tmp_path, ["val"])["a.jpg"] == BOXES["a.jpg"]
    files = [a.file for a in open_source(Data(root=str(tmp_path)), "val").annotations()]
    assert all(Path(file).is_relative_to(tmp_path / "val") for file in files), "not the image of the other split"


@pytest.mark.parametrize(("form", "writer"), ALL)
def test_missing_image_is_an_error_that_names_it(form, writer, tmp_path):
    writer(tmp_path, BOXES)
    next(tmp_path.rglob("b c.png")).unlink()
    problems = Problems(raise_errors=False)
    assert "b c.png" not in read_objects(tmp_path, ["train"], problems)
    lost = [p for p in problems.collected if p.kind in (Kind.MISSING, Kind.NO_IMAGE)]
    assert lost and "b c" in lost[0].text
    if form != "open_images":
        with pytest.raises(UserError, match=r"'.*b c.*' is missing"):
            read_objects(tmp_path, ["train"])


@pytest.mark.parametrize(("form", "writer"), ALL)
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data * 2])
def test_damaged_file_is_never_a_traceback(form, writer, damage, tmp_path):
    writer(tmp_path, BOXES)
    for file in sorted(tmp_path.rglob("*.*")):
        if file.suffix not in (".jpg", ".png"):
            file.write_bytes(damage(file.read_bytes()))
    try:
        read_objects(tmp_path, problems=Problems(raise_errors=False))
    except UserError as error:
        assert str(tmp_path) in str(error)


@pytest.mark.parametrize("writer", [write_labelme, write_supervisely, write_kitti, write_dota])
@pytest.mark.parametrize("content", ['{"version": "5.0", "fla', "cat 0 0 not-a-number\n"])
def test_file_of_one_image_that_is_not_recognised_is_reported(writer, content, tmp_path):
    """A truncated file may have lost everything by which its format is recognised."""
    writer(tmp_path, BOXES)
    (damaged,) = (file for file in tmp_path.rglob("b c*.*") if file.suffix in (".json", ".txt"))
    write(damaged, content)
    problems = Problems(raise_errors=False)
    read_objects(tmp_path, problems=problems)
    assert {Path(p.file) for p in problems.collected if p.kind is Kind.MALFORMED} == {damaged}


def test_split_of_one_table_is_that_of_its_images_or_of_its_column(tmp_path):
    write_images(tmp_path, ["train/a.jpg", "valid/a.jpg", "valid/b.jpg"])
    rows = ["train/a.jpg,1,2,9,9,cat", "valid/a.jpg,1,2,9,9,dog", "valid/b.jpg,1,2,9,9,dog"]
    write(tmp_path / "all.csv", "\n".join(rows))
    assert split_names(Data(root=str(tmp_path))) == ("train", "valid")
    assert read_objects(tmp_path, ["train"]) == {"a.jpg": [("cat", (1, 2, 9, 9))]}
    assert set(read_objects(tmp_path, ["val"])) == {"a.jpg", "b.jpg"}
    write_images(tmp_path / "x", ["a.jpg", "b.jpg"])
    write(
        tmp_path / "x" / "t.csv",
        "image,xmin,ymin,xmax,ymax,class,split\na.jpg,1,2,9,9,cat,test\nb.jpg,1,2,9,9,cat,train",
    )
    assert set(split_names(Data(root=str(tmp_path / "x")))) == {"test", "train", "val"}


def test_tables_named_by_splits_are_splits_and_others_are_told(tmp_path):
    write_images(tmp_path / "images", [f"{k}.jpg" for k in range(4)])
    rows = [f"{k}.jpg,80,60,cat,1,2,9,9" for k in range(4)]
    for name, own in (("train_labels", rows[:2]), ("test_labels", rows[2:]), ("my_labels", rows)):
        write(tmp_path / "data" / f"{name}.csv", "\n".join([HEADER, *own]))
    assert set(split_names(Data(root=str(tmp_path)))) == {"train", "test", "my_labels", "val"}
    assert len(open_source(Data(root=str(tmp_path)), "test")) == 2


def test_wider_face_is_read(tmp_path):
    write_images(tmp_path / "WIDER_train" / "images" / "0--Parade", ["a.jpg", "b.jpg"])
    write_images(tmp_path / "WIDER_val" / "images" / "1--Sport", ["c.jpg"])
    lines = "0--Parade/a.jpg\n2\n10 5 20 15 0 0 0 0 0 0 \n1 2 3 4 2 0 0 1 0 0 \n"
    write(
        tmp_path / "wider_face_split" / "wider_face_train_bbx_gt.txt",
        f"{lines}0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n",
    )
    val_file = tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    write(val_file, "1--Sport/c.jpg\n1\n1 2 3 4 0 0 0 0 0 0 \n")
    assert find_format(Data(root=str(tmp_path))) == "wider_face"
    source = open_source(Data(root=str(tmp_path)), "train")
    assert source.class_names == ("face",) and len(source) == 2
    assert source.annotation(0).boxes_px.tolist() == [[10, 5, 30, 20], [1, 2, 4, 6]]
    assert source.annotation(0).difficult.tolist() == [False, True] and len(source.annotation(1).labels) == 0
    assert len(open_source(Data(root=str(tmp_path)), "val")) == 1
    write(val_file, "1--Sport/c.jpg\n2\n1 2 3 4 0 0 0 0 0 0 \n")
    with pytest.raises(UserError, match=r"line 1 \(1--Sport/c.jpg\) is followed by 1 faces, but states 2"):
        open_source(Data(root=str(tmp_path)), "val")


# ---- outlines ----


def png_bitmap(width, height):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\1\0\0\0\0"
    return base64.b64encode(zlib.compress(header + b"\0" * 100)).decode()


TURNED = (34.226, 14.226, 55.774, 35.774)
"""Box around the box (35, 20, 55, 30) that is turned by 40 degrees about its centre, rounded."""


def write_outlines_labelme(root):
    shapes = [
        {"label": "cat", "points": [[1, 2], [30, 5], [10, 40]], "shape_type": "polygon"},
        {"label": "cat", "points": [[40, 30], [43, 34]], "shape_type": "circle"},
        {"label": "cat", "points": [[5, 6]], "shape_type": "point"},
    ]
    write(root / "a.json", {"shapes": shapes, "imagePath": "a.jpg"})
    return [(1, 2, 30, 40), (35, 25, 45, 35)]


def write_outlines_cvat(root):
    shapes = '<polygon label="cat" points="1,2;30,5;10,40"/><ellipse label="cat" cx="40" cy="30" rx="5" ry="8"/>'
    shapes += '<box label="cat" xtl="35" ytl="20" xbr="55" ybr="30" rotation="90"/><mask label="cat" left="3" top="4" '
    shapes += 'width="5" height="6" rle="1, 2"/><points label="cat" points="1,2"/>'
    write(root / "a.xml", f'<annotations><image id="0" name="a.jpg">{shapes}</image></annotations>')
    return [(1, 2, 30, 40), (35, 22, 45, 38), (40, 15, 50, 35), (3, 4, 8, 10)]


def write_outlines_via(root):
    shapes = [
        {"name": "polygon", "all_points_x": [1, 30, 10], "all_points_y": [2, 5, 40]},
        {"name": "circle", "cx": 40, "cy": 30, "r": 5},
        {"name": "ellipse", "cx": 40, "cy": 30, "rx": 8, "ry": 5, "theta": np.pi / 2},
        {"name": "point", "cx": 4, "cy": 3},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"kind": {"cat": True}}} for shape in shapes]
    write(root / "a.json", {"a.jpg1": {"filename": "a.jpg", "regions": regions, "file_attributes": {}}})
    return [(1, 2, 30, 40), (35, 25, 45, 35), (35, 22, 45, 38)]


def write_outlines_label_studio(root):
    sides = {"original_width": 80, "original_height": 60}

    def region(kind, **value):
        return {"id": str(value), "type": kind, "value": value | {kind: ["cat"]}, **sides}

    results = [
        region("polygonlabels", points=[[1.25, 10], [37.5, 20], [12.5, 50]]),
        region("ellipselabels", x=50, y=50, radiusX=6.25, radiusY=10),
        # A box of 40 x 30 px whose top left corner is at (40, 30), turned by 90 degrees clockwise about this corner.
        region("rectanglelabels", x=50, y=50, width=50, height=50, rotation=90),
        region("keypointlabels", x=1, y=1, width=1),
    ]
    write(root / "a.json", [{"data": {"image": "a.jpg"}, "annotations": [{"result": results}]}])
    return [(1, 6, 30, 30), (35, 24, 45, 36), (10, 30, 40, 70)]


def write_outlines_supervisely(root):
    entries = [
        {"geometryType": "polygon", "points": {"exterior": [[1, 2], [30, 5], [10, 40]]}},
        {"geometryType": "bitmap", "bitmap": {"origin": [7, 9], "data": png_bitmap(20, 10)}},
        {"geometryType": "point", "points": {"exterior": [[1, 2]]}},
    ]
    entries = [entry | {"classTitle": "cat"} for entry in entries]
    write(root / "a.jpg.json", {"size": {"width": 80, "height": 60}, "objects": entries})
    return [(1, 2, 30, 40), (7, 9, 27, 19)]


def write_outlines_dota(root):
    write(root / "a.txt", "imagesource:GoogleEarth\ngsd:0.1\n10 5 20 15 10 25 0 15 cat 1\n")
    return [(0, 5, 20, 25)]


def write_outlines_yolo(root):
    write(root / "classes.txt", "cat\n")
    write(root / "a.txt", "0 0.5 0.1 0.75 0.2 0.5 0.3 0.25 0.2\n")
    return [(20, 6, 60, 18)]


@pytest.mark.parametrize(
    "writer",
    [
        write_outlines_labelme,
        write_outlines_cvat,
        write_outlines_via,
        write_outlines_label_studio,
        write_outlines_supervisely,
        write_outlines_dota,
        write_outlines_yolo,
    ],
)
def test_outlines_become_the_box_around_them_with_a_note(writer, tmp_path):
    write_images(tmp_path, ["a.jpg"])
    expected = writer(tmp_path)
    problems = Problems()
    source = open_source(Data(root=str(tmp_path)), "train", problems=problems)
    np.testing.assert_allclose(source.annotation(0).boxes_px, expected, atol=1e-4)
    kinds = [problem.kind for problem in problems.collected]
    assert kinds.count(Kind.OUTLINES) == 1
    has_points = writer not in (write_outlines_dota, write_outlines_yolo)
    assert kinds.count(Kind.NO_BOX) == has_points, "points are no boxes"


def test_rotated_box_of_cvat_matches_a_rotation_of_its_corners(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    box = '<box label="cat" xtl="35" ytl="20" xbr="55" ybr="30" rotation="40"/>'
    write(tmp_path / "a.xml", f'<annotations><image id="0" name="a.jpg">{box}</image></annotations>')
    turn = np.exp(1j * np.radians(40))  # as complex numbers, with the y axis pointing down
    points = [45 + 25j + complex(x, y) * turn for x in (-10, 10) for y in (-5, 5)]
    expected = [min(p.real for p in points), min(p.imag for p in points)]
    expected += [max(p.real for p in points), max(p.imag for p in points)]
    source = open_source(Data(root=str(tmp_path)), "train")
    np.testing.assert_allclose(source.annotation(0).boxes_px, [expected], atol=1e-4)


# ---- files as people write them ----


def test_table_in_windows_1252_is_read_with_a_warning(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    write(tmp_path / "labels.csv", f"{HEADER}\na.jpg,80,60,Bär,1,2,9,9\nb.jpg,80,60,Bär,1,2,9,9", "cp1252")
    problems = Problems()
    assert read_objects(tmp_path, problems=problems)["a.jpg"] == [("Bär", (1, 2, 9, 9))]
    assert Kind.OTHER_ENCODING in [problem.kind for problem in problems.collected]


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("a.jpg,80,60,cat,9,9,1,2", Kind.SWAPPED, "line 3"),
        ("a.jpg,80,60,cat,-5,2,9,9", Kind.OUT_OF_IMAGE, "line 3"),
        ("a.jpg,80,60,cat,90,2,99,9", Kind.NO_AREA, "line 3"),
        ("a.jpg,80,60,cat,1,2,9,9", Kind.DUPLICATE, "same as line 2"),
        ("a.jpg,80,60,cat,1,2,9,x", Kind.MALFORMED, "line 3 has 'x'"),
        ("a.jpg,80,60,cat,1,2,9,nan", Kind.MALFORMED, "line 3 has 'nan'"),
        ("a.jpg,80,60,,1,2,9,9", Kind.MALFORMED, "line 3 has no class name"),
        ("a.jpg,80,60,cat,1,2,9", Kind.MALFORMED, "line 3 has 7 columns"),
        (",80,60,cat,1,2,9,9", Kind.MALFORMED, "line 3 names no image"),
        ("c.jpg,80,60,cat,1,2,9,9", Kind.MISSING, "'c.jpg' is missing"),
        ("b.jpg,800,600,cat,1,2,9,9", Kind.SIZE_DIFFERS, "800 x 600"),
        ("b.jpg,80,60,cat,.1,.2,.9,.9", Kind.MALFORMED, "normalised"),
    ],
)
def test_mistake_in_a_row_is_told_with_its_line(row, kind, words, tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    write(tmp_path / "labels.csv", f"{HEADER}\na.jpg,80,60,cat,1,2,9,9\n{row}\n")
    problems = Problems(raise_errors=False)
    read_objects(tmp_path, ["train"], problems)
    assert any(problem.kind is kind and words in problem.text for problem in problems.collected), problems.collected


@pytest.mark.parametrize(("writer", "key"), [(write_createml, "annotations"), (write_via, "regions")])
def test_image_without_the_list_of_its_objects_is_an_error(writer, key, tmp_path):
    writer(tmp_path, BOXES)
    (file,) = tmp_path.glob("*.json")
    file.write_text(file.read_text().replace(f'"{key}"', f'"{key[:-1]}Z"', 1))
    with pytest.raises(UserError, match=f"a.jpg.* has no .*{key}"):
        read_objects(tmp_path)


def test_row_with_only_an_image_is_an_image_without_objects(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    write(tmp_path / "labels.csv", f"{HEADER}\na.jpg,80,60,cat,1,2,9,9\nb.jpg\n")
    assert read_objects(tmp_path) == {"a.jpg": [("cat", (1, 2, 9, 9))], "b.jpg": []}


def test_image_with_records_in_two_files_has_the_objects_of_both(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    same = "a.jpg,80,60,cat,1,2,9,9"  # as in two exports of the same annotations
    for name, row in (("one", ""), ("two", "a.jpg,80,60,dog,11,12,19,19")):
        write(tmp_path / f"{name}.csv", f"{HEADER}\n{same}\n{row}\n")
    problems = Problems()
    assert len(read_objects(tmp_path, ["train"], problems)["a.jpg"]) == 2
    assert Kind.JOINED in [problem.kind for problem in problems.collected]


def test_folder_whose_annotations_are_damaged_is_told(tmp_path):
    for split in ("train", "val"):
        write_createml(tmp_path / split, {"a.jpg": BOXES["a.jpg"]})
    file = tmp_path / "val" / "_annotations.createml.json"
    file.write_text(file.read_text().replace("coordinates", "c"))  # no format has such entries
    problems = Problems()
    open_source(Data(root=str(tmp_path)), "train", problems=problems)
    told = {problem.file: problem.text for problem in problems.collected if problem.kind is Kind.UNANNOTATED}
    assert told == {str(tmp_path / "val"): "has 1 images that no annotation file names"}


def test_images_of_the_camera_of_kitti_with_the_number_of_the_labels_are_used(tmp_path):
    write_kitti(tmp_path, BOXES)
    (tmp_path / "image_2").rename(tmp_path / "image_0")
    for number in (3, 2):
        write_images(tmp_path / f"image_{number}", BOXES)
    files = [a.file for split in ("train", "val") for a in open_source(Data(root=str(tmp_path)), split).annotations()]
    assert {Path(file).parent.name for file in files} == {"image_2"} and len(files) == len(BOXES)


def test_labels_of_dont_care_and_groups_are_told_or_kept_as_crowds(tmp_path):
    write_kitti(tmp_path / "k", {"a.jpg": [("DontCare", (1, 2, 9, 9)), ("Car", (1, 2, 19, 19))]})
    problems = Problems()
    assert read_objects(tmp_path / "k", ["train"], problems) == {"a.jpg": [("Car", (1, 2, 19, 19))]}
    assert [p.text for p in problems.collected if p.kind is Kind.NO_BOX] == ["line 1 (DontCare)"]
    write_open_images(tmp_path / "o", {"a.jpg": [("cat", (1, 2, 9, 9))]})
    file = tmp_path / "o" / "annotations-bbox.csv"
    file.write_text(file.read_text().removesuffix("0") + "1")
    assert open_source(Data(root=str(tmp_path / "o")), "train").annotation(0).crowd.tolist() == [True]


def test_latest_annotation_of_a_label_studio_task_is_used(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])

    def annotation(time, *names, **flags):
        return {"created_at": time, "result": [{"value": label_studio_value(n, (1, 2, 9, 9))} for n in names]} | flags

    tasks = [
        {"data": {"image": "a.jpg"}, "annotations": [annotation("2024", "dog"), annotation("2023", "cat", "cat")]},
        {"data": {"image": "b.jpg"}, "annotations": [annotation("2023", "cat", was_cancelled=True)]},
        {"data": {"image": "c.jpg"}, "annotations": [annotation("2023", "cat")], "predictions": [{"result": [1]}]},
    ]
    write(tmp_path / "x.json", tasks)
    problems = Problems()
    found = read_objects(tmp_path, problems=problems)
    assert found == {"a.jpg": [("dog", (1, 2, 9, 9))], "c.jpg": [("cat", (1, 2, 9, 9))]}
    assert {p.kind for p in problems.collected} >= {Kind.SECOND_VALUE, Kind.UNANNOTATED}


def test_box_and_class_of_a_label_studio_region_may_be_separate(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    value = label_studio_value("", (1, 2, 9, 9))
    del value["rectanglelabels"]
    results = [{"id": "r", "type": "rectangle", "value": value}]
    results += [{"id": "r", "type": "labels", "value": value | {"labels": ["cat"]}}]
    write(
        tmp_path / "x.json",
        [
            {"data": {"url": "s3://b/a.jpg?x=1"}, "annotations": [{"result": results}]},
        ],
    )
    write(tmp_path / "x.json", (tmp_path / "x.json").read_text().replace('"type"', '"from_name": "l", "type"'))
    assert read_objects(tmp_path, ["train"]) == {"a.jpg": [("cat", (1, 2, 9, 9))]}


def test_subsets_flags_and_class_order_of_cvat_are_read(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    names = "".join(f"<label><name>{n}</name></label>" for n in ("zebra", "ant", "unused"))
    box = '<box label="{}" xtl="1" ytl="2" xbr="9" ybr="9"><attribute name="difficult">true</attribute></box>'
    images = f'<image name="a.jpg" subset="Train">{box.format("ant")}</image>'
    images += f'<image name="b.jpg" subset="Validation">{box.format("zebra")}</image>'
    write(tmp_path / "x.xml", f"<annotations><meta><task><labels>{names}</labels></task></meta>{images}</annotations>")
    source = open_source(Data(root=str(tmp_path)), "train")
    assert source.class_names == ("zebra", "ant", "unused") and source.annotation(0).difficult.tolist() == [True]
    assert split_names(Data(root=str(tmp_path))) == ("Train", "Validation")


def test_regions_without_attributes_are_of_the_class_object(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    entry = via_region("", (1, 2, 9, 9)) | {"region_attributes": {}}
    write(tmp_path / "v.json", {"a": {"filename": "a.jpg", "regions": [entry], "file_attributes": {}}})
    problems = Problems()
    assert read_objects(tmp_path, ["train"], problems) == {"a.jpg": [("object", (1, 2, 9, 9))]}
    assert any("'object'" in p.text for p in problems.collected if p.kind is Kind.LAYOUT)


def test_annotations_without_an_image_of_their_own_folder_are_matched_by_the_closest(tmp_path):
    write_images(tmp_path, ["one/img/a.jpg", "two/img/a.jpg"])
    for place, name in (("one", "cat"), ("two", "dog")):
        shapes = [{"label": name, "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}]
        write(tmp_path / place / "ann" / "a.json", {"shapes": shapes, "imagePath": "a.jpg"})
    sources = [open_source(Data(root=str(tmp_path)), split) for split in ("train", "val")]
    found = {a.file: source.class_names[a.labels[0] - 1] for source in sources for a in source.annotations()}
    assert found == {str(tmp_path / "one/img/a.jpg"): "cat", str(tmp_path / "two/img/a.jpg"): "dog"}


def test_single_annotation_file_is_accepted_as_root(tmp_path):
    write_cvat(tmp_path, BOXES)
    assert set(read_objects(tmp_path / "annotations.xml")) == set(BOXES)


def test_deeply_nested_and_expanding_files_are_refused(tmp_path):
    write_images(tmp_path, ["a.jpg"])
    write(tmp_path / "a.json", '{"imagePath": "a.jpg", "shapes": [' + '{"points": ' + "[" * 100_000)
    with pytest.raises(UserError):
        open_source(Data(root=str(tmp_path)), "train")
    (tmp_path / "a.json").unlink()
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 12))
    write(
        tmp_path / "a.xml", f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}]><annotations><image name="&e11;"/></annotations>'
    )
    with pytest.raises(UserError):
        open_source(Data(root=str(tmp_path)), "train")


def test_check_data_accepts_a_format_by_its_folder_alone(tmp_path, capsys):
    write_labelme(tmp_path / "set", BOXES)
    assert run_command("check-data", "own_data", "--data.root", tmp_path / "set", "--out", tmp_path / "out") in (0, 1)
    assert "labelme" not in capsys.readouterr().out.lower(), "it is read as any other format"
    counts = json.loads((tmp_path / "out" / "check.json").read_text())["splits"]
    assert sum(sum(split["objects"].values()) for split in counts.values()) == 3
