"""Weights from a ``.caffemodel``, a binary protobuf, without Caffe.

Only the fields named here are looked at; protobuf passes over all others. Numbers and defaults of fields:
src/caffe/proto/caffe.proto of github.com/weiliu89/caffe at d9f9dfe5 (branch ssd in 2016; what PriorBoxParameter
got later: its fork MhLiao/TextBoxes_plusplus at f7b126ab). Those shared with Caffe have BVLC's numbers.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.reading import check_file, check_names, own, reading


class Prior(NamedTuple):
    """What a PriorBox layer was told of its default boxes; lengths in pixels of the network's input."""

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    """As many as min_sizes, or none."""
    aspect_ratios: tuple[float, ...]
    """Width over height; as stored, so without 1, which is always there, and without those that ``flip`` adds."""
    flip: bool
    """Adds 1 / ratio for each ratio."""
    clip: bool
    """Cuts boxes off at the image's border. False where it is not set; in mid-2016 that meant True, but the authors'
    scripts always set it."""
    variances: tuple[float, ...]
    """Of cx, cy, w, h. One number for all four, and none for 0.1, are written out."""
    step: float | None
    """Distance of neighbouring cells. None: the input's side over the map's."""
    offset: float
    """Of a box's centre in its cell, in steps."""
    image_size: int | None = None
    """Side that sizes are divided by. None, as in all of SSD's own snapshots: the input's."""


class CaffeNet(NamedTuple):
    tensors: dict[str, np.ndarray]
    """By ``<layer>.<blob number>``, in the file's order, float32. Of a convolution .0 is the weight (o, i, h, w), of
    InnerProduct (o, i), and .1 the bias (o,); of Normalize .0 is the scale (c,), or (1,) if channels share it."""
    priors: dict[str, Prior]
    """By the layer's name. Empty for backbones, and for snapshots without their layers' settings."""


def read_caffe(file: Path) -> CaffeNet:
    """The blobs of all layers that have any, and the settings of PriorBox layers.

    Both formats of layers are read, that since 2015 and the one before (V1, as in VGG_ILSVRC_16_layers.caffemodel).

    Raises UserError, naming the file, if it is missing, damaged, of another format, or contradicts itself.
    """
    check_file(file)
    with reading(file):
        net = _net_class().FromString(file.read_bytes())
        if any(layer.HasField("layer") for layer in net.layers):
            raise UserError(f"{file}: in Caffe's format of 2013. Its tool upgrade_net_proto_binary makes a newer one.")
        tensors = _read_blobs(file, [*net.layers, *net.layer])
        priors = {
            layer.name: _read_prior(file, layer.name, layer.prior_box_param)
            for layer in net.layer
            if layer.HasField("prior_box_param")
        }
    if not tensors:
        raise UserError(
            f"{file}: no layer in it has weights. Name the .caffemodel: a .prototxt is the network without weights, a "
            ".solverstate the state of its training."
        )
    return CaffeNet(tensors, priors)


# ---- blobs ----

# A layer's type is a name, or in V1 a number.
_INNER_PRODUCT, _CONVOLUTION, _NORMALIZE = {"InnerProduct", 14}, {"Convolution", 4}, {"Normalize"}


def _read_blobs(file: Path, layers: list[Any]) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for layer in layers:
        for number, blob in enumerate(layer.blobs):
            name = f"{layer.name}.{number}"
            if name in tensors:
                raise UserError(f"{file}: two layers are called {layer.name!a}. Save it again with Caffe.")
            tensors[name] = _reshape(layer.type, number, _read_blob(file, name, blob))
    check_names(tensors)
    return tensors


def _read_blob(file: Path, name: str, blob: Any) -> np.ndarray:
    numbers = own(np.asarray(blob.double_data if len(blob.double_data) else blob.data))
    legacy = [blob.num, blob.channels, blob.height, blob.width]
    # Where one of these is set it is they that count: Caffe's Blob::ShapeEquals, src/caffe/blob.cpp.
    old = any(blob.HasField(field) for field in ("num", "channels", "height", "width"))
    shape = legacy if old else list(blob.shape.dim)
    if min(shape, default=1) < 1 or math.prod(shape) != len(numbers):
        raise UserError(
            f"{file}: {name!a} has the shape {tuple(shape)}, but {len(numbers)} numbers. The file is damaged, or of a "
            "Caffe that stores weights in fields of its own."
        )
    return numbers.reshape(shape)


def _reshape(layer_type: str | int, number: int, blob: np.ndarray) -> np.ndarray:
    """Without the axes of length 1 that blobs of old had in front of their own: all were four-dimensional."""
    if layer_type in _NORMALIZE or (layer_type in _CONVOLUTION | _INNER_PRODUCT and number == 1):
        return blob.reshape(-1)
    if layer_type in _INNER_PRODUCT and blob.shape[:-2] == (1, 1):
        return blob.reshape(blob.shape[2:])
    return blob


