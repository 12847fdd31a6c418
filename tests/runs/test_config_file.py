"""Tests of the config classes: reading, validation, former names of options."""

import json

import msgspec
import pytest

from ssd_jax.config import Config, Data, Detect, Optimizer, Train
from ssd_jax.errors import UserError
from ssd_jax.runs import config_file


def test_decode_config_translates_former_option_names():
    written = Config(
        data=Data(max_image_size=320),
        detect=Detect(top_k_per="map"),
        optimizer=Optimizer(adam_lr_multiplier=0.3, bias_lr_multiplier=1.5),
        train=Train(pretrained="runs/coco", backbone_only=True),
    )
    tree = json.loads(msgspec.json.encode(written))
    for old, new in config_file.RENAMED_OPTIONS.items():
        section, name = new.split(".")
        tree[section][old.split(".")[1]] = tree[section].pop(name)
    assert {"canvas", "root"} <= set(tree["data"]) and "max_image_size" not in tree["data"]
    assert config_file.decode_config(json.dumps(tree).encode()) == written


def test_decode_config_prefers_the_present_name():
    tree = {"data": {"canvas": 100, "max_image_size": 200}}
    assert config_file.decode_config(json.dumps(tree).encode()).data.max_image_size == 200


@pytest.mark.parametrize("text", ["[]", "5", '{"data": 5}', '{"data": [1]}', "{"])
def test_decode_config_rejects_other_json(text):
    with pytest.raises(UserError):
        config_file.decode_config(text.encode())
