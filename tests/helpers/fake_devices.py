"""A mesh of devices that do not exist, for functions that only read the shape and the platform of a mesh."""

import numpy as np
from jax.sharding import Mesh

from ssd_jax.runtime.sharding import AXES


class FakeDevice:
    """Object with the attributes that Mesh reads from a device."""

    process_index = 0

    def __init__(self, number: int, platform: str) -> None:
        self.id, self.platform = number, platform
        self.device_kind = platform


def make_fake_mesh(data: int = 1, fsdp: int = 1, platform: str = "cpu") -> Mesh:
    """Return a mesh of fake devices with the shape (data, fsdp)."""
    devices = [FakeDevice(number, platform) for number in range(data * fsdp)]
    return Mesh(np.array(devices).reshape(data, fsdp), AXES)
