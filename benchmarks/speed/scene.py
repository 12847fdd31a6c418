"""What both libraries are given: pictures, objects, what a trained network might say of them, detections of a data set.

Made once, with a seed, and written to files that both read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.speed.works import BATCH
from ssd_jax.config import DefaultBoxes
from ssd_jax.ops.boxes import cxcywh_to_xyxy
from ssd_jax.ops.default_boxes import make_default_boxes

SIDE, HEIGHT, WIDTH = 300, 375, 500
OBJECTS = 4
COCO_IMAGES, COCO_DETECTIONS, COCO_CLASSES = 5000, 100, 80


def write_scene(folder: Path, batch: int = BATCH) -> None:
    random = np.random.default_rng(0)
    boxes, labels = random_objects(random, batch, OBJECTS, 20)
    pictures = [picture(random) for _ in range(batch)]
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{number:03}.jpg", quality=90)
    arrays = {"pictures": np.stack(pictures), "boxes": boxes, "labels": labels}
    arrays["images"] = random.integers(0, 256, (batch, SIDE, SIDE, 3), np.uint8)
    for classes in (21, 91):
        offsets, logits = network_output(random, batch, classes)
        arrays |= {f"offsets_{classes}": offsets, f"logits_{classes}": logits}
    np.savez(folder / "scene.npz", **arrays)  # type: ignore[arg-type]


def write_photograph(folder: Path) -> None:
    """Of twelve megapixels, as telephones take them; with fine noise, for as many bytes."""
    pixels = picture(np.random.default_rng(2), 3000, 4000, (*SCALES, (2048, 6)))
    Image.fromarray(pixels).save(folder / "photograph.jpeg", quality=90)


SCALES = (4, 60), (16, 40), (64, 20), (256, 8)


def picture(
    random: np.random.Generator,
    height: int = HEIGHT,
    width: int = WIDTH,
    scales: Sequence[tuple[int, float]] = SCALES,
) -> np.ndarray:
    """As smooth as a photograph: noise of so many cells a side and such a weight."""
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in scales:
        noise = random.normal(0, weight, (cells, cells, 3)) + 128 / len(scales)
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel].astype(np.float32))
            total[..., channel] += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(total, 0, 255).astype(np.uint8)


def random_objects(random: np.random.Generator, images: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (images, count, 4), xyxy, normalised, a tenth to six tenths of a side long; labels 1..classes."""
    extent = random.uniform(0.1, 0.6, (images, count, 2))
    corner = random.uniform(0, 1, (images, count, 2)) * (1 - extent)
    boxes = np.concatenate([corner, corner + extent], axis=2).astype(np.float32)
    return boxes, random.integers(1, classes + 1, (images, count))


def network_output(random: np.random.Generator, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and logits as of a trained SSD300: sure of the default boxes that overlap one of eight objects well, in
    doubt about some others, and elsewhere background by far."""
    defaults = np.asarray(cxcywh_to_xyxy(make_default_boxes(DefaultBoxes())))
    boxes, labels = random_objects(random, images, 8, classes - 1)
    logits = random.normal(0, 1, (images, len(defaults), classes)).astype(np.float32)
    logits[..., 0] += 8
    for image in range(images):
        for box, label in zip(boxes[image], labels[image], strict=True):
            logits[image, :, label] += 14 * overlap(box, defaults)
    offsets = random.normal(0, 0.5, (images, len(defaults), 4)).astype(np.float32)
    return offsets, logits


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    inner = np.prod(np.maximum(0, np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])), axis=1)
    return inner / (np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - inner)


def write_coco(folder: Path) -> None:
    """5,000 images with 7 objects of 80 classes each, and 100 detections, of which some are right."""
    random = np.random.default_rng(1)
    objects, found = [], []
    for image in range(1, COCO_IMAGES + 1):
        (boxes,), (labels,) = random_objects(random, 1, 7, COCO_CLASSES)
        boxes = boxes * [640, 480, 640, 480]
        objects += [as_coco(image, box, label, {}) for box, label in zip(boxes, labels, strict=True)]
        near = random.integers(0, 7, COCO_DETECTIONS)
        moved = boxes[near] + random.normal(0, 1, (COCO_DETECTIONS, 4)) * random.choice(
            [2, 20, 100], (COCO_DETECTIONS, 1)
        )
        moved = np.concatenate([moved[:, :2], np.maximum(moved[:, 2:], moved[:, :2] + 1)], axis=1)
        guess = np.where(
            random.random(COCO_DETECTIONS) < 0.5, labels[near], random.integers(1, COCO_CLASSES + 1, COCO_DETECTIONS)
        )
        scores = random.random(COCO_DETECTIONS)
        found += [as_coco(image, b, c, {"score": float(s)}) for b, c, s in zip(moved, guess, scores, strict=True)]
    for number, entry in enumerate(objects, start=1):
        entry |= {"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
    images = [{"id": i, "width": 640, "height": 480, "file_name": f"{i}.jpg"} for i in range(1, COCO_IMAGES + 1)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, COCO_CLASSES + 1)]
    truth = {"images": images, "annotations": objects, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))


def as_coco(image: int, box: np.ndarray, label: int, more: dict[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(x) for x in box)
    return {"image_id": image, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1]} | more
