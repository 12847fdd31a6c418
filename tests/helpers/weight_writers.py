"""Write weight files in the formats of Caffe and Keras, without the code under test.

Caffe files are written with protobuf's encoding (protobuf.dev/programming-guides/encoding) and the field numbers in
assets/weights/caffe_ssd.proto. Keras files are written with h5py as in keras/engine/saving.py of Keras 2.2
(github.com/keras-team/keras at 0246317e).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from helpers.paths import ASSETS

PROTO = ASSETS / "weights" / "caffe_ssd.proto"

_V1_TYPES = {"Convolution": "CONVOLUTION", "InnerProduct": "INNER_PRODUCT", "ReLU": "RELU"}
_FIXED = {"float": (5, "<f4"), "double": (1, "<f8")}  # wire type and numpy dtype

SSD300_PRIOR = {
    "min_size": [60.0],
    "max_size": [111.0],
    "aspect_ratio": [2.0, 3.0],
    "flip": True,
    "clip": False,
    "variance": [0.1, 0.1, 0.2, 0.2],
    "step": 16.0,
    "offset": 0.5,
}
"""PriorBox settings of the feature map fc7, as in models/VGGNet/VOC0712/SSD_300x300/train.prototxt."""


def encode_caffemodel(
    layers: Sequence[tuple[str, str, Sequence[np.ndarray]]],
    priors: Mapping[str, Mapping[str, Any]] | None = None,
    v1: bool = False,
    *,
    packed: bool = True,
    double: bool = False,
    four_axes: bool | None = None,
) -> bytes:
    """Return the bytes of a .caffemodel file, which is an encoded NetParameter.

    Args:
        layers: Name, type and blobs of each layer, as in Caffe since 2015.
        priors: Settings of PriorBox layers by layer name.
        v1: Whether layers and blobs have the format before 2015. PriorBox layers always have the new format, because
            they did not exist before.
        packed: Whether repeated numbers are packed.
        double: Whether blobs are stored as doubles.
        four_axes: Whether num, channels, height and width are stored instead of a shape. None: the value of ``v1``.
    """
    four_axes = v1 if four_axes is None else four_axes
    encoded = []
    for name, kind, blobs in layers:
        fields: dict[str, Any] = {"bottom": ["data"], "top": [name], "name": name}
        fields["type"] = _V1_TYPES[kind] if v1 else kind
        fields["blobs"] = [encode_message("BlobProto", _blob_fields(blob, double, four_axes), packed) for blob in blobs]
        if kind == "Convolution":
            settings = {"num_output": len(blobs[0]), "kernel_size": [blobs[0].shape[2]]}
            fields["convolution_param"] = encode_message("ConvolutionParameter", settings)
        encoded.append(encode_message("V1LayerParameter" if v1 else "LayerParameter", fields, packed))
    boxes = []
    for name, settings in (priors or {}).items():
        param = encode_message("PriorBoxParameter", settings)
        boxes.append(encode_message("LayerParameter", {"name": name, "type": "PriorBox", "prior_box_param": param}))
    return encode_message("NetParameter", {"name": "net", "layers" if v1 else "layer": encoded}) + encode_message(
        "NetParameter", {"layer": boxes}
    )


def _blob_fields(array: np.ndarray, double: bool, four_axes: bool) -> dict[str, Any]:
    """Return an array as the fields of a BlobProto, by name."""
    fields: dict[str, Any] = {"double_data" if double else "data": array.reshape(-1)}
    if four_axes:
        shape = (1, 1, 1, 1, *array.shape)[-4:]
        return fields | dict(zip(("num", "channels", "height", "width"), shape, strict=True))
    return fields | {"shape": encode_message("BlobShape", {"dim": list(array.shape)})}


def encode_message(message: str, fields: Mapping[str, Any], packed: bool = True) -> bytes:
    """Return a message in protobuf's encoding.

    Args:
        message: Name of the message.
        fields: Values by name. Lists are repeated fields, and nested messages are encoded bytes.
        packed: Whether repeated numbers are packed, where the field allows it.
    """
    out = b""
    for name, value in fields.items():
        kind, number, may_pack = read_proto()[message][name]
        values = value if isinstance(value, list | np.ndarray) else [value]
        if may_pack and packed:
            out += _encode_length_delimited_field(number, _encode_numbers(kind, values))
        else:
            out += b"".join(_encode_field(number, kind, item) for item in values)
    return out


def _encode_field(number: int, kind: str, value: Any) -> bytes:
    """Return an encoded field: its tag and its value."""
    if kind == "string" or isinstance(value, bytes):
        return _encode_length_delimited_field(number, value.encode() if kind == "string" else value)
    wire_type = _FIXED[kind][0] if kind in _FIXED else 0
    return _encode_varint(number << 3 | wire_type) + _encode_numbers(kind, [value])


def _encode_length_delimited_field(number: int, content: bytes) -> bytes:
    """Return an encoded field of wire type 2: its tag, the length of the content, and the content."""
    return _encode_varint(number << 3 | 2) + _encode_varint(len(content)) + content


def _encode_numbers(kind: str, values: Any) -> bytes:
    """Return encoded numbers of a protobuf type, without tags."""
    if kind in _FIXED:
        return np.asarray(values, _FIXED[kind][1]).tobytes()
    named = read_proto().get(kind, {})  # an enum
    return b"".join(_encode_varint(named.get(value, value)) for value in values)


def _encode_varint(number: int) -> bytes:
    """Return an integer encoded with seven bits per byte, lowest bits first.

    A negative integer is encoded as its 64-bit two's complement.
    """
    number %= 1 << 64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@cache
def read_proto() -> dict[str, dict[str, Any]]:
    """Return the content of each message and enum in the .proto file, by name.

    A message maps each field to its type, its number, and whether it may be packed; an enum maps names to values.
    """
    parsed: dict[str, dict[str, Any]] = {}
    inside: list[str] = []
    for line in PROTO.read_text(encoding="utf-8").splitlines():
        if opening := re.match(r"\s*(?:message|enum) (\w+) {", line):
            inside.append(opening[1])
            parsed[opening[1]] = {}
        elif line.strip() == "}":
            inside.pop()
        elif field := re.match(r"\s*(?:optional|repeated) (\w+) (\w+) = (\d+)(.*);", line):
            parsed[inside[-1]][field[2]] = (field[1], int(field[3]), "packed" in field[4])
        elif value := re.match(r"\s*(\w+) = (\d+);", line):
            parsed[inside[-1]][value[1]] = int(value[2])
    return parsed


# ---- Keras ----

_MAX_ATTRIBUTE_BYTES = 64512


def write_keras(
    file: Path,
    layers: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]],
    *,
    whole_model: bool = False,
    version: str | None = "2.2.4",
    backend: str = "tensorflow",
    **storage: Any,
) -> None:
    """Write an HDF5 file as Keras does.

    Args:
        file: File to write.
        layers: Name of each layer, and names and values of its weights: ``conv1_1/kernel:0`` in Keras 2,
            ``conv1_1_W:0`` in Keras 1.
        whole_model: Whether the file has the groups that model.save writes. False: those of model.save_weights.
        version: Version of Keras in the file. None: neither version nor backend is written, as in Keras 1.
        backend: Backend of Keras in the file.
        **storage: Options of h5py's create_dataset.
    """
    with h5py.File(file, "w") as root:
        top = root.create_group("model_weights") if whole_model else root
        if whole_model:
            root.attrs["model_config"] = b"{}"
            root.create_group("optimizer_weights").attrs["weight_names"] = [b"iterations:0"]
        _save_names(top, "layer_names", [name for name, _ in layers])
        if version:
            top.attrs["backend"] = backend.encode()
            top.attrs["keras_version"] = version.encode()
        for name, weights in layers:
            group = top.create_group(name)
            _save_names(group, "weight_names", [weight for weight, _ in weights])
            for weight, value in weights:
                group.create_dataset(weight, data=value, **storage)


def _save_names(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """Write a list of names, split into several attributes if it is too long for one."""
    encoded = np.asarray([value.encode() for value in values])
    parts = 1
    while any(part.nbytes > _MAX_ATTRIBUTE_BYTES for part in np.array_split(encoded, parts)):
        parts += 1
    for number, part in enumerate(np.array_split(encoded, parts)):
        group.attrs[name if parts == 1 else f"{name}{number}"] = part
