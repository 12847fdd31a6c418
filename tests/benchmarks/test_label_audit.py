"""Tests of the damage that the benchmark of audits makes, and of what it counts."""

import numpy as np

from benchmarks.label_audit import Damage, damage_annotations, find_hits, format_results, make_results
from ssd_jax.data.source import make_annotation
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.metrics.doubts import Doubt, DoubtKind
from ssd_jax.metrics.voc_matching import compute_inclusive_iou

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)


def test_damage_annotations_removes_and_swaps_about_the_given_shares():
    boxes = [(k, 0, k + 5, 5) for k in range(40)]
    annotations = [make_annotation(f"{i}", f"{i}.jpg", (100, 100), boxes, [1, 2] * 20) for i in range(50)]
    damage = damage_annotations(annotations, 3, 0.1, 0.03, seed=1)
    removed = sum(len(a.labels) for a in damage.removed.values())
    assert 150 < removed < 250 and 30 < len(damage.changed) < 90
    for i, (before, after) in enumerate(zip(annotations, damage.annotations, strict=True)):
        labels = {tuple(box): label for box, label in zip(before.boxes_px.tolist(), before.labels, strict=True)}
        together = np.concatenate([after.boxes_px, damage.removed[i].boxes_px])
        assert sorted(map(tuple, together.tolist())) == sorted(labels)
        for j, (box, label) in enumerate(zip(after.boxes_px.tolist(), after.labels.tolist(), strict=True)):
            assert (damage.changed.get((i, j)) == "swapped") == (label != labels[tuple(box)])
            assert 1 <= label <= 3


def test_damage_annotations_moves_boxes_and_adds_others_at_empty_places():
    boxes = [(20 * k, 0, 20 * k + 8, 12) for k in range(5)]
    annotations = [make_annotation(f"{i}", f"{i}.jpg", (100, 100), boxes, [1] * 5) for i in range(40)]
    damage = damage_annotations(annotations, 1, 0.0, 0.0, seed=1, moved=0.2, added=0.3)
    names = list(damage.changed.values())
    assert 20 < names.count("moved") < 60 and 30 < names.count("added") < 90
    for i, after in enumerate(damage.annotations):
        iou = compute_inclusive_iou(after.boxes_px, annotations[i].boxes_px)
        for j, best in enumerate(iou.max(axis=1).tolist()):
            expected = {None: best == 1, "moved": 0.35 < best < 0.5, "added": best < 0.1}
            assert expected[damage.changed.get((i, j))]
            assert after.boxes_px[j].min() >= 0 or damage.changed[i, j] == "moved"
    assert sum(len(a.labels) for a in damage.annotations) == 200 + names.count("added")


def test_find_hits_counts_each_mistake_once():
    removed = make_annotation("a", "a.jpg", (100, 100), [A], [1])
    kept = make_annotation("a", "a.jpg", (100, 100), [B, C], [1, 1])
    damage = Damage([kept], {0: removed}, {(0, 1): "swapped"})
    boxes = np.array([A, A, (1, 0, 10, 10), B], np.float32)
    found = ImageDetections(boxes, np.full(4, 0.9, np.float32), np.array([2, 1, 1, 1], np.int32))
    doubts = [
        Doubt(DoubtKind.MISSING, 0.9, 0, None, 0),  # another class
        Doubt(DoubtKind.MISSING, 0.8, 0, None, 1),
        Doubt(DoubtKind.MISSING, 0.7, 0, None, 2),  # named before
        Doubt(DoubtKind.CLASS, 0.6, 0, 0, 3, 1.0),  # not changed
        Doubt(DoubtKind.EMPTY, 0.5, 0, 1, None),
    ]
    hits = find_hits(doubts, [found], damage)
    assert hits == [None, ("removed", 0, 0), None, None, ("swapped", 0, 1)]
    results = make_results(doubts, hits, damage, 4)
    assert results["first"]["missing label"] == {"doubts": 3, "made": 1, "expected": 2.4}
    assert results["found"]["first"] == {"doubts": 4, "removed": 1, "swapped": 0}
    assert results["found"]["as many as mistakes"] == {"doubts": 2, "removed": 1, "swapped": 0}
    assert results["found"]["all"] == {"doubts": 5, "removed": 1, "swapped": 1}
    assert "1 (1.00)" in format_results(results)
