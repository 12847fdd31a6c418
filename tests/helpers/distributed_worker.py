"""Program of one process in tests of multi-process runs. It calls functions of ssd_jax.runtime, without training.

``distributed_worker.py TASK OUT OPTIONS`` calls `initialize` with OPTIONS (fields of DistributedOptions as JSON), then
the function TASK of this file, and writes the result to OUT/INDEX.json, where INDEX is the index of the process.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from helpers.orbax_files import find_largest_array_file
from ssd_jax.errors import UserError
from ssd_jax.runs.checkpoint import Checkpoints
from ssd_jax.runtime import distributed, exit_message, sharding
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.runtime.stop import StopRequest


class OwnError(UserError):
    pass


def catch_error_message(function: Callable[[], Any], error_type: type[Exception]) -> str | None:
    """Call a function, and return the message of the exception of the given type that it raises, or None."""
    try:
        function()
    except error_type as error:
        return str(error)
    return None


def call_functions(out: Path) -> dict[str, Any]:
    """Call each function of distributed.py and sharding.py that communicates, and return the results."""
    index = jax.process_index()

    def raise_own_error() -> None:
        raise OwnError("only process 0 knows why")

    results: dict[str, Any] = {"primary": distributed.is_primary(), "multi": distributed.is_multi_process()}
    results["on_primary"] = distributed.run_on_primary(lambda: 5)
    results["failure"] = catch_error_message(lambda: distributed.run_on_primary(raise_own_error, OwnError), OwnError)
    results["shared"] = distributed.share_integers(lambda: [3, 4 + index], 2)
    results["same"] = catch_error_message(lambda: distributed.assert_same_text("a", "the config"), UserError)
    results["differs"] = catch_error_message(lambda: distributed.assert_same_text(f"a{index}", "the config"), UserError)

    mesh = sharding.make_mesh(fsdp=2)
    rows = sharding.find_local_positions(mesh, 8)
    images = np.arange(24, dtype=np.float32).reshape(8, 3)
    batch = sharding.shard_batch({"images": images[rows]}, mesh)["images"]
    double = jax.jit(sharding.map_images(lambda image: 2 * image, mesh))
    results["rows"] = rows
    results["doubled"] = sharding.fetch(double(batch)).tolist()
    total = distributed.start_together(jax.jit(jnp.sum, out_shardings=sharding.make_replicated_sharding(mesh)))
    results["sums"] = [float(sharding.fetch(total(batch))), float(sharding.fetch(total(batch)))]
    large = jax.ShapeDtypeStruct((512, 256), np.float32)
    split = jax.device_put(
        np.arange(512 * 256, dtype=np.float32).reshape(512, 256), sharding.make_fsdp_sharding(large, mesh)
    )
    results["split"] = [split.is_fully_replicated, float(np.abs(np.diff(sharding.fetch(split).ravel()) - 1).max())]

    program = SlowProgram(seconds=1.0 * index)
    results["value"] = distributed.start_together(program)(3)
    results["times"] = [program.compiled, program.called]
    print(f"printed by process {index}")
    return results


class SlowProgram:
    """Imitation of a jitted function. It records when it was compiled and when it was called."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.compiled, self.called = seconds, 0.0, 0.0

    def lower(self, argument: int) -> "SlowProgram":
        return self

    def compile(self) -> None:
        time.sleep(self.seconds)
        self.compiled = time.time()

    def __call__(self, argument: int) -> int:
        self.called = time.time()
        return argument + 1


def count_processes(out: Path) -> dict[str, Any]:
    """Return the process count. This task is for tests of `initialize` itself."""
    return {"count": jax.process_count()}


def save_and_resume(out: Path) -> dict[str, Any]:
    """Save two checkpoints, truncate a file of the later one, and return what resuming restores."""
    mesh, folder = sharding.make_mesh(), out / "run" / "checkpoints"
    metadata = {"config": {"model": {"class_names": ["cat"]}}}

    def make_trees(step: int) -> dict[str, Any]:
        kernel = jax.device_put(np.full(1000, step, np.float32), sharding.make_replicated_sharding(mesh))
        split = sharding.shard_batch(np.full((4, 3), 10.0 * step, np.float32), mesh)
        return {"params": {"conv": {"kernel": kernel}}, "training": {"split": split}}

    with Checkpoints(folder, for_writing=True) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_trees(step), metadata)
    distributed.run_on_primary(lambda: os.truncate(find_largest_array_file(folder / "2"), 10))
    with Checkpoints(folder) as checkpoints:
        restored = checkpoints.resume(make_trees(0), ("cat",))
        assert restored is not None
        values = sharding.fetch(restored.trees)
        return {
            "step": restored.step,
            "steps": list(checkpoints.steps),
            "kernel": np.unique(values["params"]["conv"]["kernel"]).tolist(),
            "split": [values["training"]["split"].shape[0], *np.unique(values["training"]["split"]).tolist()],
        }


def step_until_stopped(out: Path) -> dict[str, Any]:
    """Count steps until should_stop returns True, and return the step.

    The file started.INDEX is created when SIGTERM may be sent.
    """
    index = jax.process_index()
    with StopRequest() as stop:
        for step in range(1, 2000):
            distributed.run_on_primary(lambda: None)  # keeps the processes at most one step apart, as in training
            time.sleep(0.01 * (1 + index))
            if step == 3:
                (out / f"started.{index}").touch()
            if stop.should_stop(step):
                return {"stopped": step}
    return {"stopped": None}


def wait_to_be_killed(out: Path) -> dict[str, Any]:
    """Set an exit message, create the file started.INDEX, and sleep until the process is killed."""
    exit_message.set_exit_message("Start it again.")
    (out / f"started.{jax.process_index()}").touch()
    time.sleep(200)
    return {}


def main(task: str, out: Path, options: dict[str, Any]) -> None:
    try:
        distributed.initialize(DistributedOptions(**options))
        results = globals()[task](out)
    except UserError as error:  # as ssd_jax.commands.main does
        print(f"error: {error}", file=sys.stderr)
        exit_message.set_exit_message("")
        distributed.exit_now(2)
        sys.exit(2)
    (out / f"{options['process_index']}.json").write_text(json.dumps(results))
    exit_message.set_exit_message("")


if __name__ == "__main__":
    # A shell starts background processes with Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
