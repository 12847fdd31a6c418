"""Prepare one variant of a task, and time it on request.

    python -m benchmarks.speed.worker LIBRARY TASK VARIANT FOLDER CORES

The process prepares the task, runs it twice and prints the result. Then, for each line on standard input, it runs the
task for about half a second and prints the seconds per call. It sleeps while it waits for a line.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

MIN_SECONDS = 0.5  # duration of a round


def main(library: str, task: str, variant: str, folder: str, cores: str) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    prepare = getattr(importlib.import_module(f"benchmarks.speed.{library}"), f"prepare_{task}")
    call = prepare(Path(folder), variant)
    result = call()
    start = time.perf_counter()
    call()
    calls = max(1, round(MIN_SECONDS / (time.perf_counter() - start)))
    print_answer({"result": result})
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        seconds = (time.perf_counter() - start) / calls
        print_answer({"seconds": seconds, "peak_mb": read_peak_mb()})


def read_peak_mb() -> float:
    """Return the peak resident memory of this process in MB. On Windows, it is not a number.

    On Linux, getrusage would include the memory of the process that this process was forked from.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        try:
            import resource
        except ImportError:
            return float("nan")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def print_answer(values: dict) -> None:
    """Print values as a line of JSON for the process that started this worker."""
    print("\n" + json.dumps(values), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
