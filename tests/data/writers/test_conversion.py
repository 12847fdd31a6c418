"""Tests of converting data sets: round trips among the formats, flags, names of any script, and interruptions."""

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import yaml
from helpers.cli import run_command
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import find_format, open_defined_splits, open_source, split_names
from ssd_jax.data.problems import Problems
from ssd_jax.data.writers.conversion import convert_data_set
from ssd_jax.data.writers.images import NameBook
from ssd_jax.errors import UserError

NAMES = ("cat", "großer Hund", "犬 & <co>")
BOXES = {
    "train": {
        "a.jpg": [(0, (1, 2, 30, 20)), (2, (10.25, 3.7, 39.9, 29.1))],
        "photo of ç (1).png": [(1, (0, 0, 40, 30)), (1, (7, 8, 9, 10))],
        "empty.jpg": [],
        "c.JPG": [(0, (473.07 / 16, 2.5, 38.65, 28.123456))],
    },
    "val": {"犬.jpg": [(2, (5, 6, 25, 26))], "classes.jpg": [(0, (3, 4, 13, 14))]},
}
"""Label and xyxy box of each object, by image and split."""
SIZE = (40, 30)


def save_image(file: Path, size=SIZE, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if file.suffix == ".png" else "JPEG"
    Image.new("RGB", size, (len(file.name) * 9 % 256, 90, 30)).save(file, kind, **options)


def write_voc(root: Path, difficult=0):
    for split, images in BOXES.items():
        stems = [os.path.splitext(name)[0] for name in images]
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems), encoding="utf-8")
        for name, objects in images.items():
            save_image(root / "JPEGImages" / name)
            tree = ElementTree.Element("annotation")
            for label, box in objects:
                node = ElementTree.SubElement(tree, "object")
                ElementTree.SubElement(node, "name").text = NAMES[label]
                ElementTree.SubElement(node, "difficult").text = str(difficult)
                corners = ElementTree.SubElement(node, "bndbox")
                for tag, edge in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                    ElementTree.SubElement(corners, tag).text = repr(edge)
            file = root / "Annotations" / f"{os.path.splitext(name)[0]}.xml"
            file.parent.mkdir(exist_ok=True)
            ElementTree.ElementTree(tree).write(file, "utf-8")


