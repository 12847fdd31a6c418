"""Tests of the page of an audit: its content, the escaping of names, and its pictures."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import GreyImages, PageParser
from PIL import Image

from ssd_jax.data.source import make_annotation
from ssd_jax.errors import escape_text
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.metrics.doubts import Doubt, DoubtKind
from ssd_jax.report.audit_page import choose_part, count_kinds, draw_doubt, write_audit_page
from ssd_jax.report.error_images import CORRECT, MISSED

A, B, C = (10, 10, 40, 40), (60, 10, 90, 40), (10, 50, 40, 70)
NAMES = ("ant", "<script>alert('bee')</script>", "yak")
EVIL_ID = "../<img src=x onerror=alert(1)>\udcff"
FOUND = (60, 40, 90, 70)


def make_audited_split():
    annotations = [
        make_annotation(EVIL_ID, "a.jpg", (100, 80), [A, B, C, C], [1, 2, 3, 2]),
        make_annotation("unreadable", "b.jpg", (100, 80), [A], [1]),
    ]
    boxes = np.array([FOUND, A], np.float32)
    found = ImageDetections(boxes, np.array([0.97, 0.9], np.float32), np.array([2, 2], np.int32))
    doubts = [
        Doubt(DoubtKind.MISSING, 0.97, 0, None, 0),
        Doubt(DoubtKind.CLASS, 0.8, 0, 0, 1, 1.0),
        Doubt(DoubtKind.DUPLICATE, 0.7, 0, 3, None, 1.0, 2),
        Doubt(DoubtKind.EMPTY, 0.25, 1, 0, None),
    ]
    return GreyImages(annotations, NAMES), [found, NO_DETECTIONS], doubts


def test_page_shows_doubts_and_escapes_names(tmp_path: Path):
    source, detections, doubts = make_audited_split()
    file = tmp_path / "audit.html"
    write_audit_page(file, "<my run>", "train", source, detections, doubts, "Judged by & nothing.")
    parser = PageParser(file.read_text())
    for words in ("<my run>", "4 doubts", "5 boxes", "2 images", "1. missing label", "0.97", "Judged by & nothing."):
        assert words in parser.text
    assert escape_text(EVIL_ID) in parser.text and f"{NAMES[1]} is found (0.97), but there is no box" in parser.text
    assert "The image cannot be read." in parser.text
    pictures = [attributes["src"] for tag, attributes in parser.elements if tag == "img"]
    assert len(pictures) == 3 and all(src.startswith("data:image/jpeg;base64,") for src in pictures)
    assert not {tag for tag, _ in parser.elements} & {"script", "link"}


def test_page_without_doubts_says_so(tmp_path: Path):
    source, detections, _ = make_audited_split()
    write_audit_page(tmp_path / "audit.html", "run", "train", source, detections, [], "")
    text = PageParser((tmp_path / "audit.html").read_text()).text
    assert "There are no doubts" in text and "0 doubts" in text


def test_draw_doubt_marks_the_box_and_the_detection():
    source, detections, doubts = make_audited_split()
    picture = draw_doubt(source.image(0), doubts[1], source.annotation(0), detections[0], NAMES)
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    both = [np.abs(pixels - colour).max(axis=2) < 60 for colour in (MISSED, CORRECT)]
    assert all(found.sum() > 100 for found in both)
    assert max(pixels.shape) == 400


@pytest.mark.parametrize("box", [A, (0, 0, 1, 1), (-20, -20, 200, 200), (99, 79, 100, 80), (40, 10, 60, 12)])
@pytest.mark.parametrize("size", [(100, 80), (3000, 50), (1, 1)])
def test_choose_part_is_inside_the_image_and_contains_the_box(box, size):
    left, top, right, bottom = choose_part(np.array([box], np.float32), size)
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    clipped = np.clip(box, 0, [*size, *size])
    if (clipped[:2] < np.array(size) - 1).all():
        assert left <= clipped[0] and top <= clipped[1] and right >= clipped[2] and bottom >= clipped[3]


def test_count_kinds_sums_the_scores():
    rows = count_kinds(make_audited_split()[2])
    assert [(row.kind, row.doubts, row.expected) for row in rows[:2]] == [
        (DoubtKind.MISSING, 1, 0.97),
        (DoubtKind.CLASS, 1, 0.8),
    ]
    assert {row.kind for row in rows} == set(DoubtKind)
