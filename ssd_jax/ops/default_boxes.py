"""Default boxes: the fixed boxes that predictions are relative to (priors in Caffe, anchors elsewhere).

Cell (i, j) of map k has its centre at ((j + 1/2), (i + 1/2)) * step_k / image_size. Around it, with
smallest and largest size s and s' in pixels, lie boxes of this width and height, over image_size:

    (s, s)    (sqrt(s s'), sqrt(s s'))    then per aspect ratio r  (s sqrt(r), s / sqrt(r))
                                                              and  (s / sqrt(r), s sqrt(r))

The order of rows is map, cell row, cell column, box. Published weights depend on it.

Reference: Liu et al., "SSD: Single Shot MultiBox Detector", https://arxiv.org/abs/1512.02325, 2016,
section 2.2 "Choosing scales and aspect ratios for default boxes"; sizes, steps and order are those
of Caffe's PriorBox layer (src/caffe/layers/prior_box_layer.cpp), where they differ from the text.
"""

import math

import numpy as np
from jaxtyping import Float32, Float64

from ssd_jax.config import DefaultBoxes


def make_default_boxes(config: DefaultBoxes = DefaultBoxes()) -> Float32[np.ndarray, "n 4"]:
    """All default boxes of an image, cxcywh, normalised; n is ``config.count``.

    Computed in float64 and rounded once. With ``clip="none"`` boxes, and with fixed steps even
    centres, may lie outside the image.
    """
    boxes = np.concatenate([_boxes_of_map(config, k) for k in range(len(config.feature_maps))])
    return _clip(boxes, config.clip).astype(np.float32)


def _boxes_of_map(config: DefaultBoxes, k: int) -> Float64[np.ndarray, "n 4"]:
    cells = config.feature_maps[k]
    step = config.image_size / cells if config.steps is None else config.steps[k]
    centers = (np.arange(cells) + 0.5) * step / config.image_size
    sizes = _sizes_of_map(config, k)
    shape = (cells, cells, len(sizes))
    return np.stack(
        [
            np.broadcast_to(centers[None, :, None], shape),
            np.broadcast_to(centers[:, None, None], shape),
            np.broadcast_to(sizes[:, 0], shape),
            np.broadcast_to(sizes[:, 1], shape),
        ],
        axis=-1,
    ).reshape(-1, 4)


def _sizes_of_map(config: DefaultBoxes, k: int) -> Float64[np.ndarray, "k 2"]:
    low, high = config.min_sizes[k], config.max_sizes[k]
    if config.truncate_sizes:
        low, high = int(low), None if high is None else int(high)
    sizes = [(low, low)]
    if high is not None:
        sizes.append((math.sqrt(low * high),) * 2)
    for ratio in config.aspect_ratios[k]:
        long, short = low * math.sqrt(ratio), low / math.sqrt(ratio)
        sizes += [(long, short), (short, long)]
    return np.array(sizes, np.float64) / config.image_size


def _clip(boxes: Float64[np.ndarray, "n 4"], mode: str) -> Float64[np.ndarray, "n 4"]:
    """The four habits of published code; weights must be used with the one they were trained with."""
    center, size = boxes[:, :2], boxes[:, 2:]
    if mode == "sizes":
        return np.concatenate([center, np.minimum(size, 1)], axis=1)
    if mode == "center_size":
        return np.clip(boxes, 0, 1)
    if mode == "corners":
        low, high = np.clip(center - size / 2, 0, 1), np.clip(center + size / 2, 0, 1)
        return np.concatenate([(low + high) / 2, high - low], axis=1)
    return boxes
