"""Detections from predictions in ONNX's standard operators, as `ssd_jax.ops.detection.detect` computes them.

Candidates are ordered by descending score, then by index of the default box, then by class. ONNX defines that TopK puts
the lower index first among equal values; NonMaxSuppression of onnxruntime and of OpenVINO does the same.
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from ssd_jax.config import Config, Detect
from ssd_jax.export.onnx_graph import GraphBuilder
from ssd_jax.ops.default_boxes import make_default_boxes

LARGEST_FLOAT = np.finfo(np.float32).max


def add_decoding(graph: GraphBuilder, offsets: str, config: Config) -> str:
    """Decode offsets (batch, n, 4) to boxes, xyxy, normalized, not clipped to the image."""
    default_boxes = make_default_boxes(config.model.default_boxes)
    center, size = default_boxes[:, :2], default_boxes[:, 2:]
    scaled = graph.add("Mul", offsets, np.array(config.model.default_boxes.variances, np.float32))
    shift = add_slice(graph, scaled, 0, 2)
    log_scale = add_slice(graph, scaled, 2, 4)
    low, high = config.detect.log_scale_bounds
    if low is not None:
        log_scale = graph.add("Max", log_scale, np.float32(low))
    if high is not None:
        log_scale = graph.add("Min", log_scale, np.float32(high))
    centers = graph.add("Add", graph.add("Mul", shift, size), center)
    half_sizes = graph.add("Mul", graph.add("Mul", graph.add("Exp", log_scale), size), np.float32(0.5))
    return graph.add("Concat", graph.add("Sub", centers, half_sizes), graph.add("Add", centers, half_sizes), axis=-1)


def add_probabilities(graph: GraphBuilder, logits: str) -> str:
    """Return the probabilities (batch, n, classes) of all classes except background."""
    return add_slice(graph, graph.add("Softmax", logits, axis=-1), 1, np.iinfo(np.int64).max)


def add_selection(graph: GraphBuilder, boxes: str, scores: str, config: Config) -> dict[str, str]:
    """Select detections: threshold, best candidates, non-maximum suppression in each class, best detections of all.

    Args:
        graph: The graph.
        boxes: Decoded boxes (batch, n, 4), normalized.
        scores: Probabilities (batch, n, classes).
        config: Settings of the network and of the detection.

    Returns:
        Tensors by their names: ``boxes`` (batch, k, 4), xyxy, normalized, clipped to the image; ``scores`` (batch, k);
        ``labels`` (batch, k) from 1; and ``count`` (batch), the number of detections. The best ones are first; unused
        rows are zeros.
    """
    detect, num_boxes, num_classes = config.detect, config.model.default_boxes.count, config.model.num_classes - 1
    usable = add_usable_mask(graph, boxes)
    if detect.clip_before_nms:
        boxes = add_clip(graph, boxes)
    # A comparison with NaN is false, so that NaN becomes 0.
    above = graph.add("Greater", scores, np.float32(detect.score_threshold))
    scores = graph.add("Where", above, scores, np.float32(0))
    if detect.top_k_per == "map":
        scores = add_best_per_map(graph, scores, detect.top_k, config.model.default_boxes.boxes_per_map, num_classes)
    by_class = graph.add("Transpose", scores, perm=[0, 2, 1])
    if detect.top_k_per == "class" and detect.top_k < num_boxes:
        by_class = add_best(graph, by_class, detect.top_k)
    if detect.drop_empty:
        usable = graph.add("And", usable, add_area_mask(graph, boxes))
    # Boxes that are not usable have counted among the best candidates, but neither stay nor suppress others.
    by_class = graph.add("Where", graph.add("Unsqueeze", usable, np.array([1])), by_class, np.float32(0))
    selected = graph.add(  # (m, 3): image, class, box
        "NonMaxSuppression",
        boxes,
        by_class,
        np.array([detect.max_detections]),
        np.array([detect.nms_iou_threshold], np.float32),
        np.array([detect.score_threshold], np.float32),
    )
    return add_best_detections(graph, boxes, by_class, selected, detect, num_boxes, num_classes)


def add_best_detections(
    graph: GraphBuilder, boxes: str, by_class: str, selected: str, detect: Detect, num_boxes: int, num_classes: int
) -> dict[str, str]:
    """Return the best of the selected detections, as `add_selection` does.

    The scores are scattered into an array with a place for each pair of box and class, in this order, where TopK then
    orders equal scores as it should.
    """
    pairs = num_boxes * num_classes
    scores = graph.add("GatherND", by_class, selected)
    image_box_class = graph.add("Gather", selected, np.array([0, 2, 1]), axis=1)
    shape = graph.add("Gather", graph.add("Shape", by_class), np.array([0, 2, 1]))
    kept = graph.add("ScatterND", add_zeros(graph, shape), image_box_class, scores)
    k = min(detect.max_detections, pairs)
    flat = graph.add("Reshape", kept, np.array([0, pairs]))
    best, order = graph.add_multiple("TopK", 2, flat, np.array([k]), axis=-1, largest=1, sorted=1)
    is_valid = graph.add("Greater", best, np.float32(0))
    box = graph.add("Unsqueeze", graph.add("Div", order, np.array(num_classes)), np.array([2]))
    label = graph.add("Add", graph.add("Mod", order, np.array(num_classes)), np.array(1))
    label = graph.add("Cast", graph.add("Where", is_valid, label, np.array(0)), to=TensorProto.INT32)
    chosen = add_clip(graph, graph.add("GatherND", boxes, box, batch_dims=1))
    chosen = graph.add("Where", graph.add("Unsqueeze", is_valid, np.array([2])), chosen, np.float32(0))
    count = graph.add("ReduceSum", graph.add("Cast", is_valid, to=TensorProto.INT32), np.array([1]), keepdims=0)
    if k < detect.max_detections:  # a small network
        missing = detect.max_detections - k
        best, label = (graph.add("Pad", rows, np.array([0, 0, 0, missing])) for rows in (best, label))
        chosen = graph.add("Pad", chosen, np.array([0, 0, 0, 0, missing, 0]))
    return {"boxes": chosen, "scores": best, "labels": label, "count": count}


def add_usable_mask(graph: GraphBuilder, boxes: str) -> str:
    """Return a mask (batch, n) of the boxes whose coordinates are all finite."""
    return add_all(graph, graph.add("LessOrEqual", graph.add("Abs", boxes), LARGEST_FLOAT))


def add_area_mask(graph: GraphBuilder, boxes: str) -> str:
    """Return a mask (batch, n) of the boxes that have a width and a height."""
    return add_all(graph, graph.add("Greater", add_slice(graph, boxes, 2, 4), add_slice(graph, boxes, 0, 2)))


def add_best_per_map(
    graph: GraphBuilder, scores: str, top_k: int, boxes_per_map: Sequence[int], num_classes: int
) -> str:
    """Set all scores to 0 except the best of each feature map over all classes."""
    parts = graph.add_multiple("Split", len(boxes_per_map), scores, np.array(boxes_per_map), axis=1)
    best = []
    for part, boxes in zip(parts, boxes_per_map, strict=True):
        pairs = boxes * num_classes
        if top_k < pairs:
            flat = add_best(graph, graph.add("Reshape", part, np.array([0, pairs])), top_k)
            part = graph.add("Reshape", flat, np.array([0, boxes, num_classes]))
        best.append(part)
    return graph.add("Concat", *best, axis=1)


def add_best(graph: GraphBuilder, scores: str, top_k: int) -> str:
    """Set all scores to 0 except the best along the last axis; among equal scores, those of lower index are best."""
    values, indices = graph.add_multiple("TopK", 2, scores, np.array([top_k]), axis=-1, largest=1, sorted=1)
    zeros = add_zeros(graph, graph.add("Shape", scores))
    return graph.add("ScatterElements", zeros, indices, values, axis=-1)


def add_all(graph: GraphBuilder, mask: str) -> str:
    """Return whether a mask is true everywhere along the last axis. ReduceMin takes no booleans before opset 20."""
    lowest = graph.add("ReduceMin", graph.add("Cast", mask, to=TensorProto.FLOAT), axes=[-1], keepdims=0)
    return graph.add("Cast", lowest, to=TensorProto.BOOL)


def add_clip(graph: GraphBuilder, boxes: str) -> str:
    """Clip normalized boxes to the image."""
    return graph.add("Clip", boxes, np.float32(0), np.float32(1))


def add_slice(graph: GraphBuilder, x: str, start: int, stop: int) -> str:
    """Return a part of the last axis."""
    return graph.add("Slice", x, np.array([start]), np.array([stop]), np.array([-1]))


def add_zeros(graph: GraphBuilder, shape: str) -> str:
    """Return float32 zeros of a shape, a tensor of integers."""
    return graph.add("Expand", np.float32(0), shape)
