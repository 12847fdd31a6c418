"""Tests of the cross-validation: which network judges which image, refused plans, and changed data."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_detector import CONFIG

from ssd_jax.auditing import folds
from ssd_jax.auditing.folds import FoldPlan, assign_folds, describe_cost, detect_in_folds, plan_folds
from ssd_jax.config import Train
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.training.loop import Trainer

RUN = dataclasses.replace(CONFIG, train=Train(steps=30, batch_size=4, minutes=3))


def make_source(images: int, label: int = 1) -> FolderSource:
    annotations = [make_annotation(f"i{k}", f"i{k}.jpg", (64, 64), [(0, 0, 9, 9)], [label]) for k in range(images)]
    return FolderSource(annotations, ("a", "b"))


class FakeTrainer(Trainer):
    """Trainer whose parameters are the ids of its training images. Its prediction is not used."""

    mesh = predict = None
    trained: dict[Path, set[str]] = {}  # noqa: RUF012 (the tests read and clear it)

    def __init__(self, config, workdir, train_source, val_source) -> None:
        self.config, self.workdir, self.source = config, workdir, train_source

    def run(self) -> int:
        (self.workdir / "checkpoints" / str(self.config.train.steps)).mkdir(parents=True)
        self.trained[self.workdir] = {annotation.image_id for annotation in self.source.annotations()}
        return self.config.train.steps


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Replace training and detection. Return a dict that detection fills: image id to the ids its network learned.

    The score of the detection in an image is 0.01 times the number in its id. Image i3 cannot be read.
    """
    judged: dict[str, set[str]] = {}

    def predict(predict, params, source, config, mesh, progress, unreadable):
        found = []
        for position, annotation in enumerate(source.annotations()):
            judged[annotation.image_id] = params
            if annotation.image_id == "i3":
                unreadable[position] = "cut short"
            score = int(annotation.image_id[1:]) / 100
            found.append(
                ImageDetections(np.zeros((1, 4), np.float32), np.array([score], np.float32), np.ones(1, np.int32))
            )
        return found

    FakeTrainer.trained = {}
    monkeypatch.setattr(folds, "Trainer", FakeTrainer)
    monkeypatch.setattr(folds, "restore_params", lambda folder, *rest: (FakeTrainer.trained[folder], 0))
    monkeypatch.setattr(folds, "predict_split", predict)
    return judged


@pytest.mark.parametrize(("images", "count"), [(7, 2), (12, 5), (5, 5)])
def test_assign_folds_divides_images_evenly_and_by_id(images: int, count: int):
    source = make_source(images)
    result = assign_folds(source, count)
    sizes = np.bincount(result, minlength=count)
    assert len(sizes) == count and sizes.max() - sizes.min() <= 1
    order = np.random.default_rng(0).permutation(images)
    assert (assign_folds(source.select(order.tolist()), count) == result[order]).all()


@pytest.mark.parametrize("count", [-1, 1, 8])
def test_assign_folds_refuses_useless_numbers(count: int):
    with pytest.raises(UserError, match="--folds"):
        assign_folds(make_source(7), count)


def test_plan_folds_takes_the_length_of_the_run_or_another_one(tmp_path: Path):
    plan = plan_folds(RUN, make_source(6), 3, tmp_path)
    assert (plan.config.train.steps, plan.config.train.minutes, plan.config.train.eval_every) == (30, None, 0)
    shorter = plan_folds(RUN, make_source(6), 3, tmp_path, 5)
    assert shorter.config.train.steps == 5
    assert len({*plan.folders, *shorter.folders}) == 6
    with pytest.raises(UserError, match="--steps"):
        plan_folds(RUN, make_source(6), 3, tmp_path, 0)


def test_describe_cost_counts_the_steps_that_are_left(tmp_path: Path):
    plan = plan_folds(RUN, make_source(6), 3, tmp_path / "networks")
    assert "90 steps" in describe_cost(plan, None)
    (plan.folders[0] / "checkpoints" / "20").mkdir(parents=True)
    assert "70 steps" in describe_cost(plan, None)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "images_per_second": 2.0}\n')
    assert "2:20" in describe_cost(plan, tmp_path)  # 70 steps of 4 images at 2 images/s


def test_detect_in_folds_judges_each_image_by_a_network_that_has_not_learned_it(tmp_path: Path, judged):
    source, unread = make_source(11), {}
    plan = plan_folds(RUN, source, 3, tmp_path)
    detections = detect_in_folds(plan, source, unread)
    ids = {f"i{k}" for k in range(11)}
    assert set(judged) == ids
    for image_id, learned in judged.items():
        assert image_id not in learned
        assert len(learned) >= 7
    assert set.union(*judged.values()) == ids
    assert [round(100 * float(d.scores[0])) for d in detections] == list(range(11)), "in the order of the split"
    assert unread == {3: "cut short"}


def test_detect_in_folds_with_a_shift_judges_each_image_by_a_network_that_has_learned_it(tmp_path: Path, judged):
    source = make_source(11)
    detections = detect_in_folds(plan_folds(RUN, source, 3, tmp_path), source, {}, shift=1)
    assert all(image_id in learned for image_id, learned in judged.items()) and len(judged) == 11
    assert [round(100 * float(d.scores[0])) for d in detections] == list(range(11))


def test_detect_in_folds_trains_no_finished_network_again(tmp_path: Path, judged, monkeypatch: pytest.MonkeyPatch):
    source = make_source(6)
    plan = plan_folds(RUN, source, 2, tmp_path)
    detect_in_folds(plan, source, {})
    monkeypatch.setattr(FakeTrainer, "run", lambda self: pytest.fail("trained again"))
    assert len(detect_in_folds(plan, source, {})) == 6


def test_detect_in_folds_refuses_networks_that_learned_other_annotations(tmp_path: Path, judged):
    plan = plan_folds(RUN, make_source(6), 2, tmp_path)
    detect_in_folds(plan, make_source(6), {})
    for _ in range(2):  # the refusal is not forgotten
        with pytest.raises(UserError, match="1_of_2"):
            detect_in_folds(plan, make_source(6, label=2), {})
    assert len(detect_in_folds(plan, make_source(6), {})) == 6


def test_detect_in_folds_stops_at_a_signal(tmp_path: Path, judged, monkeypatch: pytest.MonkeyPatch):
    plan: FoldPlan = plan_folds(RUN, make_source(6), 2, tmp_path)
    monkeypatch.setattr(FakeTrainer, "run", lambda self: 7)
    with pytest.raises(KeyboardInterrupt, match="step 7 of fold 1 of 2"):
        detect_in_folds(plan, make_source(6), {})
