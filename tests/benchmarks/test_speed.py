"""Tests of the speed benchmarks: results of the tasks, ratios, exponents, and rejected options."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import growth, quick
from benchmarks.speed import interleaved, ssd_jax_side
from benchmarks.speed import scene as scenes
from benchmarks.speed.__main__ import format_duration, format_roofline, format_row
from benchmarks.speed.machine import describe_machine
from benchmarks.speed.tasks import OURS, TASKS, Task
from ssd_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory) -> Path:
    """Return a folder with the files of a generated scene."""
    scene_folder = tmp_path_factory.mktemp("scene")
    scenes.write_scene(scene_folder)
    return scene_folder


def test_write_scene_is_deterministic(scene_folder, tmp_path):
    scenes.write_scene(tmp_path)
    for name, array in ssd_jax_side.read_scene(scene_folder).items():
        np.testing.assert_array_equal(array, ssd_jax_side.read_scene(tmp_path)[name])
    assert (scene_folder / "000.jpg").read_bytes() == (tmp_path / "000.jpg").read_bytes()


def test_network_output_has_scores_like_those_of_a_trained_network(scene_folder):
    """Each image has 500 to 8000 scores above 0.01, and 20 to 1000 boxes with a score above 0.5."""
    for classes in (21, 91):
        logits = ssd_jax_side.read_scene(scene_folder)[f"logits_{classes}"].astype(np.float64)
        odds = np.exp(logits - logits.max(axis=2, keepdims=True))
        scores = (odds / odds.sum(axis=2, keepdims=True))[..., 1:]
        candidates = (scores > 0.01).sum(axis=(1, 2))
        assert (candidates > 500).all() and (candidates < 8000).all()
        confident = (scores.max(axis=2) > 0.5).sum(axis=1)
        assert (confident > 20).all() and (confident < 1000).all()


@pytest.mark.parametrize(
    "task", ["loss", "read", *(pytest.param(task, marks=pytest.mark.slow) for task in ("detect_21", "augment"))]
)
def test_tasks_return_the_expected_results(scene_folder, task):
    result = getattr(ssd_jax_side, f"prepare_{task}")(scene_folder, "")()
    expected: dict[str, Any] = {
        "detect_21": [200] * 4, "augment": [4, 300, 300, 3], "read": [[375, 500, 3]] * 4,
    }  # fmt: skip
    assert result == expected[task] if task in expected else result > 1


@pytest.mark.slow  # generates an image of twelve megapixels
def test_large_photo_is_reduced_to_the_canvas(tmp_path):
    scenes.write_large_photo(tmp_path)
    with Image.open(tmp_path / "large_photo.jpeg") as image:
        assert image.size == (4000, 3000)
    assert ssd_jax_side.prepare_large_photo(tmp_path, "")() == [480, 640, 3]


def test_both_libraries_have_every_task():
    """torchvision_side.py needs torch, so the test searches its source text instead of importing it."""
    source = (Path(interleaved.ROOT) / "benchmarks" / "speed" / "torchvision_side.py").read_text()
    for task in TASKS:
        assert callable(getattr(ssd_jax_side, f"prepare_{task.name}"))
        assert f"\ndef prepare_{task.name}(folder: Path, variant: str) -> Call:" in source


def make_measurements(ssd_jax: list[float], first: list[float], second: list[float]) -> interleaved.Timed:
    """Return measurements of a task. The arguments are the seconds of each round for three variants."""
    task = Task("forward", "forward", 4, ("first", "second"), 1.0)
    seconds = {OURS: ssd_jax, "first": first, "second": second}
    return interleaved.Timed(task, seconds, dict.fromkeys(seconds, 100.0), {})


def test_timed_ratio_is_relative_to_the_fastest_variant_of_each_round():
    timed = make_measurements([1.0, 2.0, 9.0], [2.0, 4.0, 3.0], [5.0, 5.0, 5.0])
    assert timed.ratio == 0.5, "the ratios of the rounds are 1/2, 2/4 and 9/3"
    assert format_row(timed) == "| forward | 2 s | 3 s (first); 5 s (second) | 0.50 | 1.00 | 100, 100 |"
    assert [format_duration(s) for s in (0.0123, 1.234)] == ["12.3 ms", "1.23 s"]


@pytest.mark.parametrize(
    ("device", "share"),
    [
        ("NVIDIA H100 80GB HBM3", ", 20% of its peak in float32"),
        ("TPU v5 lite", ", 50% of its peak in float32"),
        ("A1", ""),
    ],
)
def test_format_roofline_contains_the_share_of_the_peak(device, share):
    """1000 images/s at 98.9e9 FLOPs per image are 98.9 TFLOP/s. The peak is 494.5 TFLOP/s on an H100, 197 on a v5e."""
    result = {"flops": 98.9e9, "platform": "gpu", "device": device}
    timed = dataclasses.replace(make_measurements([1e-3], [1], [1]), results={OURS: result})
    assert format_roofline(timed) == f"\nforward: 1000 images/s on {device}{share}\n"
    on_cpu = dataclasses.replace(timed, results={OURS: result | {"platform": "cpu"}})
    assert format_roofline(on_cpu) == ""


def test_compute_growth_exponent_uses_the_last_two_sizes():
    points = [growth.Point(1, 5.0, 7), growth.Point(10, 1.0, 10), growth.Point(20, 4.0, 80)]
    assert growth.compute_growth_exponent(points, "seconds", 1) == pytest.approx(2)
    assert growth.compute_growth_exponent(points, "bytes", 1) == pytest.approx(3)
    assert growth.compute_growth_exponent(points, "seconds", 2) == pytest.approx(1), (
        "growth is relative to the number of pixels of an image"
    )


def test_growth_programs_have_the_given_sizes():
    assert growth.make_model(300).feature_map_sizes == (38, 19, 10, 5, 3, 2)
    assert growth.make_matching_and_loss_program(objects=7).arguments[2].shape == (4, 7, 4)
    assert growth.make_detection_program(classes=5, batch=3).arguments[1].shape == (3, 8732, 5)
    point = growth.measure_program(growth.make_detection_program(classes=3, batch=1), 3, 0.01)
    assert point.size == 3 and point.seconds > 0 and point.bytes > 1000


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"machine": "that one", "ratios": {}}'])
def test_quick_rejects_an_incomplete_baseline(text, tmp_path, monkeypatch):
    baseline = tmp_path / "baseline.json"
    baseline.write_text(text)
    monkeypatch.setattr(quick, "BASELINE", baseline)
    with pytest.raises(UserError, match=r"baseline\.json.*--store"):
        quick.main([])


def test_growth_rejects_unknown_axes_and_an_invalid_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--only nothing.*'objects per image'"):
        growth.main(["--out", str(tmp_path), "--only", "objects", "nothing"])
    with pytest.raises(UserError, match="--out"):
        growth.main(["--out", str(tmp_path / "file")])


def test_describe_machine_names_a_missing_package():
    with pytest.raises(UserError, match=r"no-such-package.*make bench"):
        describe_machine("no-such-package")


@pytest.mark.parametrize(("stored_ratio", "exit_code"), [(1.0, 0), (0.7, 1)])
def test_quick_fails_if_a_ratio_exceeds_the_margin(stored_ratio, exit_code, tmp_path, monkeypatch, capsys):
    """The measured ratio is 1.0, the stored ratio is 1.0 or 0.7, and the margin is a factor of 1.3."""
    baseline = tmp_path / "baseline.json"
    baseline.write_text(json.dumps({"machine": "that one", "ratios": {"JPEG to array": stored_ratio}}))
    monkeypatch.setattr(quick, "BASELINE", baseline)
    monkeypatch.setattr(quick, "TASKS", {"JPEG to array": ssd_jax_side.prepare_read})
    monkeypatch.setattr(quick, "time_interleaved", lambda call, reference: (0.001, 1.0))
    assert quick.main([]) == exit_code
    assert ("SLOWER: JPEG to array" in capsys.readouterr().err) == (exit_code == 1)


def test_time_interleaved_returns_seconds_per_call(monkeypatch):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(quick.time, "perf_counter", lambda: now.time)

    def make_call(seconds: float) -> Any:
        """Return a function that advances the clock by some seconds."""

        def advance_clock() -> None:
            now.time += seconds

        return advance_clock

    assert quick.time_interleaved(make_call(0.25), make_call(0.5)) == (0.25, 0.5)
