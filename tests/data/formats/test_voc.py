"""Tests of reading the VOC format: layouts, splits, and malformed files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_source, split_names
from ssd_jax.data.formats.voc_xml import parse_voc_xml
from ssd_jax.data.image import reduce_to_fit
from ssd_jax.data.loader import train_batches
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import RawObject, clip_box
from ssd_jax.data.split_names import split_by_hash
from ssd_jax.errors import UserError


def make_object_xml(name="cat", box=(1, 2, 30, 20), extra=""):
    edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{edges}</bndbox></object>"


def make_annotation_xml(*objects, size="<size><width>40</width><height>30</height></size>", filename="other.jpg"):
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def write_voc_image(folder: Path, stem: str, xml: str, images=None, extension=".jpg", size=(40, 30)):
    for target in (folder, images or folder):
        target.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.xml").write_text(xml)
    Image.new("RGB", size, "navy").save((images or folder) / f"{stem}{extension}", "PNG")


@pytest.fixture
def voc_folder(tmp_path):
    """Create a VOC folder with three images, and return the path.

    Images a (one cat) and b (no objects) are in train; image c (a dog and a difficult cat) is in val.
    """
    images = tmp_path / "JPEGImages"
    write_voc_image(tmp_path / "Annotations", "a", make_annotation_xml(make_object_xml()), images)
    write_voc_image(tmp_path / "Annotations", "b", make_annotation_xml(), images)
    both = make_object_xml("dog", (0.5, 0, 40, 30)), make_object_xml("cat", (3, 4, 5, 6), "<difficult>1</difficult>")
    write_voc_image(tmp_path / "Annotations", "c", make_annotation_xml(*both), images)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n\nb \n")
    (lists / "val.txt").write_text("c\n")
    (lists / "cat_train.txt").write_text("a  1\nb -1\n")
    return tmp_path


def open_folder(root, split="train", class_names=(), **data):
    return open_source(Data(root=str(root), **data), split, class_names)


def write_annotation(root, xml, stem="a"):
    (root / "Annotations" / f"{stem}.xml").write_text(xml)


def test_annotations_have_the_boxes_of_the_file(voc_folder):
    source = open_folder(voc_folder, "val")
    annotation = source.annotation(0)
    assert source.class_names == ("cat", "dog") and len(source) == 1 and source.notes == ()
    assert (annotation.image_id, annotation.width, annotation.height) == ("c", 40, 30)
    assert annotation.file == str(voc_folder / "JPEGImages" / "c.jpg")
    np.testing.assert_array_equal(annotation.boxes_px, [[0.5, 0, 40, 30], [3, 4, 5, 6]])
    np.testing.assert_array_equal(annotation.labels, [2, 1])
    np.testing.assert_array_equal(annotation.difficult, [False, True])
    np.testing.assert_array_equal(annotation.crowd, [False, False])
    np.testing.assert_array_equal(annotation.area_px, [39.5 * 30, 4])
    assert source.image(0).shape == (30, 40, 3)


def test_image_without_objects_is_kept(voc_folder):
    source = open_folder(voc_folder)
    assert [annotation.image_id for annotation in source.annotations()] == ["a", "b"]
    assert source.annotation(1).boxes_px.shape == (0, 4)


def test_split_names_exclude_lists_of_single_classes(voc_folder):
    assert split_names(Data(root=str(voc_folder))) == ("train", "val")
    assert find_format(Data(root=str(voc_folder))) == "voc"


def test_list_with_a_second_column_is_read_as_a_split(voc_folder):
    (voc_folder / "ImageSets" / "Main" / "pets.txt").write_text("c  1\na -1\nc  1\n")
    source = open_folder(voc_folder, "pets")
    assert [annotation.image_id for annotation in source.annotations()] == ["c", "a"]


def test_class_names_are_collected_from_all_splits(voc_folder):
    assert open_folder(voc_folder, "train").class_names == open_folder(voc_folder, "val").class_names == ("cat", "dog")


def test_given_class_names_determine_the_labels(voc_folder):
    source = open_folder(voc_folder, "val", ("bird", "dog", "cat"))
    np.testing.assert_array_equal(source.annotation(0).labels, [2, 3])


def test_parts_of_objects_are_ignored(voc_folder):
    """Read an object with a <part>, which has a name and a box of its own, such as the heads and hands in VOC 2012."""
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(extra=part)))
    assert open_folder(voc_folder).class_names == ("cat", "dog")


# ---- layouts ----


@pytest.mark.parametrize("images", ["images", "Images", "JPEGImages", "annotations"])
@pytest.mark.parametrize("extension", [".jpg", ".JPG", ".jpeg", ".PNG"])
def test_folder_without_lists_is_split_by_hash(tmp_path, images, extension):
    for k in range(12):
        write_voc_image(
            tmp_path / "annotations", f"i{k}", make_annotation_xml(make_object_xml()), tmp_path / images, extension
        )
    parts = [open_folder(tmp_path, split, val_fraction=0.3) for split in ("train", "val")]
    ids = [[annotation.image_id for annotation in part.annotations()] for part in parts]
    every = sorted(f"i{k}" for k in range(12))
    assert sorted(ids[0] + ids[1]) == every
    assert ids[1] == [image_id for image_id, in_val in zip(every, split_by_hash(every, 0.3), strict=True) if in_val]
    with pytest.raises(UserError, match=r"'test'.*train, val"):
        open_folder(tmp_path, "test")


def test_images_in_the_folder_of_the_annotations_are_found(tmp_path):
    for k in range(4):
        write_voc_image(tmp_path, f"i{k}", make_annotation_xml(make_object_xml()))
    data = Data(root=str(tmp_path))
    assert find_format(data) == "voc"
    assert len(open_source(data, "train")) + len(open_source(data, "val")) == 4


def test_lists_of_single_classes_are_joined_if_there_are_no_others(voc_folder):
    """Read lists as in VoTT's exports, where each list names the images of one class."""
    lists = voc_folder / "ImageSets" / "Main"
    for name in ("train", "val", "cat_train"):
        (lists / f"{name}.txt").unlink()
    for name, text in (("cat_train", "a.jpg 1\n"), ("dog_train", "b.jpg -1\na.jpg -1\n"), ("dog_val", "c.jpg 1\n")):
        (lists / f"{name}.txt").write_text(text)
    assert split_names(Data(root=str(voc_folder))) == ("train", "val")
    assert [annotation.image_id for annotation in open_folder(voc_folder).annotations()] == ["a", "b"]
    assert [annotation.image_id for annotation in open_folder(voc_folder, "val").annotations()] == ["c"]


