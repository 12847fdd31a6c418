"""Compare the speed of ssd-jax with that of torchvision and pycocotools on the same arrays, timed in turns.

    make bench
    python -m benchmarks.speed [--only forward train] [--rounds 7] [--json bench.json]

The benchmark needs torch and torchvision. `make bench` installs them into a separate environment.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.command import run
from benchmarks.speed.interleaved import Timed, time_interleaved
from benchmarks.speed.machine import describe_machine
from benchmarks.speed.predict_script import FIRST, PREDICT, time_predict
from benchmarks.speed.scene import write_coco, write_large_photo, write_scene
from benchmarks.speed.tasks import BATCH, OURS, TASKS
from ssd_jax.aot.targets import CHIPS
from ssd_jax.errors import UserError
from ssd_jax.files import write_text


@dataclass(frozen=True)
class Options:
    only: tuple[str, ...] = ()
    """Names of the tasks to time. Default: all tasks."""
    rounds: int = 7
    """Number of rounds. Each variant runs once per round."""
    batch: int = BATCH
    """Images per call. Use more on an accelerator, such as 32."""
    json: Path | None = None
    """JSON file for the measurements of every round."""


def main(argv: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.speed", description=__doc__)
    names = [task.name for task in (*TASKS, PREDICT)]
    for name in options.only:
        if name not in names:
            raise UserError(f"--only {name}: unknown task. Choose from {', '.join(names)}")
    machine_line = describe_machine("torch", "torchvision")
    print(machine_line + "\n", flush=True)
    print("\n".join(make_table_header()), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder), options.batch)
        for task in (*TASKS, PREDICT):
            if options.only and task.name not in options.only:
                continue
            if task.name == "coco":
                write_coco(Path(folder))
            if task.name == "large_photo":
                write_large_photo(Path(folder))
            if task is PREDICT:
                timed = time_predict(Path(folder), options.rounds)
            else:
                images = options.batch if task.images else 0
                timed = time_interleaved(task._replace(images=images), Path(folder), options.rounds)
            print(format_row(timed), flush=True)
            rows.append(timed)
    for timed in rows:
        print(format_roofline(timed), end="")
        if FIRST in timed.results:
            print(f"\npredict.py with an empty compilation cache: {format_duration(timed.results[FIRST])}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": machine_line, "tasks": [to_json(timed) for timed in rows]}
        write_text(options.json, json.dumps(figures, indent=1) + "\n")


def make_table_header() -> list[str]:
    """Return the first two lines of the Markdown table."""
    titles = ["task, per image", "ssd-jax", "other", "ratio", "target", "memory, MB: ssd-jax, other"]
    return [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]


def format_row(timed: Timed) -> str:
    """Return the table row of a task, with the other variants from the fastest to the slowest."""
    medians = timed.median
    other_variants = sorted(timed.task.other_variants, key=medians.__getitem__)
    cells = [
        timed.task.title,
        format_duration(medians[OURS]),
        "; ".join(f"{format_duration(medians[variant])} ({variant})" for variant in other_variants),
        f"{timed.ratio:.2f}",
        f"{timed.task.target:.2f}",
        f"{timed.peak_mb[OURS]:.0f}, {timed.peak_mb[other_variants[0]]:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


KINDS = {"H100": "h100", "A100": "a100", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}
"""Dict from a part of JAX's device name to the name of the chip in ssd_jax.aot. The first matching part is used."""


def format_roofline(timed: Timed) -> str:
    """Return a line with the images per second and the share of the accelerator's peak FLOP/s.

    The share is left out for chips that are not in KINDS. The whole line is empty on a CPU, and for tasks whose FLOPs
    are not counted.
    """
    measured = timed.results.get(OURS)
    if not isinstance(measured, dict) or measured["platform"] == "cpu":
        return ""
    rate = 1 / timed.median[OURS]
    text = f"\n{timed.task.title}: {rate:.0f} images/s on {measured['device']}"
    chip = next((CHIPS[chip] for kind, chip in KINDS.items() if kind in measured["device"]), None)
    share = f", {rate * measured['flops'] / chip.float32:.0%} of its peak in float32" if chip else ""
    return f"{text}{share}\n"


def format_duration(seconds: float) -> str:
    """Return a duration with its unit, in seconds or milliseconds."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def to_json(timed: Timed) -> dict:
    """Return the measurements of a task as they are written to the JSON file."""
    return {
        "task": timed.task.name, "title": timed.task.title, "target": timed.task.target, "ratio": timed.ratio,
        "median_seconds": timed.median, "seconds": timed.seconds, "peak_mb": timed.peak_mb, "results": timed.results,
    }  # fmt: skip


if __name__ == "__main__":
    run(main)
