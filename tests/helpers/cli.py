"""Helpers for tests of the program: run commands in this process or in another one, and write a small data set."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from helpers.paths import ROOT, TESTS
from ssd_jax.__main__ import main
from ssd_jax.config import Shapes
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.runs import run_folder
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runs.log import read_log
from ssd_jax.training.loop import Trainer
from ssd_jax.training.train_step import TrainState

TINY = str(TESTS / "helpers" / "tiny_config.py")


def command(*argv: str | Path) -> int:
    """Run ``ssd-jax ...`` in this process, which keeps compiled programs, and return the exit code."""
    try:
        return main([str(word) for word in argv])
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


def start(script: str, *argv: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start a script such as train.py in another process."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, argv)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


_STOPPED_AT = """
import os, pathlib, signal, sys, time
from ssd_jax.runs.log import RunLog
from ssd_jax.__main__ import main

# Background processes of a shell ignore SIGINT, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
step, number, awaited = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
write_line = RunLog.log_step

def line(self, at, values):
    write_line(self, at, values)
    if at == step:
        while not awaited.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

RunLog.log_step = line
sys.exit(main(sys.argv[4:]))
"""


def train_stopped_at(
    step: int, signal: int, *argv: str | Path, awaited: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run ``train ...`` in a process that receives a signal right after it logged a step.

    Args:
        step: The step.
        signal: Number of the signal.
        argv: Words of the command line after ``train``.
        awaited: A file that must exist before the signal, such as a checkpoint that is written in the background.
    """
    return subprocess.run(
        [sys.executable, "-c", _STOPPED_AT, str(step), str(int(signal)), str(awaited), "train", *map(str, argv)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=False,
    )  # fmt: skip


def last_step(run: Path) -> int:
    """Return the last step of log.jsonl, or 0 if there is none."""
    return max((int(line["step"]) for line in read_log(run)), default=0)


def last_state(run: Path) -> TrainState:
    """Return the state that the run would resume from."""
    config = run_folder.read_config(run)
    loop = Trainer(config, run, ShapesSource(config.data.shapes, "train"), None)
    with Checkpoints(run / "checkpoints") as loop.checkpoints:
        return loop.resume_or_init()


def timeless(run: Path) -> list[dict[str, float]]:
    """Return the lines of log.jsonl without measured times."""
    timed = ("images_per_second", "waited_for_data")
    return [{k: v for k, v in line.items() if k not in timed} for line in read_log(run)]


def assert_ended_alike(run: Path, other: Path) -> None:
    """Check that two runs have the same logs and bitwise equal parameters, average parameters and optimizer state."""
    assert timeless(run) == timeless(other)
    here, there = last_state(run), last_state(other)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(there)]
    assert any("ema_params" in name for name in names) and any(".mu" in name for name in names)
    for name, one, two in zip(names, jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes(), name


def write_voc_folder(
    root: Path, splits: dict[str, int], *, extra_objects: Sequence[tuple[str, tuple[float, ...]]] = ()
) -> Path:
    """Write generated images of 64 px as a VOC folder. The first image of the first split gets extra_objects."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    extra = list(extra_objects)
    for split, count in splits.items():
        source = ShapesSource(Shapes(train_images=count, image_size=64, seed=len(split)), "train")
        stems = [f"{split}{i}" for i in range(count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))
        for i, stem in enumerate(stems):
            Image.fromarray(np.array(source.image(i))).save(root / "JPEGImages" / f"{stem}.png")
            annotation = source.annotation(i)
            names = [CLASS_NAMES[label - 1] for label in annotation.labels]
            objects = [*zip(names, annotation.boxes_px.tolist(), strict=True), *extra]
            extra = []
            (root / "Annotations" / f"{stem}.xml").write_text(_xml(f"{stem}.png", objects))
    return root


def _xml(filename: str, objects: Sequence[tuple[str, Sequence[float]]]) -> str:
    text = f"<annotation><filename>{filename}</filename><size><width>64</width><height>64</height></size>"
    for name, box in objects:
        edges = "".join(f"<{tag}>{x}</{tag}>" for tag, x in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        text += f"<object><name>{name}</name><bndbox>{edges}</bndbox></object>"
    return text + "</annotation>"
