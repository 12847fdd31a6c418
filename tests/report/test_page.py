"""Tests of the report page: numbers, escaping of names, drawings, and appearance in a browser."""
# ruff: noqa: RUF001 (the page has real apostrophes and dashes)

import base64
import datetime
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
from ssd_jax.metrics import diagnosis, intervals
from ssd_jax.metrics.average_precision import COCO_KEYS, match_coco
from ssd_jax.metrics.voc_matching import match_classes
from ssd_jax.report import error_images, page, run_facts, template
from ssd_jax.report.run_facts import RunFacts

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


DAY = datetime.date(2026, 1, 31)
FACTS = RunFacts("other", 0, 1_234_567, DAY, 12.34, 754, (DAY, DAY), ())


def measure(detections, annotations, metrics=None, names=NAMES, facts=FACTS) -> page.Measurement:
    """Return everything that the page shows about the detections in a split, with some facts about a run."""
    metrics = compute_report_metrics(detections, annotations, names) if metrics is None else metrics
    coco = intervals.match_coco_classes(match_coco(detections, annotations, names))
    matches = match_classes(detections, annotations, names)
    return page.Measurement(
        metrics, intervals.bootstrap(matches, coco), diagnosis.diagnose(detections, annotations, names), facts
    )


def read_text(measured: page.Measurement, annotations: Sequence[Annotation], config: Config | None = None) -> str:
    """Return the text of the page without images."""
    context = page.make_report_context("run", config or make_config(), measured, annotations)
    return PageParser(template.render_page("page.html.j2", context)).text


@pytest.fixture
def small_page(tmp_path: Path) -> str:
    source, detections = make_small_split()
    annotations = [source.annotation(i) for i in range(3)]
    file = tmp_path / "my & run" / "report.html"
    file.parent.mkdir()
    page.write_report(file, make_config(), source, detections, annotations, measure(detections, annotations))
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
    measured = measure(detections, annotations, metrics, (name, "ant"))
    page.write_report(tmp_path / "r.html", make_config((name, "ant")), source, detections, annotations, measured)
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
    text = read_text(measure(detections, annotations, metrics), annotations)
    assert re.search(r"VOC07 mAP, 11-point 0\.101 95 %: 0\.\d+ to \d\.\d+ ", text)
    assert re.search(r"VOC mAP, area 0\.102 95 %: 0\.\d+ to \d\.\d+ ", text)
    assert re.search(r"COCO AP, \.50:\.95 0\.201 95 %: 0\.\d+ to \d\.\d+ ", text)
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
    measured = measure(detections, annotations)
    result = measured.diagnosis
    context = page.make_report_context("run", make_config(), measured, annotations)
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
        (EVIL_ID.replace("\udcff", r"\xff"), "1 classification, 1 duplicate 2 objects"),
        ("empty", "1 background 0 objects"),
        ("unreadable", "1 missed 1 object The image cannot be read."),
    )]  # fmt: skip
    assert -1 not in order and order == sorted(order)


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
    measured = measure(detections, annotations, metrics)
    page.write_report(file, make_config(), GreyImages(annotations, NAMES), detections, annotations, measured)
    text = PageParser(file.read_text()).text
    assert "nan" not in text and "None" not in text and "inf" not in text


# ---- facts, notes and pictures ----


def test_page_shows_the_facts_of_the_run(tmp_path: Path):
    """The curves are in two drawings. The dashed line of step 50 is in the middle of the 170 units from 22 on."""
    source, detections = make_small_split()
    annotations = list(source.annotations())
    log = [{"step": 50, "loss": 4.0}, {"step": 100, "loss": 2.5}]
    results = [
        {"step": 50, "voc_map_area": 0.25},
        {"step": 100, "voc_map_area": None},
        {"step": 100, "voc_map_area": 0.5},
    ]
    facts = FACTS._replace(use="selected", evaluations=2, plots=run_facts.make_training_plots(log, results, 50))
    metrics = compute_report_metrics(detections, annotations)
    metrics["constant_box"] = {
        "split": "train", "voc_map_11point": 0.11, "voc_map_area": 0.22, "coco_ap": 0.33,
        "precision": 0.44, "recall": None,
    }  # fmt: skip
    measured = measure(detections, annotations, metrics, facts=facts)
    page.write_report(tmp_path / "r.html", make_config(), source, detections, annotations, measured)
    html = (tmp_path / "r.html").read_text()
    text = PageParser(html).text
    assert "Measured on test, which the checkpoint was chosen on" in text
    assert "The checkpoint was chosen on these images It is the best of 2 evaluations on test" in text
    assert "1,234,567 parameters" in text and "Training 12:34" in text and "12.3 images per second" in text
    assert text.count("2026-01-31") == 3 and "without evaluations and pauses, on 2026-01-31" in text
    two_days = facts._replace(training_dates=(DAY - datetime.timedelta(2), DAY))
    assert "from 2026-01-29 to 2026-01-31" in read_text(measured._replace(facts=two_days), annotations)
    assert "loss 2.500" in text and "mAP (VOC, area) on val 0.500" in text
    assert html.count('class="mark" d="M107.0 6V122"') == 2
    assert "of train, in every image without looking at it: mAP 0.110 (11-point), 0.220 (area), COCO AP 0.330" in text
    assert "precision 0.44, recall –" in text


