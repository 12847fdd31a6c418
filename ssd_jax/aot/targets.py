"""TPU slices and GPUs to compile for, with the specifications of their manufacturers.

The name of a target is the type of TPU with the topology of the slice, such as ``v5e:2x4``, or the type of GPU with
the number of GPUs, such as ``h100x8``.
"""

import importlib.metadata
import math
import os
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax.experimental import topologies

from ssd_jax.errors import UserError
from ssd_jax.runtime.quiet_stderr import suppress_stderr

GIB = 2**30


class Chip(NamedTuple):
    """Specifications of an accelerator that is one device in JAX."""

    title: str
    """Name that is shown in reports."""
    platform: Literal["tpu", "cuda"]
    bfloat16: float
    """Peak FLOP/s of dense bfloat16 products."""
    float32: float
    """Peak FLOP/s of float32 products at JAX's default precision, which uses bfloat16 on a TPU and TF32 on a GPU."""
    bandwidth: float
    """Memory bandwidth, in bytes per second."""
    memory: float
    """Memory size, in bytes."""
    source: str
    """Source of the specifications."""


CHIPS = {
    "v5e": Chip("TPU v5e", "tpu", 197e12, 197e12, 819e9, 16 * GIB, "cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip("TPU v5p", "tpu", 459e12, 459e12, 2765e9, 95 * GIB, "cloud.google.com/tpu/docs/v5p"),
    "v6e": Chip("TPU v6e", "tpu", 918e12, 918e12, 1640e9, 32 * GIB, "cloud.google.com/tpu/docs/v6e"),
    # Memory sizes are the values of device_memory_size in the XLA files that are named below. The 1979 and 989 TFLOP/s
    # of the H100 data sheet are with sparsity.
    "h100": Chip("H100 SXM", "cuda", 989.5e12, 494.5e12, 3350e9, 84_942_979_072, "NVIDIA H100 data sheet"),
    "a100": Chip("A100 SXM 80 GB", "cuda", 312e12, 156e12, 2039e9, 85_100_068_864, "NVIDIA A100 data sheet"),
}

# From openxla/xla, xla/backends/gpu/target_config/specs: h100_sxm.txtpb at commit 0774019d97e7, and a100_sxm_80.txtpb
# at commit 4336d12e0706.
_EVERY_GPU = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49152,
    "threads_per_core_limit": 2048,
    "block_dim_limit_x": 2147483647,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
}
_GPUS: dict[str, tuple[str, int, dict[str, float]]] = {
    # Device name, major number of the compute capability, other properties.
    "h100": (
        "NVIDIA H100 80GB HBM3",
        9,
        {
            "shared_memory_per_core": 233472,
            "core_count": 132,
            "fpus_per_core": 128,
            "memory_bandwidth": 3352320000000,
            "l2_cache_size": 52428800,
            "clock_rate_ghz": 1.98,
            "shared_memory_per_block_optin": 232448,
        },
    ),
    "a100": (
        "NVIDIA A100-SXM4-80GB",
        8,
        {
            "shared_memory_per_core": 167936,
            "core_count": 108,
            "fpus_per_core": 64,
            "memory_bandwidth": 2039040000000,
            "l2_cache_size": 41943040,
            "clock_rate_ghz": 1.41,
            "shared_memory_per_block_optin": 166912,
        },
    ),
}
# Versions of CUDA and cuDNN to compile for. Without these numbers, the compiler looks for a driver (openxla/xla#25919).
_CUDA, _CUDNN = (12, 8), (9, 8)
GPUS_PER_HOST = 8

EXAMPLES = "v5e:2x4, v5p:2x2x2, v6e:2x4, h100x8 and a100x8"


@dataclass(frozen=True)
class Target:
    """Devices to compile for, which need not be present."""

    name: str
    chip_name: str
    shape: tuple[int, ...]
    """Shape of the TPU slice in chips, such as (2, 4), or the number of GPUs, such as (8,)."""

    @property
    def chip(self) -> Chip:
        return CHIPS[self.chip_name]

    @property
    def count(self) -> int:
        """Number of devices."""
        return math.prod(self.shape)