# ---- priors ----


def _read_prior(file: Path, layer: str, param: Any) -> Prior:
    """Defaults as in src/caffe/layers/prior_box_layer.cpp."""
    min_sizes, max_sizes = _decimals(param.min_size), _decimals(param.max_size)
    ratios = _decimals(param.aspect_ratio)
    variances = _decimals(param.variance) or (0.1,)
    variances = variances * 4 if len(variances) == 1 else variances
    step = _both(file, layer, param, "step", "step_h", "step_w")
    image_size = _both(file, layer, param, "img_size", "img_h", "img_w")
    (offset,) = _decimals([param.offset])
    positive = (*min_sizes, *max_sizes, *ratios, *variances, 1 if step is None else step)
    if (
        not min_sizes
        or len(max_sizes) not in (0, len(min_sizes))
        or len(variances) != 4
        or not all(0 < number < math.inf for number in positive)
        or not math.isfinite(offset)
        or image_size == 0
    ):
        raise UserError(f"{file}: the settings of {layer!a} make no default boxes. Copy or download the file again.")
    side = None if image_size is None else int(image_size)
    return Prior(min_sizes, max_sizes, ratios, param.flip, param.clip, variances, step, offset, side)


def _both(file: Path, layer: str, param: Any, side: str, height: str, width: str) -> float | None:
    """A setting given once for both axes, or once for each."""
    given = [name for name in (side, height, width) if param.HasField(name)]
    values = set(_decimals([getattr(param, name) for name in given]))
    if not given:
        return None
    if given not in ([side], [height, width]) or len(values) > 1:
        raise UserError(
            f"{file}: {layer!a} sets {' and '.join(given)}. Of default boxes only those are supported whose {side} is "
            "the same in both directions."
        )
    return values.pop()


def _decimals(numbers: Any) -> tuple[float, ...]:
    """float32 as the decimal number that was meant: 0.1, not 0.10000000149."""
    return tuple(float(str(np.float32(number))) for number in numbers)


# ---- the schema ----

# Message -> field -> number, type, whether repeated. Message types come before those that hold them.
_ONE, _MANY = False, True
_SCHEMA: dict[str, dict[str, tuple[int, str, bool]]] = {
    "BlobShape": {"dim": (1, "INT64", _MANY)},
    "BlobProto": {
        "num": (1, "INT32", _ONE),
        "channels": (2, "INT32", _ONE),
        "height": (3, "INT32", _ONE),
        "width": (4, "INT32", _ONE),
        "data": (5, "FLOAT", _MANY),
        "shape": (7, "BlobShape", _ONE),
        "double_data": (8, "DOUBLE", _MANY),
    },
    "PriorBoxParameter": {
        "min_size": (1, "FLOAT", _MANY),
        "max_size": (2, "FLOAT", _MANY),
        "aspect_ratio": (3, "FLOAT", _MANY),
        "flip": (4, "BOOL", _ONE),
        "clip": (5, "BOOL", _ONE),
        "variance": (6, "FLOAT", _MANY),
        "img_size": (7, "UINT32", _ONE),
        "img_h": (8, "UINT32", _ONE),
        "img_w": (9, "UINT32", _ONE),
        "step": (10, "FLOAT", _ONE),
        "step_h": (11, "FLOAT", _ONE),
        "step_w": (12, "FLOAT", _ONE),
        "offset": (13, "FLOAT", _ONE),
    },
    "LayerParameter": {
        "name": (1, "STRING", _ONE),
        "type": (2, "STRING", _ONE),
        "blobs": (7, "BlobProto", _MANY),
        "prior_box_param": (203, "PriorBoxParameter", _ONE),
    },
    "V1LayerParameter": {
        "layer": (1, "BYTES", _ONE),  # a message, V0LayerParameter
        "name": (4, "STRING", _ONE),
        "type": (5, "INT32", _ONE),  # an enum
        "blobs": (6, "BlobProto", _MANY),
    },
    "NetParameter": {"layers": (2, "V1LayerParameter", _MANY), "layer": (100, "LayerParameter", _MANY)},
}
_DEFAULTS = {("PriorBoxParameter", "flip"): "true", ("PriorBoxParameter", "offset"): "0.5"}


@cache
def _net_class() -> Any:
    """protobuf's class for NetParameter."""
    package = "ssd_jax.caffe"
    schema = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for message, fields in _SCHEMA.items():
        descriptor = schema.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = descriptor.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _SCHEMA:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind}")
            if (message, name) in _DEFAULTS:
                field.default_value = _DEFAULTS[message, name]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.NetParameter"))
