"""Run an ASGI app on a free port of the loopback address."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from starlette.types import ASGIApp

from ssd_jax.serving.limits import ConnectionLimits
from ssd_jax.serving.server import make_server, open_listener


@contextlib.contextmanager
def serve_in_thread(app: ASGIApp, limits: ConnectionLimits | None = None) -> Iterator[int]:
    """Serve an app in a thread during the ``with`` block, and yield the port."""
    server = make_server(app, limits or ConnectionLimits(stop_seconds=2))
    with contextlib.closing(open_listener("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def exchange_bytes(port: int, data: bytes, seconds: float = 5) -> bytes:
    """Send bytes to a server on the loopback address, and return all that it answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(data)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)
