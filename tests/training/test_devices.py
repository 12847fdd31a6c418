"""The same numbers on one device, on eight, in slices, in two processes; and the same bits where they are asked for.

Devices are virtual ones of the CPU. Each run is a program of its own, steps.py.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from helpers.paths import TESTS


def start(devices: int, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "NPROC": "8",  # threads, which virtual devices otherwise change: their number decides how convolutions are cut
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    command = [sys.executable, str(TESTS / "helpers" / "device_worker.py"), json.dumps(options)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(processes: Sequence[subprocess.Popen[str]]) -> Any:
    """What the first one printed; the others print nothing."""
    ended = [process.communicate(timeout=1200) for process in processes]
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
    assert not any("{" in printed for printed, _ in ended[1:]), "but for what gloo says, from C++"
    return json.loads(ended[0][0].splitlines()[-1])


def alone(devices: int, **options: Any) -> Any:
    return results([start(devices, **options)])


def two_processes(devices: int, **options: Any) -> Any:
    """Of so many devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    found = {"coordinator": address, "process_count": 2}
    return results([start(devices, **options, **found, process_index=i) for i in range(2)])


def relative(a: float, b: float) -> float:
    return abs(a - b) / abs(b)


# ---- the same numbers ----

# Rounding differs; after some steps it turns a negative into another one, as mining is discrete. The gradient's norm
# is the first to show it, and how soon depends on the rate.
STEPS = 20


@pytest.fixture(scope="module")
def one() -> Any:
    return alone(1, steps=STEPS, detect=True)


@pytest.mark.parametrize(("fsdp", "processes"), [(4, 1), (1, 2), (4, 2)])
def test_losses_do_not_depend_on_the_devices(one, fsdp, processes):
    """Eight devices: 2 x 4, as one process; and of two processes each four, without and with slices."""
    if (fsdp, processes) == (1, 2) and not os.environ.get("SSD_JAX_ALL_DEVICES"):
        pytest.skip("the two others have its parts; SSD_JAX_ALL_DEVICES=1 runs it")
    options = {"steps": STEPS, "detect": True, "fsdp": fsdp}
    other = alone(8, **options) if processes == 1 else two_processes(4, **options)
    assert (other["devices"], other["processes"], other["programs"]) == (8, processes, 1)
    assert (other["sharded"] > 0) == (fsdp > 1)
    for step, (here, there) in enumerate(zip(one["lines"], other["lines"], strict=True)):
        assert there["num_positives"] == here["num_positives"], step
        for name in ("loss", "loc_loss", "conf_loss", "gradient_norm"):
            assert relative(there[name], here[name]) < (1e-5 if step == 0 else 1e-3), (step, name)
    assert relative(other["sum"], one["sum"]) < 1e-6, "parameters, momentum, average"
    assert [count for count, _ in other["found"]] == [count for count, _ in one["found"]], "each image once"
    assert [score for _, score in other["found"]] == pytest.approx([score for _, score in one["found"]], rel=0.01)


# ---- the same bits ----


def test_bits_do_not_depend_on_the_devices_where_shards_are_virtual():
    every = bool(os.environ.get("SSD_JAX_ALL_DEVICES"))
    shards, steps = (8, STEPS) if every else (2, 6)
    runs = {n: alone(n, steps=steps, virtual_shards=shards) for n in ((1, 2, 4, 8) if every else (1, 2))}
    runs["two processes"] = two_processes(4 if every else 1, steps=steps, virtual_shards=shards)
    assert len({run["hash"] for run in runs.values()}) == 1
    assert all(run["lines"] == runs[1]["lines"] for run in runs.values())
