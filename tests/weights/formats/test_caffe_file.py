"""Tests of reading .caffemodel files: both formats of layers, both formats of blobs, default boxes, corrupt files."""

import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import weight_writers
from helpers.damage import count_rejected, make_damaged_copies
from helpers.weight_writers import SSD300_PRIOR, encode_caffemodel, encode_message

from ssd_jax.errors import UserError
from ssd_jax.weights.formats import caffe_file
from ssd_jax.weights.formats.caffe_file import CaffeNet, PriorBox, read_caffe

RANDOM = np.random.default_rng(0)


def make_random_array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


LAYERS = [
    ("conv1_1", "Convolution", [make_random_array(4, 3, 3, 3), make_random_array(4)]),
    ("relu1_1", "ReLU", []),
    ("fc6", "InnerProduct", [make_random_array(5, 12), make_random_array(5)]),
    ("conv4_3_norm", "Normalize", [make_random_array(4)]),
    ("conv6_1", "Convolution", [make_random_array(1, 1, 1, 1), make_random_array(1)]),
]
V1_LAYERS = [layer for layer in LAYERS if layer[1] != "Normalize"]
PRIORS = {"fc7_mbox_priorbox": SSD300_PRIOR}


def read_net(folder: Path, data: bytes) -> CaffeNet:
    """Write bytes to a file, and return the network that read_caffe reads from the file."""
    file = folder / "net.caffemodel"
    file.write_bytes(data)
    return read_caffe(file)


def assert_contains(net: CaffeNet, layers: list[tuple[str, str, list[np.ndarray]]]) -> None:
    """Assert that a network has exactly the blobs of the given layers, as float32."""
    expected = {f"{name}.{number}": blob for name, _, blobs in layers for number, blob in enumerate(blobs)}
    assert list(net.tensors) == list(expected)
    for name, blob in expected.items():
        assert net.tensors[name].dtype == np.float32 and net.tensors[name].flags.writeable
        np.testing.assert_array_equal(net.tensors[name], blob, strict=True)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("four_axes", [True, False])
@pytest.mark.parametrize("v1", [True, False])
def test_read_caffe_reads_every_encoding_of_blobs(
    tmp_path: Path, v1: bool, four_axes: bool, double: bool, packed: bool
):
    layers = V1_LAYERS if v1 else LAYERS
    data = encode_caffemodel(layers, v1=v1, four_axes=four_axes, double=double, packed=packed)
    assert_contains(read_net(tmp_path, data), layers)


def test_read_caffe_reads_both_layer_formats_in_one_file(tmp_path: Path):
    old, new = encode_caffemodel(V1_LAYERS[:1], v1=True), encode_caffemodel(LAYERS[2:])
    assert_contains(read_net(tmp_path, old + new), [LAYERS[0], *LAYERS[2:]])


def test_read_caffe_reads_handwritten_bytes(tmp_path: Path):
    """A convolution "c" with the weight 1 and the bias -2 was encoded by hand, following protobuf's manual."""
    weight = b"\x2a\x04\x00\x00\x80\x3f" + b"\x3a\x06\x0a\x04\x01\x01\x01\x01"  # fields 5 and 7: data and shape
    bias = b"\x2a\x04\x00\x00\x00\xc0" + b"\x08\x01\x10\x01\x18\x01\x20\x01"  # fields 1 to 4: the legacy shape
    layer = b"\x0a\x01c" + b"\x12\x0bConvolution" + b"\x3a\x0e" + weight + b"\x3a\x0e" + bias
    net = read_net(tmp_path, b"\xa2\x06" + bytes([len(layer)]) + layer)
    assert net.tensors["c.0"].shape == (1, 1, 1, 1) and net.tensors["c.0"] == 1
    assert net.tensors["c.1"].tolist() == [-2]


def test_read_caffe_reads_a_scale_shared_by_channels_with_one_axis(tmp_path: Path):
    net = read_net(tmp_path, encode_caffemodel([("norm", "Normalize", [np.float32(20).reshape(())])]))
    assert net.tensors["norm.0"].tolist() == [20]


def test_read_caffe_converts_doubles_beyond_the_range_of_float32_to_infinity(tmp_path: Path):
    net = read_net(tmp_path, encode_caffemodel([("a", "Convolution", [np.full((1, 1, 1, 1), 1e300)])], double=True))
    assert net.tensors["a.0"] == np.inf


