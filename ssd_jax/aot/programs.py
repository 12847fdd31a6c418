"""The training step and the detection program, compiled from shapes alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from ssd_jax.aot.compiled import Costs, read_compiled, read_out_of_memory
from ssd_jax.aot.flops import count_flops
from ssd_jax.aot.targets import Target, compiler_version, target_devices
from ssd_jax.config import Config
from ssd_jax.data.loader import Batch
from ssd_jax.errors import UserError
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.runtime.sharding import batch_sharding, make_mesh
from ssd_jax.training.train_step import check_batch_size, make_train_step, state_shapes

Program = Literal["train", "detect"]
PROGRAMS: tuple[Program, ...] = ("train", "detect")


@dataclass(frozen=True)
class Report:
    """All that was found out about a config on a target, as ``--json`` writes it."""

    target: str
    devices: int
    config: str
    image_size: int
    num_classes: int
    """With background."""
    dtype: Literal["float32", "bfloat16"]
    batch_size: int
    """Of all devices."""
    jax: str
    compiler: str
    programs: dict[Program, Costs]

    @property
    def images_per_device(self) -> int:
        return self.batch_size // self.devices


def compile_programs(
    config: Config,
    target: Target,
    programs: tuple[Program, ...] = PROGRAMS,
    progress: Callable[[Program], object] = lambda program: None,
) -> Report:
    """Compiles what ``train`` and ``evaluate`` would run, for devices that are not there.

    progress: called with each program before it is compiled, which takes minutes.

    Raises UserError where the target's compiler is missing or knows no such target, and where the devices can't
    share the batch evenly.
    """
    if config.devices.virtual_shards:
        raise UserError("devices.virtual_shards: such a step is several programs; compile it with 0 of them")
    mesh = make_mesh(target_devices(target), config.devices.fsdp)
    check_batch_size(config, mesh)
    costs: dict[Program, Costs] = {}
    for program in programs:
        progress(program)
        costs[program] = compile_program(config, mesh, program, target.chip.platform)
    return Report(
        target=target.name,
        devices=mesh.size,
        config=config.name,
        image_size=config.model.image_size,
        num_classes=config.model.num_classes,
        dtype=config.model.dtype,
        batch_size=config.train.batch_size,
        jax=jax.__version__,
        compiler=compiler_version(target),
        programs=costs,
    )


def compile_program(config: Config, mesh: Mesh, program: Program, platform: str) -> Costs:
    """platform: ``tpu`` or ``cuda``, of the mesh's devices."""
    state, batch = state_shapes(config, mesh), batch_shapes(config, mesh)
    function: Any  # under jit, whatever its makers' signatures say
    if program == "train":
        function = make_train_step(config, mesh)
        arguments: tuple = (state, batch)
    else:
        function = make_predict_fn(config, mesh)
        arguments = (state.params, batch.canvas, batch.height, batch.width)
    traced = function.trace(*arguments)
    asked_flops = count_flops(traced.jaxpr, mesh.size)
    start = time.perf_counter()
    try:
        compiled = traced.lower(lowering_platforms=(platform,)).compile()
    except jax.errors.JaxRuntimeError as error:
        costs = read_out_of_memory(error, asked_flops, time.perf_counter() - start)
        if costs is None:
            raise
        return costs
    return read_compiled(compiled, asked_flops, time.perf_counter() - start)


def batch_shapes(config: Config, mesh: Mesh) -> Batch:
    """A global batch of images as large as data.max_image_size allows, split over the devices."""
    split = batch_sharding(mesh)
    b, side, g = config.train.batch_size, config.data.max_image_size, config.data.max_objects

    def array(dtype: type, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((b, *shape), dtype, sharding=split)

    fields: dict[str, Any] = {
        "canvas": array(np.uint8, side, side, 3),
        "height": array(np.int32),
        "width": array(np.int32),
        "gt_boxes": array(np.float32, g, 4),
        "gt_labels": array(np.int32, g),
        "gt_difficult": array(np.bool_, g),
        "index": array(np.int32),
        "epoch": array(np.int32),
        "valid": array(np.bool_),
    }
    return Batch(**fields)
