"""Program that trains for some steps on virtual devices and prints the results as JSON, for test_devices.py.

The argument is JSON: ``{"cases": [{"devices": 8, "fsdp": 4, ...}, ...], ...}``. Each case has arguments of `run_case`;
the other keys are fields of DistributedOptions. The environment variable XLA_FLAGS sets the number of virtual devices.
"""

import dataclasses
import hashlib
import inspect
import json
import sys
from typing import Any

import jax
import numpy as np

from helpers import tiny_config
from ssd_jax.config import Config, Devices, Optimizer
from ssd_jax.data.formats.shapes import ShapesSource
from ssd_jax.data.loader import train_batches
from ssd_jax.evaluation.evaluator import predict_split
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.runtime import distributed, sharding
from ssd_jax.runtime.distributed_options import DistributedOptions
from ssd_jax.training.optimizer import make_schedule_point
from ssd_jax.training.train_step import check_batch_size, init_state, make_train_step

SGD = Optimizer(learning_rate=1e-5, momentum=0.9, clip_norm=10.0)
"""SGD with a low learning rate: at 3e-5, rounding differences grow to 4e-3 of the gradient norm within 20 steps."""


def make_config(fsdp: int = 1, virtual_shards: int = 0, sgd: bool = False) -> Config:
    config = tiny_config.get_step_config()
    devices = Devices(fsdp=fsdp, virtual_shards=virtual_shards)
    return dataclasses.replace(config, devices=devices, optimizer=SGD if sgd else config.optimizer)


def run_case(
    steps: int,
    devices: int | None = None,
    fsdp: int = 1,
    virtual_shards: int = 0,
    sgd: bool = False,
    detect: bool = False,
) -> dict[str, Any]:
    """Train for some steps on the first ``devices`` devices, or on all devices, and return the results.

    Returns:
        A dict with the numbers of devices, processes, compiled programs and sharded parameters; the metrics of each
        step; a hash of the state and the sum of its absolute values; and, if ``detect`` is set, the number of
        detections and the sum of their scores for each val image.
    """
    config = make_config(fsdp, virtual_shards, sgd)
    mesh = sharding.make_mesh(jax.devices()[:devices], fsdp=fsdp)
    batch_size = config.train.batch_size
    check_batch_size(config, mesh.size)
    rows = sharding.find_local_positions(mesh, batch_size)
    stream = train_batches(ShapesSource(config.data.shapes, "train"), config.data, batch_size, config.train.seed, rows)
    state, step = init_state(config, mesh), make_train_step(config, mesh)
    program = inspect.unwrap(step, stop=lambda f: hasattr(f, "_cache_size"))
    lines = []
    for number in range(steps):
        point = make_schedule_point(config.optimizer, number, config.train.steps)
        state, metrics = step(state, sharding.shard_batch(next(stream), mesh), point)
        lines.append({name: float(value) for name, value in metrics.items()})
    sharded = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    leaves = jax.tree.leaves(sharding.fetch((state.params, state.opt_state, state.ema_params)))
    result = {
        "devices": mesh.size,
        "processes": jax.process_count(),
        "programs": 0 if virtual_shards else program._cache_size(),
        "sharded": sharded,
        "lines": lines,
        "hash": hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)).hexdigest(),
        "sum": float(sum(np.abs(leaf.astype(np.float64)).sum() for leaf in leaves)),
    }
    if detect:
        val = ShapesSource(config.data.shapes, "val")
        detections = predict_split(make_predict_fn(config, mesh), state.params, val, config, mesh)
        result["detections"] = [(len(image.scores), float(image.scores.sum())) for image in detections]
    return result


def main(cases: list[dict[str, Any]], **options: Any) -> None:
    distributed.initialize(DistributedOptions(**options))
    print(json.dumps([run_case(**case) for case in cases]))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
