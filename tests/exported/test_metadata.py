"""Tests of the metadata of exported files."""

import json
from pathlib import Path

import msgspec
import pytest
from helpers.tiny_detector import CONFIG

import ssd_jax
from ssd_jax.errors import UserError
from ssd_jax.exported.metadata import Parity, Source, decode_metadata, encode_metadata, make_metadata
from ssd_jax.runs.config_file import build_config

FILE = Path("some.file")
SOURCE = Source(name="caf\udce9", step=3)
METADATA = make_metadata("onnx", CONFIG, SOURCE, batch=2, weights="float16", jax_version="1.2")


def test_metadata_are_decoded_as_they_were_encoded():
    parity = Parity(pictures=8, detections=90, boxes=0.01, scores=1e-6, logits=1e-5)
    metadata = msgspec.structs.replace(METADATA, parity=parity)
    text = encode_metadata(metadata)
    assert decode_metadata(text, FILE) == metadata and text.isascii()
    assert decode_metadata(text.encode(), FILE) == metadata


def test_metadata_contain_what_a_reader_needs():
    tree = json.loads(encode_metadata(METADATA))
    assert tree["format_version"] == 1 and tree["class_names"] == ["a", "b"] and tree["batch"] == 2
    assert (tree["image_size"], tree["max_image_size"], tree["source"]["step"]) == (32, 64, 3)
    assert tree["writer"] == f"ssd-jax {ssd_jax.__version__}" and "BILINEAR" in tree["reduction"]
    assert build_config(tree["config"]) == CONFIG


def test_decode_metadata_names_both_versions_of_an_unknown_format():
    tree = json.loads(encode_metadata(METADATA)) | {"format_version": 9, "writer": "ssd-jax 7.1"}
    with pytest.raises(UserError, match=rf"some.file: .*9.*ssd-jax 7.1.* {ssd_jax.__version__}.*Export") as error:
        decode_metadata(json.dumps(tree), FILE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", b"\xff\xfe", "[" * 100_000, "{}", '{"format_version": "1"}', '{"format_version": 1}']
)
def test_decode_metadata_rejects_damaged_metadata_in_one_line(text: str | bytes):
    with pytest.raises(UserError, match=r"^some.file: its metadata are damaged") as error:
        decode_metadata(text, FILE)
    assert "\n" not in str(error.value)
