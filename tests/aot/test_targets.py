"""Tests of target names and of GPU descriptions for the compiler."""

import importlib.metadata
import os
import subprocess
import sys

import pytest
from helpers.cli import ROOT

from ssd_jax.aot import targets
from ssd_jax.aot.targets import CHIPS, GIB, parse_target
from ssd_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "chip", "count"),
    [
        ("v5e:2x4", "v5e", 8),
        ("v5e:1x1", "v5e", 1),
        ("v5p:2x2x2", "v5p", 8),
        ("v6e:4x4", "v6e", 16),
        ("h100x8", "h100", 8),
        ("a100x1", "a100", 1),
        ("h100x32", "h100", 32),
    ],
)
def test_parse_target_returns_chip_and_device_count(name: str, chip: str, count: int):
    target = parse_target(name)
    assert (target.name, target.chip_name, target.count, target.chip) == (name, chip, count, CHIPS[chip])


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:8", "v5ex8", "v3:2x4", "h100", "h100:2x4", "h100x", "h100x2x4", "tpux8", "V5E:2x4"]
)
def test_parse_target_rejects_unknown_targets(name: str):
    with pytest.raises(UserError, match=r"--target .*v5e:2x4.*h100x8"):
        parse_target(name)


def test_parse_target_rejects_impossible_sizes():
    for name in ("v5e:0x4", "h100x0"):
        with pytest.raises(UserError, match="no device"):
            parse_target(name)
    with pytest.raises(UserError, match="a multiple of 8"):
        parse_target("h100x12")


def test_chips_have_the_published_specifications():
    """The units are TFLOP/s (bfloat16, without sparsity), GB/s and GiB. The test detects accidental changes."""
    figures = {name: (c.bfloat16 / 1e12, c.bandwidth / 1e9, round(c.memory / GIB)) for name, c in CHIPS.items()}
    assert figures == {
        "v5e": (197, 819, 16),
        "v5p": (459, 2765, 95),
        "v6e": (918, 1640, 32),
        "h100": (989.5, 3350, 79),
        "a100": (312, 2039, 79),
    }


def test_format_gpu_target_config_needs_no_driver():
    described = targets.format_gpu_target_config("h100").splitlines()
    assert described[0] == "gpu_device_info {" and described.count("}") == 1
    # XLA looks for a driver if one of these is missing: openxla/xla#25919.
    assert "runtime_version { major: 12 minor: 8 }" in described
    assert "dnn_version_info { major: 9 minor: 8 }" in described
    assert "  cuda_compute_capability { major: 9 }" in described and "  core_count: 132" in described
    assert "  device_memory_size: 84942979072" in described


@pytest.mark.parametrize(("name", "install"), [("v5e:2x4", "jax[tpu]"), ("h100x8", "--no-deps jax-cuda12-plugin==")])
def test_make_target_devices_error_says_how_to_install_the_compiler(
    name: str, install: str, monkeypatch: pytest.MonkeyPatch
):
    def raise_not_found(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", raise_not_found)
    with pytest.raises(UserError) as error:
        targets.make_target_devices(parse_target(name))
    assert name in str(error.value) and "not installed" in str(error.value) and install in str(error.value)


def test_suppress_stderr_shows_output_only_if_the_block_fails():
    program = """
import os, sys
from ssd_jax.runtime.quiet_stderr import suppress_stderr
with suppress_stderr():
    os.write(2, b"no accelerator")
print("between", file=sys.stderr)
with suppress_stderr():
    os.write(2, b"reason")
    raise SystemExit(3)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (3, "between\nreason")
