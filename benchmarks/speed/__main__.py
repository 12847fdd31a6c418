"""Side by side with torchvision and pycocotools, on the same arrays, in turns.

    make bench
    python -m benchmarks.speed [--only forward train] [--rounds 7] [--json bench.json]

Needs torch and torchvision beside ssd_jax; `make bench` installs them into an environment of their own.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.command import run
from benchmarks.speed.machine import machine
from benchmarks.speed.programs import FIRST, PREDICT, time_predict
from benchmarks.speed.scene import write_coco, write_photograph, write_scene
from benchmarks.speed.turns import Timed, take_turns
from benchmarks.speed.works import BATCH, OURS, WORKS
from ssd_jax.aot.targets import CHIPS
from ssd_jax.errors import UserError
from ssd_jax.files import write_text


@dataclass(frozen=True)
class Options:
    only: tuple[str, ...] = ()
    """Works by name; default all of them."""
    rounds: int = 7
    """How often each way has its turn."""
    batch: int = BATCH
    """Images in a call. For an accelerator take more, such as 32."""
    json: Path | None = None
    """File for every round's figures."""


def main(argv: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.speed", description=__doc__)
    names = [work.name for work in (*WORKS, PREDICT)]
    for name in options.only:
        if name not in names:
            raise UserError(f"--only {name}: no such work; there are {', '.join(names)}")
    here = machine("torch", "torchvision")
    print(here + "\n", flush=True)
    print("\n".join(head()), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_scene(Path(folder), options.batch)
        for work in (*WORKS, PREDICT):
            if options.only and work.name not in options.only:
                continue
            if work.name == "coco":
                write_coco(Path(folder))
            if work.name == "photograph":
                write_photograph(Path(folder))
            timed = (
                time_predict(Path(folder), options.rounds)
                if work is PREDICT
                else take_turns(work._replace(images=options.batch if work.images else 0), Path(folder), options.rounds)
            )
            print(row(timed), flush=True)
            rows.append(timed)
    for timed in rows:
        print(of_roofline(timed), end="")
        if FIRST in timed.told:
            print(f"\npredict.py with nothing compiled before: {duration(timed.told[FIRST])}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": here, "works": [as_json(timed) for timed in rows]}
        write_text(options.json, json.dumps(figures, indent=1) + "\n")


def head() -> list[str]:
    titles = ["work, an image", "ssd-jax", "the other", "ratio", "aim", "memory, MB: ours, theirs"]
    return [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]


def row(timed: Timed) -> str:
    """The better of the other ways stands first."""
    medians = timed.median
    theirs = sorted(timed.work.theirs, key=medians.__getitem__)
    cells = [
        timed.work.title,
        duration(medians[OURS]),
        "; ".join(f"{duration(medians[way])} ({way})" for way in theirs),
        f"{timed.ratio:.2f}",
        f"{timed.work.aim:.2f}",
        f"{timed.peak_mb[OURS]:.0f}, {timed.peak_mb[theirs[0]]:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


KINDS = {"H100": "h100", "A100": "a100", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}
"""What jax calls a device begins so, or has it in it: the first that fits."""


def of_roofline(timed: Timed) -> str:
    """On an accelerator: images a second, and the share that this is of what its arithmetic allows."""
    asked = timed.told.get(OURS)
    if not isinstance(asked, dict) or asked["platform"] == "cpu":
        return ""
    rate = 1 / timed.median[OURS]
    text = f"\n{timed.work.title}: {rate:.0f} images/s on {asked['device']}"
    chip = next((CHIPS[chip] for kind, chip in KINDS.items() if kind in asked["device"]), None)
    share = f", {rate * asked['flops'] / chip.float32:.0%} of its peak in float32" if chip else ""
    return f"{text}{share}\n"


def duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def as_json(timed: Timed) -> dict:
    return {
        "work": timed.work.name, "title": timed.work.title, "aim": timed.work.aim, "ratio": timed.ratio,
        "median_seconds": timed.median, "seconds": timed.seconds, "peak_mb": timed.peak_mb, "told": timed.told,
    }  # fmt: skip


if __name__ == "__main__":
    run(main)
