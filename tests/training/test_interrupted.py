"""Runs that are killed, asked to stop, or find their disk full or their checkpoints damaged: they go on, and end as
the run that nothing happened to, to the last bit.

SSD_JAX_KILLS=20 kills twenty times, and tries what takes long.
"""

import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.cli import (
    ROOT,
    TINY,
    assert_ended_alike,
    command,
    last_state,
    last_step,
    start,
    timeless,
    train_stopped_at,
)

from ssd_jax.runs.log import RunLog, read_results

KILLS = int(os.environ.get("SSD_JAX_KILLS", "3"))
OFTEN = ("--train.checkpoint_every", "2")


def being_written(run: Path) -> list[Path]:
    return list((run / "checkpoints").glob("*.orbax-checkpoint-tmp"))


# ---- killed ----


def kill_once(run: Path, chance: random.Random, while_saving: bool) -> str | None:
    """Goes on with a run and kills it, after its first step; says where, or None if it came to its end before."""
    before = last_step(run)
    stamp = (run / "log.jsonl").stat().st_mtime_ns if before else 0
    process = start("train.py", TINY, "--workdir", run, *OFTEN)
    log = run / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns != stamp and last_step(run)):
        time.sleep(0.005)
    # Opening the log may have cut it; a line more than that is a step.
    opened = last_step(run)
    while process.poll() is None and last_step(run) <= opened:
        time.sleep(0.005)
    while process.poll() is None and while_saving and not being_written(run):
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.05 if while_saving else 1.5))
    process.kill()
    _, errors = process.communicate()
    if process.returncode == 0:
        return None
    assert process.returncode == -signal.SIGKILL, errors
    return f"after step {last_step(run)}{', saving' if being_written(run) else ''}"


def test_killed_again_and_again(trained_run, tmp_path):
    chance = random.Random(5)
    moments: list[str] = []
    runs = 0
    while len(moments) < KILLS:
        runs += 1
        run = tmp_path / f"run{runs}"
        while len(moments) < KILLS:
            moment = kill_once(run, chance, while_saving=len(moments) % 2 == 0)
            if moment is None:
                break
            moments.append(moment)
        assert command("train", TINY, "--workdir", run, *OFTEN) == 0
        assert not being_written(run)
        assert_ended_alike(run, trained_run)
        assert (run / "results.csv").read_text() == (trained_run / "results.csv").read_text()
    print(f"{len(moments)} kills over {runs} runs: {'; '.join(moments)}")
    assert any("saving" in moment for moment in moments)


# ---- asked to stop ----


def test_sigterm_stops_after_the_step_and_in_an_evaluation(trained_run, tmp_path):
    run = tmp_path / "run"
    for step in (5, 14):  # 14's line is written right before it is measured on the val split
        stopped = train_stopped_at(step, signal.SIGTERM, TINY, "--workdir", run)
        assert stopped.returncode == 0, stopped.stderr
        last = last_step(run)
        assert step <= last <= step + 1
        assert (run / "checkpoints" / str(last)).is_dir()
        said = stopped.stdout.splitlines()[-1]
        assert "SIGTERM" in said and f"step {last}," in said
        assert "Traceback" not in stopped.stderr
    assert not read_results(run), "what was left is not measured"
    assert command("train", TINY, "--workdir", run) == 0
    assert_ended_alike(run, trained_run)
    assert read_results(run) == read_results(trained_run)[1:]