def test_page_shows_the_best_images_beside_the_worst(tmp_path: Path):
    boxes = [[A], [A, B], [B], [A]]
    annotations = [
        make_annotation(f"image {i}", "a.jpg", (100, 80), own, [1] * len(own)) for i, own in enumerate(boxes)
    ]
    found = [make_image_detections(*((box, 0.9, 1) for box in own)) for own in (boxes[0], boxes[1], [A], [A])]
    source = GreyImages([*annotations, annotations[0]], NAMES)
    page.write_report(tmp_path / "r.html", make_config(), source, found, annotations, measure(found, annotations))
    text = PageParser((tmp_path / "r.html").read_text()).text
    wrong, right = text.partition("Best images")[::2]
    assert "image 2 1 background, 1 missed" in wrong and "image 1" not in wrong
    assert right.find("image 1 2 objects") < right.find("image 0 1 object") < right.find("image 3 1 object")
    assert "image 2" not in right


@pytest.mark.parametrize(
    ("score", "shows_advice", "expected"),
    [(0.3, False, "The network finds nothing yet 0 of 4 objects"), (0.9, True, "ssd-jax audit lists them")],
)
def test_advice_fits_the_state_of_the_network(score: float, shows_advice: bool, expected: str):
    """A detector that finds nothing with a score of 0.5 is told to train longer, and not to doubt the annotations."""
    annotations = [make_annotation("a", "a.jpg", (100, 80), [A, B], [1, 1])] * 2
    found = [make_image_detections((C, 0.95, 1), (A, score, 1), (B, score, 1))] * 2
    text = read_text(measure(found, annotations), annotations)
    assert expected in text
    assert ("Look for objects without annotation" in text) == shows_advice
    assert ("train longer before you work on single types of errors" in text) != shows_advice


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
    assert labels == ["yak 0.90, classification: is ant", "ant 0.80, duplicate", " ", f"{NAMES[2]} 0.60, background"]


def test_labels_of_loose_boxes_have_their_iou_and_their_object_is_not_missed():
    """The detections cover 10 x 4 and 10 x 3 of the 10 x 10 pixels of an ant and of a yak."""
    truth = make_annotation("a", "a.jpg", (100, 80), [(0, 0, 9, 9), (50, 0, 59, 9)], [1, 4])
    detections = make_image_detections(((0, 0, 9, 3), 0.9, 1), ((50, 0, 59, 2), 0.8, 1))
    result = diagnosis.diagnose_image(detections, truth)
    labels = error_images.make_detection_labels(detections, truth, result, NAMES)
    assert labels == ["ant 0.90, localization: loose, IoU 0.40", "ant 0.80, both: yak, IoU 0.30"]
    truth_labels = error_images.make_truth_labels(truth, result, NAMES)
    assert truth_labels == ["ant, loose box only, IoU 0.40", "yak, missed"]
    source, measured = GreyImages([truth], NAMES), measure([detections], [truth])
    assert error_images.draw_error_image(source, 0, detections, result).errors == {
        "localization": 1,
        "both": 1,
        "missed": 1,
    }
    assert "2 missed" not in read_text(measured, [truth])


def test_iou_of_a_loose_box_is_rounded_down():
    """The detection covers 499 of the 1000 pixels of the object."""
    truth = make_annotation("a", "a.jpg", (100, 80), [(0, 0, 999, 0)], [1])
    detections = make_image_detections(((0, 0, 498, 0), 0.9, 1))
    result = diagnosis.diagnose_image(detections, truth)
    labels = error_images.make_detection_labels(detections, truth, result, NAMES)
    assert labels == ["ant 0.90, localization: loose, IoU 0.49"]


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
    measured = measure(detections, annotations, names=names)
    page.write_report(file, make_config(names), source, detections, annotations, measured)
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
    content = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", content)  # it forbids the script
    file.write_text(content.replace("</body>", measure + "</body>"))
    dom = run_browser(chromium_path, file, "--dump-dom", f"--window-size={width},900").stdout
    assert f"measured {width} {width}" in dom


def test_embedded_pictures_are_jpeg_files(small_page: str):
    sources = [a["src"] for name, a in PageParser(small_page).elements if name == "img"]
    assert len(sources) == 4, "there are two pictures of each image that can be read"
    for source in sources:
        image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert (image.format, image.size) == ("JPEG", (640, 512))
