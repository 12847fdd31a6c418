"""Tests of the progress display: in a terminal, read by a terminal emulator, and as plain lines."""

import pytest

from ssd_jax.runtime import progress, task
from ssd_jax.runtime.progress import show_progress
from ssd_jax.runtime.task import Task, format_count, format_duration, join_while_fitting


@pytest.fixture
def clock(monkeypatch):
    """Return a list with one number, the time that the tasks see."""
    now = [100.0]
    monkeypatch.setattr(task.time, "monotonic", lambda: now[0])
    return now


def make_task(total: int | None = 10, unit: str = "step", **options) -> Task:
    return Task("training", total, unit, **({"done": 0, "stage": "", "shows_speed": True} | options))


# ---- tasks ----


def test_first_update_does_not_count_for_the_speed(clock):
    steps = make_task(total=100, stage="compiling")
    clock[0] += 65
    assert steps.format_status() == ["compiling  1:05"] and steps.fraction is None
    steps.update()
    assert steps.speed is None and steps.seconds_left is None
    for _ in range(4):
        clock[0] += 0.5
        steps.update()
    assert (steps.speed, steps.seconds_left, steps.fraction) == (2.0, 95 / 2, 0.05)
    assert steps.format_status() == ["5/100 steps", "2 steps/s", "0:48 left"]


def test_first_update_counts_for_the_speed_after_start_lap(clock):
    steps = make_task()
    clock[0] += 1000
    steps.start_lap()
    clock[0] += 2
    steps.update()
    assert steps.speed == 0.5


def test_time_of_an_inner_task_does_not_count_for_the_speed(clock, monkeypatch):
    monkeypatch.setattr(progress, "_make_display", lambda tasks: progress.LineDisplay(()))
    with show_progress("training", total=10, unit="step") as steps:
        steps.start_lap()
        clock[0] += 1
        steps.update()
        with show_progress("evaluating", total=3) as images:
            clock[0] += 100
            images.update(3)
        clock[0] += 1
        steps.update()
    assert steps.speed == 1.0


def test_reset_and_close_let_pooch_use_a_task(clock):
    download = make_task(total=None, unit="B")
    download.total = 3_000_000
    for _ in range(2):
        clock[0] += 1
        download.update(750_000)
    assert download.format_status() == ["1.50 MB of 3 MB", "750 kB/s", "0:02 left"]
    download.reset()
    download.update(3_000_000)
    download.close()
    assert download.done == download.total


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (119_105, "33:05:05")]
)
def test_format_duration_adds_hours_if_there_are_any(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("done", "total", "unit", "text"),
    [
        (7, None, "image", "7 images"),
        (7, 240, "image", "7/240 images"),
        (999, 1200, "B", "999 B of 1.20 kB"),
        (12_345_678, 104_900_000, "B", "12.3 MB of 105 MB"),
        (5_000_000_000, None, "B", "5 GB"),
    ],
)
def test_format_count_scales_bytes(done, total, unit, text):
    assert format_count(done, total, unit) == text


def test_join_while_fitting_leaves_out_the_last_texts_and_cuts_the_first():
    assert join_while_fitting(["one", "two", "three"], 80) == "one, two, three"
    assert join_while_fitting(["one", "two", "three"], 14) == "one, two"
    assert join_while_fitting(["one", "two"], 2) == "on"


def test_line_of_a_long_run_fits_80_columns(clock):
    steps = make_task(total=120_000, done=119_000, shows_speed=False)
    steps.start_lap()
    clock[0] += 118.8
    steps.update()
    steps.set_details(["epoch 1000/1000", "loss 12.345", "1234 images/s", "mAP 61.2 %", "best 63.0 %"])
    line = steps.format_line()
    assert line == "training: 119001/120000 steps, 32:58:01 left, epoch 1000/1000, loss 12.345"
    steps.set_details(["x" * 200])
    assert len(steps.format_line()) <= 80
