"""benchmarks/: what is timed is what it says, and how the figures are made of the times."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import growth, quick
from benchmarks.speed import ours, turns
from benchmarks.speed import scene as scenes
from benchmarks.speed.__main__ import duration, of_roofline, row
from benchmarks.speed.machine import machine
from benchmarks.speed.works import OURS, WORKS, Work
from ssd_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    scenes.write_scene(folder)
    return folder


def test_every_scene_is_the_same(folder, tmp_path):
    scenes.write_scene(tmp_path)
    for name, array in ours.read_scene(folder).items():
        np.testing.assert_array_equal(array, ours.read_scene(tmp_path)[name])
    assert (folder / "000.jpg").read_bytes() == (tmp_path / "000.jpg").read_bytes()


def test_outputs_are_as_of_a_trained_network(folder):
    """Hundreds of candidates an image, of which some are sure, and hardly anything elsewhere."""
    for classes in (21, 91):
        logits = ours.read_scene(folder)[f"logits_{classes}"].astype(np.float64)
        odds = np.exp(logits - logits.max(axis=2, keepdims=True))
        scores = (odds / odds.sum(axis=2, keepdims=True))[..., 1:]
        candidates = (scores > 0.01).sum(axis=(1, 2))
        assert (candidates > 500).all() and (candidates < 8000).all()
        sure = (scores.max(axis=2) > 0.5).sum(axis=1)
        assert (sure > 20).all() and (sure < 1000).all()


@pytest.mark.parametrize("work", ["loss", "detect_21", "augment", "read"])
def test_works_do_what_they_say(folder, work):
    told = getattr(ours, work)(folder, "")()
    expected: dict[str, Any] = {
        "detect_21": [200] * 4, "augment": [4, 300, 300, 3], "read": [[375, 500, 3]] * 4,
    }  # fmt: skip
    assert told == expected[work] if work in expected else told > 1


def test_the_photograph_is_reduced_to_its_canvas(tmp_path):
    scenes.write_photograph(tmp_path)
    with Image.open(tmp_path / "photograph.jpeg") as image:
        assert image.size == (4000, 3000)
    assert ours.photograph(tmp_path, "")() == [480, 640, 3]


def test_both_sides_have_every_work():
    """Without importing the other side, which needs torch."""
    source = (Path(turns.ROOT) / "benchmarks" / "speed" / "theirs.py").read_text()
    for work in WORKS:
        assert callable(getattr(ours, work.name))
        assert f"\ndef {work.name}(folder: Path, way: str) -> Call:" in source


def timed(mine: list[float], one: list[float], other: list[float]) -> turns.Timed:
    work = Work("forward", "forward", 4, ("one", "other"), 1.0)
    seconds = {OURS: mine, "one": one, "other": other}
    return turns.Timed(work, seconds, dict.fromkeys(seconds, 100.0), {})


def test_ratio_is_of_the_better_way_in_the_same_round():
    table_row = timed([1.0, 2.0, 9.0], [2.0, 4.0, 3.0], [5.0, 5.0, 5.0])
    assert table_row.ratio == 0.5, "1/2, 2/4, 9/3"
    assert row(table_row) == "| forward | 2 s | 3 s (one); 5 s (other) | 0.50 | 1.00 | 100, 100 |"
    assert [duration(s) for s in (0.0123, 1.234)] == ["12.3 ms", "1.23 s"]


@pytest.mark.parametrize(
    ("device", "share"),
    [
        ("NVIDIA H100 80GB HBM3", ", 20% of its peak in float32"),
        ("TPU v5 lite", ", 50% of its peak in float32"),
        ("A1", ""),
    ],
)
def test_share_of_the_roofline(device, share):
    """1000 images a second of 98.9e9 FLOPs are 98.9 TFLOP/s; the H100's peak is 494.5, a v5e's 197."""
    told = {"flops": 98.9e9, "platform": "gpu", "device": device}
    table_row = dataclasses.replace(timed([1e-3], [1], [1]), told={OURS: told})
    assert of_roofline(table_row) == f"\nforward: 1000 images/s on {device}{share}\n"
    on_cpu = dataclasses.replace(table_row, told={OURS: told | {"platform": "cpu"}})
    assert of_roofline(on_cpu) == ""


def test_exponent():
    points = [growth.Point(1, 5.0, 7), growth.Point(10, 1.0, 10), growth.Point(20, 4.0, 80)]
    assert growth.exponent(points, "seconds", 1) == pytest.approx(2)
    assert growth.exponent(points, "bytes", 1) == pytest.approx(3)
    assert growth.exponent(points, "seconds", 2) == pytest.approx(1), "of an image's pixels"


def test_growing_works_are_of_the_sizes_they_say():
    assert growth.model_of(300).feature_map_sizes == (38, 19, 10, 5, 3, 2)
    assert growth.matching_and_loss(objects=7).arguments[2].shape == (4, 7, 4)
    assert growth.detection(classes=5, batch=3).arguments[1].shape == (3, 8732, 5)
    point = growth.measure(growth.detection(classes=3, batch=1), 3, 0.01)
    assert point.size == 3 and point.seconds > 0 and point.bytes > 1000


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"machine": "that one", "ratios": {}}'])
def test_quick_refuses_a_baseline_that_lacks_a_work(text, tmp_path, monkeypatch):
    baseline = tmp_path / "baseline.json"
    baseline.write_text(text)
    monkeypatch.setattr(quick, "BASELINE", baseline)
    with pytest.raises(UserError, match=r"baseline\.json: can't be read .*--store"):
        quick.main([])


def test_growth_refuses_what_it_cannot_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--only nothing: .*'objects an image'"):
        growth.main(["--out", str(tmp_path), "--only", "objects", "nothing"])
    with pytest.raises(UserError, match="name another --out"):
        growth.main(["--out", str(tmp_path / "file")])


def test_a_missing_package_is_named():
    with pytest.raises(UserError, match="no-such-package is not installed; make bench"):
        machine("no-such-package")


@pytest.mark.parametrize(("before", "code"), [(1.0, 0), (0.7, 1)])
def test_quick_fails_beyond_the_margin(before, code, tmp_path, monkeypatch, capsys):
    """Within 1.3 times the stored ratio, and beyond."""
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"machine": "that one", "ratios": {"JPEG to array": before}}))
    monkeypatch.setattr(quick, "BASELINE", baseline)
    monkeypatch.setattr(quick, "WORKS", {"JPEG to array": ours.read})
    monkeypatch.setattr(quick, "time_beside", lambda call, other: (0.001, 1.0))
    assert quick.main([]) == code
    assert ("SLOWER: JPEG to array" in capsys.readouterr().err) == (code == 1)


def test_times_are_those_of_a_call(monkeypatch):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(quick.time, "perf_counter", lambda: now.time)

    def takes(seconds: float) -> Any:
        def call() -> None:
            now.time += seconds

        return call

    assert quick.time_beside(takes(0.25), takes(0.5)) == (0.25, 0.5)
