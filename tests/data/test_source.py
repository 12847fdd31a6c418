"""Tests of annotations that are stored together, and of sources with a part of them."""

import numpy as np

from ssd_jax.data.source import Annotation, AnnotationTable, FolderSource, make_annotation


def make_annotations(count: int = 7) -> list[Annotation]:
    rng = np.random.default_rng(0)
    made = []
    for k in range(count):
        n = int(rng.integers(0, 4)) if k else 0
        flags, numbers = rng.random((2, n)) < 0.5, rng.uniform(0, 40, (n, 5)).tolist()
        boxes, areas = [row[:4] for row in numbers], [row[4] for row in numbers]
        labels = rng.integers(1, 9, n).tolist()
        number = None if k % 2 else k
        made.append(make_annotation(f"{k}", f"{k}.jpg", (40 + k, 30), boxes, labels, *flags.tolist(), areas, number))
    return made


def assert_equal(one: Annotation, other: Annotation) -> None:
    for value, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(value, expected, strict=isinstance(expected, np.ndarray))


def test_annotations_in_a_table_are_those_that_were_appended():
    annotations = make_annotations()
    table = AnnotationTable(annotations[:3])
    for annotation in annotations[3:]:
        table.append(annotation)
    assert len(table) == len(annotations) == len(list(table))
    for index in range(-len(annotations), len(annotations)):
        assert_equal(table[index], annotations[index])
    for one, other in zip(table[1:-1:2], annotations[1:-1:2], strict=True):
        assert_equal(one, other)
    assert len(AnnotationTable()) == 0 and list(AnnotationTable()) == []


def test_selected_images_of_a_source_can_be_selected_again():
    annotations = make_annotations()
    source = FolderSource(annotations, ["a"] * 8).select([5, 1, 3]).select([2, 0])
    assert source.sizes() == [(43, 30), (45, 30)] and len(source) == 2
    for one, other in zip(source.annotations(), (annotations[3], annotations[5]), strict=True):
        assert_equal(one, other)
