"""Helpers that run commands in this process or in another one, and that compare the resulting runs."""

import functools
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
from ssd_jax.runs.checkpoint import Checkpoints, RestoredCheckpoint
from ssd_jax.runs.log import read_log
from ssd_jax.runtime import sharding
from ssd_jax.training import loop
from ssd_jax.training.train_step import compute_state_shapes

TINY = str(TESTS / "helpers" / "tiny_config.py")

# All runs of one config in a test process share one training step, which takes seconds to trace.
loop.make_train_step = functools.cache(loop.make_train_step)


def run_command(*argv: str | Path) -> int:
    """Run ``ssd-jax ARGV`` in this process, and return the exit code."""
    try:
        return main([str(word) for word in argv])
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


def start_script(script: str, *argv: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start a script, such as ``train.py``, in a new process, and return the process."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, argv)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


_STOPPED_AT = """
import os, pathlib, sys, time
from ssd_jax.runs.log import RunLog
from ssd_jax.__main__ import main

step, number, awaited = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
log_step = RunLog.log_step

def log_and_stop(self, at, values):
    log_step(self, at, values)
    if at == step:
        while not awaited.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

RunLog.log_step = log_and_stop
sys.exit(main(sys.argv[4:]))
"""


def train_until_signal(
    step: int, signal: int, *argv: str | Path, awaited: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run ``train ARGV`` in a new process that sends itself a signal right after it has logged a step.

    Args:
        step: Number of the step.
        signal: Number of the signal.
        argv: Arguments of the command.
        awaited: File that must exist before the signal is sent, such as a checkpoint that is written in the background.
    """
    return subprocess.run(
        [sys.executable, "-c", _STOPPED_AT, str(step), str(int(signal)), str(awaited), "train", *map(str, argv)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, check=False,
    )  # fmt: skip


def read_last_step(run: Path) -> int:
    """Return the number of the last step in the log.jsonl of a run, or 0 if there is none."""
    return max((int(line["step"]) for line in read_log(run)), default=0)


def restore_latest_checkpoint(run: Path) -> RestoredCheckpoint:
    """Restore the checkpoint from which training would resume, and return it."""
    config = run_folder.read_config(run)
    trees = loop.make_checkpoint_trees(compute_state_shapes(config, sharding.make_mesh()))
    with Checkpoints(run / "checkpoints") as checkpoints:
        saved = checkpoints.resume(trees, config.model.class_names)
    assert saved is not None
    return saved


def read_log_without_timings(run: Path) -> list[dict[str, float]]:
    """Return the lines of log.jsonl without timings, which differ between any two runs."""
    timings = ("time", "images_per_second", "waited_for_data")
    return [{k: v for k, v in line.items() if k not in timings} for line in read_log(run)]


def assert_same_result(run: Path, expected: Path) -> None:
    """Assert that two runs have exactly equal logs, parameters, moving averages and optimizer states."""
    assert read_log_without_timings(run) == read_log_without_timings(expected)
    trees, expected_trees = restore_latest_checkpoint(run).trees, restore_latest_checkpoint(expected).trees
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected_trees)]
    assert set(expected_trees["training"]) == {"opt_state", "params"} and any(".mu" in name for name in names)
    for name, one, two in zip(names, jax.tree.leaves(trees), jax.tree.leaves(expected_trees), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes(), name


def write_voc_folder(
    root: Path, splits: dict[str, int], *, extra_objects: Sequence[tuple[str, tuple[float, ...]]] = ()
) -> Path:
    """Create a folder in VOC layout with generated PNG images of 64 x 64 pixels, and return its path.

    Args:
        root: Folder to create.
        splits: Number of images of each split.
        extra_objects: Class names and xyxy boxes in pixels that are added to the first image of the first split.
    """
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
            (root / "Annotations" / f"{stem}.xml").write_text(_make_annotation_xml(f"{stem}.png", objects))
    return root


def _make_annotation_xml(filename: str, objects: Sequence[tuple[str, Sequence[float]]]) -> str:
    text = f"<annotation><filename>{filename}</filename><size><width>64</width><height>64</height></size>"
    for name, box in objects:
        edges = "".join(f"<{tag}>{x}</{tag}>" for tag, x in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        text += f"<object><name>{name}</name><bndbox>{edges}</bndbox></object>"
    return text + "</annotation>"
