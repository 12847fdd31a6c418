"""The progress display in a terminal, by rich. Imported only when it is shown, because the import takes time."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ssd_jax.errors import escape_text
from ssd_jax.runtime.task import Task, join_while_fitting
from ssd_jax.runtime.wrapping import wrap_line

_REFRESHES_PER_SECOND = 2
_MAX_BAR, _MIN_BAR = 40, 5
_MAX_TITLE = 30


class _Console(Console):
    """Console that leaves the cursor visible: a process that is killed could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class _AboveDisplay:
    """Text stream that prints complete lines above the display, instead of to another stream.

    Args:
        console: Console of the display.
        stream: The other stream. Its attributes, such as ``encoding``, are those of this stream.
    """

    def __init__(self, console: Console, stream: Any) -> None:
        self._console, self._stream, self._line = console, stream, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            wrapped = "\n".join(wrap_line(line, self._console.width) for line in lines)
            self._console.print(_make_text(wrapped, self._console), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        """Do nothing: an incomplete line has to wait, since the display is below it."""

    def finish(self) -> None:
        """Print the last line if it is incomplete."""
        if self._line:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class TerminalDisplay:
    """Lines at the bottom of a terminal, one or two for each task, which a thread redraws twice per second.

    Until ``stop``, what is printed to stdout and stderr appears above these lines, with all control codes escaped.

    Args:
        tasks: List of tasks, which may change.
        stream: Stream of the terminal.
    """

    def __init__(self, tasks: Sequence[Task], stream: Any) -> None:
        self._tasks = tasks
        self._console = _Console(file=stream, force_terminal=True, force_interactive=True, force_jupyter=False)
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._redirected: dict[str, _AboveDisplay] = {}

    def start(self) -> None:
        self._live.start(refresh=True)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and getattr(stream, "unescaped", stream).isatty():
                self._redirected[name] = _AboveDisplay(self._console, stream)
                setattr(sys, name, self._redirected[name])

    def stop(self) -> None:
        for name, stream in self._redirected.items():
            stream.finish()
            setattr(sys, name, stream._stream)
        self._live.stop()

    def _render(self) -> RenderableType:
        # The last column stays free, because some terminals begin a new line when it is written.
        width = self._console.width - 1
        return Group(*(line for task in tuple(self._tasks) for line in _render_task(task, width, self._console)))


def _render_task(task: Task, width: int, console: Console) -> list[RenderableType]:
    """Return the line of a task, and its second line if it has details."""
    title = _make_text(task.title, console, "bold")
    title.truncate(min(_MAX_TITLE, width))
    status = _make_text(join_while_fitting(task.format_status(), max(0, width - title.cell_len - 2), "  "), console)
    bar = min(_MAX_BAR, width - title.cell_len - status.cell_len - 4)
    row = Table.grid(padding=(0, 2, 0, 0))
    if task.fraction is None or bar < _MIN_BAR:
        row.add_row(title, status)
    else:
        shown = ProgressBar(1.0, task.fraction, width=bar, complete_style="green", finished_style="green")
        row.add_row(title, shown, status)
    lines: list[RenderableType] = [row]
    if details := task.format_details():
        indent = " " * (title.cell_len + 2)
        lines.append(_make_text(indent + join_while_fitting(details, width - len(indent)), console, "dim"))
    return lines


def _make_text(text: str, console: Console, style: str = "") -> Text:
    """Return a text for the console, with escapes in place of control codes and of what its encoding lacks."""
    lines = "\n".join("\t".join(map(escape_text, line.split("\t"))) for line in text.split("\n"))
    shown = lines.encode(console.encoding, "backslashreplace").decode(console.encoding)
    return Text(shown, style=style, no_wrap=True, overflow="crop")