def test_folders_are_read_as_splits(tmp_path):
    write_voc_image(tmp_path / "train", "a", make_annotation_xml(make_object_xml("cat")))
    write_voc_image(tmp_path / "valid", "b", make_annotation_xml(make_object_xml("ant")))
    source = open_folder(tmp_path, "val")
    assert source.annotation(0).image_id == "b"
    assert source.class_names == ("ant", "cat")
    with pytest.raises(UserError, match=r"'test'.*train, valid"):
        open_folder(tmp_path, "test")


def test_image_without_annotation_is_left_out_with_a_note(tmp_path):
    for k in range(4):
        write_voc_image(tmp_path, f"i{k}", make_annotation_xml(make_object_xml()))
    Image.new("RGB", (4, 4)).save(tmp_path / "stray.png")
    notes = open_folder(tmp_path).notes
    assert any(note.startswith("1 ") and "annotation file" in note and "stray.png" in note for note in notes)


def test_filename_selects_between_images_of_the_same_stem(voc_folder):
    Image.new("RGB", (40, 30)).save(voc_folder / "JPEGImages" / "a.png")
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(), filename="a.png"))
    assert open_folder(voc_folder).annotation(0).file.endswith("a.png")


def test_image_with_another_name_is_found_by_filename(voc_folder):
    (voc_folder / "JPEGImages" / "a.jpg").rename(voc_folder / "JPEGImages" / "other.jpg")
    assert open_folder(voc_folder).annotation(0).file.endswith("other.jpg")


