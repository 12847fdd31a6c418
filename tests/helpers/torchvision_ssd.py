"""Random weights and a config for torchvision's ssd300_vgg16, made without torch.

This module was written from torchvision/models/detection/ssd.py (0.29.1), independently of `ssd_jax.weights`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssd_jax.config import SSD300_COCO_BOXES, Config, Data, Detect, Model

StateDict = dict[str, np.ndarray]
CLASSES = 91
"""Number of classes: the category ids of COCO, 1 to 90, and background."""

# For each layer: prefix of torchvision's keys, input channels, output channels, side of the kernel.
LAYERS: dict[str, tuple[str, int, int, int]] = {
    "vgg/conv1_1": ("backbone.features.0", 3, 64, 3),
    "vgg/conv1_2": ("backbone.features.2", 64, 64, 3),
    "vgg/conv2_1": ("backbone.features.5", 64, 128, 3),
    "vgg/conv2_2": ("backbone.features.7", 128, 128, 3),
    "vgg/conv3_1": ("backbone.features.10", 128, 256, 3),
    "vgg/conv3_2": ("backbone.features.12", 256, 256, 3),
    "vgg/conv3_3": ("backbone.features.14", 256, 256, 3),
    "vgg/conv4_1": ("backbone.features.17", 256, 512, 3),
    "vgg/conv4_2": ("backbone.features.19", 512, 512, 3),
    "vgg/conv4_3": ("backbone.features.21", 512, 512, 3),
    "vgg/conv5_1": ("backbone.extra.0.1", 512, 512, 3),
    "vgg/conv5_2": ("backbone.extra.0.3", 512, 512, 3),
    "vgg/conv5_3": ("backbone.extra.0.5", 512, 512, 3),
    "vgg/fc6": ("backbone.extra.0.7.1", 512, 1024, 3),
    "vgg/fc7": ("backbone.extra.0.7.3", 1024, 1024, 1),
    "conv6_1": ("backbone.extra.1.0", 1024, 256, 1),
    "conv6_2": ("backbone.extra.1.2", 256, 512, 3),
    "conv7_1": ("backbone.extra.2.0", 512, 128, 1),
    "conv7_2": ("backbone.extra.2.2", 128, 256, 3),
    "conv8_1": ("backbone.extra.3.0", 256, 128, 1),
    "conv8_2": ("backbone.extra.3.2", 128, 256, 3),
    "conv9_1": ("backbone.extra.4.0", 256, 128, 1),
    "conv9_2": ("backbone.extra.4.2", 128, 256, 3),
}
L2_NORM = "backbone.scale_weight"
# Number of channels and of default boxes per cell, for each feature map.
FEATURE_MAPS = {
    "conv4_3_norm": (512, 4),
    "fc7": (1024, 6),
    "conv6_2": (512, 6),
    "conv7_2": (256, 6),
    "conv8_2": (256, 4),
    "conv9_2": (256, 4),
}

# Inputs that tests/assets/golden/torchvision_ssd300.npz was made from. Images are given as seed, height and width.
GOLDEN_WEIGHTS_SEED, GOLDEN_SCENE_SEED = 0, 1
GOLDEN_IMAGE, GOLDEN_DETECTION_IMAGE = (1, 300, 300), (2, 413, 517)


def list_layers() -> dict[str, tuple[str, int, int, int]]:
    """Return the layers of `LAYERS` and the predictors, in the same form."""
    heads = {}
    for k, (name, (channels, boxes)) in enumerate(FEATURE_MAPS.items()):
        heads[f"{name}_mbox_loc"] = (f"head.regression_head.module_list.{k}", channels, 4 * boxes, 3)
        heads[f"{name}_mbox_conf"] = (f"head.classification_head.module_list.{k}", channels, CLASSES * boxes, 3)
    return LAYERS | heads


def make_random_state_dict(seed: int) -> StateDict:
    """Return random weights with torchvision's keys and shapes.

    The weights preserve the scale of activations. The standard deviation is about two for logits and about one for
    offsets. The weights are the same on every machine: RandomState never changes (NumPy's policy, NEP 19), and uniform
    numbers are made from random bits by exact arithmetic.
    """
    random = np.random.RandomState(seed)

    def draw_uniform(bound: float, *shape: int) -> np.ndarray:
        return (bound * (2 * random.random_sample(shape) - 1)).astype(np.float32)

    state = {L2_NORM: (15 + draw_uniform(5.0, 512)).astype(np.float32)}
    for name, (stem, inputs, outputs, side) in list_layers().items():
        # He's variance is 2 / fan-in. The inputs of conv1_1 are pixels with a standard deviation of about 64.
        gain = {"vgg/conv1_1": 2 / 64**2}.get(name, 1 if name.endswith("_loc") else 2)
        state[f"{stem}.weight"] = draw_uniform(math.sqrt(3 * gain / (inputs * side**2)), outputs, inputs, side, side)
        state[f"{stem}.bias"] = draw_uniform(0.2, outputs)
    return state


def to_params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return torchvision's weights as parameters of `SSD`, with kernels in the order (row, column, in, out)."""
    params: dict[str, Any] = {"vgg": {}, "conv4_3_norm": {"scale": state[L2_NORM]}}
    for name, (stem, *_) in list_layers().items():
        kernel = np.ascontiguousarray(state[f"{stem}.weight"].transpose(2, 3, 1, 0))
        group, _, layer = name.rpartition("/")
        (params[group] if group else params)[layer] = {"kernel": kernel, "bias": state[f"{stem}.bias"]}
    return params


def make_random_image(seed: int, height: int, width: int) -> np.ndarray:
    """Return a random RGB image (height, width, 3), uint8: the weighted mean of patches of three sizes.

    The image is computed with integers, so it is the same on every machine.
    """
    random = np.random.RandomState(seed)
    image = np.zeros((height, width, 3), np.int64)
    for side, weight in ((64, 4), (16, 2), (1, 1)):
        patches = random.randint(0, 256, (-(-height // side), -(-width // side), 3))
        image += weight * patches.repeat(side, 0).repeat(side, 1)[:height, :width]
    return (image // 7).astype(np.uint8)


def draw_random_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Return `count` random rows, possibly repeated. The choice depends only on the number of rows."""
    return rows[np.random.RandomState(len(rows)).randint(0, len(rows), count)]


def make_random_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (xyxy, pixels) and labels of six random objects in an image of 300 x 300 pixels.

    Each object has about the size of the default boxes of a different feature map.
    """
    random = np.random.RandomState(seed)
    sides = np.array([20, 40, 100, 150, 210, 270])[:, None] * (0.9 + 0.2 * random.random_sample((6, 2)))
    corner = (300 - sides) * random.random_sample((6, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    return boxes, random.randint(1, CLASSES, len(sides))


def make_torchvision_config() -> Config:
    """Return a config with torchvision's preprocessing and postprocessing."""
    return Config(
        model=Model(
            class_names=tuple(str(label) for label in range(1, CLASSES)),
            default_boxes=dataclasses.replace(SSD300_COCO_BOXES, clip="sizes"),
            # This is image_mean times 255. image_std is 1 / 255, which leaves the scale 0 to 255.
            mean=(0.48235 * 255, 0.45882 * 255, 0.40784 * 255),
        ),
        data=Data(max_image_size=640),
        detect=Detect(log_scale_bounds=(None, math.log(1000 / 16)), clip_before_nms=True),
    )


def assert_same_detections(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], pixels: float = 0.01, score: float = 1e-5
) -> str:
    """Assert that detections (boxes, scores, labels) are equal, and return a text with the largest differences.

    Detections whose scores differ by less than 1e-6 may be in any order.

    Args:
        actual: Boxes (k, 4) in pixels, xyxy, scores (k,) and labels (k,).
        expected: Expected boxes, scores and labels.
        pixels: Largest difference of coordinates that is accepted, in pixels.
        score: Largest difference of scores that is accepted.
    """
    (boxes, scores, labels), (expected_boxes, expected_scores, expected_labels) = actual, expected
    assert len(scores) == len(expected_scores)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=score)
    distance = 0.0
    starts = np.flatnonzero(np.diff(expected_scores, prepend=np.inf) <= -1e-6)
    for group in np.split(np.arange(len(scores)), starts[1:]):
        unmatched = list(group)
        for i in group:
            same = [
                j
                for j in unmatched
                if expected_labels[j] == labels[i] and abs(expected_boxes[j] - boxes[i]).max() <= pixels
            ]
            assert same, (
                f"detection {i}, label {labels[i]} at {boxes[i]}: {expected_labels[group]} at {expected_boxes[group]}"
            )
            distance = max(distance, abs(expected_boxes[same[0]] - boxes[i]).max())
            unmatched.remove(same[0])
    return f"{len(scores)} detections, {distance:.1e} px, {abs(scores - expected_scores).max(initial=0):.1e}"
