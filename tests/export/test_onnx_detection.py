"""Tests of the ONNX operators that turn predictions into detections, against `detect` of this package."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import tiny_detector
from helpers.onnx_models import run_model
from onnx import TensorProto, helper

from ssd_jax.config import Config, Detect
from ssd_jax.export.onnx_detection import add_decoding, add_probabilities, add_selection
from ssd_jax.export.onnx_graph import GraphBuilder
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import detect
from ssd_jax.weights.presets import PRESETS

N = tiny_detector.BOXES.count
SMALL_TOP_K = {"top_k": 7, "max_detections": 25}


def make_config(classes: int, **options: object) -> Config:
    model = dataclasses.replace(tiny_detector.MODEL, class_names=tuple("abcdefgh"[:classes]))
    return Config(model=model, detect=Detect(**options))  # type: ignore[arg-type]


def make_predictions(config: Config, images: int, background: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return random offsets and logits. Half of the rows of an image repeat others, so that many scores are equal."""
    rng = np.random.default_rng(5)
    offsets = rng.normal(0, 1.5, (images, N, 4)).astype(np.float32)
    logits = rng.normal(0, 2, (images, N, config.model.num_classes)).astype(np.float32)
    repeated = rng.permutation(N)[: N // 2]
    logits[:, repeated] = logits[:, rng.integers(0, 5, N // 2)]
    logits[:, ::3, 2:] = logits[:, ::3, 1:2]  # all classes of a box have the same score
    logits[..., 0] += background
    return offsets, logits


def run_onnx(config: Config, offsets: np.ndarray, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Return boxes, scores, labels and counts of the operators, with normalized boxes."""
    graph = GraphBuilder()
    boxes, scores = add_decoding(graph, "offsets", config), add_probabilities(graph, "logits")
    rows = add_selection(graph, boxes, scores, config)
    types = {
        "boxes": (TensorProto.FLOAT, ["batch", "k", 4]),
        "scores": (TensorProto.FLOAT, ["batch", "k"]),
        "labels": (TensorProto.INT32, ["batch", "k"]),
        "count": (TensorProto.INT32, ["batch"]),
    }
    for name, tensor in rows.items():
        graph.set_name(tensor, name)
    inputs = [
        helper.make_tensor_value_info("offsets", TensorProto.FLOAT, ["batch", N, 4]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", N, config.model.num_classes]),
    ]
    outputs = [helper.make_tensor_value_info(name, *types[name]) for name in rows]
    return run_model(graph.finish("selection", inputs, outputs), offsets=offsets, logits=logits)


def assert_equals_detect(config: Config, offsets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Assert that the operators return what `detect` returns, and return the number of detections of each image."""
    found = run_onnx(config, offsets, logits)
    boxes = config.model.default_boxes

    def detect_image(offsets: np.ndarray, logits: np.ndarray) -> object:
        return detect(offsets, logits, make_default_boxes(boxes), boxes.variances, config.detect, boxes.boxes_per_map)

    expected = jax.tree.map(np.asarray, jax.jit(jax.vmap(detect_image))(offsets, logits))
    assert found["boxes"].shape == (len(offsets), config.detect.max_detections, 4)
    np.testing.assert_array_equal(found["labels"], expected.labels)
    np.testing.assert_array_equal(found["count"], expected.valid.sum(1))
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-6)
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=1e-6)
    assert {array.dtype for array in found.values()} == {np.dtype("float32"), np.dtype("int32")}
    return found["count"]


LAYOUTS = {name: preset.detect for name, preset in PRESETS.items() if preset.detect != Detect()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_selection_equals_detect_with_the_rules_of_an_imported_layout(layout: str):
    config = dataclasses.replace(make_config(3), detect=LAYOUTS[layout])
    assert assert_equals_detect(config, *make_predictions(config, 2)).min() > 50


@pytest.mark.parametrize(
    "options",
    [
        SMALL_TOP_K,
        SMALL_TOP_K | {"top_k_per": "map"},
        SMALL_TOP_K | {"top_k_per": "map", "clip_before_nms": True, "drop_empty": True},
        {"nms_iou_threshold": 0.0, "score_threshold": 0.3},
        {"log_scale_bounds": (-0.1, 0.1), "max_detections": 1000},
    ],
    ids=["top_k_per_class", "top_k_per_map", "drop_empty", "thresholds", "more_rows_than_pairs"],
)
@pytest.mark.parametrize("classes", [1, 4])
def test_selection_equals_detect(options: dict, classes: int):
    config = make_config(classes, **options)
    assert assert_equals_detect(config, *make_predictions(config, 3)).min() >= 5


def test_selection_keeps_each_image_apart_and_returns_zeros_without_candidates():
    config = make_config(2)
    offsets, logits = make_predictions(config, 3)
    logits[1, :, 0] += 100
    logits[2, :-1, 0] += 100
    logits[2, -1, 0] -= 100
    counts = assert_equals_detect(config, offsets, logits)
    assert counts[0] > 10 and counts[1:].tolist() == [0, 2]
    assert assert_equals_detect(config, offsets[1:2], logits[1:2]).tolist() == [0]


def test_selection_drops_boxes_that_are_empty_after_clipping():
    config = make_config(2, clip_before_nms=True, drop_empty=True)
    offsets, logits = make_predictions(config, 2)
    offsets[:, ::4, :2] = 300  # far outside of the image
    counts = assert_equals_detect(config, offsets, logits)
    keeping = dataclasses.replace(config, detect=dataclasses.replace(config.detect, drop_empty=False))
    assert (assert_equals_detect(keeping, offsets, logits) > counts).all()


@pytest.mark.parametrize("clip_before_nms", [False, True])
def test_selection_never_returns_what_is_not_finite(clip_before_nms: bool):
    """Boxes that are not finite still count among the best candidates of their class."""
    config = make_config(2, **SMALL_TOP_K, clip_before_nms=clip_before_nms)
    offsets, logits = make_predictions(config, 1)
    best = np.argsort(-logits[0, :, 1])[:6]
    for row, value in zip(best[::2], (np.nan, np.inf, 1e38), strict=True):
        offsets[0, row, 2] = value
    logits[0, 50, 1] = np.nan
    assert assert_equals_detect(config, offsets, logits).min() > 2
