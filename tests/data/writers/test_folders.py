"""Tests of the writers of annotation files that conversions and predictions share."""

import json
from pathlib import Path

import numpy as np
import pytest

from ssd_jax.data.source import make_annotation
from ssd_jax.data.writers.folders import CocoWriter, Entry, FolderWriter, VocWriter, YoloWriter, exact_edges
from ssd_jax.errors import UserError


def make_entry(image: str, number: int | None = None) -> Entry:
    return Entry(make_annotation(image, image, (40, 30), [(1, 2, 11, 12)], [1], number=number), [1], image)


def test_coco_ids_are_the_own_ones_where_these_are_free(tmp_path):
    writer = CocoWriter(tmp_path, ["cat"])
    writer.start_split("")
    numbers = [None, 1, 7, None, 7, 2, 0, 2**60, 3]
    for k, number in enumerate(numbers):
        writer.write(make_entry(f"{k}.jpg", number))
    writer.finish_split()
    content = json.loads((tmp_path / "annotations" / "annotations.json").read_text())
    ids = [image["id"] for image in content["images"]]
    assert len(set(ids)) == len(ids) and [ids[2], ids[6]] == [7, 0]
    assert [box["image_id"] for box in content["annotations"]] == ids


def test_edges_are_the_shortest_numbers_that_are_read_as_the_same_ones():
    edges = np.random.default_rng(0).uniform(0, 4000, (50, 4)).astype(np.float32)
    edges[0] = 0, 1, 1e-3, 1 / 3
    (*read,) = exact_edges(make_annotation("a", "a", (4000, 4000), edges.tolist(), [1] * 50))
    np.testing.assert_array_equal(np.array(read, np.float64).astype(np.float32), edges)
    assert [str(edge) for edge in read[0]] == ["0", "1", "0.001", "0.33333334"]


@pytest.mark.parametrize("kind", [VocWriter, CocoWriter, YoloWriter])
def test_writers_report_a_folder_that_cannot_be_written(kind, tmp_path):
    (tmp_path / "out").write_text("a file is in the way")
    writer = kind(tmp_path / "out", ["cat"])
    assert isinstance(writer, FolderWriter)
    with pytest.raises(UserError, match=r"out.*can't be written"):
        writer.start_split("train")
        writer.write(make_entry("a.jpg"))


def test_images_in_subfolders_have_their_annotations_in_subfolders(tmp_path: Path):
    for writer, file in (
        (VocWriter(tmp_path, ["cat"]), "Annotations/b/a.xml"),
        (YoloWriter(tmp_path, ["cat"]), "labels/b/a.txt"),
    ):
        writer.start_split("")
        writer.write(make_entry("b/a.jpg"))
        assert (tmp_path / file).exists()
    assert "<folder>JPEGImages/b</folder>" in (tmp_path / "Annotations/b/a.xml").read_text()
