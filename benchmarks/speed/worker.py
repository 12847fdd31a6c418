"""One way of doing one work, in a process of its own:

    python -m benchmarks.speed.worker LIBRARY WORK WAY FOLDER CORES

It gets everything ready, does the work twice, and says what came of it. For each line that it is then sent, it does the
work for at least half a second, and answers with the seconds that one call took. In between it sleeps.
"""

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path

LEAST = 0.5  # seconds


def main(library: str, work: str, way: str, folder: str, cores: str) -> None:
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    call = getattr(importlib.import_module(f"benchmarks.speed.{library}"), work)(Path(folder), way)
    told = call()
    start = time.perf_counter()
    call()
    calls = max(1, round(LEAST / (time.perf_counter() - start)))
    answer({"told": told})
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        seconds = (time.perf_counter() - start) / calls
        answer({"seconds": seconds, "peak_mb": peak_mb()})


def peak_mb() -> float:
    """Not getrusage's on Linux, which is that of the process it was forked from, if that is larger."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def answer(values: dict) -> None:
    print("\n" + json.dumps(values), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
