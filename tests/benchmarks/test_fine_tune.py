"""Tests of benchmarks/fine_tune.py: the copy with some of the classes, the configs of the runs, and the tables."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import TINY, write_voc_folder
from PIL import Image

from benchmarks import fine_tune
from benchmarks.fine_tune import Options, Run
from ssd_jax.config import Config, Data
from ssd_jax.data.formats.open import open_source
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.errors import UserError
from ssd_jax.runs import run_folder
from ssd_jax.runs.config_file import load_config

CELL, CLOT, DUST = (2.0, 3.0, 20.0, 30.0), (5.0, 6.0, 15.0, 16.0), (0.0, 0.0, 4.0, 4.0)
CLASSES = ("cell", "clot", "dust")


def make_three_class_source() -> FolderSource:
    """Return a split of three images with objects of three classes."""
    return FolderSource(
        [
            make_annotation(
                "mixed", "mixed.png", (64, 48), [CLOT, CELL, DUST, CELL], [2, 1, 3, 1], crowd=[False, False, True, True]
            ),
            make_annotation("only_clots", "only_clots.png", (64, 48), [CLOT, CLOT], [2, 2], difficult=[True, False]),
            make_annotation("empty", "empty.png", (64, 48), [], []),
        ],
        CLASSES,
    )


def test_select_classes_drops_objects_but_keeps_all_images():
    source = fine_tune.select_classes(make_three_class_source(), ("dust", "cell"))  # not in the split's order
    assert source.class_names == ("dust", "cell")
    mixed, only_clots, empty = (source.annotation(i) for i in range(len(source)))
    assert [mixed.image_id, only_clots.image_id, empty.image_id] == ["mixed", "only_clots", "empty"]
    assert mixed.labels.tolist() == [2, 1, 2]
    assert mixed.boxes_px.tolist() == [list(CELL), list(DUST), list(CELL)]
    assert mixed.crowd.tolist() == [False, True, True]
    assert mixed.area_px.tolist() == [18 * 27, 16, 18 * 27]
    assert only_clots.boxes_px.shape == (0, 4) and only_clots.difficult.tolist() == []
    assert empty.labels.tolist() == []


def test_select_classes_does_not_change_the_source():
    source = make_three_class_source()
    fine_tune.select_classes(source, ("dust",))
    assert source.annotation(0).labels.tolist() == [2, 1, 3, 1]


def test_select_classes_rejects_an_unknown_class():
    with pytest.raises(UserError, match=r"'cells'.*cell, clot, dust"):
        fine_tune.select_classes(make_three_class_source(), ("cells",))


def test_write_copy_keeps_all_images_and_the_selected_classes(tmp_path):
    """The copy is in COCO's format, and the original in VOC's."""
    root = write_voc_folder(tmp_path / "whole", {"train": 6, "val": 2})
    whole = open_source(Data(root=str(root)), "train[1:]")
    name = whole.class_names[1]
    wanted = [[label == 2 for label in whole.annotation(i).labels] for i in range(5)]
    assert any(map(any, wanted)) and not all(map(any, wanted)), "some objects have the class and some do not"
    fine_tune.write_copy(tmp_path / "copy", fine_tune.select_classes(whole, (name,)))
    copy = open_source(Data(root=str(tmp_path / "copy"), val_split="train"), "train")
    assert copy.class_names == (name,) and len(copy) == 5
    for i, mask in enumerate(wanted):
        here, there = copy.annotation(i), whole.annotation(i)
        assert Path(here.file).read_bytes() == Path(there.file).read_bytes()
        np.testing.assert_array_equal(here.boxes_px, there.boxes_px[mask])
        assert here.labels.tolist() == [1] * sum(mask)


def test_write_copy_rewrites_an_incomplete_copy_and_keeps_a_complete_one(tmp_path):
    root = write_voc_folder(tmp_path / "whole", {"train": 3})
    source, copy = open_source(Data(root=str(root), val_split="train"), "train"), tmp_path / "copy"
    (copy / "images" / "train").mkdir(parents=True)
    (copy / "images" / "train" / "train0.png").write_bytes(b"half a pic")
    fine_tune.write_copy(copy, source)
    files = sorted((copy / "images" / "train").iterdir())
    assert [file.name for file in files] == ["train0.png", "train1.png", "train2.png"]
    written = files[0].stat().st_mtime_ns
    fine_tune.write_copy(copy, source)
    assert files[0].stat().st_mtime_ns == written


@pytest.mark.parametrize(("images", "steps"), [(144, 18), (145, 19), (8, 1), (7, 1), (292, 37)])
def test_count_steps_per_epoch_rounds_up(images: int, steps: int):
    assert fine_tune.count_steps_per_epoch(images, 8) == steps


def test_run_configs_differ_only_in_start_and_seed(tmp_path):
    config, options = load_config(Path("configs/own_data.py")), Options(Path("data"), tmp_path, epochs=4)
    scratch, tuned, other = (
        fine_tune.make_run_config(config, options, start, tmp_path / "base", seed, epoch_steps=18)
        for start, seed in (("from scratch", 0), ("fine-tuned", 0), ("from scratch", 1))
    )
    assert run_folder.list_config_differences(scratch, other) == ["train.seed: 0 -> 1"]
    changed = {line.split(":")[0] for line in run_folder.list_config_differences(scratch, tuned)}
    assert "train.transfer" in changed and len(changed) == 2
    assert (scratch.train.steps, scratch.train.eval_every) == (72, 18), "the metrics are computed after each epoch"
    assert (scratch.data.train_split, scratch.data.val_split) == (options.train_split, "test")


def make_runs(last_metrics: dict[tuple[str, int], float]) -> list[Run]:
    """Return runs of two epochs. ``last_metrics`` maps (start, seed) of each run to its metric after the last epoch."""

    def make_metrics(value: float) -> dict[str, float]:
        return {"voc_map_11point": value, "voc_map_area": value + 0.01}

    return [
        Run(start, seed, [make_metrics(0.1), make_metrics(value)], {"cell": value, "clot": 0.5})
        for (start, seed), value in last_metrics.items()
    ]


LAST = {
    ("from scratch", 5): 0.25, ("fine-tuned", 5): 0.5,
    ("from scratch", 7): 0.5, ("fine-tuned", 7): 0.375,
    ("from scratch", 6): 0.125, ("fine-tuned", 6): 0.75,
}  # fmt: skip


def test_gains_are_differences_per_seed_after_the_last_epoch():
    assert fine_tune.compute_gains(make_runs(LAST), "voc_map_11point") == [0.25, -0.125, 0.625]
    summary = fine_tune.make_results(make_runs(LAST))["fine_tuned_minus_from_scratch_after_the_last_epoch"]
    assert summary["voc_map_11point"] == {"per_seed": [0.25, -0.125, 0.625], "median": 0.25}


def test_tables_group_runs_by_initialization():
    lines = fine_tune.make_tables(make_runs(LAST)).splitlines()
    assert "| from scratch | 7 | 0.100 (0.110) | 0.500 (0.510) |" in lines
    assert "| fine-tuned | 6 | 0.750 | 0.500 |" in lines
    assert "| 11-point | +0.250 | -0.125 | +0.625 | +0.250 |" in lines
    assert lines.index("| from scratch | 6 | 0.100 (0.110) | 0.125 (0.135) |") < lines.index(
        "| fine-tuned | 5 | 0.100 (0.110) | 0.500 (0.510) |"
    ), "all runs from scratch come before the fine-tuned runs"


class FakeProgram:
    """A fake of training and evaluation. It records their arguments, and writes the files that real runs write."""

    def __init__(self) -> None:
        self.trained: dict[str, Config] = {}
        self.evaluated: list[list[str]] = []

    def train(self, config: Config, run: Path) -> None:
        """Record the config, and write config.json and results.csv of a finished run."""
        self.trained[run.name] = config
        classes = open_source(config.data, config.data.train_split).class_names
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=classes))
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.json").write_text(run_folder.config_to_json(config))
        every = config.train.eval_every
        steps = range(every, config.train.steps + 1, every) if every else []
        rows = "".join(f"{step},0.5,{step / 8},0.25\n" for step in steps)
        (run / "results.csv").write_text(f"step,loss,voc_map_11point,voc_map_area\n{rows}")

    def evaluate(self, argv: list[str]) -> None:
        """Record the arguments, and write metrics.json."""
        self.evaluated.append(argv)
        classes = {"cell": {"ap_11point": 0.5}, "clot": {"ap_11point": None}}
        (Path(argv[0]) / "metrics.json").write_text(json.dumps({"voc_classes": classes}))


def test_compare_trains_all_runs_and_does_not_evaluate_finished_runs_again(tmp_path, capsys, monkeypatch):
    program = FakeProgram()
    monkeypatch.setattr(fine_tune.training_run, "train", program.train)
    monkeypatch.setattr(fine_tune.evaluate, "run", program.evaluate)
    root, out = write_voc_folder(tmp_path / "data", {"train": 10, "test": 4}), tmp_path / "out"
    first, *_ = open_source(Data(root=str(root)), "train").class_names
    argv = [str(root), "--out", str(out), "--config", TINY, "--base-classes", first, "--base-split", "train[:5]"]
    argv += ["--base-steps", "6", "--train-split", "train[5:]", "--epochs", "3", "--seeds", "4", "9"]
    assert fine_tune.main(argv) == 0
    assert "2 steps of 4 images" in capsys.readouterr().out

    assert list(program.trained) == ["base", "from_scratch_4", "fine_tuned_4", "from_scratch_9", "fine_tuned_9"]
    base = program.trained["base"]
    assert (base.data.root, base.train.steps, base.train.eval_every) == (str(out / "base_data"), 6, 0)
    assert run_folder.read_config(out / "base").model.class_names == (first,)
    assert {program.trained[name].data.root for name in list(program.trained)[1:]} == {str(root)}
    runs = [str(out / name) for name in list(program.trained)[1:]]
    assert program.evaluated == [[run, "--checkpoint", "last"] for run in runs], (
        "the last checkpoint is evaluated, not the best one on the test split"
    )

    written = json.loads((out / "results.json").read_text())["runs"]
    assert [(run["start"], run["seed"]) for run in written][:2] == [("from scratch", 4), ("fine-tuned", 4)]
    assert written[3]["epochs"] == [{"voc_map_11point": step / 8, "voc_map_area": 0.25} for step in (2, 4, 6)]
    assert written[3]["per_class"] == {"cell": 0.5, "clot": 0.0}
    with Image.open(out / "curves.png") as image:
        assert image.width > 1000

    assert fine_tune.main(argv) == 0
    assert len(program.evaluated) == 4, "finished runs are not evaluated again"


def test_fine_tune_command_reports_user_errors_without_traceback(tmp_path, capsys):
    assert fine_tune.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere" in capsys.readouterr().err
