"""The entry point that all benchmark commands share."""

import sys
from collections.abc import Callable, Sequence

from ssd_jax.commands.main import print_warnings_to_stderr
from ssd_jax.errors import UserError


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Run ``main`` with the command-line arguments, and exit with its return value.

    If ``main`` raises a UserError, print its message and exit with 2.
    """
    try:
        with print_warnings_to_stderr():
            sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
