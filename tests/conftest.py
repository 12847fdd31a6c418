"""Fixtures for all tests, and environment variables that have to be set before JAX is imported."""

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import network

# Most of the time of the tests is spent on compilation, so compiled programs are kept for the next run. The settings
# are environment variables, so that processes started by tests get them, too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Tests run each program only a few times, so optimizations of the compiler take more time than they save.
# `make test-all` sets this to 0, to test the programs as users run them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


network.refuse_other_machines()
if sys.platform == "win32":  # tests that make a named pipe are skipped
    os.mkfifo = lambda *_: pytest.skip("Windows has no named pipes in folders")  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def no_connection() -> Iterator[None]:
    """Fail a test in which this process tried to connect to another machine."""
    before = len(network.ATTEMPTS)
    yield
    assert network.ATTEMPTS[before:] == []


@pytest.fixture(scope="module")
def full_optimization() -> Iterator[None]:
    """Compile the programs of a module with all optimizations of the compiler."""
    import jax  # after the environment above is set

    disabled = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", disabled)


MAX_RESIDENT_BYTES = 2_200_000_000


@pytest.fixture(scope="module", autouse=True)
def release_compiled_programs() -> Iterator[None]:
    """Free the compiled programs after the tests of a module if the process has become large.

    Without this, two workers need more than 6 GB. Programs that are needed again are compiled again, so the programs
    of a small process are kept.
    """
    yield
    if "jax" in sys.modules and resident_bytes() > MAX_RESIDENT_BYTES:
        sys.modules["jax"].clear_caches()
        gc.collect()


def resident_bytes() -> int:
    """Return the memory that this process uses now, or 0 if the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session")
def bccd() -> Path:
    """Return a folder with 364 photographs of blood cells of three classes, in VOC layout.

    The data set is github.com/Shenggan/BCCD_Dataset.
    """
    folder = os.environ.get("SSD_JAX_TEST_DATA")
    if folder is None:
        pytest.skip("needs photographs: set SSD_JAX_TEST_DATA to a folder that contains bccd/")
    return Path(folder) / "bccd"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of tiny_config.py. Tests that change the run make a copy first.

    The first pytest-xdist worker that needs the run trains it; every worker gets its own copy.
    """
    from helpers.cli import TINY, run_command  # imports JAX, so the environment above has to be set before

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained_run"
    done = shared.with_name("trained_run.done")
    with FileLock(shared.with_name("trained_run.lock")):
        if not done.exists():
            shutil.rmtree(shared, ignore_errors=True)
            assert run_command("train", TINY, "--workdir", shared) == 0
            done.touch()
    return Path(shutil.copytree(shared, tmp_path_factory.mktemp("runs") / "tiny"))


@pytest.fixture
def make_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes empty files in the current folder, which is an empty one."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("", encoding="utf-8")

    return make
