"""check-data: a folder with every fault, told fault by fault; and what is counted."""

import csv
import json

import numpy as np
import pytest
from helpers.cli import ROOT, TINY, command, write_voc_folder
from PIL import Image

from ssd_jax.config import Config, Data
from ssd_jax.data.check import checks
from ssd_jax.data.image import image_size
from ssd_jax.data.problems import Kind, Problem, Problems

GOOD = ("cat", (2, 2, 30, 20))


def picture(seed, size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def write(root, split, stem, objects, image):
    """image: a Pillow image; None: no file; bytes: what the file holds."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with (root / "ImageSets" / "Main" / f"{split}.txt").open("a") as names:
        names.write(f"{stem}\n")
    text = ""
    for name, box in objects:
        edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        text += f"<object><name>{name}</name><bndbox>{edges}</bndbox></object>"
    size = "<size><width>40</width><height>30</height></size>"
    (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{text}</annotation>")
    file = root / "JPEGImages" / f"{stem}.jpg"
    if isinstance(image, bytes):
        file.write_bytes(image)
    elif image is not None:
        turned = Image.Exif()
        if stem == "turned":
            turned[0x0112] = 3
        image.save(file, exif=turned)
    return file


@pytest.fixture
def faulty(tmp_path):
    """Each image of train has the fault that it is called by; val repeats one of them."""
    root = tmp_path / "data"
    same = picture(7)
    write(root, "train", "good", [GOOD], picture(0))
    write(root, "train", "beyond", [("cat", (-5, 0, 20, 20))], picture(1))
    write(root, "train", "flat", [("cat", (5, 5, 5, 9)), GOOD], picture(2))
    write(root, "train", "double", [GOOD, GOOD], picture(3))
    write(root, "train", "gone", [GOOD], None)
    whole = write(root, "train", "cut", [GOOD], picture(4, (200, 150))).read_bytes()
    write(root, "val", "short", [GOOD], whole[: len(whole) // 2])
    write(root, "train", "turned", [GOOD], picture(5))
    write(root, "train", "grey", [GOOD], picture(6).convert("L"))
    write(root, "train", "cmyk", [("Cat", (1, 1, 9, 9))], picture(16).convert("CMYK"))
    write(root, "train", "many", [("dog", (k, k, k + 9, k + 9)) for k in range(9)], picture(8))
    write(root, "train", "first", [GOOD], same)
    write(root, "val", "second", [GOOD], same)
    (root / "Annotations" / "good.xml").rename(root / "Annotations" / "kept.xml")
    (root / "Annotations" / "good.xml").write_text("<annotation><object>")
    return root


def check(root, **data):
    config = Config(data=Data(root=str(root), max_objects=8, **data))
    problems = Problems(raise_errors=False)
    splits = checks.open_splits(config, problems)
    checks.check_annotations(splits, config.data, problems)
    checks.check_images(splits, problems, lambda images: None)
    return config, splits, problems.collected


def test_each_fault_is_found_and_its_file_named(faulty):
    _, splits, found = check(faulty)
    told = {(p.kind, p.file.removeprefix(f"{faulty}/")) for p in found}
    assert told == {
        (Kind.MALFORMED, "Annotations/good.xml"),
        (Kind.MISSING, "Annotations/gone.xml"),
        (Kind.OUT_OF_IMAGE, "Annotations/beyond.xml"),
        (Kind.NO_AREA, "Annotations/flat.xml"),
        (Kind.SIZE_DIFFERS, "Annotations/cut.xml"),
        (Kind.SIZE_DIFFERS, "Annotations/short.xml"),
        (Kind.DUPLICATE, "Annotations/double.xml"),
        (Kind.UNREADABLE, "JPEGImages/short.jpg"),
        (Kind.ROTATED, "JPEGImages/turned.jpg"),
        (Kind.NOT_RGB, "JPEGImages/grey.jpg"),
        (Kind.NOT_RGB, "JPEGImages/cmyk.jpg"),
        (Kind.TOO_MANY, "JPEGImages/many.jpg"),
        (Kind.TWO_SPLITS, "JPEGImages/second.jpg"),
        (Kind.SIMILAR_NAMES, str(faulty)),
    }
    assert len(found) == len(told)
    assert set(splits) == {"train", "val"}


def test_an_image_that_is_just_full_is_not_too_full(tmp_path):
    boxes = [("dog", (k, k, k + 9, k + 9)) for k in range(9)]
    write(tmp_path, "train", "full", boxes[:8], picture(0))
    write(tmp_path, "val", "over", boxes, picture(1))
    assert [(p.kind, p.file.split("/")[-1]) for p in check(tmp_path)[2]] == [(Kind.TOO_MANY, "over.jpg")]


def test_names_that_may_be_one_class_are_told(faulty):
    found = [p.text for p in check(faulty)[2] if p.kind is Kind.SIMILAR_NAMES]
    assert found == ["'Cat' and 'cat' are two classes. If they are one, give them one name."]


def test_a_file_in_two_splits_is_told_once(tmp_path):
    write(tmp_path, "train", "a", [GOOD], picture(0))
    write(tmp_path, "train", "b", [GOOD], picture(1))
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("b\na\n")
    found = check(tmp_path, val_split="test")[2]
    assert [(p.kind, p.file.split("/")[-1], p.text) for p in found] == [
        (Kind.TWO_SPLITS, "a.jpg", "is in train and test"),
        (Kind.TWO_SPLITS, "b.jpg", "is in train and test"),
    ]


def test_a_fault_of_a_folder_that_is_divided_is_told_once(tmp_path):
    for k in range(4):
        write(tmp_path, "train", f"i{k}", [GOOD], picture(k))
    (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
    (tmp_path / "ImageSets" / "Main").rmdir()
    picture(9).save(tmp_path / "JPEGImages" / "alone.jpg")
    problems = Problems(raise_errors=False)
    splits = checks.open_splits(Config(data=Data(root=str(tmp_path))), problems)
    assert sum(map(len, splits.values())) == 4 and len(splits) == 2
    assert problems.collected == [Problem(Kind.UNANNOTATED, str(tmp_path / "JPEGImages" / "alone.jpg"), "")]


def test_pictures_equal_but_for_their_file_are_the_same(tmp_path):
    for split, stem in (("train", "a"), ("train", "b"), ("val", "c")):
        write(tmp_path, split, stem, [GOOD], None)
        picture(0).save(tmp_path / "JPEGImages" / f"{stem}.png", compress_level=len(stem) + ord(stem) % 5)
    found = check(tmp_path)[2]
    assert [(p.kind, p.file.split("/")[-1]) for p in found] == [(Kind.TWICE, "b.png"), (Kind.TWO_SPLITS, "c.png")]


def test_another_class_in_val_than_in_train_is_unknown_in_coco(tmp_path):
    for split, name in (("train", "cat"), ("val", "cow")):
        image = {"id": 1, "file_name": f"{split}.png", "width": 40, "height": 30}
        entry = {"image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9]}
        content = {"images": [image], "annotations": [entry], "categories": [{"id": 5, "name": name}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        picture(len(split)).save(tmp_path / f"{split}.png")
    found = check(tmp_path)[2]
    assert [(p.kind, p.file.split("/")[-1]) for p in found] == [(Kind.UNKNOWN_CLASS, "val.json")]


def test_counts_and_ceiling(tmp_path):
    """Boxes of 10 by 10 in 40 by 30 are 75 by 100 of 300, which SSD300's boxes reach; those of 1 by 1 are not."""
    write(
        tmp_path, "train", "a", [("cat", (0, 0, 10, 10)), ("cat", (20, 10, 30, 20)), ("dog", (5, 5, 6, 6))], picture(0)
    )
    write(tmp_path, "train", "b", [], picture(1))
    write(tmp_path, "val", "c", [("dog", (0, 0, 10, 10))], picture(2))
    config, splits, _ = check(tmp_path)
    counts = {split: checks.count_split(source) for split, source in splits.items()}
    assert counts["train"] == checks.SplitCount(2, 1, {"cat": 2, "dog": 1})
    assert counts["val"] == checks.SplitCount(1, 0, {"cat": 0, "dog": 1})
    coverage = checks.measure_box_coverage(splits["train"], config)
    assert coverage.all == (3, 1) and coverage.by_class == {"cat": (2, 0), "dog": (1, 1)}
    assert coverage.by_size["below 16 px"] == (1, 1) and coverage.by_size["64 to 128 px"] == (2, 0)
    table = checks.format_counts(counts, coverage).splitlines()
    assert [line.split() for line in table if line.startswith(("cat", "dog", "images", "without"))] == [
        ["cat", "2", "0", "0.0%"], ["dog", "1", "1", "100.0%"], ["images", "2", "1"], ["without", "objects", "1", "0"],
    ]  # fmt: skip


def test_problems_are_listed_by_kind_with_the_first_few():
    problems = [Problem(Kind.ROTATED, f"{k}.jpg", "(orientation 3)") for k in range(12)]
    problems.append(Problem(Kind.MALFORMED, "a.xml", "cut short"))
    lines = checks.format_problems(problems).splitlines()
    assert lines[:3] == ["error: malformed: 1", "    a.xml: cut short", "note: rotated by EXIF: 12"]
    assert lines[-1] == "    and 2 more" and len(lines) == 14
    assert checks.format_problems([]) == "no problems"


# ---- the command ----


def read_rows(out):
    with (out / "problems.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_command_tells_writes_and_exits_with_one(faulty, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("check-data", TINY, "--data.root", faulty, "--out", out) == 1
    screen = capsys.readouterr().out
    assert "error: malformed: 1" in screen and "good.xml" in screen and "warning: no area: 1" in screen
    rows = read_rows(out)
    assert {row["kind"] for row in rows} >= {"malformed", "no area", "in two splits", "rotated by EXIF"}
    content = json.loads((out / "check.json").read_text())
    assert content["splits"]["train"]["objects"]["dog"] == 9 and content["problems"]["no_area"] == 1
    assert image_size(out / "data.png")[0] > 1000 and image_size(out / "train_samples.jpg")[0] > 500


def test_command_exits_with_zero_where_nothing_is_to_be_mended(tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"train": 3, "val": 2})
    assert command("check-data", TINY, "--data.root", root, "--out", tmp_path / "out") == 0
    assert "no problems" in capsys.readouterr().out


def test_command_exits_with_two_where_it_cannot_be_read(tmp_path, capsys):
    assert command("check-data", TINY, "--data.root", tmp_path / "absent", "--out", tmp_path / "out") == 2
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"x")
    root = write_voc_folder(tmp_path / "data", {"train": 1})
    assert command("check-data", TINY, "--data.root", root, "--out", tmp_path / "photos") == 2
    assert "other things in it" in capsys.readouterr().err