def write_coco(root: Path, crowd=0):
    for split, images in BOXES.items():
        content = {"categories": [{"id": 10 * k + 7, "name": name} for k, name in enumerate(NAMES)]}
        content |= {"images": [], "annotations": []}
        for number, (name, objects) in enumerate(images.items(), start=500):
            save_image(root / split / name)
            content["images"].append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            for label, (x1, y1, x2, y2) in objects:
                entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": 10 * label + 7}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": 12.5, "iscrowd": crowd}
                content["annotations"].append(entry)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def write_yolo(root: Path):
    for split, images in BOXES.items():
        for name, objects in images.items():
            if name == "classes.jpg":
                name = "other.jpg"  # its labels would look like a list of names
            save_image(root / "images" / split / name)
            lines = []
            for label, (x1, y1, x2, y2) in objects:
                numbers = (x1 + x2) / 2 / 40, (y1 + y2) / 2 / 30, (x2 - x1) / 40, (y2 - y1) / 30
                lines.append(f"{label} " + " ".join(map(repr, numbers)))
            file = root / "labels" / split / f"{os.path.splitext(name)[0]}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines))
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES))}
    (root / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


def read_boxes(root: object, split: str, tfds_dir="") -> dict[tuple, list]:
    """Return the class, box and flags of each object, by the color of the image, which differs between images."""
    source = open_source(Data(root=str(root), tfds_dir=str(tfds_dir)), split, problems=Problems())
    found = {}
    for index, annotation in enumerate(source.annotations()):
        names = [source.class_names[label - 1] for label in annotation.labels]
        flags = zip(annotation.difficult.tolist(), annotation.crowd.tolist(), strict=True)
        color = source.image(index)[0, 0] // 4
        boxes = annotation.boxes_px.astype(np.float64)
        found[tuple(color.tolist())] = list(zip(names, boxes, flags, strict=True))
    return found


def assert_equal_boxes(one, other, atol):
    assert one.keys() == other.keys() and len(one) > 0
    for color, objects in one.items():
        assert [o[0] for o in objects] == [o[0] for o in other[color]]
        assert [o[2] for o in objects] == [o[2] for o in other[color]]
        for (_, box, _), (_, expected, _) in zip(objects, other[color], strict=True):
            np.testing.assert_allclose(box, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("target", ["voc", "coco", "yolo"])
@pytest.mark.parametrize("origin", ["voc", "coco", "yolo"])
def test_round_trips_keep_boxes_classes_and_splits(origin, target, tmp_path):
    WRITERS[origin](tmp_path / "from")
    convert_data_set(Data(root=str(tmp_path / "from")), target, tmp_path / "to")
    convert_data_set(Data(root=str(tmp_path / "to")), origin, tmp_path / "back")
    for root in (tmp_path / "to", tmp_path / "back"):
        data = Data(root=str(root))
        assert find_format(data) == (target if root.name == "to" else origin)
        assert set(split_names(data)) == {"train", "val"}
        names = open_source(data, "train").class_names
        assert set(names) == set(NAMES) and (
            origin == "voc" or root.name == "back" or target == "voc" or names == NAMES
        )
        for split in ("train", "val"):
            exact = "yolo" not in (origin, target)
            assert_equal_boxes(read_boxes(root, split), read_boxes(tmp_path / "from", split), 0 if exact else 1e-5)


def test_coco_file_has_the_numbers_and_the_ids_of_the_original(tmp_path):
    write_coco(tmp_path / "from")
    convert_data_set(Data(root=str(tmp_path / "from")), "coco", tmp_path / "to")
    for split in BOXES:
        one, other = (
            json.loads((tmp_path / place / "annotations" / f"instances_{split}.json").read_text())
            for place in ("from", "to")
        )
        assert one["images"] == [
            image | {"file_name": o["file_name"]} for image, o in zip(other["images"], one["images"], strict=True)
        ]
        assert one["categories"] == other["categories"]
        for entry, copy in zip(one["annotations"], other["annotations"], strict=True):
            np.testing.assert_allclose(copy.pop("bbox"), entry.pop("bbox"), atol=2e-6)
            assert copy == entry


def test_voc_files_have_the_numbers_of_the_boxes(tmp_path):
    write_yolo(tmp_path / "from")
    convert_data_set(Data(root=str(tmp_path / "from")), "voc", tmp_path / "to")
    root = ElementTree.parse(tmp_path / "to" / "Annotations" / "a.xml").getroot()
    boxes = [
        [float(node.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")] for node in root.iter("object")
    ]
    np.testing.assert_allclose(boxes, [box for _, box in BOXES["train"]["a.jpg"]], atol=1e-5)
    assert [root.findtext(f"size/{k}") for k in ("width", "height")] == ["40", "30"]
    assert (tmp_path / "to" / "ImageSets" / "Main" / "train.txt").read_text(encoding="utf-8").split("\n")[0] == "a"


def test_yolo_yaml_names_the_splits_and_classes(tmp_path):
    write_voc(tmp_path / "from")
    convert_data_set(Data(root=str(tmp_path / "from")), "yolo", tmp_path / "to")
    content = yaml.safe_load((tmp_path / "to" / "data.yaml").read_text(encoding="utf-8"))
    assert content["train"] == "images/train" and content["val"] == "images/val"
    assert sorted(content["names"].values()) == sorted(NAMES)


@pytest.mark.parametrize("origin", ["voc", "coco", "yolo"])
def test_array_records_are_read_by_this_program_and_by_tfds(origin, tmp_path):
    WRITERS[origin](tmp_path / "from")
    result = convert_data_set(Data(root=str(tmp_path / "from")), "tfds", tmp_path / "to")
    assert result.root == "tfds:from" and result.counts["train"] == (4, 5)
    for split in ("train", "val"):
        assert_equal_boxes(read_boxes("tfds:from", split, tmp_path / "to"), read_boxes(tmp_path / "from", split), 1e-4)
    builder = tfds.builder_from_directory(tmp_path / "to" / "from" / "1.0.0")
    examples = list(builder.as_data_source("train"))
    assert len(examples) == 4 and examples[0]["image"].shape == (30, 40, 3)
    names = builder.info.features["objects"]["label"].names
    first = [names[label] for label in examples[0]["objects"]["label"]]
    assert first == [NAMES[label] for label, _ in BOXES["train"]["a.jpg"]]
    y1, x1, y2, x2 = examples[0]["objects"]["bbox"][0]
    np.testing.assert_allclose([x1 * 40, y1 * 30, x2 * 40, y2 * 30], BOXES["train"]["a.jpg"][0][1], atol=1e-5)


def test_array_records_are_written_back_as_files(tmp_path):
    write_voc(tmp_path / "from")
    convert_data_set(Data(root=str(tmp_path / "from")), "tfds", tmp_path / "records")
    convert_data_set(Data(root="tfds:from", tfds_dir=str(tmp_path / "records")), "coco", tmp_path / "to")
    for split in ("train", "val"):
        assert_equal_boxes(read_boxes(tmp_path / "to", split), read_boxes(tmp_path / "from", split), 1e-4)
    original, copy = (tmp_path / place / "a.jpg" for place in ("from/JPEGImages", "to/images/train"))
    assert original.read_bytes() == copy.read_bytes()


def test_flags_are_kept_or_told(tmp_path):
    write_voc(tmp_path / "difficult", difficult=1)
    write_coco(tmp_path / "crowd", crowd=1)
    for origin, target, flags, words in (
        ("difficult", "voc", (True, False), ""),
        ("difficult", "coco", (True, False), ""),
        ("difficult", "tfds", (True, False), ""),
        ("difficult", "yolo", (False, False), "7 difficult objects"),
        ("crowd", "voc", (True, False), "7 crowds are marked as difficult"),
        ("crowd", "coco", (False, True), ""),
        ("crowd", "tfds", (False, True), ""),
        ("crowd", "yolo", None, "7 crowds were left out"),
    ):
        out = tmp_path / f"{origin}_{target}"
        result = convert_data_set(Data(root=str(tmp_path / origin)), target, out)
        assert words in " ".join(result.notes) and bool(result.notes) == bool(words)
        found = read_boxes(result.root, "train", out)
        assert {o[2] for objects in found.values() for o in objects} == ({flags} if flags else set())


def test_boxes_beyond_the_image_are_kept_or_cut_with_a_note(tmp_path):
    save_image(tmp_path / "from" / "a.jpg")
    save_image(tmp_path / "from" / "bb.jpg")
    rows = "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,-5,2,30,20\nbb.jpg,cat,1,2,45.5,20\n"
    (tmp_path / "from" / "labels.csv").write_text(rows)
    for target, expected in (("voc", [-5, 2, 30, 20]), ("coco", [-5, 2, 30, 20]), ("yolo", [0, 2, 30, 20])):
        result = convert_data_set(Data(root=str(tmp_path / "from")), target, tmp_path / target)
        assert list(result.counts) == [""] and set(split_names(Data(root=str(tmp_path / target)))) == {"train", "val"}
        (source,) = open_defined_splits(Data(root=str(tmp_path / target)), Problems()).values()
        np.testing.assert_allclose(source.annotation(0).boxes_px, [expected], atol=1e-5)
        assert bool(result.notes) == (target == "yolo")
    result = convert_data_set(Data(root=str(tmp_path / "from")), "tfds", tmp_path / "tfds")
    assert set(result.counts) == {"train", "val"} and "2 boxes were cut" in result.notes[0]


def test_images_of_the_same_name_in_several_folders_are_kept_apart(tmp_path):
    names = ["two/A.png", "one/a.jpg", "two/a.jpg", "three/one_a.jpg"]
    for k, name in enumerate(names):
        save_image(tmp_path / "from" / name, (40, 30 + k))
    rows = "".join(f"{name},cat,{k},2,30,20\n" for k, name in enumerate(names, start=1))
    (tmp_path / "from" / "labels.csv").write_text("filename,class,xmin,ymin,xmax,ymax\n" + rows)
    for target in ("voc", "coco", "yolo"):
        convert_data_set(Data(root=str(tmp_path / "from")), target, tmp_path / target)
        (source,) = open_defined_splits(Data(root=str(tmp_path / target)), Problems()).values()
        found = {(a.height, round(float(a.boxes_px[0, 0]), 3)) for a in source.annotations()}
        assert found == {(30, 1), (31, 2), (32, 3), (33, 4)}
        assert len({Path(a.file).stem.casefold() for a in source.annotations()}) == 4, "for all file systems"


@pytest.mark.parametrize("orientation", [3, 6])
def test_rotated_images_keep_their_boxes(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.jpg", "bb.jpg"):
        save_image(tmp_path / "from" / name, exif=exif)
    width, height = (30, 40) if orientation == 6 else (40, 30)
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    # The boxes of a.jpg were drawn on the upright image. Those of bb.jpg were drawn on the unrotated one.
    rows = f"a.jpg,{width},{height},cat,1,2,20,25\nbb.jpg,40,30,cat,1,2,35,25\n"
    (tmp_path / "from" / "labels.csv").write_text(header + rows)
    for target in ("voc", "coco", "yolo", "tfds"):
        result = convert_data_set(Data(root=str(tmp_path / "from")), target, tmp_path / target)
        for source in open_defined_splits(Data(root=result.root, tfds_dir=str(tmp_path / target)), Problems()).values():
            for index, annotation in enumerate(source.annotations()):
                is_first = annotation.boxes_px[0, 2] < 30
                assert (annotation.width, annotation.height) == ((width, height) if is_first else (40, 30))
                assert source.image(index).shape[:2] == (annotation.height, annotation.width)


@pytest.mark.parametrize("images", ["hardlink", "copy", "symlink"])
def test_images_are_linked_or_copied(images, tmp_path):
    write_coco(tmp_path / "from")
    convert_data_set(Data(root=str(tmp_path / "from")), "voc", tmp_path / "to", images=images)
    original, copy = tmp_path / "from" / "train" / "a.jpg", tmp_path / "to" / "JPEGImages" / "a.jpg"
    assert copy.is_symlink() == (images == "symlink") and copy.read_bytes() == original.read_bytes()
    assert (copy.stat().st_ino == original.stat().st_ino) == (images != "copy")


def test_image_is_copied_where_links_are_impossible(tmp_path, monkeypatch):
    write_coco(tmp_path / "from")

    def fail(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    result = convert_data_set(Data(root=str(tmp_path / "from")), "voc", tmp_path / "to")
    assert result.notes == ["6 images were copied, since they cannot be linked to this folder"]
    assert len(list((tmp_path / "to" / "JPEGImages").iterdir())) == 6


@pytest.mark.parametrize("target", ["voc", "coco", "yolo"])
def test_conversion_that_fails_leaves_nothing(target, tmp_path):
    write_voc(tmp_path / "from")

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_data_set(Data(root=str(tmp_path / "from")), target, tmp_path / "to", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


def test_conversion_after_a_kill_starts_again_and_refuses_foreign_folders(tmp_path):
    write_voc(tmp_path / "from")
    work = tmp_path / "to.unfinished"
    work.mkdir()
    (work / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"to\.unfinished exists"):
        convert_data_set(Data(root=str(tmp_path / "from")), "coco", tmp_path / "to")
    (work / "convert.json").write_text('{"key": ""}')
    convert_data_set(Data(root=str(tmp_path / "from")), "coco", tmp_path / "to")
    assert not work.exists() and not (tmp_path / "to" / "mine.txt").exists()


def test_array_records_are_continued_after_an_interruption(tmp_path, monkeypatch):
    from ssd_jax.data.writers import array_records

    monkeypatch.setattr(array_records, "_SHARD_BYTES", 1)  # a shard for each image
    write_voc(tmp_path / "from")
    data, written = Data(root=str(tmp_path / "from")), []

    def interrupt(count):
        written.append(count)
        if len(written) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_data_set(data, "tfds", tmp_path / "to", progress=interrupt)
    folder = tmp_path / "to.unfinished" / "from" / "1.0.0"
    complete = {file: file.stat().st_mtime_ns for file in folder.glob("*.array_record-*-of-*[0-9]")}
    assert len(complete) == 2 and not (folder / "dataset_info.json").exists() and not (tmp_path / "to").exists()
    convert_data_set(data, "tfds", tmp_path / "to")
    for file, time in complete.items():
        assert (tmp_path / "to" / file.relative_to(tmp_path / "to.unfinished")).stat().st_mtime_ns == time
    for split in ("train", "val"):
        assert_equal_boxes(read_boxes("tfds:from", split, tmp_path / "to"), read_boxes(tmp_path / "from", split), 1e-4)
    assert not list((tmp_path / "to" / "from" / "1.0.0").glob("convert*"))


def test_records_of_other_annotations_are_not_continued(tmp_path):
    write_voc(tmp_path / "from")
    with pytest.raises(ZeroDivisionError):
        convert_data_set(Data(root=str(tmp_path / "from")), "tfds", tmp_path / "to", progress=lambda count: 1 / 0)
    key = json.loads((tmp_path / "to.unfinished" / "convert.json").read_text())["key"]
    file = tmp_path / "from" / "Annotations" / "a.xml"
    file.write_text(file.read_text(encoding="utf-8").replace("<xmin>1<", "<xmin>2<"), encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        convert_data_set(Data(root=str(tmp_path / "from")), "tfds", tmp_path / "to", progress=lambda count: 1 / 0)
    assert json.loads((tmp_path / "to.unfinished" / "convert.json").read_text())["key"] != key


def test_data_set_with_errors_and_used_folders_are_refused(tmp_path):
    write_voc(tmp_path / "from")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        convert_data_set(Data(root=str(tmp_path / "from")), "coco", tmp_path / "full")
    with pytest.raises(UserError, match="inside the data set"):
        convert_data_set(Data(root=str(tmp_path / "from")), "coco", tmp_path / "from" / "new")
    (tmp_path / "from" / "Annotations" / "a.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(UserError, match=r"a\.xml"):
        convert_data_set(Data(root=str(tmp_path / "from")), "coco", tmp_path / "to")
    assert not (tmp_path / "to").exists() and not (tmp_path / "to.unfinished").exists()


def test_overlapping_splits_of_voc_share_their_images(tmp_path):
    write_voc(tmp_path / "from")
    main = tmp_path / "from" / "ImageSets" / "Main"
    (main / "trainval.txt").write_text(
        "\n".join((main / f"{s}.txt").read_text(encoding="utf-8") for s in BOXES), encoding="utf-8"
    )
    for target in ("voc", "coco"):
        result = convert_data_set(Data(root=str(tmp_path / "from")), target, tmp_path / target)
        assert {split: images for split, (images, _) in result.counts.items()} == {"train": 4, "val": 2, "trainval": 6}
        assert len(open_source(Data(root=str(tmp_path / target), train_split="trainval"), "trainval")) == 6
    assert len(list((tmp_path / "voc" / "JPEGImages").iterdir())) == 6


def test_convert_command_prints_counts_and_the_next_command(tmp_path, capsys):
    write_yolo(tmp_path / "from")
    assert run_command("convert", tmp_path / "from", "--to", "coco", "--out", tmp_path / "to") == 0
    out = capsys.readouterr().out
    assert (
        "train: 4 images with 5 objects, val: 2 images with 2 objects" in out
        and f"--data.root {tmp_path / 'to'}" in out
    )
    assert run_command("convert", tmp_path / "from", "--to", "coco", "--out", tmp_path / "to") == 2


@pytest.mark.parametrize("name", ["a/b.jpg", "x\n.jpg", "train .jpg", "a.jpg.png", "classes.jpg", "..jpg", "%20.jpg"])
def test_names_are_safe_for_lists_and_unique(name, tmp_path):
    from ssd_jax.data.source import make_annotation

    book = NameBook()
    stems = [book.choose(make_annotation(name, "none", (4, 3), [], [])) for _ in range(3)]
    assert len({stem.casefold() for stem in stems}) == 3
    assert all(stem == stem.strip() and stem.isprintable() and "/" not in stem and stem for stem in stems)
