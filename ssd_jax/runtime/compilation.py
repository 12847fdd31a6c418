"""How programs are compiled: options of XLA, the cache on the disk, memory that the compiler leaves."""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

import jax
from jax.sharding import Mesh


def compiler_options(mesh: Mesh | None = None, *, deterministic: bool = False) -> dict[str, str] | None:
    """For ``jax.jit(compiler_options=...)`` on the mesh's devices; by default on the first there is.

    On a CPU, jaxlib 0.10 sends convolutions through fusions whose weight gradients run at a third of
    the speed of plain ones; an empty list turns those off. And it orders a program's work for many
    cores, by which a training step of SSD300 takes more memory and is no faster on two.
    Other versions may not know the options and refuse them.

    deterministic: of a GPU's operations take those that give the same bits each time.
    """
    kind = (jax.devices()[0] if mesh is None else mesh.devices.flat[0]).platform
    if kind == "cpu" and jax.__version_info__[:2] == (0, 10):
        return {
            "xla_cpu_experimental_ynn_fusion_type": "",
            "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        }
    if kind in ("gpu", "cuda") and deterministic:
        return {"xla_gpu_deterministic_ops": "true"}
    return None


def enable_compilation_cache() -> None:
    """Has compiled programs kept on the disk, for the next start to load; for commands, before any is compiled.

    JAX's persistent cache, in the user's cache folder. JAX_COMPILATION_CACHE_DIR names another one,
    JAX_ENABLE_COMPILATION_CACHE=false does without.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(caches / "ssd_jax" / "compiled"))


@cache
def release_compiler_memory() -> None:
    """Has what a long compilation freed given back to the system, before the program needs as much itself.

    For a command's start; a second call changes nothing. SSD300's training step leaves 0.5 GB behind, which malloc
    would keep. Without glibc a no-op.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)

    def trim(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs > 1:
            libc.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(trim)
