"""How programs are compiled and laid over devices. One axis, ``data``: images are dealt out over all
devices, parameters are on each."""

import ctypes
import platform
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssd_jax.errors import UserError

T = TypeVar("T")


def compiler_options() -> dict[str, str] | None:
    """For ``jax.jit(compiler_options=...)`` on the default backend.

    On a CPU, jaxlib 0.10 sends convolutions through fusions whose weight gradients run at a third of
    the speed of plain ones; an empty list turns those off. Other versions may not know the option
    and refuse it.
    """
    if jax.default_backend() == "cpu" and jax.__version_info__[:2] == (0, 10):
        return {"xla_cpu_experimental_ynn_fusion_type": ""}
    return None


def keep_freed_memory() -> None:
    """On a CPU under glibc: let the process keep large blocks that it freed, for the next step to use.

    By default malloc gives each block over 32 MB back to the kernel, and every step pays for its
    buffers' pages to be zeroed again. Elsewhere a no-op.
    """
    if jax.default_backend() != "cpu" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_max = -1, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def data_mesh() -> Mesh:
    """All devices in a row. Auto axes: explicit ones, jax's default, refuse the reshape of the predictors."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def single_device_mesh() -> Mesh:
    """The first device alone."""
    return jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError where the batch can't be dealt out evenly."""
    if batch_size % mesh.size:
        raise UserError(
            f"train.batch_size is {batch_size}, which {mesh.size} devices can't share evenly: take a multiple of "
            f"{mesh.size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_over_devices(batch: T, mesh: Mesh) -> T:
    """Arrays with a leading batch axis onto the devices, each its share."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def per_image(f: Callable, mesh: Mesh) -> Callable:
    """``f`` of one image, over a batch: vmapped, each device its own images.

    Under plain jit the partitioner adds collectives to a vmapped while_loop and top_k; here there
    is nothing to exchange.
    """
    return jax.shard_map(
        jax.vmap(f), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"), check_vma=False
    )


def fetch(tree: T) -> T:
    """Arrays to numpy; blocks until they are there."""
    return jax.tree.map(np.asarray, jax.device_get(tree))
