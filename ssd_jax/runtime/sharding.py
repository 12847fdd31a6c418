"""How programs are compiled and laid over devices.

The mesh has two axes. The images of a batch are dealt out over both. Parameters, and all that has their
shapes, are whole along ``data``; along ``fsdp``, if it is longer than 1, the large ones lie in slices.
Compiled by jit under these shardings, a program computes what it would on one device: sums and means
over a batch are of the whole batch, wherever its images lie.
"""

from collections.abc import Callable, Sequence
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


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, IMAGES)


def fsdp_sharding(tree: Any, mesh: Mesh) -> Any:
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
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for place in places.values() if place for row in range(batch_size)[place[0]]})


def shard_batch(batch: T, mesh: Mesh) -> T:
    """Arrays with a leading batch axis onto the devices. Each process gives its `local_rows`."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def map_images(f: Callable, mesh: Mesh) -> Callable:
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
