"""Tests of recognising boxes whose numbers have another meaning than the format says."""

import json

import numpy as np
import pytest
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.box_format import FORMATS, find_box_format
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

SIZE = (200, 100)


def draw_boxes(count=40):
    """Return random xyxy boxes that touch no edge of an image of `SIZE`."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0.1, 0.5, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.3, 0.48, (count, 2))], axis=1) * np.array(SIZE * 2)


def to_numbers(box, name):
    x1, y1, x2, y2 = box
    start = {"xyxy": (x1, y1), "xywh": (x1, y1), "cxcywh": ((x1 + x2) / 2, (y1 + y2) / 2)}[name]
    return [*start, *((x2, y2) if name == "xyxy" else (x2 - x1, y2 - y1))]


def to_box(numbers, name):
    a, b, c, d = numbers
    return {"xyxy": [a, b, c, d], "xywh": [a, b, a + c, b + d], "cxcywh": [a - c / 2, b - d / 2, a + c / 2, b + d / 2]}[
        name
    ]


@pytest.mark.parametrize("stated", FORMATS)
@pytest.mark.parametrize("true", FORMATS)
def test_find_box_format_returns_the_format_that_the_boxes_were_written_in(stated, true):
    read = np.array([to_box(to_numbers(box, true), stated) for box in draw_boxes()])
    found = find_box_format(read, np.array([SIZE] * len(read), float), stated)
    assert found is None if true == stated else found is not None and found[0] == true


def test_find_box_format_returns_none_for_few_boxes_or_careless_ones():
    read = np.array([to_box(to_numbers(box, "xyxy"), "xywh") for box in draw_boxes()])
    assert find_box_format(read[:9], np.array([SIZE] * 9, float), "xywh") is None
    # Careless boxes of objects that touch an edge reach beyond the image in every format.
    careless = draw_boxes()
    careless[::3, :2] -= 0.52 * np.array(SIZE)
    careless[1::3, 2:] += 0.52 * np.array(SIZE)
    for stated in FORMATS:
        assert find_box_format(careless, np.array([SIZE] * len(careless), float), stated) is None


def write_coco(root, boxes):
    Image.new("RGB", SIZE).save(root / "a.jpg")
    annotations = [{"id": k, "image_id": 1, "category_id": 1, "bbox": box} for k, box in enumerate(boxes, start=1)]
    images = [{"id": 1, "file_name": "a.jpg"}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (root / "train.json").write_text(json.dumps(content))


def write_voc(root, boxes):
    Image.new("RGB", SIZE).save(root / "a.jpg")
    tags = ("xmin", "ymin", "xmax", "ymax")
    texts = ["".join(f"<{t}>{v}</{t}>" for t, v in zip(tags, box, strict=True)) for box in boxes]
    objects = "".join(f"<object><name>cat</name><bndbox>{text}</bndbox></object>" for text in texts)
    (root / "a.xml").write_text(f"<annotation>{objects}</annotation>")


def write_yolo(root, boxes):
    Image.new("RGB", SIZE).save(root / "a.jpg")
    rows = np.array(boxes) / np.array(SIZE * 2)
    (root / "a.txt").write_text("".join(f"0 {' '.join(f'{value:.6f}' for value in row)}\n" for row in rows))
    (root / "classes.txt").write_text("cat\n")


@pytest.mark.parametrize(
    ("write", "stated", "true"),
    [(write_coco, "xywh", "xyxy"), (write_voc, "xyxy", "xywh"), (write_yolo, "cxcywh", "xyxy")],
)
def test_box_format_of_a_data_set_is_an_error_unless_it_is_the_stated_one(write, stated, true, tmp_path):
    data = Data(root=str(tmp_path), val_fraction=1e-9, val_split="train")
    write(tmp_path, [to_numbers(box, stated) for box in draw_boxes()])
    assert len(open_source(data, "train").annotation(0).labels) == 40
    write(tmp_path, [to_numbers(box, true) for box in draw_boxes()])
    with pytest.raises(UserError, match=f"if their numbers are {FORMATS[true]} instead of {FORMATS[stated]}"):
        open_source(data, "train")
    problems = Problems(raise_errors=False)
    open_source(data, "train", problems=problems)
    assert [p.kind for p in problems.collected].count(Kind.BOX_FORMAT) == 1
