"""Tests of the command ``ssd-jax watch``."""

import sys
from pathlib import Path

import pytest
from helpers.run_folders import make_run
from starlette.testclient import TestClient

from ssd_jax.commands.main import main


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list:
    """Return a list that gets the app, host, port and title of each server that would be run."""
    calls: list = []
    monkeypatch.setattr(
        "ssd_jax.serving.server.run_server", lambda app, host, port, title: calls.append((app, host, port, title))
    )
    return calls


def test_watch_serves_the_runs_of_a_folder_on_the_loopback_address(tmp_path: Path, served: list):
    make_run(tmp_path / "runs" / "first")
    assert main(["watch", str(tmp_path / "runs"), "--port", "0"]) == 0
    ((app, host, port, title),) = served
    assert (host, port) == ("127.0.0.1", 0) and str(tmp_path / "runs") in title
    client = TestClient(app, base_url="http://127.0.0.1:6007")
    answer = client.get("/api/runs")
    assert [run["name"] for run in answer.json()["runs"]] == ["first"]
    assert "unsafe-inline" not in answer.headers["content-security-policy"]
    assert client.get("/api/runs", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/api/runs", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    report = client.get("/missing")
    assert report.status_code == 404 and report.headers["x-content-type-options"] == "nosniff"


def test_watch_takes_the_folder_runs_if_none_is_named(tmp_path: Path, served: list, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["watch"]) == 2
    assert "runs does not exist" in capsys.readouterr().err
    Path("runs").mkdir()
    assert main(["watch"]) == 0 and len(served) == 1


def test_watch_refuses_a_file_in_one_line(tmp_path: Path, capsys):
    (tmp_path / "log.jsonl").touch()
    assert main(["watch", str(tmp_path / "log.jsonl")]) == 2
    error = capsys.readouterr().err
    assert "is a file" in error and len(error.splitlines()) == 1


def test_watch_names_the_extra_that_is_missing(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["watch", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "ssd-jax[serve]" in error and len(error.splitlines()) == 1
