"""Tests of data set checks and of the check-data command, on folders with known problems."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import ROOT, TINY, run_command, write_voc_folder
from PIL import Image

from ssd_jax.config import Config, Data, Shapes
from ssd_jax.data.check import checks, summary
from ssd_jax.data.check.checks import check_data_set
from ssd_jax.data.check.contents import SplitCount
from ssd_jax.data.image import image_size
from ssd_jax.data.problems import Kind, Problem, Problems

GOOD = ("cat", (2, 2, 30, 20))


def make_noise_image(seed, size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def write_voc_image(root, split, stem, objects, image):
    """Add an image and its annotation to a VOC folder, and return the path of the image.

    ``image`` is a Pillow image, the bytes of an image file, or None to write no image file. An image with the stem
    ``rotated`` gets an EXIF orientation.
    """
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
        exif = Image.Exif()
        if stem == "rotated":
            exif[0x0112] = 3
        image.save(file, exif=exif)
    return file


@pytest.fixture
def faulty_folder(tmp_path):
    """Create a VOC folder in which most train images are named after their problems, and return the path.

    One val image is truncated, and the other one repeats a train image.
    """
    root = tmp_path / "data"
    repeated = make_noise_image(7)
    write_voc_image(root, "train", "good", [GOOD], make_noise_image(0))
    write_voc_image(root, "train", "outside", [("cat", (-5, 0, 20, 20))], make_noise_image(1))
    write_voc_image(root, "train", "empty_box", [("cat", (5, 5, 5, 9)), GOOD], make_noise_image(2))
    write_voc_image(root, "train", "duplicate", [GOOD, GOOD], make_noise_image(3))
    write_voc_image(root, "train", "missing", [GOOD], None)
    complete = write_voc_image(root, "train", "other_size", [GOOD], make_noise_image(4, (200, 150))).read_bytes()
    write_voc_image(root, "val", "truncated", [GOOD], complete[: len(complete) // 2])
    write_voc_image(root, "train", "rotated", [GOOD], make_noise_image(5))
    write_voc_image(root, "train", "grey", [GOOD], make_noise_image(6).convert("L"))
    write_voc_image(root, "train", "cmyk", [("Cat", (1, 1, 9, 9))], make_noise_image(16).convert("CMYK"))
    write_voc_image(root, "train", "many", [("dog", (k, k, k + 9, k + 9)) for k in range(9)], make_noise_image(8))
    write_voc_image(root, "train", "first", [GOOD], repeated)
    write_voc_image(root, "val", "second", [GOOD], repeated)
    (root / "Annotations" / "good.xml").rename(root / "Annotations" / "kept.xml")
    (root / "Annotations" / "good.xml").write_text("<annotation><object>")
    return root


def check_folder(root, **data):
    config = Config(data=Data(root=str(root), max_objects=8, **data))
    return check_data_set(config)


def list_kinds_and_files(problems):
    return [(problem.kind, Path(problem.file).name) for problem in problems]


def test_check_data_set_finds_every_problem_and_names_the_files(faulty_folder):
    result = check_folder(faulty_folder)
    found = {(p.kind, p.file.removeprefix(f"{faulty_folder}/")) for p in result.problems}
    assert found == {
        (Kind.MALFORMED, "Annotations/good.xml"),
        (Kind.IN_NO_SPLIT, "Annotations/kept.xml"),
        (Kind.MISSING, "Annotations/missing.xml"),
        (Kind.OUT_OF_IMAGE, "Annotations/outside.xml"),
        (Kind.NO_AREA, "Annotations/empty_box.xml"),
        (Kind.SIZE_DIFFERS, "Annotations/other_size.xml"),
        (Kind.SIZE_DIFFERS, "Annotations/truncated.xml"),
        (Kind.DUPLICATE, "Annotations/duplicate.xml"),
        (Kind.UNREADABLE, "JPEGImages/truncated.jpg"),
        (Kind.ROTATED, "JPEGImages/rotated.jpg"),
        (Kind.NOT_RGB, "JPEGImages/grey.jpg"),
        (Kind.NOT_RGB, "JPEGImages/cmyk.jpg"),
        (Kind.TOO_MANY, "JPEGImages/many.jpg"),
        (Kind.TWO_SPLITS, "JPEGImages/second.jpg"),
        (Kind.SIMILAR_NAMES, str(faulty_folder)),
        (Kind.ONE_OBJECT, str(faulty_folder)),
    }
    assert len(result.problems) == len(found)
    assert set(result.splits) == {"train", "val"}


def test_check_data_set_without_reading_images_finds_only_problems_of_annotations(faulty_folder):
    result = check_data_set(Config(data=Data(root=str(faulty_folder), max_objects=8)), read_images=False)
    kinds = {problem.kind for problem in result.problems}
    assert {Kind.MALFORMED, Kind.DUPLICATE, Kind.TOO_MANY} <= kinds and not result.digests
    assert not kinds & {Kind.UNREADABLE, Kind.ROTATED, Kind.NOT_RGB, Kind.TWO_SPLITS}


def test_check_data_set_allows_exactly_max_objects(tmp_path):
    boxes = [("dog", (k, k, k + 9, k + 9)) for k in range(9)]
    write_voc_image(tmp_path, "train", "full", boxes[:8], make_noise_image(0))
    write_voc_image(tmp_path, "val", "over", boxes, make_noise_image(1))
    assert list_kinds_and_files(check_folder(tmp_path).problems) == [(Kind.TOO_MANY, "over.jpg")]


def test_check_data_set_finds_class_names_that_differ_only_in_case(faulty_folder):
    (text,) = [p.text for p in check_folder(faulty_folder).problems if p.kind is Kind.SIMILAR_NAMES]
    assert "'Cat'" in text and "'cat'" in text


def test_check_data_set_lists_a_file_in_two_splits_once(tmp_path):
    write_voc_image(tmp_path, "train", "a", [GOOD], make_noise_image(0))
    write_voc_image(tmp_path, "train", "b", [GOOD], make_noise_image(1))
    write_voc_image(tmp_path, "train", "c", [GOOD], make_noise_image(2))
    write_voc_image(tmp_path, "test", "d", [GOOD], make_noise_image(3))
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("b\na\nd\n")
    problems = check_folder(tmp_path, val_split="test").problems
    assert list_kinds_and_files(problems) == [(Kind.TWO_SPLITS, "a.jpg"), (Kind.TWO_SPLITS, "b.jpg")]
    assert all("train" in p.text and "test" in p.text for p in problems)


def test_open_splits_lists_each_problem_of_a_folder_without_splits_once(tmp_path):
    for k in range(4):
        write_voc_image(tmp_path, "train", f"i{k}", [GOOD], make_noise_image(k))
    (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
    (tmp_path / "ImageSets" / "Main").rmdir()
    make_noise_image(9).save(tmp_path / "JPEGImages" / "alone.jpg")
    problems = Problems(raise_errors=False)
    splits = checks.open_splits(Config(data=Data(root=str(tmp_path))), problems)
    assert sum(map(len, splits.values())) == 4 and len(splits) == 2
    unannotated, held_out = problems.collected
    assert unannotated == Problem(Kind.UNANNOTATED, str(tmp_path / "JPEGImages" / "alone.jpg"), "")
    assert held_out.kind is Kind.HELD_OUT and "1 of 4 images" in held_out.text


def test_check_data_set_finds_equal_pixels_in_different_files(tmp_path):
    for level, (split, stem) in enumerate((("train", "a"), ("train", "b"), ("val", "c"))):
        write_voc_image(tmp_path, split, stem, [GOOD], None)
        make_noise_image(0).save(tmp_path / "JPEGImages" / f"{stem}.png", compress_level=3 * level)
    assert len({file.read_bytes() for file in (tmp_path / "JPEGImages").iterdir()}) > 1
    assert list_kinds_and_files(check_folder(tmp_path).problems) == [(Kind.TWICE, "b.png"), (Kind.TWO_SPLITS, "c.png")]


def test_check_data_set_notes_a_jpeg_that_was_completed(tmp_path, caplog):
    file = write_voc_image(tmp_path, "train", "short", [GOOD, ("cat", (5, 5, 20, 25))], make_noise_image(0))
    write_voc_image(tmp_path, "val", "whole", [GOOD], make_noise_image(1))
    file.write_bytes(file.read_bytes()[:-2])
    problems = check_data_set(Config(data=Data(root=str(tmp_path)))).problems
    assert problems == [Problem(Kind.INCOMPLETE, str(file), "the file lacks its end marker, but no pixels")]
    assert not caplog.messages


def test_check_data_set_says_whether_repeated_images_have_other_objects(tmp_path):
    other = ("cat", (5, 5, 20, 25))
    for stem, objects in (("a", [GOOD, other]), ("b", [other, GOOD]), ("c", [GOOD])):
        write_voc_image(tmp_path, "train", stem, objects, make_noise_image(0))
    write_voc_image(tmp_path, "val", "d", [other], make_noise_image(0))
    problems = check_folder(tmp_path).problems
    assert list_kinds_and_files(problems) == [(Kind.TWICE, "b.jpg"), (Kind.TWICE, "c.jpg"), (Kind.TWO_SPLITS, "d.jpg")]
    assert ["other objects" in problem.group for problem in problems] == [False, True, True]


def test_check_data_set_counts_files_whose_name_states_another_type(tmp_path):
    for k in range(4):
        file = write_voc_image(tmp_path, "train", f"i{k}", [GOOD], make_noise_image(k))
        if k:
            make_noise_image(k).save(file, format="PNG")
    write_voc_image(tmp_path, "val", "v", [GOOD], make_noise_image(9))
    problems = check_folder(tmp_path).problems
    assert list_kinds_and_files(problems) == [(Kind.OTHER_TYPE, f"i{k}.jpg") for k in (1, 2, 3)]
    assert summary.format_problems(problems).startswith("note: 3 PNG files are named .jpg: ")


def test_check_data_set_finds_a_coco_class_that_is_missing_in_train(tmp_path):
    for split, name in (("train", "cat"), ("val", "cow")):
        image = {"id": 1, "file_name": f"{split}.png", "width": 40, "height": 30}
        entry = {"image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9]}
        content = {"images": [image], "annotations": [entry], "categories": [{"id": 5, "name": name}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
        make_noise_image(len(split)).save(tmp_path / f"{split}.png")
    problems = check_folder(tmp_path).problems
    assert (Kind.UNKNOWN_CLASS, "val.json") in list_kinds_and_files(problems)
    assert {p.kind for p in problems} == {Kind.UNKNOWN_CLASS, Kind.ONE_OBJECT}


def test_check_data_set_reports_a_missing_val_split(tmp_path):
    write_voc_image(tmp_path, "train", "a", [GOOD, ("cat", (5, 5, 20, 25))], make_noise_image(0))
    held_out, problem = check_folder(tmp_path).problems
    assert held_out.kind is Kind.HELD_OUT and problem.kind is Kind.UNUSABLE_SPLIT and "'val'" in problem.text


def test_check_data_set_finds_no_problems_in_generated_images():
    shapes = Shapes(train_images=3, val_images=2, test_images=1, image_size=64)
    result = check_data_set(Config(data=Data(root="shapes", shapes=shapes)))
    assert not result.problems and len(result.digests) == 6
    assert {split: count.images for split, count in result.counts.items()} == {"train": 3, "val": 2, "test": 1}


def test_check_data_set_counts_objects_and_unmatched_objects(tmp_path):
    """Count objects of 10 x 10 px, which match default boxes of SSD300, and objects of 1 x 1 px, which match none.

    The images have 40 x 30 px, so 10 x 10 px become 75 x 100 px in the network's input of 300 x 300 px.
    """
    objects = [("cat", (0, 0, 10, 10)), ("cat", (20, 10, 30, 20)), ("dog", (5, 5, 6, 6))]
    write_voc_image(tmp_path, "train", "a", objects, make_noise_image(0))
    write_voc_image(tmp_path, "train", "b", [], make_noise_image(1))
    write_voc_image(tmp_path, "val", "c", [("dog", (0, 0, 10, 10))], make_noise_image(2))
    result = check_folder(tmp_path)
    assert result.counts["train"] == SplitCount(2, 1, {"cat": 2, "dog": 1})
    assert result.counts["val"] == SplitCount(1, 0, {"cat": 0, "dog": 1})
    assert result.coverage.all == (3, 1) and result.coverage.by_class == {"cat": (2, 0), "dog": (1, 1)}
    assert result.coverage.by_size["below 16 px"] == (1, 1) and result.coverage.by_size["64 to 128 px"] == (2, 0)
    table = summary.format_counts(result).splitlines()
    assert len(set(map(len, (line.rstrip() for line in table[:4])))) == 1, "columns are aligned"
    assert [line.split() for line in table if line[0] != "-"] == [
        ["class", "train", "val", "unmatched"],
        ["cat", "2", "0", "0.0%"],
        ["dog", "1", "1", "100.0%"],
        ["all", "objects", "3", "1", "33.3%"],
        ["images", "2", "1"],
        ["without", "objects", "1", "0"],
    ]


def test_format_problems_has_a_line_for_like_problems_sorted_by_severity():
    problems = [Problem(Kind.ROTATED, f"/data/{k}.jpg", "(orientation 3)") for k in range(12)]
    problems += [Problem(Kind.SLIVER, "/data/s.jpg", "(cat)")]
    problems += [Problem(Kind.MALFORMED, f"/data/{k}.xml", f"object {k} has no <name>. Add it.") for k in range(400)]
    problems += [Problem(Kind.MALFORMED, "/data/a.xml", "cut short")]
    lines = summary.format_problems(problems, "/data").splitlines()
    assert lines == [
        "error: 400 times: 0.xml: object 0 has no <name>. Add it. Also: 1.xml; 2.xml; ...",
        "error: a.xml: cut short",
        "warning: 1 box is narrower or lower than a pixel and probably wrong; training uses it: s.jpg (cat)",
        f"note: 12 {Kind.ROTATED.training_note}: "
        "0.jpg (orientation 3); 1.jpg (orientation 3); 2.jpg (orientation 3); ...",
    ]
    assert summary.format_headline(problems, "/data") == "/data: 401 errors, 1 warning, 12 notes"
    assert summary.format_problems([]) == "no problems"


def test_format_problems_limits_the_lines_of_a_kind():
    problems = [Problem(Kind.UNKNOWN_CLASS, "a.xml", f"class {k} is unknown", f"{k}") for k in range(300)]
    lines = summary.format_problems(problems).splitlines()
    assert len(lines) < 10 and "problems.csv" in lines[-1] and f"{300 - len(lines) + 1} more" in lines[-1]


def test_format_counts_joins_the_rarest_of_many_classes(tmp_path):
    names = [f"c{k:02}" for k in range(40)]
    objects = [(name, (0, 0, 10, 10)) for k, name in enumerate(names) for _ in range(1 + (k < 10))]
    write_voc_image(tmp_path, "train", "a", objects, make_noise_image(0))
    write_voc_image(tmp_path, "val", "b", objects, make_noise_image(1))
    result = check_data_set(Config(data=Data(root=str(tmp_path))), read_images=False)
    rows = [line.split() for line in summary.format_counts(result).splitlines()]
    assert [row[1:3] for row in rows if row[0] in names[:10]] == [["2", "2"]] * 10
    assert ["17", "rarer", "classes", "17", "17"] in rows and len(rows) < 35


# ---- the command ----


def read_problems_csv(out):
    with (out / "problems.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_check_data_prints_and_writes_problems_and_exits_with_1(faulty_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_command("check-data", TINY, "--data.root", faulty_folder, "--out", out) == 1
    screen = capsys.readouterr().out
    assert "error: Annotations/good.xml" in screen and "warning: 1 box has no area" in screen
    rows = read_problems_csv(out)
    assert {row["kind"] for row in rows} >= {"malformed", "no area", "in two splits", "rotated by EXIF"}
    content = json.loads((out / "check.json").read_text())
    assert content["splits"]["train"]["objects"]["dog"] == 9 and content["problems"]["no_area"] == 1
    unmatched = content["recall_ceiling"]
    assert set(unmatched) == {"all", "by_class", "by_size", "published", "advice"}
    assert set(unmatched["all"]) == {"objects", "below"} == set(unmatched["by_class"]["dog"])
    assert image_size(out / "data.png")[0] > 1000 and image_size(out / "train_samples.jpg")[0] > 500


def test_check_data_exits_with_0_without_problems_and_removes_old_sample_images(tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"train": 6, "val": 1, "test": 1})
    argv = "check-data", TINY, "--data.root", root, "--out", tmp_path / "out"
    assert run_command(*argv) == 0 and (tmp_path / "out" / "test_samples.jpg").exists()
    assert "no problems" in capsys.readouterr().out
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    (root / "Annotations" / "test0.xml").unlink()
    assert run_command(*argv, "--no-images") == 0 and not (tmp_path / "out" / "test_samples.jpg").exists()


def test_check_data_exits_with_2_if_the_data_set_cannot_be_opened(tmp_path, capsys):
    assert run_command("check-data", TINY, "--data.root", tmp_path / "absent", "--out", tmp_path / "out") == 2
    write_voc_image(tmp_path / "data", "train", "a", [GOOD], None)
    make_noise_image(0).save(tmp_path / "data" / "other.png")
    assert run_command("check-data", TINY, "--data.root", tmp_path / "data", "--out", tmp_path / "out") == 2
    screen = capsys.readouterr()
    assert "error: Annotations/a.xml" in screen.out, "problems found so far are printed"


@pytest.mark.parametrize("options", [[], ["--no-images"]])
def test_check_data_names_the_option_for_a_folder_that_is_given_without_it(options, tmp_path, capsys):
    assert run_command("check-data", TINY, *options, tmp_path / "my data") == 2
    message = capsys.readouterr().err
    assert f"--data.root '{tmp_path / 'my data'}'" in message and len(message.splitlines()) == 1


def test_check_data_finds_the_two_empty_boxes_of_bccd(bccd, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_command("check-data", ROOT / "configs" / "own_data.py", "--data.root", bccd, "--out", out) == 1
    rows = read_problems_csv(out)
    assert {(row["kind"], Path(row["file"]).name, row["problem"]) for row in rows} == {
        ("no area", "BloodImage_00338.xml", "object 13 (RBC 504 337 504 337)"),
        ("no area", "BloodImage_00343.xml", "object 4 (RBC 181 329 181 329)"),
    }


def read_all_files(root):
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_check_data_writes_separate_files_for_two_slices_of_a_split(tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"train": 12})
    halves = "--data.train-split", "train[:50%]", "--data.val-split", "train[50%:]"
    argv = "check-data", TINY, "--data.root", root, *halves, "--out", tmp_path / "out", "--fix", tmp_path / "fixed"
    assert run_command(*argv) == 0
    options = re.search(r"ssd-jax train \S+ (.*)", capsys.readouterr().out)[1].split()
    assert run_command("check-data", TINY, *options, "--out", tmp_path / "again") == 0, "the command fits the copy"
    names = {f.name for f in (tmp_path / "out").glob("*.jpg")}
    assert names == {"train_to50pct_samples.jpg", "train_50pctto_samples.jpg"}
    assert len(list((tmp_path / "fixed" / "images").iterdir())) == 2


def test_check_data_rejects_unusable_output_folders_before_reading_the_data(tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"train": 2, "val": 1})
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("")
    argv = "check-data", TINY, "--data.root", root, "--out"
    for out, fix, named in (
        (tmp_path / "file", None, tmp_path / "file"),
        (tmp_path / "full", None, tmp_path / "full"),
        (tmp_path / "out", root / "fixed", root / "fixed"),
        (tmp_path / "out", tmp_path / "full", tmp_path / "full"),
    ):
        assert run_command(*argv, out, *(["--fix", fix] if fix else [])) == 2
        screen = capsys.readouterr()
        assert str(named) in screen.err and "image/s" not in screen.err and not screen.out
    assert (tmp_path / "full" / "photo.jpg").exists()


def test_fix_option_is_rejected_together_with_no_images(tmp_path, capsys):
    root = write_voc_folder(tmp_path / "data", {"train": 1})
    argv = "check-data", TINY, "--data.root", root, "--out", tmp_path / "out", "--fix", tmp_path / "fixed"
    assert run_command(*argv, "--no-images") == 2
    assert "--no-images" in capsys.readouterr().err and not (tmp_path / "fixed").exists()


def test_fix_option_is_rejected_if_an_annotation_cannot_be_read(faulty_folder, tmp_path, capsys):
    argv = "check-data", TINY, "--data.root", faulty_folder, "--out", tmp_path / "out", "--fix", tmp_path / "fixed"
    assert run_command(*argv) == 2
    assert "good.xml" in capsys.readouterr().err and not (tmp_path / "fixed").exists()


def test_fix_option_writes_a_copy_without_problems(faulty_folder, tmp_path, capsys):
    annotations = faulty_folder / "Annotations"
    (annotations / "cmyk.xml").write_text((annotations / "cmyk.xml").read_text().replace("Cat", "dog"))
    (annotations / "kept.xml").replace(annotations / "good.xml")
    before, fixed = read_all_files(faulty_folder), tmp_path / "fixed"
    argv = "check-data", TINY, "--data.root", faulty_folder, "--out", tmp_path / "out", "--data.max-objects", "9"
    assert run_command(*argv, "--fix", fixed) == 1
    assert read_all_files(faulty_folder) == before
    (command,) = re.findall(r"ssd-jax train .*", capsys.readouterr().out)
    assert f"--data.root {fixed}" in command and str(faulty_folder) not in command
    result = check_folder(fixed)
    assert [p.kind for p in result.problems] == [Kind.TOO_MANY]  # check_folder() allows only 8 objects per image
    # Three images are not in the copy: "missing" has no image file, "first" has the same pixels as "second" in
    # val, and "truncated" in val is unreadable.
    names = {"good", "outside", "empty_box", "duplicate", "other_size", "rotated", "grey", "cmyk", "many"}
    ids = {
        split: {annotation.image_id for annotation in source.annotations()} for split, source in result.splits.items()
    }
    assert ids == {"train": {f"{name}.jpg" for name in names}, "val": {"second.jpg"}}
    boxes = {a.image_id.removesuffix(".jpg"): a.boxes_px.tolist() for a in result.splits["train"].annotations()}
    assert boxes["outside"] == [[0, 0, 20, 20]] and boxes["empty_box"] == boxes["duplicate"] == [[2, 2, 30, 20]]
    assert len(boxes["many"]) == 9
    # Images without problems are copied byte by byte. The image that is upside down by its EXIF orientation is rotated.
    images = fixed / "images" / "train"
    assert (images / "empty_box.jpg").read_bytes() == (faulty_folder / "JPEGImages" / "empty_box.jpg").read_bytes()
    with Image.open(images / "rotated.jpg") as new, Image.open(faulty_folder / "JPEGImages" / "rotated.jpg") as old:
        rotated, stored = np.asarray(new, np.int32), np.asarray(old, np.int32)
    assert np.abs(rotated - stored[::-1, ::-1]).mean() < np.abs(rotated - stored).mean() / 4
    assert run_command(*argv, "--fix", fixed) == 2, "the folder is no longer new"
    assert str(fixed) in capsys.readouterr().err


def test_splits_with_the_same_images_are_one_problem_with_advice_that_works(tmp_path):
    make_noise_image(0).save(tmp_path / "a.jpg")
    for stem in "abcdefghij":
        make_noise_image(ord(stem)).save(tmp_path / f"{stem}.jpg")
        (tmp_path / f"{stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: .\nval: .\nnames: [cat]\n")
    check = check_data_set(Config(data=Data(root=str(tmp_path))))
    (problem,) = [p for p in check.problems if p.kind in (Kind.SAME_SPLITS, Kind.TWO_SPLITS)]
    assert problem.kind is Kind.SAME_SPLITS
    splits = dict(re.findall(r"--data.(\w+) '([^']*)'", problem.text))
    check = check_data_set(Config(data=Data(root=str(tmp_path), **splits)))
    assert check.problems == [] and [count.images for count in check.counts.values()] == [9, 1]


def test_malformed_annotations_are_not_reported_as_missing_objects_too(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        make_noise_image(len(split)).save(tmp_path / split / "a.jpg")
        (tmp_path / split / "a.txt").write_text("0 0.5 0.5 0.2 0.2 0.9\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    problems = check_data_set(Config(data=Data(root=str(tmp_path)))).problems
    assert {p.kind for p in problems} == {Kind.MALFORMED}
