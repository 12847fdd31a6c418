"""Print a message when this process is killed without being able to report an error."""

import subprocess
import sys
from contextlib import suppress
from typing import Any

_OBSERVER = "import sys; sys.stderr.write(sys.stdin.read().rpartition(chr(0))[2])"
_observer: Any = None
EXIT_REASON = "This process was ended: it was killed, or another one of the run died, whose messages tell why."


def set_exit_message(message: str) -> None:
    """What is printed should this process end without a word of its own, instead of what was to be so far.

    JAX's runtime ends a process, from C++ and with a stack trace, where the others don't come, or one of
    them gives no sign of life. A little process on the other end of a pipe sees that, and says what to do.
    For one of several processes; else nobody listens.
    """
    if _observer is not None:
        with suppress(OSError):
            _observer.stdin.write(f"\0\n{message}\n" if message else "\0")
            _observer.stdin.flush()


def start_observer() -> None:
    global _observer
    command = [sys.executable, "-IS", "-c", _OBSERVER]
    _observer = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
