"""Tests of the state of a run that is read from its folder."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from helpers.run_folders import locked_by_another_process, make_finished_run, make_log_line, make_run

from ssd_jax.runs.run_folder import hold_exclusive_lock
from ssd_jax.watching.run_reader import RunReader, RunState


def read(folder: Path) -> RunState:
    reader = RunReader(folder, "id", folder.name)
    reader.refresh()
    return reader.state


def list_content(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the time and the size of each file and folder below a folder."""
    return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in [folder, *folder.rglob("*")]}


def test_finished_run_has_its_length_metrics_times_and_files(tmp_path):
    run = make_finished_run(tmp_path / "run")
    before = list_content(tmp_path)
    state = read(run)
    assert (state.status, state.problem, state.config, state.step, state.steps) == ("finished", "", "tiny", 100, 100)
    assert (state.best_map, state.best_step, state.last_map, state.loss) == (0.75, 50, 0.5, 1.0)
    assert state.measured is not None and (state.measured.split, state.measured.voc_map_area) == ("test", 0.625)
    assert state.started == 1_700_000_000, "the time in the name of the first event file"
    assert state.training_seconds == 100 * 4 / 8.0, "100 steps of 4 images at 8 images per second"
    assert state.seconds_left is None
    assert {file.name for file in state.files} == {"report.html", "val_pred.jpg", "val_truth.jpg", "train_batch.jpg"}
    assert list_content(tmp_path) == before, "nothing was written"


def test_run_is_running_while_another_process_has_its_lock(tmp_path):
    run = make_run(tmp_path / "run", logged=3)
    with locked_by_another_process(run):
        state = read(run)
        assert state.status == "running"
        assert state.seconds_left == pytest.approx((100 - 30) * 4 / 8.0)
    assert read(run).status == "stopped"


def test_training_can_start_while_the_state_is_read_all_the_time(tmp_path):
    run = make_run(tmp_path / "run")
    reader = RunReader(run, "id", "run")
    end = time.monotonic() + 0.3

    def refresh_until_end() -> None:
        while time.monotonic() < end:
            reader.refresh()

    threads = [threading.Thread(target=refresh_until_end) for _ in range(2)]
    for thread in threads:
        thread.start()
    started = 0
    while time.monotonic() < end:
        with hold_exclusive_lock(run):  # raises an error if it is locked
            started += 1
    for thread in threads:
        thread.join()
    assert started


def test_run_without_log_yet_is_shown(tmp_path):
    run = make_run(tmp_path / "run", logged=0)
    (run / "log.jsonl").unlink()
    state = read(run)
    assert (state.status, state.step, state.loss, state.training_seconds) == ("stopped", None, None, None)
    (run / "checkpoints" / "7").mkdir(parents=True)
    state = read(run)
    assert (state.step, state.status) == (7, "stopped")


def test_run_whose_length_is_not_known_yet_has_its_minutes(tmp_path):
    state = read(make_run(tmp_path / "run", steps=None, minutes=5))
    assert (state.steps, state.minutes, state.seconds_left) == (None, 5, None)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"{", "config.json"),
        (b'{"train": {"steps": 0}}', "train.steps"),
        (b'{"future": 1}\x1b[31m', "config.json"),
        (b"\xff\xfe", "config.json"),
        (b"[" * 100_000, "nested"),
        (None, "No such file"),
    ],
)
def test_run_with_a_broken_config_has_a_message_and_its_log(tmp_path, text, word):
    run = make_run(tmp_path / "run")
    (run / "config.json").unlink()
    if text is not None:
        (run / "config.json").write_bytes(text)
    state = read(run)
    assert state.status == "broken" and state.problem.startswith("config.json: ") and word in state.problem
    assert state.problem.isprintable() and len(state.problem) <= 600 and str(tmp_path) not in state.problem
    assert (state.step, state.loss, state.steps) == (100, 1.0, None)


def test_broken_config_that_is_repaired_is_read_again(tmp_path):
    run = make_run(tmp_path / "run")
    text = (run / "config.json").read_text()
    (run / "config.json").write_text("{")
    reader = RunReader(run, "id", "run")
    reader.refresh()
    assert reader.state.status == "broken"
    (run / "config.json").write_text(text)
    reader.refresh()
    assert (reader.state.status, reader.state.problem) == ("stopped", "")


