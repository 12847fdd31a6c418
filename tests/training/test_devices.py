"""Tests that training gives the same results on any number of devices, bitwise with virtual shards.

The devices are virtual CPU devices, in processes that run tests/helpers/device_worker.py.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from helpers import device_worker
from helpers.paths import TESTS

Case = dict[str, Any]


def start_python(program: Sequence[str], devices: int) -> subprocess.Popen[str]:
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        # The number of threads determines how convolutions are split. Without NPROC, it depends on the device count.
        "NPROC": "8",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    return subprocess.Popen(
        [sys.executable, *program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_device_worker(devices: int, cases: Sequence[Case], **options: Any) -> subprocess.Popen[str]:
    argument = json.dumps({"cases": cases, **options})
    return start_python([str(TESTS / "helpers" / "device_worker.py"), argument], devices)


def wait_for_results(processes: Sequence[subprocess.Popen[str]]) -> list[Any]:
    """Wait for processes, and return the results that the first prints as JSON. The other processes print no JSON."""
    outputs = [process.communicate(timeout=1200) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    assert not any("{" in printed for printed, _ in outputs[1:]), "no JSON; Gloo prints other lines, from C++"
    return json.loads(outputs[0][0].splitlines()[-1])


def run_in_two_processes(devices: int, cases: Sequence[Case]) -> list[Any]:
    """Return the results of cases that run in two processes, each with ``devices`` devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    options = {"coordinator": address, "process_count": 2}
    return wait_for_results([start_device_worker(devices, cases, **options, process_index=i) for i in range(2)])


def assert_results_are_close(result: Any, expected: Any, tolerances: Sequence[float]) -> None:
    """Assert that two results agree within a relative tolerance for each step.

    Rounding differences grow from step to step. They can also make hard negative mining select another negative, which
    changes the gradient norm first.
    """
    for step, (line, expected_line) in enumerate(zip(result["lines"], expected["lines"], strict=True)):
        assert line["num_positives"] == expected_line["num_positives"], step
        for name in ("loss", "loc_loss", "conf_loss", "gradient_norm"):
            assert line[name] == pytest.approx(expected_line[name], rel=tolerances[step]), (step, name)
    assert [count for count, _ in result["detections"]] == [count for count, _ in expected["detections"]]


@pytest.mark.slow  # compiles for several numbers of devices
def test_losses_do_not_depend_on_the_number_of_devices():
    """A run on a mesh of 2 x 4 devices with sharded parameters is compared with a run on one device."""
    (result,) = wait_for_results([start_device_worker(8, [{"steps": 2, "fsdp": 4, "detect": True}])])
    assert (result["devices"], result["processes"], result["programs"]) == (8, 1, 1)
    assert result["sharded"] > 0
    expected = device_worker.run_case(steps=2, devices=1, detect=True)
    assert expected["sharded"] == 0
    # Adam's first update is large even where the gradient is only a rounding error, so the second step differs more.
    assert_results_are_close(result, expected, [1e-5, 1e-3])


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 4])
def test_losses_do_not_depend_on_the_number_of_devices_or_processes(fsdp):
    steps = 20
    case = {"steps": steps, "fsdp": fsdp, "sgd": True, "detect": True}
    expected, whole = wait_for_results([start_device_worker(8, [case | {"devices": 1, "fsdp": 1}, case])])
    (split,) = run_in_two_processes(4, [case])
    assert (whole["devices"], whole["processes"]) == (8, 1) and (split["devices"], split["processes"]) == (8, 2)
    for result in (whole, split):
        assert result["programs"] == 1
        assert (result["sharded"] > 0) == (fsdp > 1)
        assert_results_are_close(result, expected, [1e-5] + [1e-3] * (steps - 1))
        assert result["sum"] == pytest.approx(expected["sum"], rel=1e-6), "parameters, momentum, moving average"


# ---- virtual shards ----

ORDERED_STEPS = """
import json, typing
import jax, jax.numpy as jnp, numpy as np
from ssd_jax.runtime import sharding
from ssd_jax.training.reproducible import make_reproducible_step

class State(typing.NamedTuple):
    params: typing.Any

class Batch(typing.NamedTuple):
    x: typing.Any
    valid: typing.Any

def prepare(batch, map_images):
    return map_images(jnp.sin)(batch.x), map_images(lambda x: jnp.round(3 * x).astype(jnp.int32))(batch.x)

def grad_fn(params, images, targets, valid, normalizer):
    def loss_fn(params):
        errors = jnp.where(valid[:, None], (jnp.tanh(images @ params) - targets) ** 2, 0)
        return errors.sum() / normalizer
    loss, grads = jax.value_and_grad(loss_fn)(params)
    return {"loss": loss, "num_positives": ((targets > 0) & valid[:, None]).sum()}, grads

def update(state, metrics, grads, rate):
    return State(state.params - rate * grads), metrics

rng = np.random.default_rng(0)
initial = rng.normal(size=(6, 6)).astype(np.float32)
batches = [Batch(rng.normal(size=(16, 6)).astype(np.float32), np.arange(16) % 5 > 0) for _ in range(4)]
lines = []
for devices in (1, 2, 4, 8):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    step = make_reproducible_step(prepare, grad_fn, update, 8, mesh)
    state = jax.device_put(State(initial), sharding.make_replicated_sharding(mesh))
    metrics = []
    for batch in batches:
        state, values = step(state, sharding.shard_batch(batch, mesh), np.float32(0.1))
        metrics.append([float(values["loss"]).hex(), int(values["num_positives"])])
    lines.append([metrics, np.asarray(state.params).tobytes().hex()])
params, expected = initial.astype(np.float64), []
for batch in batches:
    images, targets = np.sin(batch.x.astype(np.float64)), np.round(3 * batch.x)
    outputs, valid = np.tanh(images @ params), batch.valid[:, None]
    count = int(((targets > 0) & valid).sum())
    expected.append([float((np.where(valid, outputs - targets, 0) ** 2).sum() / count), count])
    params = params - 0.1 * images.T @ (np.where(valid, outputs - targets, 0) * 2 * (1 - outputs**2)) / count
print(json.dumps([lines, expected, float(np.abs(np.asarray(state.params) - params).max())]))
"""


def test_reproducible_step_gives_bitwise_equal_results_on_any_number_of_devices():
    """A small model replaces the network. Loss and parameters are also compared with a NumPy computation."""
    lines, expected, difference = wait_for_results([start_python(["-c", ORDERED_STEPS], 8)])
    assert len(lines) == 4 and all(line == lines[0] for line in lines)
    for (loss, count), (expected_loss, expected_count) in zip(lines[0][0], expected, strict=True):
        assert count == expected_count
        assert float.fromhex(loss) == pytest.approx(expected_loss, rel=1e-5)
    assert difference < 1e-5


@pytest.mark.slow
def test_virtual_shards_give_bitwise_equal_results_on_any_number_of_devices_and_processes():
    case = {"steps": 20, "virtual_shards": 8, "sgd": True}
    runs = wait_for_results([start_device_worker(8, [case | {"devices": devices} for devices in (1, 2, 4, 8)])])
    runs += run_in_two_processes(4, [case])
    assert len({run["hash"] for run in runs}) == 1
    assert all(run["lines"] == runs[0]["lines"] for run in runs)
