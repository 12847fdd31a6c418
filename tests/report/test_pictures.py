"""Tests of the image files of a run: the images that they show, and the image ids as captions."""

import numpy as np
import pytest

from ssd_jax.config import Shapes
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.inference.detections import NO_DETECTIONS
from ssd_jax.report import pictures

SOURCE = ShapesSource(Shapes(train_images=23, image_size=64), "train")
SPREAD = [f"train_{number:06}" for number in range(0, 23, 2)]


@pytest.fixture
def captions(monkeypatch):
    """Return a list to which each caption on a contact sheet is appended."""
    shown = []
    caption = pictures.add_caption
    monkeypatch.setattr(pictures, "add_caption", lambda picture, text: shown.append(text) or caption(picture, text))
    return shown


def test_captions_of_samples_are_image_ids(captions, tmp_path):
    pictures.write_samples(tmp_path / "samples.jpg", SOURCE)
    assert captions == SPREAD


def test_write_truth_and_predictions_shows_the_same_images(captions, tmp_path):
    pictures.write_truth_and_predictions(tmp_path, "val", SOURCE, [NO_DETECTIONS] * 23)
    assert captions[::2] == captions[1::2] == SPREAD
    assert {file.name for file in tmp_path.iterdir()} == {"val_truth.jpg", "val_pred.jpg"}


def test_captions_of_a_train_batch_are_image_ids(captions, tmp_path):
    images = np.zeros((3, 64, 64, 3), np.float32), np.zeros((3, 2, 4), np.float32), np.zeros((3, 2), np.int32)
    pictures.write_train_batch(tmp_path, SOURCE, np.array([7, 0, 22], np.int32), images)
    assert captions == ["train_000007", "train_000000", "train_000022"]
