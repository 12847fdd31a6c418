"""Tests of the models that come with the package: size, cards, and accuracy on the test splits."""

import re
import zlib
from typing import Any

import numpy as np
import pytest
from helpers.paths import ROOT

import ssd_jax
from ssd_jax.config import Shapes
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.model_zoo.catalog import CATALOG, CatalogModel
from ssd_jax.model_zoo.model_folder import FILE_NAMES

BUNDLED = {name: model for name, model in CATALOG.items() if model.is_bundled}
TOLERANCE = 0.003


def read_card_metrics(model: CatalogModel) -> dict[str, float]:
    """Return the metrics in the table of a card, by the titles of its columns. The table has one row."""
    text = (model.folder / "README.md").read_text(encoding="utf-8")
    header, row = (re.search(rf"^\| {start} \|(.*)\|$", text, re.MULTILINE)[1] for start in ("split", "test"))
    titles, values = ([cell.strip() for cell in line.split("|")] for line in (header, row))
    return {title: float(value) for title, value in zip(titles, values, strict=True)}


def assert_metrics_match_card(model: CatalogModel, metrics: dict[str, Any]) -> None:
    card = read_card_metrics(model)
    assert metrics["images"] == card["images"]
    assert metrics["voc_map_11point"] == pytest.approx(card["mAP, 11-point"], abs=TOLERANCE)
    assert metrics["voc_map_area"] == pytest.approx(card["mAP, area"], abs=TOLERANCE)
    assert metrics["coco_ap"] == pytest.approx(card["AP"], abs=TOLERANCE)


def test_bundled_models_add_at_most_five_megabytes_to_the_wheel_and_have_no_other_files():
    assert set(BUNDLED) == {"shapes", "blood-cells"}
    folder = ROOT / "ssd_jax" / "model_zoo" / "bundled"
    assert {path.name for path in folder.iterdir()} == set(BUNDLED)
    sizes = 0
    for model in BUNDLED.values():
        assert {path.name for path in model.folder.iterdir()} == set(FILE_NAMES)
        sizes += sum(len(zlib.compress(path.read_bytes())) for path in model.folder.iterdir())  # as in a wheel
    assert sizes <= 5e6


@pytest.mark.parametrize("name", BUNDLED)
def test_catalog_states_what_card_and_config_state(name):
    model, card = BUNDLED[name], read_card_metrics(BUNDLED[name])
    assert float(model.accuracy.partition(" ")[0]) == pytest.approx(100 * card["mAP, 11-point"])
    detector = ssd_jax.load(name)
    assert len(detector.class_names) == model.classes
    assert detector.config.data.root in ("", "shapes") and detector.config.train.pretrained == ""
    text = (model.folder / "README.md").read_text(encoding="utf-8")
    assert f"--train.seed {detector.config.train.seed}" in text and f"step {detector.step}" in text


def test_shapes_finds_most_objects_of_some_generated_images():
    detector, source = ssd_jax.load("shapes"), ShapesSource(Shapes(), "test")
    found = total = 0
    for index in range(8):
        names = [detector.class_names[label - 1] for label in source.annotation(index).labels]
        detected = [detection.name for detection in detector(np.array(source.image(index)))]
        found += sum(min(names.count(name), detected.count(name)) for name in set(names))
        total += len(names)
    assert found >= 0.8 * total > 10


@pytest.mark.slow
def test_shapes_reaches_the_accuracy_of_its_card_on_generated_images():
    metrics = ssd_jax.evaluate("shapes")
    assert_metrics_match_card(BUNDLED["shapes"], metrics)


@pytest.mark.slow
def test_blood_cells_reaches_the_accuracy_of_its_card_on_bccd(bccd):
    metrics = ssd_jax.evaluate("blood-cells", "test", data_root=str(bccd))
    assert_metrics_match_card(BUNDLED["blood-cells"], metrics)
