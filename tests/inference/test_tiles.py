"""Tests of detection in tiles, against slow and obvious code."""

import numpy as np
import pytest

from ssd_jax.errors import UserError
from ssd_jax.inference import tiles
from ssd_jax.inference.detections import NO_DETECTIONS, ImageDetections


def make_found(*rows):
    """Return detections from rows of x1, y1, x2, y2, score and label."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return ImageDetections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


@pytest.mark.parametrize("size", [(640, 480), (641, 480), (1000, 1000), (2560, 1920), (3000, 100), (1, 1)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_tiles_cover_the_image_and_overlap(size, overlap):
    width, height = size
    made = tiles.make_tiles(width, height, 640, overlap)
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in made:
        assert (x2 - x1, y2 - y1) == (min(640, width), min(640, height))
        covered[y1:y2, x1:x2] = True
    assert covered.all() and made.min() == 0 and made.max(axis=0)[2:].tolist() == [width, height]
    for axis in (0, 1):
        starts = np.unique(made[:, axis])
        assert (np.diff(starts) <= 640 * (1 - overlap) + 1).all()
    assert len(made) == len(np.unique(made, axis=0))


def test_image_that_is_not_larger_than_a_tile_is_one_view():
    views = []

    def detect(images):
        views.extend(image.shape[:2] for image in images)
        return [NO_DETECTIONS] * len(images)

    tiles.detect_tiles(detect, np.zeros((100, 128, 3), np.uint8), 128)
    assert views == [(100, 128)]
    tiles.detect_tiles(detect, np.zeros((100, 129, 3), np.uint8), 128)
    assert views[1:] == [(100, 128), (100, 128), (100, 129)]


def test_boxes_of_a_tile_are_moved_to_their_place_in_the_image():
    """A detector of bright pixels finds each of three dots once, although two of them are in several tiles."""
    image = np.zeros((300, 400, 3), np.uint8)
    dots = [(20, 30), (110, 130), (395, 295)]
    for x, y in dots:
        image[y : y + 4, x : x + 4] = 255

    def detect(images):
        found = []
        for pixels in images:
            rows = [(x - 3, y - 3, x + 1, y + 1, 0.9, 1) for y, x in np.argwhere(_is_last_of_dot(pixels))]
            found.append(make_found(*rows))
        return found

    merged = tiles.detect_tiles(detect, image, 128, 0.3)
    assert sorted(map(tuple, merged.boxes_px[:, :2].astype(int).tolist())) == dots


def _is_last_of_dot(pixels):
    """Return which pixels are the lower right ones of a bright square of 4 x 4 px that is wholly in the image."""
    bright = pixels[..., 0] > 0
    last = np.zeros_like(bright)
    for y in range(3, bright.shape[0]):
        for x in range(3, bright.shape[1]):
            last[y, x] = bright[y - 3 : y + 1, x - 3 : x + 1].all()
    return last


VIEWS = np.array([[0, 0, 100, 100], [80, 0, 180, 100], [0, 0, 180, 100]], np.int32)


def test_cut_box_is_dropped_where_another_tile_sees_the_whole_object():
    """The object from 85 to 110 ends behind the first tile, and lies inside of the second one."""
    left, right = make_found([85, 10, 100, 30, 0.99, 1]), make_found([5, 10, 30, 30, 0.6, 1])
    merged = tiles.merge_tiles([left, right, NO_DETECTIONS], VIEWS)
    assert merged.boxes_px.tolist() == [[85, 10, 110, 30]] and merged.scores.tolist() == [np.float32(0.6)]


def test_object_larger_than_the_overlap_is_taken_from_the_whole_image():
    """Its parts in both tiles are dropped, although their scores are higher."""
    left, right = make_found([20, 10, 100, 60, 0.9, 1]), make_found([0, 10, 90, 60, 0.8, 1])
    whole = make_found([20, 10, 170, 60, 0.7, 1])
    merged = tiles.merge_tiles([left, right, whole], VIEWS)
    assert merged.boxes_px.tolist() == [[20, 10, 170, 60]]


def test_part_is_kept_if_the_box_of_the_whole_is_hardly_an_object_or_of_another_class():
    left = make_found([20, 10, 100, 60, 0.9, 1])
    for score, label in ((0.05, 1), (0.7, 2)):
        merged = tiles.merge_tiles([left, NO_DETECTIONS, make_found([20, 10, 170, 60, score, label])], VIEWS)
        assert [20, 10, 100, 60] in merged.boxes_px.tolist()


def test_box_of_the_whole_image_is_dropped_where_a_tile_sees_the_object():
    tile, whole = make_found([20, 10, 40, 30, 0.5, 1]), make_found([18, 8, 45, 33, 0.9, 1])
    merged = tiles.merge_tiles([tile, NO_DETECTIONS, whole], VIEWS)
    assert merged.boxes_px.tolist() == [[20, 10, 40, 30]]


def test_box_at_the_border_of_the_image_is_not_cut():
    left = make_found([0, 0, 30, 100, 0.9, 1])
    assert len(tiles.merge_tiles([left, NO_DETECTIONS, NO_DETECTIONS], VIEWS).scores) == 1


def merge_slowly(detections, views, iou_threshold):
    """Merge with loops over single boxes, in exact arithmetic where it matters."""
    image = views[-1].tolist()

    def is_cut(box, view):
        x1, y1, x2, y2 = view.tolist()
        dx, dy = 0.01 * (x2 - x1), 0.01 * (y2 - y1)
        return (
            (x1 > image[0] and box[0] < x1 + dx) or (y1 > image[1] and box[1] < y1 + dy)
            or (x2 < image[2] and box[2] > x2 - dx) or (y2 < image[3] and box[3] > y2 - dy)
        )  # fmt: skip

    def area(box):
        return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])

    rows = []
    for number, (found, view) in enumerate(zip(detections, views, strict=True)):
        for box, score, label in zip(*found, strict=True):
            moved = (box + np.float32([view[0], view[1], view[0], view[1]])).tolist()
            is_whole_image = number == len(views) - 1
            cut = not is_whole_image and is_cut(moved, view)
            seen = any(not is_cut(moved, other) for other in views[:-1])
            if not (seen and (cut or is_whole_image)):
                rows.append((float(score) * (0.5 if cut else 1.0), cut, moved, float(score), int(label)))
    kept = []
    for row in sorted(rows, key=lambda row: -row[0]):
        _, cut, box, _, label = row
        for other in kept:
            common = area([*map(max, box[:2], other[2][:2]), *map(min, box[2:], other[2][2:])])
            union = area(box) + area(other[2]) - common
            if other[4] == label and (common > iou_threshold * union or (cut and common > 0.5 * area(box))):
                break
        else:
            kept.append(row)
    return sorted((row[2:] for row in kept), key=lambda row: -row[1])


@pytest.mark.parametrize("seed", range(8))
def test_merge_tiles_equals_a_slow_merge(seed):
    rng = np.random.default_rng(seed)
    width, height = rng.integers(150, 400, 2).tolist()
    views = np.concatenate([tiles.make_tiles(width, height, 128, 0.25), np.array([[0, 0, width, height]], np.int32)])
    found = []
    for x1, y1, x2, y2 in views:
        count = int(rng.integers(0, 30))
        corners = np.sort(rng.uniform(-10, 1.05 * (x2 - x1), (count, 2, 2)), axis=1)
        boxes = np.clip(corners.reshape(count, 4), 0, [x2 - x1, y2 - y1] * 2).astype(np.float32)
        scores = rng.permutation(1000)[:count].astype(np.float32) / 1000
        found.append(ImageDetections(boxes, scores, rng.integers(1, 3, count).astype(np.int32)))
    merged = tiles.merge_tiles(found, views, 0.4)
    expected = merge_slowly(found, views, 0.4)
    assert 0 < len(expected) < sum(len(one.scores) for one in found)
    for label in (1, 2):
        rows = [(box, score) for box, score, other in expected if other == label]
        chosen = merged.labels == label
        assert merged.scores[chosen].tolist() == [score for _, score in rows]
        assert sorted(merged.boxes_px[chosen].tolist()) == sorted(box for box, _ in rows)


@pytest.mark.parametrize("tile, overlap", [(0, 0.2), (64, 1.0), (64, -0.1)])
def test_detect_tiles_rejects_impossible_tiles(tile, overlap):
    with pytest.raises(UserError, match="tile"):
        tiles.detect_tiles(lambda images: [], np.zeros((200, 200, 3), np.uint8), tile, overlap)
