"""Read the lines that another process appends to a text file."""

from pathlib import Path
from typing import NamedTuple

from ssd_jax.portability import open_regular_file

CHUNK_BYTES = 4 << 20
"""Number of bytes that are read at a time, and the length of the longest line."""
_COMPARED_BYTES = 512


class NewLines(NamedTuple):
    """Lines that were read from a file."""

    lines: list[str]
    """Complete lines without their line breaks."""
    restarted: bool
    """Whether these are the first lines of another content of the file. Lines that were read earlier are void."""
    is_last: bool
    """Whether these are all complete lines that the file has now."""


class LogTail:
    """Reader of a text file that grows. A line is returned as soon as it ends with a line break.

    A run that is resumed replaces its log by one with fewer lines. This is noticed by the bytes before the position
    from which the reader goes on. The number of the file would not tell, because file systems use it again.

    Args:
        file: The file, which need not exist yet.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position, self._before = 0, b""

    def read_new_lines(self) -> NewLines:
        """Read the complete lines after those that were read before.

        Raises:
            OSError: If the file exists, but cannot be read.
        """
        try:
            file = open_regular_file(self._file)
        except FileNotFoundError:
            restarted = self._position > 0
            self._position, self._before = 0, b""
            return NewLines([], restarted, True)
        with file:
            file.seek(self._position - len(self._before))
            restarted = file.read(len(self._before)) != self._before
            if restarted:
                self._position, self._before = 0, b""
                file.seek(0)
            data = file.read(CHUNK_BYTES)
        is_last = len(data) < CHUNK_BYTES
        end = data.rfind(b"\n") + 1
        if not end and not is_last:
            end = len(data)  # a line that is too long is left out; its end is returned as a line, which is damaged
        complete = data[:end]
        self._position += end
        self._before = (self._before + complete)[-_COMPARED_BYTES:]
        return NewLines(complete.decode(errors="replace").split("\n")[:-1], restarted, is_last)
