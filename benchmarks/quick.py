"""Has something become slower? Under two minutes, without torch.

    make bench-quick
    python -m benchmarks.quick [--store]

Each work of ssd_jax is timed in turns with a yardstick, a product of two 2048 x 2048 matrices by the same compiler, so
that most of what a slower machine changes cancels out; on a busy one, works that use one core lose less than it does.
The medians of the ratios are compared with the stored
ones, quick_baseline.json; more than MARGIN times as much is a failure, exit code 1. The stored ones are of the machine
that the file names: elsewhere --store, before a change, and compare after it.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.command import run
from benchmarks.speed import ours
from benchmarks.speed.machine import machine
from benchmarks.speed.scene import write_scene
from ssd_jax.errors import UserError
from ssd_jax.files import write_text

WORKS: dict[str, Callable[[Path, str], ours.Call]] = {
    "network, forward": ours.forward,
    "narrow network, training step": ours.train_narrow,
    "matching, mining, loss": ours.loss,
    "decode, threshold, NMS": ours.detect_21,
    "augmentation": ours.augment,
    "JPEG to array": ours.read,
}
BASELINE = Path(__file__).parent / "quick_baseline.json"
MARGIN = 1.3
LEAST = 0.2  # seconds a turn
ROUNDS = 9


@dataclass(frozen=True)
class Options:
    store: bool = False
    """Store these ratios as the baseline."""


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.quick", description=__doc__)
    stored: dict[str, float] = {}
    if not options.store:
        try:
            file = json.loads(BASELINE.read_text())
            stored = {name: float(file["ratios"][name]) for name in WORKS}
            print(f"baseline: {file['machine']}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = f"{type(error).__name__}: {error}"
            raise UserError(f"{BASELINE}: can't be read ({told}); --store makes a new one") from error
    print(f"here:     {machine()}\n\n{'work':34} {'ms':>8} {'of yardstick':>13} {'stored':>8} {'ratio':>6}")
    ratios, slower = {}, []
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder))
        for name, make in WORKS.items():
            seconds, ratios[name] = time_beside(make(Path(folder), ""), yardstick())
            before = stored.get(name)
            against = f"{before:8.3f} {ratios[name] / before:6.2f}" if before else ""
            print(f"{name:34} {1000 * seconds:8.3g} {ratios[name]:13.3f} {against}", flush=True)
            if before and ratios[name] > MARGIN * before:
                slower.append(name)
    if options.store:
        write_text(BASELINE, json.dumps({"machine": machine(), "ratios": ratios}, indent=1) + "\n")
    for name in slower:
        print(f"SLOWER: {name}, by more than {MARGIN} times", file=sys.stderr)
    return 1 if slower else 0


def yardstick() -> Callable[[], Any]:
    matrix = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(matrix, matrix))


def time_beside(call: Callable[[], Any], other: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of a call, and how many times as long as the other one it takes: medians over the rounds."""
    timed = [(seconds(call), seconds(other)) for _ in range(ROUNDS + 1)][1:]
    return median(a for a, _ in timed), median(a / b for a, b in timed)


def seconds(call: Callable[[], Any]) -> float:
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < LEAST:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    run(main)
