"""Generate inputs for ssd-jax and torchvision: images, objects, network outputs, and detections of a data set.

The inputs are generated from a seed and written to files that the tasks of both packages read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.speed.tasks import BATCH
from ssd_jax.config import DefaultBoxes
from ssd_jax.ops.boxes import cxcywh_to_xyxy
from ssd_jax.ops.default_boxes import make_default_boxes

SIDE, HEIGHT, WIDTH = 300, 375, 500
OBJECTS = 4
COCO_IMAGES, COCO_DETECTIONS, COCO_CLASSES = 5000, 100, 80


def write_scene(folder: Path, batch: int = BATCH) -> None:
    """Write ``batch`` random images as JPEG files, and all arrays of the scene to scene.npz."""
    random = np.random.default_rng(0)
    boxes, labels = make_random_objects(random, batch, OBJECTS, 20)
    photos = [make_random_image(random) for _ in range(batch)]
    for number, pixels in enumerate(photos):
        Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=90)
    arrays = {"photos": np.stack(photos), "boxes": boxes, "labels": labels}
    arrays["images"] = random.integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8)
    for classes in (21, 91):
        offsets, logits = make_network_output(random, batch, classes)
        arrays |= {f"offsets_{classes}": offsets, f"logits_{classes}": logits}
    np.savez(folder / "scene.npz", **arrays)  # type: ignore[arg-type]


def write_large_photo(folder: Path) -> None:
    """Write an image of 4000 x 3000 pixels. Fine noise makes the file as large as a photo from a phone."""
    pixels = make_random_image(np.random.default_rng(2), 3000, 4000, (*SCALES, (2048, 6)))
    Image.fromarray(pixels).save(folder / "large_photo.jpeg", quality=90)


SCALES = (4, 60), (16, 40), (64, 20), (256, 8)
"""Noise of a random image, as pairs: the number of cells along each side, and the standard deviation."""


def make_random_image(
    random: np.random.Generator,
    height: int = HEIGHT,
    width: int = WIDTH,
    scales: Sequence[tuple[int, float]] = SCALES,
) -> np.ndarray:
    """Return a random image (height, width, 3), uint8, that is about as smooth as a photo.

    The image is a sum of interpolated noise; ``scales`` has the cells per side and the standard deviation of each term.
    """
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in scales:
        noise = random.normal(0, weight, (cells, cells, 3)) + 128 / len(scales)
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel].astype(np.float32))
            total[..., channel] += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(total, 0, 255).astype(np.uint8)


def make_random_objects(
    random: np.random.Generator, images: int, count: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return random boxes (images, count, 4) and labels (images, count).

    Boxes are normalised xyxy with sides of 0.1 to 0.6; labels are from 1 to ``classes``.
    """
    extent = random.uniform(0.1, 0.6, (images, count, 2))
    corner = random.uniform(0, 1, (images, count, 2)) * (1 - extent)
    boxes = np.concatenate([corner, corner + extent], axis=2).astype(np.float32)
    return boxes, random.integers(1, classes + 1, (images, count))


def make_network_output(random: np.random.Generator, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets and logits like those of a trained SSD300.

    Each image has eight objects. Default boxes with a high IoU with an object have high scores, some others have
    medium scores, and all others are clearly background.
    """
    defaults = np.asarray(cxcywh_to_xyxy(make_default_boxes(DefaultBoxes())))
    boxes, labels = make_random_objects(random, images, 8, classes - 1)
    logits = random.normal(0, 1, (images, len(defaults), classes)).astype(np.float32)
    logits[..., 0] += 8
    for image in range(images):
        for box, label in zip(boxes[image], labels[image], strict=True):
            logits[image, :, label] += 14 * compute_iou(box, defaults)
    offsets = random.normal(0, 0.5, (images, len(defaults), 4)).astype(np.float32)
    return offsets, logits


def compute_iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the IoU of a box with each of ``boxes``."""
    inner = np.prod(np.maximum(0, np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])), axis=1)
    return inner / (np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - inner)


def write_coco(folder: Path) -> None:
    """Write the annotations of 5,000 images with 7 objects each, and 100 detections per image, in COCO's format.

    There are 80 classes. Some of the detections are correct. No image files are written.
    """
    random = np.random.default_rng(1)
    objects, detections = [], []
    for image in range(1, COCO_IMAGES + 1):
        (boxes,), (labels,) = make_random_objects(random, 1, 7, COCO_CLASSES)
        boxes = boxes * [640, 480, 640, 480]
        objects += [make_coco_entry(image, box, label, {}) for box, label in zip(boxes, labels, strict=True)]
        near = random.integers(0, 7, COCO_DETECTIONS)
        moved = boxes[near] + random.normal(0, 1, (COCO_DETECTIONS, 4)) * random.choice(
            [2, 20, 100], (COCO_DETECTIONS, 1)
        )
        moved = np.concatenate([moved[:, :2], np.maximum(moved[:, 2:], moved[:, :2] + 1)], axis=1)
        guess = np.where(
            random.random(COCO_DETECTIONS) < 0.5, labels[near], random.integers(1, COCO_CLASSES + 1, COCO_DETECTIONS)
        )
        scores = random.random(COCO_DETECTIONS)
        detections += [
            make_coco_entry(image, b, c, {"score": float(s)}) for b, c, s in zip(moved, guess, scores, strict=True)
        ]
    for number, entry in enumerate(objects, start=1):
        entry |= {"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
    images = [{"id": i, "width": 640, "height": 480, "file_name": f"{i}.jpg"} for i in range(1, COCO_IMAGES + 1)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, COCO_CLASSES + 1)]
    truth = {"images": images, "annotations": objects, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "detections.json").write_text(json.dumps(detections))


def make_coco_entry(image: int, box: np.ndarray, label: int, extra_fields: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation or a detection in COCO's format, for a box as xyxy in pixels."""
    x1, y1, x2, y2 = (float(x) for x in box)
    return {"image_id": image, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1]} | extra_fields
