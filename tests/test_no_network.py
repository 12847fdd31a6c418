"""Tests that the program opens no connection: there is no telemetry, and nothing is fetched without being asked for."""

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from helpers import network
from helpers.cli import TINY, run_command
from helpers.paths import ROOT, TESTS
from PIL import Image

OTHER_MACHINE = "192.0.2.1"
"""An address for documentation, which no machine has (RFC 5737)."""


@pytest.fixture
def attempts():
    """Return the list of refused connections. What a test adds to it is removed after the test."""
    before = len(network.ATTEMPTS)
    yield network.ATTEMPTS
    del network.ATTEMPTS[before:]


@pytest.mark.parametrize(
    "connect",
    [
        lambda: socket.create_connection((OTHER_MACHINE, 80), timeout=1),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname("example.org"),
        lambda: urllib.request.urlopen(f"http://{OTHER_MACHINE}/", timeout=1),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (OTHER_MACHINE, 53)),
    ],
    ids=["connect", "getaddrinfo", "gethostbyname", "urlopen", "sendto"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_connection_to_another_machine_is_refused_and_recorded(connect, attempts):
    count = len(attempts)
    with contextlib.suppress(OSError):  # as a library would that reports usage in the background
        connect()
    assert len(attempts) > count


def test_connection_to_this_machine_is_not_refused(attempts):
    count = len(attempts)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    assert len(attempts) == count


def test_evaluate_and_predict_open_no_connection(trained_run, tmp_path, attempts):
    """The run was trained in this process or in one with the same fixture, which would have failed, see conftest.py."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    assert run_command("evaluate", trained_run, "--report") == 0
    assert run_command("predict", trained_run, tmp_path / "a.png", "--out", tmp_path / "out") == 0
    assert attempts == []


PROGRAM = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from helpers import network
network.refuse_other_machines()
import ssd_jax
config = ssd_jax.load_config({TINY!r}, {{"train.steps": 2, "train.eval_every": 0}})
run = ssd_jax.train(config, "run")
ssd_jax.evaluate(run)
ssd_jax.load(run)("a.png")
print(len(network.ATTEMPTS), "attempts")
"""


@pytest.mark.slow
def test_whole_process_of_training_and_detection_opens_no_connection(tmp_path: Path):
    """All libraries are imported in this process, too."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert result.stdout.endswith("0 attempts\n"), result.stdout + result.stderr
