"""Tests of the problems of a data set, which are raised as errors or collected."""

import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.problems import Kind, Problem, Problems, summarise_problems
from ssd_jax.data.source import RawObject, annotation_from_objects
from ssd_jax.errors import UserError


def annotate(objects, problems, size=(40, 30)):
    labels = {"cat": 1, "dog": 2}
    return annotation_from_objects("a", "a.jpg", size, objects, labels, problems, file="a.xml")


def test_problems_raises_or_collects_errors_and_collects_warnings():
    for raise_errors in (True, False):
        problems = Problems(raise_errors=raise_errors)
        problems.add(Kind.NO_AREA, "a.xml", "object 1")
        if raise_errors:
            with pytest.raises(UserError, match=r"^b\.xml: it is gone$"):
                problems.add(Kind.MISSING, "b.xml", "it is gone")
        else:
            problems.add(Kind.MISSING, "b.xml", "it is gone")
        expected = [Problem(Kind.NO_AREA, "a.xml", "object 1"), Problem(Kind.MISSING, "b.xml", "it is gone")]
        assert problems.collected == expected[: 1 if raise_errors else 2]


def test_annotation_from_objects_checks_every_object():
    box = (1.0, 2.0, 9.0, 8.0)
    objects = [
        RawObject("object 1", "cat", box),
        RawObject("object 2", "cow", box),
        RawObject("object 3", "cat", (40.0, 0.0, 44.0, 9.0)),
        RawObject("object 4", "dog", (-3.0, 0.0, 5.0, 30.0)),
        RawObject("object 5", "dog", box),
        RawObject("object 6", "cat", box),
        RawObject("object 7", "cat", (5.0, 5.0, 5.0, 9.0)),
        RawObject("object 8", "dog", (0.0, 0.0, 40.0, 30.0)),
    ]
    problems = Problems(raise_errors=False)
    annotation = annotate(objects, problems)
    assert annotation.labels.tolist() == [1, 2, 2, 1, 2]
    assert [(p.kind, p.file, p.text[:8]) for p in problems.collected] == [
        (Kind.UNKNOWN_CLASS, "a.xml", "object 2"),
        (Kind.NO_AREA, "a.xml", "object 3"),
        (Kind.OUT_OF_IMAGE, "a.xml", "object 4"),
        (Kind.DUPLICATE, "a.xml", "object 6"),
        (Kind.NO_AREA, "a.xml", "object 7"),
    ]
    assert "'cow'" in problems.collected[0].text and "cat, dog" in problems.collected[0].text
    assert "object 1" in problems.collected[3].text


