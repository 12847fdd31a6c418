"""A mesh of devices that this machine does not have, for functions that only look at it."""

import numpy as np
from jax.sharding import Mesh

from ssd_jax.runtime.sharding import AXES


class FakeDevice:
    """Has what Mesh asks of a device."""

    process_index = 0

    def __init__(self, number: int, platform: str) -> None:
        self.id, self.platform = number, platform
        self.device_kind = platform


def fake_mesh(data: int = 1, fsdp: int = 1, platform: str = "cpu") -> Mesh:
    """Return a mesh of the given shape."""
    devices = [FakeDevice(number, platform) for number in range(data * fsdp)]
    return Mesh(np.array(devices).reshape(data, fsdp), AXES)
