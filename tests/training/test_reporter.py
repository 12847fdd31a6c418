"""Tests of what a training run shows of its progress. What it writes is tested with `train`."""

import dataclasses
from typing import Any

import pytest
from helpers import tiny_config

from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.runtime import progress, task
from ssd_jax.training import reporter as module
from ssd_jax.training.reporter import Reporter

TINY = tiny_config.get_step_config()
TRAIN = dataclasses.replace(TINY.train, steps=100, batch_size=8)


@pytest.fixture
def clock(monkeypatch):
    """Return a list with one number, the time that the display sees, and show no display."""
    now = [100.0]
    monkeypatch.setattr(task.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_make_display", lambda tasks: progress.LineDisplay(()))
    monkeypatch.setattr(progress.LineDisplay, "start", lambda display: None)
    monkeypatch.setattr(progress.LineDisplay, "stop", lambda display: None)
    monkeypatch.setattr(module.pictures, "write_train_batch", lambda *_: None)
    monkeypatch.setattr(module.pictures, "write_curves", lambda *_: None)
    monkeypatch.setattr(module.pictures, "write_truth_and_predictions", lambda *_: None)
    return now


class CountedLoss:
    """A loss that counts how often it was read from the device."""

    reads = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        CountedLoss.reads += 1
        return self.value


def show_line() -> str:
    """Return the line of the outermost task."""
    return progress._tasks[0].format_line()


def test_compilation_is_shown_with_a_clock_and_does_not_count_for_the_speed(clock, tmp_path):
    with Reporter(tmp_path, TRAIN, 0, images=40) as reporter:
        assert "augmenting" in show_line()
        clock[0] += 5
        reporter.report_train_batch(ShapesSource(TINY.data.shapes, "train"), [], ())
        clock[0] += 65
        assert show_line() == "training: 1:05  compiling the training step, once; about a minute"
        reporter.report_dispatch()
        clock[0] += 0.5
        reporter.report_dispatch()
        reporter.report_step(1, {"loss": CountedLoss(3.25)})
        assert show_line() == "training: 1/100 steps, 0:50 left, epoch 1/20, loss 3.250, 16.0 images/s"


def test_loss_is_read_at_most_once_per_second(clock, tmp_path):
    CountedLoss.reads = 0
    with Reporter(tmp_path, TRAIN, 0, images=40) as reporter:
        reporter.report_dispatch()
        for step in range(1, 41):
            clock[0] += 0.1
            reporter.report_step(step, {"loss": CountedLoss(float(step))})
        assert CountedLoss.reads <= 5 and "40/100 steps" in show_line() and "epoch 8/20" in show_line()


def make_metrics(value: float) -> dict[str, Any]:
    return dict.fromkeys(module.RESULTS_COLUMNS, value)


def test_evaluations_are_printed_and_shown_with_the_best_one(clock, tmp_path, capsys):
    source = ShapesSource(TINY.data.shapes, "val")
    with Reporter(tmp_path, TRAIN, 0, images=40) as reporter:
        reporter.report_dispatch()
        for step, value in ((10, 0.5), (20, 0.25)):
            clock[0] += 1
            reporter.report_step(step, {"loss": CountedLoss(1.0)})
            with reporter.show_evaluation(source) as show_images:
                assert len(progress._tasks) == 2 and ("compiling" in progress._tasks[1].format_line()) == (step == 10)
                show_images(3)
                assert "evaluating: 3/6 images" in progress._tasks[1].format_line()
                clock[0] += 100
            reporter.report_evaluation(step, make_metrics(value), source, [])
        assert show_line().endswith(", 8.0 images/s"), "evaluations do not count for the speed"
        assert progress._tasks[0].format_details()[-2:] == ["mAP 25.0 %", "best 50.0 %"]
    first, second = capsys.readouterr().out.splitlines()
    assert first == "step 10: val mAP 50.0 %, 11-point mAP 50.0 %, COCO AP 50.0 %, the best so far"
    assert second.startswith("step 20: val mAP 25.0 %") and "best" not in second


def test_a_resumed_run_starts_with_its_steps_and_its_best_result(clock, tmp_path):
    (tmp_path / "results.csv").write_text("step,voc_map_area\n30,0.5\n60,0.25\n")
    with Reporter(tmp_path, TRAIN, 60, images=40) as reporter:
        assert "compiling" in show_line()
        reporter.report_dispatch()
        clock[0] += 2
        reporter.report_step(61, {"loss": CountedLoss(1.0)})
        assert show_line().startswith("training: 61/100 steps, 1:18 left, epoch 13/20")
        assert progress._tasks[0].format_details()[-2:] == ["mAP 25.0 %", "best 50.0 %"]


def test_quiet_training_prints_no_measurements(clock, tmp_path, capsys):
    with progress.hide_progress(), Reporter(tmp_path, TRAIN, 0, images=40) as reporter:
        reporter.report_step(1, {"loss": CountedLoss(1.0)})
        reporter.report_evaluation(1, make_metrics(0.5), ShapesSource(TINY.data.shapes, "val"), [])
    assert capsys.readouterr() == ("", "")


def run_steps(reporter: Reporter, clock: list[float], start: int) -> None:
    reporter.report_dispatch()
    for step in range(start + 1, start + 13):
        clock[0] += 1
        reporter.report_step(step, {"loss": CountedLoss(1.0)})


def test_expected_time_is_printed_once_when_some_steps_are_measured(clock, tmp_path, capsys):
    with Reporter(tmp_path, TRAIN, 0, images=40, val_images=40) as reporter:
        clock[0] += 60
        reporter.report_dispatch()
        clock[0] += 1
        reporter.report_step(1, {"loss": CountedLoss(1.0)})
        assert "Expected" not in capsys.readouterr().out
        run_steps(reporter, clock, 1)
    assert capsys.readouterr().out == "Expected time: about 2.0 min for 100 steps, evaluation included\n", (
        "100 s + 8 * 2.5 s"
    )
    with Reporter(tmp_path, TRAIN, 50, images=40) as reporter:
        run_steps(reporter, clock, 50)
    assert capsys.readouterr().out == "Expected time: about 50 s for the other 50 steps\n", "no speed was logged"


def test_expected_time_is_not_printed_if_it_was_printed_at_the_start(clock, tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text('{"step": 50, "images_per_second": 8.0}\n')
    with Reporter(tmp_path, TRAIN, 50, images=40) as reporter:
        run_steps(reporter, clock, 50)
    with progress.hide_progress(), Reporter(tmp_path, TRAIN, 0, images=40) as reporter:
        run_steps(reporter, clock, 0)
    assert not capsys.readouterr().out
