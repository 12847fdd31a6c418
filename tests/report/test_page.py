"""Tests of the report page: numbers, escaping of names, drawings, and appearance in a browser."""
# ruff: noqa: RUF001 (the page has real apostrophes and dashes)

import base64
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import run_command
from helpers.pages import GreyImages, PageParser
from PIL import Image

from ssd_jax.config import Config, Data, Model, Train
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.source import Annotation, FolderSource, make_annotation
from ssd_jax.errors import escape_text
from ssd_jax.evaluation import evaluate, evaluator
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics import diagnosis
from ssd_jax.metrics.average_precision import COCO_KEYS
from ssd_jax.report import error_images, page, template

A, B, C = (10, 10, 40, 40), (60, 10, 90, 40), (10, 50, 40, 70)
NAMES = ("ant", "<script>alert('bee')</script>", 'cat & "dog" 漢字', "yak")
EVIL_ID = "../<img src=x onerror=alert(1)>\udcff"


def make_image_detections(*rows) -> ImageDetections:
    """Return the detections of an image from rows of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


def make_config(names: Sequence[str] = NAMES) -> Config:
    return Config(name="tiny", model=Model(class_names=tuple(names)), train=Train(steps=1000))


def compute_report_metrics(
    detections: Sequence[ImageDetections], annotations: Sequence[Annotation], names=NAMES
) -> dict[str, Any]:
    measured = evaluator.compute_metrics(detections, FolderSource(annotations, names))
    return {"split": "test", "images": len(annotations), "checkpoint_step": 1234, **measured}


def make_small_split() -> tuple[GreyImages, list[ImageDetections]]:
    """Return a source and detections with several errors and a difficult object. The class yak has no objects."""
    annotations = [
        make_annotation("empty", "b.jpg", (100, 80), [], []),
        make_annotation(EVIL_ID, "a.jpg", (100, 80), [A, B, C], [1, 2, 3], [False, False, True]),
        make_annotation("unreadable", "c.jpg", (100, 80), [A], [3]),
    ]
    detections = [
        make_image_detections((A, 0.95, 1)),
        make_image_detections((A, 0.9, 1), (B, 0.8, 3), (B, 0.7, 2), (C, 0.6, 3)),
        make_image_detections(),
    ]
    return GreyImages(annotations, NAMES), detections


@pytest.fixture
def small_page(tmp_path: Path) -> str:
    source, detections = make_small_split()
    annotations = [source.annotation(i) for i in range(3)]
    file = tmp_path / "my & run" / "report.html"
    file.parent.mkdir()
    page.write_report(
        file, make_config(), source, detections, compute_report_metrics(detections, annotations), annotations
    )
    return file.read_text()


# ---- a single file with escaped names ----


def test_page_is_well_formed_and_loads_no_other_file(small_page: str):
    elements = PageParser(small_page).elements
    assert not {name for name, _ in elements} & {"script", "link", "iframe", "object", "base"}
    for name, attributes in elements:
        assert not [key for key in attributes if key.startswith("on") or key == "href"], name
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,"), name
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", small_page))
    assert small_page.isascii(), "so that the encoding does not matter"


def test_class_names_image_ids_and_run_names_are_escaped(small_page: str):
    text = PageParser(small_page).text
    assert "my & run on test" in text
    for name in NAMES:
        assert name in text
    assert EVIL_ID.replace("\udcff", r"\xff") in text, "the byte FF is no character in UTF-8"


@pytest.mark.parametrize(
    "name",
    ["a\nb", "\x1b]0;title\x07", "\u202etxt.exe", "\udce9", "\0", "'\"><i onload=x", "{{ 7 * 7 }}", "&lt;"],
    ids=ascii,
)
def test_page_shows_control_characters_and_markup_of_names_as_text(name: str, tmp_path: Path):
    annotations = [make_annotation(name, name, (100, 80), [A, B], [1, 2])]
    source, detections = GreyImages(annotations, (name, "ant")), [make_image_detections((A, 0.9, 2), (B, 0.8, 1))]
    metrics = compute_report_metrics(detections, annotations, (name, "ant"))
    page.write_report(tmp_path / "r.html", make_config((name, "ant")), source, detections, metrics, annotations)
    html = (tmp_path / "r.html").read_text()
    assert not [letter for letter in html if not letter.isprintable() and letter != "\n"]
    assert not re.search(r"&#(8238|56553);", html)
    page_content = PageParser(html)
    texts = [text.strip() for text in page_content.texts]
    # The name stands in the tables of classes and of confusions (twice), above its curve, in a confusion, and above
    # the image, and it is a part of the list of classes.
    assert texts.count(escape_text(name)) == 7
    titles = [attributes["title"] for _, attributes in page_content.elements if "title" in attributes]
    assert titles.count(escape_text(name)) == 2
    assert not [attributes for _, attributes in page_content.elements if "onload" in attributes]


# ---- texts and numbers ----


def test_head_of_the_page_contains_counts_and_checkpoint_step(small_page: str):
    text = PageParser(small_page).text
    assert "3 images with 3 objects of 4 classes, and 1 more" in text
    assert "step 1,234" in text
    assert "300 px, 8,732 default boxes on 6 feature maps" in text
    assert "1,000 bootstrap resamples" in text
    assert "3 classes have fewer than 20" in text


def test_page_shows_each_metric_in_the_right_place():
    """All numbers are different, so the test fails if a number is in the wrong place."""
    source, detections = make_small_split()
    annotations = [source.annotation(i) for i in range(3)]
    metrics = compute_report_metrics(detections, annotations)
    metrics |= {"voc_map_11point": 0.101, "voc_map_area": 0.102}
    metrics |= {key: 0.201 + i / 1000 for i, key in enumerate(COCO_KEYS)} | {"coco_ap_large": None}
    for i, name in enumerate(NAMES[:3]):
        metrics["voc_classes"][name] |= {"ap_11point": 0.301 + i / 1000, "ap_area": 0.403 - i / 1000}
    result = diagnosis.diagnose(detections, annotations, NAMES)
    text = PageParser(
        template.render_page("page.html.j2", page.make_report_context("run", make_config(), metrics, result))
    ).text
    assert re.search(r"VOC07 mAP, 11-point 0\.101 95 %: 0\.\d+ to \d\.\d+ ", text)
    assert re.search(r"VOC mAP, area 0\.102 95 %: 0\.\d+ to \d\.\d+ ", text)
    assert "COCO AP, .50:.95 0.201" in text
    # The columns are objects, ignored objects, detections, AP by 11 points and AP by area. The lowest area is first.
    rows = [f"{NAMES[2]} 1 1 2 0.303 0.401", f"{NAMES[1]} 1 0 1 0.302 0.402", "ant 1 0 2 0.301 0.403", "yak 0 0 0 – –"]
    places = [text.find(row) for row in rows]
    assert -1 not in places and places == sorted(places)
    assert "AP at IoU 0.5, 0.202" in text
    assert "AP, IoU .50:.95 0.201 0.204 0.205 – AP, IoU .50 0.202 AP, IoU .75 0.203" in text
    assert "per image 0.207 Recall, 10 detections 0.208 Recall, 100 detections 0.209 0.210 0.211 0.212" in text
    assert "have no curve: yak." in text


def test_make_report_context_contains_the_numbers_of_the_page():
    source, detections = make_small_split()
    annotations = list(source.annotations())
    result = diagnosis.diagnose(detections, annotations, NAMES)
    context = page.make_report_context("run", make_config(), compute_report_metrics(detections, annotations), result)
    assert (context["objects"], context["ignored_objects"], context["classes_with_few_objects"]) == (3, 1, 3)
    aps = [row.metrics["ap_area"] for row in context["classes"]]
    assert aps == [*sorted(aps[:-1]), None] and context["classes_without_curve"] == ["yak"]
    assert [(error.type, error.errors) for error in context["errors"]] == sorted(
        ((kind, error.errors) for kind, error in result.tide.items()), key=lambda item: -result.tide[item[0]].gain
    )
    assert max(error.bar for error in context["errors"]) == pytest.approx(100)
    assert [[cell.number for cell in row] for row in context["confusion"]] == result.confusion.tolist()
    assert context["confused"] == [(NAMES[1], NAMES[2], 1)]
    assert (context["images_with_errors"], context["images_without_errors"]) == (3, 0)


def test_operating_point_is_printed_below_the_curve(small_page: str):
    """The class ant has a wrong and a correct detection. The numbers before "precision" are axis labels."""
    assert "ant 0.500 0 0 0.5 0.5 1 1 precision 0.50, recall 1.00" in PageParser(small_page).text


def test_page_lists_confusions_and_errors_of_the_worst_images(small_page: str):
    text = PageParser(small_page).text
    assert f"{NAMES[1]} detected as {NAMES[2]} (once)." in text
    assert "3 images have errors, and 0 have none." in text
    order = [text.find(f"{name} {why}") for name, why in (
        (EVIL_ID.replace("\udcff", r"\xff"), "1 wrong class, 1 duplicate 2 objects"),
        ("empty", "1 background 0 objects"),
        ("unreadable", "1 missed 1 object The image cannot be read."),
    )]  # fmt: skip
    assert -1 not in order and order == sorted(order)


def test_make_curve_plot_returns_paths_through_the_points():
    """Precision is 1, 1/2, 2/3 at recall 1/2, 1/2, 1. The area has the height 2/3 from recall 1/2 on."""
    curve = diagnosis.Curve(np.array([1, 1 / 2, 2 / 3]), np.array([1 / 2, 1 / 2, 1]), shown=2)
    plot = page.make_curve_plot(curve)
    left, middle, right = 22, 22 + 170 / 2, 22 + 170
    top, half, third, bottom = 6, 6 + 116 / 2, 6 + 116 / 3, 6 + 116

    def parse_numbers(path: str | None) -> list[float]:
        return [float(number) for number in re.findall(r"[\d.]+", path or "")]

    line = [middle, top, middle, half, right, third]
    np.testing.assert_allclose(parse_numbers(plot.line)[: len(line)], line, atol=0.06)
    np.testing.assert_allclose(parse_numbers(plot.line)[-2:], [right, third], atol=0.06)
    ground = [left, bottom, left, top, middle, top, middle, third, right, third]
    np.testing.assert_allclose(parse_numbers(plot.area)[: len(ground)], ground, atol=0.06)
    assert plot.point == pytest.approx((middle, half))


def test_format_svg_points_leaves_out_points_within_a_third_of_a_unit():
    points = np.column_stack([np.linspace(0, 100, 50_000), np.sin(np.linspace(0, 6, 50_000)) * 50])
    drawn = np.array(page.format_svg_points(points).split(), float).reshape(-1, 2)
    assert len(drawn) < 700
    assert drawn[-1] == pytest.approx(points[-1], abs=0.06)
    assert np.abs(np.diff(drawn, axis=0)).max() < 0.6


@pytest.mark.parametrize(
    ("annotations", "detections"),
    [
        ([], []),
        ([make_annotation("a", "a.jpg", (9, 9), [], [])], [make_image_detections()]),
        ([make_annotation("a", "a.jpg", (9, 9), [], [])], [make_image_detections(((1, 1, 5, 5), 0.9, 1))]),
        ([make_annotation("a", "a.jpg", (9, 9), [(1, 1, 5, 5)], [2])] * 2, [make_image_detections()] * 2),
        (
            [make_annotation("a", "a.jpg", (9, 9), [(1, 1, 5, 5)], [2])] * 2,
            [make_image_detections(((1, 1, 5, 5), 0.3, 2))] * 2,
        ),
        (
            [make_annotation("a", "a.jpg", (9, 9), [(1, 1, 5, 5)], [2], [True])] * 2,
            [make_image_detections(((1, 1, 5, 5), 0.9, 2))] * 2,
        ),
    ],
    ids=["no images", "nothing", "no objects", "no detections", "low scores", "only difficult"],
)
def test_page_of_a_degenerate_split_contains_no_undefined_numbers(annotations, detections, tmp_path):
    file = tmp_path / "report.html"
    metrics = compute_report_metrics(detections, annotations)
    page.write_report(file, make_config(), GreyImages(annotations, NAMES), detections, metrics, annotations)
    text = PageParser(file.read_text()).text
    assert "nan" not in text and "None" not in text and "inf" not in text


# ---- error images ----


def read_pixel(jpeg: bytes | None, x: float, y: float) -> list[int]:
    """Return the colour of an enlarged image (6.4 times) at a position in pixels of the original image."""
    assert jpeg is not None
    image = Image.open(io.BytesIO(jpeg))
    assert image.size == (640, 512)
    return list(image.getpixel((round(6.4 * x), round(6.4 * y))))


def is_near(colour: list[int], expected: Sequence[int]) -> bool:
    """Return whether a colour is similar to the expected colour."""
    return bool(np.abs(np.array(colour) - expected).max() < 70)  # JPEG blurs thin lines of strong colours


def test_draw_error_image_colours_boxes_by_outcome():
    """Object A is detected, B is missed, and C is difficult. Only the left edges are checked: they have no labels."""
    truth = make_annotation("a", "a.jpg", (100, 80), [A, B, C], [1, 1, 1], [False, False, True])
    detections = make_image_detections((A, 0.9, 1), ((60, 45, 90, 75), 0.8, 1), (C, 0.7, 2))
    result = diagnosis.diagnose_image(detections, truth)
    drawn = error_images.draw_error_image(GreyImages([truth], NAMES), 0, detections, result)
    assert is_near(read_pixel(drawn.truth, 10, 25), error_images.CORRECT)
    assert is_near(read_pixel(drawn.truth, 60, 25), error_images.MISSED)
    assert is_near(read_pixel(drawn.truth, 10, 60), error_images.IGNORED)
    assert is_near(read_pixel(drawn.detections, 10, 25), error_images.CORRECT)
    assert is_near(read_pixel(drawn.detections, 60, 60), error_images.ERROR)
    assert is_near(read_pixel(drawn.detections, 10, 60), error_images.IGNORED)
    assert is_near(read_pixel(drawn.detections, 60, 25), (128, 128, 128)), "there is no detection of B"
    assert (drawn.objects, drawn.errors) == (2, {"missed": 1, "background": 1})


def test_labels_on_error_images_name_the_errors():
    truth = make_annotation("a", "a.jpg", (100, 80), [A, B, C], [1, 2, 4], [False, False, True])
    detections = make_image_detections((A, 0.9, 4), (A, 0.8, 1), (C, 0.7, 1), ((60, 45, 90, 75), 0.6, 3), (C, 0.2, 1))
    result = diagnosis.diagnose_image(detections, truth)
    assert error_images.make_truth_labels(truth, result, NAMES) == ["", f"{NAMES[1]}, missed", " "]
    labels = error_images.make_detection_labels(detections, truth, result, NAMES)
    assert labels == ["yak 0.90, is ant", "ant 0.80, duplicate", " ", f"{NAMES[2]} 0.60, background"]


def test_legend_has_the_colours_of_the_error_images():
    css = (Path(page.__file__).parent / "page.css").read_text()
    colours = {"right": "CORRECT", "missed": "MISSED", "wrong": "ERROR", "ignored": "IGNORED"}
    for kind, name in colours.items():
        red, green, blue = getattr(error_images, name)
        assert f"mark.{kind} {{ border-color: rgb({red} {green} {blue}); }}" in css


# ---- the command ----


def test_evaluate_writes_the_report_page(trained_run: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    assert run_command("evaluate", run, "--report") == 0
    assert f"Report: {run / 'report.html'}" in capsys.readouterr().out
    before = (run / "report.html").read_text()
    assert "run on test" in PageParser(before).text
    metrics = evaluate(run, "val", report=True)
    assert json.loads((run / "metrics_val.json").read_text()) == metrics
    assert (metrics["split"], metrics["images"], metrics["coco_ap"] is None) == ("val", 6, False)
    assert {"val_truth.jpg", "val_pred.jpg"} <= {file.name for file in run.iterdir()}
    assert "run on val" in PageParser((run / "report_val.html").read_text()).text
    assert (run / "report.html").read_text() == before


# ---- in a browser ----


@pytest.fixture(scope="session")
def chromium_path() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("needs a browser: there is no chromium, chromium-browser or google-chrome in the PATH")


def run_browser(chromium_path: str, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        chromium_path,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    profile = f"--user-data-dir={file.parent / 'profile'}"
    return subprocess.run(
        [*command, profile, *options, file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"LANG": "C.UTF-8"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def page_of_bccd(bccd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report page about real images, and return its path.

    The detections are shifted annotations, some of them with wrong labels, and random boxes.
    """
    source = open_source(Data(root=str(bccd)), "test")
    rng, detections = np.random.default_rng(0), []
    annotations = list(source.annotations())
    for a in annotations:
        kept = rng.random(len(a.labels)) < 0.9
        boxes = a.boxes_px[kept] + rng.normal(0, 5, (kept.sum(), 4))
        labels = np.where(rng.random(kept.sum()) < 0.95, a.labels[kept], 1)
        corners = rng.uniform(0, 300, (3, 2))
        rows = [*zip(boxes, rng.beta(5, 2, len(boxes)), labels, strict=True)]
        rows += [((*c, *(c + 80)), rng.uniform(0, 0.6), int(rng.integers(1, 4))) for c in corners]
        detections.append(make_image_detections(*rows))
    file = tmp_path_factory.mktemp("bccd") / "report.html"
    names = source.class_names
    page.write_report(
        file,
        make_config(names),
        source,
        detections,
        compute_report_metrics(detections, annotations, names),
        annotations,
    )
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_drawn_in_a_browser_without_console_messages(
    chromium_path: str, page_of_bccd: Path, tmp_path: Path, scheme: str
):
    assert page_of_bccd.stat().st_size < 5e6
    shot = tmp_path / "shot.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browser_log = run_browser(
        chromium_path, page_of_bccd, f"--screenshot={shot}", "--window-size=1280,3000", *dark
    ).stderr
    assert "CONSOLE" not in browser_log
    drawn = np.asarray(Image.open(shot).convert("RGB"))
    assert drawn.shape == (3000, 1280, 3)
    paper = drawn[5, 5].astype(int)
    assert (paper.min() > 230) if scheme == "light" else (paper.max() < 50)
    inked = (np.abs(drawn - paper).max(axis=2) > 60).reshape(30, 100, 1280).mean(axis=(1, 2))
    assert (inked > 0.002).all(), "each band of a hundred rows contains something"
    assert 0.05 < inked.mean() < 0.6
    assert len(np.unique(drawn[2000:].reshape(-1, 3), axis=0)) > 5000, (
        "the page shows the photographs of the worst images"
    )


@pytest.mark.parametrize("width", [500, 1600])  # chromium's windows are not narrower
@pytest.mark.parametrize("has_long_names", [False, True])
def test_page_is_not_wider_than_the_window(
    chromium_path: str, page_of_bccd: Path, tmp_path: Path, width: int, has_long_names: bool
):
    file, content = tmp_path / "measured.html", page_of_bccd.read_text(encoding="utf-8")
    if has_long_names:
        content = content.replace("Platelets", "x" * 255)
    measure = "<script>document.body.append(`measured ${innerWidth} ${document.documentElement.scrollWidth}`)</script>"
    file.write_text(content.replace("</body>", measure + "</body>"))
    dom = run_browser(chromium_path, file, "--dump-dom", f"--window-size={width},900").stdout
    assert f"measured {width} {width}" in dom


def test_embedded_pictures_are_jpeg_files(small_page: str):
    sources = [a["src"] for name, a in PageParser(small_page).elements if name == "img"]
    assert len(sources) == 4, "there are two pictures of each image that can be read"
    for source in sources:
        image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert (image.format, image.size) == ("JPEG", (640, 512))