def test_from_eight_devices_to_one_and_back(tmp_path):
    if KILLS < 20:
        pytest.skip("four starts: asked for with SSD_JAX_KILLS=20")
    devices = {n: {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}", "NPROC": "8"} for n in (1, 8)}
    argv = (TINY, "--train.batch_size", "8", "--devices.virtual_shards", "8", "--train.steps", "40")

    def train(run: Path, number: int, until: int | None) -> None:
        process = start("train.py", *argv, "--workdir", run, **devices[number])
        while until is not None and process.poll() is None and last_step(run) < until:
            time.sleep(0.01)
        if until is not None:
            process.terminate()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    train(tmp_path / "whole", 8, None)
    stops = []
    for number, until in ((8, 3), (1, 12), (8, None)):
        train(tmp_path / "run", number, until)
        stops.append(last_step(tmp_path / "run"))
    assert 3 <= stops[0] < 12 <= stops[1] < stops[2] == 40
    assert [line["step"] for line in timeless(tmp_path / "run")] == list(range(1, 41))
    assert_ended_alike(tmp_path / "run", tmp_path / "whole")


# ---- a full disk, and damage ----


def test_disk_that_fills_while_a_checkpoint_is_written(trained_run, tmp_path, monkeypatch, capsys):
    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_line = RunLog.log_step

    def line(self: RunLog, step: int, values: dict[str, float]) -> None:
        write_line(self, step, values)
        if step == 17:  # the next to be saved, 21, is not measured: no pictures are written
            while not (run / "checkpoints" / "14").exists():
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    monkeypatch.setattr(RunLog, "log_step", line)
    try:
        assert command("train", TINY, "--workdir", run) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        monkeypatch.undo()
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{run}/checkpoints: the checkpoint of step 21 could not be written (File too large)" in told
    assert "same command" in told
    wait_for_writers(run / "checkpoints")
    assert command("train", TINY, "--workdir", run) == 0
    assert "Going on from the checkpoint of step 14." in capsys.readouterr().out
    assert_ended_alike(run, trained_run)


def wait_for_writers(folder: Path) -> None:
    """Threads of Orbax's, which the run that failed has left behind in this process; elsewhere they end with it."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < 1:
        files = sorted(folder.rglob("*"))
        if files != before:
            before, since = files, time.monotonic()
        time.sleep(0.05)


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def test_half_written_checkpoint_is_passed_over_and_cleared(run, trained_run, capsys):
    latest = run / "checkpoints" / "30"
    latest.rename(latest.with_name("30.orbax-checkpoint-tmp"))
    assert command("train", TINY, "--workdir", run) == 0
    assert "Going on from the checkpoint of step 28." in capsys.readouterr().out
    assert not being_written(run)
    assert_ended_alike(run, trained_run)


def data_file(checkpoint: Path) -> Path:
    """The largest one."""
    return max(checkpoint.rglob("d/*"), key=lambda file: file.stat().st_size)


def flip_a_byte(checkpoint: Path) -> None:
    file = data_file(checkpoint)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(checkpoint: Path) -> None:
    file = data_file(checkpoint)
    os.truncate(file, file.stat().st_size // 2)


def remove(checkpoint: Path) -> None:
    data_file(checkpoint).unlink()


def break_json(checkpoint: Path) -> None:
    next(checkpoint.rglob("_METADATA")).write_text('{"tree')


def break_checksums(checkpoint: Path) -> None:
    (checkpoint / "checksums.json").write_text('{"params')


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (flip_a_byte, "checksum of"),
    (truncate, "checksum of"),
    (remove, "checksum of"),
    (break_json, "checksum of"),
    (break_checksums, "checksums.json"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damaged_checkpoint_is_moved_and_the_one_before_it_taken(damage, words, run, caplog):
    latest, aside = run / "checkpoints" / "30", run / "corrupt_checkpoints" / "30"
    damage(latest)
    assert int(last_state(run).step) == 28
    (told,) = (record.getMessage() for record in caplog.records)
    assert str(latest) in told and words in told
    assert str(aside) in told and "step 28" in told
    assert aside.is_dir() and not latest.exists()


def test_training_goes_on_past_a_damaged_checkpoint(run, trained_run, capsys):
    flip_a_byte(run / "checkpoints" / "30")
    assert command("train", TINY, "--workdir", run) == 0
    out, errors = capsys.readouterr()
    assert f"warning: {run / 'checkpoints' / '30'}: this checkpoint is corrupt, " in errors
    assert "Going on from the checkpoint of step 28." in out
    assert_ended_alike(run, trained_run)


def test_all_checkpoints_damaged(run, capsys):
    for checkpoint in (run / "checkpoints").iterdir():
        flip_a_byte(checkpoint)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert command("train", TINY, "--workdir", run) == 2
    errors = capsys.readouterr().err
    assert "no intact checkpoint" in errors and "--workdir" in errors
    assert all(f"{checkpoint}: this checkpoint is corrupt" in errors for checkpoint in (run / "checkpoints").iterdir())
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("argv", [("evaluate", "--checkpoint", "last"), ("predict", str(ROOT))])
def test_readers_name_the_damage(argv, run, capsys):
    for checkpoint in (run / "checkpoints").iterdir():
        truncate(checkpoint)
    assert command(argv[0], run, *argv[1:]) == 2
    errors = capsys.readouterr().err
    assert "this checkpoint is corrupt, " in errors and "checksum of" in errors
    assert "Traceback" not in errors
    assert json.loads((run / "config.json").read_text())["name"] == "tiny"
