"""Tests of the reader of all runs of a folder."""

import dataclasses
import json
import random
import shutil
import threading

import msgspec
import pytest
from helpers import tiny_config
from helpers.run_folders import locked_by_another_process, make_finished_run, make_run

from ssd_jax.runs import run_folder
from ssd_jax.watching.run_reader import RunReader
from ssd_jax.watching.watcher import REFRESH_SECONDS, SEARCH_SECONDS, Watcher, make_run_id


class Clock:
    """A clock that stands still."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_overview_lists_running_runs_first_and_then_the_latest(tmp_path):
    late, early = make_run(tmp_path / "exp" / "late"), make_finished_run(tmp_path / "early")
    running = make_run(tmp_path / "running")
    shutil.copytree(early / "tensorboard", running / "tensorboard")
    with locked_by_another_process(running):
        overview = Watcher(tmp_path).read_overview()
    assert [(run.name, run.status) for run in overview.runs] == [
        ("running", "running"), ("exp/late", "stopped"), ("early", "finished"),
    ]  # fmt: skip
    assert overview.exists and overview.is_complete
    assert overview.runs[1].id == make_run_id(tmp_path, late)


def test_watcher_of_one_run_shows_this_run(tmp_path):
    run = make_run(tmp_path / "run")
    (state,) = Watcher(run).read_overview().runs
    assert state.name == "run"


def test_watcher_finds_new_runs_and_forgets_removed_ones(tmp_path):
    clock = Clock()
    watcher = Watcher(tmp_path, clock)
    assert watcher.read_overview().runs == []
    run = make_run(tmp_path / "run")
    clock.now += SEARCH_SECONDS
    (state,) = watcher.read_overview().runs
    assert watcher.read_curves(state.id, (0, 0), (0, 0)) is not None
    shutil.rmtree(run)
    clock.now += SEARCH_SECONDS
    assert watcher.read_overview().runs == []
    assert watcher.read_curves(state.id, (0, 0), (0, 0)) is None
    tmp_path.rmdir()
    clock.now += SEARCH_SECONDS
    assert not watcher.read_overview().exists


def test_runs_are_read_once_a_second_however_many_pages_ask(tmp_path, monkeypatch):
    make_run(tmp_path / "run")
    reads = []
    real = RunReader.refresh
    monkeypatch.setattr(RunReader, "refresh", lambda self: reads.append(1) or real(self))
    clock = Clock()
    watcher = Watcher(tmp_path, clock)
    threads = [threading.Thread(target=watcher.read_overview) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    clock.now += REFRESH_SECONDS
    watcher.read_overview()
    assert len(reads) == 2


def test_differences_are_the_options_that_differ_in_the_order_of_the_config(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=5)
    broken = make_run(tmp_path / "c")
    config = tiny_config.get_config()
    names = ("cat", "\x1b[31m", "x" * 1000)
    run_folder.write_config(
        tmp_path / "b",
        dataclasses.replace(
            config,
            train=dataclasses.replace(config.train, steps=100, seed=5),
            model=dataclasses.replace(config.model, class_names=names),
        ),
    )
    (broken / "config.json").write_text("{")
    watcher = Watcher(tmp_path)
    idents = [make_run_id(tmp_path, tmp_path / name) for name in "abc"]
    found = watcher.find_differences([*idents, "unknown"])
    assert [one.option for one in found] == ["model.class_names", "train.seed"]
    assert found[1].values == ["0", "5", None, None]
    shown = found[0].values[1]
    assert shown is not None and shown.startswith("['cat', '\\x1b[31m") and len(shown) < 400
    assert watcher.find_differences(idents[:1]) == watcher.find_differences([]) == []
    assert watcher.find_differences(idents[2:]) == []


DAMAGE = (
    b"NaN",
    b"-1e999",
    b"1e308",
    b"9" * 400,
    b"null",
    b'"',
    b"{",
    b"[",
    b"\xff",
    b"\0",
    b"\n",
    b",",
    b"\x1b[2J",
    b"1e5",
)


def test_messages_about_randomly_damaged_runs_are_valid_json(tmp_path):
    run = make_finished_run(tmp_path / "run")
    names = ("config.json", "log.jsonl", "results.csv", "metrics.json")
    intact = {name: (run / name).read_bytes() for name in names}
    rng, clock = random.Random(0), Clock()
    watcher, ident = Watcher(tmp_path, clock), make_run_id(tmp_path, run)
    for _ in range(60):
        name = rng.choice(names)
        data = bytearray(intact[name])
        for _ in range(rng.randint(1, 4)):
            position = rng.randrange(len(data) + 1)
            data[position : position + rng.choice((0, 1, 12, 200))] = rng.choice(DAMAGE)
        (run / name).write_bytes(data)
        clock.now += REFRESH_SECONDS
        known = (0, rng.randint(0, 12))
        for message in (
            watcher.read_overview(),
            watcher.read_curves(ident, known, known),
            watcher.find_differences([ident]),
        ):
            json.loads(msgspec.json.encode(message), parse_constant=pytest.fail)
        if rng.random() < 0.5:
            (run / name).write_bytes(intact[name])


def test_files_are_read_only_by_names_that_were_found(tmp_path):
    run = make_finished_run(tmp_path / "runs" / "run")
    (tmp_path / "secret_pred.jpg").write_bytes(b"secret")
    (run / "link_pred.jpg").symlink_to(tmp_path / "secret_pred.jpg")
    (run / "folder_pred.jpg").mkdir()
    watcher = Watcher(tmp_path / "runs")
    ident = make_run_id(tmp_path / "runs", run)
    (state,) = watcher.read_overview().runs
    assert not {file.name for file in state.files} & {"link_pred.jpg", "folder_pred.jpg"}
    found = watcher.read_file(ident, "val_pred.jpg")
    assert found is not None and found[1] == b"\xff\xd8 a picture"
    for name in ("link_pred.jpg", "folder_pred.jpg", "config.json", "../run/val_pred.jpg", "../../secret_pred.jpg", ""):
        assert watcher.read_file(ident, name) is None
    assert watcher.read_file("..", "val_pred.jpg") is None


def test_a_file_that_was_replaced_by_a_link_is_not_read(tmp_path):
    run = make_finished_run(tmp_path / "runs" / "run")
    watcher = Watcher(tmp_path / "runs", Clock())
    ident = make_run_id(tmp_path / "runs", run)
    assert watcher.read_file(ident, "report.html") is not None
    (tmp_path / "secret").write_text("secret")
    (run / "report.html").unlink()
    assert watcher.read_file(ident, "report.html") is None
    (run / "report.html").symlink_to(tmp_path / "secret")
    assert watcher.read_file(ident, "report.html") is None
