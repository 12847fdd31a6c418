"""Tests of detection in tiles on a split."""

import logging

import numpy as np
import pytest
from helpers import tiny_detector

from ssd_jax.data.source import Annotation, Source, make_annotation
from ssd_jax.errors import UserError
from ssd_jax.evaluation.evaluator import detect_split


class NoiseImages(Source):
    """Source of two images of noise, of which the second one cannot be read."""

    class_names = ("a", "b")

    def __len__(self) -> int:
        return 2

    def sizes(self) -> None:
        return None

    def image(self, index: int) -> np.ndarray:
        if index == 1:
            raise UserError("noise.jpg: broken")
        return np.random.default_rng(0).integers(0, 255, (80, 100, 3)).astype(np.uint8)

    def annotation(self, index: int) -> Annotation:
        return make_annotation(f"{index}", f"{index}.jpg", (100, 80), [], [])


def test_split_in_tiles_has_the_detections_of_the_detector(caplog):
    detector = tiny_detector.make_detector(max_detections=20)
    done = []
    with caplog.at_level(logging.WARNING):
        first, second = detect_split(detector, NoiseImages(), tile=48, overlap=0.25, progress=done.append)
    expected = detector.tiled(NoiseImages().image(0), tile=48, overlap=0.25, score_threshold=0.0)
    assert first.boxes_px.tolist() == expected.boxes.tolist() and len(expected) > 20
    assert len(second.scores) == 0 and done == [1, 1]
    assert "noise.jpg" in caplog.text and "1 of 2" in caplog.text


def test_strict_evaluation_in_tiles_stops_at_an_unreadable_image():
    with pytest.raises(UserError, match=r"noise.*\n.*--strict"):
        detect_split(tiny_detector.make_detector(), NoiseImages(), tile=48, overlap=0.25, strict=True)
