"""Whole programs, from the start of the process to its end: a picture with boxes in it, from one photograph."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.speed.turns import ROOT, Timed
from benchmarks.speed.works import DEFAULT, OURS, Work
from ssd_jax.errors import UserError

PREDICT = Work("predict", "predict.py on one picture, whole, programs compiled before", 0, (DEFAULT,), 1.0)
FIRST = "ssd-jax, first time"


# A small process in between: Linux counts as a process's largest memory that of the one it was forked from, too.
WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(status, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


class Ended(NamedTuple):
    seconds: float
    peak_mb: float


def run(*command: str | Path, **environment: str) -> Ended:
    watched = [sys.executable, "-c", WATCH, sys.executable, *map(str, command)]
    told = subprocess.run(
        watched, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    status, seconds, peak_mb = told.stdout.split()
    if status != "0":
        raise UserError(f"{' '.join(map(str, command))}: ended with status {status}; above is why")
    return Ended(float(seconds), float(peak_mb))


def time_predict(folder: Path, rounds: int) -> Timed:
    """Ours and torchvision's, with the same weights. What ours has compiled is kept, as for every user; the first
    time, with nothing kept, is told apart."""
    weights, photograph = folder / "weights.pth", folder / "000.jpg"
    theirs = ("-m", "benchmarks.speed.torchvision_predict", weights)
    run(*theirs, "--make")
    run("-m", "ssd_jax", "import-weights", weights, "--out", folder / "run")
    ours = ("predict.py", folder / "run", photograph, "--out", folder / "ours")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    first = run(*ours, **cache)
    run(*theirs, photograph, folder / "theirs.jpg")  # once, for the disk's cache
    ended = [(run(*ours, **cache), run(*theirs, photograph, folder / "theirs.jpg")) for _ in range(rounds)]
    return Timed(
        PREDICT,
        {OURS: [a.seconds for a, _ in ended], DEFAULT: [b.seconds for _, b in ended]},
        {OURS: max(a.peak_mb for a, _ in ended), DEFAULT: max(b.peak_mb for _, b in ended)},
        {FIRST: first.seconds},
    )
