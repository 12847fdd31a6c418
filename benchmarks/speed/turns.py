"""Ways of doing a work, timed in turns: what else the machine does meets all of them alike."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed.works import OURS, Work
from ssd_jax.errors import UserError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Timed:
    """A row of the table."""

    work: Work
    seconds: Mapping[str, Sequence[float]]
    """Of each way, ours first: of every round, an image's or a call's."""
    peak_mb: Mapping[str, float]
    """Resident memory of the process at most, what it got ready included."""
    told: Mapping[str, Any]

    @property
    def median(self) -> dict[str, float]:
        return {way: median(rounds) for way, rounds in self.seconds.items()}

    @property
    def ratio(self) -> float:
        """Median over the rounds of ours over the better of the other ways."""
        better = min(self.work.theirs, key=self.median.__getitem__)
        return median(a / b for a, b in zip(self.seconds[OURS], self.seconds[better], strict=True))


class Worker:
    def __init__(self, library: str, work: Work, way: str, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.speed.worker", library, work.name, way, str(folder)]
        self._process = subprocess.Popen(
            [*command, str(work.cores or "")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.told = self._answer()["told"]

    def round(self) -> dict[str, float]:
        assert self._process.stdin is not None
        print("again", file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"{' '.join(map(str, self._process.args))}: ended early; above is why")  # type: ignore[arg-type]

    def close(self) -> None:
        self._process.communicate("")


def take_turns(work: Work, folder: Path, rounds: int) -> Timed:
    """Each way once a round. Workers start one after another and sleep while it is not their turn."""
    ways = {OURS: "ours", **dict.fromkeys(work.theirs, "theirs")}
    workers: dict[str, Worker] = {}
    try:
        for way, library in ways.items():
            workers[way] = Worker(library, work, way, folder)
        answers = [{way: worker.round() for way, worker in workers.items()} for _ in range(work.rounds or rounds)]
    finally:
        for worker in workers.values():
            worker.close()
    return Timed(
        work,
        {way: [answer[way]["seconds"] / (work.images or 1) for answer in answers] for way in ways},
        {way: answers[-1][way]["peak_mb"] for way in ways},
        {way: worker.told for way, worker in workers.items()},
    )
