"""Fixtures with random weights of SSD300, and the result of importing them."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import helpers.published_keys as published
import pytest
from helpers.cli import run_command
from helpers.published_files import WIDTH, save_safetensors
from helpers.published_keys import Tensors

from ssd_jax.weights.importing import Imported, import_weights


@pytest.fixture
def memory_trace() -> Iterator[ModuleType]:
    """Return the module tracemalloc. A trace that the test starts ends with the test, also if the test fails."""
    yield tracemalloc
    tracemalloc.stop()


@pytest.fixture(scope="session")
def ssd300() -> Tensors:
    """Return the state dict of a narrow SSD300 for VOC with the keys of ssd.pytorch."""
    return published.make_random_ssd_pytorch(6, 21, WIDTH)


@pytest.fixture(scope="session")
def imported_ssd300(ssd300, tmp_path_factory) -> Imported:
    """Return the imported weights of the fixture ``ssd300``."""
    return import_weights(save_safetensors(tmp_path_factory.mktemp("weights") / "ssd300.safetensors", ssd300))


@pytest.fixture(scope="session")
def imported_run(ssd300, tmp_path_factory) -> Path:
    """Return the folder of a run that the command import-weights makes from the fixture ``ssd300``."""
    folder = tmp_path_factory.mktemp("imported")
    assert (
        run_command("import-weights", save_safetensors(folder / "voc.safetensors", ssd300), "--out", folder / "run")
        == 0
    )
    return folder / "run"
