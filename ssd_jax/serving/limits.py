"""Limits of an HTTP server: what it accepts, and how long it waits."""

import dataclasses
from dataclasses import dataclass

from ssd_jax.errors import UserError


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of the connections of any server."""

    connections: int = 256
    """Connections at the same time. Requests on further ones are answered with status 503."""
    head_bytes: int = 16_384
    """Bytes of the request line and the headers of a request. Longer ones are answered with status 400."""
    head_seconds: float = 10
    """Seconds until the headers of a request must be complete. A connection that is slower is closed."""
    idle_seconds: int = 30
    """Seconds that a connection stays open without a request."""
    stop_seconds: int = 10
    """Seconds that the requests under way have to finish after Ctrl-C."""

    def check(self) -> None:
        """Raise an error if a limit is not positive.

        Raises:
            UserError: If a limit is zero or negative. The message names its option.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value > 0:
                raise UserError(f"--{field.name.replace('_', '-')} is {value}: expected a positive number")