def test_generated_pictures_can_be_checked(tmp_path):
    assert command("check-data", TINY, "--out", tmp_path / "out") == 0


def test_bccd_has_two_bad_boxes(bccd, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("check-data", ROOT / "configs" / "own_data.py", "--data.root", bccd, "--out", out) == 1
    rows = read_rows(out)
    assert {(row["kind"], row["file"].split("/")[-1], row["problem"]) for row in rows} == {
        ("no area", "BloodImage_00338.xml", "object 13 (RBC 504 337 504 337)"),
        ("no area", "BloodImage_00343.xml", "object 4 (RBC 181 329 181 329)"),
    }


def contents(root):
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_a_val_split_that_training_would_miss_is_an_error(tmp_path):
    write(tmp_path, "train", "a", [GOOD], picture(0))
    (found,) = check(tmp_path)[2]
    assert found.kind is Kind.MISSING and "no split 'val'" in found.text


def test_what_was_found_is_told_where_no_image_is_left(tmp_path, capsys):
    write(tmp_path, "train", "a", [GOOD], None)
    assert command("check-data", TINY, "--data.root", tmp_path, "--out", tmp_path / "out") == 2
    screen = capsys.readouterr()
    assert "missing file: 1" in screen.out and "a.xml: its image" in screen.out


def test_pictures_of_an_earlier_check_go(tmp_path):
    root = write_voc_folder(tmp_path / "data", {"train": 2, "val": 2, "test": 2})
    argv = "check-data", TINY, "--out", tmp_path / "out", "--no-images", "--data.root"
    assert command(*argv, root) == 0 and (tmp_path / "out" / "test_samples.jpg").exists()
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    assert command(*argv, root) == 0 and not (tmp_path / "out" / "test_samples.jpg").exists()


def test_two_slices_of_a_split_have_files_of_their_own(tmp_path):
    root = write_voc_folder(tmp_path / "data", {"train": 6})
    halves = "--data.train-split", "train[:50%]", "--data.val-split", "train[50%:]"
    argv = "check-data", TINY, "--data.root", root, *halves, "--out", tmp_path / "out", "--fix", tmp_path / "fixed"
    assert command(*argv) == 0
    assert {f.name for f in (tmp_path / "out").glob("*.jpg")} == {
        "train_to50pct_samples.jpg",
        "train_50pctto_samples.jpg",
    }
    assert len(list((tmp_path / "fixed" / "images").iterdir())) == 2


def test_places_where_nothing_can_be_written_are_refused_before_the_work(tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"train": 2, "val": 1})
    (tmp_path / "file").write_text("")
    argv = "check-data", TINY, "--data.root", root, "--out"
    assert command(*argv, tmp_path / "file") == 2 and "Name another --out" in capsys.readouterr().err
    assert command(*argv, tmp_path / "out", "--fix", root / "fixed") == 2
    assert "lies in the data" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert command(*argv, tmp_path / "out", "--fix", tmp_path / "full") == 2
    screen = capsys.readouterr()
    assert "Name a new folder" in screen.err and "image/s" not in screen.err and not screen.out


