"""Tests of the files of an audit: the table, and the annotations with proposed corrections."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_jax.auditing.proposals import make_proposals, write_doubts_csv, write_proposals
from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.metrics.doubts import Doubt, DoubtKind

NAMES = ("ant", "=bee()")
A, B, C, FOUND = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 5, 80, 25)


def make_split(folder: str = "") -> tuple[FolderSource, list[ImageDetections]]:
    """Return two images, of which the first one has three boxes and a difficult one, and their detections."""
    annotations = [
        make_annotation("one", f"{folder}one.png", (100, 50), [A, B, C, C], [1, 1, 2, 2], [False] * 3 + [True]),
        make_annotation("two", f"{folder}two.png", (100, 50), [], []),
    ]
    boxes = np.array([FOUND, (-5, 0, 15, 60)], np.float32)
    found = ImageDetections(boxes, np.array([0.9, 0.7], np.float32), np.array([2, 1], np.int32))
    return FolderSource(annotations, NAMES), [found, found]


def list_boxes(proposals: dict, image: int = 1) -> list[tuple]:
    return [(tuple(o["bbox"]), o["category_id"]) for o in proposals["annotations"] if o["image_id"] == image]


XYWH = {A: (0, 0, 10, 10), B: (20, 0, 10, 10), C: (40, 0, 10, 10), FOUND: (60, 5, 20, 20)}
UNCHANGED = [(XYWH[A], 1), (XYWH[B], 1), (XYWH[C], 2), (XYWH[C], 2)]


@pytest.mark.parametrize(
    ("doubt", "expected"),
    [
        (Doubt(DoubtKind.MISSING, 0.9, 0, None, 0), [*UNCHANGED, (XYWH[FOUND], 2)]),
        (Doubt(DoubtKind.MISSING, 0.4, 0, None, 0), UNCHANGED),
        (Doubt(DoubtKind.EMPTY, 0.9, 0, 1, None), UNCHANGED),
        (Doubt(DoubtKind.CLASS, 0.9, 0, 1, 0, 0.8), [UNCHANGED[0], (XYWH[B], 2), *UNCHANGED[2:]]),
        (Doubt(DoubtKind.CLASS, 0.4, 0, 1, 0, 0.8), UNCHANGED),
        (Doubt(DoubtKind.LOOSE, 0.9, 0, 0, 0, 0.4), [(XYWH[FOUND], 1), *UNCHANGED[1:]]),
        (Doubt(DoubtKind.DUPLICATE, 0.9, 0, 2, None, 0.9, 0), [UNCHANGED[0], UNCHANGED[1], UNCHANGED[3]]),
    ],
)
def test_make_proposals_corrects_sure_doubts(doubt: Doubt, expected: list):
    source, detections = make_split()
    proposals = make_proposals(source, [doubt], detections)
    assert list_boxes(proposals) == expected
    assert list_boxes(proposals, 2) == []
    assert [image["file_name"] for image in proposals["images"]] == ["one.png", "two.png"]
    marked = [o["attributes"] for o in proposals["annotations"] if "doubt" in o["attributes"]]
    is_listed = doubt.kind is not DoubtKind.DUPLICATE and (doubt.object_index is not None or doubt.score >= 0.5)
    assert marked == [{"doubt": doubt.kind.value, "doubt_score": doubt.score, "doubt_rank": 1}] * is_listed


def test_make_proposals_keeps_difficult_objects_and_clips_new_boxes():
    source, detections = make_split()
    proposals = make_proposals(source, [Doubt(DoubtKind.MISSING, 0.9, 1, None, 1)], detections)
    assert [o["attributes"] for o in proposals["annotations"]][:4] == [{}, {}, {}, {"difficult": True}]
    assert list_boxes(proposals, 2) == [((0, 0, 15, 50), 1)]


def test_write_proposals_writes_a_data_set_that_can_be_read(tmp_path: Path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    for name in ("one", "two"):
        Image.new("RGB", (100, 50)).save(tmp_path / "images" / "train" / f"{name}.png")
    source, detections = make_split(f"{tmp_path}/images/train/")
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_train.json"
    write_proposals(file, source, [Doubt(DoubtKind.MISSING, 0.9, 1, None, 0)], detections, f"{tmp_path}/images/train")
    assert [image["file_name"] for image in json.loads(file.read_text())["images"]] == ["one.png", "two.png"]
    read = open_source(Data(root=str(tmp_path), val_split="train"), "train")
    assert read.class_names == NAMES
    boxes = [a.boxes_px.tolist() for a in read.annotations()]
    assert boxes == [[list(box) for box in (A, B, C, C)], [list(FOUND)]]


def test_write_doubts_csv_has_a_row_for_each_doubt(tmp_path: Path):
    source, detections = make_split()
    doubts = [
        Doubt(DoubtKind.CLASS, 0.91, 0, 1, 0, 0.75),
        Doubt(DoubtKind.MISSING, 0.5, 0, None, 0),
        Doubt(DoubtKind.EMPTY, 0.4, 0, 0, None),
    ]
    file = tmp_path / "doubts.csv"
    write_doubts_csv(file, doubts, list(source.annotations()), detections, NAMES)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["kind"] for row in rows] == ["other class", "missing label", "nothing found"]
    first = rows[0]
    assert (first["rank"], first["score"], first["image"], first["file"], first["iou"]) == (
        "1", "0.91", "one", "one.png", "0.75",
    )  # fmt: skip
    assert (first["box"], first["class"], float(first["x1"]), float(first["x2"])) == ("2", "ant", 20, 30)
    assert (first["found_class"], float(first["found_score"]), float(first["found_y2"])) == ("'=bee()", 0.9, 25)
    assert (rows[1]["box"], rows[1]["class"], rows[1]["x1"]) == ("", "", "")
    assert (rows[2]["found_class"], rows[2]["found_score"], rows[2]["iou"]) == ("", "", "")


def test_files_of_a_split_without_doubts_are_written(tmp_path: Path):
    source = make_split()[0].select([1])
    write_doubts_csv(tmp_path / "doubts.csv", [], list(source.annotations()), [NO_DETECTIONS], NAMES)
    assert len((tmp_path / "doubts.csv").read_text().splitlines()) == 1
    assert make_proposals(source, [], [NO_DETECTIONS])["annotations"] == []
