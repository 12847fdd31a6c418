"""Tests of the detection program that is kept in the cache folder."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.tiny_detector import CONFIG, MODEL, make_detector

from ssd_jax import config
from ssd_jax.inference import stored_program
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.runtime import compilation, sharding

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """Use an empty folder for compiled programs, and return it."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    compilation.reset_cache()
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before)
    compilation.reset_cache()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the side of the canvas is added when a program is traced."""
    sides: list[int] = []
    trace = stored_program._trace

    def record(settings: config.Config, batch: int, side: int) -> jax.export.Exported:
        sides.append(side)
        return trace(settings, batch, side)

    monkeypatch.setattr(stored_program, "_trace", record)
    return sides


def test_stored_program_detects_the_same_as_the_jitted_function(cache: Path) -> None:
    detector = make_detector()
    canvas = np.zeros((1, 64, 64, 3), np.uint8)
    canvas[0, :40, :30] = IMAGE
    size = np.array([40]), np.array([30])
    predict = make_predict_fn(detector.config, sharding.single_device_mesh())
    expected = predict(detector.params, canvas, *size)
    actual = detector._detect(canvas, *size)
    assert int(expected.valid.sum()) > 5
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_allclose(actual.boxes, expected.boxes, atol=1e-5)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)


def test_program_is_traced_once_for_all_detectors_with_the_same_settings(cache: Path, traced: list[int]) -> None:
    first = make_detector()(IMAGE, score_threshold=0.0)
    assert first and make_detector()(IMAGE, score_threshold=0.0) == first
    assert traced == [64]
    assert len(list(cache.glob("ssd_jax_detect-*"))) == 1
    assert list(cache.glob("jit_*")), "the compiled program is kept, however short its compilation was"
    make_detector(max_detections=7)(IMAGE)
    assert traced == [64, 64]


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_corrupt_stored_program_is_replaced(content: bytes, cache: Path, traced: list[int]) -> None:
    expected = make_detector()(IMAGE, score_threshold=0.0)
    (file,) = cache.glob("ssd_jax_detect-*")
    intact = file.read_bytes()
    file.write_bytes(content or intact[: len(intact) // 2])
    assert make_detector()(IMAGE, score_threshold=0.0) == expected
    assert traced == [64, 64]
    make_detector()(IMAGE)
    assert traced == [64, 64]


def test_detector_works_without_a_cache_folder(
    cache: Path, traced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jax.config.update("jax_compilation_cache_dir", None)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert make_detector()(IMAGE, score_threshold=0.0)
    assert traced == [64]


def test_hash_depends_on_config_shape_and_settings_of_jax() -> None:
    wider = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, width=0.25))
    other_data = dataclasses.replace(CONFIG, data=config.Data(root="elsewhere"))
    first = stored_program._hash_dependencies(CONFIG, 1, 64)
    hashes = [
        stored_program._hash_dependencies(*arguments)
        for arguments in ((wider, 1, 64), (CONFIG, 1, 640), (CONFIG, 8, 64))
    ]
    with jax.default_matmul_precision("highest"):
        hashes.append(stored_program._hash_dependencies(CONFIG, 1, 64))
    assert len({first, *hashes}) == 5
    assert stored_program._hash_dependencies(other_data, 1, 64) == first
