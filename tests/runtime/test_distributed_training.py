"""Tests of ``train`` and ``evaluate`` with two processes on this machine, each with one device."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.cli import TINY, assert_same_result, read_last_step, run_command, start_script
from helpers.orbax_files import find_checkpoint_folders, find_largest_array_file
from helpers.processes import FinishedProcess, find_free_address, make_environment, wait_until_finished

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals that Windows lacks")

HEARTBEAT = 25  # seconds; with a shorter limit, a live process on a busy machine may count as dead


def make_train_options(steps: int) -> tuple[str | Path, ...]:
    return (TINY, "--train.steps", str(steps), "--train.checkpoint_every", "3", "--train.eval_every", "0",
            "--data.shapes.test_images", "5")  # fmt: skip


def start_two_processes(
    script: str, *argv: str | Path, second: tuple[str, ...] = (), heartbeat: int = 100
) -> list[subprocess.Popen[str]]:
    """Start a script in the two processes of a run, and return the processes.

    Only the second process gets the options ``second``.
    """
    common = ("--coordinator", find_free_address(), "--process-count", "2", "--process-index")
    variables = make_environment(1, SSD_JAX_HEARTBEAT_SECONDS=heartbeat)
    return [start_script(script, *argv, *common, str(i), *second[: i * len(second)], **variables) for i in range(2)]


def train_with_two_processes(steps: int, run: Path) -> list[FinishedProcess]:
    ended = wait_until_finished(start_two_processes("train.py", *make_train_options(steps), "--workdir", run))
    assert [process.code for process in ended] == [0, 0], ended
    return ended


@pytest.fixture(scope="module")
def run_of_two_processes(tmp_path_factory) -> tuple[Path, list[FinishedProcess]]:
    """Train for four steps with two processes. Return the run folder and the finished processes."""
    run = tmp_path_factory.mktemp("distributed") / "run"
    return run, train_with_two_processes(4, run)


@pytest.mark.slow
def test_train_with_two_processes_writes_one_run_folder(run_of_two_processes):
    run, (first, second) = run_of_two_processes
    assert "Done." in first.out
    assert all(line.startswith(("[Gloo]", "Waiting up to")) for line in second.out.splitlines())
    assert read_last_step(run) == 4
    assert [folder.name for folder in find_checkpoint_folders(run)] == ["3", "4"]
    assert all((folder / "checksums.json").is_file() for folder in find_checkpoint_folders(run))
    assert len((run / "log.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_evaluate_with_two_processes_counts_each_image_once(run_of_two_processes, tmp_path):
    """The five images are evaluated in batches of four images, which are split over the two processes."""
    run = Path(shutil.copytree(run_of_two_processes[0], tmp_path / "run"))
    assert run_command("evaluate", run) == 0
    expected = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").unlink()
    ended = wait_until_finished(start_two_processes("evaluate.py", run))
    assert [process.code for process in ended] == [0, 0], ended
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["images"] == 5
    assert metrics == expected


def test_train_rejects_processes_with_different_configs(tmp_path):
    ended = wait_until_finished(
        start_two_processes("train.py", TINY, "--workdir", tmp_path / "run", second=("--train.seed", "1"))
    )
    for process in ended:
        assert process.code == 2, process
        assert "the config" in process.err and "of process 1" in process.err
        assert "Traceback" not in process.err
    assert not (tmp_path / "run").exists()


def test_train_rejects_process_index_without_coordinator(tmp_path, capsys):
    assert run_command("train", TINY, "--workdir", tmp_path / "run", "--process-index", "0") == 2
    assert "--coordinator" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# ---- interrupted runs, which take minutes ----

STEPS = 40


@pytest.fixture(scope="module")
def uninterrupted_run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("distributed") / "uninterrupted"
    train_with_two_processes(STEPS, run)
    return run


@pytest.mark.slow
def test_train_gives_the_same_result_with_one_process_of_two_devices(uninterrupted_run, tmp_path):
    process = start_script("train.py", *make_train_options(STEPS), "--workdir", tmp_path / "run", **make_environment(2))
    (ended,) = wait_until_finished([process])
    assert ended.code == 0, ended.err
    assert_same_result(tmp_path / "run", uninterrupted_run)


def wait_for_step(run: Path, step: int, processes: list[subprocess.Popen[str]]) -> None:
    while read_last_step(run) < step and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    assert read_last_step(run) >= step, wait_until_finished(processes)


def train_and_kill_one_process(run: Path, killed: int, step: int) -> FinishedProcess:
    """Train with two processes, kill one of them after a step, and return the other one after it has ended."""
    processes = start_two_processes("train.py", *make_train_options(STEPS), "--workdir", run, heartbeat=HEARTBEAT)
    wait_for_step(run, step, processes)
    processes[killed].kill()
    start_time = time.monotonic()
    ended = wait_until_finished(processes)
    assert time.monotonic() - start_time < 4 * HEARTBEAT
    assert ended[killed].code == -signal.SIGKILL
    return ended[1 - killed]


def assert_message_says_how_to_resume(survivor: FinishedProcess, run: Path) -> None:
    assert survivor.code not in (0, -signal.SIGKILL)
    message = survivor.err.strip().splitlines()[-1]
    assert str(run) in message and "same command" in message


@pytest.mark.slow
def test_train_resumes_exactly_after_sigterm_two_kills_and_a_corrupt_checkpoint(uninterrupted_run, tmp_path):
    run = tmp_path / "run"
    processes = start_two_processes("train.py", *make_train_options(STEPS), "--workdir", run)
    wait_for_step(run, 2, processes)
    processes[1].terminate()
    first, second = wait_until_finished(processes)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    stopped = read_last_step(run)
    assert f"step {stopped}" in first.out.splitlines()[-1]
    assert stopped < STEPS and (run / "checkpoints" / str(stopped) / "checksums.json").is_file()
    assert_message_says_how_to_resume(train_and_kill_one_process(run, 1, stopped + 2), run)
    assert_message_says_how_to_resume(train_and_kill_one_process(run, 0, stopped + 4), run)
    latest = find_checkpoint_folders(run)[-1]
    file = find_largest_array_file(latest)
    os.truncate(file, file.stat().st_size // 2)
    first, _ = train_with_two_processes(STEPS, run)
    assert str(run / "damaged_checkpoints" / latest.name) in first.err
    assert_same_result(run, uninterrupted_run)
