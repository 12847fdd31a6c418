"""How well default boxes fit the objects of a data set, before any training.

An object whose best default box has an IoU below the matching threshold gets that box alone
(paper section 2.2: the best box always matches), so the network sees few examples of it, and those
far off. The share of such objects is what a change of default boxes can win.
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
    DefaultBoxes,
)
from ssd_jax.ops.boxes import cxcywh_to_xyxy, pairwise_iou
from ssd_jax.ops.default_boxes import make_default_boxes

SIZE_EDGES = (16, 32, 64, 128)
"""Pixels of the network's input, of the square root of an object's area."""

PUBLISHED = {
    "SSD300, VOC's boxes": SSD300_VOC_BOXES,
    "SSD300, COCO's boxes": SSD300_COCO_BOXES,
    "SSD512, VOC's boxes": SSD512_VOC_BOXES,
    "SSD512, COCO's boxes": SSD512_COCO_BOXES,
}


class Coverage(NamedTuple):
    """Of some objects those out of reach."""

    objects: int
    unmatched: int
    """With no default box of the threshold's IoU."""

    def __str__(self) -> str:
        return f"{self.unmatched / self.objects:.1%}" if self.objects else "-"


def best_iou(boxes: Float[np.ndarray, "g 4"], layout: DefaultBoxes) -> Float[np.ndarray, " g"]:
    """The IoU of each box (xyxy, normalised, inside the image) with the default box that fits it best."""
    if layout.clip in ("none", "sizes"):
        return _best_by_shape(boxes, layout)
    return _best_of_all(boxes, layout)


def _best_of_all(boxes: Float[np.ndarray, "g 4"], layout: DefaultBoxes) -> Float[np.ndarray, " g"]:
    corners = cxcywh_to_xyxy(make_default_boxes(layout))
    best = np.zeros(len(boxes), np.float32)
    for start in range(0, len(boxes), 256):  # bounds the memory
        best[start : start + 256] = np.asarray(pairwise_iou(boxes[start : start + 256], corners)).max(axis=1)
    return best


def _best_by_shape(boxes: Float[np.ndarray, "g 4"], layout: DefaultBoxes) -> Float[np.ndarray, " g"]:
    """The same without a look at all n: of default boxes of one shape, whose union with an object falls as
    their intersection grows, none beats the one whose centre is nearest in x and in y."""
    centers, extents = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    best = np.zeros(len(boxes), np.float32)
    default_boxes, start = make_default_boxes(layout), 0
    for cells, per_cell in zip(layout.feature_maps, layout.boxes_per_cell, strict=True):
        stop = start + cells * cells * per_cell
        grid = default_boxes[start:stop].reshape(cells, cells, per_cell, 4)
        line = grid[0, :, 0, 0]  # of centres, the same in x and y
        gap = np.abs(centers[..., None] - line).min(axis=-1)
        for size in grid[0, 0, :, 2:]:
            shared = np.minimum((size + extents) / 2 - gap, np.minimum(size, extents)).clip(0).prod(axis=1)
            union = size.prod() + extents.prod(axis=1) - shared
            best = np.maximum(best, np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
        start = stop
    return best


def coverage_by_class(
    unmatched: Bool[np.ndarray, " g"], labels: Int32[np.ndarray, " g"], class_names: Sequence[str]
) -> dict[str, Coverage]:
    return {name: _share(unmatched[labels == label]) for label, name in enumerate(class_names, start=1)}


def size_bin(boxes: Float[np.ndarray, "g 4"], image_size: int) -> Int[np.ndarray, " g"]:
    """Position of each box among SIZE_EDGES, 0 to 4, at a network's input of image_size."""
    return np.searchsorted(SIZE_EDGES, np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) * image_size, side="right")


def coverage_by_size(unmatched: Bool[np.ndarray, " g"], bins: Int[np.ndarray, " g"]) -> dict[str, Coverage]:
    names = [f"below {SIZE_EDGES[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(SIZE_EDGES))]
    names.append(f"{SIZE_EDGES[-1]} and more")
    return {f"{name} px": _share(unmatched[bins == k]) for k, name in enumerate(names)}


def _share(unmatched: Bool[np.ndarray, " g"]) -> Coverage:
    return Coverage(len(unmatched), int(unmatched.sum()))


def compare_box_configs(boxes: Float[np.ndarray, "g 4"], threshold: float) -> dict[str, Coverage]:
    """The share out of reach of the published default boxes."""
    return {name: _share(best_iou(boxes, layout) < threshold) for name, layout in PUBLISHED.items()}


def advice(own: Coverage, others: Mapping[str, Coverage], boxes: Float[np.ndarray, "g 4"], layout: DefaultBoxes) -> str:
    """What to do about the share out of reach, in a sentence or two."""
    if not own.objects:
        return "There is nothing to say without objects."
    if own.unmatched <= 0.01 * own.objects:
        return "The default boxes fit this data set; nothing to change."
    better = {name: share for name, share in others.items() if share.unmatched <= 0.7 * own.unmatched}
    same_size = {n: s for n, s in better.items() if PUBLISHED[n].image_size <= layout.image_size}
    found = same_size or better
    if found:
        name = min(found, key=lambda n: (found[n].unmatched, PUBLISHED[n].count))
        cost = "" if name in same_size else ", at the cost of a larger input"
        return f"{name}, would leave {found[name]} of them out of reach{cost}: see the configs of that name."
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) * layout.image_size
    smallest, largest = min(layout.min_sizes), max(high or low for low, high in zip(
        layout.min_sizes, layout.max_sizes, strict=True))  # fmt: skip
    small, large = (float(np.mean(mask)) for mask in (sides < 0.7 * smallest, sides > 1.4 * largest))
    if max(small, large) * own.objects >= 0.5 * own.unmatched:
        where = f"smaller than the smallest default box ({smallest:g} px of {layout.image_size})"
        if large > small:
            where = f"larger than the largest default box ({largest:g} px of {layout.image_size})"
        return (
            f"{max(small, large):.1%} of the objects are well {where}: change model.default_boxes.min_sizes, or cut "
            "large photographs into tiles before labelling."
        )
    return (
        "No published layout fits much better. Long and narrow objects ask for further "
        "model.default_boxes.aspect_ratios; the picture of sizes shows where they lie."
    )