def test_copied_annotation_does_not_use_the_image_of_the_original(voc_folder):
    """Check that a.xml, a copy of b.xml, is not read with the image of b.xml if the image of a.xml is missing."""
    (voc_folder / "JPEGImages" / "a.jpg").unlink()
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(), filename="b.jpg"))
    with pytest.raises(UserError, match=r"a\.xml: .*image"):
        open_folder(voc_folder)


def test_split_by_hash_assigns_an_image_independently_of_other_images():
    ids = [f"image_{k}" for k in range(1000)]
    in_val = split_by_hash(ids, 0.1)
    assert 70 < sum(in_val) < 130  # three standard deviations are 28 images
    assert split_by_hash(ids[::2], 0.1) == in_val[::2]
    # "printf image_0 | b2sum -l 64" and so on print e7cc..., a27d..., 8366... and 1bf5..., which are .905, .635, .513
    # and .109 times 2**64.
    assert split_by_hash(ids[:4], 0.6) == [False, False, True, True]


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_split_by_hash_puts_one_of_two_images_into_val(fraction):
    assert sorted(split_by_hash(["a", "b"], fraction)) == [False, True]
    assert split_by_hash(["a"], 1e-9) == split_by_hash(["a"], 1 - 1e-9) == [False] and split_by_hash([], 0.5) == []


# ---- sizes and odd boxes ----


@pytest.mark.parametrize(
    "size", ["", "<size><width>0</width><height>0</height></size>", "<size><width>w</width></size>"]
)
def test_missing_size_is_read_from_the_image(voc_folder, size):
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(), size=size))
    assert open_folder(voc_folder).annotation(0)[2:4] == (40, 30)
    assert open_folder(voc_folder).notes == ()


def test_wrong_size_is_replaced_by_the_image_size_with_a_note(voc_folder):
    write_annotation(
        voc_folder, make_annotation_xml(make_object_xml(), size="<size><width>80</width><height>60</height></size>")
    )
    assert open_folder(voc_folder).annotation(0)[2:4] == (40, 30)
    assert open_folder(voc_folder).image(0).shape == (30, 40, 3)
    (note,) = open_folder(voc_folder).notes
    assert note.startswith("1 ") and "a.xml" in note and "80 x 60" in note and "40 x 30" in note


@pytest.mark.parametrize(("stated", "expected"), [((40, 30), (40, 30)), ((30, 40), (30, 40)), ((5, 5), (30, 40))])
def test_rotated_image_is_read_with_the_stated_size_if_possible(voc_folder, stated, expected):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(voc_folder / "JPEGImages" / "a.jpg", exif=exif)
    size = f"<size><width>{stated[0]}</width><height>{stated[1]}</height></size>"
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(), size=size))
    source = open_folder(voc_folder)
    assert source.annotation(0)[2:4] == expected
    assert source.image(0).shape[1::-1] == expected
    assert bool(source.notes) == (stated != expected)


def test_unreadable_image_with_a_stated_size_is_reported_on_access(voc_folder):
    (voc_folder / "JPEGImages" / "a.jpg").write_bytes(b"no image")
    source = open_folder(voc_folder)
    assert source.annotation(0)[2:4] == (40, 30)
    with pytest.raises(UserError, match=r"a\.jpg"):
        source.image(0)
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(), size=""))
    with pytest.raises(UserError, match=r"a\.jpg"):
        open_folder(voc_folder)


def test_image_whose_size_has_changed_is_rejected(voc_folder):
    source = open_folder(voc_folder)
    Image.new("RGB", (20, 15)).save(voc_folder / "JPEGImages" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg.*20 x 15.*40 x 30"):
        source.image(0)


def test_large_image_is_decoded_at_reduced_size_with_matching_boxes(voc_folder):
    pixels = np.full((1000, 1500, 3), 40, np.uint8)
    pixels[200:600, 300:900] = 220
    Image.fromarray(pixels).save(voc_folder / "JPEGImages" / "a.jpg", quality=95)
    size = "<size><width>1500</width><height>1000</height></size>"
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(box=(300, 200, 900, 600)), size=size))
    source = open_folder(voc_folder)
    assert source.image(0).shape == (1000, 1500, 3)
    assert source.reduced_image(0, (320, 320)).shape == (500, 750, 3)
    batch = next(train_batches(source, Data(max_image_size=320), len(source), seed=0))
    (slot,) = np.flatnonzero(batch.index == 0)
    height, width = int(batch.height[slot]), int(batch.width[slot])
    assert (height, width) == (213, 320)
    np.testing.assert_allclose(batch.gt_boxes[slot, 0], [0.2, 0.2, 0.6, 0.6], atol=1e-6)
    whole = reduce_to_fit(source.image(0), (320, 320)).astype(int)
    assert np.abs(batch.canvas[slot, :height, :width] - whole).mean() < 0.5