def parse_target(text: str) -> Target:
    """Return the target with a name such as ``v5e:2x4`` or ``h100x8``.

    Raises:
        UserError: If no target has this name.
    """
    parts = re.fullmatch(r"(v\d\w):(\d+(?:x\d+)+)|(\w+?)x(\d+)", text)
    chip = parts and (parts[1] or parts[3])
    if parts is None or chip not in CHIPS or (CHIPS[chip].platform == "tpu") != bool(parts[1]):
        raise UserError(f"--target {text}: unknown target. Examples: {EXAMPLES}")
    shape = tuple(int(n) for n in (parts[2] or parts[4]).split("x"))
    if not all(shape):
        raise UserError(f"--target {text}: contains no device")
    if CHIPS[chip].platform == "cuda" and shape[0] > GPUS_PER_HOST and shape[0] % GPUS_PER_HOST:
        raise UserError(
            f"--target {text}: above {GPUS_PER_HOST}, the number of GPUs must be a multiple of {GPUS_PER_HOST}, "
            "because only whole hosts are supported"
        )
    return Target(text, chip, shape)


def find_compiler_version(target: Target) -> str:
    """Return the package and the version of the compiler for a target, such as ``libtpu 0.0.42``.

    Raises:
        UserError: If the package is not installed. The message says how to install it.
    """
    if target.chip.platform == "tpu":
        packages = ["libtpu"]
        install = "pip install 'jax[tpu]', or in a checkout: pip install -e '.[aot]'"
    else:
        packages = ["jax-cuda12-pjrt", "jax-cuda13-pjrt"]
        install = (
            f"pip install --no-deps jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__} "
            "(jax[cuda12] also includes these packages, but adds gigabytes of CUDA that are not needed to compile)"
        )
    for package in packages:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            pass
    raise UserError(f"--target {target.name}: the compiler {packages[0]} is not installed. Install it with: {install}")


def make_target_devices(target: Target) -> list[Any]:
    """Return the devices of a target. Programs can be compiled for a mesh of these devices, but not run on them.

    Call this in a process that does nothing else. It sets environment variables that JAX's plugins read only when they
    are loaded, and turns off JAX's compilation cache, from which programs for absent devices cannot be loaded.

    Raises:
        UserError: If the compiler for the target is missing or does not support the target.
    """
    find_compiler_version(target)
    options: dict[str, Any] = {}
    if target.chip.platform == "tpu":
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # do not query the metadata server of a cloud
        os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # do not use the lock file of a TPU
        topology = target.name
        if target.count == 1:
            options["chips_per_host_bounds"] = [1, 1, 1]  # by default, a host has 2x2 chips
    else:
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # do not require an installed CUDA
        topology = ""
        per_host = min(target.count, GPUS_PER_HOST)
        options |= {
            "topology": f"1x{target.count // per_host}x{per_host}",
            "target_config": format_gpu_target_config(target.chip_name),
        }
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_platforms", "cpu")  # computations during tracing run on the CPU
    with suppress_stderr():
        jax.devices()
        try:
            return topologies.get_topology_desc(topology, target.chip.platform, **options).devices
        except jax.errors.JaxRuntimeError as error:
            message = str(error).splitlines()[0]
    raise UserError(f"--target {target.name}: {message}")


def format_gpu_target_config(chip_name: str) -> str:
    """Return the description of a GPU that XLA compiles for, as the text of a GpuTargetConfigProto."""
    device, major, numbers = _GPUS[chip_name]
    numbers = {**_EVERY_GPU, **numbers, "device_memory_size": int(CHIPS[chip_name].memory)}
    lines = [f"  {name}: {value}" for name, value in numbers.items()]
    cuda, cudnn = (f"{{ major: {a} minor: {b} }}" for a, b in (_CUDA, _CUDNN))
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            f"  cuda_compute_capability {{ major: {major} }}",
            "}",
            'platform_name: "CUDA"',
            f"runtime_version {cuda}",
            f"dnn_version_info {cudnn}",
            f'device_description_str: "{device}"',
        ]
    )
