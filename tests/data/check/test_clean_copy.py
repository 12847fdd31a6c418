"""Tests of corrected copies of data sets. The expected objects are found with a loop over all pairs of boxes."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from ssd_jax.data.check import clean_copy
from ssd_jax.data.check.clean_copy import SAME_IOU, CopyCount, check_copy_folder, write_clean_copy
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.errors import UserError

CLASSES = ("cat", "dog")
SIZE = (100, 80)


def make_source(folder, images):
    """Return a source of PNG images from a dict from (stem, seed of the pixels) to a list of (label, box)."""
    annotations = []
    for (stem, seed), objects in images.items():
        file = folder / f"{stem}.png"
        pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
        Image.fromarray(pixels).save(file)
        boxes, labels = [box for _, box in objects], [label for label, _ in objects]
        annotations.append(make_annotation(stem, str(file), SIZE, boxes, labels))
    return FolderSource(annotations, CLASSES)


def write_copy(tmp_path, sources):
    """Write a copy in which images have the digest of their pixels, and return its counts."""
    files = [annotation.file for source in sources.values() for annotation in source.annotations()]
    digests = {file: np.asarray(Image.open(file)).tobytes() for file in files}
    return write_clean_copy(tmp_path / "copy", sources, digests, lambda images: None)


def read_objects(folder, split):
    """Return a dict from the stem of each image of a copy to the sorted list of its (label, box)."""
    content = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    stems = {image["id"]: image["file_name"].removesuffix(".png") for image in content["images"]}
    objects = {stem: [] for stem in stems.values()}
    for entry in content["annotations"]:
        left, top, width, height = entry["bbox"]
        objects[stems[entry["image_id"]]].append((entry["category_id"], (left, top, left + width, top + height)))
    return {stem: sorted(own) for stem, own in objects.items()}


def compute_iou(a, b):
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    intersection = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return intersection / (sum(areas) - intersection)


def draw_objects(rng, count):
    """Return random objects whose boxes are on a grid of 10 px, so that boxes of different classes rarely overlap."""
    corners = rng.permutation([(10 * x, 10 * y) for x in range(9) for y in range(7)])[:count].astype(float)
    return [(int(rng.integers(1, 3)), (x, y, x + 10.0, y + 10.0)) for x, y in corners]


def move_boxes(objects, offset):
    return [(label, (x1 + offset, y1, x2 + offset, y2)) for label, (x1, y1, x2, y2) in objects]


@pytest.mark.parametrize("seed", range(5))
def test_write_clean_copy_keeps_each_object_of_images_with_equal_pixels_once(tmp_path, seed):
    """Spread the objects of an image over three files in two splits, with some repeated at a small or large offset."""
    rng = np.random.default_rng(seed)
    objects = draw_objects(rng, 12)
    val = objects[:5]
    first = objects[4:9] + move_boxes(objects[:2], 0.25)  # IoU 0.95 with boxes of val
    second = objects[8:] + move_boxes(objects[2:4], 2.0)  # IoU 0.67, so these are other objects
    other = draw_objects(rng, 3)
    sources = {
        "train": make_source(tmp_path, {("a", 1): first, ("b", 1): second, ("other", 2): other}),
        "val": make_source(tmp_path, {("c", 1): val}),
    }
    counts = write_copy(tmp_path, sources)
    expected: list = []
    for label, box in [*val, *first, *second]:
        if not any(label == other and compute_iou(box, b) > SAME_IOU for other, b in expected):
            expected.append((label, box))
    assert len(expected) == 14
    assert read_objects(tmp_path / "copy", "val") == {"c": sorted(expected)}
    assert read_objects(tmp_path / "copy", "train") == {"other": sorted(other)}
    assert counts == {"train": CopyCount(1, 3, 2, 0, 0), "val": CopyCount(1, 14, 0, 0, 0)}


def test_write_clean_copy_joins_two_records_of_one_file(tmp_path):
    boxes = [(k, k, k + 20.0, k + 20.0) for k in (0.0, 10.0, 30.0)]
    source = make_source(tmp_path, {("a", 1): [(1, boxes[0]), (2, boxes[1])]})
    second = make_annotation("a2", source.annotation(0).file, SIZE, [boxes[2], boxes[1]], [1, 2])
    write_copy(tmp_path, {"train": FolderSource([source.annotation(0), second], CLASSES)})
    assert read_objects(tmp_path / "copy", "train") == {"a": sorted([(1, boxes[0]), (2, boxes[1]), (1, boxes[2])])}


def test_write_clean_copy_counts_the_objects_of_unusable_images(tmp_path):
    source = make_source(tmp_path, {("a", 1): [(1, (0, 0, 9, 9))], ("b", 2): [(1, (0, 0, 9, 9)), (2, (5, 5, 9, 9))]})
    usable = {source.annotation(0).file: b"a"}
    counts = write_clean_copy(tmp_path / "copy", {"train": source}, usable, lambda images: None)
    assert counts == {"train": CopyCount(1, 1, 0, 1, 2)}


def test_write_clean_copy_rejects_equal_images_with_contradictory_classes(tmp_path):
    box = (10.0, 10.0, 50.0, 50.0)
    source = make_source(tmp_path, {("a", 1): [(1, box)], ("b", 1): [(2, box)]})
    with pytest.raises(UserError, match=r"b\.png.*a\.png.*'dog'.*'cat'"):
        write_copy(tmp_path, {"train": source})
    assert not (tmp_path / "copy").exists()


def test_write_clean_copy_joins_images_in_which_a_box_has_two_classes(tmp_path):
    box = (10.0, 10.0, 50.0, 50.0)
    source = make_source(tmp_path, {("a", 1): [(1, box)], ("b", 1): [(1, box), (2, box)]})
    write_copy(tmp_path, {"train": source})
    assert read_objects(tmp_path / "copy", "train") == {"a": [(1, box), (2, box)]}


def test_write_clean_copy_rejects_splits_with_the_same_images(tmp_path):
    train, val = (make_source(tmp_path, {(stem, 1): [(1, (0, 0, 9, 9))]}) for stem in "ab")
    with pytest.raises(UserError, match=r"'train'"):
        write_copy(tmp_path, {"train": train, "val": val})
    assert not (tmp_path / "copy").exists()


def test_write_clean_copy_calls_progress_once_for_each_image(tmp_path):
    images = {(f"{k}", k % 3): [(1, (0, 0, 9, 9))] for k in range(5)}
    source, done = make_source(tmp_path, images), []
    digests = {annotation.file: f"{k % 3}".encode() for k, annotation in enumerate(source.annotations())}
    write_clean_copy(tmp_path / "copy", {"train": source}, dict(itertools.islice(digests.items(), 4)), done.append)
    assert sum(done) == 5


@pytest.mark.parametrize("exists", [True, False])
def test_failed_copy_is_removed_so_that_the_same_command_works_again(exists, tmp_path, monkeypatch):
    sources = {"train": make_source(tmp_path, {("a", 1): [(1, (1, 1, 9, 9))], ("b", 2): []})}
    if exists:
        (tmp_path / "copy").mkdir()
    with monkeypatch.context() as patch:

        def fail(*args):
            raise OSError(28, "No space left on device")

        patch.setattr(clean_copy.shutil, "copyfile", fail)
        with pytest.raises(UserError, match="No space left"):
            write_copy(tmp_path, sources)
    assert (tmp_path / "copy").exists() == exists
    check_copy_folder(tmp_path / "copy", tmp_path / "other")
    assert write_copy(tmp_path, sources)["train"].images == 2