def test_damaged_lines_are_left_out_and_a_cut_line_is_read_when_it_is_complete(tmp_path):
    run = make_run(tmp_path / "run", logged=2)
    with (run / "log.jsonl").open("ab") as file:
        file.write(
            b'\xff\xfe\n[]\n{"step": "x"}\n{"step": 1e5}\n' + make_log_line(30, 0.5).encode() + b'{"step": 40, "lo'
        )
    (run / "results.csv").write_bytes(b"step,voc_map_area\n10,0.25\n\xff,1\n20,nan\n30,")
    reader = RunReader(run, "id", "run")
    reader.refresh()
    assert (reader.state.step, reader.state.loss, reader.state.last_map) == (30, 0.5, 0.25)
    with (run / "log.jsonl").open("ab") as file:
        file.write(b'ss": 0.375}\n')
    version = reader.state.version
    reader.refresh()
    assert (reader.state.step, reader.state.loss) == (40, 0.375)
    assert reader.state.version > version
    assert reader.train_curves.make_message(None, 0)["steps"] == [10, 20, 30, 40]


def test_resumed_run_loses_the_later_steps(tmp_path):
    run = make_run(tmp_path / "run", logged=5)
    reader = RunReader(run, "id", "run")
    reader.refresh()
    lines = [make_log_line(10, 7.0), make_log_line(20, 6.0)]
    (run / "log.jsonl").write_text("".join(lines))
    reader.refresh()
    assert (reader.state.step, reader.state.loss, reader.state.training_seconds) == (20, 6.0, 20 * 4 / 8.0)
    assert reader.train_curves.make_message(None, 0)["values"]["loss"] == [7.0, 6.0]


def test_large_log_is_read_once(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", logged=0)
    lines = [make_log_line(step, 1 / step) for step in range(1, 6_001)]
    (run / "log.jsonl").write_text("".join(lines))
    parsed = []
    real = json.loads
    monkeypatch.setattr("json.loads", lambda text: parsed.append(1) or real(text))
    reader = RunReader(run, "id", "run")
    reader.refresh()
    assert reader.state.step == 6_000 and len(parsed) == 6_001, "the config, and each line"
    message = reader.train_curves.make_message(None, 0)
    assert 1000 <= len(message["steps"]) <= 2000
    with (run / "log.jsonl").open("a") as file:
        file.write(make_log_line(6_001, 0.5))
    reader.refresh()
    assert reader.state.step == 6_001 and len(parsed) == 6_002
    news = reader.train_curves.make_message(message["number"], message["fixed"])
    assert len(news["steps"]) == 1


def test_state_of_a_vanished_folder_names_the_problem(tmp_path):
    run = make_finished_run(tmp_path / "run")
    reader = RunReader(run, "id", "run")
    reader.refresh()
    shutil.rmtree(run)
    reader.refresh()
    assert reader.state.status == "broken" and reader.state.problem and reader.state.files == []


def test_pipes_and_folders_in_the_place_of_files_do_not_block(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("config.json", "log.jsonl"):
        (run / name).unlink()
        os.mkfifo(run / name)
    (run / "results.csv").mkdir()
    state = read(run)
    assert state.status == "broken"
    assert all(name in state.problem for name in ("config.json", "log.jsonl", "results.csv"))
    reader = RunReader(run, "id", "run")
    reader.refresh()
    reader.refresh()
    assert "results.csv" in reader.state.problem, "the problem remains"


@pytest.mark.parametrize("text", [b"", b"[]", b'{"split": 5}', b"\xff", b'{"split": "a", "voc_map_area": NaN}'])
def test_damaged_metrics_are_left_out(tmp_path, text):
    run = make_run(tmp_path / "run")
    (run / "metrics.json").write_bytes(text)
    state = read(run)
    assert (state.measured, state.problem, state.status) == (None, "", "stopped")


def test_names_are_escaped(tmp_path):
    run = make_run(tmp_path / os.fsdecode(b"caf\xe9\x1b[31m\n"))
    assert read(run).name == "caf\\xe9\\x1b[31m\\x0a"
