"""Measure how well the default boxes of a config fit the objects of a data set, before training.

An object is *unmatched* if its IoU with every default box is below the matching threshold. In training, only the best
default box is then matched to the object (paper section 2.2: the best box always matches). The network therefore gets
few examples of such objects, and has to predict large offsets for them. Other default boxes may fit these objects
better.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from ssd_jax.config import (
    SSD300_COCO_BOXES,
    SSD300_VOC_BOXES,
    SSD512_COCO_BOXES,
    SSD512_VOC_BOXES,
    Config,
    Data,
    DefaultBoxes,
)
from ssd_jax.data.source import Source, keep_trainable_objects, normalised_boxes
from ssd_jax.ops.default_boxes import make_default_boxes

SIZE_EDGES = (16, 32, 64, 128)
"""Limits between the size ranges of objects. The size of an object is the square root of the area of its box, in pixels
of the network's input."""

PUBLISHED = {
    "SSD300, VOC's boxes": SSD300_VOC_BOXES,
    "SSD300, COCO's boxes": SSD300_COCO_BOXES,
    "SSD512, VOC's boxes": SSD512_VOC_BOXES,
    "SSD512, COCO's boxes": SSD512_COCO_BOXES,
}
"""Published sets of default boxes by name. A check compares their coverage with that of the config's default boxes."""

_CONFIGS = {
    "SSD300, VOC's boxes": "ssd300_voc",
    "SSD300, COCO's boxes": "own_data",
    "SSD512, VOC's boxes": "ssd512_voc",
    "SSD512, COCO's boxes": "own_data_512",
}
"""Config that has each of the published sets of default boxes."""

_CHUNK = 256  # objects whose IoU with all default boxes is in memory at the same time


class Coverage(NamedTuple):
    """Numbers of objects and of unmatched objects in a group. ``str`` returns the percentage of unmatched objects."""

    objects: int
    """Number of objects in the group."""
    unmatched: int
    """Number of objects whose best IoU with a default box is below the matching threshold."""

    def __str__(self) -> str:
        return f"{self.unmatched / self.objects:.1%}" if self.objects else "-"


class BoxCoverage(NamedTuple):
    """Coverage of the objects of a split by the default boxes of a config."""

    boxes: Float[np.ndarray, "g 4"]
    """Boxes of the objects that training uses: xyxy, normalised."""
    unmatched: Bool[np.ndarray, " g"]
    """True for each unmatched object."""
    all: Coverage
    """Coverage of all objects."""
    by_class: dict[str, Coverage]
    """Coverage of the objects of each class, by class name."""
    by_size: dict[str, Coverage]
    """Coverage of the objects in each size range, by a description of the range such as ``16 to 32 px``."""
    published: dict[str, Coverage]
    """Coverage of all objects by each published set of default boxes, by its name in `PUBLISHED`."""
    advice: str
    """Advice on whether and how to change the default boxes, in one or two sentences."""


def measure_box_coverage(source: Source, config: Config) -> BoxCoverage:
    """Return the coverage of a split's objects by the config's default boxes: in total, by class, and by size."""
    boxes, labels = training_boxes(source, config.data)
    box_config, threshold = config.model.default_boxes, config.match.iou_threshold
    unmatched = best_iou(boxes, box_config) < threshold
    published = coverage_by_published_boxes(boxes, threshold)
    return BoxCoverage(
        boxes,
        unmatched,
        _compute_coverage(unmatched),
        coverage_by_class(unmatched, labels, source.class_names),
        coverage_by_size(unmatched, size_bins(boxes, box_config.image_size)),
        published,
        suggest_box_change(_compute_coverage(unmatched), published, boxes, box_config),
    )


