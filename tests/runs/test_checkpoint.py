"""Checkpoints: what comes back, which stay, and what is said of one that does not fit or could not be written."""

import errno
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssd_jax.errors import UserError
from ssd_jax.runs.checkpoint import Checkpoints

NAMES = ("cat", "dog")
METADATA = {"config": {"model": {"class_names": list(NAMES)}}, "stream": {"next_index": 7}}


def trees(seed: int = 0, **kernels: tuple[int, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"conv1_1": (3, 3, 3, 8), "conv1_2": (3, 3, 8, 8)} | kernels
    params = {name: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)} for name, shape in shapes.items()}
    return {"params": params, "training": {"opt_state": (jnp.int32(seed), {"mu": jnp.ones(5) / 3})}}


def saved(folder: Path, *steps: tuple[int, float | None]) -> Path:
    with Checkpoints(folder, for_writing=True) as checkpoints:
        for step, metric in steps:
            checkpoints.save(step, trees(step), METADATA, metric)
    return folder


def assert_holds(folder: Path, step: int) -> None:
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(step, trees(), NAMES)
    jax.tree.map(np.testing.assert_array_equal, restored.trees, trees(step))
    assert restored.metadata == METADATA


def test_comes_back_bit_for_bit(tmp_path):
    assert_holds(saved(tmp_path / "c", (7, None)), 7)


def test_parameters_alone(tmp_path):
    with Checkpoints(saved(tmp_path / "c", (7, None))) as checkpoints:
        restored = checkpoints.restore(7, {"params": trees()["params"]}, NAMES).trees
    assert list(restored) == ["params"]


@pytest.mark.parametrize(
    ("metrics", "kept", "best"),
    [
        ([0.5, 0.9, 0.3, 0.2, None], [2, 4, 5], 2),
        ([0.5, None, 0.9], [2, 3], 3),
        ([None, None, None], [2, 3], None),
        ([0.0, None, None], [1, 2, 3], 1),
        ([None], [1], None),
    ],
)
def test_latest_two_and_best_stay(tmp_path, metrics, kept, best):
    with Checkpoints(saved(tmp_path / "c", *enumerate(metrics, start=1))) as checkpoints:
        assert sorted(checkpoints.steps) == kept
        assert (checkpoints.latest, checkpoints.best) == (len(metrics), best)


def test_none_yet(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert (checkpoints.latest, checkpoints.best) == (None, None)


def test_half_written_one_is_cleared_by_the_writer_alone(tmp_path):
    folder = saved(tmp_path / "c", (1, None))
    half = folder / "2.orbax-checkpoint-tmp"
    shutil.copytree(folder / "1", half)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest == 1
        assert half.exists(), "it may be that of a run that is just saving"
    with Checkpoints(folder, for_writing=True) as checkpoints:
        assert checkpoints.latest == 1
        checkpoints.save(3, trees(3), METADATA)
    assert not half.exists()


def test_other_architecture_is_told_by_parameter_and_shape(tmp_path):
    with Checkpoints(saved(tmp_path / "c", (1, None))) as checkpoints:
        like = trees(conv1_2=(3, 3, 8, 16), conv2_1=(3, 3, 16, 16))
        del like["params"]["conv1_1"]
        with pytest.raises(UserError) as error:
            checkpoints.restore(1, like, NAMES)
    first, *lines = str(error.value).splitlines()
    assert str(tmp_path / "c" / "1") in first
    assert [line.strip() for line in lines] == [
        "conv1_1/kernel: (3, 3, 3, 8), not in this model",
        "conv1_2/kernel: (3, 3, 8, 8), (3, 3, 8, 16) expected",
        "conv2_1/kernel: missing, (3, 3, 16, 16) expected",
    ]


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        (("cat", "cow"), ["only in the checkpoint: dog", "only in config.json: cow"]),
        (("cat",), ["only in the checkpoint: dog"]),
        (
            ("dog", "cat"),
            ["the same names in another order", "in the checkpoint: cat, dog", "in config.json: dog, cat"],
        ),
    ],
)
def test_other_classes_are_told(tmp_path, names, lines):
    with Checkpoints(saved(tmp_path / "c", (1, None))) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(1, trees(), names)
    first, *rest = str(error.value).splitlines()
    assert str(tmp_path / "c" / "1") in first and str(tmp_path / "config.json") in first
    assert [line.strip() for line in rest] == lines


def test_damaged_one_is_named(tmp_path):
    folder = saved(tmp_path / "c", (1, None))
    for file in (folder / "1" / "params" / "d").iterdir():
        file.write_bytes(b"")
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(UserError, match=r"c/1: this checkpoint is corrupt.*params/d/"),
    ):
        checkpoints.restore(1, trees(), NAMES)


# ---- a full disk ----


def assert_full_disk_is_told(folder: Path, fill: Callable[[], object], reason: str, caplog: Any) -> None:
    """Saves step 1, then step 2, which is larger by megabytes, and looks at what is left."""
    large = trees(2, fc6=(1000, 1000))
    with caplog.at_level(logging.ERROR), Checkpoints(folder, for_writing=True) as checkpoints:
        checkpoints.save(1, trees(1), METADATA, 0.5)
        fill()
        with pytest.raises(UserError, match=rf"the checkpoint of step 2 could not be written \({reason}\).*Free some"):
            checkpoints.save(2, large, METADATA, 0.9)
            checkpoints.wait_until_finished()
    assert not caplog.records, "one message is enough"
    assert_holds(folder, 1)


def test_disk_full_by_the_writer(tmp_path, monkeypatch, caplog):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        monkeypatch.setattr("orbax.checkpoint.v1.training.Checkpointer.save_checkpointables_async", full)

    assert_full_disk_is_told(tmp_path / "c", fill, "No space left on device", caplog)


# Orbax raises what a save failed of from each of its threads; those nobody waits for any more are no news.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_disk_full_by_a_limit_on_files(tmp_path, caplog):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        fill = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # noqa: E731
        assert_full_disk_is_told(tmp_path / "c", fill, "File too large", caplog)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_disk_full_in_earnest(tmp_path, caplog):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a disk of one megabyte: {mounted.stderr.decode().strip()}")
    try:
        assert_full_disk_is_told(tmp_path / "c", lambda: None, "No space left on device", caplog)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_other_errors_of_the_writer_stay_what_they_are(tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("orbax.checkpoint.v1.training.Checkpointer.save_checkpointables_async", broken)
    with Checkpoints(tmp_path / "c", for_writing=True) as checkpoints, pytest.raises(ValueError, match="a bug"):
        checkpoints.save(1, trees(), METADATA)
