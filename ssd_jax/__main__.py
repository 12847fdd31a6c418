"""Entry point of ``ssd-jax`` and of ``python -m ssd_jax``."""

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code.

    Args:
        argv: Arguments after ``ssd-jax``. None: the arguments of the process.
    """
    # XLA prints its warnings unless this is set before it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    argv = sys.argv[1:] if argv is None else argv
    try:
        # Imported here, so that Ctrl-C during the imports is handled as well.
        from ssd_jax.commands.main import main as run_command

        code = run_command(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of the pipe, such as `head`, has closed it. Without this redirection, the interpreter would fail
        # again when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        advice = " The same command resumes from the last checkpoint, if there is one." if argv[:1] == ["train"] else ""
        print(f"\nStopped.{advice}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
