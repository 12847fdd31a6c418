"""Run an ASGI app on an address until Ctrl-C."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ssd_jax.errors import UserError, convert_errors, format_error_reason
from ssd_jax.serving.limits import ConnectionLimits

_DEFAULT_LIMITS = ConnectionLimits()


def run_server(
    app: ASGIApp, host: str, port: int, *, title: str = "Serving", limits: ConnectionLimits = _DEFAULT_LIMITS
) -> None:
    """Serve an app until Ctrl-C or SIGTERM. The requests under way are then finished.

    The address is printed as soon as connections are accepted.

    Args:
        app: The app. `ssd_jax.serving.protection.protect` should have been applied to it.
        host: Host name or IP address to listen on.
        port: Port to listen on. 0 means any free one.
        title: Words before the address in the line that is printed.
        limits: Limits of the connections.

    Raises:
        UserError: If the address cannot be used.
    """
    with contextlib.closing(open_listener(host, port, limits.connections)) as listener:
        print(f"{title} at {format_url(listener)} (Ctrl-C stops it)")
        with _ended_by_signals():
            make_server(app, limits).run(sockets=[listener])


def open_listener(host: str, port: int, backlog: int = _DEFAULT_LIMITS.connections) -> socket.socket:
    """Return a socket that listens on an address.

    Args:
        host: Host name or IP address.
        port: Port. 0 means any free one.
        backlog: Number of connections that wait until they are accepted.

    Raises:
        UserError: If the address cannot be used, for example because another program uses it.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}: expected a number from 0 to 65535")
    advice = "Choose another --port (0 for any free one) or --host"
    problem = f"can't listen on {host}, port {port}"
    with convert_errors(problem, advice, catch=(OSError, UnicodeError), reason=_describe_reason):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)


def _describe_reason(error: Exception) -> str:
    return format_error_reason(error).partition(" (while")[0]  # Python repeats the address


def format_url(listener: socket.socket) -> str:
    """Return the address of a listening socket, such as http://127.0.0.1:8000."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp, limits: ConnectionLimits = _DEFAULT_LIMITS) -> uvicorn.Server:
    """Return a server of an app, which is not started yet.

    It prints only the tracebacks of errors in the app. It reveals neither its name nor its version.
    """
    config = uvicorn.Config(
        app,
        http=_make_protocol(limits.head_seconds, limits.idle_seconds),
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        backlog=limits.connections,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=limits.stop_seconds,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    return uvicorn.Server(config)


def _make_protocol(head_seconds: float, idle_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol, which also closes a connection that is too slow.

    It has some seconds for the headers of a request, and as many for the rest of a body that was answered before its
    end. Many clients read such an answer only when they have sent everything. A connection that does not read its
    answer is closed like one without a request.
    """

    class Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # so that pause_writing is called for every answer that waits
            self._update_timer()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_timer = self.loop.call_later(idle_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
            super().resume_writing()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._update_timer()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                self._update_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel_timer()
            if self._write_timer is not None:
                self._write_timer.cancel()
            super().connection_lost(exc)

        def _is_timed(self) -> bool:
            is_answered = self.cycle is not None and self.cycle.response_complete
            return self.conn.their_state is h11.IDLE or (self.conn.their_state is h11.SEND_BODY and is_answered)

        def _update_timer(self) -> None:
            if not self._is_timed():
                self._cancel_timer()
            elif self._timer is None:
                self._timer = self.loop.call_later(head_seconds, self._close_if_timed)

        def _cancel_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _close_if_timed(self) -> None:
            self._timer = None
            if self._is_timed():
                self.transport.close()

    return Protocol


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the ``with`` block without an error.

    After its shutdown, uvicorn raises the signal again that it received.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows signal handlers only there
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)
