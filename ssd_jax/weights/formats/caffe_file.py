"""Read weights from a ``.caffemodel``, a binary protobuf, without Caffe.

Only the fields in `_SCHEMA` are read; protobuf skips all others. The numbers and defaults of the fields come from
src/caffe/proto/caffe.proto of github.com/weiliu89/caffe at d9f9dfe5 (branch ssd in 2016). Some fields were added to
PriorBoxParameter later; their numbers and defaults come from the fork MhLiao/TextBoxes_plusplus at f7b126ab. Fields
that also exist in BVLC's Caffe have the same numbers there.
"""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ssd_jax.errors import UserError
from ssd_jax.weights.formats.reading import check_file, check_printable, convert_parse_errors, to_native_array


class PriorBox(NamedTuple):
    """Settings of a PriorBox layer, which makes default boxes. Lengths are in pixels of the network's input."""

    min_sizes: tuple[float, ...]
    """Sides of the smaller square boxes."""
    max_sizes: tuple[float, ...]
    """Sizes that determine the sides of the larger square boxes: a side is sqrt(min_size * max_size). Either empty, or
    as many as ``min_sizes``."""
    aspect_ratios: tuple[float, ...]
    """Ratios of width to height as stored: without 1, which is always used, and without those that ``flip`` adds."""
    flip: bool
    """Whether 1 / ratio is added for each ratio."""
    clip: bool
    """Whether boxes are clipped to the image. False if the field is missing. In mid-2016 a missing field meant True,
    but the authors' scripts always set it."""
    variances: tuple[float, ...]
    """Variances of cx, cy, w, h. A single stored number is used for all four; the default is 0.1."""
    step: float | None
    """Distance between neighbouring cells in pixels. None: the side of the input divided by that of the feature map."""
    offset: float
    """Position of a box centre in its cell, as a fraction of ``step``."""
    image_size: int | None = None
    """Image side in pixels that the sizes are relative to. None: the side of the input, as in all snapshots of SSD's
    authors."""


class CaffeNet(NamedTuple):
    """Content of a ``.caffemodel``."""

    tensors: dict[str, np.ndarray]
    """float32 arrays by ``<layer>.<blob number>``, in the order of the file. Blob 0 is the weight, (o, i, h, w) for a
    convolution and (o, i) for InnerProduct, and blob 1 is the bias (o,). Blob 0 of Normalize is the scale: (c,), or
    (1,) if all channels share one scale."""
    priors: dict[str, PriorBox]
    """Settings of PriorBox layers by layer name. Empty for backbones, and for snapshots without these settings."""


def read_caffe(file: Path) -> CaffeNet:
    """Read a ``.caffemodel`` file and return the blobs of all layers and the settings of PriorBox layers.

    Layers may have the current format, or the format V1 from before 2015, as in VGG_ILSVRC_16_layers.caffemodel.

    Raises:
        UserError: If the file is missing or corrupt, has another format, or has inconsistent content.
    """
    check_file(file)
    with convert_parse_errors(file):
        net = _make_net_class().FromString(file.read_bytes())
        if any(layer.HasField("layer") for layer in net.layers):
            raise UserError(
                f"{file}: is written in Caffe's format of 2013. Convert it with Caffe's tool upgrade_net_proto_binary."
            )
        tensors = _read_blobs(file, [*net.layers, *net.layer])
        priors = {
            layer.name: _read_prior(file, layer.name, layer.prior_box_param)
            for layer in net.layer
            if layer.HasField("prior_box_param")
        }
    if not tensors:
        raise UserError(
            f"{file}: contains no layer with weights. Name the .caffemodel file: a .prototxt file describes the "
            "network without weights, and a .solverstate file contains the state of its training."
        )
    return CaffeNet(tensors, priors)


# ---- blobs ----

# Types of layers: names in the current format, numbers in V1.
_INNER_PRODUCT, _CONVOLUTION, _NORMALIZE = {"InnerProduct", 14}, {"Convolution", 4}, {"Normalize"}


def _read_blobs(file: Path, layers: list[Any]) -> dict[str, np.ndarray]:
    """Return the blobs of all layers by ``<layer>.<blob number>``."""
    tensors: dict[str, np.ndarray] = {}
    for layer in layers:
        for number, blob in enumerate(layer.blobs):
            name = f"{layer.name}.{number}"
            if name in tensors:
                raise UserError(f"{file}: two layers have the name {layer.name!a}. Save the file again with Caffe.")
            tensors[name] = _remove_leading_axes(layer.type, number, _read_blob(file, name, blob))
    check_printable(tensors)
    return tensors


def _read_blob(file: Path, name: str, blob: Any) -> np.ndarray:
    values = to_native_array(np.asarray(blob.double_data if len(blob.double_data) else blob.data))
    # The four legacy fields take precedence if one is set: Caffe's Blob::ShapeEquals, src/caffe/blob.cpp.
    legacy = any(blob.HasField(field) for field in ("num", "channels", "height", "width"))
    shape = [blob.num, blob.channels, blob.height, blob.width] if legacy else list(blob.shape.dim)
    if min(shape, default=1) < 1 or math.prod(shape) != len(values):
        raise UserError(
            f"{file}: {name!a} has the shape {tuple(shape)}, but {len(values)} values. The file is corrupt, or was "
            "written by a Caffe that stores weights in other fields."
        )
    return values.reshape(shape)


