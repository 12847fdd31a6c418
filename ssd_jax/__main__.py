"""``ssd-jax`` and ``python -m ssd_jax``."""

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    # TensorFlow-free libraries below still log through absl; warnings are for those who ask.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    argv = sys.argv[1:] if argv is None else argv
    try:
        from ssd_jax.commands.main import main as run_command  # here: seconds, in which Ctrl-C is for us too

        return run_command(argv)
    except KeyboardInterrupt:
        goes_on = (
            " The same command goes on from the last checkpoint, if there is one." if argv[:1] == ["train"] else ""
        )
        print(f"\nStopped.{goes_on}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
