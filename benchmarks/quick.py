"""Check whether ssd-jax has become slower. The check takes under two minutes and does not need torch.

    make bench-quick
    python -m benchmarks.quick [--store]

Each task is timed in turns with a reference: a product of two 2048 x 2048 matrices, compiled in the same way. The ratio
of the two times depends little on the speed of the machine. It does depend on other load, which slows the reference
down more than tasks that use a single core. The median ratios are compared with the ratios in quick_baseline.json. The
exit code is 1 if a ratio is more than 1.3 times the stored ratio. The stored ratios belong to the machine that the file
names. On another machine, run with --store before a change and without it after the change.
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
from benchmarks.speed import ssd_jax_side
from benchmarks.speed.machine import describe_machine
from benchmarks.speed.scene import write_scene
from ssd_jax.errors import UserError
from ssd_jax.files import write_text

TASKS: dict[str, Callable[[Path, str], ssd_jax_side.Call]] = {
    "network, forward": ssd_jax_side.prepare_forward,
    "narrow network, training step": ssd_jax_side.prepare_train_narrow,
    "matching, mining, loss": ssd_jax_side.prepare_loss,
    "decode, threshold, NMS": ssd_jax_side.prepare_detect_21,
    "augmentation": ssd_jax_side.prepare_augment,
    "JPEG to array": ssd_jax_side.prepare_read,
}
BASELINE = Path(__file__).parent / "quick_baseline.json"
MARGIN = 1.3
"""Largest accepted ratio, as a multiple of the stored ratio."""
MIN_SECONDS = 0.2  # duration of a measurement
ROUNDS = 9


@dataclass(frozen=True)
class Options:
    store: bool = False
    """Store the measured ratios in quick_baseline.json instead of comparing them with the stored ratios."""


def main(argv: Sequence[str]) -> int:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.quick", description=__doc__)
    stored: dict[str, float] = {}
    if not options.store:
        try:
            file = json.loads(BASELINE.read_bytes())
            stored = {name: float(file["ratios"][name]) for name in TASKS}
            print(f"baseline: {file['machine']}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{BASELINE}: cannot be read ({reason}). Write a new baseline with --store") from error
    print(f"here:     {describe_machine()}\n\n{'task':34} {'ms':>8} {'of reference':>13} {'stored':>8} {'ratio':>6}")
    ratios, slower = {}, []
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder))
        for name, make_call in TASKS.items():
            seconds, ratios[name] = time_interleaved(make_call(Path(folder), ""), make_reference_task())
            before = stored.get(name)
            against = f"{before:8.3f} {ratios[name] / before:6.2f}" if before else ""
            print(f"{name:34} {1000 * seconds:8.3g} {ratios[name]:13.3f} {against}", flush=True)
            if before and ratios[name] > MARGIN * before:
                slower.append(name)
    if options.store:
        write_text(BASELINE, json.dumps({"machine": describe_machine(), "ratios": ratios}, indent=1) + "\n")
    for name in slower:
        print(f"SLOWER: {name}, by more than a factor of {MARGIN}", file=sys.stderr)
    return 1 if slower else 0


def make_reference_task() -> Callable[[], Any]:
    """Return a function that computes the matrix product that all tasks are compared with."""
    matrix = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(matrix, matrix))


def time_interleaved(call: Callable[[], Any], reference: Callable[[], Any]) -> tuple[float, float]:
    """Return the median time of ``call`` in seconds, and the median ratio of this time to that of ``reference``.

    The medians are taken over ROUNDS rounds. In each round, both functions are timed one after the other.
    """
    timed = [(measure_seconds_per_call(call), measure_seconds_per_call(reference)) for _ in range(ROUNDS + 1)][1:]
    return median(a for a, _ in timed), median(a / b for a, b in timed)


def measure_seconds_per_call(call: Callable[[], Any]) -> float:
    """Return the mean time of a call in seconds. Calls are repeated for at least MIN_SECONDS."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < MIN_SECONDS:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    run(main)
