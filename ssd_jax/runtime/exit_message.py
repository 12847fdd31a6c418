"""A message for the user when JAX or the system kills this process before it can report an error.

In a run of several processes, the JAX runtime aborts a process from C++, with a stack trace, if the others do not
start or one of them stops sending heartbeats. A small child process reads the current message from a pipe. When the
pipe closes because this process has ended, the child prints the message.
"""

import subprocess
import sys
from contextlib import suppress

EXIT_REASON = "This process was killed, or it ended because another process of the run died, whose messages say why."

# The last message on the pipe counts. "\0" precedes each one.
_OBSERVER = "import sys; sys.stderr.write(sys.stdin.read().rpartition(chr(0))[2])"
_observer: subprocess.Popen[str] | None = None


def set_exit_message(message: str) -> None:
    """Set the message to print if this process is killed. It replaces the message before it.

    Without `start_observer` this function does nothing.

    Args:
        message: One or more lines. The empty string prints nothing; set it before the process ends normally.
    """
    if _observer is not None and _observer.stdin is not None:
        with suppress(OSError):
            _observer.stdin.write(f"\0\n{message}\n" if message else "\0")
            _observer.stdin.flush()


def start_observer() -> None:
    """Start the child process that prints the exit message."""
    global _observer
    command = [sys.executable, "-IS", "-c", _OBSERVER]
    # A session of its own, so that Ctrl-C in the terminal does not end it together with this process.
    _observer = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