def test_reduced_image_whose_full_size_has_changed_is_rejected(voc_folder):
    source = open_folder(voc_folder)
    Image.new("RGB", (400, 300)).save(voc_folder / "JPEGImages" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg.*400 x 300.*40 x 30"):
        source.reduced_image(0, (5, 5))
    Image.new("RGB", (80, 60)).save(voc_folder / "JPEGImages" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg.*80 x 60.*40 x 30"):
        source.reduced_image(0, (25, 25))  # the image is decoded at half its size, which equals the stated size


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 9, 8, 9), (40, 0, 50, 9), (-9, 2, 0, 9)])
def test_box_without_area_is_left_out_with_a_note(voc_folder, box):
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(box=box), make_object_xml("dog")))
    source = open_folder(voc_folder)
    np.testing.assert_array_equal(source.annotation(0).labels, [2])
    (note,) = source.notes
    assert note.startswith("1 ") and "area" in note and "a.xml object 1 (cat" in note


def test_box_beyond_the_image_is_kept_with_a_note(voc_folder):
    write_annotation(
        voc_folder, make_annotation_xml(make_object_xml(box=(-2, 1, 41, 30)), make_object_xml(box=(0, 0, 40, 30)))
    )
    source = open_folder(voc_folder)
    np.testing.assert_array_equal(source.annotation(0).boxes_px, [[-2, 1, 41, 30], [0, 0, 40, 30]])
    (note,) = source.notes
    assert note.startswith("1 ") and "beyond" in note and "a.xml object 1" in note


def test_clip_box_returns_the_part_inside_the_image():
    assert clip_box((-1, -2, 50, 60), (40, 30)) == (0, 0, 40, 30)
    assert clip_box((1.5, 2, 3, 4), (40, 30)) == (1.5, 2, 3, 4)
    assert clip_box((40, 0, 41, 5), (40, 30)) is None


def test_float_coordinates_are_read(voc_folder):
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(box=("1.25", " 2.5 ", "3e1", "20"))))
    np.testing.assert_array_equal(open_folder(voc_folder).annotation(0).boxes_px, [[1.25, 2.5, 30, 20]])


# ---- errors ----

NO_XMAX = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><ymax>4</ymax></bndbox></object>"


@pytest.mark.parametrize(
    ("xml", "position"),
    [
        ("<annotation>\n<object>\n</annotation>", "line 3"),
        ("", "empty"),
        (make_annotation_xml(make_object_xml(), NO_XMAX), "object 2 has no <xmax>"),
        (make_annotation_xml("<object><name>cat</name></object>"), "object 1 has no <xmin>"),
        (make_annotation_xml(make_object_xml(box=(1, "two", 3, 4))), "object 1 has <ymin> 'two'"),
        (make_annotation_xml(make_object_xml(box=(1, "nan", 3, 4))), "object 1 has <ymin> 'nan'"),
        (make_annotation_xml(make_object_xml(box=(1, 2, "inf", 4))), "object 1 has <xmax> 'inf'"),
        (make_annotation_xml(make_object_xml(name=" ")), "object 1 has no <name>"),
    ],
)
def test_malformed_file_is_reported_with_the_position_of_the_error(voc_folder, xml, position):
    write_annotation(voc_folder, xml)
    with pytest.raises(UserError) as error:
        open_folder(voc_folder)
    assert str(voc_folder / "Annotations" / "a.xml") in str(error.value) and position in str(error.value)


