"""Tests of the bounded number of points of curves."""

import math

import numpy as np
import pytest

from ssd_jax.watching import curves
from ssd_jax.watching.curves import Curves


def read_all(series: Curves) -> dict:
    return series.make_message(None, 0)


@pytest.mark.parametrize("entries", [1, 7, 16, 17, 64, 1000, 1023])
def test_points_are_means_over_equally_many_consecutive_entries(monkeypatch, entries):
    monkeypatch.setattr(curves, "MAX_POINTS", 16)
    losses = np.random.default_rng(0).normal(size=entries)
    series = Curves()
    for step, loss in enumerate(losses.tolist(), 1):
        series.add_entry({"step": step, "loss": loss})
    message = read_all(series)
    size = message["entries_per_point"]
    parts = np.split(losses, range(size, entries, size))
    np.testing.assert_allclose(message["values"]["loss"], [part.mean() for part in parts], atol=1e-12)
    np.testing.assert_allclose(
        message["steps"], [part.mean() for part in np.split(np.arange(1, entries + 1), range(size, entries, size))]
    )
    assert message["fixed"] == entries // size < 16
    assert size == 1 or message["fixed"] >= 8


def test_message_has_only_the_points_that_the_page_does_not_have():
    series = Curves()
    for step in range(1, 6):
        series.add_entry({"step": step, "loss": step / 8})
    first = series.make_message(None, 0)
    assert (first["start"], first["fixed"], first["steps"]) == (0, 5, [1, 2, 3, 4, 5])
    series.add_entry({"step": 6, "loss": 0.75})
    second = series.make_message(first["number"], first["fixed"])
    assert (second["start"], second["steps"], second["values"]) == (5, [6], {"loss": [0.75]})
    assert series.make_message(second["number"], second["fixed"])["steps"] == []
    series.clear()
    series.add_entry({"step": 1, "loss": 2.0})
    third = series.make_message(second["number"], second["fixed"])
    assert (third["start"], third["steps"]) == (0, [1]), "what the page has is void"


def test_a_page_that_asks_again_and_again_has_the_same_points_as_a_new_one(monkeypatch):
    monkeypatch.setattr(curves, "MAX_POINTS", 8)
    series, known, number, fixed = Curves(), [], None, 0
    for step in range(1, 200):
        series.add_entry({"step": step})
        if step % 3 == 0:
            message = series.make_message(number, fixed)
            known = known[: message["start"]] + message["steps"]
            number, fixed = message["number"], message["fixed"]
            assert known == read_all(series)["steps"]
    assert message["start"] > 0 or message["entries_per_point"] > 1


def test_values_that_cannot_be_drawn_are_left_out():
    series = Curves()
    odd = [math.nan, math.inf, None, 10**400]
    for step, value in enumerate(odd, 1):
        series.add_entry({"step": step, "loss": value, "other": 1.0})
    series.add_entry({"step": 10**400, "loss": 1.0})
    series.add_entry({"step": math.nan, "loss": 1.0})
    message = read_all(series)
    assert message["steps"] == [1, 2, 3, 4] and message["values"] == {"other": [1.0] * 4}


def test_a_metric_may_be_missing_in_some_entries(monkeypatch):
    monkeypatch.setattr(curves, "MAX_POINTS", 2)
    series = Curves()
    for entry in ({"step": 1, "a": 1.0}, {"step": 2, "b": 3.0}, {"step": 3, "a": 5.0}):
        series.add_entry(entry)
    message = read_all(series)
    assert message["steps"] == [1.5, 3] and message["values"] == {"a": [1.0, 5.0], "b": [3.0, None]}


def test_the_number_of_metrics_is_bounded():
    series = Curves()
    series.add_entry({"step": 1} | {f"m{i}": 1.0 for i in range(1000)})
    assert len(read_all(series)["values"]) == curves.MAX_COLUMNS
