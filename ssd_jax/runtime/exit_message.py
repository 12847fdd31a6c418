"""A message that the user sees if this process is killed before it can report an error.

In a run of several processes, the JAX runtime aborts a process from C++, with a stack trace, if the other processes do
not start or if one of them stops sending heartbeats. A small child process therefore reads the current message from a
pipe. When the pipe closes because this process has ended, the child prints the message.
"""

import subprocess
import sys
from contextlib import suppress

from ssd_jax.portability import make_detached_options

EXIT_REASON = (
    "This process was killed, or it ended because another process of the run died; see the messages of that process."
)

# The child prints only the last message that it read. Each message starts with "\0".
_OBSERVER = "import sys; sys.stderr.write(sys.stdin.read().rpartition(chr(0))[2])"
_observer: subprocess.Popen[str] | None = None


def set_exit_message(message: str) -> None:
    """Replace the message that is printed if this process is killed.

    This function does nothing if `start_observer` was not called before.

    Args:
        message: One or more lines. Set an empty string before the process ends normally, so that nothing is printed.
    """
    if _observer is not None and _observer.stdin is not None:
        with suppress(OSError):
            _observer.stdin.write(f"\0\n{message}\n" if message else "\0")
            _observer.stdin.flush()


def start_observer() -> None:
    """Start the child process that prints the message when this process has ended."""
    global _observer
    # Windows would otherwise use its own encoding on both sides of the pipe, and lacks characters of many names.
    command = [sys.executable, "-IS", "-Xutf8", "-c", _OBSERVER]
    # Ctrl-C in the terminal must not also end the child.
    detached = make_detached_options()
    _observer = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, encoding="utf-8", **detached)