def test_repeated_objects_of_a_crowded_image_are_found_in_linear_time():
    """Each of 10,000 boxes is repeated once. Comparing all pairs would take ten times as long as is allowed here."""
    boxes = [(float(i % 100), float(i // 100), 120.0, 120.0) for i in range(10_000)] * 2
    problems = Problems(raise_errors=False)
    start = time.process_time()
    annotate([RawObject(f"object {i}", "cat", box) for i, box in enumerate(boxes)], problems, (200, 200))
    assert time.process_time() - start < 2
    texts = [problem.text for problem in problems.collected]
    assert len(texts) == 10_000 and texts[77].endswith("same as object 77")


@pytest.mark.parametrize("box", [(9, 2, 1, 8), (1, 8, 9, 2), (9, 8, 1, 2)])
def test_annotation_from_objects_puts_swapped_corners_in_order(box):
    problems = Problems()
    annotation = annotate([RawObject("object 1", "cat", box)], problems)
    np.testing.assert_array_equal(annotation.boxes_px, [[1, 2, 9, 8]])
    np.testing.assert_array_equal(annotation.area_px, [48])
    (problem,) = problems.collected
    assert problem.kind is Kind.SWAPPED and problem.text == f"object 1 (cat {' '.join(map(str, box))})"


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (50, 5, 60, 9), (60, 9, 50, 5)])
def test_annotation_from_objects_leaves_out_boxes_without_area(box):
    problems = Problems()
    assert len(annotate([RawObject("object 1", "cat", box)], problems).labels) == 0
    assert problems.collected[-1].kind is Kind.NO_AREA


def test_notes_contain_the_count_and_the_first_three_files():
    problems = Problems()
    for k in range(7):
        problems.add(Kind.OUT_OF_IMAGE, f"{k}.xml", "object 1 (cat 0 0 9 9)")
    (note,) = problems.notes()
    assert note.startswith(f"7 {Kind.OUT_OF_IMAGE.training_note}: 0.xml object 1 (cat 0 0 9 9)")
    assert "2.xml" in note and "3.xml" not in note and note.endswith("; ...")


def test_like_errors_are_summarised_in_one_line():
    problems = [
        Problem(Kind.MALFORMED, f"{k}.xml", f"object {k} has the width '{k + 3}'. Correct it.") for k in range(100)
    ]
    problems += [Problem(Kind.MALFORMED, "x.xml", "not well-formed XML. Correct that line.")]
    assert summarise_problems(problems) == [
        "100 times: 0.xml: object 0 has the width '3'. Correct it. Also: 1.xml; 2.xml; ...",
        "x.xml: not well-formed XML. Correct that line.",
    ]


def test_like_errors_of_one_file_are_summarised_by_the_words_that_differ():
    texts = [f"annotations[{k}] of {name} has no 'bbox'. Add it." for k, name in enumerate(("a.jpg", "b.png", "c.jpg"))]
    (line,) = summarise_problems(Problem(Kind.MALFORMED, "train.json", text) for text in texts)
    assert line == f"3 times: train.json: {texts[0]} Also: annotations[1]; annotations[2]"
    files = ("train.json", "train.json", "val.json")
    problems = [Problem(Kind.MALFORMED, file, text) for file, text in zip(files, texts, strict=True)]
    assert summarise_problems(problems) == [
        f"3 times: train.json: {texts[0]} Also: annotations[1]; val.json annotations[2]"
    ]
    texts = [f"line {k} contains 1.{k}. Correct it." for k in range(5)]
    (line,) = summarise_problems(Problem(Kind.MALFORMED, "a.txt", text) for text in texts)
    assert line == f"5 times: a.txt: {texts[0]} Also: line 1; line 2; ..."


def test_objects_of_unknown_classes_are_summarised_by_class():
    problems = Problems(raise_errors=False)
    for k, name in enumerate(["cta", "cta", "bird", "cta"]):
        annotation_from_objects(
            "a",
            "a.jpg",
            (40, 30),
            [RawObject(f"object {k}", name, (1, 2, 9, 8))],
            {"cat": 1},
            problems,
            file=f"{k}.xml",
        )
    cta, bird = summarise_problems(problems.collected)
    assert cta.startswith("3 times: 0.xml: object 0 is of class 'cta'") and cta.endswith("Also: 1.xml; 3.xml")
    assert "Did you mean 'cat'?" in cta and bird.startswith("2.xml:") and "Did you mean" not in bird


def test_a_group_replaces_the_sentence_of_a_warning_and_its_file_is_stated_once():
    problems = [Problem(Kind.OTHER_TYPE, f"{k}.jpg", "", "PNG files are named .jpg") for k in range(5)]
    problems += [Problem(Kind.OUT_OF_IMAGE, "train.json", f"annotations[{k}]") for k in range(2)]
    assert summarise_problems(problems) == [
        "5 PNG files are named .jpg: 0.jpg; 1.jpg; 2.jpg; ...",
        f"2 {Kind.OUT_OF_IMAGE.training_note}: train.json annotations[0]; annotations[1]",
    ]


def test_raise_collected_errors_has_a_line_for_like_errors():
    problems = Problems(raise_errors=False)
    problems.add(Kind.OUT_OF_IMAGE, "a.xml", "object 1")
    problems.raise_collected_errors()
    for k in range(400):
        problems.add(Kind.MALFORMED, f"{k}.xml", f"object {k} has no <name>. Add it.")
    for k in range(30):
        problems.add(Kind.UNKNOWN_CLASS, "a.xml", "unknown", group=str(k))
    with pytest.raises(UserError) as caught:
        problems.raise_collected_errors()
    first, *others, rest, last = str(caught.value).splitlines()
    assert first.startswith("400 times: 0.xml: object 0") and len(others) == 9
    assert rest.startswith("and 21 other lines") and "check-data lists each of these 430 errors" in last


BROKEN = {
    "complete": "<annotation>{good}</annotation>",
    "truncated": "<annotation><object>",
    "nameless": "<annotation><object><bndbox/></object>{good}</annotation>",
    "no_image": "<annotation>{good}</annotation>",
}
GOOD = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"


def test_voc_reader_collects_all_problems(tmp_path):
    for stem, xml in BROKEN.items():
        (tmp_path / f"{stem}.xml").write_text(xml.format(good=GOOD))
        if stem != "no_image":
            Image.new("RGB", (40, 30)).save(tmp_path / f"{stem}.png")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n".join([*BROKEN, "absent"]))
    problems = Problems(raise_errors=False)
    source = open_source(Data(root=str(tmp_path)), "train", (), problems)
    assert {(p.kind, p.file.split("/")[-1]) for p in problems.collected} == {
        (Kind.HELD_OUT, tmp_path.name),
        (Kind.MISSING, "train.txt line 5"),
        (Kind.MALFORMED, "truncated.xml"),
        (Kind.MALFORMED, "nameless.xml"),
        (Kind.MISSING, "no_image.xml"),
    }
    assert [annotation.labels.tolist() for annotation in source.annotations()] == [[1]]
    with pytest.raises(UserError, match=r"train\.txt line 5"):
        open_source(Data(root=str(tmp_path)), "train")


def test_coco_reader_collects_all_problems(tmp_path):
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
    good = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 6]}
    content = {
        "images": [image, {"id": 2, "width": 40, "height": 30}, image | {"id": 3, "file_name": "gone.png"}],
        "annotations": [
            good, good | {"bbox": [1, 2, 3]}, good | {"category_id": 9}, good | {"image_id": 7}, good | {"bbox": "x"},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(content))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    problems = Problems(raise_errors=False)
    source = open_source(Data(root=str(tmp_path)), "train", (), problems)
    expected = [
        (Kind.MALFORMED, r"\$\.images\[1\]"),
        (Kind.MALFORMED, r"annotations\[1\]"),
        (Kind.MALFORMED, r"annotations\[4\]"),
        (Kind.UNKNOWN_CLASS, r"annotations\[2\].*\b9\b"),
        (Kind.MALFORMED, r"annotations\[3\].*\b7\b"),
        (Kind.MISSING, "gone.png"),
        (Kind.HELD_OUT, "0 of 1 images"),
    ]
    assert len(problems.collected) == len(expected)
    for kind, pattern in expected:
        assert any(p.kind is kind and re.search(pattern, p.text) for p in problems.collected), pattern
    assert len(source) == 1 and source.annotation(0).labels.tolist() == [1]
