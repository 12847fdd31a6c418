"""Run folders without a training: config, logs, checkpoints without content, pictures and a report page."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers import tiny_config
from helpers.paths import ROOT
from ssd_jax.runs import run_folder

STEPS = 100


def make_log_line(step: int, loss: float) -> str:
    """Return a line of log.jsonl."""
    values = {"step": step, "loss": loss, "learning_rate": 0.01, "images_per_second": 8.0}
    return json.dumps(values) + "\n"


def make_run(folder: Path, *, logged: int = 10, saved: Sequence[int] = (), **train: Any) -> Path:
    """Create a run folder, and return it.

    Args:
        folder: Folder to create.
        logged: Number of lines of log.jsonl, one for every ten steps, with the loss 100 / step.
        saved: Steps of the checkpoints.
        train: Options of the section ``train`` of the config.
    """
    config = tiny_config.get_config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **{"steps": STEPS} | train))
    run_folder.write_config(folder, config)
    (folder / "log.jsonl").write_text("".join(make_log_line(10 * i, 10 / i) for i in range(1, logged + 1)))
    for step in saved:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    return folder


def make_finished_run(folder: Path) -> Path:
    """Create a finished run with two evaluations, pictures, a report page and metrics.json, and return its folder."""
    make_run(folder, saved=(50, STEPS))
    (folder / "results.csv").write_text("step,loss,voc_map_area,coco_ap\n50,0.2,0.75,0.5\n100,0.1,0.5,\n")
    (folder / "metrics.json").write_text(json.dumps({"split": "test", "voc_map_area": 0.625, "checkpoint_step": 50}))
    (folder / "report.html").write_text("<!DOCTYPE html><p>report</p>")
    for name in ("val_pred.jpg", "val_truth.jpg", "train_batch.jpg"):
        (folder / name).write_bytes(b"\xff\xd8 a picture")
    (folder / "tensorboard").mkdir()
    for seconds in (1_700_000_500, 1_700_000_000):
        (folder / "tensorboard" / f"events.out.tfevents.{seconds}.host").touch()
    return folder


_HOLD_LOCK = """
import sys
from pathlib import Path
from ssd_jax.runs.run_folder import hold_exclusive_lock
with hold_exclusive_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def locked_by_another_process(run: Path) -> Iterator[None]:
    """Let another process hold the lock of a run folder, as a training does, during the ``with`` block."""
    command = [sys.executable, "-c", _HOLD_LOCK, str(run)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)
