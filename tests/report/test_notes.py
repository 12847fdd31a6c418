"""Tests of the notes of the report page."""

import datetime

import pytest

from ssd_jax.data.source import make_annotation
from ssd_jax.report import notes
from ssd_jax.report.run_facts import RunFacts

FACTS = RunFacts("other", 0, 9, datetime.date(2026, 1, 1), None, None, None, ())
WITH, WITHOUT = (
    make_annotation("a", "a.jpg", (9, 9), [(0, 0, 5, 5)], [1]),
    make_annotation("b", "b.jpg", (9, 9), [], []),
)


def list_titles(annotations, use="other", constant=None, state="usable", found=9) -> str:
    metrics = {"split": "val", "checkpoint_step": 1200, "voc_classes": {"ant": {"objects": 10}}}
    if constant is not None:
        metrics["constant_box"] = {"voc_map_area": constant}
    made = notes.make_notes(state, found, metrics, annotations, FACTS._replace(use=use, evaluations=1))
    return " | ".join(f"{note.title}: {note.text}" for note in made)


def test_large_varied_split_has_no_notes():
    assert list_titles([WITH] * 49 + [WITHOUT], constant=0.2) == ""
    assert list_titles([WITH] * 49 + [WITHOUT], constant=None) == ""


def test_small_split_is_noted_below_50_images():
    assert "only 49 images" in list_titles([WITH] * 48 + [WITHOUT])
    assert "only 1 image:" in list_titles([WITHOUT])


def test_split_without_empty_images_is_noted():
    assert list_titles([WITH] * 50).startswith("No image is without objects")
    assert "No image is without objects" not in list_titles([]), "there are no images at all"


def test_split_in_which_a_constant_box_finds_much_is_noted():
    text = list_titles([WITH] * 49 + [WITHOUT], constant=0.405)
    assert text.startswith("The objects are easy to place") and "mAP of 0.405" in text


def test_use_of_the_split_is_noted():
    annotations = [WITH] * 49 + [WITHOUT]
    assert list_titles(annotations, "trained").startswith("The network was trained on these images")
    assert "the best of 1 evaluation on val" in list_titles(annotations, "selected")


def test_network_that_finds_nothing_is_told_so_first():
    text = list_titles([WITH], state="nothing", found=0)
    assert text.startswith("The network finds nothing yet: 0 of 10 objects") and "1,200 steps" in text


@pytest.mark.parametrize(
    ("objects", "found", "mean_ap", "state"),
    [
        (100, 0, 0.0, "nothing"),
        (100, 1, 0.4, "nothing"),
        (100, 2, 0.29, "weak"),
        (100, 2, 0.3, "usable"),
        (0, 0, None, "usable"),
    ],
)
def test_choose_state_depends_on_the_found_objects_and_the_map(objects, found, mean_ap, state):
    assert notes.choose_state(objects, found, mean_ap) == state
