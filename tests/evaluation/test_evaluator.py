"""Tests of detection on a split: order, units of boxes, unreadable images, and the number of compilations."""

import dataclasses
import itertools
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference, tiny_config, tiny_detector
from helpers.random_predictors import randomize_predictors

from ssd_jax.config import Detect
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.data.source import Annotation, Source, make_annotation
from ssd_jax.errors import UserError
from ssd_jax.evaluation import evaluator
from ssd_jax.inference import detections
from ssd_jax.inference.detections import to_image_detections
from ssd_jax.inference.program import PredictFn, make_predict_fn
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import Detections
from ssd_jax.runtime import sharding

TINY = tiny_config.get_config()
TINY = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=CLASS_NAMES))
TINY = dataclasses.replace(TINY, detect=dataclasses.replace(TINY.detect, score_threshold=0.2))


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    """Return parameters with random predictors, because a new network gives every box the same score."""
    fresh = jax.jit(SSD(TINY.model).init)(jax.random.key(3, impl="rbg"), jnp.zeros((1, 64, 64, 3)))["params"]
    return randomize_predictors(fresh)


@pytest.fixture(scope="module")
def predict_fn() -> PredictFn:
    """Return a compiled function for batches of four images of 64 px, which all tests share."""
    return make_predict_fn(TINY, sharding.make_mesh())


@pytest.fixture(scope="module")
def network() -> Callable[..., Any]:
    """Return the network without preprocessing and detection, as a function of parameters and images."""
    return jax.jit(SSD(TINY.model).apply)


class GreyImages(Source):
    """Source of uniform grey images of different sizes.

    The grey value of an image is 10 times its index; images whose index is in ``broken`` cannot be read.
    """

    class_names: tuple[str, ...] = CLASS_NAMES
    in_memory = True
    all_sizes = ((40, 30), (64, 64), (20, 50), (300, 100), (31, 33), (64, 10), (50, 50))  # width, height

    def __init__(self, broken: tuple[int, ...] = ()):
        self.broken = broken

    def __len__(self) -> int:
        return len(self.all_sizes)

    def sizes(self) -> list[tuple[int, int]]:
        return list(self.all_sizes)

    def annotation(self, index: int) -> Annotation:
        return make_annotation(f"grey{index}", f"grey{index}.png", self.all_sizes[index], [], [])

    def image(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise UserError(f"grey{index}.png: cut short")
        width, height = self.all_sizes[index]
        return np.full((height, width, 3), 10 * index, np.uint8)


def predict_grey(params: object, canvas: Any, height: Any, width: Any) -> Detections:
    """Return one detection in the middle of each image, without a network. The score is the grey value / 100."""
    grey = np.asarray(canvas)[:, 0, 0, 0] / 100
    boxes = np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32), (len(grey), 2, 1))
    scores = np.stack([grey, np.zeros_like(grey)], axis=1).astype(np.float32)
    valid = np.tile([True, False], (len(grey), 1))
    arrays = boxes, scores, valid.astype(np.int32), valid
    return Detections(*map(jnp.asarray, arrays))


