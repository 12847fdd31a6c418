"""Measure whether reading, augmentation or the training step limits the speed of training.

    python -m benchmarks.input configs/own_data.py --data.root FOLDER

The benchmark uses your images and your machine. It prints the number of images per second of reading alone, of reading
and augmentation, and of whole training steps, which include both. It also prints how many milliseconds of one CPU core
the host needs to read an image. It accepts all options of train.py and writes no files.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import tyro

from benchmarks.command import run
from benchmarks.speed.machine import describe_machine
from ssd_jax.commands.config_options import parse_config_options
from ssd_jax.commands.options import initialize_jax
from ssd_jax.config import Config
from ssd_jax.data.loader import Batch, train_batches
from ssd_jax.data.run_splits import open_training_splits, with_data_root
from ssd_jax.runtime import sharding
from ssd_jax.training.optimizer import make_schedule_point
from ssd_jax.training.train_step import get_augmentation_arrays, init_state, make_augmentation, make_train_step


@dataclass(frozen=True)
class Options:
    config: Annotated[Config, tyro.conf.arg(name="")]
    seconds: float = 10.0
    """Duration of each of the three measurements in seconds."""


def main(argv: Sequence[str]) -> None:
    options = parse_config_options(Options, "python -m benchmarks.input", argv)
    initialize_jax()
    config = with_data_root(options.config, options.config.data.root)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, eval_every=0))
    config, source, _ = open_training_splits(config)
    mesh, size = sharding.make_mesh(), config.train.batch_size
    batches = train_batches(source, config.data, size, config.train.seed)
    augment = jax.jit(sharding.map_images(make_augmentation(config), mesh))
    step, state = make_train_step(config, mesh), init_state(config, mesh)
    point = make_schedule_point(config.optimizer, 0, config.train.steps)

    def augment_batch(batch: Batch) -> Any:
        return augment(*get_augmentation_arrays(sharding.shard_batch(batch, mesh)))

    def train_on_batch(batch: Batch) -> Any:
        nonlocal state
        state, metrics = step(state, sharding.shard_batch(batch, mesh), point)
        return metrics

    print(f"{describe_machine()}\n{len(source)} images of {config.data.root}, {size} at a time\n")
    stages = (("reading", None), ("reading, augmentation", augment_batch), ("training steps", train_on_batch))
    for title, work in stages:
        rate, core = measure_images_per_second(batches, work, options.seconds)
        cost = f", {1000 * core:.2f} ms of one core per image" if work is None else ""
        print(f"{title:24} {rate:8.1f} images/s{cost}", flush=True)


def measure_images_per_second(
    batches: Any, work: Callable[[Batch], Any] | None, min_seconds: float
) -> tuple[float, float]:
    """Return the number of images per second, and the CPU time of this process per image in seconds.

    Compilation, and batches that were prefetched before the measurement, are not counted.
    """
    for _ in range(12):
        batch = next(batches)
    if work is not None:
        jax.block_until_ready(work(batch))
    images, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < min_seconds:
        batch = next(batches)
        if work is not None:
            jax.block_until_ready(work(batch))
        images += int(batch.valid.sum())
    seconds, used = time.perf_counter() - start, time.process_time() - used
    return images / seconds, used / images


if __name__ == "__main__":
    run(main)
