"""Run a program in a pseudo-terminal, and read what its screen showed with a terminal emulator."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from typing import NamedTuple

import pyte


class TerminalOutput(NamedTuple):
    """Output of a program in a terminal."""

    raw: bytes
    """Everything that was written."""
    screens: list[list[str]]
    """Lines of the screen, without trailing spaces and empty lines at the end, after each change that was read."""


def run_in_terminal(command: Sequence[str], *, columns: int = 80, **environment: str) -> TerminalOutput:
    """Run a program in a terminal of 24 lines until it ends, and return its output. The exit code has to be 0."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    variables = {name: value for name, value in os.environ.items() if name not in unset} | {"TERM": "xterm"}
    process = subprocess.Popen(
        command, stdin=secondary, stdout=secondary, stderr=secondary, env=variables | environment
    )
    os.close(secondary)
    screen = pyte.Screen(columns, 24)
    stream = pyte.ByteStream(screen)
    raw, screens = b"", []
    while chunk := _read(primary):
        raw += chunk
        stream.feed(chunk)
        screens.append("\n".join(line.rstrip() for line in screen.display).rstrip("\n").split("\n"))
    os.close(primary)
    assert process.wait() == 0, raw
    return TerminalOutput(raw, screens)


def _read(primary: int) -> bytes:
    try:
        return os.read(primary, 65536)
    except OSError:  # on Linux, the end of the output
        return b""
