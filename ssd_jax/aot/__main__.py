"""``python -m ssd_jax.aot`` is ``ssd-jax aot`` without the messages of missing accelerators."""

import os
import sys

from ssd_jax.__main__ import main
from ssd_jax.aot.quiet_compiler import suppress_stderr

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # hide warnings about a missing GPU
    with suppress_stderr():
        import jax  # noqa: F401  # main imports it, too, but would show a message for each missing library of CUDA
    sys.exit(main(["aot", *sys.argv[1:]]))
