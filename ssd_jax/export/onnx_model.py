"""A trained network as an ONNX model: uint8 images in, detections out."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from ssd_jax.export.network import Network
from ssd_jax.export.onnx_detection import add_decoding, add_probabilities, add_selection
from ssd_jax.export.onnx_graph import GraphBuilder
from ssd_jax.export.onnx_network import add_network


def make_onnx_model(network: Network) -> onnx.ModelProto:
    """Return an ONNX model that computes what the detection program of a network computes.

    The input is ``images``, uint8 RGB (batch, height, width, 3) of any height and width. The outputs are ``boxes``
    (batch, k, 4), ``scores`` (batch, k), ``labels`` (batch, k) and ``count`` (batch), best first and with zeros in
    unused rows. Without non-maximum suppression, they are ``boxes`` (batch, n, 4) and ``scores`` (batch, n, classes) of
    all default boxes. Boxes are xyxy in pixels of the images. The tensor ``logits`` (batch, n, classes with background)
    has its name so that it can be made an output.
    """
    config, options = network.config, network.options
    graph = GraphBuilder(half=options.half)
    model, k = config.model, config.detect.max_detections
    with graph.scope("input"):
        pixels = graph.add("Cast", "images", to=TensorProto.FLOAT)
    offsets, logits = add_network(graph, pixels, model, network.params)
    logits = graph.set_name(logits, "logits")
    batch_size = options.batch or "batch"
    n, classes = model.default_boxes.count, model.num_classes - 1
    with graph.scope("decode"):
        boxes, scores = add_decoding(graph, offsets, config), add_probabilities(graph, logits)
    shapes: dict[str, tuple[int, list[int | str]]]
    if options.nms:
        with graph.scope("select"):
            results = add_selection(graph, boxes, scores, config)
        shapes = {
            "boxes": (TensorProto.FLOAT, [batch_size, k, 4]),
            "scores": (TensorProto.FLOAT, [batch_size, k]),
            "labels": (TensorProto.INT32, [batch_size, k]),
            "count": (TensorProto.INT32, [batch_size]),
        }
    else:
        results = {"boxes": boxes, "scores": scores}
        shapes = {
            "boxes": (TensorProto.FLOAT, [batch_size, n, 4]),
            "scores": (TensorProto.FLOAT, [batch_size, n, classes]),
        }
    with graph.scope("pixels"):
        results["boxes"] = add_scale_to_pixels(graph, results["boxes"])
    for name, tensor in results.items():
        graph.set_name(tensor, name)
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [batch_size, "height", "width", 3])
    outputs = [helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()]
    return graph.finish(config.name, [images], outputs)


def add_scale_to_pixels(graph: GraphBuilder, boxes: str) -> str:
    """Multiply normalized boxes with the width and height of the images."""
    size = graph.add("Gather", graph.add("Shape", "images"), np.array([2, 1, 2, 1]))
    return graph.add("Mul", boxes, graph.add("Cast", size, to=TensorProto.FLOAT))
