"""Tests of detection in batches, and in the pictures of a source one after the other."""

import dataclasses
import inspect
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_detector import CONFIG, make_detector
from PIL import Image

from ssd_jax.errors import UserError
from ssd_jax.inference import detector as detector_module
from ssd_jax.inference import pipeline
from ssd_jax.inference.detector import Detector
from ssd_jax.inputs.finding import Input
from ssd_jax.inputs.reading import Picture, Reading
from ssd_jax.ops.detection import Detections

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 255, (RNG.integers(20, 90), RNG.integers(20, 90), 3), np.uint8) for _ in range(11)]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_detector()


@pytest.fixture(scope="module")
def expected(detector: Detector) -> list[Any]:
    """Return the detections in each image alone."""
    found = [detector(image, score_threshold=0.0) for image in IMAGES]
    assert all(len(detections) > 5 for detections in found)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 20])
def test_detections_are_the_same_bits_in_batches_of_any_size(detector, expected, batch_size):
    assert detector(IMAGES, score_threshold=0.0, batch_size=batch_size) == expected


def test_padded_batches_have_one_size_and_find_the_same(detector, expected):
    """A GPU has such batches. Batches of another size are another program, so that the last bits may differ."""
    shapes: set[tuple[int, ...]] = set()

    def detect(canvas: np.ndarray, height: np.ndarray, width: np.ndarray) -> Detections:
        shapes.add(canvas.shape)
        return detector._detect(canvas, height, width)

    padded = Detector(CONFIG, detect, 0, batching="padded")
    for found, alone in zip(padded(IMAGES, score_threshold=0.0, batch_size=4), expected, strict=True):
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-6)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)
        assert found.class_names.tolist() == alone.class_names.tolist()
    assert shapes == {(4, 64, 64, 3)}


def test_images_of_different_canvases_are_detected_in_separate_calls():
    """The function finds a box in each canvas whose score tells its side."""
    shapes: list[tuple[int, ...]] = []

    def detect(canvas: np.ndarray, height: np.ndarray, width: np.ndarray) -> Detections:
        shapes.append(canvas.shape)
        count = len(canvas)
        scores = np.full((count, 1), canvas.shape[1] / 4096, np.float32)
        boxes = np.tile(np.float32([0, 0, 1, 1]), (count, 1, 1))
        return Detections(boxes, scores, np.ones((count, 1), np.int32), np.ones((count, 1), bool))

    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, max_image_size=4096))
    images = [np.zeros((side, 10, 3), np.uint8) for side in (600, 700, 640, 1400, 600)]
    found = Detector(config, detect, 0)(images, batch_size=8, score_threshold=0.0)
    assert [round(d[0].score * 4096) for d in found] == [640, 1280, 640, 2560, 640]
    assert [d[0].box for d in found] == [(0, 0, 10, side) for side in (600, 700, 640, 1400, 600)]
    assert all(shape[0] <= 5 for shape in shapes)


@pytest.mark.parametrize("batching", ["single", "any"])
def test_first_result_waits_for_no_other_picture(detector, batching):
    """A camera is such a source: the second picture is read only after the first result was used."""
    used = threading.Event()

    def images():
        yield IMAGES[0]
        assert used.wait(5)
        yield IMAGES[1]

    stream = Detector(CONFIG, detector._detect, 0, batching=batching).stream(images(), batch_size=8)
    next(stream)
    used.set()
    assert len(list(stream)) == 1


