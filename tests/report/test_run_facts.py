"""Tests of the facts about a run on the report page."""

import datetime
import json
import math
from pathlib import Path

import pytest

from ssd_jax.config import Config, Data, Model, Train
from ssd_jax.models.parameters import compute_parameter_shapes
from ssd_jax.report import run_facts

CONFIG = Config(
    name="tiny", model=Model(class_names=("ant",)), data=Data(root="d"), train=Train(steps=40, batch_size=8)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the logs of a run: two evaluations, and 40 steps of which the first 10 have no speed."""
    speeds = {10: 0.0, 20: 4.0, 40: 16.0}
    lines = [json.dumps({"step": s, "loss": 9 / s, "images_per_second": v}) for s, v in speeds.items()]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "results.csv").write_text("step,voc_map_area\n20,0.5\n30,\n40,0.25\n")
    return tmp_path


def test_read_run_facts_reads_the_logs_of_the_run(folder: Path):
    facts = run_facts.read_run_facts(CONFIG, folder, "val", 20, images_per_second=7.5)
    assert (facts.use, facts.evaluations, facts.images_per_second) == ("selected", 2, 7.5)
    assert facts.training_seconds == 10 * 8 / 4 + 20 * 8 / 16
    assert [(plot.title, plot.last_step, plot.last) for plot in facts.plots] == [
        ("loss", 40, 9 / 40),
        ("mAP (VOC, area) on val", 40, 0.25),
    ]
    assert facts.parameters == sum(math.prod(shape) for shape in compute_parameter_shapes(CONFIG.model).values())


@pytest.mark.parametrize(
    ("split", "options", "use"),
    [
        ("train", {}, "trained"),
        ("test", {}, "other"),
        ("val", {"is_best": False}, "other"),
        ("val", {"has_own_data": False}, "other"),
        ("train", {"has_own_data": False}, "other"),
    ],
)
def test_use_of_a_split_depends_on_the_run(folder: Path, split: str, options: dict[str, bool], use: str):
    assert run_facts.read_run_facts(CONFIG, folder, split, 20, **options).use == use


@pytest.mark.parametrize("has_folder", [False, True])
def test_network_without_logs_has_no_curves_and_no_duration(tmp_path: Path, has_folder: bool):
    facts = run_facts.read_run_facts(CONFIG, tmp_path if has_folder else None, "val", 0)
    assert facts[:2] == ("other", 0) and facts.training_seconds is None and facts.plots == ()


def test_find_training_dates_returns_the_days_of_the_first_and_the_last_step():
    log = [{"step": 1}, {"step": 2, "time": 86_399}, {"step": 3, "time": 2 * 86_400}]
    assert run_facts.find_training_dates(log) == (datetime.date(1970, 1, 1), datetime.date(1970, 1, 3))
    assert run_facts.find_training_dates(log[:1]) is None, "the log of an earlier version"
    assert run_facts.find_training_dates([{"step": 1, "time": math.inf}]) is None


def test_curves_leave_out_losses_that_are_not_finite():
    log = [
        {"step": 1, "loss": math.inf},
        {"step": 2, "loss": 3.0},
        {"step": 3, "loss": math.nan},
        {"step": 4, "loss": 2.0},
    ]
    (plot,) = run_facts.make_training_plots(log, [], 4)
    assert (plot.last_step, plot.last, plot.top) == (4, 2.0, 3.0)
