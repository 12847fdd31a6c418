"""Tests of the result files for servers, and comparisons of COCO metrics with pycocotools on random JSON files."""

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import reference
from helpers.cli import run_command, write_voc_folder
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_jax.config import Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.source import FolderSource, Source, make_annotation
from ssd_jax.errors import UserError
from ssd_jax.evaluation import run
from ssd_jax.evaluation.evaluator import compute_metrics
from ssd_jax.evaluation.submission import make_submission_writer
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections
from ssd_jax.metrics.average_precision import COCO_KEYS

# ---- random COCO files ----

CATEGORIES = {90: "brush", 3: "car", 55: "unused", 13: "sign"}
NAMES = ("sign", "unicorn", "brush", "car")
"""Class names of a model. The files have no category "unicorn", and the model has no class "unused"."""
IMAGE_IDS = (2**60 + 1, 139, 0, 581929, 42, 2**60, 7, 1000, 25, 24, 285, 632)
"""Image ids in the order of the file. The two largest ids are equal in float64."""
EMPTY = IMAGE_IDS[-2:]
"""Ids of the images without objects."""


def make_random_content(rng: np.random.Generator) -> dict[str, Any]:
    """Return the random content of a COCO file. Boxes have two decimals, so most numbers are not exact in float32."""
    entries = []
    for image_id in IMAGE_IDS[:-2]:
        for _ in range(rng.integers(1, 9)):
            x, y = rng.uniform(-20, 500, 2)
            w, h = np.exp(rng.uniform(1.5, 5.8, 2))
            odd = rng.integers(0, 12)
            w, h = (0.0 if odd == 0 else w), (-3.5 if odd == 1 else h)
            crowd = int(rng.random() < 0.15)
            polygon = [[x, y, x + w, y, x + w, y + h]]
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.choice([90, 3, 13])),
                    "bbox": [round(float(v), 2) for v in (x, y, w, h)],
                    # Areas of segments (smaller than the box), zero, and the limits of COCO's size ranges.
                    "area": float(rng.choice([1024.0, 9216.0, 0.0, *([abs(w * h) * rng.uniform(0.3, 0.9)] * 5)])),
                    "iscrowd": crowd,
                    "segmentation": {"size": [480, 640], "counts": [1000, 50, 306150]}
                    if crowd and rng.random() < 0.5
                    else polygon,
                    **({"ignore": 1} if rng.random() < 0.3 else {}),
                }
            )
    rng.shuffle(entries)
    for number, entry in zip(rng.permutation(3 * len(entries)), entries, strict=False):
        entry["id"] = int(number) + 1
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480} for i in IMAGE_IDS],
        "annotations": entries,
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in CATEGORIES.items()],
    }


def make_random_detections(rng: np.random.Generator, content: dict[str, Any]) -> dict[int, ImageDetections]:
    """Return random detections by image id. Most boxes lie near or exactly on objects; many scores are equal."""
    predictions = {}
    for image_id in IMAGE_IDS:
        objects = [entry for entry in content["annotations"] if entry["image_id"] == image_id]
        boxes, labels = [], []
        for _ in range(rng.choice([0, 5, 300], p=[0.1, 0.4, 0.5])):
            if objects and rng.random() < 0.8:
                entry = objects[rng.integers(len(objects))]
                x, y, w, h = np.array(entry["bbox"]) + rng.choice([0, 0.02, 0.1]) * rng.normal(size=4) * 40
                labels.append(1 + NAMES.index(CATEGORIES[entry["category_id"]]))
            else:
                x, y, w, h = *rng.uniform(0, 400, 2), *rng.uniform(5, 100, 2)
                labels.append(rng.integers(1, 5))
            boxes.append((x, y, x + abs(w), y + abs(h)))
        scores = rng.integers(1, 20, len(labels)) / 20
        predictions[image_id] = ImageDetections(
            np.array(boxes, np.float32).reshape(-1, 4), scores.astype(np.float32), np.array(labels, np.int32)
        )
    return predictions


