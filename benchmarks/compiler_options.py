"""Compare compiler options for detection on a CPU, in CPU seconds.

    python -m benchmarks.compiler_options [--only shapes ssd300_voc] [--rounds 9]

The detection program of each network is compiled with the options of the training step, with these but with XLA's
convolution fusions, and with XLA's default options. The programs are timed in turns, and the table has the medians of
their CPU seconds, and of their ratios to the first one. *Equal* says whether the detections equal those of the first
program bit for bit, and *used* marks the options that ssd-jax uses. Except for blood-cells, the weights are random.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import jax
import numpy as np
import tyro
from tabulate import tabulate

from benchmarks.command import run
from benchmarks.speed.machine import describe_machine
from ssd_jax.config import Model
from ssd_jax.errors import UserError
from ssd_jax.inference.program import make_predict
from ssd_jax.model_zoo.opening import open_detector
from ssd_jax.models.parameters import standardize_kernels
from ssd_jax.models.ssd import SSD
from ssd_jax.runs.config_file import load_config
from ssd_jax.runtime import compilation, sharding

NETWORKS = ("shapes", "blood-cells", "own_data_small", "own_data", "ssd300_voc")
"""Configs, and names of bundled detectors."""
FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
CLASSES = 20


@dataclasses.dataclass(frozen=True)
class Options:
    only: tuple[str, ...] = NETWORKS
    """Networks to measure."""
    rounds: int = 9
    """Number of rounds. Each program runs once per round, for about a second."""
    batch: int = 1
    """Images per call."""


def main(argv: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.compiler_options", description=__doc__)
    ours = compilation.compiler_options() or {}
    if FUSIONS not in ours:
        raise UserError("ssd-jax sets no compiler options for this version of JAX, or for this device")
    variants = {
        "training": ours,
        "with fusions": {name: value for name, value in ours.items() if name != FUSIONS},
        "XLA's default": {},
    }
    print(describe_machine() + "\n", flush=True)
    rows = []
    for name in options.only:
        model, detect, arguments = make_program(name, options.batch)
        used = compilation.detection_compiler_options(model)
        compiled, seconds = {}, {}
        for variant, values in variants.items():
            start = time.process_time()
            compiled[variant] = jax.jit(detect, compiler_options=values).lower(*arguments).compile()
            seconds[variant] = time.process_time() - start
        expected = jax.tree.leaves(compiled["training"](*arguments))
        times = time_in_turns(compiled, arguments, options)
        for variant, values in variants.items():
            results = jax.tree.leaves(compiled[variant](*arguments))
            is_equal = all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))
            ratio = median(t / first for t, first in zip(times[variant], times["training"], strict=True))
            image = 1000 * median(times[variant]) / options.batch
            rows.append(
                [name, variant, f"{seconds[variant]:.1f}", f"{image:.1f}", f"{ratio:.2f}", is_equal, values == used]
            )
    headers = ["network", "options", "compilation, s", "image, ms", "ratio", "equal", "used"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def make_program(name: str, batch: int) -> tuple[Model, Callable[..., Any], tuple[Any, ...]]:
    """Return a network, its detection function to be jitted, and the arguments: parameters and random images."""
    mesh = sharding.single_device_mesh()
    if name == "blood-cells":
        model = open_detector(name)
        config, params = model.config, model.load_params()[0]
    else:
        config = load_config(name)
        names = config.model.class_names or tuple(f"class {i}" for i in range(CLASSES))
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=names))
        size = config.model.image_size
        init = jax.jit(SSD(config.model).init)
        params = init(jax.random.key(0, impl="rbg"), np.zeros((1, size, size, 3), np.float32))["params"]
    size = config.model.image_size
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    sides = np.full(batch, size, np.int32)
    params = jax.device_put(standardize_kernels(jax.device_get(params), config.model))
    return config.model, make_predict(config, mesh, is_standardized=True), (params, images, sides, sides)


def time_in_turns(
    programs: Mapping[str, Callable[..., Any]], arguments: tuple[Any, ...], options: Options
) -> dict[str, list[float]]:
    """Return the CPU seconds of a call of each program in each round."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    start = time.process_time()
    jax.block_until_ready(next(iter(programs.values()))(*arguments))
    repeats = max(1, round(0.5 / (time.process_time() - start)))
    for _ in range(options.rounds):
        for name, program in programs.items():
            start = time.process_time()
            for _ in range(repeats):
                jax.block_until_ready(program(*arguments))
            times[name].append((time.process_time() - start) / repeats)
    return times


if __name__ == "__main__":
    run(main)