@pytest.mark.parametrize("box", [(0.1, 0.2, 0.5, 1), (0, 0, 1, 0.9), (0.5, 0.5, 0.5, 0.5)])
def test_normalised_boxes_are_rejected(voc_folder, box):
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(box=box), make_object_xml(box=(0, 0, 1, 1))))
    with pytest.raises(UserError, match=r"a\.xml: .*between 0 and 1.*pixels"):
        open_folder(voc_folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("0", False), ("true", True), ("No", False), ("Unspecified", False), ("", False)],
)
def test_difficult_flag_may_be_a_word(voc_folder, text, expected):
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(extra=f"<difficult>{text}</difficult>")))
    source = open_folder(voc_folder)
    assert source.annotation(0).difficult.tolist() == [expected]
    assert ["Unspecified" in note and "a.xml" in note for note in source.notes] == [True] * (text == "Unspecified")


def test_objects_are_found_at_any_depth_and_in_a_namespace(voc_folder):
    xml = make_annotation_xml(make_object_xml("dog")).replace("<object>", "<objects><object>", 1)
    xml = xml.replace("</annotation>", "</objects></annotation>")
    write_annotation(voc_folder, xml.replace("<annotation>", '<annotation xmlns="http://example.org/voc">'))
    source = open_folder(voc_folder)
    np.testing.assert_array_equal(source.annotation(0).boxes_px, [[1, 2, 30, 20]])
    assert source.annotation(0).labels.tolist() == [2] and source.notes == ()


def test_file_with_boxes_but_without_objects_is_reported(voc_folder):
    box = make_object_xml().replace("object>", "obj>")
    write_annotation(voc_folder, make_annotation_xml(box))
    problems = Problems(raise_errors=False)
    open_source(Data(root=str(voc_folder)), "train", problems=problems)
    assert [(p.kind, p.file) for p in problems.collected] == [
        (Kind.NOTHING_READ, str(voc_folder / "Annotations" / "a.xml"))
    ]


def test_polygon_without_a_box_becomes_its_bounding_box(voc_folder):
    points = "<pt><x>3</x><y>4</y></pt><pt><x>13</x><y>2</y></pt><pt><x>5</x><y>9</y></pt>"
    pairs = "<x1>3</x1><y1>4</y1><x2>13</x2><y2>2</y2><x3>5</x3><y3>9</y3>"
    for polygon in (points, pairs):
        write_annotation(
            voc_folder, make_annotation_xml(f"<object><name>cat</name><polygon>{polygon}</polygon></object>")
        )
        np.testing.assert_array_equal(open_folder(voc_folder).annotation(0).boxes_px, [[3, 2, 13, 9]])


def test_declared_multibyte_encoding_is_decoded(voc_folder):
    xml = make_annotation_xml(make_object_xml("\u732b"))
    for encoding in ("gb2312", "shift_jis", "utf-16"):
        text = f'<?xml version="1.0" encoding="{encoding}"?>{xml}'
        (voc_folder / "Annotations" / "a.xml").write_bytes(text.encode(encoding))
        assert open_folder(voc_folder).class_names == ("cat", "dog", "\u732b")


@pytest.mark.parametrize("boxes", [[(0, 0, 1, 1)], [(0.1, 0.1, 0.9, 1.1)], [(0.1, 0, 1, 1), (5, 5, 9, 9)], []])
def test_small_boxes_in_pixels_are_not_rejected_as_normalised(voc_folder, boxes):
    write_annotation(voc_folder, make_annotation_xml(*(make_object_xml(box=box) for box in boxes)))
    assert len(open_folder(voc_folder).annotation(0).labels) == len(boxes)


def test_unknown_class_is_reported_with_the_known_classes(voc_folder):
    with pytest.raises(UserError, match=r"c\.xml: object 1 .*'dog'.*cat, bird"):
        open_folder(voc_folder, "val", ("cat", "bird"))


def test_missing_annotation_is_reported_with_the_list_line(voc_folder):
    (voc_folder / "Annotations" / "b.xml").unlink()
    with pytest.raises(UserError, match=r"train\.txt line 3: .*b\.xml.*<annotation></annotation>"):
        open_folder(voc_folder)


