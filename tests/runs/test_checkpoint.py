"""Tests of saving, restoring and deleting checkpoints, and of error messages."""

import errno
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.orbax_files import copy_as_incomplete_checkpoint

from ssd_jax.errors import UserError
from ssd_jax.runs.checkpoint import Checkpoints, check_same_parameters
from ssd_jax.runs.checkpoint_integrity import CorruptCheckpointError
from ssd_jax.runs.plain_path import plain_path

NAMES = ("cat", "dog")
METADATA = {"config": {"model": {"class_names": list(NAMES)}}, "stream": {"next_index": 7}}


def make_trees(seed: int = 0, **kernels: tuple[int, ...]) -> dict[str, Any]:
    """Return trees for a checkpoint, with random kernels. ``kernels`` adds kernels or replaces shapes, by name."""
    rng = np.random.default_rng(seed)
    shapes = {"conv1_1": (3, 3, 3, 8), "conv1_2": (3, 3, 8, 8)} | kernels
    params = {name: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)} for name, shape in shapes.items()}
    return {"params": params, "training": {"opt_state": (jnp.int32(seed), {"mu": jnp.ones(5) / 3})}}


def save_steps(folder: Path, *steps: tuple[int, float | None]) -> Path:
    """Save a checkpoint for each pair of a step and a metric, and return the folder of the checkpoints."""
    with Checkpoints(folder, for_writing=True) as checkpoints:
        for step, metric in steps:
            checkpoints.save(step, make_trees(step), METADATA, metric)
    return folder


def assert_checkpoint_is_restored(folder: Path, step: int) -> None:
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.restore(step, make_trees(), NAMES)
    jax.tree.map(np.testing.assert_array_equal, restored.trees, make_trees(step))
    assert restored.metadata == METADATA


def test_restore_returns_exactly_the_saved_arrays(tmp_path):
    assert_checkpoint_is_restored(save_steps(tmp_path / "c", (7, None)), 7)


def test_restore_reads_only_the_requested_trees(tmp_path):
    with Checkpoints(save_steps(tmp_path / "c", (7, None))) as checkpoints:
        restored = checkpoints.restore(7, {"params": make_trees()["params"]}, NAMES).trees
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
def test_save_keeps_the_latest_two_checkpoints_and_the_best_one(tmp_path, metrics, kept, best):
    with Checkpoints(save_steps(tmp_path / "c", *enumerate(metrics, start=1))) as checkpoints:
        assert sorted(checkpoints.steps) == kept
        assert (checkpoints.latest, checkpoints.best) == (len(metrics), best)


