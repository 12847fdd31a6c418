"""Measure how time and memory grow with objects, classes, image size and batch size.

    python -m benchmarks.growth --out runs/growth

This benchmark writes a table with the exponents of growth, and a plot. An exponent of 1 means linear growth. The
exponent is computed from the last two sizes, because at small sizes constant costs hide the growth. The memory is the
memory that the compiled program needs beyond its inputs.

After each call, glibc returns blocks of more than 32 MB to the kernel, and their pages have to be zeroed again. This
adds a step to the curves that the program does not cause. To avoid the step:

    GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=4000000000 python ...
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from benchmarks.command import run
from ssd_jax.config import Augment, Config, DefaultBoxes, Detect, Extra, Model
from ssd_jax.errors import UserError
from ssd_jax.files import write_text
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.models.ssd import SSD
from ssd_jax.ops.augmentation import augment
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import detect
from ssd_jax.ops.loss import multibox_loss
from ssd_jax.ops.matching import match
from ssd_jax.runtime import compilation, sharding

BOXES = DefaultBoxes()
CLASSES = 21


class Program(NamedTuple):
    """A function to compile and time, and its arguments."""

    function: Callable
    arguments: tuple


# ---- programs ----


def make_matching_and_loss_program(objects: int = 4, classes: int = CLASSES, batch: int = 4) -> Program:
    """Return a program that matches random objects and computes the loss and its gradient."""
    random = np.random.default_rng(0)
    boxes, labels = make_random_boxes(random, (batch, objects)), random.integers(1, classes, (batch, objects))
    offsets, logits = make_random_network_output(random, batch, classes)
    defaults = make_default_boxes(BOXES)

    def compute_loss(offsets: Any, logits: Any, boxes: Any, labels: Any) -> Any:
        return multibox_loss(offsets, logits, jax.vmap(partial(match, default_boxes=defaults))(boxes, labels))[0]

    return Program(jax.value_and_grad(compute_loss, (0, 1)), (offsets, logits, boxes, labels))


def make_augmentation_program(objects: int = 4, batch: int = 4, side: int = 500) -> Program:
    """Return a program that augments random images with a side of ``side`` pixels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, side, side, 3), np.uint8)
    boxes, labels = make_random_boxes(random, (batch, objects)), np.ones((batch, objects), np.int32)
    one_image = partial(_augment_image, Augment())
    return Program(jax.vmap(one_image), (jax.random.split(jax.random.key(0), batch), images, boxes, labels))


def _augment_image(config: Augment, key: Any, image: Any, boxes: Any, labels: Any) -> Any:
    return augment(key, image, 300, boxes, labels, config)


def make_detection_program(classes: int = CLASSES, batch: int = 4) -> Program:
    """Return a program that decodes random network outputs and suppresses overlapping boxes."""
    offsets, logits = make_random_network_output(np.random.default_rng(0), batch, classes)
    one_image = partial(detect, default_boxes=make_default_boxes(BOXES), variances=BOXES.variances, config=Detect())
    return Program(jax.vmap(one_image), (offsets, logits))


def make_network_program(side: int = 300, batch: int = 1, gradient: bool = False) -> Program:
    """Return a program for the forward pass of the network, or for the gradient of the sum of the squared outputs."""
    module = SSD(make_model(side))
    images = np.random.default_rng(0).uniform(0, 255, (batch, side, side, 3)).astype(np.float32)
    params = jax.jit(module.init)(jax.random.key(0, impl="rbg"), images[:1])["params"]

    def forward(params: Any, images: Any) -> Any:
        return module.apply({"params": params}, images)

    def compute_sum_of_squares(params: Any, images: Any) -> Any:
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(forward(params, images)))

    return Program(jax.grad(compute_sum_of_squares) if gradient else forward, (params, images))


def make_detector_program(side: int = 300, batch: int = 1) -> Program:
    """Return the program of a detector, from uint8 images to detections."""
    config = Config(name="growth", model=make_model(side))
    params = make_network_program(side).arguments[0]
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    sizes = np.full(batch, side, np.int32)
    return Program(make_predict_fn(config, sharding.single_device_mesh()), (params, images, sizes, sizes))