@pytest.mark.parametrize("broken", [(), (1, 4), tuple(range(7))])
def test_predict_split_keeps_the_order_of_the_images(broken, caplog):
    source = GreyImages(broken)
    batch_sizes: list[int] = []
    with caplog.at_level(logging.WARNING):
        mesh = sharding.single_device_mesh()
        predictions = evaluator.predict_split(predict_grey, {}, source, TINY, mesh, batch_sizes.append)
    assert len(predictions) == 7
    assert batch_sizes == [1] * 7, "a CPU gets the images one by one"
    for index, ((width, height), image) in enumerate(zip(GreyImages.all_sizes, predictions, strict=True)):
        if index in broken:
            assert len(image.boxes_px) == len(image.scores) == len(image.labels) == 0
            assert f"grey{index}.png: cut short" in caplog.text
        else:
            # Boxes are in pixels of the original image. Image 3 is more than four times as wide as the canvas.
            np.testing.assert_allclose(image.boxes_px, [[width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
            np.testing.assert_allclose(image.scores, [index / 10], atol=1e-6)
            assert image.labels.tolist() == [1]
    assert (f"{len(broken)} of 7 images could not be read" in caplog.text) == bool(broken)


def test_other_devices_compute_a_batch_before_the_results_of_the_one_before_are_processed(monkeypatch):
    """The last batch of four images is padded."""
    events: list[Any] = []

    def predict(*arguments: Any) -> Detections:
        events.append(f"batch of {len(arguments[1])}")
        return predict_grey(*arguments)

    monkeypatch.setattr(evaluator, "_is_single_cpu", lambda mesh: False)
    mesh = sharding.single_device_mesh()
    found = evaluator.predict_split(predict, {}, GreyImages((2,)), TINY, mesh, events.append)
    assert events == ["batch of 4", "batch of 4", 4, 3], "the padding is not counted"
    expected = [[0.0], [0.1], [], [0.3], [0.4], [0.5], [0.6]]
    assert [image.scores.astype(float).round(2).tolist() for image in found] == expected


def test_images_are_detected_at_the_same_time_on_a_cpu(monkeypatch):
    """Each of two calls waits for the other one."""
    monkeypatch.setattr(evaluator.os, "cpu_count", lambda: 2)
    barrier, calls = threading.Barrier(2), itertools.count()

    def predict(*arguments: Any) -> Detections:
        if next(calls):  # the first one compiles, alone
            barrier.wait(10)
        return predict_grey(*arguments)

    assert len(evaluator.predict_split(predict, {}, GreyImages(), TINY, sharding.single_device_mesh())) == 7


@pytest.mark.parametrize("broken", [(), (1, 4), tuple(range(7))])
def test_detect_split_has_the_bits_of_the_detector_in_order(broken, caplog):
    class NoiseImages(GreyImages):
        class_names = ("a", "b")

        def image(self, index: int) -> np.ndarray:
            grey = super().image(index)
            return np.random.default_rng(index).integers(0, 255, grey.shape).astype(np.uint8)

    detector, source = tiny_detector.make_detector(), NoiseImages(broken)
    unreadable: dict[int, str] = {}
    done: list[int] = []
    for _ in range(2):
        found = evaluator.detect_split(detector, source, progress=done.append, unreadable=unreadable)
        assert done == [1] * 7
        done.clear()
        for index, image in enumerate(found):
            if index in broken:
                assert len(image.scores) == 0 and unreadable[index] == f"grey{index}.png: cut short"
            else:
                expected = detector(source.image(index), score_threshold=0.0).to_arrays()
                assert all(np.array_equal(*pair) for pair in zip(image, expected, strict=True))
                assert len(image.scores) > 5
    assert caplog.text.count("cut short") == len(broken), "each image is reported once"


def test_predict_split_reports_unreadable_images_once(caplog):
    unreadable: dict[int, str] = {}
    for _ in range(2):
        evaluator.predict_split(
            predict_grey, {}, GreyImages((1,)), TINY, sharding.single_device_mesh(), unreadable=unreadable
        )
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "grey1.png: cut short", "1 of 7 images could not be read",
    ]  # fmt: skip
    assert unreadable == {1: "grey1.png: cut short"}


def test_predict_fn_equals_the_network_followed_by_caffes_detection_output(params, predict_fn, network):
    """The images have the size of the network's input, so resizing does not change them."""
    source = ShapesSource(TINY.data.shapes, "val")
    images = np.stack([source.image(i) for i in range(4)])
    side = np.full(4, 64, np.int32)
    batch = sharding.shard_batch((images, side, side), sharding.make_mesh())
    detections = sharding.fetch(predict_fn(params, *batch))
    offsets, logits = network({"params": params}, images.astype(np.float32))
    default_boxes, variances = make_default_boxes(TINY.model.default_boxes), TINY.model.default_boxes.variances
    for slot in range(4):
        expected = reference.detect_like_caffe(
            np.asarray(offsets[slot]), np.asarray(logits[slot]), default_boxes, variances, 0.2, 400, 0.45, 200
        )
        predictions = to_image_detections(detections, slot, 64, 64)
        assert len(expected) > 3
        np.testing.assert_allclose(predictions.scores, [score for score, _, _ in expected], atol=1e-4)
        assert predictions.labels.tolist() == [label for _, label, _ in expected]
        np.testing.assert_allclose(predictions.boxes_px, [64 * box for _, _, box in expected], atol=1e-2)


MAP_CONFIG = dataclasses.replace(TINY, detect=dataclasses.replace(TINY.detect, top_k=2, top_k_per="map"))


def test_predict_fn_gives_detect_the_box_count_of_each_feature_map(params):
    """`detect` raises a ValueError while it is traced if the box counts are missing."""
    predict = make_predict_fn(MAP_CONFIG, sharding.single_device_mesh())
    canvas, side = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8), jax.ShapeDtypeStruct((1,), np.int32)
    assert jax.eval_shape(predict, params, canvas, side, side).boxes.shape == (1, TINY.detect.max_detections, 4)


@pytest.mark.slow
def test_predict_fn_can_select_candidates_per_feature_map(params, network):
    """Two candidates are selected from each of the three feature maps, as in mmdetection."""
    image = ShapesSource(TINY.data.shapes, "val").image(0)[None]
    limit = float(np.log(1000 / 16))
    detect = Detect(0.02, 2, 0.45, 200, "map", (-limit, limit), clip_before_nms=True, drop_empty=True)
    config = dataclasses.replace(TINY, detect=detect)
    side = np.full(1, 64, np.int32)
    program = make_predict_fn(config, sharding.single_device_mesh())
    predictions = to_image_detections(sharding.fetch(program(params, image, side, side)), 0, 64, 64)
    offsets, logits = network({"params": params}, image.astype(np.float32))
    expected = reference.detect_like_mmdetection(
        np.asarray(offsets[0]), np.asarray(logits[0]), make_default_boxes(config.model.default_boxes), (256, 64, 16),
        0.02, 2, 0.45, 200,
    )  # fmt: skip
    assert len(expected) > 3
    assert predictions.labels.tolist() == [label for _, label, _, _ in expected]
    np.testing.assert_allclose(predictions.boxes_px, [64 * np.array(box) for _, _, _, box in expected], atol=1e-2)


def test_predict_split_compiles_the_program_once(params):
    source, predict = ShapesSource(TINY.data.shapes, "val"), make_predict_fn(TINY, sharding.make_mesh())
    evaluator.predict_split(predict, params, source, TINY, sharding.make_mesh())
    assert predict._cache_size() == 1


def test_result_of_compute_metrics_can_be_written_as_json():
    source = ShapesSource(TINY.data.shapes, "val")
    annotations = [source.annotation(i) for i in range(6)]
    exact = [
        detections.ImageDetections(a.boxes_px, np.linspace(1, 0.5, len(a.labels), dtype=np.float32), a.labels)
        for a in annotations
    ]
    metrics = json.loads(json.dumps(evaluator.compute_metrics(exact, source)))
    for key in ("voc_map_11point", "voc_map_area", "coco_ap"):
        assert metrics[key] == pytest.approx(1)
    without_detections = evaluator.compute_metrics([detections.NO_DETECTIONS] * 6, source)
    assert [without_detections[key] for key in ("voc_map_11point", "voc_map_area", "coco_ap")] == [0, 0, 0]
