"""``ssd-jax`` and ``python -m ssd_jax``."""

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    # TensorFlow-free libraries below still log through absl; warnings are for those who ask.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from ssd_jax import commands

    return commands.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
