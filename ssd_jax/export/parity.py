"""Comparison of an exported file with the network that it was made from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssd_jax.config import Config
from ssd_jax.data.check.box_coverage import pairwise_iou
from ssd_jax.exported.metadata import Parity
from ssd_jax.inference.detections import ImageDetections

BOX_TOLERANCE = 0.1
"""Largest difference of a coordinate of a box that a file may have, in pixels."""
SCORE_TOLERANCE = 1e-4
"""Largest difference of a score that a file may have."""
OVERLAP_TOLERANCE = 1e-5
"""Difference of an IoU from the threshold of non-maximum suppression that is rounding."""


class Pairs(NamedTuple):
    """Detections of one image by two programs, paired."""

    first: list[int]
    """Indices of detections of the first program."""
    second: list[int]
    """Index of the detection of the second program for each of them."""


def pair_detections(first: ImageDetections, second: ImageDetections) -> Pairs:
    """Pair the detections of one image by two programs, the best first.

    A detection of the first program gets the detection of the same class, among those that have no partner yet, whose
    score and box are closest. The coordinates of a pair differ by at most a pixel, or a tenth of the box's longer side.
    """
    free = np.ones(len(second.scores), bool)
    pairs = Pairs([], [])
    for index, (box, score, label) in enumerate(zip(*first, strict=True)):
        difference = np.abs(second.boxes_px - box).max(axis=1)
        limit = max(1.0, 0.1 * max(box[2:] - box[:2]))
        candidates = np.flatnonzero(free & (second.labels == label) & (difference <= limit))
        if len(candidates):
            distance = difference[candidates] / BOX_TOLERANCE
            distance += np.abs(second.scores[candidates] - score) / SCORE_TOLERANCE
            best = int(candidates[np.argmin(distance)])
            free[best] = False
            pairs.first.append(index)
            pairs.second.append(best)
    return pairs


def compare_detections(
    originals: Sequence[ImageDetections], others: Sequence[ImageDetections], config: Config
) -> Parity:
    """Compare the detections of two programs in the same images.

    Args:
        originals: Detections of the original in each image.
        others: Detections of the file in each image.
        config: Config with the score threshold and the largest number of detections of both.
    """
    boxes = scores = 0.0
    alone = near = 0
    same_order = True
    for original, other in zip(originals, others, strict=True):
        pairs = pair_detections(original, other)
        if pairs.first:
            boxes = max(boxes, _max_difference(original.boxes_px[pairs.first], other.boxes_px[pairs.second]))
            scores = max(scores, _max_difference(original.scores[pairs.first], other.scores[pairs.second]))
        same_order &= pairs.first == pairs.second and len(pairs.first) == len(original.scores) == len(other.scores)
        for mine, its, paired in ((original, other, pairs.first), (other, original, pairs.second)):
            for index in sorted(set(range(len(mine.scores))) - set(paired)):
                is_near = _is_near_tie(index, mine, its, config)
                near += is_near
                alone += not is_near
    count = sum(len(image.scores) for image in originals)
    return Parity(
        pictures=len(originals), detections=count, boxes=boxes, scores=scores, alone=alone, near=near,
        same_order=same_order,
    )  # fmt: skip


def is_within_tolerance(parity: Parity) -> bool:
    """Return whether a file computes the same as the original, except for rounding."""
    return parity.boxes <= BOX_TOLERANCE and parity.scores <= SCORE_TOLERANCE and parity.alone == 0


def format_parity(parity: Parity, *, is_int8: bool = False) -> str:
    """Return a comparison in one line.

    Args:
        parity: The comparison.
        is_int8: Whether the file computes with integers of 8 bits, so that its scores differ by more than rounding.
    """
    logits = "" if parity.logits is None else f"logits {parity.logits:.2g}, "
    order = "the same detections in the same order" if parity.same_order else "the same detections"
    if is_int8:
        order = f"{parity.alone + parity.near} detections of only one of them"
    elif parity.alone or parity.near:
        order = f"{parity.alone} detections of only one of them"
        if parity.near:
            order += f", and {parity.near} more that rounding decides about"
    return (
        f"{parity.detections} detections in {parity.pictures} pictures; largest differences: {logits}"
        f"boxes {parity.boxes:.2g} px, scores {parity.scores:.2g}; {order}"
    )


def _is_near_tie(index: int, mine: ImageDetections, its: ImageDetections, config: Config) -> bool:
    """Return whether rounding decides about a detection that only one program kept.

    That is so if its score equals another one or the threshold, or if its overlap with a detection of its class equals
    the threshold of non-maximum suppression.

    Another score is that of a detection of the same class, or that of the other program's last detection if it has the
    largest number of detections.
    """
    limits = [config.detect.score_threshold]
    same_class = mine.labels == mine.labels[index]
    same_class[index] = False
    limits += [*mine.scores[same_class], *its.scores[its.labels == mine.labels[index]]]
    if len(its.scores) == config.detect.max_detections:
        limits.append(its.scores[-1])
    if np.min(np.abs(np.array(limits) - mine.scores[index])) <= SCORE_TOLERANCE:
        return True
    others = np.concatenate([mine.boxes_px[same_class], its.boxes_px[its.labels == mine.labels[index]]])
    overlaps = pairwise_iou(mine.boxes_px[index, None], others)
    return bool((np.abs(overlaps - config.detect.nms_iou_threshold) <= OVERLAP_TOLERANCE).any())


def _max_difference(a: Any, b: Any) -> float:
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
