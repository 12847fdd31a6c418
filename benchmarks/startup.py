"""Measure how many CPU seconds pass until the first detection, in new processes.

    python -m benchmarks.startup MODEL IMAGE [--against CHECKOUT]

MODEL is a run folder or a model folder. Each command is run several times, in turns with the same command of another
checkout of this repository, if one is given; the table has the smallest sum of user and system time of each. *Cold*
means that the cache of compiled programs is empty, *warm* that an earlier process has filled it. Times of a process
change less with other load of the machine than the time on the clock, but they do change.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tabulate import tabulate

from benchmarks.command import run
from benchmarks.speed.interleaved import ROOT
from benchmarks.speed.machine import describe_machine
from ssd_jax.errors import UserError

NOTEBOOK = """
import sys
import ssd_jax
detector = ssd_jax.load(sys.argv[1])
print(detector(sys.argv[2], score_threshold=0.0)[:1])
"""
# Time of one more detection in the same process, which shows whether a program that compiles faster is slower.
NEXT_IMAGE = (
    NOTEBOOK
    + """
import time
times = []
for _ in range(20):
    start = time.process_time()
    detector(sys.argv[2], score_threshold=0.0)
    times.append(time.process_time() - start)
print("seconds", min(times))
"""
)


@dataclasses.dataclass(frozen=True)
class Options:
    model: Annotated[Path, tyro.conf.Positional]
    """Run folder or model folder."""
    image: Annotated[Path, tyro.conf.Positional]
    """Image file."""
    against: Path | None = None
    """Other checkout to compare with."""
    against_model: Path | None = None
    """Model for the other checkout. None: the same model."""
    rounds: int = 3
    """Number of times that each command is run."""


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A checkout of this repository, and a model that it can load."""

    folder: Path
    model: Path


def list_commands(model: Path, image: Path, out: Path) -> dict[str, list[str]]:
    """Return the arguments of Python for each row of the table."""
    predict = ["-m", "ssd_jax", "predict", str(model), str(image), "--out", str(out), "--score", "0.1"]
    notebook = ["-c", NOTEBOOK, str(model), str(image)]
    return {
        "import ssd_jax": ["-c", "import ssd_jax"],
        "ssd-jax --help": ["-m", "ssd_jax", "--help"],
        "predict, cold": predict,
        "predict, warm": predict,
        "ssd_jax.load to first detection, cold": notebook,
        "ssd_jax.load to first detection, warm": notebook,
        "one more image": ["-c", NEXT_IMAGE, str(model), str(image)],
    }


def measure(checkout: Checkout, arguments: list[str], cache: Path) -> float:
    """Run Python in a new process, and return the CPU seconds of the process.

    If the process prints a line "seconds S", return S.

    Raises:
        UserError: If the process fails.
    """
    environment = os.environ | {
        "PYTHONPATH": str(checkout.folder), "XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    before = os.times()
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=cache.parent,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    after = os.times()
    if finished.returncode:
        raise UserError(f"{' '.join(arguments)[:200]}: failed", *finished.stderr.splitlines()[-3:])
    for line in finished.stdout.splitlines():
        if line.startswith("seconds "):
            return float(line.split()[1])
    return sum(after[2:4]) - sum(before[2:4])  # of child processes: user and system


def measure_all(checkouts: Sequence[Checkout], image: Path, rounds: int) -> dict[str, list[float]]:
    """Return the smallest time of each command for each checkout."""
    best: dict[str, list[float]] = {}
    for _ in range(rounds):
        for position, checkout in enumerate(checkouts):
            with tempfile.TemporaryDirectory() as folder:
                for name, arguments in list_commands(checkout.model, image, Path(folder, "out")).items():
                    cache = Path(folder, "notebook" if "load" in name or "more" in name else "command")
                    cache.mkdir(exist_ok=True)
                    times = best.setdefault(name, [float("inf")] * len(checkouts))
                    times[position] = min(times[position], measure(checkout, arguments, cache))
    return best


def main(argv: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(argv), prog="python -m benchmarks.startup", description=__doc__)
    model = options.model.resolve()
    checkouts = [Checkout(ROOT, model)]
    if options.against is not None:
        checkouts.append(Checkout(options.against.resolve(), (options.against_model or model).resolve()))
    print(describe_machine())
    best = measure_all(checkouts, options.image.resolve(), options.rounds)
    header = ["CPU seconds, smallest of several runs", "this checkout", "the other checkout"][: 1 + len(checkouts)]
    rows = [[name, *(f"{seconds:.3g}" for seconds in times)] for name, times in best.items()]
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    run(main)
