"""Time whole processes that read one image file and write the image with the detected boxes drawn."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.speed.interleaved import ROOT, Timed
from benchmarks.speed.tasks import DEFAULT, OURS, Task
from ssd_jax.errors import UserError

PREDICT = Task("predict", "predict.py on one image, whole process, compiled programs cached", 0, (DEFAULT,), 1.0)
FIRST = "ssd-jax, empty compilation cache"


# On Linux, the peak memory of a forked process includes the memory of its parent. Therefore, this small program starts
# and measures each script.
WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(status, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


class ProcessResult(NamedTuple):
    """Wall time and peak memory of a finished process."""

    seconds: float
    peak_mb: float


def run_script(*command: str | Path, **environment: str) -> ProcessResult:
    """Run Python in a new process, and return the wall time and the peak memory of the process.

    Args:
        command: Arguments of Python.
        environment: Environment variables to set in addition.

    Raises:
        UserError: If the process fails.
    """
    watched = [sys.executable, "-c", WATCH, sys.executable, *map(str, command)]
    finished = subprocess.run(
        watched, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    status, seconds, peak_mb = finished.stdout.split()
    if status != "0":
        raise UserError(f"{' '.join(map(str, command))}: ended with status {status}. The reason is printed above")
    return ProcessResult(float(seconds), float(peak_mb))


def time_predict(folder: Path, rounds: int) -> Timed:
    """Time predict.py and the torchvision script with the same weights, and return the measurements.

    The compilation cache is kept between the runs, as it is for users. The time of the first run, with an empty cache,
    is in the results.
    """
    weights, photo = folder / "weights.pth", folder / "000.jpg"
    torchvision_command = ("-m", "benchmarks.speed.torchvision_predict", weights)
    run_script(*torchvision_command, "--make")
    run_script("-m", "ssd_jax", "import-weights", weights, "--out", folder / "run")
    ssd_jax_command = ("predict.py", folder / "run", photo, "--out", folder / "ssd_jax")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    first = run_script(*ssd_jax_command, **cache)
    run_script(*torchvision_command, photo, folder / "torchvision.jpg")  # not timed, to fill the file cache
    finished = [
        (run_script(*ssd_jax_command, **cache), run_script(*torchvision_command, photo, folder / "torchvision.jpg"))
        for _ in range(rounds)
    ]
    return Timed(
        PREDICT,
        {OURS: [a.seconds for a, _ in finished], DEFAULT: [b.seconds for _, b in finished]},
        {OURS: max(a.peak_mb for a, _ in finished), DEFAULT: max(b.peak_mb for _, b in finished)},
        {FIRST: first.seconds},
    )
