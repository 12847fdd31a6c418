"""Tests of ``ssd-jax benchmark``."""

import sys
from pathlib import Path

import pytest
from helpers.cli import run_command
from helpers.stablehlo_files import write_tiny_file
from helpers.tiny_detector import make_detector

from ssd_jax.export import benchmark
from ssd_jax.model_zoo.saving import save_model_folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a model folder and an exported file of the same network."""
    folder = tmp_path_factory.mktemp("models")
    return (
        save_model_folder(make_detector(), folder / "tiny", dtype="float32"),
        write_tiny_file(folder / "tiny.stablehlo"),
    )


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(benchmark, "measure_memory", lambda source, batch: 123.0)


def read_table(text: str) -> list[list[str]]:
    """Return the rows of a printed table without the header."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("---"))
    return [line.split() for line in lines[start + 1 : -1]]


def test_benchmark_prints_a_row_for_each_and_names_what_is_damaged(sources, tmp_path, capsys):
    damaged = tmp_path / "damaged.stablehlo"
    damaged.write_bytes(sources[1].read_bytes()[:-9])
    assert run_command("benchmark", *sources, damaged, "--rounds", "2", "--batch", "1", "3", "--quiet") == 1
    output = capsys.readouterr()
    printed = output.out
    assert f"Skipped: {damaged}" in printed and "batch 3" in printed and "mAP" not in printed
    assert output.err == f"error: not measured: {damaged}\n"
    rows = read_table(printed)
    assert [row[0] for row in rows] == [str(source) for source in sources]
    for row, source in zip(rows, sources, strict=True):
        file = source / "model.safetensors" if source.is_dir() else source
        assert float(row[1]) > 0 and float(row[2]) > 0 and row[3] == "123"
        assert float(row[4]) == pytest.approx(file.stat().st_size / 1e6, abs=0.06)


def test_benchmark_prints_the_accuracy_if_data_are_given(sources, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "measure_accuracy", lambda model, root, split: (0.75, None))
    assert run_command("benchmark", sources[1], "--rounds", "1", "--batch", "1", "--data.root", "x", "--quiet") == 0
    printed = capsys.readouterr().out
    assert "mAP" in printed and "AP .50" not in printed and read_table(printed)[0][-1] == "0.7500"


def test_benchmark_names_all_mistyped_names_before_it_measures(sources, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "open_detector", None)  # nothing is loaded
    assert run_command("benchmark", sources[1], "gone.onnx", "blod-cells", "--quiet") == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 2
    assert "gone.onnx" in output.err and "blood-cells" in output.err


def test_benchmark_skips_a_file_whose_runtime_is_not_installed(sources, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "a.onnx").write_bytes(b"not read")
    command = ["benchmark", sources[1], tmp_path / "a.onnx", "--rounds", "1", "--batch", "1", "--quiet"]
    assert run_command(*command) == 0
    assert "ssd-jax[onnx]" in capsys.readouterr().out


def test_benchmark_fails_if_nothing_can_be_measured(tmp_path, capsys):
    (tmp_path / "cut.stablehlo").write_bytes(b"PK")
    assert run_command("benchmark", tmp_path / "cut.stablehlo", "--quiet") == 2
    assert "nothing could be measured" in capsys.readouterr().err
    for options in (["blood-cells", "--rounds", "0"], ["blood-cells", "--batch", "0"], []):
        assert run_command("benchmark", *options) == 2


def test_time_in_turns_returns_the_median_and_alternates(monkeypatch):
    now, order = [0.0], []
    durations = {"a": iter([9, 1, 5, 2]), "b": iter([9, 3, 3, 3])}

    def take(name: str) -> None:
        order.append(name)
        now[0] += next(durations[name])

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now[0])
    times = benchmark.time_in_turns({name: lambda name=name: take(name) for name in "ab"}, rounds=3)
    assert times == {"a": 2, "b": 3}, "the first call of each, which compiles, does not count"
    assert order == list("abababab")


@pytest.mark.slow
def test_measure_memory_runs_in_a_process_of_its_own(sources, monkeypatch):
    monkeypatch.undo()
    assert 1 < benchmark.measure_memory(str(sources[1]), 1) < 2000
