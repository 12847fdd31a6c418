"""Tests of meshes and shardings in one process. Tests with two processes are in test_distributed.py."""

import jax
import numpy as np
import pytest
from helpers.fake_devices import make_fake_mesh
from jax.sharding import AxisType, PartitionSpec

from ssd_jax.errors import UserError
from ssd_jax.runtime import sharding

MESH = make_fake_mesh(2, 4)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 512, 1024), (None, None, None, "fsdp")),
        ((1024, 512), ("fsdp",)),
        ((1022, 512), (None, "fsdp")),  # the length of the longest axis is not a multiple of 4
        ((512, 512), ("fsdp",)),
        ((1022, 1022), ()),
        ((2**16,), ("fsdp",)),
        ((2**16 - 4,), ()),  # too small to split
        ((), ()),
    ],
)
def test_fsdp_sharding_splits_the_longest_divisible_axis_of_large_arrays(shape, spec):
    tree = {"kernel": jax.ShapeDtypeStruct(shape, np.float32)}
    assert sharding.make_fsdp_sharding(tree, MESH)["kernel"].spec == PartitionSpec(*spec)


def test_fsdp_sharding_replicates_all_arrays_if_the_fsdp_axis_has_one_device():
    assert (
        sharding.make_fsdp_sharding(jax.ShapeDtypeStruct((1024, 1024), np.float32), make_fake_mesh(8, 1)).spec
        == PartitionSpec()
    )


def test_batch_sharding_splits_the_leading_axis_over_both_mesh_axes():
    assert sharding.make_batch_sharding(MESH).spec == PartitionSpec(("data", "fsdp"))
    assert sharding.make_replicated_sharding(MESH).spec == PartitionSpec()


def test_make_mesh_rejects_a_device_count_that_is_not_a_multiple_of_fsdp():
    with pytest.raises(UserError, match=r"devices\.fsdp is 3.*\b4\b"):
        sharding.make_mesh([object()] * 4, fsdp=3)


def test_make_mesh_uses_all_devices_by_default():
    mesh = sharding.make_mesh()
    assert dict(mesh.shape) == {"data": jax.device_count(), "fsdp": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert dict(sharding.single_device_mesh().shape) == {"data": 1, "fsdp": 1}


def test_fetch_returns_numpy_arrays():
    tree = sharding.fetch({"a": jax.numpy.arange(3), "b": np.float32(2)})
    assert [type(leaf) for leaf in jax.tree.leaves(tree)] == [np.ndarray, np.ndarray]
    np.testing.assert_array_equal(tree["a"], [0, 1, 2])
