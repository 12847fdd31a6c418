"""Training steps whose results are bitwise identical on 1, 2, 4, ... devices.

A sum of floating-point numbers depends on the order of its terms, and this order usually depends on the number of
devices. A run on eight devices therefore soon differs from a run on one device, and such a rounding difference looks
the same as one that is caused by a bug. Here the batch is split into a fixed number of *virtual
shards*. Each device processes its shards one after another. The sums over the shards are added in the order of a fixed
binary tree: at its lower levels, sums of the same device are added, and at its upper levels, sums of different devices.

This order alone is not enough. If the compiler knows the number of devices or of shards, it fuses operations
differently, which changes the rounding. Therefore all computation except the additions of the tree is done by two
programs for a single device, which depend on neither number: the first computes the sums of a shard, and the second
computes the next state from the sums over the batch. Every device runs the same two programs.

This method needs no additional arithmetic, but the network processes only batch size / shards images at a time, every
device compiles the programs for itself, and a device holds as many sums in memory as the tree has levels. Results are
bitwise identical only on the same kind of device and with the same version of the compiler. On CPUs, the number of
threads must also be the same; the environment variable NPROC sets it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Float, Float32

from ssd_jax.runtime import sharding
from ssd_jax.runtime.distributed import start_together

Tree = Any


def make_reproducible_step(
    prepare: Callable[..., tuple[Tree, Tree]],
    grad_fn: Callable[..., tuple[Tree, Tree]],
    update: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree]],
    shards: int,
    mesh: Mesh,
    options: dict[str, str] | None = None,
) -> Callable[[Any, Tree, Tree], tuple[Any, Tree]]:
    """Return a training step whose result does not depend on the number of devices.

    Args:
        prepare: The result of `make_prepare_fn`.
        grad_fn: The result of `make_grad_fn`.
        update: The result of `make_update_fn`.
        shards: Number of virtual shards: a power of two, and a multiple of the number of devices.
        mesh: Devices to train on.
        options: Compiler options.

    Returns:
        A function with the same arguments and results as the function that `make_train_step` returns.
    """

    def compute_shard_sums(params: Tree, batch: Tree) -> tuple[Tree, Tree]:
        """Return the metrics and the gradient of a shard as float32 sums that are not yet divided by N."""
        images, targets = prepare(batch, jax.vmap)
        metrics, grads = grad_fn(params, images, targets, batch.valid, jnp.int32(1))
        return jax.tree.map(lambda x: x.astype(jnp.float32), metrics), grads  # float32 counts are exact below 2**24

    def apply_sums(state: Tree, sums: tuple[Tree, Tree], point: Tree) -> tuple[Tree, Tree]:
        metrics, grads = sums
        count = metrics.pop("num_positives")
        metrics, grads = jax.tree.map(lambda x: x / jnp.maximum(count, 1), (metrics, grads))
        return update(state, metrics | {"num_positives": count.astype(jnp.int32)}, grads, point)

    return make_ordered_step(compute_shard_sums, apply_sums, shards, mesh, options)


def make_ordered_step(
    shard_sums: Callable[[Tree, Tree], Tree],
    apply_sums: Callable[..., tuple[Tree, Tree]],
    shards: int,
    mesh: Mesh,
    options: dict[str, str] | None = None,
) -> Callable[..., tuple[Any, Tree]]:
    """Return a step that adds the sums over the shards of a batch in a fixed order.

    The step donates the buffers of the state, which must not be used afterwards.

    Args:
        shard_sums: Function of ``state.params`` and a shard of the batch. It returns float32 sums over the shard.
        apply_sums: Function of the state, the sums over the whole batch, and further arguments of the step. It returns
            the next state and metrics.
        shards: Number of virtual shards: a power of two, and a multiple of the number of devices.
        mesh: Devices to run on.
        options: Compiler options.

    Returns:
        A function of the state, a batch, and further arguments, which are the same on all devices. It returns the next
        state and the metrics.
    """
    shards_per_device = shards // mesh.size
    layout: dict[str, Callable] = {}  # known once the first shard is traced

    def compute_flat_sums(params: Tree, part: Tree) -> Float32[Array, " p"]:
        flat, layout["unravel"] = ravel_pytree(shard_sums(params, part))
        return flat

    def compute_next_state(state: Tree, flat: Float32[Array, " p"], *rest: Tree) -> tuple[Tree, Tree]:
        return apply_sums(state, layout["unravel"](flat), *rest)

    compiled_sums = jax.jit(compute_flat_sums, compiler_options=options)
    compiled_next_state = jax.jit(compute_next_state, donate_argnums=0, compiler_options=options)
    all_gather = start_together(jax.jit(lambda sums: sums, out_shardings=sharding.make_replicated_sharding(mesh)))

    def sum_shards(params: Tree, batch: Tree, first: int, count: int) -> Float32[Array, " p"]:
        if count == 1:
            return compiled_sums(params, _get_shard(batch, first, shards_per_device))
        half = count // 2
        return _add(sum_shards(params, batch, first, half), sum_shards(params, batch, first + half, half))

    def step(state: Any, batch: Tree, *rest: Tree) -> tuple[Any, Tree]:
        states, batches = _split_by_device(state), _split_by_device(batch)
        sums = [sum_shards(s.params, b, 0, shards_per_device)[None] for s, b in zip(states, batches, strict=True)]
        shape = (mesh.size, sums[0].shape[1])
        gathered = all_gather(jax.make_array_from_single_device_arrays(shape, sharding.make_batch_sharding(mesh), sums))
        results = [
            compiled_next_state(s, _sum_devices(g), *rest)
            for s, g in zip(states, _split_by_device(gathered), strict=True)
        ]
        return jax.tree.map(partial(_join_replicas, mesh), *results)

    return step


@partial(jax.jit, static_argnums=2)
def _get_shard(batch: Tree, number: int, parts: int) -> Tree:
    def get_rows(x: Array) -> Array:
        rows = len(x) // parts
        return jax.lax.dynamic_slice_in_dim(x, number * rows, rows)

    return jax.tree.map(get_rows, batch)


_add = jax.jit(jnp.add)


@jax.jit
def _sum_devices(sums: Float[Array, "devices p"]) -> Float[Array, " p"]:
    """Return the sum over the devices, which have one row each. Neighbours are added in pairs until one row is left."""
    while len(sums) > 1:
        sums = sums[0::2] + sums[1::2]
    return sums[0]


def _split_by_device(tree: Tree) -> list[Tree]:
    """Split a tree of global arrays into a list of trees, one for each local device."""
    leaves, structure = jax.tree.flatten(tree)
    shards = [[shard.data for shard in leaf.addressable_shards] for leaf in leaves]
    return [jax.tree.unflatten(structure, device_leaves) for device_leaves in zip(*shards, strict=True)]


def _join_replicas(mesh: Mesh, *copies: Array) -> Array:
    """Return a replicated global array, made of one copy for each local device. The copies must be equal."""
    return jax.make_array_from_single_device_arrays(
        copies[0].shape, sharding.make_replicated_sharding(mesh), list(copies)
    )
