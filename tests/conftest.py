"""What every test finds in place: compiled functions kept between runs, and the real photographs."""

import os
from pathlib import Path

import pytest

# Before jax is imported, and in the environment, so that programs started by tests have it too.
# Most of the suite's time is compilation; in a second run these are read from disk.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


@pytest.fixture(scope="session")
def bccd() -> Path:
    """364 photographs of blood cells in VOC layout, three classes: github.com/Shenggan/BCCD_Dataset."""
    folder = os.environ.get("SSD_JAX_TEST_DATA")
    if folder is None:
        pytest.skip("needs real photographs: SSD_JAX_TEST_DATA does not name a folder that holds bccd/")
    return Path(folder) / "bccd"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of tiny_config.py from its first step to its last, for all to read; who changes it takes a copy."""
    from helpers.cli import TINY, command  # jax is imported only now, with the environment above

    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert command("train", TINY, "--workdir", run) == 0
    return run
