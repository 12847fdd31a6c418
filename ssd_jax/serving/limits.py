"""Settings of an HTTP server: what it accepts, how long it waits, and how it batches requests together."""

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
    """Seconds until the headers of a request must be complete, and for the rest of a body that was answered before its
    end. A connection that is slower is closed."""
    idle_seconds: int = 30
    """Seconds that a connection stays open without a request, or without reading its answer."""
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


@dataclass(frozen=True)
class Limits(ConnectionLimits):
    """Limits of a server that detects objects."""

    body_bytes: int = 32_000_000
    """Bytes of the body of a request: of an image file, or of all files of a form. Larger ones get status 413."""
    body_seconds: float = 30
    """Seconds until the body of a request must be complete. Slower ones get status 408."""
    files: int = 16
    """Files of a form. A request with more gets status 413."""
    pixels: int = 50_000_000
    """Pixels of an image. A larger one gets status 413 before it is decoded."""
    waiting: int = 64
    """Images that are decoded, or wait for the network, at the same time. Requests with further ones get status 503."""
    held_bytes: int = 256_000_000
    """Bytes of the bodies of all requests that are in memory at the same time. Further requests get status 503."""

    def check(self) -> None:
        super().check()
        if self.waiting < self.files:
            raise UserError(f"--waiting is {self.waiting}: expected at least --files, which is {self.files}")
        if self.held_bytes < self.body_bytes:
            raise UserError(
                f"--held-bytes is {self.held_bytes}: expected at least --body-bytes, which is {self.body_bytes}"
            )


@dataclass(frozen=True)
class Batching:
    """How requests are batched together."""

    batch: int | None = None
    """Number of images in which objects are detected at the same time. Default: depends on the device."""
    wait_ms: float = 5
    """Milliseconds for which a batch that is not full waits for further images. On a CPU, a network of JAX takes its
    images one by one in several threads, and none waits."""

    def check(self) -> None:
        """Raise an error if a value is outside of its range.

        Raises:
            UserError: If it is. The message names the option.
        """
        if self.batch is not None and self.batch < 1:
            raise UserError(f"--batch is {self.batch}: expected a number of at least 1")
        if not 0 <= self.wait_ms <= 1000:
            raise UserError(f"--wait-ms is {self.wait_ms:g}: expected a number from 0 to 1000")
