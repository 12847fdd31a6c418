"""The detection program of a batch of images, traced and compiled once and then kept in the user's cache folder.

Tracing the network in Python and lowering it takes as long as all the rest of a short command. So the traced program is
stored by ``jax.export``, and JAX's persistent cache holds the compiled one. The name of a stored program contains a
hash of everything that it depends on, among it the code of this package; a program that cannot be read is made again.
"""

import hashlib
import importlib.metadata
import json
import logging
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
from jax import Array

import ssd_jax
from ssd_jax.config import Config
from ssd_jax.errors import UserError
from ssd_jax.files import write_bytes
from ssd_jax.inference.detections import DetectFn
from ssd_jax.models.parameters import Params, compute_parameter_shapes, nest_parameters, standardize_kernels
from ssd_jax.ops.detection import Detections
from ssd_jax.runtime import compilation

logger = logging.getLogger(__name__)

# Packages that decide what a traced program contains, and settings of JAX that change it.
_PACKAGES = ("jax", "jaxlib", "flax")
_JAX_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
_DIGEST_BYTES = 32


def make_detect_fn(config: Config, params: Params) -> DetectFn:
    """Return a function that detects objects in a batch of images, on the first device of this process.

    The first call copies the parameters to the device. The first call for each shape of the canvases,
    (b, side, side, 3), loads or compiles a program.

    Args:
        config: Config of the run.
        params: Parameters of the network, as they were trained.
    """
    programs: dict[tuple[int, int], Callable[..., tuple[Array, ...]]] = {}

    lock = threading.Lock()

    @cache
    def place_params() -> Params:
        return jax.device_put(standardize_kernels(params, config.model), jax.local_devices()[0])

    def detect(canvas: np.ndarray, height: np.ndarray, width: np.ndarray) -> Detections:
        shape = canvas.shape[:2]
        if shape not in programs:  # asked without the lock, so that no thread waits for a program of another shape
            with lock:  # or several threads would compile the same program
                if shape not in programs:
                    programs[shape] = _load_or_compile(config, *shape)
        return Detections(*programs[shape](place_params(), canvas, height, width))

    return detect


def _load_or_compile(config: Config, batch: int, side: int) -> Callable[..., tuple[Array, ...]]:
    """Return the compiled program for a batch of canvases with a side in pixels."""
    with compilation.compilation_cache(min_seconds=0.0) as folder:
        file = (
            None if folder is None else folder / f"ssd_jax_detect-{_hash_dependencies(config, batch, side)}.jax_export"
        )
        exported = None if file is None else _read(file)
        if exported is None:
            exported = _trace(config, batch, side)
            if file is not None:
                _write(file, exported)
        arguments, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        options = compilation.detection_compiler_options(config.model)
        program = jax.jit(exported.call, compiler_options=options)
        return program.lower(*arguments).compile()


def _trace(config: Config, batch: int, side: int) -> jax.export.Exported:
    # Imported here, because Flax and the network are not needed if the program is stored.
    from ssd_jax.inference.program import make_predict
    from ssd_jax.runtime import sharding

    predict = make_predict(config, sharding.single_device_mesh(), is_standardized=True)
    size = jax.ShapeDtypeStruct((batch,), np.int32)
    params = nest_parameters(
        {
            path: jax.ShapeDtypeStruct(shape, np.float32)
            for path, shape in compute_parameter_shapes(config.model).items()
        }
    )
    canvas = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)
    # jax.export stores tuples, but not named tuples.
    return jax.export.export(jax.jit(lambda *arguments: tuple(predict(*arguments))))(params, canvas, size, size)


def _read(file: Path) -> jax.export.Exported | None:
    """Return a stored program, or None if there is none or it is corrupt."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, program = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return jax.export.deserialize(bytearray(program)) if hashlib.sha256(program).digest() == digest else None


def _write(file: Path, exported: jax.export.Exported) -> None:
    program = bytes(exported.serialize())
    try:
        write_bytes(file, hashlib.sha256(program).digest() + program)
    except UserError as error:  # a full disk must not keep the program from running
        logger.debug("%s", error)


def _hash_dependencies(config: Config, batch: int, side: int) -> str:
    """Return a hash of everything that the traced program depends on."""
    dependencies: Any = {
        "code": _hash_code(),
        "packages": [importlib.metadata.version(name) for name in _PACKAGES],
        "settings": [str(getattr(jax.config, name)) for name in _JAX_SETTINGS],
        "platform": jax.local_devices()[0].platform,
        "model": msgspec.to_builtins(config.model),
        "detect": msgspec.to_builtins(config.detect),
        "batch": batch,
        "side": side,
    }
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()


@cache
def _hash_code() -> str:
    """Return a hash of the code of the packages that the program is traced from."""
    folder = Path(ssd_jax.__file__).parent
    files = [
        folder / "config.py",
        *(f for part in ("inference", "models", "ops", "runtime") for f in (folder / part).rglob("*.py")),
    ]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(files))).hexdigest()
