"""Tests of the files of ``ssd-jax predict``: content, names, memory, and what is left after a kill."""

import csv
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.earlier_output import MARKER
from ssd_jax.data.folder import Folder
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.problems import Problems
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.inference.results import Detections
from ssd_jax.predictions.data_sets import DataSetWriter
from ssd_jax.predictions.formats import FORMATS
from ssd_jax.predictions.prediction import Prediction
from ssd_jax.predictions.writers import open_writers

CLASSES = ("cat", "=dog", "猫 & <x>")


def make_prediction(source: Path | None, target: str, count: int = 3, size: tuple[int, int] = (100, 60), seed: int = 0):
    """Return a prediction with random boxes, whose pixels are those of the image at half the size."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, [[size[0]], [size[1]]], (count, 2, 2)), axis=2)
    arrays = ImageDetections(
        corners.transpose(0, 2, 1).reshape(count, 4).astype(np.float32),
        np.sort(rng.random(count))[::-1].astype(np.float32),
        rng.integers(1, 4, count).astype(np.int32),
    )
    pixels = rng.integers(0, 255, (size[1] // 2, size[0] // 2, 3)).astype(np.uint8)
    name = "https://example.org/a.jpg" if source is None else str(source)
    return Prediction(name, Path(target), pixels, Detections.from_arrays(arrays, CLASSES, size), source)


@pytest.fixture
def predictions(tmp_path: Path) -> list[Prediction]:
    """Return predictions for images with awkward names, one of them without boxes, and one without a file."""
    images = {"a.jpg": "a.jpg", "a.PNG": "a.PNG.jpg", "sub/ä #1.bmp": "sub/ä #1.bmp.jpg", "b.jpeg": "b.jpeg"}
    result = []
    for seed, (name, target) in enumerate(images.items()):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 60), (seed * 40, 0, 0)).save(file)
        result.append(make_prediction(file, target, count=3 if seed else 0, seed=seed))
    return [*result, make_prediction(None, "web.jpg", seed=9)]


def write_all(formats, out: Path, predictions) -> None:
    out.mkdir(exist_ok=True)
    with open_writers(formats, out, CLASSES) as writers:
        for prediction in predictions:
            for writer in writers:
                writer.write(prediction)


def find_box_columns(line: dict[str, str]) -> list[float]:
    return [float(line[name]) for name in ("x1", "y1", "x2", "y2")]


@pytest.mark.parametrize("kind, tolerance", [("coco", 0.0), ("yolo", 1e-4), ("voc", 0.0)])
def test_data_set_is_read_back_with_the_same_boxes(kind, tolerance, predictions, tmp_path):
    write_all([kind], tmp_path / "out", predictions)
    problems = Problems(raise_errors=False)
    read = {}
    for split in ("train", "val"):
        source = open_source(Data(root=str(tmp_path / "out" / kind), val_fraction=0.4), split, (), problems)
        for position, annotation in enumerate(source.annotations()):
            assert source.image(position).shape == (annotation.height, annotation.width, 3)
            names = [source.class_names[label - 1] for label in annotation.labels]
            read[Path(annotation.file).name] = (names, annotation.boxes_px, source.image(position)[0, 0, 0])
    assert set(read) == {"a.jpg", "a_2.PNG", "ä #1.bmp", "b.jpeg", "web.jpg"}
    for prediction, name in zip(predictions, ("a.jpg", "a_2.PNG", "ä #1.bmp", "b.jpeg", "web.jpg"), strict=True):
        names, boxes, red = read[name]
        assert names == prediction.detections.class_names.tolist()
        np.testing.assert_allclose(boxes, prediction.detections.boxes, rtol=0, atol=tolerance)
        if prediction.source is not None:
            assert abs(int(red) - np.asarray(Image.open(prediction.source))[0, 0, 0]) <= 3, "the image is the same"


def test_coco_file_has_categories_scores_and_different_ids(predictions, tmp_path):
    write_all(["coco"], tmp_path / "out", predictions)
    content = json.loads((tmp_path / "out/coco/annotations.json").read_text())
    assert [category["name"] for category in content["categories"]] == list(CLASSES)
    assert len({image["id"] for image in content["images"]}) == 5
    assert len({row["id"] for row in content["annotations"]}) == 12 == len(content["annotations"])
    assert [row["score"] for row in content["annotations"][:3]] == [d.score for d in predictions[1].detections]
    assert set(os.listdir(tmp_path / "out/coco")) == {"annotations.json", "images"}, "no temporary file is left"


def test_yolo_folder_names_the_classes_twice(predictions, tmp_path):
    write_all(["yolo"], tmp_path / "out", predictions)
    settings = yaml.safe_load((tmp_path / "out/yolo/data.yaml").read_text())
    assert settings["names"] == dict(enumerate(CLASSES))
    assert (tmp_path / "out/yolo/classes.txt").read_text().splitlines() == list(CLASSES)
    assert (tmp_path / "out/yolo/labels/a.txt").read_text() == ""


def test_csv_has_a_safe_row_per_detection(predictions, tmp_path):
    write_all(["csv"], tmp_path / "out", predictions)
    with (tmp_path / "out/predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    detections = [d for prediction in predictions for d in prediction.detections]
    for row, detection in zip(rows, detections, strict=True):
        assert np.float32(find_box_columns(row)).tolist() == np.float32(detection.box).tolist()
        assert row["class"].removeprefix("'") == detection.name
        assert not row["class"].startswith("="), "a spreadsheet would compute it"
    assert rows[-1]["file"] == "https://example.org/a.jpg" and (rows[0]["width"], rows[0]["frame"]) == ("100", "")


def test_json_has_the_records_of_all_images(predictions, tmp_path):
    out = tmp_path / "out"
    write_all(["pictures", "json"], out, predictions)
    content = json.loads((out / "predictions.json").read_text())
    assert [image["file"] for image in content["images"]] == [p.file for p in predictions]
    assert content["images"][1]["picture"] == str(out / "a.PNG.jpg")
    assert [d["box"] for d in content["images"][1]["detections"]] == [list(d.box) for d in predictions[1].detections]
    assert (out / "predictions.json").read_text() == json.dumps(content, indent=1) + "\n"
    write_all(["json"], out, predictions[:1])
    content = json.loads((out / "predictions.json").read_text())
    assert len(content["images"]) == 1 and "picture" not in content["images"][0]


def test_json_of_earlier_predictions_remains_if_there_is_no_new_one(predictions, tmp_path):
    out = tmp_path / "out"
    write_all(["json"], out, predictions)
    before = (out / "predictions.json").read_text()
    write_all(["json"], out, [])
    assert (out / "predictions.json").read_text() == before
    assert set(os.listdir(out)) == {"predictions.json", MARKER}


def test_crops_are_the_parts_of_the_image_in_the_boxes(predictions, tmp_path):
    """The pixels are those at half the size, so the crops are, too."""
    write_all(["crops"], tmp_path / "out", predictions[1:2])
    detections = predictions[1].detections
    folders = {"cat": "cat", "=dog": "dog", "猫 & <x>": "猫_x"}
    for number, detection in enumerate(detections, start=1):
        with Image.open(tmp_path / "out/crops" / folders[detection.name] / f"a.PNG_{number}.jpg") as crop:
            x1, y1, x2, y2 = np.array(detection.box) / 2
            assert crop.size == (np.ceil(x2) - np.floor(x1), np.ceil(y2) - np.floor(y1))
    assert len(list((tmp_path / "out/crops").rglob("*.jpg"))) == 3


def test_frames_have_numbers_and_no_pictures(tmp_path):
    frame = make_prediction(None, "film/000007.jpg")
    frame = Prediction("film.mp4", frame.target, frame.pixels, frame.detections, None, frame=7)
    out = tmp_path / "out"
    write_all(["pictures", "json", "csv", "yolo"], out, [frame])
    (record,) = json.loads((out / "predictions.json").read_text())["images"]
    assert record["frame"] == 7 and "picture" not in record and not list(out.glob("film/*"))
    assert (out / "yolo/labels/film/000007.txt").exists() and (out / "yolo/images/film/000007.jpg").exists()
    assert "film.mp4,7,100,60" in (out / "predictions.csv").read_text()


def test_results_before_an_interruption_remain_in_csv_yolo_and_voc(predictions, tmp_path):
    """The writers are neither finished nor closed, as if the process was killed."""
    out = tmp_path / "out"
    out.mkdir()
    writing = open_writers(["csv", "yolo", "voc"], out, CLASSES)
    for writer in writing.__enter__():
        writer.write(predictions[0])
        writer.write(predictions[1])
    assert len((out / "predictions.csv").read_text().splitlines()) == 4
    for kind in ("yolo", "voc"):
        source = open_source(Data(root=str(out / kind), val_fraction=0.5), "train", (), Problems(raise_errors=False))
        assert len(source) >= 1
    writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_interrupted_json_and_coco_files_are_not_replaced(predictions, tmp_path):
    out = tmp_path / "out"
    write_all(["json", "coco"], out, predictions)
    before = [(out / name).read_text() for name in ("predictions.json", "coco/annotations.json")]
    with pytest.raises(KeyboardInterrupt), open_writers(["json", "coco"], out, CLASSES) as writers:
        for writer in writers:
            writer.write(predictions[0])
        raise KeyboardInterrupt
    assert [(out / name).read_text() for name in ("predictions.json", "coco/annotations.json")] == before
    assert not list(out.rglob("*.tmp"))


def test_image_is_copied_where_links_are_not_allowed(predictions, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", fail)
    write_all(["voc"], tmp_path / "out", predictions[:1])
    copied = tmp_path / "out/voc/JPEGImages/a.jpg"
    assert not copied.is_symlink() and copied.read_bytes() == predictions[0].source.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize(
    "name, file, named",
    [
        ("csv", "predictions.csv", "predictions.csv"),
        ("coco", "coco/annotations.boxes.tmp", "annotations.json"),
        ("yolo", "yolo/classes.txt.tmp", "classes.txt"),
    ],
)
def test_full_disk_is_reported_in_one_line(name, file, named, predictions, tmp_path):
    (tmp_path / "out" / file).parent.mkdir(parents=True)
    (tmp_path / "out" / file).symlink_to("/dev/full")
    with pytest.raises(UserError, match=rf"{named}: can't be written"):
        write_all([name], tmp_path / "out", predictions)


@pytest.mark.parametrize("formats", [["csv", "yolo"], ["pictures", "json"]])
def test_output_in_the_folder_of_a_data_set_is_not_read_with_it(formats, predictions, tmp_path):
    write_all(["yolo"], tmp_path / "other", predictions)
    data_set = tmp_path / "other" / "yolo"
    before = Folder(data_set).listing.files
    write_all(formats, data_set / "new", predictions)
    assert (data_set / "new" / MARKER).exists() and Folder(data_set).listing.files == before


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    """The images themselves are not written, because that takes most of the time."""
    monkeypatch.setattr(DataSetWriter, "_provide_image", lambda writer, prediction: prediction.target)
    monkeypatch.setattr("ssd_jax.data.writers.folders._write_file", lambda file, text: None)
    (tmp_path / "out").mkdir()
    prediction = make_prediction(None, "a.jpg", count=5)
    formats = [name for name in FORMATS if name not in ("pictures", "crops")]
    tracemalloc.start()
    try:
        with open_writers(formats, tmp_path / "out", CLASSES) as writers:
            peaks = []
            for count in (20, 200):
                tracemalloc.reset_peak()
                start = tracemalloc.get_traced_memory()[0]
                for _ in range(count):
                    for writer in writers:
                        writer.write(prediction)
                peaks.append(tracemalloc.get_traced_memory()[1] - start)
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000
