"""``python -m ssd_jax.aot``, as ``ssd-jax aot``."""

import os
import sys

from ssd_jax.__main__ import main
from ssd_jax.aot.quiet_compiler import without_chatter

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is missing without a GPU, and would be there with one
    with without_chatter():
        import jax  # noqa: F401  # by main, else, with a word for each library of CUDA that it does not find
    sys.exit(main(["aot", *sys.argv[1:]]))
