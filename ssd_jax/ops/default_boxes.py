"""Default boxes: the fixed boxes that predictions are relative to (priors in Caffe, anchors elsewhere).

Reference: Liu et al., "SSD: Single Shot MultiBox Detector", https://arxiv.org/abs/1512.02325, 2016, section 2.2
"Choosing scales and aspect ratios for default boxes". Where Caffe's PriorBox layer
(src/caffe/layers/prior_box_layer.cpp) differs from the text, sizes, steps and order follow Caffe.
"""

import math

import numpy as np
from jaxtyping import Float32, Float64

from ssd_jax.config import DefaultBoxes


def make_default_boxes(config: DefaultBoxes = DefaultBoxes()) -> Float32[np.ndarray, "n 4"]:
    r"""Return all default boxes of an image.

    The cell in row i and column j of feature map k has its centre at

    $$c_x = \frac{(j + 1/2)\, step_k}{image\_size} \qquad c_y = \frac{(i + 1/2)\, step_k}{image\_size}$$

    Let s and s' be the smallest and the largest size of the feature map in pixels. The boxes of the cell have the
    following widths and heights, divided by the image size, in this order::

        (s, s)
        (sqrt(s s'), sqrt(s s'))                               if the feature map has a largest size
        (s sqrt(r), s / sqrt(r)) and (s / sqrt(r), s sqrt(r))  for each aspect ratio r

    Args:
        config: Sizes, steps and aspect ratios of each feature map. Defaults to those of SSD300 for VOC.

    Returns:
        Boxes (n, 4), cxcywh, normalised; n is `config.count`, 8732 for SSD300. They are ordered by feature map, row of
        the cell, column of the cell and box within the cell; published weights depend on this order. They are computed
        in float64 and rounded once to float32. With `clip="none"`, boxes may lie partly outside the image; with fixed
        steps, their centres may also lie outside.
    """
    boxes = np.concatenate([_make_boxes_of_map(config, map_index) for map_index in range(len(config.feature_maps))])
    return _clip(boxes, config.clip).astype(np.float32)


def _make_boxes_of_map(config: DefaultBoxes, map_index: int) -> Float64[np.ndarray, "n 4"]:
    cells = config.feature_maps[map_index]
    step = config.image_size / cells if config.steps is None else config.steps[map_index]
    centers = (np.arange(cells) + 0.5) * step / config.image_size
    sizes = _make_box_sizes_of_map(config, map_index)
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


def _make_box_sizes_of_map(config: DefaultBoxes, map_index: int) -> Float64[np.ndarray, "k 2"]:
    low, high = config.min_sizes[map_index], config.max_sizes[map_index]
    if config.truncate_sizes:
        low, high = int(low), None if high is None else int(high)
    sizes = [(low, low)]
    if high is not None:
        sizes.append((math.sqrt(low * high),) * 2)
    for ratio in config.aspect_ratios[map_index]:
        long, short = low * math.sqrt(ratio), low / math.sqrt(ratio)
        sizes += [(long, short), (short, long)]
    return np.array(sizes, np.float64) / config.image_size


def _clip(boxes: Float64[np.ndarray, "n 4"], mode: str) -> Float64[np.ndarray, "n 4"]:
    """Return the boxes, clipped according to `mode` (see `DefaultBoxes.clip`).

    Published implementations clip differently. Weights have to be used with the mode that they were trained with.
    """
    center, size = boxes[:, :2], boxes[:, 2:]
    if mode == "sizes":
        return np.concatenate([center, np.minimum(size, 1)], axis=1)
    if mode == "center_size":
        return np.clip(boxes, 0, 1)
    if mode == "corners":
        low, high = np.clip(center - size / 2, 0, 1), np.clip(center + size / 2, 0, 1)
        return np.concatenate([(low + high) / 2, high - low], axis=1)
    return boxes
