"""The progress display of all commands: what is being done, how far it is, and how long it will still take.

In a terminal, the display is a few lines at the bottom that are redrawn twice per second by a thread, so that
its clock moves while a call into C++ compiles. All other output is printed above it. If stderr is not a terminal, such
as a file, a pipe or a notebook, a plain line is printed every `LINE_SECONDS` instead.

Example::

    with show_progress("evaluating", total=len(images), unit="image") as task:
        for image in images:
            detect(image)
            task.update()

A task that is shown while another one is shown, such as an evaluation during training, has its own line below it.
The display is only for people; all results are printed or written elsewhere. It is written to stderr.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from ssd_jax.runtime.task import Task

LINE_SECONDS = 10.0
"""Time between two lines if stderr is not a terminal."""


@runtime_checkable
class _Display(Protocol):
    """A place where the tasks of a list are shown from ``start`` to ``stop``."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class LineDisplay:
    """Display that prints a line about the innermost task every `LINE_SECONDS`, in a thread."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks, self._ended = tasks, threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _print_lines(self) -> None:
        # The time of the last line is kept between displays, so that many short tasks do not print more lines.
        while not self._ended.wait(max(0.0, _next_line.time - time.monotonic())):
            _next_line.time = time.monotonic() + LINE_SECONDS
            if tasks := tuple(self._tasks):
                if sys.stdout is not None:  # a process without a console has no streams
                    sys.stdout.flush()  # so that the lines are in order if both streams go to one file
                # In one call, since `print` writes the newline by itself if Python runs unbuffered.
                sys.stderr.write(tasks[-1].format_line() + "\n")
                sys.stderr.flush()


class _NextLine:
    time = 0.0


_next_line = _NextLine()
_tasks: list[Task] = []
_display: _Display | None = None
_hidden = 0


@contextmanager
def hide_progress(hidden: bool = True) -> Iterator[None]:
    """Show no progress during the ``with`` block, unless ``hidden`` is False."""
    global _hidden
    _hidden += hidden
    try:
        yield
    finally:
        _hidden -= hidden


def is_progress_hidden() -> bool:
    """Return whether the progress is hidden, as with ``--quiet``."""
    return _hidden > 0


@contextmanager
def show_progress(
    title: str,
    total: int | None = None,
    unit: str = "image",
    *,
    done: int = 0,
    stage: str = "",
    shows_speed: bool = True,
    enabled: bool = True,
) -> Iterator[Task]:
    """Show a task with a clock during the ``with`` block, and return the task, whose `Task.update` is to be called.

    When the block of a task inside another one ends, the other one starts a new lap, see `Task.start_lap`: the inner
    task does not count for the speed of the outer one.

    Args:
        title: What is being done, such as "evaluating". It may contain any text.
        total: Number of units of the task. None: only the time is shown.
        unit: Name of one unit. "B" stands for bytes, which are shown as kB or MB.
        done: Number of units that were done before.
        stage: Text to show instead of the count until the first update or lap, such as "compiling".
        shows_speed: Whether to show the units per second.
        enabled: Whether to show the task at all. False for the secondary processes of a run.
    """
    global _display
    task = Task(title, total, unit, done, stage, shows_speed)
    if not enabled or _hidden:
        yield task
        return
    if _tasks:
        _tasks[-1].pause_lap()
    _tasks.append(task)
    try:
        if _display is None:
            display = _make_display(_tasks)
            display.start()
            _display = display
        yield task
    finally:
        _tasks.remove(task)
        if _tasks:
            _tasks[-1].resume_lap()
        elif _display is not None:
            ended, _display = _display, None
            ended.stop()


def _make_display(tasks: Sequence[Task]) -> _Display:
    stream: Any = getattr(sys.stderr, "unescaped", sys.stderr)
    if stream is None or not stream.isatty() or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        if not _next_line.time > time.monotonic():
            _next_line.time = time.monotonic() + LINE_SECONDS
        return LineDisplay(tasks)
    from ssd_jax.runtime.terminal_display import TerminalDisplay  # imports rich

    return TerminalDisplay(tasks, stream)
