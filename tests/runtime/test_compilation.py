"""Tests of compiler options, of the compilation cache, and of the release of memory after compilations."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from helpers.fake_devices import make_fake_mesh

from ssd_jax.config import Model
from ssd_jax.runtime import compilation

COUNT_TRIMS = """
import ctypes
import jax
from ssd_jax.runtime import compilation

class Libc:
    def __init__(self, name): pass
    def malloc_trim(self, pad): print("trimmed")

ctypes.CDLL = Libc
compilation.release_compiler_memory()
compilation.release_compiler_memory()  # registers no second listener
events = []
jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: events.append(event))
jax.jit(lambda x: x + 1)(1).block_until_ready()
event = "/jax/core/compile/backend_compile_duration"
print("events", events.count(event))
jax.monitoring.record_event_duration_secs(event, 2.0)
jax.monitoring.record_event_duration_secs("/jax/another", 2.0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is a function of glibc")
def test_release_compiler_memory_trims_after_a_long_compilation():
    """The test also checks that JAX still records the compilation event, whose name is not documented."""
    result = subprocess.run([sys.executable, "-c", COUNT_TRIMS], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n") == ["events 1", "trimmed", ""]


@pytest.mark.parametrize(
    ("kind", "deterministic", "options"),
    [
        ("gpu", True, {"xla_gpu_deterministic_ops"}),
        ("cuda", True, {"xla_gpu_deterministic_ops"}),
        ("gpu", False, None),
        ("tpu", True, None),
    ],
)
def test_compiler_options_make_gpu_operations_deterministic_only_on_request(kind, deterministic, options):
    chosen = compilation.compiler_options(make_fake_mesh(platform=kind), deterministic=deterministic)
    assert chosen == options or set(chosen) == options


@pytest.mark.parametrize(("version", "has_options"), [((0, 10, 2), True), ((0, 9, 0), False), ((0, 11, 0), False)])
def test_compiler_options_of_a_cpu_are_set_only_for_jax_0_10(version, has_options, monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", version)
    options = compilation.compiler_options(make_fake_mesh())
    assert bool(options) == has_options
    assert options is None or options["xla_cpu_experimental_ynn_fusion_type"] == ""
    assert compilation.compiler_options() == options


@pytest.mark.parametrize(("width", "has_fusions"), [(0.1875, True), (0.5, True), (1.0, False)])
def test_detection_compiler_options_allow_convolution_fusions_only_in_narrow_networks(width, has_fusions, monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    options = compilation.detection_compiler_options(Model(width=width), make_fake_mesh())
    name = "xla_cpu_experimental_ynn_fusion_type"
    assert options == {k: v for k, v in compilation.compiler_options().items() if not (has_fusions and k == name)}
    assert compilation.detection_compiler_options(Model(width=width), make_fake_mesh(platform="tpu")) is None


@pytest.fixture
def restored_cache_folder() -> Iterator[None]:
    """Restore the folder of JAX's cache after the test."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("restored_cache_folder")
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME", "SSD_JAX_CACHE"])
def test_enable_compilation_cache_uses_a_subfolder_of_the_users_cache_folder(variable, tmp_path, monkeypatch):
    for other in ("XDG_CACHE_HOME", "SSD_JAX_CACHE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    cache = {"HOME": tmp_path / ".cache" / "ssd-jax", "XDG_CACHE_HOME": tmp_path / "ssd-jax"}.get(variable, tmp_path)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.enable_compilation_cache()
    assert Path(jax.config.jax_compilation_cache_dir) == cache / "compiled"
    jax.config.update("jax_compilation_cache_dir", "another")
    compilation.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == "another"


KEEP_SETTINGS = """
import os, pathlib, sys, warnings
import jax
from ssd_jax.runtime import compilation

warnings.simplefilter("error")
jax.jit(lambda x: x - 1)(1)  # as a notebook may do before
with compilation.compilation_cache(min_seconds=0.0) as folder:
    jax.jit(lambda x: x + 1)(1)
assert jax.config.jax_compilation_cache_dir is None
assert jax.config.jax_persistent_cache_min_compile_time_secs == 1
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 3)(1)
print(folder, len(list(folder.glob("jit_*-cache"))) if folder else None)
"""


@pytest.mark.parametrize("home", ["folder", "file"])
def test_compilation_cache_is_used_only_within_the_block(home, tmp_path):
    """In the second case, the cache folder cannot be created, so there is no cache."""
    (tmp_path / "file").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "SSD_JAX_CACHE"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / home), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", KEEP_SETTINGS], env=environment, capture_output=True, text=True, check=True
    )
    folder = tmp_path / home / "ssd-jax" / "compiled"
    assert result.stdout.split() == ([str(folder), "1"] if home == "folder" else ["None", "None"])


@pytest.mark.usefixtures("restored_cache_folder")
def test_folder_that_cannot_be_written_leads_to_one_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSD_JAX_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.enable_compilation_cache()
    (record,) = caplog.records
    assert "SSD_JAX_CACHE" in record.getMessage() and str(tmp_path) in record.getMessage()