@pytest.mark.parametrize(
    ("stem", "line"),
    [
        ("my photo", "my photo"),
        ("my photo", "my photo 1"),
        ("no 1", "no 1"),
        ("b.v2", "b.v2"),
        ("b.v2", "b.v2.jpg  -1"),
    ],
)
def test_list_lines_may_have_spaces_extensions_and_columns(voc_folder, stem, line):
    for folder, ending in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        (voc_folder / folder / f"b{ending}").rename(voc_folder / folder / f"{stem}{ending}")
    (voc_folder / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n", encoding="utf-8-sig")
    source = open_folder(voc_folder)
    assert [annotation.image_id for annotation in source.annotations()] == [stem]


def test_unreadable_encodings_are_reported(voc_folder):
    (voc_folder / "ImageSets" / "Main" / "train.txt").write_bytes("b\nB\u00e4r\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"train\.txt: .*UTF-8"):
        open_folder(voc_folder)
    (voc_folder / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    for declared in ("klingon",):
        (voc_folder / "Annotations" / "a.xml").write_text(f'<?xml version="1.0" encoding="{declared}"?><annotation/>')
        with pytest.raises(UserError, match=r"a\.xml: .*XML.*UTF-8"):
            open_folder(voc_folder)


def test_missing_image_is_reported(voc_folder):
    (voc_folder / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"b\.xml: .*image"):
        open_folder(voc_folder)


def test_empty_split_is_rejected(voc_folder):
    (voc_folder / "ImageSets" / "Main" / "train.txt").write_text("\n")
    with pytest.raises(UserError, match="'train'"):
        open_folder(voc_folder)


def test_unknown_split_is_reported_with_the_available_splits(voc_folder):
    with pytest.raises(UserError, match=r"'test'.*: train, val"):
        open_folder(voc_folder, "test")


def test_folder_without_any_object_is_rejected(tmp_path):
    write_voc_image(tmp_path, "a", make_annotation_xml())
    write_voc_image(tmp_path, "b", make_annotation_xml())
    with pytest.raises(UserError, match="object"):
        open_folder(tmp_path)


def test_unknown_format_and_missing_folder_are_rejected(tmp_path):
    with pytest.raises(UserError, match=r"data\.root: (.|\n)*ilsvrc: (.|\n)*coco: (.|\n)*voc: (.|\n)*yolo: "):
        open_source(Data(root=str(tmp_path)), "train")
    with pytest.raises(UserError, match="nowhere"):
        open_source(Data(root=str(tmp_path / "nowhere")), "train")


def test_open_source_reads_a_subfolder_and_suggests_unpacking_an_archive(voc_folder, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    shutil.copytree(voc_folder, outer / "inner")
    assert len(open_source(Data(root=str(outer)), "train")) == 2
    shutil.copytree(voc_folder, outer / "other")
    with pytest.raises(UserError, match=f"{outer / 'inner'}, {outer / 'other'}"):
        open_source(Data(root=str(outer)), "train")
    with pytest.raises(UserError, match=r"a\.jpg.*archive"):
        open_source(Data(root=str(voc_folder / "JPEGImages" / "a.jpg")), "train")


def test_folder_without_annotations_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"\.xml"):
        open_folder(tmp_path)


# ---- real images ----


def test_bccd_has_the_known_numbers_of_images_and_objects(bccd):
    """Compare with numbers counted by grep: there are 4888 <object> elements, two of which have xmin = xmax."""
    sources = {split: open_folder(bccd, split) for split in ("train", "val", "test", "trainval")}
    assert {split: len(source) for split, source in sources.items()} == {
        "train": 205, "val": 87, "test": 72, "trainval": 292,
    }  # fmt: skip
    boxes = sum(len(s.annotation(i).labels) for k, s in sources.items() if k != "trainval" for i in range(len(s)))
    assert boxes == 4888 - 2
    (note,) = sources["trainval"].notes
    assert "00338.xml object 13" in note and "00343.xml object 4" in note
    assert sources["test"].notes == ()
    assert sources["test"].class_names == ("Platelets", "RBC", "WBC")
    assert sources["test"].annotation(0).image_id == "BloodImage_00007"
    np.testing.assert_array_equal(sources["test"].annotation(0).boxes_px[0], [193, 92, 387, 285])


def test_parse_voc_xml_keeps_a_box_without_area(bccd):
    parsed = parse_voc_xml(bccd / "Annotations" / "BloodImage_00338.xml")
    assert parsed.size == (640, 480) and parsed.filename == "BloodImage_00338.jpg"
    assert len(parsed.objects) == 14
    assert parsed.objects[12] == RawObject("object 13", "RBC", (504, 337, 504, 337))


# ---- test splits without public boxes ----


def write_test_list(root, listed="one two three", annotated=("a",)):
    """Write the list of the split ``test``, and the files of the listed images that are not in ``annotated``.

    The folder already has images and annotation files for the stems in ``annotated``; no annotation file is written.
    """
    for stem in listed.split():
        if stem not in annotated:
            Image.new("RGB", (50, 20), "navy").save(root / "JPEGImages" / f"{stem}.jpg")
    (root / "ImageSets" / "Main" / "test.txt").write_text(listed.replace(" ", "\n"))


def test_test_split_without_public_boxes_is_unannotated(voc_folder):
    write_test_list(voc_folder, "one two a three")
    source = open_folder(voc_folder, "test")
    assert not source.annotated and source.class_names == ("cat", "dog")
    annotations = list(source.annotations())
    assert [a.image_id for a in annotations] == ["one", "two", "a", "three"]
    assert (annotations[0].width, annotations[0].height) == (50, 20) and source.image(0).shape == (20, 50, 3)
    assert not any(len(a.labels) for a in annotations), "the boxes of a are for another task"
    assert open_folder(voc_folder, "val").annotated
    assert open_folder(voc_folder, "test", ("dog", "bird")).class_names == ("dog", "bird")


@pytest.mark.parametrize(("listed", "missing"), [("a one", "one"), ("a b one", "one")])
def test_missing_annotations_of_a_partly_annotated_test_split_are_reported(voc_folder, listed, missing):
    write_test_list(voc_folder, listed, annotated=("a", "b"))
    with pytest.raises(UserError, match=rf"test\.txt line \d: .*{missing}\.xml"):
        open_folder(voc_folder, "test")


def test_missing_annotations_of_val_are_reported(voc_folder):
    write_test_list(voc_folder)
    (voc_folder / "ImageSets" / "Main" / "test.txt").rename(voc_folder / "ImageSets" / "Main" / "val.txt")
    with pytest.raises(UserError, match=r"val\.txt line 1: .*one\.xml"):
        open_folder(voc_folder, "val")


def test_missing_and_corrupt_images_of_an_unannotated_test_split_are_reported(voc_folder):
    write_test_list(voc_folder)
    (voc_folder / "JPEGImages" / "two.jpg").unlink()
    with pytest.raises(UserError, match=r"test\.txt line 2: .*two"):
        open_folder(voc_folder, "test")
    (voc_folder / "JPEGImages" / "two.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"two\.jpg"):
        open_folder(voc_folder, "test")


# ---- nothing is lost in silence ----


def list_kinds_and_files(root, split="train", **data):
    problems = Problems(raise_errors=False)
    open_source(Data(root=str(root), **data), split, problems=problems)
    return [(p.kind, p.file, p.text) for p in problems.collected if p.kind is not Kind.LAYOUT]


def write_three_folders(root, names):
    for number, name in enumerate(names):
        write_voc_image(root / name, f"image{number}", make_annotation_xml(make_object_xml()))


@pytest.mark.parametrize(
    ("names", "unused"),
    [
        (("train", "val", "train2"), "train2"),
        (("train", "val", "training"), "training"),
        (("train", "val", "trainval"), "trainval"),
        (("train", "val", "valid"), "valid"),
        (("train", "val", "extra"), "extra"),
        (("train", "val", "test"), None),
    ],
)
def test_split_that_no_option_names_is_a_warning(tmp_path, names, unused):
    write_three_folders(tmp_path, names)
    found = [text for kind, _, text in list_kinds_and_files(tmp_path) if kind is Kind.UNUSED_SPLIT]
    assert [text.split("'")[1] for text in found] == ([unused] if unused else [])
    if unused:
        kind = "val" if unused == "valid" else "train"
        assert f"--data.{kind}_split: '{kind}+{unused}'" in found[0]
        joined = list_kinds_and_files(tmp_path, "train", **{f"{kind}_split": f"{kind}+{unused}"})
        assert Kind.UNUSED_SPLIT not in [kind for kind, _, _ in joined]


def test_annotated_image_beside_the_folders_of_the_splits_is_a_warning(tmp_path):
    write_three_folders(tmp_path, ("train", "val", ""))
    file = str(tmp_path / "image2.xml")
    assert list_kinds_and_files(tmp_path) == [(Kind.IN_NO_SPLIT, file, "")]


def test_list_that_only_repeats_the_images_of_others_is_not_a_warning(voc_folder):
    lists = voc_folder / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text("a\nb\nc\n")
    assert list_kinds_and_files(voc_folder) == []
    write_voc_image(voc_folder / "Annotations", "d", make_annotation_xml(make_object_xml()), voc_folder / "JPEGImages")
    (lists / "trainval.txt").write_text("a\nb\nc\nd\n")
    file = str(voc_folder / "Annotations" / "d.xml")
    assert list_kinds_and_files(voc_folder) == [(Kind.IN_NO_SPLIT, file, "")]
    assert list_kinds_and_files(voc_folder, "trainval", train_split="trainval") == []


def test_names_that_differ_in_case_or_unicode_form_have_their_own_annotation(tmp_path):
    boxes = {"a": (1, 1, 9, 9), "A": (2, 2, 8, 8), "caf\u00e9": (3, 3, 7, 7), "cafe\u0301": (4, 4, 6, 6)}
    for stem, box in boxes.items():
        write_voc_image(tmp_path / "train", stem, make_annotation_xml(make_object_xml(box=box)))
    if len(list((tmp_path / "train").iterdir())) < 8:
        pytest.skip("the file system does not distinguish these names")
    source = open_folder(tmp_path, val_split="train")
    found = {annotation.image_id: tuple(annotation.boxes_px[0]) for annotation in source.annotations()}
    assert found == boxes
    assert all(Path(annotation.file).stem == annotation.image_id for annotation in source.annotations())


def test_annotation_file_whose_image_has_another_annotation_file_is_reported_as_such(tmp_path):
    write_voc_image(tmp_path / "train", "a", make_annotation_xml(make_object_xml(), filename="a.jpg"))
    (tmp_path / "train" / "a_2.xml").write_text(make_annotation_xml(make_object_xml(), filename="a.jpg"))
    with pytest.raises(UserError, match=r"a_2\.xml: there is no image 'a_2', and 'a\.jpg' in <filename> has its own"):
        open_folder(tmp_path, val_split="train")


@pytest.mark.parametrize("extra", ["<name>dog</name>", "<bndbox><xmin>3</xmin></bndbox>"])
def test_second_name_or_box_of_an_object_is_a_warning(voc_folder, extra):
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(extra=extra), make_object_xml("dog")))
    (note,) = open_folder(voc_folder).notes
    assert note.startswith("1 object") and "second box or name" in note and "a.xml object 1" in note
    part = "<part><name>head</name><bndbox><xmin>3</xmin></bndbox></part>"
    write_annotation(voc_folder, make_annotation_xml(make_object_xml(extra=part)))
    assert open_folder(voc_folder).notes == ()


@pytest.mark.parametrize("declaration", ["", '<?xml version="1.0" encoding="utf-8"?>\n'])
def test_bytes_that_are_not_utf8_matter_only_where_they_are_used(voc_folder, declaration):
    file = voc_folder / "Annotations" / "a.xml"
    xml = declaration + make_annotation_xml("<path>C:/José/a.jpg</path>", make_object_xml())
    file.write_bytes(xml.encode("cp1252"))
    assert len(open_folder(voc_folder).annotation(0).labels) == 1
    file.write_bytes((declaration + make_annotation_xml(make_object_xml("狗"))).encode("gb18030"))
    with pytest.raises(UserError, match=r"a.xml: object 1 has a <name> that is not in UTF-8.*gb18030"):
        open_folder(voc_folder)
    file.write_bytes(
        ('<?xml version="1.0" encoding="gb18030"?>' + make_annotation_xml(make_object_xml("狗"))).encode("gb18030")
    )
    assert "狗" in open_folder(voc_folder).class_names
