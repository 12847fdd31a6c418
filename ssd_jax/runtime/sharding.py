"""How programs are compiled and laid over devices.

The mesh has two axes. The images of a batch are dealt out over both. Parameters, and all that has their
shapes, are whole along ``data``; along ``fsdp``, if it is longer than 1, the large ones lie in slices.
Compiled by jit under these shardings, a program computes what it would on one device: sums and means
over a batch are of the whole batch, wherever its images lie.
"""

import ctypes
import os
import platform
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssd_jax.errors import UserError

T = TypeVar("T")


AXES = ("data", "fsdp")
IMAGES = PartitionSpec(AXES)
"""Of arrays with a leading batch axis."""
_SMALL = 2**16  # elements; slicing smaller arrays saves no memory worth a collective


def compiler_options(mesh: Mesh | None = None, *, deterministic: bool = False) -> dict[str, str] | None:
    """For ``jax.jit(compiler_options=...)`` on the mesh's devices; by default on the first there is.

    On a CPU, jaxlib 0.10 sends convolutions through fusions whose weight gradients run at a third of
    the speed of plain ones; an empty list turns those off. And it orders a program's work for many
    cores, by which a training step of SSD300 takes more memory and is no faster on two.
    Other versions may not know the options and refuse them.

    deterministic: of a GPU's operations take those that give the same bits each time.
    """
    kind = (jax.devices()[0] if mesh is None else mesh.devices.flat[0]).platform
    if kind == "cpu" and jax.__version_info__[:2] == (0, 10):
        return {
            "xla_cpu_experimental_ynn_fusion_type": "",
            "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        }
    if kind in ("gpu", "cuda") and deterministic:
        return {"xla_gpu_deterministic_ops": "true"}
    return None


def keep_compiled_programs() -> None:
    """Has compiled programs kept on the disk, for the next start to load; for commands, before any is compiled.

    JAX's persistent cache, in the user's cache folder. JAX_COMPILATION_CACHE_DIR names another one,
    JAX_ENABLE_COMPILATION_CACHE=false does without.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "ssd_jax" / "compiled"))


@cache
def release_compiler_memory() -> None:
    """Has what a long compilation freed given back to the system, before the program needs as much itself.

    For a command's start; a second call changes nothing. SSD300's training step leaves 0.5 GB behind, which malloc
    would keep. Without glibc a no-op.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)

    def trim(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs > 1:
            libc.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(trim)


def make_mesh(devices: Sequence[Any] | None = None, fsdp: int = 1) -> Mesh:
    """All devices, of all processes, in rows of ``fsdp``. Raises UserError where they don't come out even.

    Auto axes: explicit ones, jax's default, refuse the reshape of the predictors.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % fsdp:
        raise UserError(f"devices.fsdp is {fsdp}, which the number of devices, {len(devices)}, is no multiple of")
    shape = (len(devices) // fsdp, fsdp)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def single_device_mesh() -> Mesh:
    """The first device of this process alone."""
    return make_mesh(jax.local_devices()[:1])


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_images(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, IMAGES)


def sliced(tree: Any, mesh: Mesh) -> Any:
    """The sharding of each array of a training state: along ``fsdp`` a large one's longest axis that comes out even.

    tree: arrays, or their shapes.
    """
    slices = mesh.shape["fsdp"]

    def sharding(leaf: Any) -> NamedSharding:
        axes = [axis for axis in range(leaf.ndim) if leaf.shape[axis] % slices == 0]
        if slices == 1 or leaf.size < _SMALL or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(sharding, tree)


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """Which images of a batch lie on this process's devices: those that it has to load."""
    places = split_images(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for place in places.values() if place for row in range(batch_size)[place[0]]})


def split_over_devices(batch: T, mesh: Mesh) -> T:
    """Arrays with a leading batch axis onto the devices. Each process gives its `local_rows`."""
    sharding = split_images(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def per_image(f: Callable, mesh: Mesh) -> Callable:
    """``f`` of one image, over a batch: vmapped, each device its own images.

    Under plain jit the partitioner adds collectives to a vmapped while_loop and top_k; here there
    is nothing to exchange.
    """
    return jax.shard_map(jax.vmap(f), mesh=mesh, in_specs=IMAGES, out_specs=IMAGES, check_vma=False)


def fetch(tree: T) -> T:
    """Arrays to numpy, whole. Where some of them lie on several processes' devices, all have to call this. Blocks."""

    def gather(leaf: Any) -> Any:
        here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        return leaf if here else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(gather, tree)))