def write_results(
    folder: Path, split: str, algorithm: str, source: Source, detections: Sequence[ImageDetections]
) -> list[Path]:
    """Write the result files of a split, and return their paths."""
    return make_submission_writer(source, list(source.annotations())).write(folder, split, algorithm, detections)


def write_coco(root: Path, content: dict[str, Any], name: str = "instances_val2017") -> Path:
    """Write a COCO folder with empty image files, and return the path of the annotation file."""
    file = root / "annotations" / f"{name}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    (root / "images").mkdir()
    for image in content["images"]:
        (root / "images" / image["file_name"]).touch()
    return file


def compute_pycocotools_metrics(
    file: Path, results: Path, image_ids: Sequence[int] | None = None
) -> list[float | None]:
    """Return the twelve metrics that pycocotools computes from a result file.

    Args:
        file: Annotation file.
        results: Result file.
        image_ids: Ids of the images to evaluate. None: all images.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        if image_ids is not None:
            evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else float(value) for value in evaluation.stats]


def compute_metrics_and_write_results(
    root: Path, source: Source, predictions: dict[int, ImageDetections]
) -> tuple[list, Path]:
    """Return the COCO metrics of detections by `compute_metrics`, and the path of the result file of the detections."""
    numbers = [annotation.number for annotation in source.annotations()]
    detections = [predictions[number] for number in numbers if number is not None]
    (file,) = write_results(root / "results", "val2017", "ssd", source, detections)
    measured = compute_metrics(detections, source)
    return [measured[key] for key in COCO_KEYS], file


SEEDS = range(12)


def test_random_files_contain_the_hard_cases():
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        content = make_random_content(rng)
        predictions = make_random_detections(rng, content)
        for entry in content["annotations"]:
            x, y, w, h = entry["bbox"]
            rle = isinstance(entry["segmentation"], dict)
            counts["crowd as RLE"] += entry["iscrowd"] and rle
            counts["crowd as polygon"] += entry["iscrowd"] and not rle
            counts["ignore without crowd"] += "ignore" in entry and not entry["iscrowd"]
            counts["box without area"] += w <= 0 or h <= 0
            counts["box beyond the image"] += x < 0 or y < 0 or x + w > 640 or y + h > 480
            counts["area on a limit"] += entry["area"] in (1024, 9216)
            counts["not in float32"] += any(float(np.float32(edge)) != edge for edge in entry["bbox"])
        scores = [score for image in predictions.values() for score in set(image.scores.tolist())]
        counts["score in several images"] += len(scores) - len(set(scores))
        labels_of_image = [Counter(image.labels.tolist()) for image in predictions.values()]
        counts["over 100 of a class in an image"] += sum(n > 100 for c in labels_of_image for n in c.values())
        counts["no detections in an image"] += sum(not c for c in labels_of_image)
        counts["detections in an image without objects"] += sum(len(predictions[i].labels) > 0 for i in EMPTY)
        counts["detections of a class that the file does not have"] += sum(c[2] for c in labels_of_image)
    assert len(counts) == 12 and min(counts.values()) >= 8, counts


@pytest.mark.parametrize("seed", SEEDS)
def test_coco_metrics_of_a_file_equal_those_of_pycocotools_exactly(tmp_path, seed):
    rng = np.random.default_rng(seed)
    content = make_random_content(rng)
    file = write_coco(tmp_path, content)
    source = open_source(Data(root=str(tmp_path)), "val", NAMES)
    metrics, results = compute_metrics_and_write_results(tmp_path, source, make_random_detections(rng, content))
    assert results.name == "detections_val2017_ssd_results.json"
    expected = compute_pycocotools_metrics(file, results)
    assert None not in expected and min(expected) > 0
    assert metrics == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_coco_metrics_of_some_images_equal_those_of_pycocotools_exactly(tmp_path, seed):
    """The sources are a split chosen by hash, most images of this split in another order, and a slice of a split."""
    rng = np.random.default_rng(seed)
    content = make_random_content(rng)
    file = write_coco(tmp_path, content, "labels")
    predictions = make_random_detections(rng, content)
    train, val = (
        open_source(Data(root=str(tmp_path), val_fraction=0.4), split, NAMES if split == "val" else ())
        for split in ("train", "val")
    )
    assert len(train) + len(val) == len(IMAGE_IDS) and min(len(train), len(val)) >= 3
    shuffled = [val.annotation(int(i)) for i in rng.permutation(len(val))[1:]]
    part = FolderSource(shuffled, val.class_names, (), val.category_ids, val.coco_truth)
    sliced = open_source(Data(root=str(tmp_path), val_fraction=0.4), "train[1:-1]", NAMES)
    for source in (val, part, sliced):
        numbers = [annotation.number for annotation in (source.annotation(i) for i in range(len(source)))]
        metrics, results = compute_metrics_and_write_results(tmp_path, source, predictions)
        assert {entry["image_id"] for entry in json.loads(results.read_text())} <= set(numbers)
        assert metrics == compute_pycocotools_metrics(file, results, numbers)
    assert train.class_names == ("car", "sign", "unused", "brush")


def test_coco_metrics_are_computed_from_the_file(tmp_path):
    """The annotations in memory have fewer digits and objects, so the metrics computed from them differ."""
    rng = np.random.default_rng(0)
    content = make_random_content(rng)
    write_coco(tmp_path, content)
    predictions = make_random_detections(rng, content)
    source = open_source(Data(root=str(tmp_path)), "val", NAMES)
    assert sum(len(source.annotation(i).labels) for i in range(len(source))) < len(content["annotations"])
    metrics, _ = compute_metrics_and_write_results(tmp_path, source, predictions)
    source.coco_truth = None
    assert metrics != compute_metrics_and_write_results(tmp_path, source, predictions)[0]


def test_coco_metrics_use_all_digits_of_the_file(tmp_path):
    """The IoU is 5 / 10.0000001, just below 0.5, and the area is just above that of small objects."""
    entry = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10.0000001, 10], "iscrowd": 0}
    entry["area"] = 1024.00001
    file = write_coco(tmp_path, {**make_random_content(np.random.default_rng(0)), "annotations": [entry]})
    predictions = dict.fromkeys(IMAGE_IDS, NO_DETECTIONS) | {7: make_image_detections((0, 0, 5, 10, 0.9, 4))}
    source = open_source(Data(root=str(tmp_path)), "val", NAMES)
    metrics, results = compute_metrics_and_write_results(tmp_path, source, predictions)
    assert metrics == compute_pycocotools_metrics(file, results)
    assert (metrics[COCO_KEYS.index("coco_ap50")], metrics[COCO_KEYS.index("coco_ap_small")]) == (0, None)


def test_joined_splits_with_equal_ids_can_be_evaluated(tmp_path):
    """The joined parts have the same image ids, but objects of one part must not count in images of the other."""
    content = make_random_content(np.random.default_rng(0))
    write_coco(tmp_path, content)
    data = Data(root=str(tmp_path))
    joined, whole = open_source(data, "val+val[:]"), open_source(data, "val")
    annotations = list(joined.annotations())
    predictions = [ImageDetections(a.boxes_px, np.full(len(a.labels), 0.5, np.float32), a.labels) for a in annotations]
    assert compute_metrics(predictions, joined)["coco_ap"] == 1
    assert [f.name[:10] for f in write_results(tmp_path / "results", "twice", "ssd", joined, predictions)] == [
        "comp4_det_"
    ] * 4
    with pytest.raises(ValueError, match="12 different ids of 24 images"):
        joined.coco_truth = whole.coco_truth
        compute_metrics(predictions, joined)


def test_object_with_id_zero_is_evaluated_and_mentioned_in_a_note(tmp_path):
    """pycocotools interprets id 0 as "no match" and computes an AP of 0, although the object is detected."""
    entry = {"id": 0, "image_id": 7, "category_id": 3, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
    file = write_coco(tmp_path, {**make_random_content(np.random.default_rng(0)), "annotations": [entry]})
    source = open_source(Data(root=str(tmp_path)), "val", NAMES)
    predictions = dict.fromkeys(IMAGE_IDS, NO_DETECTIONS) | {7: make_image_detections((10, 10, 60, 60, 0.9, 4))}
    metrics, results = compute_metrics_and_write_results(tmp_path, source, predictions)
    assert (metrics[0], compute_pycocotools_metrics(file, results)[0]) == (pytest.approx(1), 0)
    assert "id 0" in source.notes[0]


# ---- the files ----


def make_image_detections(*rows: tuple[float, ...]) -> ImageDetections:
    """Return the detections of an image from rows of (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return ImageDetections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def make_small_source(**changes: Any) -> FolderSource:
    annotations = [make_annotation(f"2008_{k:06d}", "", (640, 480), [], [], number=139 + k) for k in (3, 1)]
    return FolderSource(annotations, ("dog", "tv/monitor", "cat"), **changes)


PREDICTIONS = (
    make_image_detections((1, 2.5, 10, 20, 0.25, 3), (0, 0, 640, 480, 0.0625, 1)),
    make_image_detections((0.5, 1, 8, 9, 0.1, 3)),
)


def test_coco_result_file_has_one_line_per_detection(tmp_path):
    source = make_small_source(category_ids=(18, -1, 17))
    unknown = make_image_detections((1, 1, 2, 2, 0.5, 2))  # a class that the data set does not have
    predictions = [
        PREDICTIONS[0],
        ImageDetections(*(np.concatenate(pair) for pair in zip(PREDICTIONS[1], unknown, strict=True))),
    ]
    (file,) = write_results(tmp_path / "new" / "results", "test-dev2017", "ssd300", source, predictions)
    assert file == tmp_path / "new" / "results" / "detections_test-dev2017_ssd300_results.json"
    assert file.read_text().splitlines() == [
        "[",
        '{"image_id":142,"category_id":17,"bbox":[1.0,2.5,9.0,17.5],"score":0.25},',
        '{"image_id":142,"category_id":18,"bbox":[0.0,0.0,640.0,480.0],"score":0.0625},',
        '{"image_id":140,"category_id":17,"bbox":[0.5,1.0,7.5,8.0],"score":0.10000000149011612}',
        "]",
    ]


def test_coco_result_file_without_detections_is_an_empty_list(tmp_path):
    (file,) = write_results(tmp_path, "val", "ssd", make_small_source(category_ids=(18, 1, 17)), [NO_DETECTIONS] * 2)
    assert json.loads(file.read_text()) == []


def test_voc_result_files_have_one_line_per_detection(tmp_path):
    """No offset is added to the coordinates. The file of a class without detections is empty."""
    files = write_results(tmp_path / "results", "test", "ssd", make_small_source(), PREDICTIONS)
    assert [(file.name, file.read_text()) for file in files] == [
        ("comp4_det_test_dog.txt", "2008_000003 0.0625 0 0 640 480\n"),
        ("comp4_det_test_tv_monitor.txt", ""),
        ("comp4_det_test_cat.txt", "2008_000003 0.25 1 2.5 10 20\n2008_000001 0.100000001 0.5 1 8 9\n"),
    ]


def test_voc_result_files_contain_image_ids_that_are_not_utf8_as_they_are(tmp_path):
    annotations = [make_annotation(os.fsdecode(b"caf\xe9"), "a.jpg", (100, 80), [], [])]
    source = FolderSource(annotations, ("cat", "x" * 255, "x" * 254 + "y"))
    files = write_results(tmp_path, "test", "ssd", source, [make_image_detections((1, 2, 3, 4, 0.5, 1))])
    assert files[0].read_bytes() == b"caf\xe9 0.5 1 2 3 4\n"
    assert len({file.name for file in files}) == 3 and all(file.name.endswith(".txt") for file in files)


def test_special_characters_of_a_split_are_replaced_in_file_names(tmp_path):
    (file, *_) = write_results(tmp_path, "VOC2007/train[:50%]+val", "ssd", make_small_source(), PREDICTIONS)
    assert file == tmp_path / "comp4_det_train__50__+val_dog.txt"


def test_folder_of_a_split_is_left_out_of_file_names(tmp_path):
    (file, *_) = write_results(tmp_path, "VOC2012/test", "ssd", make_small_source(), PREDICTIONS)
    assert file == tmp_path / "comp4_det_test_dog.txt"


def test_make_submission_writer_rejects_an_image_id_with_a_space(tmp_path):
    source = FolderSource([make_annotation("my cat", "my cat.jpg", (9, 9), [], [])], ("cat",))
    with pytest.raises(UserError, match="'my cat'"):
        write_results(tmp_path / "results", "test", "ssd", source, [NO_DETECTIONS])
    assert not (tmp_path / "results").exists()


def test_make_submission_writer_rejects_classes_with_equal_file_names(tmp_path):
    source = FolderSource([make_annotation("cat", "cat.jpg", (9, 9), [], [])], ("a b", "c", "a/b"))
    with pytest.raises(UserError, match="'a b' and 'a/b'"):
        write_results(tmp_path / "results", "test", "ssd", source, [NO_DETECTIONS])
    assert not (tmp_path / "results").exists()


def test_evaluate_checks_image_ids_before_detection(trained_run, tmp_path, monkeypatch, capsys):
    root = write_voc_folder(tmp_path / "data", {"my cat": 1, "test": 1})
    images = root / "ImageSets" / "Main"
    (images / "my cat.txt").rename(images / "test.txt")
    monkeypatch.setattr(run, "predict_split", None)
    assert run_command("evaluate", trained_run, "--data.root", root, "--split", "test", "--results") == 2
    assert "'my cat0'" in capsys.readouterr().err


def test_write_results_rejects_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(UserError, match="results: can't be written"):
        write_results(tmp_path / "results", "test", "ssd", make_small_source(), PREDICTIONS)


def test_ap_computed_from_voc_result_files_is_unchanged(tmp_path):
    """The files are read as in the VOC development kit. The test fails if scores are written with too few digits."""
    rng = np.random.default_rng(0)
    annotations, predictions = [], []
    for k in range(30):
        corner = rng.integers(0, 60, (4, 2))
        boxes = np.concatenate([corner, corner + rng.integers(10, 30, (4, 2))], 1)
        labels = rng.integers(1, 3, 4).astype(np.int32)
        difficult = (rng.random(4) < 0.2).tolist()
        annotations.append(make_annotation(f"{k:06d}", "", (99, 99), boxes.tolist(), labels.tolist(), difficult))
        shifted = (boxes + rng.normal(0, 4, boxes.shape)).astype(np.float32)
        # Scores that differ only in the last digits of float32.
        scores = (0.3 + rng.integers(0, 9, 4) * 2.0**-25).astype(np.float32)
        predictions.append(ImageDetections(shifted, scores, labels))
    source = FolderSource(annotations, ("ant", "bee"))
    measured = compute_metrics(predictions, source)["voc_classes"]
    for label, file in enumerate(write_results(tmp_path, "test", "ssd", source, predictions), start=1):
        rows = [line.split() for line in file.read_text().splitlines()]
        detections = [
            [(tuple(map(float, box)), float(score)) for image_id, score, *box in rows if image_id == a.image_id]
            for a in annotations
        ]
        truth = [
            [(b, d) for b, d, lab in zip(a.boxes_px, a.difficult, a.labels, strict=True) if lab == label]
            for a in annotations
        ]
        curve = reference.voc_precision_recall(detections, truth, 0.5)
        name = source.class_names[label - 1]
        assert len(rows) == measured[name]["detections"] > 20
        assert 0.1 < measured[name]["ap_area"] < 0.9
        assert measured[name]["ap_area"] == pytest.approx(reference.voc_ap(*curve, False), rel=1e-12)
        assert measured[name]["ap_11point"] == pytest.approx(reference.voc_ap(*curve, True), rel=1e-12)
