"""What a command sets for its process, in processes of their own."""

import platform
import subprocess
import sys

import pytest

COUNT_TRIMS = """
import ctypes
import jax
from ssd_jax.runtime import compilation
from ssd_jax.runtime import sharding

class Libc:
    def __init__(self, name): pass
    def malloc_trim(self, pad): print("trimmed")

ctypes.CDLL = Libc
compilation.release_compiler_memory()
compilation.release_compiler_memory()  # once is enough
heard = []
jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: heard.append(event))
jax.jit(lambda x: x + 1)(1).block_until_ready()
event = "/jax/core/compile/backend_compile_duration"
print("heard", heard.count(event))
jax.monitoring.record_event_duration_secs(event, 2.0)
jax.monitoring.record_event_duration_secs("/jax/another", 2.0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_the_memory_of_a_long_compilation_is_given_back():
    """And JAX still tells of one under that name, which it does not promise."""
    result = subprocess.run([sys.executable, "-c", COUNT_TRIMS], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n") == ["heard 1", "trimmed", ""]
