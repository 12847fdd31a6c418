"""Detect objects by one detector in a process of its own, and time it on request.

    python -m benchmarks.exports.worker SOURCE PICTURES DETECTIONS THREADS

SOURCE is a run, a model or an exported file, or a file of Python code that makes a network with torchvision. The
process detects objects in all pictures of the file PICTURES and writes them to the file DETECTIONS. Then, for each line
on standard input, it detects for about half a second in one picture and prints the seconds per call. It sleeps while it
waits for a line.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.worker import MIN_SECONDS, print_answer
from ssd_jax.inference.detections import ImageDetections

Detect = Callable[[np.ndarray], Any]
ToDetections = Callable[[Any, np.ndarray], ImageDetections]


def main(source: str, pictures_file: str, detections_file: str, threads: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    prepare = prepare_torchvision if source.endswith(".py") else prepare_ssd_jax
    detect, to_detections = prepare(source, int(threads))
    with np.load(pictures_file) as file:
        pictures = [file[name] for name in file.files]
    save_detections(Path(detections_file), [to_detections(detect(picture), picture) for picture in pictures])
    picture = pictures[0]
    start = time.perf_counter()
    detect(picture)
    calls = max(1, round(MIN_SECONDS / (time.perf_counter() - start)))
    print_answer({"pictures": len(pictures)})
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(calls):
            detect(picture)
        print_answer({"seconds": (time.perf_counter() - start) / calls})


def prepare_ssd_jax(source: str, threads: int) -> tuple[Detect, ToDetections]:
    """Return a function that detects objects in a picture as `ssd_jax.load` does, and one that converts its outputs."""
    from ssd_jax.export.benchmark import make_model_detect_fn
    from ssd_jax.export.pictures import place_on_canvases
    from ssd_jax.inference.detections import to_image_detections
    from ssd_jax.inference.images import choose_canvas_side
    from ssd_jax.model_zoo.opening import open_detector
    from ssd_jax.runtime import sharding

    model = open_detector(source)
    run = make_model_detect_fn(model)

    def detect(picture: np.ndarray) -> Any:
        side = choose_canvas_side(max(picture.shape[:2]), model.config.data.max_image_size)
        return sharding.fetch(tuple(run(*place_on_canvases([picture], side))))

    def to_detections(outputs: Any, picture: np.ndarray) -> ImageDetections:
        from ssd_jax.exported.program import PaddedDetections

        height, width = picture.shape[:2]
        return to_image_detections(PaddedDetections(*outputs), 0, width, height)

    return detect, to_detections


def prepare_torchvision(source: str, threads: int) -> tuple[Detect, ToDetections]:
    """Return the same functions for a network of torchvision."""
    import torch

    torch.set_num_threads(threads)
    names: dict[str, Any] = {}
    exec(Path(source).read_text(encoding="utf-8"), names)

    @torch.no_grad()
    def detect(picture: np.ndarray) -> Any:
        return names["model"]([torch.from_numpy(picture).permute(2, 0, 1) / 255])[0]

    def to_detections(outputs: Any, picture: np.ndarray) -> ImageDetections:
        arrays = [outputs[name].numpy() for name in ("boxes", "scores", "labels")]
        return ImageDetections(arrays[0], arrays[1], arrays[2].astype(np.int32))

    return detect, to_detections


def save_detections(file: Path, detections: list[ImageDetections]) -> None:
    """Write the detections in all pictures to one file."""
    np.savez(
        file, **{f"{field}_{k}": array for k, one in enumerate(detections) for field, array in one._asdict().items()}
    )


def read_detections(file: Path) -> list[ImageDetections]:
    """Read what `save_detections` wrote."""
    with np.load(file) as arrays:
        count = len(arrays.files) // len(ImageDetections._fields)
        return [ImageDetections(*(arrays[f"{field}_{k}"] for field in ImageDetections._fields)) for k in range(count)]


if __name__ == "__main__":
    main(*sys.argv[1:])