def training_boxes(source: Source, data: Data) -> tuple[Float[np.ndarray, "g 4"], Int32[np.ndarray, " g"]]:
    """Return the boxes of a split that training uses, and their labels. Boxes are xyxy, normalised and clipped."""
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int32)]
    for annotation in source.annotations():
        annotation = keep_trainable_objects(annotation, data.train_on_difficult)
        boxes.append(normalised_boxes(annotation))
        labels.append(annotation.labels)
    return np.concatenate(boxes), np.concatenate(labels)


def best_iou(boxes: Float[np.ndarray, "g 4"], box_config: DefaultBoxes) -> Float[np.ndarray, " g"]:
    """Return the highest IoU of each box with any default box.

    Args:
        boxes: Boxes, xyxy, normalised, inside the image.
        box_config: Config of the default boxes.
    """
    if box_config.clip in ("none", "sizes"):
        return _best_iou_by_shape(boxes, box_config)
    return _best_iou_over_default_boxes(boxes, box_config)


def _best_iou_over_default_boxes(boxes: Float[np.ndarray, "g 4"], box_config: DefaultBoxes) -> Float[np.ndarray, " g"]:
    default_boxes = make_default_boxes(box_config)
    center, size = default_boxes[:, :2], default_boxes[:, 2:]
    corners = np.concatenate([center - size / 2, center + size / 2], axis=1)
    best = np.zeros(len(boxes), np.float32)
    for start in range(0, len(boxes), _CHUNK):
        best[start : start + _CHUNK] = pairwise_iou(boxes[start : start + _CHUNK], corners).max(axis=1)
    return best


def pairwise_iou(boxes: Float[np.ndarray, "m 4"], others: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "m n"]:
    """Return the IoU of each box with each of the other boxes. Boxes are xyxy."""
    # This repeats a function of ops.boxes in NumPy, because loading JAX would delay the start of the check.
    ax1, ay1, ax2, ay2 = boxes.T[:, :, None]
    bx1, by1, bx2, by2 = others.T[:, None, :]
    width = np.maximum(np.minimum(ax2, bx2) - np.maximum(ax1, bx1), 0)
    height = np.maximum(np.minimum(ay2, by2) - np.maximum(ay1, by1), 0)
    intersection = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    return _iou_from_areas(intersection, union)


def _best_iou_by_shape(boxes: Float[np.ndarray, "g 4"], box_config: DefaultBoxes) -> Float[np.ndarray, " g"]:
    """Return the highest IoU of each box with any default box, for default boxes that are not clipped to the image.

    This takes less time than `_best_iou_over_default_boxes`.

    Among the default boxes of one shape, the box whose centre is nearest to an object in x and in y has the largest
    intersection with the object. Since the areas are equal, it also has the smallest union and the highest IoU.
    """
    centers, extents = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    best = np.zeros(len(boxes), np.float32)
    default_boxes, start = make_default_boxes(box_config), 0
    for cells, per_cell in zip(box_config.feature_maps, box_config.boxes_per_cell, strict=True):
        stop = start + cells * cells * per_cell
        grid = default_boxes[start:stop].reshape(cells, cells, per_cell, 4)
        cell_centers = grid[0, :, 0, 0]  # the centres have the same coordinates in x and in y
        distance = np.abs(centers[..., None] - cell_centers).min(axis=-1)
        for size in grid[0, 0, :, 2:]:
            sides = np.minimum((size + extents) / 2 - distance, np.minimum(size, extents)).clip(0)
            intersection = sides.prod(axis=1)
            best = np.maximum(best, _iou_from_areas(intersection, size.prod() + extents.prod(axis=1) - intersection))
        start = stop
    return best


