"""Tests of the message that a child process prints if the main process is killed."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals that Windows lacks")

PROGRAM = """
import os, signal, sys
from ssd_jax.runtime import exit_message
exit_message.set_exit_message("before the observer")
exit_message.start_observer()
for message in sys.argv[2:]:
    exit_message.set_exit_message(message)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("end", "messages", "printed"),
    [
        ("killed", ["first", "Start it again.\nWith the same command."], "\nStart it again.\nWith the same command.\n"),
        ("killed", ["first", ""], ""),
        ("killed", [], ""),
        ("normal", ["first", ""], ""),
    ],
)
def test_exit_message_is_the_last_one_that_was_set(end, messages, printed):
    result = subprocess.run([sys.executable, "-c", PROGRAM, end, *messages], capture_output=True, text=True)
    assert result.returncode == (-signal.SIGKILL if end == "killed" else 0)
    assert (result.stdout, result.stderr) == ("", printed)
