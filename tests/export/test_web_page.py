"""Tests of an exported page in a browser, with the real onnxruntime-web: it detects what `predict` detects."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import Page, run_browser
from helpers.detector_page import open_detector_page, save_detections, set_lowest_score, show_picture
from helpers.page_server import run_page_server
from helpers.web_runtime import download_package
from PIL import Image

from ssd_jax.data.image import read_image
from ssd_jax.export.network import ExportOptions
from ssd_jax.export.parity import BOX_TOLERANCE, SCORE_TOLERANCE, pair_detections
from ssd_jax.export.run import export_model
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.model_zoo.catalog import BUNDLED_FOLDER
from ssd_jax.model_zoo.opening import load

pytestmark = pytest.mark.usefixtures("few_pictures")
PHOTOGRAPHS = sorted((BUNDLED_FOLDER.parent / "photographs").glob("*.jpg"))
LOWEST_SCORE = 0.05
"""Lowest score to which the slider of the page goes."""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return download_package(tmp_path_factory.mktemp("npm"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSD_JAX_CACHE", str(tmp_path / "cache"))


def export_page(run: str | Path, runtime: Path, folder: Path) -> dict[str, bytes]:
    """Export a page, and return its files."""
    export_model(run, "web", folder, ExportOptions(runtime=runtime))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def detect_in_page(page: Page, url: str, pictures: Sequence[Path], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what the page saves about each picture."""
    page.set_size(1200, 900)
    open_detector_page(page, url)
    set_lowest_score(page, LOWEST_SCORE)
    for picture in pictures:
        assert show_picture(page, picture).startswith(picture.name), page.problems
        yield save_detections(page, folder)
    assert page.problems == []
    assert [address for address in page.requests if not address.startswith((url, "blob:", "about:"))] == []


def check_detections(run: str | Path, pictures: Sequence[Path], results: Sequence[dict[str, Any]]) -> int:
    """Check that a page has found what the detector of a run finds in the same pictures, and return the number."""
    count = 0
    for picture, expected, result in zip(
        pictures, load(run)(pictures, score_threshold=LOWEST_SCORE), results, strict=True
    ):
        assert (result["width"], result["height"]) == expected.size, picture.name
        found = result["detections"]
        assert [row["class_name"] for row in found] == [expected.classes[row["class_index"]] for row in found]
        arrays = ImageDetections(
            np.array([row["box"] for row in found], np.float32).reshape(-1, 4),
            np.array([row["score"] for row in found], np.float32),
            np.array([row["class_index"] + 1 for row in found], np.int32),
        )
        original = expected.to_arrays()
        pairs = pair_detections(original, arrays)
        assert len(pairs.first) == len(original.scores) == len(arrays.scores), picture.name
        box_difference = np.abs(original.boxes_px[pairs.first] - arrays.boxes_px[pairs.second]).max()
        score_difference = np.abs(original.scores[pairs.first] - arrays.scores[pairs.second]).max()
        assert box_difference <= BOX_TOLERANCE and score_difference <= SCORE_TOLERANCE, picture.name
        count += len(pairs.first)
    return count


def test_page_detects_the_same_as_predict(model, runtime, cache, tmp_path):
    """The pictures are reduced to 64 px. One is turned by its EXIF orientation."""
    pictures = [tmp_path / "wide.png", tmp_path / "turned.png"]
    photograph = Image.open(PHOTOGRAPHS[0])
    photograph.crop((0, 0, 500, 300)).save(pictures[0])
    exif = Image.Exif()
    exif[0x0112] = 8
    photograph.crop((200, 100, 260, 140)).save(pictures[1], exif=exif)
    files = export_page(model, runtime, tmp_path / "page")
    with run_browser() as page, run_page_server(files) as url:
        results = list(detect_in_page(page, url, pictures, tmp_path))
    assert check_detections(model, pictures, results) > 20


@pytest.mark.slow
@pytest.mark.parametrize("is_isolated", [False, True])
def test_page_detects_the_same_as_predict_in_photographs(runtime, cache, tmp_path, is_isolated):
    """An isolated page uses threads. JPEG decoders may differ by a level, but here they do not."""
    pictures = [*PHOTOGRAPHS, tmp_path / "large.png"]
    Image.fromarray(read_image(PHOTOGRAPHS[0])).resize((2100, 1575)).save(pictures[-1])
    files = export_page("blood-cells", runtime, tmp_path / "page")
    isolation = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    with run_browser() as page, run_page_server(files, headers=isolation if is_isolated else {}) as url:
        results = list(detect_in_page(page, url, pictures, tmp_path))
        assert page.evaluate("crossOriginIsolated") == is_isolated
    assert check_detections("blood-cells", pictures, results) > 80
