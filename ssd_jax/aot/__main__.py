"""``python -m ssd_jax.aot``: the command ``ssd-jax aot`` without JAX's messages about missing accelerators."""

import os
import sys

from ssd_jax.__main__ import main
from ssd_jax.runtime.quiet_stderr import suppress_stderr

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hides warnings about a missing GPU
    with suppress_stderr():
        import jax  # noqa: F401  # main imports jax, too, but would show a message for each missing CUDA library
    sys.exit(main(["aot", *sys.argv[1:]]))
