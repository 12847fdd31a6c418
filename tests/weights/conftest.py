"""Fixtures with imported weights."""

from pathlib import Path

import helpers.published_keys as published
import pytest
from helpers.cli import command
from helpers.published_files import WIDTH, save
from helpers.published_keys import Tensors

from ssd_jax.weights.importing import Imported, import_weights


@pytest.fixture(scope="session")
def ssd300() -> Tensors:
    return published.random_ssd_pytorch(6, 21, WIDTH)


@pytest.fixture(scope="session")
def imported(ssd300, tmp_path_factory) -> Imported:
    return import_weights(save(tmp_path_factory.mktemp("weights") / "ssd300.safetensors", ssd300))


@pytest.fixture(scope="session")
def run(ssd300, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    assert command("import-weights", save(folder / "voc.safetensors", ssd300), "--out", folder / "run") == 0
    return folder / "run"
