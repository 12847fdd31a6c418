"""Compiler options, the persistent cache of compiled programs, and the release of memory after compilations."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.sharding import Mesh

from ssd_jax.config import Model
from ssd_jax.errors import format_error_reason
from ssd_jax.files import CACHE_VARIABLE, find_cache_folder
from ssd_jax.runtime.memory import return_free_memory

logger = logging.getLogger(__name__)

_CONVOLUTION_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
# Largest width of a network that detects faster on a CPU with convolution fusions. benchmarks/compiler_options.py
# compares both.
_LARGEST_NARROW_WIDTH = 0.5


def compiler_options(mesh: Mesh | None = None, *, deterministic: bool = False) -> dict[str, str] | None:
    """Return the compiler options to pass to ``jax.jit``, or None if no option has to be set.

    The options depend on the platform of the devices and on the version of JAX.

    Args:
        mesh: Mesh that the program runs on; None for the first device.
        deterministic: Whether to use only GPU operations that are deterministic, so that runs are bitwise identical.
            CPUs and TPUs do not need this.
    """
    kind = (jax.devices()[0] if mesh is None else mesh.devices.flat[0]).platform
    # On CPUs, jaxlib 0.10 computes weight gradients in convolution fusions, at a third of the speed of plain
    # convolutions; an empty list of fusion types turns these fusions off. The default scheduler orders operations for
    # many cores: a training step of SSD300 then uses more memory and is no faster on two cores. Other versions of
    # jaxlib may not have these options, and an unknown option is an error.
    if kind == "cpu" and jax.__version_info__[:2] == (0, 10):
        return {
            _CONVOLUTION_FUSIONS: "",
            "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        }
    if kind in ("gpu", "cuda") and deterministic:
        return {"xla_gpu_deterministic_ops": "true"}
    return None


def detection_compiler_options(model: Model, mesh: Mesh | None = None) -> dict[str, str] | None:
    """Return the compiler options for a program that applies a network without gradients, as `compiler_options` does.

    Args:
        model: Network of the program. On CPUs, XLA's convolution fusions are used if it is narrow.
        mesh: Mesh that the program runs on; None for the first device.
    """
    options = compiler_options(mesh)
    if options is not None and model.width <= _LARGEST_NARROW_WIDTH:
        options.pop(_CONVOLUTION_FUSIONS, None)
    return options


def enable_compilation_cache() -> None:
    """Make JAX save compiled programs in the user's cache folder, and load them in later runs.

    Call this before the first compilation. This is JAX's persistent compilation cache. The environment variable
    JAX_COMPILATION_CACHE_DIR selects another folder, and JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        folder = find_cache_folder() / "compiled"
        _warn_if_read_only(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))


@cache
def _warn_if_read_only(folder: Path) -> None:
    """Log a warning if no file can be written into a folder. Further calls for the same folder do nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        logger.warning(
            "%s can't be written (%s), so compiled programs are not kept for the next command. Name another folder in "
            "the environment variable %s", folder, format_error_reason(error), CACHE_VARIABLE,
        )  # fmt: skip


@contextmanager
def compilation_cache(min_seconds: float) -> Iterator[Path | None]:
    """Use the cache of compiled programs in the ``with`` block, also in a process that has not enabled it.

    A notebook or another program that uses a detector keeps its own settings for everything that it compiles itself.

    Args:
        min_seconds: Programs that compile in less time are not saved.

    Yields:
        The folder of the cache, which exists, or None if there is none: it is turned off or cannot be created.
    """
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        enable_compilation_cache()
        folder = Path(jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a read-only home folder, or none
        jax.config.update(names[0], before[names[0]])
        yield None
        return
    jax.config.update(names[1], min_seconds)
    try:
        yield folder if jax.config.jax_enable_compilation_cache else None  # type: ignore[attr-defined]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        if before[names[0]] is None:
            reset_cache()  # or JAX would go on using the folder


@cache
def release_compiler_memory() -> None:
    """Make glibc return free memory to the operating system after every compilation of more than one second.

    After the training step of SSD300 is compiled, glibc's allocator otherwise holds 0.5 GB that is no longer used. Call
    this once, when a command starts. Further calls do nothing; on systems without glibc, no call does anything.
    """

    def trim(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and duration_secs > 1:
            return_free_memory()

    jax.monitoring.register_event_duration_secs_listener(trim)
