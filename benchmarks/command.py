"""What every benchmark's command does around its main."""

import sys
from collections.abc import Callable, Sequence

from ssd_jax.commands.main import warnings_on_screen
from ssd_jax.errors import UserError


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Ends the process with main's exit code, or with 2 and the message of a user's mistake."""
    try:
        with warnings_on_screen():
            sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
