"""Tests of the compilation of the training step and the detection program.

Tests that compile for absent devices run only with SSD_JAX_AOT=1 and with the compilers installed (``make aot``).
"""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import jax
import msgspec
import pytest
from helpers.cli import ROOT, TINY, run_command
from helpers.paths import ASSETS

from ssd_jax.aot import programs
from ssd_jax.aot.compiled import (
    Collective,
    Costs,
    Memory,
)
from ssd_jax.aot.report import format_report
from ssd_jax.commands.aot import add_class_names
from ssd_jax.runs.config_file import load_config
from ssd_jax.runtime import sharding
from ssd_jax.training import train_step

BASELINE = ASSETS / "aot_baseline.json"
BASELINE_COMMAND = (
    "--target", "v5e:2x4", "configs/ssd300_voc0712.py", "--train.batch_size", "256", "--model.dtype", "bfloat16",
)  # fmt: skip


# ---- the command, and compilation for this machine ----


@pytest.mark.parametrize("program", [pytest.param("train", marks=pytest.mark.slow), "detect"])
def test_compile_program_returns_costs_on_the_local_cpu(program: programs.Program):
    """The training step and the detection program are compiled for the CPU of this machine."""
    config = add_class_names(load_config(Path(TINY)), 3)
    mesh = sharding.make_mesh(jax.devices("cpu")[:1])
    costs = programs.compile_program(config, mesh, program, "cpu")
    assert costs.memory is not None and costs.flops and costs.bytes_accessed
    assert costs.model_flops > 4 * 64 * 64 * 9 * 3 * 8 * 2, "at least conv1_1 of 4 images"
    assert costs.flops > 0.95 * costs.model_flops, "XLA skips taps on padding"
    assert (costs.collectives, costs.host_transfers) == ((), ())
    canvases = 4 * 64 * 64 * 3
    parameters = sum(4 * leaf.size for leaf in jax.tree.leaves(train_step.compute_state_shapes(config, mesh).params))
    assert costs.memory.arguments > parameters + canvases
    assert (costs.memory.aliased > 2 * parameters) == (program == "train"), (
        "the training step reuses the memory of its state"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--target", "v9:2x4", TINY, "--classes", "3"], "--target v9:2x4"),
        ([TINY, "--classes", "3"], "--target"),
        (["--target", "v5e:2x4", TINY], "--classes"),
        (["--target", "v5e:2x4", TINY, "--classes", "0"], "--classes is 0"),
        (["--target", "v5e:2x4", "ssd300_voc", "--classes", "3"], "--classes 3"),
        (["--target", "v5e:2x4"], "ssd-jax configs"),
        (["--target", "v5e:2x4", "nowhere.py"], "nowhere.py"),
        (["--table"], "--json"),
        (["--table", "nowhere.json"], "nowhere.json"),
        (["--table", TINY], "tiny_config.py"),
    ],
)
def test_aot_exits_with_2_for_wrong_arguments(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run_command("aot", *argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and not captured.out


def test_aot_help_lists_the_targets(capsys: pytest.CaptureFixture[str]):
    assert run_command("aot", "--help") == 0
    output = capsys.readouterr().out
    assert "--target" in output and "h100x8" in output


# ---- compilation for absent devices, which takes minutes ----


def summarize_collectives(costs: Costs) -> dict[str, tuple[int, int]]:
    """Return the number of collectives of each kind and their total size in bytes."""
    kinds = {c.kind for c in costs.collectives}
    sizes = {kind: [c.size for c in costs.collectives if c.kind == kind] for kind in kinds}
    return {kind: (len(of_kind), sum(of_kind)) for kind, of_kind in sizes.items()}


def find_increases(old: Costs, new: Costs) -> list[str]:
    """Return a line with the old and the new number for each cost that is higher in ``new`` than in ``old``."""
    assert old.memory and new.memory and old.flops and new.flops and old.bytes_accessed and new.bytes_accessed
    pairs = {
        "FLOPs": (old.flops * 1.001, new.flops),
        "bytes accessed": (old.bytes_accessed * 1.001, new.bytes_accessed),
        "memory": (old.memory.peak * 1.01, new.memory.peak),
        "transfers to the host": (len(old.host_transfers), len(new.host_transfers)),
    }
    before = summarize_collectives(old)
    for kind, (number, size) in summarize_collectives(new).items():
        most, largest = before.get(kind, (0, 0))
        pairs |= {f"number of {kind}": (most, number), f"bytes of {kind}": (largest, size)}
    return [f"{cost}: {then} -> {after}" for cost, (then, after) in pairs.items() if after > then]


def test_find_increases_names_every_increased_cost():
    old = Costs(
        1e9, 1e9, 1e9, Memory(100, 100, 0, 0), collectives=(Collective("all-reduce", ("f32[10]", "f32[]")),) * 2
    )

    def list_increased_costs(**fields) -> list[str]:
        return [line.partition(":")[0] for line in find_increases(old, msgspec.structs.replace(old, **fields))]

    assert (
        list_increased_costs()
        == list_increased_costs(flops=0.5e9, bytes_accessed=1.0005e9, memory=Memory(100, 101, 0, 0))
        == []
    )
    assert list_increased_costs(flops=1.002e9) == ["FLOPs"]
    assert list_increased_costs(bytes_accessed=1.002e9) == ["bytes accessed"]
    assert list_increased_costs(memory=Memory(100, 103, 0, 0)) == ["memory"]
    assert list_increased_costs(host_transfers=("outfeed",)) == ["transfers to the host"]
    assert list_increased_costs(collectives=(Collective("all-reduce", ("f32[23]",)),)) == ["bytes of all-reduce"], (
        "fewer, larger"
    )
    assert list_increased_costs(collectives=(Collective("all-reduce", ("f32[]",)),) * 3) == ["number of all-reduce"]
    gathered = (*old.collectives, Collective("all-gather", ("f32[8]",)))
    assert list_increased_costs(collectives=gathered) == ["number of all-gather", "bytes of all-gather"]


def test_stored_baseline_has_the_options_of_its_command():
    stored = msgspec.json.decode(BASELINE.read_bytes(), type=programs.Report)
    assert (stored.target, stored.batch_size, stored.dtype) == ("v5e:2x4", 256, "bfloat16")
    assert (stored.image_size, stored.num_classes, stored.images_per_device) == (300, 21, 32)
    assert set(stored.programs) == {"train", "detect"}


@pytest.fixture(scope="module")
def require_compilers() -> None:
    """Skip the test unless SSD_JAX_AOT=1 is set and the compilers for TPUs and GPUs are installed."""
    if os.environ.get("SSD_JAX_AOT") != "1":
        pytest.skip("compiles for minutes; run with SSD_JAX_AOT=1 or `make aot`")
    for package in ("libtpu", "jax-cuda12-pjrt"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs {package}, which `make aot` installs")


def run_aot(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m ssd_jax.aot`` in a subprocess, because it configures JAX for absent devices."""
    return subprocess.run(
        [sys.executable, "-m", "ssd_jax.aot", *map(str, argv)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def run_aot_and_read_report(file: Path, *argv: str | Path) -> programs.Report:
    """Run ``python -m ssd_jax.aot``, check what it prints, and return the report that it writes to a file."""
    result = run_aot(*argv, "--json", file)
    assert result.returncode == 0, result.stderr
    assert all(line.startswith("Compiling the ") for line in result.stderr.splitlines()), "no other output"
    written = msgspec.json.decode(file.read_bytes(), type=programs.Report)
    assert result.stdout == format_report(written) + "\n"
    return written


def test_ssd300_costs_have_not_increased(require_compilers: None, tmp_path: Path):
    """The programs are compiled for 8 TPU v5e devices in bfloat16, with 32 images per device.

    After an intended change, or with another version of jax or libtpu, update the baseline:

        python -m ssd_jax.aot --target v5e:2x4 configs/ssd300_voc0712.py --train.batch_size 256 \\
            --model.dtype bfloat16 --json tests/assets/aot_baseline.json

    Run this in the environment of `make aot`, and state the old and the new numbers in the commit message.
    """
    before = msgspec.json.decode(BASELINE.read_bytes(), type=programs.Report)
    new = run_aot_and_read_report(tmp_path / "new.json", *BASELINE_COMMAND)
    versions = f"stored with {before.jax} and {before.compiler}, now {new.jax} and {new.compiler}"
    assert set(new.programs) == set(before.programs) == {"train", "detect"}
    more = {name: find_increases(before.programs[name], costs) for name, costs in new.programs.items()}
    assert more == {"train": [], "detect": []}, versions
    assert all(costs.host_transfers == () for costs in new.programs.values())
    assert set(summarize_collectives(new.programs["train"])) == {"all-reduce"}, "only those of gradients and scalars"
    assert summarize_collectives(new.programs["detect"]) == {}, "images are independent"


def test_gpu_report_has_memory_and_collectives(require_compilers: None, tmp_path: Path):
    argv = ["--target", "h100x8", TINY, "--classes", "3", "--train.batch_size", "16"]
    written = run_aot_and_read_report(tmp_path / "h100.json", *argv)
    assert (written.devices, written.num_classes, written.compiler.split()[0]) == (8, 4, "jax-cuda12-pjrt")
    for costs in written.programs.values():
        assert costs.flops is None and costs.bytes_accessed is None, "XLA reports them now, so the report can show them"
        assert costs.memory is not None and costs.memory.peak > 0 and costs.host_transfers == ()
    assert set(summarize_collectives(written.programs["train"])) == {"all-reduce"}
    assert summarize_collectives(written.programs["detect"]) == {}


def test_aot_reports_a_program_that_does_not_fit_in_memory(require_compilers: None):
    canvases = ["--data.max_image_size", "20000", "--train.batch_size", "16"]  # 19.2 GB
    result = run_aot("--target", "v5e:1x1", TINY, "--classes", "3", *canvases, "--only", "detect")
    assert result.returncode == 0, result.stderr
    assert "does not fit: needs" in result.stdout and "of 15.8 GiB" in result.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--target", "v5e:3x4", TINY, "--classes", "3"), "error: --target v5e:3x4: INVALID_ARGUMENT"),
        (("--target", "v5e:2x4", TINY, "--classes", "3"), "error: train.batch_size"),
        (("--target", "h100x16", TINY, "--classes", "3"), "error: train.batch_size"),
    ],
)
def test_aot_exits_with_2_for_an_unsupported_target_or_batch_size(
    argv: tuple[str, ...], message: str, require_compilers: None
):
    result = run_aot(*argv)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message) and len(result.stderr.splitlines()) == 1, result.stderr