def _iou_from_areas(
    intersection: Float[np.ndarray, "..."], union: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def coverage_by_class(
    unmatched: Bool[np.ndarray, " g"], labels: Int32[np.ndarray, " g"], class_names: Sequence[str]
) -> dict[str, Coverage]:
    """Count the objects and the unmatched objects of each class. Labels count from 1."""
    return {name: _compute_coverage(unmatched[labels == label]) for label, name in enumerate(class_names, start=1)}


def size_bins(boxes: Float[np.ndarray, "g 4"], image_size: int) -> Int[np.ndarray, " g"]:
    """Return the size range of each box, as a number from 0 (smallest) to 4.

    Args:
        boxes: Boxes, xyxy, normalised.
        image_size: Side of the network's input in pixels.
    """
    return np.searchsorted(SIZE_EDGES, _box_sizes_px(boxes, image_size), side="right")


def coverage_by_size(unmatched: Bool[np.ndarray, " g"], bins: Int[np.ndarray, " g"]) -> dict[str, Coverage]:
    """Count the objects and the unmatched objects in each size range, given the range of each object (`size_bins`)."""
    names = [f"below {SIZE_EDGES[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(SIZE_EDGES))]
    names.append(f"{SIZE_EDGES[-1]} and more")
    return {f"{name} px": _compute_coverage(unmatched[bins == k]) for k, name in enumerate(names)}


def _compute_coverage(unmatched: Bool[np.ndarray, " g"]) -> Coverage:
    return Coverage(len(unmatched), int(unmatched.sum()))


def _box_sizes_px(boxes: Float[np.ndarray, "g 4"], image_size: int) -> Float[np.ndarray, " g"]:
    """Return the square root of the area of each normalised box, in pixels of the network's input."""
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) * image_size


def coverage_by_published_boxes(boxes: Float[np.ndarray, "g 4"], threshold: float) -> dict[str, Coverage]:
    """Return the coverage of objects by each published set of default boxes. ``boxes`` are xyxy, normalised."""
    return {name: _compute_coverage(best_iou(boxes, box_config) < threshold) for name, box_config in PUBLISHED.items()}


def suggest_box_change(
    coverage: Coverage, published: Mapping[str, Coverage], boxes: Float[np.ndarray, "g 4"], box_config: DefaultBoxes
) -> str:
    """Return advice on whether and how to change the default boxes, in one or two sentences.

    Args:
        coverage: Coverage of the objects by the config's default boxes.
        published: Coverage of the objects by each published set of default boxes, by its name in `PUBLISHED`.
        boxes: Boxes of the objects: xyxy, normalised.
        box_config: The config's default boxes.
    """
    if not coverage.objects:
        return "Coverage cannot be computed without objects."
    if coverage.unmatched <= 0.01 * coverage.objects:
        return "The default boxes fit this data set; nothing to change."
    better = {name: c for name, c in published.items() if c.unmatched <= 0.7 * coverage.unmatched}
    same_size = {n: c for n, c in better.items() if PUBLISHED[n].image_size <= box_config.image_size}
    candidates = same_size or better
    if candidates:
        name = min(candidates, key=lambda n: (candidates[n].unmatched, PUBLISHED[n].count))
        cost = "" if name in same_size else ", at the cost of a larger input"
        return (
            f"With {name}, {candidates[name]} of the objects would be unmatched{cost}. The config {_CONFIGS[name]} "
            "has these boxes."
        )
    sizes = _box_sizes_px(boxes, box_config.image_size)
    smallest = min(box_config.min_sizes)
    largest = max(high or low for low, high in zip(box_config.min_sizes, box_config.max_sizes, strict=True))
    small, large = (float(np.mean(mask)) for mask in (sizes < 0.7 * smallest, sizes > 1.4 * largest))
    if max(small, large) * coverage.objects >= 0.5 * coverage.unmatched:
        range_end = f"smaller than the smallest default box ({smallest:g} px of {box_config.image_size})"
        if large > small:
            range_end = f"larger than the largest default box ({largest:g} px of {box_config.image_size})"
        return (
            f"{max(small, large):.1%} of the objects are much {range_end}: change model.default_boxes.min_sizes, or "
            "cut large images into tiles before labelling."
        )
    return (
        "None of the published default boxes fits much better. Add model.default_boxes.aspect_ratios if the objects "
        "are long and narrow; data.png shows the widths and heights of objects and default boxes."
    )
