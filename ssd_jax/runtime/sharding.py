"""The device mesh, and how arrays are distributed over it.

The mesh has two axes, ``data`` and ``fsdp``. The images of a batch are split over both axes. Parameters, and arrays of
the same shapes in the optimizer state, are replicated along ``data``; if ``fsdp`` is longer than 1, large arrays are
split along it. Apart from rounding, a program that is jitted with these shardings computes the same as on one device:
sums and means over a batch include the images of all devices.
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
BATCH_SPEC = PartitionSpec(AXES)
"""Partition spec of arrays with a leading batch axis."""
_MIN_SPLIT_SIZE = 2**16  # elements; splitting a smaller array saves too little memory to be worth the communication


def make_mesh(devices: Sequence[Any] | None = None, fsdp: int = 1) -> Mesh:
    """Return a mesh with the axes ``data`` and ``fsdp``, of shape (devices / fsdp, fsdp).

    Args:
        devices: Devices of the mesh; None for all devices of all processes.
        fsdp: Number of devices over which large parameters are split.

    Raises:
        UserError: If the number of devices is not a multiple of ``fsdp``.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % fsdp:
        raise UserError(f"devices.fsdp is {fsdp}, but must be a divisor of the number of devices, {len(devices)}")
    shape = (len(devices) // fsdp, fsdp)
    # Explicit axes, the default of jax.make_mesh, do not support the reshape in the prediction heads.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def single_device_mesh() -> Mesh:
    """Return a mesh that has only the first device of this process."""
    return make_mesh(jax.local_devices()[:1])


def make_replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that keeps a copy of the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def make_batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the leading batch axis over all devices."""
    return NamedSharding(mesh, BATCH_SPEC)


def make_fsdp_sharding(tree: Any, mesh: Mesh) -> Any:
    """Return a sharding for each array of a training state, with large arrays split over ``fsdp``.

    A large array is split along its longest axis whose length is a multiple of the length of ``fsdp``. Small arrays,
    and arrays without such an axis, are replicated.

    Args:
        tree: Tree of arrays, or of objects that have shapes, such as ``jax.ShapeDtypeStruct``.
        mesh: Mesh from `make_mesh`.

    Returns:
        A tree of the same structure with a NamedSharding for each array.
    """
    parts = mesh.shape["fsdp"]

    def choose_sharding(leaf: Any) -> NamedSharding:
        axes = [axis for axis in range(leaf.ndim) if leaf.shape[axis] % parts == 0]
        if parts == 1 or leaf.size < _MIN_SPLIT_SIZE or not axes:
            return make_replicated_sharding(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(choose_sharding, tree)


def find_local_positions(mesh: Mesh, batch_size: int) -> list[int]:
    """Return the batch positions of the images that this process has to load for its own devices.

    Args:
        mesh: Mesh from `make_mesh`.
        batch_size: Number of images in the whole batch, over all processes.
    """
    indices = make_batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return sorted({row for index in indices.values() if index for row in range(batch_size)[index[0]]})


def shard_batch(batch: T, mesh: Mesh) -> T:
    """Convert a batch to JAX arrays that are split over the devices.

    Args:
        batch: Tree of NumPy arrays with a leading batch axis. Each process passes only the images
            that `find_local_positions` selects.
        mesh: Mesh from `make_mesh`.

    Returns:
        The same tree with global JAX arrays, which contain the whole batch.
    """
    sharding = make_batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def map_images(f: Callable, mesh: Mesh | None, *, vmap_single: bool = True) -> Callable:
    """Return a function of a batch that applies ``f`` to each image. Each device processes its own images.

    With ``jax.vmap`` alone, the XLA partitioner adds communication to ``while_loop`` and ``top_k``, although the images
    are independent of each other.

    Args:
        f: Function of the arrays of one image, without a batch axis.
        mesh: Mesh from `make_mesh`. None: only ``jax.vmap`` is applied, as for a program that is exported to a file.
        vmap_single: Whether to use ``jax.vmap`` for a batch of one image as well, so that it gets exactly the same bits
            as in a larger batch. Without it, a loop over the image needs no masks for images that have finished
            earlier, and compiles faster.
    """
    if mesh is None:
        return jax.vmap(f)

    def map_local_images(*batch: Any) -> Any:
        if vmap_single or jax.tree.leaves(batch)[0].shape[0] > 1:
            return jax.vmap(f)(*batch)
        return jax.tree.map(lambda leaf: leaf[None], f(*jax.tree.map(lambda leaf: leaf[0], batch)))

    return jax.shard_map(map_local_images, mesh=mesh, in_specs=BATCH_SPEC, out_specs=BATCH_SPEC, check_vma=False)


def fetch(tree: T) -> T:
    """Convert a tree of arrays to NumPy arrays, after waiting until the devices have computed them.

    If an array is distributed over several processes, all processes have to call this; each gets the whole array.

    Args:
        tree: Tree of JAX or NumPy arrays.
    """

    def gather(leaf: Any) -> Any:
        is_local = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        return leaf if is_local else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(gather, tree)))