def _remove_leading_axes(layer_type: str | int, number: int, blob: np.ndarray) -> np.ndarray:
    """Return a blob without the leading axes of length 1 that pad the shape of a legacy blob to four axes."""
    if layer_type in _NORMALIZE or (layer_type in _CONVOLUTION | _INNER_PRODUCT and number == 1):
        return blob.reshape(-1)
    if layer_type in _INNER_PRODUCT and blob.shape[:-2] == (1, 1):
        return blob.reshape(blob.shape[2:])
    return blob


# ---- default boxes ----


def _read_prior(file: Path, layer: str, settings: Any) -> PriorBox:
    """Return the settings of a PriorBox layer, with the defaults of src/caffe/layers/prior_box_layer.cpp."""
    min_sizes, max_sizes = _to_decimals(settings.min_size), _to_decimals(settings.max_size)
    ratios = _to_decimals(settings.aspect_ratio)
    variances = _to_decimals(settings.variance) or (0.1,)
    variances = variances * 4 if len(variances) == 1 else variances
    step = _read_square_setting(file, layer, settings, "step", "step_h", "step_w")
    image_size = _read_square_setting(file, layer, settings, "img_size", "img_h", "img_w")
    (offset,) = _to_decimals([settings.offset])
    positive = (*min_sizes, *max_sizes, *ratios, *variances, 1 if step is None else step)
    if (
        not min_sizes
        or len(max_sizes) not in (0, len(min_sizes))
        or len(variances) != 4
        or not all(0 < number < math.inf for number in positive)
        or not math.isfinite(offset)
        or image_size == 0
    ):
        raise UserError(
            f"{file}: the settings of {layer!a} do not describe valid default boxes. Copy or download the file again."
        )
    side = None if image_size is None else int(image_size)
    return PriorBox(min_sizes, max_sizes, ratios, settings.flip, settings.clip, variances, step, offset, side)


def _read_square_setting(file: Path, layer: str, settings: Any, side: str, height: str, width: str) -> float | None:
    """Return a setting that is stored in one field, or in two equal fields for height and width; None if missing."""
    stored = [name for name in (side, height, width) if settings.HasField(name)]
    values = set(_to_decimals([getattr(settings, name) for name in stored]))
    if not stored:
        return None
    if stored not in ([side], [height, width]) or len(values) > 1:
        raise UserError(
            f"{file}: {layer!a} sets {' and '.join(stored)}. Default boxes are only supported if {side} is the same in "
            "both directions."
        )
    return values.pop()


def _to_decimals(numbers: Any) -> tuple[float, ...]:
    """Convert each float32 number to the shortest decimal that rounds to it: 0.1, not 0.10000000149."""
    return tuple(float(str(np.float32(number))) for number in numbers)


# ---- the schema ----

# An excerpt of caffe.proto. In the original, V1LayerParameter.layer is a message, and V1LayerParameter.type an enum.
_SCHEMA = """
message BlobShape {
  repeated int64 dim = 1;
}
message BlobProto {
  optional int32 num = 1;
  optional int32 channels = 2;
  optional int32 height = 3;
  optional int32 width = 4;
  repeated float data = 5;
  optional BlobShape shape = 7;
  repeated double double_data = 8;
}
message PriorBoxParameter {
  repeated float min_size = 1;
  repeated float max_size = 2;
  repeated float aspect_ratio = 3;
  optional bool flip = 4 [default = true];
  optional bool clip = 5;
  repeated float variance = 6;
  optional uint32 img_size = 7;
  optional uint32 img_h = 8;
  optional uint32 img_w = 9;
  optional float step = 10;
  optional float step_h = 11;
  optional float step_w = 12;
  optional float offset = 13 [default = 0.5];
}
message LayerParameter {
  optional string name = 1;
  optional string type = 2;
  repeated BlobProto blobs = 7;
  optional PriorBoxParameter prior_box_param = 203;
}
message V1LayerParameter {
  optional bytes layer = 1;
  optional string name = 4;
  optional int32 type = 5;
  repeated BlobProto blobs = 6;
}
message NetParameter {
  repeated V1LayerParameter layers = 2;
  repeated LayerParameter layer = 100;
}
"""
_FIELD = re.compile(r"(optional|repeated) (\w+) (\w+) = (\d+)(?: \[default = ([\w.]+)\])?;")


@cache
def _make_net_class() -> Any:
    """Return the class that protobuf generates for the message NetParameter of the schema."""
    package = "ssd_jax.caffe"
    schema = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for message, body in re.findall(r"message (\w+) \{(.*?)\}", _SCHEMA, re.DOTALL):
        descriptor = schema.message_type.add(name=message)
        for label, kind, name, number, default in _FIELD.findall(body):
            field = descriptor.field.add(name=name, number=int(number))
            field.label = field.LABEL_REPEATED if label == "repeated" else field.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.NetParameter"))
