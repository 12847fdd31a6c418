"""Detection in many pictures, where reading and the network overlap."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from ssd_jax.inference.results import Detections
from ssd_jax.inputs.reading import Picture, Reading, Unreadable
from ssd_jax.runtime.ordered_map import map_in_groups, map_in_order

MAX_PIXELS = 64_000_000
"""Number of pixels of the pictures that are in memory at the same time. A single picture may have more."""
_READERS = 3


class DetectedPicture(NamedTuple):
    """A picture with its detections."""

    picture: Picture
    detections: Detections


DetectFn = Callable[[Sequence[Picture]], Sequence[Detections]]


def detect_in_order(
    detect: DetectFn, readings: Iterable[Reading], *, batch_size: int, is_stacked: bool
) -> Generator[DetectedPicture | Unreadable, None, None]:
    """Read pictures and detect objects in them, in several threads, and yield the results in order.

    The results of a picture are yielded as soon as they are there: no picture waits for others to fill a batch. When
    the iterator is closed, no thread remains.

    Args:
        detect: Function that detects objects in a few pictures.
        readings: The pictures to read, perhaps without end.
        batch_size: Maximum number of pictures in which objects are detected at the same time.
        is_stacked: Whether several pictures are passed to one call of ``detect``. If not, it is called in several
            threads, with one picture each.
    """
    budget = _PixelBudget(MAX_PIXELS)

    def detect_in_batches() -> Generator[tuple[Reading, DetectedPicture | Unreadable], None, None]:
        ahead = 2 * batch_size
        for group in map_in_groups(_read, budget.limit(readings), threads=_READERS, ahead=ahead, most=batch_size):
            pictures = [result for _, result in group if isinstance(result, Picture)]
            detections = iter(detect(pictures) if pictures else ())
            for reading, result in group:
                if isinstance(result, Picture):
                    yield reading, DetectedPicture(result, next(detections))
                else:
                    yield reading, result

    def detect_one(reading: Reading) -> tuple[Reading, DetectedPicture | Unreadable]:
        result = reading.read()
        return reading, DetectedPicture(result, *detect([result])) if isinstance(result, Picture) else result

    results = (
        detect_in_batches()
        if is_stacked
        else map_in_order(detect_one, budget.limit(readings), threads=batch_size, ahead=2 * batch_size)
    )
    try:
        for reading, result in results:
            yield result
            budget.release(reading.pixels)
    finally:
        budget.close()
        results.close()


def _read(reading: Reading) -> tuple[Reading, Picture | Unreadable]:
    return reading, reading.read()


class _PixelBudget:
    """Limit of the pixels in memory. What is acquired is released in the same order.

    Args:
        limit: Number of pixels.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._is_closed = limit, 0, False
        self._changed = threading.Condition()

    def limit(self, readings: Iterable[Reading]) -> Iterator[Reading]:
        """Yield readings, each when there is room for its pixels, or when nothing else is in memory."""
        for reading in readings:
            with self._changed:
                while self._used and self._used + reading.pixels > self._limit and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                self._used += reading.pixels
            yield reading

    def release(self, pixels: int) -> None:
        """Give back the room of a picture."""
        with self._changed:
            self._used -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """End the waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
