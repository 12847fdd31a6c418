"""Annotations and detections of small splits, for the tests of metrics."""

import numpy as np

from ssd_jax.data.source import Annotation, make_annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.voc_matching import ScoredBoxes, TrueBoxes


def make_test_annotation(boxes=(), labels=(), difficult=None, crowd=None) -> Annotation:
    lists = (None if part is None else np.asarray(part).tolist() for part in (boxes, labels, difficult, crowd))
    return make_annotation("a", "a.jpg", (640, 480), *lists)


def make_image_detections(*rows) -> ImageDetections:
    """Return the detections of an image from rows of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return ImageDetections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int32)
    )


def make_random_split(seed: int, images: int = 12) -> tuple[list[ImageDetections], list[Annotation]]:
    """Return random detections and annotations with integer coordinates and different scores.

    IoUs near the threshold are common.
    """
    rng = np.random.default_rng(seed)
    detections, annotations = [], []
    scores = iter(rng.permutation(images * 12) / (images * 12))
    for _ in range(images):
        g = rng.integers(0, 6)
        corner = rng.integers(0, 40, (g, 2))
        boxes = np.concatenate([corner, corner + rng.integers(5, 20, (g, 2))], 1)
        labels = rng.integers(1, 4, g)
        annotations.append(make_test_annotation(boxes, labels, rng.random(g) < 0.25, rng.random(g) < 0.1))
        copies = rng.integers(0, g, 8) if g else np.zeros(0, int)
        noise = rng.integers(0, 40, (4, 2))
        near = boxes[copies] + rng.integers(-2, 3, (len(copies), 4))
        of = np.where(rng.random(len(copies)) < 0.7, labels[copies], rng.integers(1, 4, len(copies)))
        rows = [
            *zip(near, of, strict=True),
            *zip(np.concatenate([noise, noise + 9], 1), rng.integers(1, 4, 4), strict=True),
        ]
        detections.append(make_image_detections(*((box, next(scores), label) for box, label in rows)))
    return detections, annotations


def select_class(
    label: int, detections: list[ImageDetections], annotations: list[Annotation]
) -> tuple[list[ScoredBoxes], list[TrueBoxes]]:
    """Return the detections and the objects of one class in each image. Difficult objects and crowds are ignored."""
    selected = [ScoredBoxes(d.boxes_px[d.labels == label], d.scores[d.labels == label]) for d in detections]
    truth = [TrueBoxes(a.boxes_px[a.labels == label], (a.difficult | a.crowd)[a.labels == label]) for a in annotations]
    return selected, truth
