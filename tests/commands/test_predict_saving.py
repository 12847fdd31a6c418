"""Tests of ``ssd-jax predict`` with options for what is detected and what is written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run_command
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.data.problems import Problems
from ssd_jax.runs import run_folder

LOW = ("--score", 0.02)


@pytest.fixture
def photos(tmp_path: Path, trained_run: Path) -> Path:
    """Create images of the same name in two folders, of which one is wider than a tile, and return the folder."""
    source = ShapesSource(run_folder.read_config(trained_run).data.shapes, "test")
    folder = tmp_path / "photos"
    for name, pixels in (("one", source.image(0)), ("two", np.concatenate([source.image(1)] * 3, axis=1))):
        (folder / name).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / name / "a.png")
    return folder


def read_json(out: Path) -> dict[str, list[dict]]:
    """Return the detections of each image by the name of its folder."""
    images = json.loads((out / "predictions.json").read_text())["images"]
    return {Path(image["file"]).parent.name: image["detections"] for image in images}


def test_predict_saves_all_formats_with_the_folders_of_the_images(trained_run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    formats = ("pictures", "json", "csv", "coco", "yolo", "voc", "crops")
    assert run_command("predict", trained_run, photos, "--out", out, *LOW, "--save", *formats) == 0
    detections = read_json(out)
    assert set(detections) == {"one", "two"} and all(detections.values())
    with (out / "predictions.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == sum(map(len, detections.values()))
    for name in ("one/a.png.jpg", "two/a.png.jpg", "yolo/labels/one/a.txt", "voc/Annotations/two/a.xml"):
        assert (out / name).is_file()
    assert sum(1 for _ in (out / "crops").rglob("*.jpg")) == sum(map(len, detections.values()))
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("predictions.csv", "coco/annotations.json", "yolo/", "voc/", "crops/"))
    for kind in ("coco", "yolo", "voc"):
        data = Data(root=str(out / kind), val_fraction=0.5)
        sources = [open_source(data, split, CLASS_NAMES, Problems(raise_errors=False)) for split in ("train", "val")]
        boxes = {Path(a.file).parent.name: a.boxes_px for source in sources for a in source.annotations()}
        for name, rows in detections.items():
            np.testing.assert_allclose(boxes[name], [row["box"] for row in rows], atol=0.006)


def test_output_in_the_folder_of_the_images_is_not_read_again(trained_run, photos, capsys):
    """The data sets contain links to the images."""
    for _ in range(2):
        argv = ("predict", trained_run, photos, "--out", photos / "out", "--save", "yolo", "pictures", "crops", *LOW)
        assert run_command(*argv) == 0
        assert "in 2 images" in capsys.readouterr().out


def test_folder_with_a_csv_file_only_is_used_again(trained_run, photos, tmp_path):
    for name in ("one", "two"):
        argv = (trained_run, photos / name, "--out", tmp_path / "out", "--save", "csv", "--no-pictures", *LOW)
        assert run_command("predict", *argv) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", ".ssd_jax_predictions"}
    assert "one" not in (tmp_path / "out/predictions.csv").read_text().replace(str(photos), "")


def test_predict_selects_classes_scores_and_the_best(trained_run, photos, tmp_path):
    assert run_command("predict", trained_run, photos, "--out", tmp_path / "all", *LOW) == 0
    everything = read_json(tmp_path / "all")
    name = everything["one"][0]["name"]
    scores = sorted(d["score"] for found in everything.values() for d in found if d["name"] == name)
    middle = scores[len(scores) // 2]
    argv = ("--classes", name, "--score-of", f"{name}={middle}", "--max-detections", 2)
    assert run_command("predict", trained_run, photos, "--out", tmp_path / "some", *LOW, *argv) == 0
    for folder, found in read_json(tmp_path / "some").items():
        expected = [d for d in everything[folder] if d["name"] == name and d["score"] >= middle]
        assert found == expected[:2]


def test_predict_in_tiles_equals_tiled_detection(trained_run, photos, tmp_path):
    from ssd_jax.model_zoo.opening import load

    argv = ("--out", tmp_path / "out", *LOW, "--tile", 64, "--overlap", 0.1, "--save", "json")
    assert run_command("predict", trained_run, photos, *argv) == 0
    detector = load(trained_run)
    for name, found in read_json(tmp_path / "out").items():
        expected = detector.tiled(photos / name / "a.png", tile=64, overlap=0.1, score_threshold=0.02)
        assert [d["box"] for d in found] == [list(d.box) for d in expected]


@pytest.mark.parametrize(
    "options", [("--classes", "circel"), ("--score-of", "circel=0.5"), ("--tile", 0), ("--nms-iou", 2)]
)
def test_predict_rejects_wrong_options(run_failing_command, trained_run, photos, tmp_path, options):
    message = run_failing_command("predict", trained_run, photos, "--out", tmp_path / "out", *options)
    assert options[0].removeprefix("--") in message and len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists(), "nothing was written"
