"""Tests of the agreement of sentences with a number."""

import re

import pytest

from ssd_jax.data.problems import Kind
from ssd_jax.plurals import format_count

SENTENCES = [kind.training_note for kind in Kind if kind.training_note]


@pytest.mark.parametrize(
    ("sentence", "singular"),
    [
        ("images", "image"),
        ("boxes reach beyond their image; training uses them", "box reaches beyond its image; training uses it"),
        ("label files have no image and were left out", "label file has no image and was left out"),
        ("files or folders cannot be read and were passed over", "file or folder cannot be read and was passed over"),
        (
            "images have several records, whose objects were left",
            "image has several records, whose objects were left",
        ),
        (
            "images are in two splits, so metrics are too high",
            "image is in two splits, so metrics are too high",
        ),
        ("folders lack label files for many of their images", "folder lacks label files for many of its images"),
        ("PNG files are named .jpg", "PNG file is named .jpg"),
    ],
)
def test_format_count_changes_the_subject_and_its_verbs(sentence, singular):
    assert format_count(1, sentence) == f"1 {singular}"
    assert [format_count(number, sentence) for number in (0, 2)] == [f"0 {sentence}", f"2 {sentence}"]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_format_count_knows_the_words_of_every_kind_of_problem(sentence):
    singular = format_count(1, sentence)
    assert not re.search(r"\b(are|were|have|do|their)\b", re.split("[,;]", singular)[0])
    assert not re.search(r"\bthe[my]\b", singular)
    first, verb = re.fullmatch(r"1 ((?:\w+ )*?)(\w+s|may|cannot|was|were)\b.*", singular).groups()
    assert not re.search(r"(?<!s)s\b", first), (first, verb)
