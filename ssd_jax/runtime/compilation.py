"""Compiler options, the persistent cache of compiled programs, and memory that the compiler leaves allocated."""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

import jax
from jax.sharding import Mesh


def compiler_options(mesh: Mesh | None = None, *, deterministic: bool = False) -> dict[str, str] | None:
    """Return the argument ``compiler_options`` of ``jax.jit`` for the kind of device and the version of JAX.

    Args:
        mesh: Mesh that the program runs on; None for the first device.
        deterministic: On a GPU, use only operations that give the same bits in every run.
    """
    kind = (jax.devices()[0] if mesh is None else mesh.devices.flat[0]).platform
    # On CPUs, jaxlib 0.10 computes weight gradients in convolution fusions at a third of the speed of plain
    # convolutions; an empty list of fusion types turns those off. Its default scheduler orders operations for many
    # cores, with which a training step of SSD300 uses more memory and is no faster on two cores. Other versions may
    # not know these options, and unknown options are errors.
    if kind == "cpu" and jax.__version_info__[:2] == (0, 10):
        return {
            "xla_cpu_experimental_ynn_fusion_type": "",
            "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        }
    if kind in ("gpu", "cuda") and deterministic:
        return {"xla_gpu_deterministic_ops": "true"}
    return None


def enable_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that later runs load them. Call before compiling.

    This is JAX's persistent compilation cache. JAX_COMPILATION_CACHE_DIR in the environment names another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "ssd_jax" / "compiled"))


@cache
def release_compiler_memory() -> None:
    """Return memory that long compilations freed to the system, before the program itself needs it.

    Compiling the training step of SSD300 leaves 0.5 GB in glibc's allocator. Call this once, when a command starts;
    further calls do nothing, and so does every call on systems without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)

    def trim(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs > 1:
            libc.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(trim)
