"""Tests of the progress display: in a terminal, read by a terminal emulator, and as plain lines."""

import os
import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT
from helpers.terminal import run_in_terminal

from ssd_jax.runtime import progress, task
from ssd_jax.runtime.progress import hide_progress, is_progress_hidden, show_progress
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
    assert steps.format_status() == ["1:05  compiling"] and steps.fraction is None
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
            assert steps.speed is None or steps.speed == 1.0
            images.update(3)
        clock[0] += 1
        steps.update()
    assert steps.speed == 1.0


def test_speed_and_time_left_follow_the_time_of_a_late_update(clock):
    images = make_task(total=10, unit="image")
    images.start_lap()
    for _ in range(4):
        clock[0] += 0.1
        images.update()
    clock[0] += 0.1
    assert images.speed == pytest.approx(10), "the next update is not late"
    clock[0] += 60
    assert images.speed == pytest.approx(4 / 60.4) and images.seconds_left == pytest.approx(6 * 60.4 / 4)
    images.pause_lap()
    assert images.speed == pytest.approx(10), "a task inside this one is running"


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


# ---- displays ----

PROGRAM = r"""
import sys, time
from ssd_jax.runtime import progress

progress.LINE_SECONDS = 0.3
with progress.show_progress("tr\x1b[2Jäining", 540, "step", stage="compiling", shows_speed=False) as steps:
    time.sleep(1.6)  # as a compilation does, this blocks only the main thread
    print("note: \x1b]0;title\x07 \u732b")
    print("warning: forged?\rx", file=sys.stderr)
    steps.start_lap()
    steps.update(120)
    steps.set_details(["epoch 1/9", "loss 1.234", "mAP 61.2 %", "best 63.0 %", "9 % waiting for data"])
    time.sleep(0.7)
    with progress.show_progress("evaluating", 36) as images:
        images.update(9)
        time.sleep(0.7)
    print("incomplete", end="")
print(" line")
"""
COMMAND = [sys.executable, "-c", PROGRAM]


@pytest.fixture(scope="module")
def shown():
    return run_in_terminal(COMMAND, PYTHONPATH=str(ROOT))


def find_lines(screens: list[list[str]], pattern: str) -> list[str]:
    """Return the different lines of all screens that match a pattern."""
    return list(dict.fromkeys(line for screen in screens for line in screen if re.search(pattern, line)))


def test_clock_moves_in_a_terminal_while_the_main_thread_is_blocked(shown):
    lines = find_lines(shown.screens, "compiling")
    assert len(lines) >= 2 and all(re.search(r"  0:0\d  compiling$", line) for line in lines)


def test_terminal_shows_the_tasks_below_all_other_output(shown):
    screens = [screen for screen in shown.screens if "incomplete" not in screen]  # then the tasks are being removed
    full = next(screen for screen in reversed(screens) if any("evaluating" in line for line in screen))
    lines = [re.sub(r"[━╸╺]+", "#", line) for line in full]
    before = ["note: \\x1b]0;title\\x07 猫", "warning: forged?\\x0dx"]
    assert lines[:2] == before
    assert re.fullmatch(r"tr\\x1b\[2Jäining  #  120/540 steps  0:0\d left", lines[2])
    assert lines[3].split() == ["epoch", "1/9,", "loss", "1.234,", "mAP", "61.2", "%,", "best", "63.0", "%"]
    assert re.fullmatch(r"evaluating  #  9/36 images  0:0\d", lines[4])
    assert shown.screens[-1] == [*before, "incomplete", " line"], "the tasks are gone"


def test_terminal_gets_no_codes_from_texts(shown):
    assert b"\x1b]" not in shown.raw and b"\x1b[2J" not in shown.raw
    assert b"\x1b[?25l" not in shown.raw, "the cursor is never hidden: a killed process could not show it again"
    assert re.search(rb"\x1b\[[0-9;]*3[0-9]m", shown.raw), "colours"


def test_terminal_display_has_no_colours_with_no_color_and_fits_a_narrow_ascii_terminal():
    shown = run_in_terminal(
        COMMAND, columns=44, PYTHONPATH=str(ROOT), NO_COLOR="1", PYTHONIOENCODING="ascii:backslashreplace"
    )
    assert shown.raw.isascii() and not re.search(rb"\x1b\[[0-9;]*3[0-9]m", shown.raw)
    assert find_lines(shown.screens, r"^tr.*  120/540 steps") and find_lines(shown.screens, "^ +epoch 1/9")
    assert shown.screens[-1][0] == r"note: \x1b]0;title\x07 \u732b"
    screens = [screen for screen in shown.screens if "incomplete" not in screen]
    assert len(max(screens, key=len)) == 5, "no line is broken into two"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("terminal", [True, False])
def test_plain_lines_are_printed_now_and_then_without_a_terminal_that_moves_the_cursor(terminal, unbuffered):
    settings = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    if terminal:
        text = run_in_terminal(COMMAND, **settings, TERM="dumb").raw.decode().replace("\r\n", "\n")
    else:
        environment = os.environ | settings | {"PYTHONIOENCODING": "utf-8", "FORCE_COLOR": "1"}
        text = subprocess.run(
            COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        ).stdout.decode()  # fmt: skip
    lines = [line for line in text.splitlines() if re.match(r"(tr.*ining|evaluating):", line)]
    assert 3 <= len(lines) <= 20, text
    assert re.fullmatch(r"tr\\x1b\[2Jäining: 0:0\d  compiling", lines[0])
    assert any(re.fullmatch(r"tr.*ining: 120/540 steps, 0:0\d left, epoch 1/9, loss 1.234, .*", line) for line in lines)
    assert any(re.fullmatch(r"evaluating: 9/36 images, 0:0\d", line) for line in lines)
    assert max(map(len, lines)) <= 80
    assert text.index("compiling") < text.index("note: ") < text.index("evaluating"), "in order in one file"


def test_hidden_progress_shows_nothing(capfd, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress._next_line, "time", 0.0)  # so that a line would be due at once
    with hide_progress():
        assert is_progress_hidden()
        with show_progress("training", 3) as steps:
            for _ in steps.count_items(range(3)):
                task.time.sleep(0.02)
    assert steps.done == 3 and not is_progress_hidden()
    assert capfd.readouterr() == ("", "")
