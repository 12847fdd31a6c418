"""Tests of line breaks for terminals."""

import pytest

from ssd_jax.runtime.wrapping import wrap_line

SENTENCE = "The run is finished: all 30 steps are done"


@pytest.mark.parametrize(
    ("line", "wrapped"),
    [
        (SENTENCE, "The run is finished: all 30\nsteps are done"),
        ("  length   30 steps of 8 images", "  length   30 steps of 8\n           images"),
        (SENTENCE[:28], SENTENCE[:28]),
        ("a-path/that_is/longer_than_the_terminal.jpg is", "a-path/that_is/longer_than_the_terminal.jpg\nis"),
        ("circle        0.5   0.25   0.125   0.0625", None),
        ("  ssd-jax evaluate runs/own_data --report", None),
        ("  to resume: ssd-jax train own_data --train.steps 5", None),
        ("", None),
    ],
)
def test_wrap_line_breaks_between_words_but_not_in_tables_and_commands(line: str, wrapped: str | None):
    assert wrap_line(line, 28) == (line if wrapped is None else wrapped)
