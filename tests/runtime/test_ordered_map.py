"""Tests of calls in several threads with results in order."""

import threading
import time

import pytest

from ssd_jax.runtime.ordered_map import map_in_groups, map_in_order


@pytest.fixture(autouse=True)
def no_thread_remains():
    before = threading.active_count()
    yield
    assert threading.active_count() <= before  # a thread of an earlier test may have ended


def test_results_are_in_the_order_of_the_items():
    def wait(i: int) -> int:
        time.sleep(0.02 if i % 3 == 0 else 0)
        return i * i

    assert list(map_in_order(wait, range(20), threads=4, ahead=8)) == [i * i for i in range(20)]
    assert list(map_in_order(wait, [], threads=4, ahead=8)) == []


def test_calls_are_made_at_the_same_time():
    barrier = threading.Barrier(3, timeout=5)
    assert len(list(map_in_order(lambda _: barrier.wait(), range(6), threads=3, ahead=3))) == 6


def test_items_are_taken_only_a_few_ahead():
    taken: list[int] = []

    def take():
        for i in range(1000):
            taken.append(i)
            yield i

    results = map_in_order(lambda i: i, take(), threads=2, ahead=4)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(taken) <= 8
    results.close()
    assert len(taken) <= 16


def test_groups_have_what_is_ready_and_wait_for_nothing_else():
    """The calls 1 to 4 end after the first group was yielded, and the call 5 after the third one."""
    first, third = threading.Event(), threading.Event()
    ended: list[int] = []

    def wait(i: int) -> int:
        if i > 0:
            first.wait(5)
        if i == 5:
            third.wait(5)
        ended.append(i)
        return i

    groups = map_in_groups(wait, range(8), threads=8, ahead=8, most=3)
    assert next(groups) == [0]
    first.set()
    while len(ended) < 7:
        time.sleep(0.01)
    time.sleep(0.1)
    assert [next(groups), next(groups)] == [[1, 2, 3], [4]]
    third.set()
    assert [i for group in groups for i in group] == [5, 6, 7]


def test_error_comes_after_the_results_before_it():
    def fail_at_three(i: int) -> int:
        if i == 3:
            raise ValueError("three")
        time.sleep(0.01)
        return i

    results = map_in_order(fail_at_three, range(100), threads=4, ahead=8)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_error_of_the_items_comes_after_their_results():
    def items():
        yield 1
        raise OSError("gone")

    results = map_in_order(lambda i: i, items(), threads=2, ahead=4)
    assert next(results) == 1
    with pytest.raises(OSError, match="gone"):
        next(results)


def test_generator_of_endless_items_is_closed():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    results = map_in_order(lambda i: i, map_in_order(lambda i: i, items(), threads=1, ahead=2), threads=1, ahead=2)
    assert next(results) == 1
    results.close()
    assert closed.is_set()
