"""Output of the commands: no text that comes from the data, such as a file name, may control the terminal."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from ssd_jax.errors import escape_text
from ssd_jax.runtime.wrapping import wrap_line

_LINES = re.compile(r"([\n\t])")
_LINES_AND_PROGRESS = re.compile(r"([\n\t\r]|\x1b\[A)")
"""Also the codes by which the progress bars of tensorflow-datasets move the cursor."""


class _EscapedStream:
    """Text stream that applies `escape_text` to everything that is written to another stream.

    Characters that the encoding of the stream lacks are escaped as well, so that no text raises an error. If the output
    can't be written, as to a file on a full disk, the rest of it is discarded, so that a training is not lost. In a
    terminal, lines that are too long are broken between words.

    Args:
        stream: The other text stream.
        kept: Pattern of the control characters that are not escaped, as a group.
        is_terminal: Result of ``isatty``.
    """

    def __init__(self, stream: Any, kept: re.Pattern[str], is_terminal: bool) -> None:
        self._stream, self._kept, self._is_terminal = stream, kept, is_terminal
        self.failure: OSError | None = None
        """Error of the first text that could not be written."""
        self._is_at_line_start = True

    @property
    def unescaped(self) -> Any:
        """The other stream, for a progress display that moves the cursor and escapes all texts itself."""
        return self._stream

    def write(self, text: str) -> int:
        length, columns = len(text), self._count_columns()
        if columns and self._is_at_line_start and not re.search(r"[\r\x1b]", text):
            text = "\n".join(wrap_line(line, columns) for line in text.split("\n"))
        self._is_at_line_start = text.endswith("\n") or (self._is_at_line_start and not text)
        parts = self._kept.split(text)
        parts[::2] = map(escape_text, parts[::2])
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write("".join(parts).encode(encoding, "backslashreplace").decode(encoding))
            if "\n" in text:
                self._stream.flush()  # so that a log file is up to date, and has both streams in order
        except OSError as error:
            self.failure = self.failure or error
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return length

    def _count_columns(self) -> int:
        """Return the width of the terminal, or 0 if the stream is not a terminal."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns if self._stream.isatty() else 0
        except (OSError, ValueError):
            return 0

    def isatty(self) -> bool:
        return self._is_terminal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escape_output() -> Iterator[_EscapedStream]:
    """Escape what is printed during the ``with`` block, except line breaks, tabs and the codes of progress bars.

    The block gets the stream that replaces stdout.

    The message of a `UserError` escapes the line breaks in names itself, and so do the functions that format tables.
    """
    # tyro colours its help if stdout is a terminal, and the codes of the colours would be escaped.
    out: Any = _EscapedStream(sys.stdout, _LINES, is_terminal=False)
    err: Any = _EscapedStream(sys.stderr, _LINES_AND_PROGRESS, sys.stderr.isatty())
    with redirect_stdout(out), redirect_stderr(err):
        yield out


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(f"{record.levelname.lower()}: {escape_text(record.getMessage())}", file=sys.stderr)


@contextmanager
def print_warnings_to_stderr() -> Iterator[None]:
    """Print the warnings of the package to stderr during the ``with`` block, above progress bars."""
    logger, handler = logging.getLogger("ssd_jax"), _StderrHandler(logging.WARNING)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
