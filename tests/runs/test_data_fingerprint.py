"""Tests of the fingerprints of the data of a run."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ssd_jax.config import Shapes
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.data.source import FolderSource, make_annotation
from ssd_jax.runs.data_fingerprint import compute_fingerprint, update_fingerprints

BOX = (1.0, 2.0, 30.0, 40.0)


def make_source(ids: Sequence[str], box: tuple[float, ...] = BOX, label: int = 1) -> FolderSource:
    images = [make_annotation(i, f"{i}.jpg", (64, 64), [box, BOX], [label, 2]) for i in ids]
    return FolderSource(images, ("cat", "dog"))


def test_fingerprint_depends_on_ids_boxes_and_labels():
    sources = [
        make_source(["a", "b"]), make_source(["b", "a"]), make_source(["ab", ""]), make_source(["a", "c"]),
        make_source(["a"]), make_source(["a", "b"], (1.0, 2.0, 30.0, 41.0)), make_source(["a", "b"], label=2),
    ]  # fmt: skip
    assert len({compute_fingerprint(source).digest for source in sources}) == len(sources)
    assert compute_fingerprint(make_source(["a", "b"])) == compute_fingerprint(sources[0])
    compute_fingerprint(make_source(["caf\udce9"]))


def test_update_fingerprints_describes_changes_once(tmp_path):
    old, new = make_source([f"{i}" for i in range(8)]), make_source([f"{i}" for i in range(2, 13)])
    assert update_fingerprints(tmp_path, {"train": old}) == [], "a run of an earlier version has no fingerprints"
    assert update_fingerprints(tmp_path, {"train": old, "val": old}) == []
    (change,) = update_fingerprints(tmp_path, {"train": new, "val": old})
    assert "'train'" in change and "8 images with 16 objects then, 11 images with 22 objects now" in change
    assert update_fingerprints(tmp_path, {"train": new}) == []
    assert "other images or boxes" in update_fingerprints(tmp_path, {"val": make_source(["x"] * 8)})[0]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"train": {"images": "x"}}', b"[" * 9000])
def test_update_fingerprints_ignores_a_corrupt_file(tmp_path, content):
    (tmp_path / "data.json").write_bytes(content)
    assert update_fingerprints(tmp_path, {"train": make_source(["a"])}) == []
    assert update_fingerprints(tmp_path, {"train": make_source(["b"])}) != []


def test_update_fingerprints_leaves_out_generated_images(tmp_path: Path):
    assert update_fingerprints(tmp_path, {"train": ShapesSource(Shapes(), "train")}) == []
    assert not (tmp_path / "data.json").exists()
