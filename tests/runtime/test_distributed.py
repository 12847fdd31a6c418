"""Two processes as one run, on this machine: asked to stop, killed, given something wrong, and what they measure.

Each has a device of its own. Whatever happened to them, they end as two that nothing happened to.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.cli import TINY, assert_ended_alike, command, last_step, start

ARGV = (TINY, "--train.steps", "40", "--train.checkpoint_every", "3", "--train.eval_every", "0")
ARGV += ("--data.shapes.test_images", "5")
HEARTBEAT = 25  # seconds; a machine with much to do takes a living process for a dead one where it is less


def environment(devices: int, heartbeat: int = 100) -> dict[str, str]:
    return {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": "8",  # threads: their number decides how convolutions are cut
        "SSD_JAX_HEARTBEAT_SECONDS": str(heartbeat),
    }


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start_two(
    script: str, *argv: str | Path, others: Sequence[str] = (), heartbeat: int = 100
) -> list[subprocess.Popen[str]]:
    """others: what only the second one is given."""
    found = ("--coordinator", free_address(), "--process-count", "2", "--process-index")
    own = environment(1, heartbeat)
    return [start(script, *argv, *found, str(i), *others[: i * len(others)], **own) for i in range(2)]


class Ended(NamedTuple):
    code: int
    printed: str
    errors: str


def end(processes: list[subprocess.Popen[str]], timeout: float = 240) -> list[Ended]:
    texts = []
    try:
        texts = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:  # where one hangs
            process.kill()
    return [Ended(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def wait_for_step(run: Path, step: int, processes: list[subprocess.Popen[str]]) -> None:
    while last_step(run) < step and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    assert last_step(run) >= step, end(processes)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("hosts") / "undisturbed"
    first, second = end(start_two("train.py", *ARGV, "--workdir", run))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert "Done." in first.printed
    assert all(line.startswith(("[Gloo]", "Waiting up to")) for line in second.printed.splitlines())
    return run


def test_one_process_with_both_devices_computes_the_same_bits(undisturbed, tmp_path):
    (alone,) = end([start("train.py", *ARGV, "--workdir", tmp_path / "run", **environment(2))])
    assert alone.code == 0, alone.errors
    assert_ended_alike(tmp_path / "run", undisturbed)


def kill_one(run: Path, killed: int, step: int) -> Ended:
    """What the other one said."""
    processes = start_two("train.py", *ARGV, "--workdir", run, heartbeat=HEARTBEAT)
    wait_for_step(run, step, processes)
    processes[killed].kill()
    asked = time.monotonic()
    ended = end(processes)
    assert time.monotonic() - asked < 4 * HEARTBEAT, "bounded"
    assert ended[killed].code == -signal.SIGKILL
    return ended[1 - killed]


def assert_says_what_to_do(other: Ended, run: Path) -> None:
    assert other.code not in (0, -signal.SIGKILL)
    told = other.errors.strip().splitlines()[-1]
    assert "another process of the run died" in told
    assert f"Checkpoints in {run} are kept" in told
    assert "start all of them again with the same command" in told


def test_stopped_killed_and_damaged_they_end_as_never_disturbed(undisturbed, tmp_path):
    run = tmp_path / "run"
    # One of them is asked to stop.
    processes = start_two("train.py", *ARGV, "--workdir", run)
    wait_for_step(run, 2, processes)
    processes[1].terminate()
    first, second = end(processes)
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    stopped = last_step(run)
    assert f"Stopped after step {stopped}, which is saved" in first.printed
    assert stopped < 40 and (run / "checkpoints" / str(stopped) / "checksums.json").is_file()
    # One dies, then the other.
    assert_says_what_to_do(kill_one(run, 1, stopped + 2), run)
    assert_says_what_to_do(kill_one(run, 0, stopped + 4), run)
    # What was saved last is damaged.
    latest = max((p for p in (run / "checkpoints").iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    file = max(latest.rglob("d/*"), key=lambda file: file.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)
    first, second = end(start_two("train.py", *ARGV, "--workdir", run))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert f"Moving it to {run / 'corrupt_checkpoints' / latest.name}" in first.errors
    assert_ended_alike(run, undisturbed)


def test_evaluation_counts_each_image_once(undisturbed, tmp_path):
    """Five images, dealt out four at a time over two processes."""
    run = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    assert command("evaluate", run) == 0
    alone = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").unlink()
    first, second = end(start_two("evaluate.py", run))
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    together = json.loads((run / "metrics.json").read_text())
    assert together["images"] == alone["images"] == 5
    assert together == alone


# ---- something wrong from the start ----


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--process-index", "0"), "must be given together"),
        (("--coordinator", "localhost:1", "--process-index", "2", "--process-count", "2"), "must be at least 0"),
        (("--coordinator", "localhost", "--process-index", "0", "--process-count", "2"), "must be HOST:PORT"),
    ],
)
def test_mistaken_options(argv, words, tmp_path, capsys):
    assert command("train", TINY, "--workdir", tmp_path / "run", *argv) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_two_configs(tmp_path):
    ended = end(start_two("train.py", TINY, "--workdir", tmp_path / "run", others=("--train.seed", "1")))
    for process in ended:
        assert process.code == 2, process.errors
        assert "of process 1 differs from that of process 0" in process.errors
        assert "Traceback" not in process.errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("index", [0, 1])
def test_the_others_do_not_come(index, tmp_path):
    found = ("--coordinator", free_address(), "--process-count", "2", "--process-index", str(index))
    asked = time.monotonic()
    process = start("train.py", TINY, "--workdir", tmp_path / "run", *found, SSD_JAX_JOIN_SECONDS="3")
    (ended,) = end([process])
    assert time.monotonic() - asked < 90
    assert ended.code == 2
    address = found[1]
    assert f"other processes at {address}" in ended.printed
    (told,) = ended.errors.strip().splitlines()
    assert f"timed out after 3 s waiting for the other processes at {address}" in told
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_the_others_do_not_come(tmp_path):
    found = ("--coordinator", free_address(), "--process-count", "2", "--process-index", "0")
    process = start("train.py", TINY, "--workdir", tmp_path / "run", *found)
    assert process.stdout is not None
    assert "other processes" in process.stdout.readline()
    time.sleep(1)  # until it is in JAX's hands
    process.send_signal(signal.SIGINT)
    (ended,) = end([process], timeout=30)
    assert ended.code == -signal.SIGINT
    assert "timed out" in ended.errors and "Traceback" not in ended.errors


@pytest.mark.parametrize("counts", [(2, 3), (3, 2)])
def test_two_counts(counts, tmp_path):
    met = ("--workdir", tmp_path / "run", "--coordinator", free_address())
    told = [("--process-index", str(index), "--process-count", str(count)) for index, count in enumerate(counts)]
    ended = end([start("train.py", TINY, *met, *own, SSD_JAX_JOIN_SECONDS="15") for own in told])
    for process in ended:
        assert process.code == 2, process.errors
        assert "--process-count" in process.errors and "Traceback" not in process.errors
    if counts == (2, 3):
        assert "--process-count is 3 for process 1, but 2 for process 0" in ended[1].errors
