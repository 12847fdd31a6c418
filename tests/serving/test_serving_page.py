"""Tests of the pages of the server in headless Chromium."""

from functools import partial
from pathlib import Path

import pytest
from helpers.browser import run_browser
from helpers.detector_page import open_detector_page, save_detections, set_lowest_score, show_picture
from helpers.http_servers import serve_in_thread
from helpers.tiny_detector import make_detector

import ssd_jax
from ssd_jax.serving.app import make_app
from ssd_jax.serving.protection import protect

PHOTOGRAPH = Path(ssd_jax.__file__).parent / "model_zoo" / "photographs" / "blood_cells_1.jpg"


def test_page_shows_the_boxes_of_load_and_requests_only_the_server(tmp_path: Path):
    detector = make_detector()
    app, _ = make_app(detector, "tiny", protection=partial(protect, host="127.0.0.1"))
    with serve_in_thread(app) as port, run_browser() as page:
        address = f"http://127.0.0.1:{port}/"
        open_detector_page(page, address)
        show_picture(page, PHOTOGRAPH)
        set_lowest_score(page, 0)
        saved = save_detections(page, tmp_path)
        text = tmp_path / "notes.txt"
        text.write_text("not a picture", encoding="utf-8")
        assert "notes.txt" in show_picture(page, text)
        page.open(f"{address}docs")
        assert page.evaluate("document.querySelector('h1').textContent") == "Detection with tiny"
        assert page.evaluate("getComputedStyle(document.querySelector('td')).textAlign") == "left"
        assert page.problems == []
        assert all(url.startswith((address, f"blob:{address}")) for url in page.requests), page.requests
    found = detector(PHOTOGRAPH, score_threshold=0.0)
    shown = [(row["class_name"], row["score"], row["box"]) for row in saved["detections"]]
    assert len(shown) > 5 and len(shown) == len(found)
    for (name, score, box), expected in zip(shown, found, strict=True):
        assert name == expected.name
        assert score == pytest.approx(expected.score, abs=1e-6) and box == pytest.approx(expected.box, abs=1e-3)
