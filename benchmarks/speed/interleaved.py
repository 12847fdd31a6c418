"""Time several variants of a task in turns, so that other load on the machine affects all of them."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed.tasks import OURS, Task
from ssd_jax.errors import UserError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Timed:
    """Measurements of a task, which become one row of the table."""

    task: Task
    seconds: Mapping[str, Sequence[float]]
    """Seconds per image, or per call, in each round, by variant. ssd-jax is the first variant."""
    peak_mb: Mapping[str, float]
    """Peak resident memory in MB of the process of each variant, including the preparation of the task."""
    results: Mapping[str, Any]
    """Result of one call, by variant."""

    @property
    def median(self) -> dict[str, float]:
        """Median of the seconds over the rounds, by variant."""
        return {variant: median(rounds) for variant, rounds in self.seconds.items()}

    @property
    def ratio(self) -> float:
        """Median ratio, over the rounds, of the time of ssd-jax to the time of the fastest other variant."""
        fastest = min(self.task.other_variants, key=self.median.__getitem__)
        return median(a / b for a, b in zip(self.seconds[OURS], self.seconds[fastest], strict=True))


class Worker:
    """A process that prepares one variant of a task and times it on request."""

    def __init__(self, library: str, task: Task, variant: str, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.speed.worker", library, task.name, variant, str(folder)]
        self._process = subprocess.Popen(
            [*command, str(task.cores or "")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.result = self._read_answer()["result"]

    def time_round(self) -> dict[str, float]:
        """Run the task for one round and return the seconds per call and the peak memory in MB."""
        assert self._process.stdin is not None
        print("again", file=self._process.stdin, flush=True)
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        """Return the next JSON object that the process prints.

        Raises:
            UserError: If the process ends before it prints a JSON object.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"{' '.join(map(str, self._process.args))}: ended early. The reason is printed above")  # type: ignore[arg-type]

    def close(self) -> None:
        """End the worker process."""
        self._process.communicate("")


def time_interleaved(task: Task, folder: Path, rounds: int) -> Timed:
    """Time the variants of a task in turns, once per round, and return the measurements.

    The workers start one after another. Each worker waits while another one runs.
    """
    libraries = {OURS: "ssd_jax_side", **dict.fromkeys(task.other_variants, "torchvision_side")}
    workers: dict[str, Worker] = {}
    try:
        for variant, library in libraries.items():
            workers[variant] = Worker(library, task, variant, folder)
        answers = [
            {variant: worker.time_round() for variant, worker in workers.items()} for _ in range(task.rounds or rounds)
        ]
    finally:
        for worker in workers.values():
            worker.close()
    return Timed(
        task,
        {variant: [answer[variant]["seconds"] / (task.images or 1) for answer in answers] for variant in libraries},
        {variant: answers[-1][variant]["peak_mb"] for variant in libraries},
        {variant: worker.result for variant, worker in workers.items()},
    )
