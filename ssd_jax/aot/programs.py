"""Compile the training step and the detection program from the shapes of their arguments, without data."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from ssd_jax.aot.compiled import Costs, read_compiled, read_out_of_memory_error
from ssd_jax.aot.flops import count_flops
from ssd_jax.aot.targets import Target, find_compiler_version, make_target_devices
from ssd_jax.config import Config
from ssd_jax.data.loader import Batch
from ssd_jax.errors import UserError
from ssd_jax.inference.program import make_predict_fn
from ssd_jax.runtime.sharding import make_batch_sharding, make_mesh
from ssd_jax.training.optimizer import make_schedule_point
from ssd_jax.training.train_step import check_batch_size, compute_state_shapes, make_train_step

Program = Literal["train", "detect"]
PROGRAMS: tuple[Program, ...] = ("train", "detect")


@dataclass(frozen=True)
class Report:
    """Costs of the compiled programs for a config and a target. ``ssd-jax aot --json`` writes a report to a file."""

    target: str
    devices: int
    config: str
    image_size: int
    num_classes: int
    """Number of classes, including background."""
    dtype: Literal["float32", "bfloat16"]
    batch_size: int
    """Number of images in a batch over all devices."""
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
    """Compile the training step and the detection program for devices that need not be present.

    Args:
        config: Config with class names.
        target: Devices to compile for.
        programs: Programs to compile.
        progress: Function that is called with each program before its compilation, which takes minutes.

    Returns:
        A report with the costs of each program.

    Raises:
        UserError: If the compiler of the target is not installed or does not support the target, if the batch cannot be
            split evenly over the devices, or if ``devices.virtual_shards`` is set.
    """
    if config.devices.virtual_shards:
        raise UserError("devices.virtual_shards splits the training step into several programs: set it to 0")
    mesh = make_mesh(make_target_devices(target), config.devices.fsdp)
    check_batch_size(config, mesh.size)
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
        compiler=find_compiler_version(target),
        programs=costs,
    )


def compile_program(config: Config, mesh: Mesh, program: Program, platform: str) -> Costs:
    """Compile one program and return its costs.

    Args:
        config: Config with class names.
        mesh: Devices to compile for.
        program: ``train`` or ``detect``.
        platform: Platform of the devices, such as ``tpu`` or ``cuda``.
    """
    state, batch = compute_state_shapes(config, mesh), make_batch_shapes(config, mesh)
    function: Any  # a jitted function; the return types above do not say so
    if program == "train":
        function = make_train_step(config, mesh)
        arguments: tuple = (state, batch, make_schedule_point(config.optimizer, 0, config.train.steps))
    else:
        function = make_predict_fn(config, mesh)
        arguments = (state.params, batch.canvas, batch.height, batch.width)
    traced = function.trace(*arguments)
    model_flops = count_flops(traced.jaxpr, mesh.size)
    start = time.perf_counter()
    try:
        compiled = traced.lower(lowering_platforms=(platform,)).compile()
    except jax.errors.JaxRuntimeError as error:
        costs = read_out_of_memory_error(error, model_flops, time.perf_counter() - start)
        if costs is None:
            raise
        return costs
    return read_compiled(compiled, model_flops, time.perf_counter() - start)


def make_batch_shapes(config: Config, mesh: Mesh) -> Batch:
    """Return a batch that has shapes in place of arrays. Its canvases are squares of side ``data.max_image_size``."""
    split = make_batch_sharding(mesh)
    b, side, g = config.train.batch_size, config.data.max_image_size, config.data.max_objects

    def make_shape(dtype: type, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((b, *shape), dtype, sharding=split)

    fields: dict[str, Any] = {
        "canvas": make_shape(np.uint8, side, side, 3),
        "height": make_shape(np.int32),
        "width": make_shape(np.int32),
        "gt_boxes": make_shape(np.float32, g, 4),
        "gt_labels": make_shape(np.int32, g),
        "gt_difficult": make_shape(np.bool_, g),
        "index": make_shape(np.int32),
        "epoch": make_shape(np.int32),
        "valid": make_shape(np.bool_),
    }
    return Batch(**fields)
