"""Tests of the description of differences between two lists of class names."""

import pytest

from ssd_jax.data.class_names import describe_class_difference, format_names


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ((), (), []),
        (("cat", "dog"), ["cat", "dog"], []),
        (("cat", "dog"), ("cat",), ["  only in the checkpoint: dog"]),
        ((), ("cat",), ["  only in the data: cat"]),
        (("cat", "dog"), ("cow", "cat", "ant"), ["  only in the checkpoint: dog", "  only in the data: cow, ant"]),
        (("cat",), ("Cat",), ["  only in the checkpoint: cat", "  only in the data: Cat"]),
        (
            ("cat", "dog"),
            ("dog", "cat"),
            ["  the same names in another order", "  in the checkpoint: cat, dog", "  in the data: dog, cat"],
        ),
    ],
)
def test_describe_class_difference_lists_names_missing_in_either_list(old, new, lines):
    assert describe_class_difference(old, new).splitlines() == lines


def test_describe_class_difference_contains_the_given_places():
    assert (
        describe_class_difference(["a"], ["b"], old_place="the run", new_place="val")
        == "  only in the run: a\n  only in val: b"
    )


def test_format_names_breaks_lines_only_between_names():
    names = [f"class-{number}" for number in range(40)]
    lines = format_names("kept", names).splitlines()
    assert 3 < len(lines) < 6 and all(len(line) <= 110 for line in lines)
    assert all(line.startswith("    class-") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == "kept: " + ", ".join(names)
