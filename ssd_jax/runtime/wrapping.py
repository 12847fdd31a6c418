"""Line breaks between words, for lines that are longer than a terminal is wide."""

import re
import textwrap

_PARTS = re.compile(r"( *(?:\S+ {2,})?)(.*)", re.DOTALL)
"""The indentation with the title of a line, if two spaces follow it, and the text."""
_COMMAND = re.compile(r"(\w[\w ]*: )?(ssd-jax|python) ")


def wrap_line(line: str, columns: int) -> str:
    """Break a line between words, so that a terminal does not break it inside a word.

    The lines after the first one are indented like the text of the first one. Rows of tables stay as they are, and so
    do commands, which can then be copied.

    Args:
        line: A line without its line break.
        columns: Width of the terminal.
    """
    if len(line) <= columns:
        return line
    match = _PARTS.fullmatch(line)
    assert match is not None, "all lines match"
    start, text = match.groups()
    if len(start) > columns // 2 or "  " in text or "\t" in text or _COMMAND.match(text):
        return line
    lines = textwrap.wrap(text, columns - len(start), break_long_words=False, break_on_hyphens=False)
    return start + ("\n" + " " * len(start)).join(lines)
