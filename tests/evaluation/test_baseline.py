"""Tests of the constant boxes that a detector is compared with."""

import dataclasses
from pathlib import Path

import pytest
from helpers.cli import write_voc_folder

from ssd_jax.config import Config, Data, Model
from ssd_jax.data.formats.shapes import CLASS_NAMES
from ssd_jax.data.run_splits import open_split
from ssd_jax.evaluation import baseline
from ssd_jax.metrics.constant_box import ConstantBox, evaluate_constant_boxes


@pytest.fixture
def config(tmp_path: Path) -> Config:
    root = write_voc_folder(tmp_path / "data", {"train": 4, "test": 3})
    return Config(name="tiny", model=Model(class_names=CLASS_NAMES), data=Data(root=str(root)))


def measure(config: Config, split: str) -> tuple[ConstantBox, ConstantBox, ConstantBox]:
    """Return the measured baseline, and those with the boxes of train and of the measured split itself."""
    source = open_split(config, "test")
    own, train = (list(open_split(config, name).annotations()) for name in ("test", "train"))
    actual = ConstantBox(**baseline.measure_constant_boxes(config, split, source, own))
    return (
        actual,
        evaluate_constant_boxes("train", train, own, CLASS_NAMES),
        evaluate_constant_boxes(split, own, own, CLASS_NAMES),
    )


def test_constant_boxes_are_those_of_the_train_split(config: Config):
    actual, of_train, of_split = measure(config, "test")
    assert actual == of_train != of_split


def test_constant_boxes_are_those_of_the_split_if_there_is_no_train_split(config: Config):
    missing = dataclasses.replace(config, data=dataclasses.replace(config.data, train_split="nowhere"))
    source = open_split(config, "test")
    own = list(source.annotations())
    measured = baseline.measure_constant_boxes(missing, "test", source, own)
    assert measured == evaluate_constant_boxes("test", own, own, CLASS_NAMES)._asdict()


def test_line_about_constant_boxes_has_percentages_and_a_dash_for_unknown_values():
    constant = ConstantBox("train", 0.0, 0.405, 0.0, precision=0.619, recall=None)
    line = baseline.format_constant_boxes(constant._asdict())
    assert line.endswith("of train in every image: mAP 40.5 % (area), precision 61.9 %, recall -")
