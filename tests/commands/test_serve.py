"""Tests of ``ssd-jax serve``: a real start, and what is printed about wrong options."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from helpers.cli import run_command
from helpers.paths import ROOT
from helpers.tiny_detector import make_detector

import ssd_jax
from ssd_jax.commands import serve
from ssd_jax.model_zoo.saving import save_model_folder
from ssd_jax.serving import server
from ssd_jax.serving.server import open_listener

PHOTOGRAPH = Path(ssd_jax.__file__).parent / "model_zoo" / "photographs" / "blood_cells_1.jpg"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_folder(make_detector(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_serve_answers_until_ctrl_c(model):
    command = [sys.executable, "-m", "ssd_jax", "serve", str(model), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:3] == ["Serving", "tiny", "at"]
        request = urllib.request.Request(f"{words[3]}/detect?score=0.02", PHOTOGRAPH.read_bytes(), method="POST")
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "", "")
    found = ssd_jax.load(model)(PHOTOGRAPH, score_threshold=0.02)
    assert [tuple(row["box"]) for row in answer["detections"]] == [detection.box for detection in found]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--batch", "0"], "--batch"),
        (["--wait-ms", "-1"], "--wait-ms"),
        (["--pixels", "0"], "--pixels"),
        (["--waiting", "3"], "--waiting"),
        (["--held-bytes", "3"], "--held-bytes"),
        (["--port", "99999"], "--port"),
        (["--token", "a b"], "token"),
        (["--host", "no.such.host.invalid", "--token", "secret"], "--host"),
    ],
)
def test_serve_refuses_wrong_options_in_one_line(model, capsys, options, word):
    assert run_command("serve", model, *options) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1


def test_serve_names_a_port_in_use(model, capsys):
    with contextlib.closing(open_listener("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert run_command("serve", model, "--port", str(port)) == 2
    output = capsys.readouterr()
    assert str(port) in output.err and output.err.count("\n") == 1 and not output.out


def test_serve_names_a_missing_model(capsys):
    assert run_command("serve", "no_such_run") == 2
    assert "no_such_run" in capsys.readouterr().err


def test_serve_names_the_extra_if_a_package_is_missing(model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run_command("serve", model) == 2
    assert "ssd-jax[serve]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "token", "is_warned"),
    [("0.0.0.0", None, True), ("0.0.0.0", "secret", False), ("127.0.0.1", None, False)],
)
def test_serve_warns_about_a_server_that_all_machines_can_use(model, capsys, monkeypatch, host, token, is_warned):
    started = []
    monkeypatch.setattr(server, "run_server", lambda *arguments, **_: started.append(arguments[1:]))
    if token:
        monkeypatch.setenv(serve.TOKEN_VARIABLE, token)
    assert run_command("serve", model, "--host", host, "--port", "1") == 0
    assert started == [(host, 1)]
    assert ("--token" in capsys.readouterr().err) == is_warned
