"""Tests of the options for what is detected and what is written."""

import numpy as np
import pytest
from helpers import tiny_detector

from ssd_jax.commands.options import parse_options
from ssd_jax.commands.predict_output import OutputOptions
from ssd_jax.errors import UserError
from ssd_jax.inference.detector import Detector
from ssd_jax.inference.results import Detection, Detections
from ssd_jax.predictions.formats import FORMATS, describe_written

DETECTIONS = Detections(
    [Detection(name, score, (0.0, 0.0, 1.0, 1.0)) for name, score in [("a", 0.9), ("b", 0.8), ("a", 0.6), ("b", 0.3)]],
    ("a", "b=c", "b"),
    (10, 10),
)


def parse(*words: object) -> OutputOptions:
    return parse_options(OutputOptions, "predict", list(map(str, words)))


def test_pictures_and_json_are_saved_by_default():
    assert parse().formats == ("pictures", "json")
    assert parse("--no-pictures").formats == ("json",)
    assert parse("--save", "csv", "coco", "csv").formats == ("csv", "coco")
    assert parse("--save", *FORMATS).formats == FORMATS


@pytest.mark.parametrize(
    "words",
    [
        ("--score", 1.1), ("--nms-iou", -0.1), ("--max-detections", 0), ("--line-width", 0), ("--tile", 0),
        ("--tile", 64, "--overlap", 1.0), ("--score-of", "0.5"), ("--score-of", "a=high"), ("--score-of", "a=2"),
        ("--no-pictures", "--save", "pictures"),
    ],
)  # fmt: skip
def test_check_names_the_wrong_option(words):
    with pytest.raises(UserError, match=words[-2]):
        parse(*words).check()


def test_check_rejects_classes_without_names():
    with pytest.raises(UserError, match="--classes"):
        parse("--classes").check()


def test_check_accepts_the_defaults():
    parse().check()


def test_select_applies_scores_classes_and_the_limit():
    assert parse().select(DETECTIONS) == DETECTIONS[:3]
    assert parse("--score-of", "b=0.2", "--score-of", "a=0.7").select(DETECTIONS) == [*DETECTIONS[:2], DETECTIONS[3]]
    assert parse("--classes", "b").select(DETECTIONS) == [DETECTIONS[1]]
    assert parse("--max-detections", 2).select(DETECTIONS) == DETECTIONS[:2]


def test_score_of_accepts_a_class_with_an_equals_sign():
    assert parse("--score-of", "b=c=0.25").scores_of_classes == {"b=c": 0.25}


def test_describe_scores_names_exceptions():
    assert parse("--score", 0.4, "--score-of", "a=0.7").describe_scores() == "a score of at least 0.4 (a: 0.7)"


@pytest.mark.parametrize("option", [("--classes", "bb"), ("--score-of", "bb=0.5")])
def test_adjust_suggests_a_similar_class(option):
    detector = tiny_detector.make_detector()
    with pytest.raises(UserError, match=f"{option[0]}.*'bb'.*'b'"):
        parse(*option).adjust(detector, "tiny")


def test_adjust_changes_suppression_and_the_number_of_detections():
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    detector = tiny_detector.make_detector(max_detections=5)
    assert parse("--max-detections", 3).adjust(detector, "tiny") is detector
    strict = parse("--nms-iou", 0.0, "--max-detections", 50).adjust(detector, "tiny")(image, score_threshold=0.0)
    assert len(strict) > 5
    for label in (1, 2):
        boxes = strict.boxes[strict.labels == label]
        for i in range(len(boxes)):
            low, high = np.maximum(boxes[i, :2], boxes[:i, :2]), np.minimum(boxes[i, 2:], boxes[:i, 2:])
            assert (np.maximum(high - low, 0).prod(axis=1) < 1e-3).all(), "no two boxes of a class overlap"


def test_adjust_does_not_change_an_exported_file():
    source = tiny_detector.make_detector()
    file = Detector(source.config, lambda *batch: None, 0)
    assert parse("--max-detections", 200).adjust(file, "a.onnx") is file
    with pytest.raises(UserError, match=r"^a\.onnx: --nms-iou 0\.3: .*exported.* 0\.45"):
        parse("--nms-iou", 0.3).adjust(file, "a.onnx")
    with pytest.raises(UserError, match=r"^a\.onnx: --max-detections 300: .*at most 200 .*export"):
        parse("--max-detections", 300).adjust(file, "a.onnx")


def test_describe_threshold_names_the_options_that_are_below_that_of_the_detector():
    run = tiny_detector.make_detector(score_threshold=0.4)
    file = Detector(run.config, lambda *batch: None, 0)
    assert parse().describe_threshold(file, "a.onnx") is None
    assert parse("--score", 0.4, "--score-of", "b=0.5").describe_threshold(file, "a.onnx") is None
    note = parse("--score", 0.1, "--score-of", "b=0.2", "--score-of", "a=0.6").describe_threshold(file, "a.onnx")
    assert note is not None and "--score 0.1, --score-of b=0.2, a.onnx" in note and "above 0.4" in note
    assert "--score-threshold" in note, "the option of export"
    note = parse("--score-of", "b=0.2").describe_threshold(run, "runs/tiny")
    assert note is not None and "--score " not in note and "detect.score_threshold" in note


def test_describe_written_joins_names():
    assert describe_written(("csv",)) == "predictions.csv"
    assert describe_written(("pictures", "json")) == "predictions.json, and the images with their boxes"
