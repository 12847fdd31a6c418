"""Tests of the detections in one image: arrays, filters, other formats, and drawings."""

import copy
import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.inference.results import NOTEBOOK_SIDE, Detection, Detections

CLASSES = ("cat", "dog", "cow")
GREY = np.full((60, 100, 3), 90, np.uint8)


def make_detections(image=None, size=(100, 60)) -> Detections:
    """Return a dog, a cat and another dog, best first."""
    boxes = np.array([[10, 20, 50, 50], [0.1, 0.2, 30.3, 40.4], [60, 5, 95, 30]], np.float32)
    arrays = ImageDetections(boxes, np.array([0.9, 0.7, 0.3], np.float32), np.array([2, 1, 2], np.int32))
    return Detections.from_arrays(arrays, CLASSES, size, image)


def test_detections_equal_a_plain_list():
    detections = make_detections()
    assert detections == list(detections)
    assert detections[0] == Detection("dog", pytest.approx(0.9), (10, 20, 50, 50))
    assert Detections() == [] and detections != []


def test_arrays_have_one_row_per_detection():
    detections = make_detections()
    assert detections.boxes.dtype == detections.scores.dtype == np.float32 and detections.labels.dtype == np.int32
    assert detections.boxes.tolist() == np.float32([d.box for d in detections]).tolist()
    assert detections.scores.tolist() == [d.score for d in detections]
    assert detections.labels.tolist() == [2, 1, 2]
    assert detections.class_names.tolist() == ["dog", "cat", "dog"]


def test_arrays_of_no_detections_are_empty():
    empty = make_detections().filter(classes="cow")
    assert empty.boxes.shape == (0, 4) and empty.class_names.shape == empty.labels.shape == empty.scores.shape == (0,)


def test_slices_copies_and_pickles_keep_classes_and_size():
    detections = make_detections()
    for other in (detections[:2], copy.copy(detections), pickle.loads(pickle.dumps(detections))):
        assert isinstance(other, Detections) and (other.classes, other.size) == (CLASSES, (100, 60))
        assert other[:2] == detections[:2]


def test_filter_keeps_classes_and_scores():
    detections = make_detections()
    assert detections.filter(classes="dog") == [detections[0], detections[2]]
    assert detections.filter(classes=["cat", "dog"], score_threshold=0.5) == detections[:2]
    assert detections.filter(score_threshold={"dog": 0.95}) == [detections[1]]
    assert detections.filter(score_threshold=detections[2].score) == detections, "the threshold itself is high enough"


@pytest.mark.parametrize("options", [{"classes": ["dgo"]}, {"score_threshold": {"dgo": 0.5}}])
def test_filter_suggests_a_similar_class(options):
    with pytest.raises(UserError, match=r"'dgo'.*'dog'"):
        make_detections().filter(**options)


def test_filter_rejects_wrong_thresholds_as_a_call_does():
    for threshold in (9, -0.1, float("nan"), {"dog": 1.5}):
        with pytest.raises(ValueError, match="score_threshold"):
            make_detections().filter(score_threshold=threshold)
    with pytest.raises(UserError, match="score_threshold: the detector has no class 'sheep'"):
        make_detections().filter(score_threshold={"sheep": 0.5})


def test_to_coco_takes_the_id_from_a_name_that_is_a_number():
    named = make_detections("images/000000000139.jpg")
    assert {row["image_id"] for row in named.to_coco()} == {139}
    named.name = "https://host/7.png"
    assert {row["image_id"] for row in named.to_coco()} == {7}
    named.frame = 3
    for detections in (named, make_detections(), make_detections("photo7.jpg"), make_detections(GREY)):
        with pytest.raises(ValueError, match="image_id"):
            detections.to_coco()


def test_to_coco_writes_boxes_as_left_top_width_height():
    detections = make_detections()
    first, second, _ = detections.to_coco(7)
    assert first == {"image_id": 7, "category_id": 2, "bbox": [10, 20, 40, 30], "score": detections[0].score}
    x, y, width, height = second["bbox"]
    assert np.float32([x, y, x + width, y + height]).tolist() == detections.boxes[1].tolist()
    assert [row["category_id"] for row in detections.to_coco(7, [18, 3, 5])] == [3, 18, 3]


@pytest.mark.filterwarnings("ignore:OpenCV .* is not installed:UserWarning")
def test_to_supervision_has_the_same_boxes():
    supervision = pytest.importorskip("supervision")
    detections = make_detections()
    converted = detections.to_supervision()
    assert isinstance(converted, supervision.Detections)
    assert converted.xyxy.tolist() == detections.boxes.tolist()
    assert converted.confidence.tolist() == detections.scores.tolist()
    assert [CLASSES[number] for number in converted.class_id] == converted.data["class_name"].tolist()
    assert len(make_detections()[:0].to_supervision()) == 0


def test_to_supervision_names_the_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)  # an import raises an error then
    with pytest.raises(UserError, match=r"ssd-jax\[supervision\]"):
        make_detections().to_supervision()


@pytest.mark.parametrize("kind", ["array", "pillow", "path"])
def test_plot_draws_boxes_on_the_image(kind, tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    image = {"array": GREY, "pillow": Image.fromarray(GREY), "path": tmp_path / "a.png"}[kind]
    plotted = make_detections(image).plot(show_labels=False, line_width=1)
    changed = (np.asarray(plotted) != 90).any(axis=2)
    assert plotted.size == (100, 60)
    assert changed[20, 10:51].all() and changed[20:51, 10].all() and not changed[55:].any()


def test_plot_scales_boxes_if_the_image_has_another_size():
    half = make_detections(GREY, size=(200, 120)).plot(show_labels=False, line_width=1)
    changed = (np.asarray(half) != 90).any(axis=2)
    assert changed[10, 5:26].all() and not changed[26:].any()


def test_plot_shows_grey_and_transparent_arrays_as_the_detector_sees_them():
    clear = np.dstack([GREY, np.zeros(GREY.shape[:2], np.uint8)])
    for image, level in ((GREY[..., 0], 90), (GREY[..., :1], 90), (clear, 255)):
        plotted = np.asarray(make_detections(image)[:0].plot())
        assert plotted.shape == GREY.shape and (plotted == level).all()


def test_notebook_shows_a_drawing_of_limited_size():
    large = np.full((30, 2 * NOTEBOOK_SIDE, 3), 90, np.uint8)
    with Image.open(io.BytesIO(make_detections(large, (2 * NOTEBOOK_SIDE, 30))._repr_png_())) as drawing:
        assert drawing.format == "PNG" and drawing.size == (NOTEBOOK_SIDE, 15)
    with Image.open(io.BytesIO(make_detections(GREY)._repr_png_())) as drawing:
        assert np.array_equal(np.asarray(drawing), np.asarray(make_detections(GREY).plot()))


def test_notebook_shows_text_if_the_image_is_gone(tmp_path):
    assert make_detections(tmp_path / "gone.png")._repr_png_() is None
    assert make_detections()._repr_png_() is None
    with pytest.raises(ValueError, match="image"):
        make_detections().plot()
    assert "Detection(name='dog'" in repr(make_detections())