def test_fix_is_refused_where_objects_would_become_background(faulty, tmp_path, capsys):
    argv = "check-data", TINY, "--data.root", faulty, "--out", tmp_path / "out", "--fix", tmp_path / "fixed"
    assert command(*argv) == 2
    assert "good.xml" in capsys.readouterr().err and not (tmp_path / "fixed").exists()


def test_fix_writes_a_copy_that_has_nothing_to_mend(faulty, tmp_path, capsys):
    (faulty / "Annotations" / "cmyk.xml").write_text(
        (faulty / "Annotations" / "cmyk.xml").read_text().replace("Cat", "dog")
    )
    (faulty / "Annotations" / "kept.xml").replace(faulty / "Annotations" / "good.xml")
    before, fixed = contents(faulty), tmp_path / "fixed"
    argv = "check-data", TINY, "--data.root", faulty, "--out", tmp_path / "out", "--data.max-objects", "9"
    assert command(*argv, "--fix", fixed) == 1
    assert contents(faulty) == before
    assert "Cleaned copy" in capsys.readouterr().out
    _, splits, found = check(fixed)
    assert [p.kind for p in found] == [Kind.TOO_MANY]  # check() has room for 8
    # Of train: gone has no image, first is the same as val's second; cut is whole there, short in val is not.
    ids = {split: {annotation.image_id for annotation in source.annotations()} for split, source in splits.items()}
    names = {"good", "beyond", "flat", "double", "cut", "turned", "grey", "cmyk", "many"}
    assert ids == {"train": {f"{name}.jpg" for name in names}, "val": {"second.jpg"}}
    by_id = {splits["train"].annotation(i).image_id: i for i in range(len(splits["train"]))}
    boxes = {name: splits["train"].annotation(by_id[f"{name}.jpg"]).boxes_px.tolist() for name in names}
    assert boxes["beyond"] == [[0, 0, 20, 20]] and boxes["flat"] == boxes["double"] == [[2, 2, 30, 20]]
    assert len(boxes["many"]) == 9
    # Bytes are copied where nothing is wrong, and a picture that EXIF turns by half is turned.
    assert (fixed / "images/train/flat.jpg").read_bytes() == (faulty / "JPEGImages/flat.jpg").read_bytes()
    with Image.open(fixed / "images/train/turned.jpg") as new, Image.open(faulty / "JPEGImages/turned.jpg") as old:
        turned, stored = np.asarray(new, np.int32), np.asarray(old, np.int32)
    assert np.abs(turned - stored[::-1, ::-1]).mean() < np.abs(turned - stored).mean() / 4
    assert command(*argv, "--fix", fixed) == 2
    assert "Name a new folder" in capsys.readouterr().err
