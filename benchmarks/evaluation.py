"""Measure the CPU seconds of the parts of an evaluation, without the detection itself.

    python -m benchmarks.evaluation [--images 5000] [--classes 80]

The detections and objects are generated from a seed: seven objects and 100 detections in each image, of which half have
the class of an object near them. Each part runs several times, in turns with the others; the table has the medians.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import tyro
from tabulate import tabulate

from benchmarks.command import run
from benchmarks.speed.machine import describe_machine
from ssd_jax.data.source import Annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.average_precision import evaluate_coco, evaluate_voc, match_coco
from ssd_jax.metrics.diagnosis import diagnose
from ssd_jax.metrics.intervals import bootstrap, match_coco_classes
from ssd_jax.metrics.voc_matching import match_classes

OBJECTS, WIDTH, HEIGHT = 7, 640, 480


@dataclasses.dataclass(frozen=True)
class Options:
    images: int = 5000
    """Number of images."""
    classes: int = 80
    """Number of classes."""
    detections: int = 100
    """Number of detections in each image."""
    rounds: int = 3
    """Number of times that each part is run."""


def main(argv: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.evaluation", description=__doc__)
    random = np.random.default_rng(0)
    pairs = [make_image(random, options) for _ in range(options.images)]
    split = [detections for detections, _ in pairs], [annotation for _, annotation in pairs]
    names = [f"class {i}" for i in range(options.classes)]
    parts: dict[str, Callable[[], Any]] = {
        "VOC metrics": lambda: evaluate_voc(*split, names),
        "COCO metrics": lambda: evaluate_coco(*split, names),
        "intervals of both": lambda: bootstrap(
            match_classes(*split, names), match_coco_classes(match_coco(*split, names))
        ),
        "curves and errors of the report": lambda: diagnose(*split, names),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(options.rounds):
        for name, part in parts.items():
            start = time.process_time()
            part()
            times[name].append(time.process_time() - start)
    print(f"{describe_machine('hotcoco')}; {options.images} images, {options.classes} classes\n")
    rows = [[name, f"{median(seconds):.2f}"] for name, seconds in times.items()]
    print(tabulate(rows, ["part", "CPU seconds"], tablefmt="github", disable_numparse=True))


def make_image(random: np.random.Generator, options: Options) -> tuple[ImageDetections, Annotation]:
    """Return random detections and objects of an image."""
    sides = random.uniform(0.1, 0.6, (OBJECTS, 2))
    corners = random.uniform(0, 1, (OBJECTS, 2)) * (1 - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    labels = random.integers(1, options.classes + 1, OBJECTS)
    count = options.detections
    near = random.integers(0, OBJECTS, count)
    moved = boxes[near] + random.normal(0, 1, (count, 4)) * random.choice([2, 20, 100], (count, 1))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    guesses = np.where(random.random(count) < 0.5, labels[near], random.integers(1, options.classes + 1, count))
    scores = random.random(count).astype(np.float32)
    none = np.zeros(OBJECTS, bool)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    annotation = Annotation(
        "a", "a.jpg", WIDTH, HEIGHT, boxes.astype(np.float32), labels.astype(np.int32), none, none, area
    )
    return ImageDetections(moved.astype(np.float32), scores, guesses.astype(np.int32)), annotation


if __name__ == "__main__":
    run(main)