def test_latest_and_best_are_none_without_checkpoints(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert (checkpoints.latest, checkpoints.best) == (None, None)


def test_incomplete_checkpoints_are_deleted_only_when_opened_for_writing(tmp_path):
    folder = save_steps(tmp_path / "c", (1, None))
    incomplete = copy_as_incomplete_checkpoint(folder, 1, as_step=2)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest == 1
        assert incomplete.exists(), "a run may just be writing it"
    with Checkpoints(folder, for_writing=True) as checkpoints:
        assert checkpoints.latest == 1
        checkpoints.save(3, make_trees(3), METADATA)
    assert not incomplete.exists()


def test_parameter_names_are_those_of_the_checkpoint(tmp_path):
    folder = tmp_path / "c"
    with Checkpoints(folder, for_writing=True) as checkpoints:
        checkpoints.save(1, {"params": {"vgg": {"conv1_1": jnp.ones(2), "l2norm": jnp.ones(2)}}}, METADATA)
    with Checkpoints(folder) as checkpoints:
        assert sorted(checkpoints.parameter_names(1, "vgg")) == ["conv1_1", "l2norm"]
        with pytest.raises(CorruptCheckpointError):
            checkpoints.parameter_names(1, "another module")


def test_restore_lists_parameters_that_differ_from_the_model(tmp_path):
    with Checkpoints(save_steps(tmp_path / "c", (1, None))) as checkpoints:
        target = make_trees(conv1_2=(3, 3, 8, 16), conv2_1=(3, 3, 16, 16))
        del target["params"]["conv1_1"]
        with pytest.raises(UserError) as error:
            checkpoints.restore(1, target, NAMES)
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
def test_restore_lists_classes_that_differ_from_the_config(tmp_path, names, lines):
    with Checkpoints(save_steps(tmp_path / "c", (1, None))) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(1, make_trees(), names)
    first, *rest = str(error.value).splitlines()
    assert str(tmp_path / "c" / "1") in first and str(tmp_path / "config.json") in first
    assert [line.strip() for line in rest] == lines


def test_check_same_parameters_lists_at_most_20_parameters(tmp_path):
    expected = {f"conv{i}": jnp.ones(1) for i in range(25)}
    with pytest.raises(UserError) as error:
        check_same_parameters(tmp_path, {}, expected)
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + 20 + 1 and lines[1].strip().startswith("conv0: missing") and "5 more" in lines[-1]


# ---- folders of any name ----


@pytest.mark.parametrize("name", ["exp[1]", "back\\slash", "logs:", os.fsdecode(b"caf\xe9")])
def test_checkpoints_can_be_read_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name / "run" / "c"
    folder.parent.mkdir(parents=True)
    save_steps(folder, (1, 0.5), (2, 0.3), (3, 0.2), (4, 0.1))
    assert_checkpoint_is_restored(folder, 1)
    with Checkpoints(folder) as checkpoints:
        assert (checkpoints.steps, checkpoints.best) == ([1, 3, 4], 1)


def test_plain_path_is_the_path_itself_or_a_temporary_link(tmp_path):
    with plain_path(Path("/a b/c-1/d.2")) as path:
        assert path == Path("/a b/c-1/d.2")
    for name in ("a*", "a?", "[a]", "\\", "a:", "é", "a\nb", "~", "%20", "{a}", "'"):
        (tmp_path / name).mkdir()
        with plain_path(tmp_path / name / "c") as path:
            assert re.fullmatch(r"[\w./-]+", str(path), re.ASCII) and path.name == "c"
            path.mkdir()
        assert (tmp_path / name / "c").is_dir()
        assert not path.exists() and not path.parent.parent.exists(), "the link is removed"


@pytest.mark.parametrize("root", ["/gs/a", "/s3/a"])
def test_plain_path_does_not_look_like_cloud_storage(root):
    with plain_path(Path(root) / "c") as path:
        assert path.parent.is_symlink()


# ---- the first checkpoint is read back ----


def test_first_save_fails_if_the_checkpoint_cannot_be_read_back(tmp_path, monkeypatch):
    def return_nothing(path: Path) -> Any:
        return SimpleNamespace(metadata={}, custom_metadata=METADATA)

    folder = save_steps(tmp_path / "c", (1, None))
    monkeypatch.setattr("orbax.checkpoint.v1.checkpointables_metadata", return_nothing)
    with pytest.raises(UserError, match=rf"{tmp_path / 'd' / '1'}: .*cannot be read back.*--workdir"):
        save_steps(tmp_path / "d", (1, None))
    save_steps(folder, (2, None))  # only the first checkpoint of a run is read


def test_first_save_fails_if_other_parameters_are_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("orbax.checkpoint.v1.load_checkpointables", lambda *_: make_trees(2))
    with pytest.raises(UserError, match="parameters differ"):
        save_steps(tmp_path / "c", (1, None))


# ---- logs of other libraries ----


def test_checkpoints_drop_orbax_logs_only_while_they_are_open(tmp_path, caplog):
    absl, asyncio = logging.getLogger("absl"), logging.getLogger("asyncio")
    before = [list(logger.filters) for logger in (absl, asyncio)]
    with Checkpoints(tmp_path / "a"), Checkpoints(tmp_path / "b"):
        absl.error("a message of another library")
        absl.error("of tensorstore")
        asyncio.error("Task exception was never retrieved: tensorstore")
        absl.handle(logging.LogRecord("absl", logging.ERROR, "/lib/orbax/future.py", 1, "a thread failed", (), None))
    assert [list(logger.filters) for logger in (absl, asyncio)] == before
    absl.error("of tensorstore, later")
    assert [record.getMessage() for record in caplog.records] == [
        "a message of another library", "of tensorstore, later",
    ]  # fmt: skip


# ---- a full disk ----


def assert_full_disk_is_reported(folder: Path, fill_disk: Callable[[], object], reason: str, caplog: Any) -> None:
    """Save step 1, call ``fill_disk``, and assert that saving the larger step 2 fails but leaves step 1 intact."""
    large = make_trees(2, fc6=(1000, 1000))
    with caplog.at_level(logging.ERROR), Checkpoints(folder, for_writing=True) as checkpoints:
        checkpoints.save(1, make_trees(1), METADATA, 0.5)
        checkpoints.wait_until_finished()
        fill_disk()
        with pytest.raises(UserError, match=rf"checkpoint of step 2 .*\({reason}\).*space"):
            checkpoints.save(2, large, METADATA, 0.9)
            checkpoints.wait_until_finished()
    assert not caplog.records, "nothing is logged besides the UserError"
    threads = [thread for thread in threading.enumerate() if type(thread).__module__.startswith("orbax.")]
    assert not threads, "they would log the error later"
    assert_checkpoint_is_restored(folder, 1)


def test_save_reports_an_out_of_space_error_raised_by_orbax(tmp_path, monkeypatch, caplog):
    def raise_out_of_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_disk() -> None:
        monkeypatch.setattr("orbax.checkpoint.v1.training.Checkpointer.save_checkpointables_async", raise_out_of_space)

    assert_full_disk_is_reported(tmp_path / "c", fill_disk, "No space left on device", caplog)


# Orbax raises the error of a failed save in each of its threads, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_save_reports_a_file_that_exceeds_the_size_limit(tmp_path, caplog):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        fill_disk = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # noqa: E731
        assert_full_disk_is_reported(tmp_path / "c", fill_disk, "File too large", caplog)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_save_reports_a_full_file_system(tmp_path, caplog):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.decode().strip()}")
    try:
        assert_full_disk_is_reported(tmp_path / "c", lambda: None, "No space left on device", caplog)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_save_propagates_errors_other_than_os_errors(tmp_path, monkeypatch):
    def raise_value_error(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("orbax.checkpoint.v1.training.Checkpointer.save_checkpointables_async", raise_value_error)
    with Checkpoints(tmp_path / "c", for_writing=True) as checkpoints, pytest.raises(ValueError, match="a bug"):
        checkpoints.save(1, make_trees(), METADATA)


def test_raise_if_failed_writes_the_checksums_of_a_finished_save(tmp_path):
    checksums, end = tmp_path / "c" / "1" / "checksums.json", time.monotonic() + 60
    with Checkpoints(tmp_path / "c", for_writing=True) as checkpoints:
        checkpoints.complete_if_written()
        checkpoints.save(1, make_trees(), METADATA)
        while not checksums.exists() and time.monotonic() < end:
            checkpoints.complete_if_written()
        assert checksums.is_file()


def test_exception_in_a_with_block_takes_precedence_over_a_failed_save(tmp_path, monkeypatch):
    with pytest.raises(KeyError, match="the first"), Checkpoints(tmp_path / "c", for_writing=True) as checkpoints:
        checkpoints.save(1, make_trees(), METADATA)
        monkeypatch.setattr(checkpoints, "wait_until_finished", lambda: 1 / 0)
        raise KeyError("the first")
