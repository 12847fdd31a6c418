"""Tests of what all exported programs have in common: batches of a fixed size, images of several sizes, and detection.

Programs in numpy replace those of files.
"""

import jax
import numpy as np
import pytest
from helpers.tiny_detector import BOXES, CONFIG

from ssd_jax.exported.metadata import Source, make_metadata
from ssd_jax.exported.prediction import make_predict
from ssd_jax.exported.program import Outputs, Program, RawOutputs, run_in_batches
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import compute_boxes_and_scores, detect


class MeanProgram(Program):
    """A program whose first detection is the whole image, with the mean of its pixels as score."""

    def __init__(self, batch: int | None = None) -> None:
        self.metadata = make_metadata("onnx", CONFIG, Source(name="mean", step=0), batch=batch)
        self.shapes: list[tuple[int, ...]] = []

    def run(self, images: np.ndarray) -> Outputs:
        self.shapes.append(images.shape)
        count, height, width, _ = images.shape
        boxes, scores = np.zeros((count, 3, 4), np.float32), np.zeros((count, 3), np.float32)
        boxes[:, 0] = [0, 0, width, height]
        scores[:, 0] = images.mean(axis=(1, 2, 3)) / 255
        return Outputs(boxes, scores, (scores > 0).astype(np.int32), np.ones(count, np.int32))


def make_canvas() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return five images of three sizes on canvases, each of another color, and noise around them."""
    canvas = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    height, width = np.array([3, 8, 3, 8, 1], np.int32), np.array([5, 9, 5, 9, 1], np.int32)
    for slot in range(5):
        canvas[slot, : height[slot], : width[slot]] = 10 * (slot + 1)
    return canvas, height, width


@pytest.mark.parametrize(
    ("batch", "shapes"),
    [(None, {(2, 3, 5, 3), (2, 8, 9, 3), (1, 1, 1, 3)}), (3, {(3, 3, 5, 3), (3, 8, 9, 3), (3, 1, 1, 3)})],
)
def test_make_predict_runs_each_image_without_its_canvas_and_keeps_the_order(batch, shapes):
    program = MeanProgram(batch)
    boxes, scores, labels, valid = make_predict(program)(*make_canvas())
    assert set(program.shapes) == shapes and len(program.shapes) == 3
    np.testing.assert_allclose(scores[:, 0], np.arange(10, 60, 10) / 255, rtol=1e-6)
    np.testing.assert_array_equal(boxes[:, 0], np.tile([0, 0, 1, 1], (5, 1)))
    np.testing.assert_array_equal(valid, [[True, False, False]] * 5)
    assert not boxes[~valid].any() and (labels[:, 0] == 1).all()


@pytest.mark.parametrize(("count", "batch", "sizes"), [(5, 2, [2, 2, 2]), (4, 4, [4]), (1, 3, [3]), (3, None, [3])])
def test_run_in_batches_fills_the_last_batch_and_drops_what_it_added(count, batch, sizes):
    seen = []

    def run(numbers: np.ndarray) -> RawOutputs:
        seen.append(len(numbers))
        boxes = np.broadcast_to(numbers[:, None, None], (len(numbers), 2, 4)).astype(np.float32)
        return RawOutputs(boxes, boxes)

    outputs = run_in_batches(run, batch, np.arange(count))
    assert seen == sizes
    np.testing.assert_array_equal(outputs.boxes[:, 0, 0], np.arange(count))


def test_make_predict_applies_our_suppression_to_raw_outputs():
    """The boxes and scores of the program come from random predictions. The oracle is `detect`."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 1, (2, BOXES.count, 4)).astype(np.float32)
    logits = rng.normal(0, 2, (2, BOXES.count, 3)).astype(np.float32)
    default_boxes = make_default_boxes(BOXES)

    class RawProgram(Program):
        metadata = make_metadata("tflite", CONFIG, Source(name="raw", step=0), nms=False)

        def run(self, images: np.ndarray) -> RawOutputs:
            boxes, scores = jax.vmap(compute_boxes_and_scores, (0, 0, None))(offsets, logits, default_boxes)
            return RawOutputs(np.asarray(boxes) * np.float32([30, 20, 30, 20]), np.asarray(scores))

    sizes = np.full(2, 20, np.int32), np.full(2, 30, np.int32)
    found = make_predict(RawProgram())(np.zeros((2, 20, 30, 3), np.uint8), *sizes)
    expected = jax.vmap(detect, (0, 0, None))(offsets, logits, default_boxes)
    assert found.valid.sum() > 20
    for ours, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-5)
