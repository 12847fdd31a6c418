"""Detection of small objects in large images: detection in overlapping tiles, and one set of boxes from all of them.

A network sees a tile at a larger scale than the whole image. An object that a border of a tile cuts is seen whole in
the neighbouring tile if it is not larger than the overlap, and in the whole image otherwise. So the network is also
applied to the whole image, and `merge_tiles` takes each object from where it is seen whole and largest.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections

DetectViews = Callable[[Sequence[UInt8[np.ndarray, "_ _ 3"]]], Sequence[ImageDetections]]
"""A function that detects objects in images of different sizes, with boxes in pixels of each."""

TILE_OVERLAP = 0.2
"""Share of the side of a tile that neighbouring tiles have in common at least."""
MARGIN = 0.01
"""A box is cut if it is closer to an inner border of its tile than this share of the side of the tile. An edge that the
network predicts for a cut object lies a little inside of the border."""
CUT_RANK = 0.5
"""Factor of the score of a cut box where boxes are ordered for suppression. A box of the whole object is then kept in
place of the cut box even if its score is lower, but not if its score is so low that it is hardly an object."""
CUT_COVER = 0.5
"""A cut box is suppressed if more than this share of its area lies in a kept box of the same class."""


def check_tile_options(tile: int, overlap: float, prefix: str = "") -> None:
    """Raise an error if a tile has no pixels, or if neighbouring tiles would be the same.

    Args:
        tile: Side of a tile in pixels.
        overlap: Least share of the side that neighbouring tiles have in common.
        prefix: Text before the names of the arguments in the message: "--" for options of a command.

    Raises:
        UserError: If ``tile`` is below 1, or ``overlap`` is outside [0, 1).
    """
    if tile < 1:
        raise UserError(f"{prefix}tile is {tile}: expected the side of a tile in pixels, such as 640")
    if not 0 <= overlap < 1:
        raise UserError(f"{prefix}overlap is {overlap}: expected a share of the side of a tile, such as 0.2")


def make_tiles(width: int, height: int, tile: int, overlap: float = TILE_OVERLAP) -> Int32[np.ndarray, "t 4"]:
    """Return tiles that cover an image, row by row.

    The tiles are spread evenly, so that they overlap by more than the least overlap if it does not divide the image.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        tile: Side of a tile in pixels. If the image is smaller in a direction, so is the tile.
        overlap: Least share of the side that neighbouring tiles have in common, in [0, 1).

    Returns:
        Tiles as xyxy in pixels.
    """
    columns, rows = _place_tiles(width, tile, overlap), _place_tiles(height, tile, overlap)
    return np.array([(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns], np.int32)


def count_views(width: int, height: int, tile: int, overlap: float = TILE_OVERLAP) -> int:
    """Return the number of views of an image in which `detect_tiles` detects: the tiles, and the whole image.

    The arguments are those of `make_tiles`.
    """
    count = _count_tiles(width, tile, overlap) * _count_tiles(height, tile, overlap)
    return 1 if count == 1 else count + 1


def _count_tiles(length: int, tile: int, overlap: float) -> int:
    """Return the number of tiles along one side of an image."""
    step = max(1, math.floor(tile * (1 - overlap)))
    return 1 if length <= tile else math.ceil((length - tile) / step) + 1


def _place_tiles(length: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    """Return the start and end of tiles along one side of an image."""
    count = _count_tiles(length, tile, overlap)
    if count == 1:
        return [(0, length)]
    return [(start, start + tile) for start in np.linspace(0, length - tile, count).round().astype(int).tolist()]


def detect_tiles(
    detect_views: DetectViews,
    pixels: UInt8[np.ndarray, "h w 3"],
    tile: int,
    overlap: float = TILE_OVERLAP,
    iou_threshold: float = 0.45,
) -> ImageDetections:
    """Return the detections in the tiles of an image and in the whole image, merged by `merge_tiles`.

    Args:
        detect_views: Function that detects objects in a sequence of images.
        pixels: The image. If it is not larger than a tile, only the whole image is used.
        tile: Side of a tile in pixels.
        overlap: Least share of the side that neighbouring tiles have in common, in [0, 1).
        iou_threshold: Maximum IoU of two boxes of one class.

    Raises:
        UserError: As `check_tile_options`.
    """
    check_tile_options(tile, overlap)
    height, width = pixels.shape[:2]
    whole = np.array([[0, 0, width, height]], np.int32)
    if max(width, height) <= tile:
        (detections,) = detect_views([pixels])
        return detections
    views = np.concatenate([make_tiles(width, height, tile, overlap), whole])
    found = detect_views([pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in views.tolist()])
    return merge_tiles(found, views, iou_threshold)


def merge_tiles(
    detections: Sequence[ImageDetections], views: Int32[np.ndarray, "v 4"], iou_threshold: float = 0.45
) -> ImageDetections:
    """Return one set of detections from those in the tiles of an image and in the whole image.

    1. A box that is cut by an inner border of its tile is dropped if another tile contains it and does not cut it. So
       is each box from the whole image that a tile contains and does not cut.
    2. Greedy non-maximum suppression within each class. A cut box that is left is also suppressed if more than half of
       it lies in a kept box, because it is probably a part of this object. Cut boxes are considered later than others
       of the same score.

    Args:
        detections: Detections in each view, in pixels of the view.
        views: The tiles, and the whole image as the last view, as xyxy in pixels of the image.
        iou_threshold: A box is suppressed if its IoU with a kept box of its class is above this value.

    Returns:
        The detections in pixels of the image, best first. Equal scores are in the order of the views.
    """
    view = np.repeat(np.arange(len(views)), [len(found.scores) for found in detections])
    boxes = np.concatenate([found.boxes_px for found in detections]) + np.tile(views[view, :2], 2).astype(np.float32)
    scores = np.concatenate([found.scores for found in detections])
    labels = np.concatenate([found.labels for found in detections])
    cut = _find_cut(boxes, views[view], views[-1])
    seen_whole = np.zeros(len(boxes), bool)
    for tile in views[:-1]:
        seen_whole |= ~_find_cut(boxes, tile, views[-1])
    kept = np.flatnonzero(~(seen_whole & (cut | (view == len(views) - 1))))
    kept = kept[_suppress(boxes[kept], scores[kept], labels[kept], cut[kept], iou_threshold)]
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return ImageDetections(boxes[kept], scores[kept], labels[kept])


def _find_cut(
    boxes: Float32[np.ndarray, "k 4"], tiles: Int32[np.ndarray, "*boxes 4"], image: Int32[np.ndarray, "4"]
) -> Bool[np.ndarray, " k"]:
    """Return which boxes touch or cross a border of a tile that is not a border of the image.

    Args:
        boxes: Boxes inside of the image.
        tiles: A tile for all boxes, or one for each box.
        image: The whole image.
    """
    margin = MARGIN * (tiles[..., 2:] - tiles[..., :2])
    low = (tiles[..., :2] > image[:2]) & (boxes[:, :2] < tiles[..., :2] + margin)
    high = (tiles[..., 2:] < image[2:]) & (boxes[:, 2:] > tiles[..., 2:] - margin)
    return (low | high).any(axis=1)


def _suppress(
    boxes: Float32[np.ndarray, "k 4"],
    scores: Float32[np.ndarray, " k"],
    labels: Int32[np.ndarray, " k"],
    cut: Bool[np.ndarray, " k"],
    iou_threshold: float,
) -> Int64[np.ndarray, " n"]:
    """Return the positions of the boxes that suppression keeps, in ascending order. See `merge_tiles`."""
    kept: list[int] = []
    order = np.argsort(-scores * np.where(cut, CUT_RANK, 1), kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64)
    for label in np.unique(labels):
        rest = order[labels[order] == label]
        while len(rest):
            best, rest = rest[0], rest[1:]
            kept.append(int(best))
            low, high = np.maximum(boxes[rest, :2], boxes[best, :2]), np.minimum(boxes[rest, 2:], boxes[best, 2:])
            common = np.prod(np.maximum(high - low, 0), axis=1, dtype=np.float64)
            is_same = common > iou_threshold * (areas[rest] + areas[best] - common)
            is_part = cut[rest] & (common > CUT_COVER * areas[rest])
            rest = rest[~(is_same | is_part)]
    return np.sort(np.array(kept, np.int64))