def test_pictures_in_memory_are_limited(detector, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_PIXELS", 10_000)
    lock, state = threading.Lock(), {"now": 0, "most": 0}

    def read() -> Picture:
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        return Picture(Input("image", "a", Path("a")), IMAGES[0], (IMAGES[0].shape[1], IMAGES[0].shape[0]))

    for pixels, most in ((5000, 2), (50_000, 1)):
        state.update(now=0, most=0)
        for _ in detector.detect_in_order([Reading(read, pixels)] * 10, 8):
            with lock:
                state["now"] -= 1
        assert state["most"] <= most + 1


def test_stream_names_images_of_a_folder_and_its_detections(detector, expected, tmp_path):
    for i, image in enumerate(IMAGES[:3]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    found = list(detector.stream(tmp_path, score_threshold=0.0))
    assert [Path(detections.name).name for detections in found] == ["0.png", "1.png", "2.png"]
    assert found == expected[:3] and found[1].frame is None
    assert np.array_equal(found[1].image, IMAGES[1])
    (chosen,) = detector.stream(tmp_path / "0.png", score_threshold=0.0, classes="b")
    assert chosen == [d for d in expected[0] if d.name == "b"] != []
    assert detector(IMAGES[:2], score_threshold={"a": 0.0, "b": 1.0}) == [
        [d for d in found if d.name == "a"] for found in expected[:2]
    ]


def test_stream_names_unreadable_images_after_the_others_or_skips_them(detector, expected, tmp_path, caplog):
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    Image.fromarray(IMAGES[2]).save(tmp_path / "c.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'none'}\nhttp://host/d.mp4\n{tmp_path}\n", encoding="utf-8")
    stream = detector.stream(tmp_path / "list.txt", score_threshold=0.0)
    assert [next(stream), next(stream)] == [expected[0], expected[2]]
    with pytest.raises(UserError, match=r"none.*\n.*b\.png.*\n.*d\.mp4"):
        next(stream)
    found = list(detector.stream(tmp_path, score_threshold=0.0, skip_unreadable=True))
    assert found == [expected[0], expected[2]] and "b.png" in caplog.text
    with pytest.raises(UserError, match=r"b\.png"):
        detector([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"])


def test_stream_detects_in_tiles_as_tiled_does(detector, tmp_path):
    wide = np.random.default_rng(1).integers(0, 255, (40, 64, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    expected = detector.tiled(wide, tile=32, overlap=0.5, score_threshold=0.0)
    assert expected != detector(wide, score_threshold=0.0)
    for source in (tmp_path, [tmp_path / "wide.png"], [wide]):
        assert list(detector.stream(source, tile=32, overlap=0.5, score_threshold=0.0)) == [expected]
    with pytest.raises(UserError, match="tile"):
        detector.stream(tmp_path, tile=0)


def test_views_in_tiles_are_reported_and_many_are_warned_of(detector, monkeypatch, caplog):
    monkeypatch.setattr(detector_module, "_MANY_VIEWS", 8)
    image = np.zeros((60, 64, 3), np.uint8)
    named = Picture(Input("image", "map.png", Path("map.png")), image, (64, 60))
    shown = []
    for tile in (32, 24):
        readings = [Reading(lambda: named, 0)]
        list(detector.detect_in_order(readings, tile=tile, overlap=0.0, show_views=lambda *view: shown.append(view)))
    assert shown == [*((i, 5) for i in range(1, 6)), *((i, 10) for i in range(1, 11))]
    (record,) = caplog.records
    assert record.getMessage().startswith("map.png: is divided into 9 tiles of 24 px")


def test_grey_and_transparent_arrays_are_detected_as_their_files_are(detector, tmp_path):
    clear = np.dstack([IMAGES[0], IMAGES[0][..., 0]])
    for number, image in enumerate((IMAGES[0][..., 0], IMAGES[0][..., :1], clear)):
        Image.fromarray(image.squeeze()).save(tmp_path / f"{number}.png")
        expected = detector(tmp_path / f"{number}.png", score_threshold=0.0)
        assert len(expected) > 5 and detector(image, score_threshold=0.0) == expected
    for wrong in (IMAGES[0][..., :2], IMAGES[0].astype(np.float32), IMAGES[0][None], IMAGES[0][:0]):
        with pytest.raises(ValueError, match="uint8"):
            detector(wrong)


@pytest.mark.parametrize("source", [b"photo", bytearray(b"photo"), 3.5])
def test_wrong_type_is_named(detector, source):
    for function in (Detector.__call__, Detector.stream):
        with pytest.raises(TypeError, match=f"got {type(source).__name__}"):
            inspect.unwrap(function)(detector, source)  # without the check of the annotations


def test_closed_stream_leaves_no_thread(detector):
    before = threading.active_count()
    stream = detector.stream(IMAGES * 10)
    next(stream)
    stream.close()
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"batch_size": 0}, ValueError), ({"classes": "cat"}, UserError), ({"score_threshold": {"cat": 0.5}}, UserError),
     ({"score_threshold": {"a": 2}}, ValueError)],
)  # fmt: skip
def test_wrong_arguments_are_errors_before_anything_is_read(detector, arguments, error):
    for call in (detector, detector.stream):
        with pytest.raises(error):
            call(["nope.jpg"], **arguments)
    with pytest.raises(ValueError, match="every"):
        detector.stream("nope.mp4", every=0)
