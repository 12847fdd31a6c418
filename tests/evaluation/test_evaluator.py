"""Which detections belong to which image, in pixels of which image; and how often the program is compiled."""

import dataclasses
import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference, tiny_config
from helpers.random_predictors import with_random_predictors

from ssd_jax.config import Detect
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.data.source import Annotation, Source, make_annotation
from ssd_jax.errors import UserError
from ssd_jax.evaluation import evaluator
from ssd_jax.inference import detections
from ssd_jax.inference.program import make_predict_fn, to_image_detections
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import Detections
from ssd_jax.runtime import sharding

TINY = tiny_config.get_config()
TINY = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=CLASS_NAMES))


@pytest.fixture(scope="module")
def params() -> dict[str, Any]:
    return jax.jit(SSD(TINY.model).init)(jax.random.key(3, impl="rbg"), jnp.zeros((1, 64, 64, 3)))["params"]


class GreyImages(Source):
    """Each image of one grey, 10 times its position, and of a size of its own; those in broken can't be read."""

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


def tell_grey(params: object, canvas: Any, height: Any, width: Any) -> Detections:
    """In place of a network: one detection in the middle half of each image, whose score is its grey over 100."""
    grey = np.asarray(canvas)[:, 0, 0, 0] / 100
    boxes = np.tile(np.array([0.25, 0.25, 0.75, 0.75], np.float32), (len(grey), 2, 1))
    scores = np.stack([grey, np.zeros_like(grey)], axis=1).astype(np.float32)
    valid = np.tile([True, False], (len(grey), 1))
    arrays = boxes, scores, valid.astype(np.int32), valid
    return Detections(*map(jnp.asarray, arrays))


@pytest.mark.parametrize("broken", [(), (1, 4), tuple(range(7))])
def test_detections_stay_with_their_image(broken, caplog):
    source = GreyImages(broken)
    seen: list[int] = []
    with caplog.at_level(logging.WARNING):
        found = evaluator.predict_split(tell_grey, {}, source, TINY, sharding.single_device_mesh(), seen.append)
    assert len(found) == 7
    assert seen == [4, 3], "of batches of four the last is filled up with what is no image"
    for index, ((width, height), image) in enumerate(zip(GreyImages.all_sizes, found, strict=True)):
        if index in broken:
            assert len(image.boxes_px) == len(image.scores) == len(image.labels) == 0
            assert f"grey{index}.png: cut short" in caplog.text
        else:
            # Pixels of the original, of image 3 too, which is four times the canvas.
            np.testing.assert_allclose(image.boxes_px, [[width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
            np.testing.assert_allclose(image.scores, [index / 10], atol=1e-6)
            assert image.labels.tolist() == [1]
    assert (f"{len(broken)} of 7 images could not be read" in caplog.text) == bool(broken)


def test_images_that_cannot_be_read_are_told_in_the_first_pass_only(caplog):
    unreadable: dict[int, str] = {}
    for _ in range(2):
        evaluator.predict_split(
            tell_grey, {}, GreyImages((1,)), TINY, sharding.single_device_mesh(), unreadable=unreadable
        )
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "grey1.png: cut short", "1 of 7 images could not be read",
    ]  # fmt: skip
    assert unreadable == {1: "grey1.png: cut short"}


def test_program_is_the_network_and_caffes_detection_output(params):
    """On images of the network's own size, which the warp leaves alone; predictors from scratch say nothing."""
    params = with_random_predictors(params)
    source = ShapesSource(TINY.data.shapes, "val")
    images = np.stack([source.image(i) for i in range(2)])
    config = dataclasses.replace(TINY, detect=dataclasses.replace(TINY.detect, score_threshold=0.2))
    program = make_predict_fn(config, sharding.single_device_mesh())
    side = np.full(2, 64, np.int32)
    detections = sharding.fetch(program(params, images, side, side))
    offsets, logits = jax.jit(SSD(config.model).apply)({"params": params}, images.astype(np.float32))
    default_boxes, variances = make_default_boxes(config.model.default_boxes), config.model.default_boxes.variances
    for slot in range(2):
        expected = reference.detection_output(
            np.asarray(offsets[slot]), np.asarray(logits[slot]), default_boxes, variances, 0.2, 400, 0.45, 200
        )
        found = to_image_detections(detections, slot, 64, 64)
        assert len(expected) > 3
        np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], atol=1e-4)
        assert found.labels.tolist() == [label for _, label, _ in expected]
        np.testing.assert_allclose(found.boxes_px, [64 * box for _, _, box in expected], atol=1e-2)


def test_program_knows_the_boxes_of_each_map(params):
    """Two candidates of each of the three maps, as mmdetection would choose them."""
    params = with_random_predictors(params)
    image = ShapesSource(TINY.data.shapes, "val").image(0)[None]
    limit = float(np.log(1000 / 16))
    detect = Detect(0.02, 2, 0.45, 200, "map", (-limit, limit), clip_before_nms=True, drop_empty=True)
    config = dataclasses.replace(TINY, detect=detect)
    side = np.full(1, 64, np.int32)
    program = make_predict_fn(config, sharding.single_device_mesh())
    found = to_image_detections(sharding.fetch(program(params, image, side, side)), 0, 64, 64)
    offsets, logits = jax.jit(SSD(config.model).apply)({"params": params}, image.astype(np.float32))
    expected = reference.mmdetection_detections(
        np.asarray(offsets[0]), np.asarray(logits[0]), make_default_boxes(config.model.default_boxes), (256, 64, 16),
        0.02, 2, 0.45, 200,
    )  # fmt: skip
    assert len(expected) > 3
    assert found.labels.tolist() == [label for _, label, _, _ in expected]
    np.testing.assert_allclose(found.boxes_px, [64 * np.array(box) for _, _, _, box in expected], atol=1e-2)


def test_one_compilation_for_all_batches(params):
    program = make_predict_fn(TINY, sharding.make_mesh())
    source = ShapesSource(TINY.data.shapes, "val")  # six images: the second batch is half full
    evaluator.predict_split(program, params, source, TINY, sharding.make_mesh())
    assert program._cache_size() == 1


def test_measured_is_json_with_the_keys_that_scripts_read():
    source = ShapesSource(TINY.data.shapes, "val")
    annotations = [source.annotation(i) for i in range(6)]
    exact = [
        detections.ImageDetections(a.boxes_px, np.linspace(1, 0.5, len(a.labels), dtype=np.float32), a.labels)
        for a in annotations
    ]
    measured = json.loads(json.dumps(evaluator.compute_metrics(exact, source)))
    for key in ("voc_map_11point", "voc_map_area", "coco_ap"):
        assert measured[key] == pytest.approx(1)
    nothing = evaluator.compute_metrics([detections.NO_DETECTIONS] * 6, source)
    assert [nothing[key] for key in ("voc_map_11point", "voc_map_area", "coco_ap")] == [0, 0, 0]
