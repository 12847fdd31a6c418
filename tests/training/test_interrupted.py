"""Tests of runs that are killed, stopped by SIGTERM, run out of disk space, or have corrupt checkpoints.

The result of a resumed run must be bitwise equal to that of an uninterrupted run.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.cli import (
    ROOT,
    TINY,
    assert_same_result,
    read_last_step,
    read_log_without_timings,
    restore_latest_checkpoint,
    run_command,
    start_script,
    train_until_signal,
)
from helpers.orbax_files import (
    break_checksums,
    break_metadata,
    find_checkpoint_folders,
    flip_bit_in_largest_file,
    remove_largest_file,
    truncate_largest_file,
)

from ssd_jax.runs import run_folder
from ssd_jax.runs.log import RunLog, read_results

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals that Windows lacks")

SAVE_OFTEN = ("--train.checkpoint_every", "2")


def find_incomplete_checkpoints(run: Path) -> list[Path]:
    return list((run / "checkpoints").glob("*.orbax-checkpoint-tmp"))


# ---- killed ----


def test_killed_run_resumes_with_a_bitwise_equal_result(trained_run, tmp_path):
    run = tmp_path / "run"
    killed = train_until_signal(16, signal.SIGKILL, TINY, "--workdir", run, awaited=run / "checkpoints" / "14")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_last_step(run) == 16 and int(restore_latest_checkpoint(run).step) == 14
    assert run_command("train", TINY, "--workdir", run) == 0
    assert [line["step"] for line in read_log_without_timings(run)] == list(range(1, 31))
    assert_same_result(run, trained_run)
    assert (run / "results.csv").read_text() == (trained_run / "results.csv").read_text()


def resume_and_kill(run: Path, rng: random.Random, while_saving: bool) -> str | None:
    """Resume a run in another process, and kill the process after its first step.

    Returns:
        A text that says when the process was killed. None if the process had already finished.
    """
    before = read_last_step(run)
    stamp = (run / "log.jsonl").stat().st_mtime_ns if before else 0
    process = start_script("train.py", TINY, "--workdir", run, *SAVE_OFTEN)
    log = run / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns != stamp and read_last_step(run)):
        time.sleep(0.005)
    # Lines may be removed when the log is opened. A line that is added later shows that a step was done.
    opened = read_last_step(run)
    while process.poll() is None and read_last_step(run) <= opened:
        time.sleep(0.005)
    while process.poll() is None and while_saving and not find_incomplete_checkpoints(run):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05 if while_saving else 1.5))
    process.kill()
    _, errors = process.communicate()
    if process.returncode == 0:
        return None
    assert process.returncode == -signal.SIGKILL, errors
    return f"after step {read_last_step(run)}{', saving' if find_incomplete_checkpoints(run) else ''}"


@pytest.mark.slow
def test_run_killed_twenty_times_ends_with_a_bitwise_equal_result(trained_run, tmp_path):
    rng = random.Random(5)
    moments: list[str] = []
    runs = 0
    while len(moments) < 20:
        runs += 1
        run = tmp_path / f"run{runs}"
        while len(moments) < 20:
            moment = resume_and_kill(run, rng, while_saving=len(moments) % 2 == 0)
            if moment is None:
                break
            moments.append(moment)
        assert run_command("train", TINY, "--workdir", run, *SAVE_OFTEN) == 0
        assert not find_incomplete_checkpoints(run)
        assert_same_result(run, trained_run)
        assert (run / "results.csv").read_text() == (trained_run / "results.csv").read_text()
    print(f"{len(moments)} kills in {runs} runs: {'; '.join(moments)}")
    assert any("saving" in moment for moment in moments)


@pytest.mark.slow
def test_run_resumed_on_other_device_counts_ends_with_a_bitwise_equal_result(tmp_path):
    devices = {n: {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}", "NPROC": "8"} for n in (1, 8)}
    argv = (TINY, "--train.batch_size", "8", "--devices.virtual_shards", "8", "--train.steps", "40")

    def train(run: Path, device_count: int, stop_step: int | None) -> None:
        """Train on ``device_count`` devices. Send SIGTERM after step ``stop_step``, unless ``stop_step`` is None."""
        process = start_script("train.py", *argv, "--workdir", run, **devices[device_count])
        while stop_step is not None and process.poll() is None and read_last_step(run) < stop_step:
            time.sleep(0.01)
        if stop_step is not None:
            process.terminate()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    train(tmp_path / "whole", 8, None)
    stops = []
    for device_count, stop_step in ((8, 3), (1, 12), (8, None)):
        train(tmp_path / "run", device_count, stop_step)
        stops.append(read_last_step(tmp_path / "run"))
    assert 3 <= stops[0] < 12 <= stops[1] < stops[2] == 40
    assert [line["step"] for line in read_log_without_timings(tmp_path / "run")] == list(range(1, 41))
    assert_same_result(tmp_path / "run", tmp_path / "whole")


# ---- stopped by SIGTERM or Ctrl-C ----


def test_signal_saves_a_checkpoint_and_skips_the_evaluation(trained_run, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    log_step = RunLog.log_step
    # Step 14 is logged right before its evaluation, which the signal then interrupts.
    for step, number, name, code in ((5, signal.SIGINT, "Ctrl-C", 130), (14, signal.SIGTERM, "SIGTERM", 0)):

        def log_and_stop(
            self: RunLog, logged_step: int, values: dict[str, float], step: int = step, number: int = number
        ) -> None:
            log_step(self, logged_step, values)
            if logged_step == step:
                os.kill(os.getpid(), number)

        with monkeypatch.context() as patch:
            patch.setattr(RunLog, "log_step", log_and_stop)
            assert run_command("train", TINY, "--workdir", run) == code
        last = read_last_step(run)
        assert step <= last <= step + 1
        assert (run / "checkpoints" / str(last)).is_dir()
        printed = capsys.readouterr()
        assert f"Stopped by {name} after step {last}, which is saved" in printed.out + printed.err
        assert "A second signal" in printed.err and "Traceback" not in printed.err
    assert not read_results(run), "the interrupted evaluation is not recorded"
    assert run_command("train", TINY, "--workdir", run) == 0
    assert_same_result(run, trained_run)
    assert read_results(run) == read_results(trained_run)[1:]


# ---- a folder that disappears ----


def test_training_saves_a_checkpoint_if_its_folder_was_moved(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    log_step = RunLog.log_step

    def log_and_move(self: RunLog, logged_step: int, values: dict[str, float]) -> None:
        log_step(self, logged_step, values)
        if logged_step == 3:
            run.rename(tmp_path / "moved")

    monkeypatch.setattr(RunLog, "log_step", log_and_move)
    assert run_command("train", TINY, "--workdir", run) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert f"{run}: " in message and "moved or deleted" in message and "step 4" in message
    assert [folder.name for folder in find_checkpoint_folders(run)] == ["4"]
    assert run_folder.read_config(run) == run_folder.read_config(tmp_path / "moved")
    assert read_last_step(tmp_path / "moved") == 3


# ---- a full disk ----


@pytest.mark.slow  # trains twice
def test_training_exits_with_2_on_a_full_disk_and_can_be_resumed(trained_run, tmp_path, monkeypatch, capsys):
    resource = pytest.importorskip("resource")
    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    log_step = RunLog.log_step

    def log_and_limit_file_size(self: RunLog, step: int, values: dict[str, float]) -> None:
        log_step(self, step, values)
        if step == 17:  # The next checkpoint, of step 21, is saved without an evaluation and without pictures.
            while not (run / "checkpoints" / "14").exists():
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    monkeypatch.setattr(RunLog, "log_step", log_and_limit_file_size)
    try:
        assert run_command("train", TINY, "--workdir", run) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        monkeypatch.undo()
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"error: {run}/checkpoints:") and "step 21" in message and "File too large" in message
    wait_for_orbax_threads(run / "checkpoints")
    assert run_command("train", TINY, "--workdir", run) == 0
    assert "14 of 30 steps are done" in capsys.readouterr().out
    assert_same_result(run, trained_run)


def wait_for_orbax_threads(folder: Path) -> None:
    """Wait until the Orbax threads of a failed save in this process have not changed any file for a second."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < 1:
        files = sorted(folder.rglob("*"))
        if files != before:
            before, since = files, time.monotonic()
        time.sleep(0.05)


