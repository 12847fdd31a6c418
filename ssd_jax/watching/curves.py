"""A bounded number of points for curves of any length, to which more points are added all the time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_POINTS = 2_000
"""Number of points at which neighbours are joined, so that at least half as many remain."""
MAX_COLUMNS = 40
"""Number of metrics that are kept."""
_LARGEST_INTEGER = 2**53


class Curves:
    """Values of metrics over the steps, as means over a number of consecutive entries that grows with their number.

    At first, every entry is a point. When there are `MAX_POINTS` of them, each two neighbours become one point, and
    from then on, twice as many entries are averaged for a point. So the memory is bounded, and earlier points remain as
    they are until then, so that only the new ones have to be sent to a page.
    """

    def __init__(self) -> None:
        self.number = 0
        """Number of this series of points. It grows when earlier points change."""
        self.entries_per_point = 1
        self._points: list[dict[str, float]] = []
        self._open: list[dict[str, float]] = []

    def __len__(self) -> int:
        """Number of points that do not change any more."""
        return len(self._points)

    def clear(self) -> None:
        """Remove all points."""
        self.number += 1
        self.entries_per_point = 1
        self._points, self._open = [], []

    def add_entry(self, entry: Mapping[str, float | None]) -> None:
        """Add an entry with a ``step`` and the values of metrics. Values that are not finite are left out."""
        values = {name: float(value) for name, value in entry.items() if value is not None and _is_drawable(value)}
        if "step" not in values:
            return
        self._open.append(values)
        if len(self._open) == self.entries_per_point:
            self._points.append(_average(self._open))
            self._open = []
        if len(self._points) == MAX_POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [_average(pair) for pair in pairs]
            self.entries_per_point *= 2
            self.number += 1

    def make_message(self, number: int | None, known: int) -> dict[str, Any]:
        """Return the points that a page does not have yet.

        Args:
            number: The ``number`` of the points that the page has. If it is another one, all points are returned.
            known: The number of points that the page has, without the last one if that may change.

        Returns:
            A dict with ``number``, ``entries_per_point``, ``start`` (the position of the first returned point),
            ``fixed`` (how many points do not change any more), ``steps``, and ``values`` (a dict from the name of a
            metric to a list with a value or None for each step).
        """
        start = known if number == self.number and 0 <= known <= len(self._points) else 0
        points = self._points[start:] + ([_average(self._open)] if self._open else [])
        names = list(dict.fromkeys(name for point in points for name in point if name != "step"))[:MAX_COLUMNS]
        return {
            "number": self.number,
            "entries_per_point": self.entries_per_point,
            "start": start,
            "fixed": len(self._points),
            "steps": [point["step"] for point in points],
            "values": {name: [point.get(name) for point in points] for name in names},
        }


def _is_drawable(value: float) -> bool:
    """Return whether a number is finite, and not an integer that a float cannot hold."""
    return abs(value) <= _LARGEST_INTEGER if isinstance(value, int) else math.isfinite(value)


def _average(entries: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value over the entries that have it."""
    if len(entries) == 1:
        return entries[0]
    names = dict.fromkeys(name for entry in entries for name in entry)
    values = {name: [entry[name] for entry in entries if name in entry] for name in names}
    return {name: sum(column) / len(column) for name, column in values.items()}
