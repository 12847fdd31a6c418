"""Training steps that are the same to the last bit on 1, 2, 4, ... devices.

Sums of floats depend on their order, and the order on how many devices share the work: a run on eight
devices soon differs from the one on a single device, and nobody can tell rounding from a mistake. Here
the batch has a fixed number of parts, the *virtual shards*. Each device goes through its own, one after
another, and the results are added up along a fixed binary tree, whose lower branches lie within a device
and whose upper ones between devices.

That alone is not enough: a compiler that sees the devices, or how many shards there are, fuses
operations differently, and with them rounding changes. So all that rounds, but for the additions of the
tree, is in two programs for a single device that know of neither: from one shard to its sums, and from
the sums to the next state. Each device runs these same two.

No arithmetic is added. The network sees batch / shards images at a time; every device compiles its own
copy; and a device holds the sums of as many shards as the tree is high. The same bits are those of one kind of
device and one compiler. Of CPUs the number of threads matters, too: NPROC in the environment sets it.
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


def make_ordered_step(
    sums_of: Callable[[Tree, Tree], Tree],
    update: Callable[[Tree, Tree], tuple[Tree, Tree]],
    shards: int,
    mesh: Mesh,
    options: dict[str, str] | None = None,
) -> Callable[[Any, Tree], tuple[Any, Tree]]:
    """A step of training: the state and a batch to the next state and its metrics. The state is used up.

    sums_of: of ``state.params`` and the images of one shard, float32 sums over them.
    update: of the state and these sums over the whole batch.
    shards: a power of two, and a multiple of the mesh's devices, over which the batch is split.
    options: of the compiler.
    """
    own = shards // mesh.size
    layout: dict[str, Callable] = {}  # known once the first shard is traced

    def flat_sums(params: Tree, part: Tree) -> Float32[Array, " p"]:
        flat, layout["unravel"] = ravel_pytree(sums_of(params, part))
        return flat

    def next_state(state: Tree, flat: Float32[Array, " p"]) -> tuple[Tree, Tree]:
        return update(state, layout["unravel"](flat))

    of_shard = jax.jit(flat_sums, compiler_options=options)
    to_next = jax.jit(next_state, donate_argnums=0, compiler_options=options)
    share = start_together(jax.jit(lambda sums: sums, out_shardings=sharding.replicated(mesh)))

    def sum_of(params: Tree, batch: Tree, first: int, count: int) -> Float32[Array, " p"]:
        if count == 1:
            return of_shard(params, _part(batch, first, own))
        half = count // 2
        return _add(sum_of(params, batch, first, half), sum_of(params, batch, first + half, half))

    def step(state: Any, batch: Tree) -> tuple[Any, Tree]:
        states, batches = _by_device(state), _by_device(batch)
        sums = [sum_of(s.params, b, 0, own)[None] for s, b in zip(states, batches, strict=True)]
        shape = (mesh.size, sums[0].shape[1])
        everyone = share(jax.make_array_from_single_device_arrays(shape, sharding.batch_sharding(mesh), sums))
        results = [to_next(s, _add_up(e)) for s, e in zip(states, _by_device(everyone), strict=True)]
        return jax.tree.map(partial(_replicas, mesh), *results)

    return step


@partial(jax.jit, static_argnums=2)
def _part(batch: Tree, number: int, parts: int) -> Tree:
    def cut(x: Array) -> Array:
        rows = len(x) // parts
        return jax.lax.dynamic_slice_in_dim(x, number * rows, rows)

    return jax.tree.map(cut, batch)


_add = jax.jit(jnp.add)


@jax.jit
def _add_up(sums: Float[Array, "devices p"]) -> Float[Array, " p"]:
    """Neighbours, then neighbouring sums, and so on: the tree's upper branches."""
    while len(sums) > 1:
        sums = sums[0::2] + sums[1::2]
    return sums[0]


def _by_device(tree: Tree) -> list[Tree]:
    """What each of this process's devices holds of arrays that lie on all."""
    leaves, structure = jax.tree.flatten(tree)
    held = [[shard.data for shard in leaf.addressable_shards] for leaf in leaves]
    return [jax.tree.unflatten(structure, own) for own in zip(*held, strict=True)]


def _replicas(mesh: Mesh, *copies: Array) -> Array:
    """One array of the equal copies that this process's devices hold."""
    return jax.make_array_from_single_device_arrays(copies[0].shape, sharding.replicated(mesh), list(copies))
