"""A task of the progress display, and the texts that describe how far it is."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ssd_jax.errors import escape_text

T = TypeVar("T")
LINE_WIDTH = 80
"""Maximum number of columns of the plain line of a task."""
_SPEED_SAMPLES = 100
"""Number of the latest updates over which the speed is averaged."""


class Task:
    """A task of the progress display. `ssd_jax.runtime.progress.show_progress` creates it.

    The methods may be called from any thread. ``total``, ``update``, ``reset`` and ``close`` are those of a tqdm
    progress bar, so that a task can be passed to a library that accepts one, such as pooch.

    Attributes:
        total: Number of units of the whole task; None if it is not known.
        done: Number of units that are done.
    """

    def __init__(self, title: str, total: int | None, unit: str, done: int, stage: str, shows_speed: bool) -> None:
        self.total, self.done = total, done
        self._title, self._unit, self._stage, self._shows_speed = title, unit, stage, shows_speed
        self._details: Sequence[str] = ()
        self._start = time.monotonic()
        self._lap: float | None = None
        self._is_paused = False
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SPEED_SAMPLES)

    def update(self, count: int = 1) -> None:
        """Report that more units are done.

        The first update usually includes a compilation. It does not count for the speed, unless `start_lap` was called
        before.
        """
        now = time.monotonic()
        if self._lap is not None and count:
            self._samples.append((now - self._lap, count))
        self._lap = now
        self._stage = ""
        self.done += count

    def count_items(self, items: Iterable[T]) -> Iterator[T]:
        """Iterate over items, each of which is one unit. An item is done when the next one is asked for."""
        for item in items:
            yield item
            self.update()

    def start_lap(self) -> None:
        """Let the time for the next units start now, so that the time since the last update does not count."""
        self._lap = time.monotonic()
        self._stage = ""

    def start_stage(self, stage: str) -> None:
        """Show a text and the time from now on, instead of the count, until the next update or lap."""
        self._stage, self._start = stage, time.monotonic()

    @property
    def has_stage(self) -> bool:
        """Whether the text of a stage is shown instead of the count."""
        return bool(self._stage)

    def set_details(self, parts: Sequence[str]) -> None:
        """Show texts on a second line, separated by commas. Those at the end are left out if the line is too short."""
        self._details = tuple(parts)

    def reset(self) -> None:
        """Start again at 0 units."""
        self.done, self._lap = 0, None
        self._samples.clear()

    def close(self) -> None:
        """Do nothing: the end of the ``with`` block of `show_progress` ends the task."""

    def pause_lap(self) -> None:
        """Let the time from now until `resume_lap` not count, because a task inside this one is running."""
        self._is_paused = True

    def resume_lap(self) -> None:
        """Start a new lap if one had been started, after a pause such as a task inside this one."""
        self._is_paused = False
        if self._lap is not None:
            self._lap = time.monotonic()

    @property
    def speed(self) -> float | None:
        """Number of units per second over the latest updates; None if it is not known yet.

        If the next update takes longer than an average one, this time counts, too.
        """
        samples = tuple(self._samples)
        seconds = sum(seconds for seconds, _ in samples)
        if seconds <= 0:
            return None
        late = 0.0
        if self._lap is not None and not self._is_paused:
            late = max(0.0, time.monotonic() - self._lap - seconds / len(samples))
        return sum(count for _, count in samples) / (seconds + late)

    @property
    def seconds_left(self) -> float | None:
        """Estimated time for the units that are not done, in seconds; None if it is not known."""
        if self.total is None or not self.speed:
            return None
        return max(0, self.total - self.done) / self.speed

    @property
    def title(self) -> str:
        """The title, escaped."""
        return escape_text(self._title)

    @property
    def fraction(self) -> float | None:
        """Part of the task that is done, from 0 to 1; None if it is not known, or if a stage is shown."""
        return min(1.0, self.done / self.total) if self.total and not self._stage else None

    def format_status(self) -> list[str]:
        """Return the texts that follow the title: the count, the speed and the remaining time.

        Instead of the remaining time, the elapsed time is shown if the former is not known. Before the first update,
        there may be a stage, such as "compiling", instead of the count.
        """
        elapsed = format_duration(time.monotonic() - self._start)
        if self._stage:
            return [f"{elapsed}  {escape_text(self._stage)}"]  # a narrow terminal cuts the end
        parts = [format_count(self.done, self.total, self._unit)] if self.total is not None or self.done else []
        if self._shows_speed and self.speed is not None:
            parts.append(f"{format_quantity(self.speed, self._unit)}/s")
        left = self.seconds_left
        return [*parts, elapsed if left is None else f"{format_duration(left)} left"]

    def format_details(self) -> list[str]:
        """Return the texts of the second line, escaped."""
        return list(map(escape_text, self._details))

    def format_line(self) -> str:
        """Return one line about this task, of at most `LINE_WIDTH` characters."""
        first, *others = [*self.format_status(), *self.format_details()]
        return join_while_fitting([f"{self.title}: {first}", *others], LINE_WIDTH)


def format_duration(seconds: float) -> str:
    """Return a duration as minutes and seconds, such as 1:05, or with hours, such as 33:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_quantity(value: float, unit: str) -> str:
    """Return a number of units with three significant digits or more, such as "12.3 MB" or "1234 images"."""
    if unit == "B":
        for prefix in ("", "k", "M"):
            if value < 999.5:
                return f"{_format_number(value)} {prefix}B"
            value /= 1000
        return f"{_format_number(value)} GB"
    return f"{_format_number(value)} {unit}s"


def format_count(done: int, total: int | None, unit: str) -> str:
    """Return how many units are done, such as "12/240 images" or "1.2 MB of 24.0 MB"."""
    if total is None:
        return format_quantity(done, unit)
    if unit == "B":
        return f"{format_quantity(done, unit)} of {format_quantity(total, unit)}"
    return f"{done}/{total} {unit}s"


def _format_number(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 or value == round(value) else f"{value:.{1 if value >= 9.995 else 2}f}"


def join_while_fitting(parts: Sequence[str], width: int, separator: str = ", ") -> str:
    """Join texts while the result has at most ``width`` characters, and leave out the others.

    If the first text alone is longer, it is cut.
    """
    line = parts[0]
    for part in parts[1:]:
        if len(line) + len(separator) + len(part) > width:
            break
        line += separator + part
    return line[:width]
