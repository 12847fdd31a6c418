"""The entry point that all benchmark commands share."""

import sys
from collections.abc import Callable, Sequence

from ssd_jax.commands.main import warnings_on_stderr
from ssd_jax.errors import UserError


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Run ``main`` and exit with its code. A UserError prints its message and exits with 2."""
    try:
        with warnings_on_stderr():
            sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