def test_read_caffe_skips_unknown_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every message has unknown fields, as in other forks of Caffe: a varint, a double, bytes, a group and a float."""
    unknown = b"\xc8\xbb\x03\x96\x01" + b"\xc9\xbb\x03eightbyt" + b"\xca\xbb\x03\x03abc"
    unknown += b"\xcb\xbb\x03\x08\x01\xcc\xbb\x03" + b"\xcd\xbb\x03four"
    plain = weight_writers.encode_message
    monkeypatch.setattr(weight_writers, "encode_message", lambda *args: unknown + plain(*args) + unknown)
    net = read_net(tmp_path, encode_caffemodel(LAYERS, PRIORS))
    assert_contains(net, LAYERS)
    assert net.priors["fc7_mbox_priorbox"].step == 16


def test_read_caffe_uses_the_last_value_of_a_field_set_twice(tmp_path: Path):
    prior = encode_message("PriorBoxParameter", {"min_size": [30.0], "step": 8.0}) + encode_message(
        "PriorBoxParameter", {"step": 16.0}
    )
    layer = encode_message("LayerParameter", {"name": "prior", "type": "PriorBox", "prior_box_param": prior})
    net = read_net(tmp_path, encode_caffemodel(LAYERS) + encode_message("NetParameter", {"layer": [layer]}))
    assert net.priors["prior"].step == 16


# ---- default boxes ----


def read_stored_prior(folder: Path, **settings: Any) -> PriorBox:
    """Write a file with a PriorBox layer of the given settings, and return the settings that read_caffe reads."""
    return read_net(folder, encode_caffemodel(LAYERS, {"prior": settings})).priors["prior"]


def test_read_caffe_reads_default_boxes(tmp_path: Path):
    net = read_net(tmp_path, encode_caffemodel(LAYERS, PRIORS))
    expected = PriorBox((60.0,), (111.0,), (2.0, 3.0), True, False, (0.1, 0.1, 0.2, 0.2), 16.0, 0.5)
    assert net.priors == {"fc7_mbox_priorbox": expected}, (
        "the numbers are decimal numbers, although float32 cannot represent 0.1"
    )
    assert_contains(net, LAYERS)


def test_read_caffe_uses_the_defaults_of_caffe_for_missing_default_box_settings(tmp_path: Path):
    """Caffe's defaults are flip = true, clip = false, offset = 0.5 and variance = 0.1."""
    assert read_stored_prior(tmp_path, min_size=[35.84]) == PriorBox(
        (35.84,), (), (), True, False, (0.1,) * 4, None, 0.5, None
    )


def test_read_caffe_accepts_equal_default_box_settings_for_height_and_width(tmp_path: Path):
    prior = read_stored_prior(
        tmp_path,
        min_size=[1.0, 2.0],
        variance=[0.25],
        step_h=8.0,
        step_w=8.0,
        img_h=300,
        img_w=300,
        clip=True,
        flip=False,
    )
    assert prior == PriorBox((1.0, 2.0), (), (), False, True, (0.25,) * 4, 8.0, 0.5, 300)
    assert read_stored_prior(tmp_path, min_size=[1.0], img_size=512).image_size == 512


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"min_size": [0.0]},
        {"min_size": [-30.0]},
        {"min_size": [math.nan]},
        {"min_size": [math.inf]},
        {"min_size": [30.0], "max_size": [60.0, 111.0]},
        {"min_size": [30.0], "aspect_ratio": [0.0]},
        {"min_size": [30.0], "variance": [0.1, 0.2]},
        {"min_size": [30.0], "variance": [0.1, 0.1, 0.2, -0.2]},
        {"min_size": [30.0], "offset": math.nan},
        {"min_size": [30.0], "step": 0.0},
        {"min_size": [30.0], "step": 8.0, "step_h": 8.0, "step_w": 8.0},
        {"min_size": [30.0], "step_h": 8.0, "step_w": 16.0},
        {"min_size": [30.0], "step_h": 8.0},
        {"min_size": [30.0], "img_size": 0},
        {"min_size": [30.0], "img_h": 300, "img_w": 500},
    ],
)
def test_read_caffe_rejects_invalid_default_boxes(tmp_path: Path, settings: dict[str, Any]):
    with pytest.raises(UserError, match=r"net\.caffemodel: .*'prior'"):
        read_stored_prior(tmp_path, **settings)


# ---- invalid files ----


