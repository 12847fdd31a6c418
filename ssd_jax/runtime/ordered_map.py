"""Call a function in several threads on items that come one after the other, and return the results in order.

Stages of this kind can be chained, since the results of one are an iterator that another one reads from: reading,
detecting and drawing of different pictures then overlap, and each stage is at most a few items ahead of the next one.

Example::

    pictures = map_in_order(read, paths, threads=2, ahead=4)
    for file in map_in_order(save, pictures, threads=2, ahead=4):
        print(file)
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_POLL_SECONDS = 0.05


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int
) -> Generator[R, None, None]:
    """Yield the results of a function in the order of the items.

    The items are iterated over in a thread of its own. If the items or the function raise an exception, it is raised
    after the results before it. When the iterator is closed, or after an exception, no thread remains, and ``items`` is
    closed if it is a generator.

    Args:
        function: Function that is called in several threads.
        items: The items, perhaps an endless generator.
        threads: Number of threads that call the function.
        ahead: Number of items that are taken before their results are asked for.
    """
    for group in map_in_groups(function, items, threads=threads, ahead=ahead, most=1):
        yield from group


def map_in_groups(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int, most: int
) -> Generator[list[R], None, None]:
    """Yield the results of a function in order, as `map_in_order` does, but in lists of all those that are ready.

    Each list has at least one result. No list waits for another one to be ready.

    Args:
        function: Function that is called in several threads.
        items: The items.
        threads: Number of threads that call the function.
        ahead: Number of items that are taken before their results are asked for.
        most: Maximum length of a list.
    """
    results: queue.Queue[Future[R] | None] = queue.Queue(ahead)
    ended = threading.Event()

    def submit_items() -> None:
        try:
            for item in items:
                if ended.is_set():
                    break
                results.put(pool.submit(function, item))
        except BaseException as error:
            failed: Future[R] = Future()
            failed.set_exception(error)
            results.put(failed)
        finally:
            if isinstance(items, Iterator) and hasattr(items, "close"):
                items.close()
        results.put(None)

    with ThreadPoolExecutor(threads) as pool:
        submitter = threading.Thread(target=submit_items, daemon=True)
        submitter.start()
        try:
            yield from _group(results, most)
        finally:
            ended.set()
            while submitter.is_alive():
                _cancel(results)
                submitter.join(_POLL_SECONDS)
            _cancel(results)


def _group(results: "queue.Queue[Future[R] | None]", most: int) -> Iterator[list[R]]:
    """Yield lists of the results of calls until there is None instead of a call."""
    call = results.get()
    while call is not None:
        group = [call.result()]
        is_next_known = False
        while len(group) < most and not results.empty():
            call, is_next_known = results.get(), True
            if call is None or not call.done() or call.exception() is not None:
                break
            group.append(call.result())
            is_next_known = False
        yield group
        if not is_next_known:
            call = results.get()


def _cancel(results: "queue.Queue[Future[R] | None]") -> None:
    """Empty the queue, and cancel the calls that were not started."""
    while not results.empty():
        call = results.get()
        if call is not None:
            call.cancel()