# ---- corrupt checkpoints ----


@pytest.fixture
def run_copy(trained_run, tmp_path) -> Path:
    """Return the folder of a copy of the finished run, which a test may change."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def test_incomplete_checkpoint_is_skipped_and_removed(run_copy, trained_run, capsys):
    latest = run_copy / "checkpoints" / "30"
    latest.rename(latest.with_name("30.orbax-checkpoint-tmp"))
    assert run_command("train", TINY, "--workdir", run_copy) == 0
    assert "28 of 30 steps are done" in capsys.readouterr().out
    assert not find_incomplete_checkpoints(run_copy)
    assert_same_result(run_copy, trained_run)


CORRUPTIONS: list[tuple[Callable[[Path], None], str]] = [
    (flip_bit_in_largest_file, "checksum of"),
    (truncate_largest_file, "checksum of"),
    (remove_largest_file, "checksum of"),
    (break_metadata, "checksum of"),
    (break_checksums, "cannot read"),
]


@pytest.mark.parametrize(("corrupt", "words"), CORRUPTIONS, ids=[corrupt.__name__ for corrupt, _ in CORRUPTIONS])
def test_corrupt_checkpoint_is_moved_and_the_previous_one_is_restored(corrupt, words, run_copy, caplog):
    latest, moved = run_copy / "checkpoints" / "30", run_copy / "damaged_checkpoints" / "30"
    corrupt(latest)
    assert restore_latest_checkpoint(run_copy).step == 28
    (message,) = (record.getMessage() for record in caplog.records)
    assert str(latest) in message and words in message
    assert str(moved) in message and "step 28" in message
    assert moved.is_dir() and not latest.exists()


def test_training_resumes_from_the_checkpoint_before_a_corrupt_one(run_copy, trained_run, capsys):
    flip_bit_in_largest_file(run_copy / "checkpoints" / "30")
    assert run_command("train", TINY, "--workdir", run_copy) == 0
    out, errors = capsys.readouterr()
    assert f"warning: {run_copy / 'checkpoints' / '30'}:" in errors
    assert "checkpoint at step 28." in out
    assert_same_result(run_copy, trained_run)


def test_train_changes_nothing_if_all_checkpoints_are_corrupt(run_copy, capsys):
    for checkpoint in (run_copy / "checkpoints").iterdir():
        flip_bit_in_largest_file(checkpoint)
    before = {file: file.read_bytes() for file in run_copy.rglob("*") if file.is_file()}
    assert run_command("train", TINY, "--workdir", run_copy) == 2
    errors = capsys.readouterr().err
    assert "error: " in errors and "--workdir" in errors
    assert all(f"{checkpoint}:" in errors for checkpoint in (run_copy / "checkpoints").iterdir())
    assert {file: file.read_bytes() for file in run_copy.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("argv", [("evaluate", "--checkpoint", "last"), ("predict", str(ROOT))])
def test_evaluate_and_predict_reject_a_corrupt_checkpoint(argv, run_copy, capsys):
    for checkpoint in (run_copy / "checkpoints").iterdir():
        truncate_largest_file(checkpoint)
    assert run_command(argv[0], run_copy, *argv[1:]) == 2
    errors = capsys.readouterr().err
    assert f"error: {run_copy / 'checkpoints'}" in errors and "checksum of" in errors
    assert "Traceback" not in errors
    assert json.loads((run_copy / "config.json").read_text())["name"] == "tiny"