def make_caffemodel_with_blob(blob: bytes) -> bytes:
    """Return the bytes of a .caffemodel file with one convolution that has a single encoded blob."""
    layer = encode_message("LayerParameter", {"name": "conv", "type": "Convolution", "blobs": [blob]})
    return encode_message("NetParameter", {"layer": [layer]})


def make_caffemodel_with_shape(*dim: int, value_count: int = 4) -> bytes:
    """Return the bytes of a .caffemodel file with one blob that declares a shape but has ``value_count`` values."""
    fields = {"data": np.zeros(value_count), "shape": encode_message("BlobShape", {"dim": list(dim)})}
    return make_caffemodel_with_blob(encode_message("BlobProto", fields))


V0 = encode_message(
    "V1LayerParameter", {"layer": encode_message("V0LayerParameter", {"name": "conv1", "type": "conv"})}
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no layer with weights"),
        (b"layer {\n  name: 'conv1_1'\n}\n", "corrupt"),
        (b"<!DOCTYPE html><html></html>", "corrupt"),
        (encode_caffemodel(LAYERS)[:-1], "corrupt"),
        (encode_caffemodel([("relu", "ReLU", [])], PRIORS), "no layer with weights"),
        (encode_message("NetParameter", {"layers": [V0]}), "upgrade_net_proto_binary"),
        (encode_caffemodel(LAYERS) + encode_caffemodel(LAYERS), "two layers .*'conv1_1'"),
        (encode_caffemodel([("a\nb", "ReLU", [make_random_array(1)])]), "unprintable"),
        (make_caffemodel_with_shape(2, 3), r"'conv.0' has the shape \(2, 3\), but 4 values"),
        (make_caffemodel_with_shape(-2, -2), r"\(-2, -2\)"),
        (make_caffemodel_with_shape(0, value_count=0), r"\(0,\), but 0 values"),
        (make_caffemodel_with_shape(1 << 62, 1 << 62), "but 4 values"),
        (make_caffemodel_with_shape(*[1] * 65, value_count=1), "corrupt"),
        (make_caffemodel_with_blob(encode_message("BlobProto", {"data": np.zeros(4), "num": 4})),
         r"\(4, 0, 0, 0\), but 4 values"),
        (make_caffemodel_with_blob(encode_message("BlobProto", {"data": np.zeros(4)})), r"\(\), but 4 values"),
        (make_caffemodel_with_blob(b"\x2a\x03abc"), "corrupt"),
    ],
)  # fmt: skip
def test_read_caffe_rejects_invalid_files(tmp_path: Path, data: bytes, message: str):
    with pytest.raises(UserError, match=r"net\.caffemodel: .*" + message):
        read_net(tmp_path, data)


def test_read_caffe_rejects_a_missing_file_and_a_folder(tmp_path: Path):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'gone.caffemodel'}: no such file")):
        read_caffe(tmp_path / "gone.caffemodel")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        read_caffe(tmp_path)


@pytest.mark.parametrize("count", [48, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("v1", [False, True])
def test_read_caffe_reads_or_rejects_corrupt_files(memory_trace: ModuleType, tmp_path: Path, v1: bool, count: int):
    good = encode_caffemodel(V1_LAYERS if v1 else LAYERS, PRIORS, v1)
    memory_trace.start()
    refused = count_rejected(
        lambda file: read_caffe(file).tensors, tmp_path / "net.caffemodel", make_damaged_copies(good, count, seed=v1)
    )
    _, peak = memory_trace.get_traced_memory()
    assert count // 5 < refused < count and peak < 10_000_000


def test_schema_has_the_published_field_numbers_and_defaults():
    """Every field of the reader's schema is compared with the excerpt of caffe.proto in the assets."""
    published = weight_writers.read_proto()
    text = weight_writers.PROTO.read_text(encoding="utf-8")
    messages = re.findall(r"message (\w+) \{(.*?)\}", caffe_file._SCHEMA, re.DOTALL)
    assert len(messages) == 6
    for message, body in messages:
        lines = [line.strip() for line in body.splitlines() if line.strip()]
        for line in lines:
            name, number = re.search(r"(\w+) = (\d+)", line).groups()
            assert published[message][name][1] == int(number), f"{message}.{name}"
            if "default" in line:
                assert line in text
    net = caffe_file._make_net_class()
    assert len(net.DESCRIPTOR.fields) == 2, "every line of the schema is parsed"
    assert (
        len(net.DESCRIPTOR.fields_by_name["layer"].message_type.fields_by_name["prior_box_param"].message_type.fields)
        == 13
    )
