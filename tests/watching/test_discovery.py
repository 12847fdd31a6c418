"""Tests of the search for run folders."""

import pytest
from helpers.run_folders import make_run

from ssd_jax.watching import discovery
from ssd_jax.watching.discovery import find_run_folders, looks_like_run


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"config.json", "checkpoints"}, True),
        ({"config.json", "data.json"}, True),
        ({"log.jsonl"}, True),
        ({"config.json"}, False),
        ({"config.json", "package.json"}, False),
        ({"checkpoints", "results.csv"}, False),
    ],
)
def test_looks_like_run_needs_more_than_a_config(names, expected):
    assert looks_like_run(names) == expected


def test_find_run_folders_finds_runs_at_several_depths_and_not_inside_of_runs(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("a", "exp/b", "exp/c/d")]
    make_run(tmp_path / "a" / "audit" / "fold_1")
    make_run(tmp_path / ".hidden" / "run")
    (tmp_path / "photographs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "exp", target_is_directory=True)
    assert find_run_folders(tmp_path) == (runs, True)


def test_find_run_folders_returns_a_run_folder_itself(tmp_path):
    run = make_run(tmp_path / "run")
    assert find_run_folders(run) == ([run], True)
    new = tmp_path / "new"
    new.mkdir()
    (new / "config.json").write_text("{}")
    assert find_run_folders(new) == ([new], True), "also one that has only a config yet"


def test_find_run_folders_stops_in_a_large_tree_and_says_so(tmp_path, monkeypatch):
    runs = [make_run(tmp_path / str(i)) for i in range(4)]
    monkeypatch.setattr(discovery, "MAX_FOLDERS", 3)
    assert find_run_folders(tmp_path) == (runs[:2], False)
    monkeypatch.setattr(discovery, "MAX_FOLDERS", 100)
    monkeypatch.setattr(discovery, "MAX_DEPTH", 1)
    make_run(tmp_path / "deep" / "run")
    assert find_run_folders(tmp_path) == (runs, False)


def test_find_run_folders_returns_nothing_for_a_missing_folder(tmp_path):
    assert find_run_folders(tmp_path / "missing") == ([], True)
