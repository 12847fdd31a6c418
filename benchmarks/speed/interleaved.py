"""Timing of several variants of a task in turns, so that a disturbance of the machine affects all of them."""

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
    """The measurements of a task: one row of the table."""

    task: Task
    seconds: Mapping[str, Sequence[float]]
    """Seconds per image or per call, for each variant and round. ssd-jax comes first."""
    peak_mb: Mapping[str, float]
    """Peak resident memory of each variant's process, including the preparation."""
    results: Mapping[str, Any]
    """Result of a call of each variant."""

    @property
    def median(self) -> dict[str, float]:
        return {variant: median(rounds) for variant, rounds in self.seconds.items()}

    @property
    def ratio(self) -> float:
        """Median over the rounds of the time of ssd-jax over that of the fastest other variant."""
        fastest = min(self.task.other_variants, key=self.median.__getitem__)
        return median(a / b for a, b in zip(self.seconds[OURS], self.seconds[fastest], strict=True))


class Worker:
    """A process that runs one variant of a task on request."""

    def __init__(self, library: str, task: Task, variant: str, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.speed.worker", library, task.name, variant, str(folder)]
        self._process = subprocess.Popen(
            [*command, str(task.cores or "")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.result = self._read_answer()["result"]

    def time_round(self) -> dict[str, float]:
        assert self._process.stdin is not None
        print("again", file=self._process.stdin, flush=True)
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"{' '.join(map(str, self._process.args))}: ended early. The reason is printed above")  # type: ignore[arg-type]

    def close(self) -> None:
        self._process.communicate("")


def time_interleaved(task: Task, folder: Path, rounds: int) -> Timed:
    """Run each variant once per round. Workers start one after another and sleep while others run."""
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
