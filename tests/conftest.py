"""Fixtures of all tests: a cache of compiled functions, a trained run, and real photographs."""

import os
from pathlib import Path

import pytest

# Most of the time of the tests is compilation, which the cache avoids in a second run. It is set before jax is
# imported, and in the environment, so that processes started by tests use it as well.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


@pytest.fixture(scope="session")
def bccd() -> Path:
    """Return a VOC folder with 364 photographs of blood cells in three classes: github.com/Shenggan/BCCD_Dataset."""
    folder = os.environ.get("SSD_JAX_TEST_DATA")
    if folder is None:
        pytest.skip("needs real photographs: set SSD_JAX_TEST_DATA to a folder that contains bccd/")
    return Path(folder) / "bccd"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of tiny_config.py. Tests that change it must use a copy."""
    from helpers.cli import TINY, command  # imported here, because it imports jax

    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert command("train", TINY, "--workdir", run) == 0
    return run