def make_model(side: int) -> Model:
    """Return the model config of SSD300 for another image side. The default boxes are scaled with the side."""
    maps = [math.ceil(side / 8)]
    while len(maps) < len(BOXES.feature_maps):
        maps.append(math.ceil(maps[-1] / 2))
    scale = side / BOXES.image_size
    boxes = dataclasses.replace(
        BOXES, image_size=side, feature_maps=tuple(maps), steps=None,
        min_sizes=tuple(scale * s for s in BOXES.min_sizes), max_sizes=tuple(scale * s for s in BOXES.max_sizes if s),
    )  # fmt: skip
    extras = (Extra(256, 512), Extra(128, 256), Extra(128, 256), Extra(128, 256))
    names = tuple(f"class {i}" for i in range(1, CLASSES))
    return Model(class_names=names, default_boxes=boxes, extras=extras)


def make_random_boxes(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return random boxes (..., 4) as normalised xyxy, with sides of 0.05 to 0.5."""
    extent = random.uniform(0.05, 0.5, (*shape, 2))
    corner = random.uniform(0, 1, (*shape, 2)) * (1 - extent)
    return np.concatenate([corner, corner + extent], axis=-1).astype(np.float32)


def make_random_network_output(random: np.random.Generator, batch: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random offsets and logits. For any number of classes, about 1 default box in 100 has a high score."""
    logits = random.normal(0, 1, (batch, BOXES.count, classes)).astype(np.float32)
    logits[..., 0] += 8 + np.log(classes / CLASSES)
    image, box = np.nonzero(random.random((batch, BOXES.count)) < 0.01)
    logits[image, box, random.integers(1, classes, len(box))] += 12
    return random.normal(0, 0.5, (batch, BOXES.count, 4)).astype(np.float32), logits


# ---- measurement ----


class Axis(NamedTuple):
    """A quantity that grows, its sizes, and the programs that are measured at these sizes."""

    title: str
    """Name of the quantity, such as "classes"."""
    sizes: tuple[int, ...]
    programs: dict[str, Callable[[int], Program]]
    """Functions that make a program for a size, by the title of the program."""
    power: int = 1
    """Growth is measured relative to size ** power. The power is 2 for an image side, because the number of pixels is
    proportional to the square of the side."""


AXES = (
    Axis("objects per image", (1, 10, 50, 100, 200), {
        "matching, loss, gradient": lambda n: make_matching_and_loss_program(objects=n),
        "augmentation": lambda n: make_augmentation_program(objects=n),
    }),
    Axis("classes", (2, 21, 91, 200, 400), {
        "matching, loss, gradient": lambda n: make_matching_and_loss_program(classes=n),
        "decode and NMS": lambda n: make_detection_program(classes=n),
    }),
    Axis("image side", (100, 200, 300, 512, 1024), {
        "network, forward": lambda n: make_network_program(side=n),
        "network, gradient": lambda n: make_network_program(side=n, gradient=True),
        "image to detections": lambda n: make_detector_program(side=n),
        "augmentation": lambda n: make_augmentation_program(side=n),
    }, power=2),
    Axis("batch", (1, 4, 16, 64), {
        "network, forward": lambda n: make_network_program(batch=n),
        "matching, loss, gradient": lambda n: make_matching_and_loss_program(batch=n),
        "decode and NMS": lambda n: make_detection_program(batch=n),
        "augmentation": lambda n: make_augmentation_program(batch=n),
    }),
)  # fmt: skip


class Point(NamedTuple):
    """A measurement at one size."""

    size: int
    seconds: float
    """Median time of a call."""
    bytes: int
    """Memory that the compiled program needs beyond its inputs."""


def measure_program(program: Program, size: int, min_seconds: float) -> Point:
    """Compile a program and return its memory and the median time of a call.

    Calls are repeated until they have taken ``min_seconds`` in total, but at most 100 times.
    """
    function, arguments = program
    arguments = jax.device_put(arguments)
    if not hasattr(function, "lower"):
        function = jax.jit(function, compiler_options=compilation.compiler_options())
    compiled = function.lower(*arguments).compile()
    memory: Any = compiled.memory_analysis()
    jax.block_until_ready(compiled(*arguments))
    times: list[float] = []
    while not times or (sum(times) < min_seconds and len(times) < 100):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return Point(size, median(times), memory.temp_size_in_bytes + memory.output_size_in_bytes)


def compute_growth_exponent(points: Sequence[Point], name: str, power: int) -> float:
    """Return p such that, between the last two points, the field ``name`` grows as (size ** power) ** p."""
    (a, b) = points[-2:]
    return math.log(getattr(b, name) / getattr(a, name)) / math.log((b.size / a.size) ** power)


@dataclass(frozen=True)
class Options:
    out: Path
    """Folder for growth.json, growth.md and growth.png."""
    only: tuple[str, ...] = ()
    """Quantities to measure, by the beginning of their titles. Default: all quantities."""
    min_seconds: float = 1.0
    """Minimum duration of each measurement in seconds. Each program runs at least once."""


def main(argv: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.growth", description=__doc__)
    for only in options.only:
        if not any(axis.title.startswith(only) for axis in AXES):
            titles = ", ".join(repr(axis.title) for axis in AXES)
            raise UserError(f"--only {only}: no quantity has a title that begins with this text. Choose from {titles}")
    axes = [axis for axis in AXES if not options.only or axis.title.startswith(options.only)]
    compilation.release_compiler_memory()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.out}: cannot create this folder ({error.strerror}). Choose another --out") from error
    lines = ["| | sizes | time, ms | exponent | memory, MB | exponent |", "|" + " --- |" * 6]
    print("\n".join(lines), flush=True)
    curves: dict[str, dict[str, list[Point]]] = {}
    for axis in axes:
        for name, make_program in axis.programs.items():
            points = [measure_program(make_program(size), size, options.min_seconds) for size in axis.sizes]
            curves.setdefault(axis.title, {})[name] = points
            lines.append(format_row(axis, name, points))
            print(lines[-1], flush=True)
            write_text(options.out / "growth.json", json.dumps(curves, indent=1) + "\n")
            write_text(options.out / "growth.md", "\n".join(lines) + "\n")
            jax.clear_caches()
    draw_plot(axes, curves, options.out / "growth.png")


def format_row(axis: Axis, name: str, points: Sequence[Point]) -> str:
    """Return a Markdown table row with the measurements of a program."""
    sizes = " ".join(str(p.size) for p in points)
    times = " ".join(f"{1e3 * p.seconds:.3g}" for p in points)
    memory = " ".join(f"{p.bytes / 1e6:.3g}" for p in points)
    time_exponent, memory_exponent = (
        compute_growth_exponent(points, field, axis.power) for field in ("seconds", "bytes")
    )
    return f"| {axis.title}: {name} | {sizes} | {times} | {time_exponent:.2f} | {memory} | {memory_exponent:.2f} |"


def draw_plot(axes: Sequence[Axis], curves: dict[str, dict[str, list[Point]]], file: Path) -> None:
    """Plot time and memory of all programs over the sizes, with one column of panels per quantity."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, panels = plt.subplots(2, len(axes), figsize=(4 * len(axes), 7), squeeze=False, layout="constrained")
    for column, axis in enumerate(axes):
        for panel, field, unit, scale in zip(
            panels[:, column], ("seconds", "bytes"), ("time, ms", "memory, MB"), (1e3, 1e-6), strict=True
        ):
            for name, points in curves[axis.title].items():
                panel.loglog([p.size for p in points], [scale * getattr(p, field) for p in points], "o-", label=name)
            panel.set(xlabel=axis.title, ylabel=unit, xticks=axis.sizes, xticklabels=axis.sizes)
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.grid(alpha=0.3)
        panels[0, column].legend(fontsize="small")
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    run(main)
