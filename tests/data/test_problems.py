"""Stopping at what is wrong, or collecting all of it."""

import json

import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.problems import Kind, Problem, Problems
from ssd_jax.data.source import RawObject, annotation_from_objects
from ssd_jax.errors import UserError


def placed(objects, problems, size=(40, 30)):
    labels = {"cat": 1, "dog": 2}
    return annotation_from_objects("a", "a.jpg", size, objects, labels, problems, file="a.xml")


def test_errors_are_raised_or_collected_and_warnings_collected():
    for stop in (True, False):
        problems = Problems(raise_errors=stop)
        problems.add(Kind.NO_AREA, "a.xml", "object 1")
        if stop:
            with pytest.raises(UserError, match=r"^b\.xml: it is gone$"):
                problems.add(Kind.MISSING, "b.xml", "it is gone")
        else:
            problems.add(Kind.MISSING, "b.xml", "it is gone")
        expected = [Problem(Kind.NO_AREA, "a.xml", "object 1"), Problem(Kind.MISSING, "b.xml", "it is gone")]
        assert problems.collected == expected[: 1 if stop else 2]


def test_every_object_is_judged():
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
    annotation = placed(objects, problems)
    assert annotation.labels.tolist() == [1, 2, 2, 1, 2]
    assert [(p.kind, p.text.split(" (")[0]) for p in problems.collected] == [
        (Kind.UNKNOWN_CLASS, "object 2 is of class 'cow', which is not among the classes cat, dog. Correct the name, "
         "or add the class."),
        (Kind.NO_AREA, "object 3"),
        (Kind.OUT_OF_IMAGE, "object 4"),
        (Kind.DUPLICATE, "object 6"),
        (Kind.NO_AREA, "object 7"),
    ]  # fmt: skip
    assert problems.collected[3].text.endswith("as object 1")


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ((9, 2, 1, 8), "xmax is below xmin"),
        ((1, 8, 9, 2), "ymax is below ymin"),
        ((9, 8, 1, 2), "xmax is below xmin and ymax is below ymin"),
        ((5, 5, 5, 9), None),
        ((50, 5, 60, 9), None),
    ],
)
def test_corners_in_the_wrong_order_are_told(box, told):
    problems = Problems()
    placed([RawObject("object 1", "cat", box)], problems)
    expected = f": {told} (corners swapped, or a size below 0?)" if told else ""
    assert [p.text for p in problems.collected] == [f"object 1 (cat {' '.join(map(str, box))}){expected}"]


def test_notes_count_and_name_the_first_few():
    problems = Problems()
    for k in range(7):
        problems.add(Kind.OUT_OF_IMAGE, f"{k}.xml", "object 1 (cat 0 0 9 9)")
    (note,) = problems.notes()
    assert note.startswith("7 boxes reach beyond their image; training sees the part inside: 0.xml object 1 (cat")
    assert "4.xml" in note and "5.xml" not in note and note.endswith("; ...")


BROKEN = {
    "whole": "<annotation>{good}</annotation>",
    "cut": "<annotation><object>",
    "nameless": "<annotation><object><bndbox/></object>{good}</annotation>",
    "no_image": "<annotation>{good}</annotation>",
}
GOOD = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"


def test_a_voc_folder_is_read_to_its_end(tmp_path):
    for stem, xml in BROKEN.items():
        (tmp_path / f"{stem}.xml").write_text(xml.format(good=GOOD))
        if stem != "no_image":
            Image.new("RGB", (40, 30)).save(tmp_path / f"{stem}.png")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n".join([*BROKEN, "absent"]))
    problems = Problems(raise_errors=False)
    source = open_source(Data(root=str(tmp_path)), "train", (), problems)
    found = {(p.kind, p.file.split("/")[-1]) for p in problems.collected}
    assert found == {
        (Kind.MISSING, "train.txt line 5"),
        (Kind.MALFORMED, "cut.xml"),
        (Kind.MALFORMED, "nameless.xml"),
        (Kind.MISSING, "no_image.xml"),
    }
    assert [source.annotation(i).labels.tolist() for i in range(len(source))] == [[1], [1]]
    with pytest.raises(UserError, match=r"train\.txt line 5"):
        open_source(Data(root=str(tmp_path)), "train")


def test_a_coco_file_is_read_to_its_end(tmp_path):
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
    good = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 6]}
    content = {
        "images": [image, {"id": 2, "file_name": "b.png", "width": 40}, image | {"id": 3, "file_name": "gone.png"}],
        "annotations": [
            good, good | {"bbox": [1, 2, 3]}, good | {"category_id": 9}, good | {"image_id": 7}, good | {"bbox": "x"},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(content))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    problems = Problems(raise_errors=False)
    source = open_source(Data(root=str(tmp_path)), "train", (), problems)
    texts = [(p.kind, p.text) for p in problems.collected]
    expected = [
        (Kind.MALFORMED, "$.images[1]"),
        (Kind.MALFORMED, "annotations[1]"),
        (Kind.MALFORMED, "annotations[4]"),
        (Kind.UNKNOWN_CLASS, "annotations[2] has category_id 9"),
        (Kind.MALFORMED, "annotations[3] has image_id 7"),
        (Kind.MISSING, "'gone.png'"),
    ]
    assert len(texts) == len(expected)
    for kind, words in expected:
        assert any(kind is k and words in text for k, text in texts), words
    assert len(source) == 1 and source.annotation(0).labels.tolist() == [1]
