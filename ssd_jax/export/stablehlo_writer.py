"""Write a network as a StableHLO program, from pixels to boxes, for any batch size and any size of the images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int32, UInt8

from ssd_jax.export.network import Network, flatten_params
from ssd_jax.export.pictures import Canvases
from ssd_jax.exported.metadata import Metadata
from ssd_jax.exported.stablehlo_file import WEIGHTS, read_program, write_file
from ssd_jax.inference.program import make_forward, make_predict
from ssd_jax.models.parameters import Params, nest_parameters
from ssd_jax.ops.default_boxes import make_default_boxes
from ssd_jax.ops.detection import compute_boxes_and_scores

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Platforms for which a file has a program."""

Function = Callable[[Params, Array, Array, Array], Any]


def write(network: Network, metadata: Metadata, file: Path) -> None:
    """Write a network to a StableHLO file, see `ssd_jax.export.formats.Writer`."""
    make_outputs = _make_detections if metadata.nms else _make_raw_outputs
    weights = _make_weights(network)
    write_file(file, metadata, _serialize(make_outputs(network), weights, metadata.batch), weights)


def compute_logits(network: Network, metadata: Metadata, file: Path, batch: Canvases) -> Float32[np.ndarray, "b n c"]:
    """Return the logits of the exported network, with the weights of a written file."""
    forward = make_forward(network.config, None, is_standardized=True)
    weights = read_program(file).weights
    exported = jax.export.deserialize(bytearray(_serialize(forward, weights, None)))
    sizes = np.stack([batch.height, batch.width], axis=1)
    _, logits = jax.jit(exported.call)(weights, batch.canvas, sizes)
    return np.asarray(logits)


def _make_weights(network: Network) -> dict[str, np.ndarray]:
    """Return the weights as they are stored, by the names of their members of the archive."""
    dtype = np.float16 if network.options.half else np.float32
    return {f"{WEIGHTS}{path}": value.astype(dtype) for path, value in flatten_params(network.params).items()}


def _make_detections(network: Network) -> Function:
    predict = make_predict(network.config, None, is_standardized=True)

    def detect_in_pixels(params: Params, images: Array, height: Array, width: Array) -> tuple[Array, ...]:
        boxes, scores, labels, valid = predict(params, images, height, width)
        return _to_pixels(boxes, height, width), scores, labels, jnp.sum(valid, axis=1, dtype=jnp.int32)

    return detect_in_pixels


def _make_raw_outputs(network: Network) -> Function:
    config = network.config
    forward = make_forward(config, None, is_standardized=True)
    default_boxes = make_default_boxes(config.model.default_boxes)

    def decode(offsets: Float32[Array, "n 4"], logits: Float32[Array, "n c"]) -> tuple[Array, Array]:
        return compute_boxes_and_scores(
            offsets, logits, default_boxes, config.model.default_boxes.variances, config.detect
        )

    def compute_raw_outputs(params: Params, images: Array, height: Array, width: Array) -> tuple[Array, Array]:
        boxes, scores = jax.vmap(decode)(*forward(params, images, height, width))
        return _to_pixels(boxes, height, width), scores

    return compute_raw_outputs


def _to_pixels(
    boxes: Float32[Array, "b k 4"], height: Int32[Array, " b"], width: Int32[Array, " b"]
) -> Float32[Array, "b k 4"]:
    return boxes * jnp.stack([width, height, width, height], axis=1)[:, None].astype(jnp.float32)


def _serialize(function: Function, weights: dict[str, np.ndarray], batch: int | None) -> bytes:
    """Return a function of parameters, images, heights and widths as a serialized function of weights, images, sizes.

    It is exported without compiler options, which only one version of one platform knows.
    """

    def program(
        weights: dict[str, Array], images: UInt8[Array, "b h w 3"], sizes: Int32[Array, "b 2"]
    ) -> tuple[Array, ...]:
        params = {name.removeprefix(WEIGHTS): value.astype(jnp.float32) for name, value in weights.items()}
        return tuple(function(nest_parameters(params), images, sizes[:, 0], sizes[:, 1]))

    b, h, w = jax.export.symbolic_shape(f"{batch or 'b'}, h, w")
    arguments = (
        {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()},
        jax.ShapeDtypeStruct((b, h, w, 3), np.uint8),
        jax.ShapeDtypeStruct((b, 2), np.int32),
    )
    with _without_source_paths():
        return bytes(jax.export.export(jax.jit(program), platforms=PLATFORMS)(*arguments).serialize())


@contextmanager
def _without_source_paths() -> Iterator[None]:
    """Keep JAX, during the ``with`` block, from adding to each operation the files on this machine that it is from."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)
