"""Some steps of training, as one of however many processes, on however many devices: what came of them as JSON.

Run by test_devices.py, as ``steps.py '{"devices": 8, ...}'``; the environment says how many devices there are.
"""

import dataclasses
import hashlib
import inspect
import json
import sys

import jax
import numpy as np

from helpers import tiny_config
from ssd_jax.config import Config, Devices, Optimizer, Train
from ssd_jax.data.formats.shapes import CLASS_NAMES, ShapesSource
from ssd_jax.data.loader import train_batches
from ssd_jax.evaluation.evaluator import predict_split
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.runtime import distributed, sharding
from ssd_jax.training.train_step import check_batch_size, init_state, make_train_step

SGD = Optimizer(learning_rate=1e-5, momentum=0.9, clip_norm=10.0)
"""So low a rate, for rounding grows from step to step: with 3e-5, after 20 steps, 4e-3 of the gradient's norm."""


def steps_config(batch_size: int, fsdp: int, virtual_shards: int, width: float) -> Config:
    tiny = tiny_config.get_config()
    return dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, class_names=CLASS_NAMES, width=width),
        optimizer=SGD,
        devices=Devices(fsdp=fsdp, virtual_shards=virtual_shards),
        train=Train(steps=20, batch_size=batch_size, ema_decay=0.9),
    )


def main(
    steps: int,
    batch_size: int = 16,
    fsdp: int = 1,
    virtual_shards: int = 0,
    width: float = 0.125,
    detect: bool = False,
    **found_by: str | int,
) -> None:
    distributed.initialize(distributed.DistributedOptions(**found_by))
    config = steps_config(batch_size, fsdp, virtual_shards, width)
    mesh = sharding.make_mesh(fsdp=fsdp)
    check_batch_size(config, mesh)
    source = ShapesSource(config.data.shapes, "train")
    rows = sharding.local_rows(mesh, batch_size)
    stream = train_batches(source, config.data, batch_size, 0, rows)
    state, step = init_state(config, mesh), make_train_step(config, mesh)
    program = inspect.unwrap(step, stop=lambda f: hasattr(f, "_cache_size"))
    lines = []
    for _ in range(steps):
        state, metrics = step(state, sharding.shard_batch(next(stream), mesh))
        lines.append({name: float(value) for name, value in metrics.items()})
    sharded = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    params = sharding.fetch((state.params, state.opt_state, state.ema_params))
    leaves = jax.tree.leaves(params)
    told = {
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "programs": 0 if virtual_shards else program._cache_size(),
        "sharded": sharded,
        "lines": lines,
        "hash": hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)).hexdigest(),
        "sum": float(sum(np.abs(leaf.astype(np.float64)).sum() for leaf in leaves)),
    }
    if detect:
        found = predict_split(
            make_predict_fn(config, mesh), state.params, ShapesSource(config.data.shapes, "val"), config, mesh
        )
        told["found"] = [(len(image.scores), float(image.scores.sum())) for image in found]
    print(json.dumps(told))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
