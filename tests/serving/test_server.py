"""Tests of the server on real connections."""

import contextlib
import signal
import socket
import sys
import threading
import time

import pytest
from helpers.http_servers import exchange_bytes, serve_in_thread
from starlette.responses import PlainTextResponse

from ssd_jax.errors import UserError
from ssd_jax.optional_packages import import_package
from ssd_jax.serving.limits import ConnectionLimits
from ssd_jax.serving.packages import check_can_serve
from ssd_jax.serving.server import format_url, open_listener, run_server

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
hello = PlainTextResponse("hello")


def test_open_listener_names_port_in_use_in_one_line():
    with contextlib.closing(open_listener("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=rf"127\.0\.0\.1, port {port}.*--port") as caught:
            open_listener("127.0.0.1", port)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("127.0.0.1", -1), ("no.such.host.invalid", 0)])
def test_open_listener_refuses_wrong_addresses(host: str, port: int):
    with pytest.raises(UserError, match="--port"):
        open_listener(host, port)


def test_format_url_puts_ipv6_addresses_in_brackets():
    class Listener(socket.socket):
        def getsockname(self) -> tuple:
            return "::1", 8000, 0, 0

    with Listener() as listener:
        assert format_url(listener) == "http://[::1]:8000"


def test_run_server_prints_its_address_and_ends_at_ctrl_c_after_the_request_under_way(capsys):
    answers = []

    async def app(scope, receive, send):
        if scope["type"] == "http":
            signal.raise_signal(signal.SIGINT)  # in the main thread, where the server runs
            await hello(scope, receive, send)
        else:
            await send({"type": f"{(await receive())['type']}.complete"})
            with contextlib.suppress(RuntimeError):
                await send({"type": f"{(await receive())['type']}.complete"})

    with contextlib.closing(open_listener("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def request():
        for _ in range(100):
            with contextlib.suppress(ConnectionRefusedError):
                answers.append(exchange_bytes(port, REQUEST + b"\r\n"))
                return
            time.sleep(0.05)

    thread = threading.Thread(target=request)
    thread.start()
    run_server(app, "127.0.0.1", port, title="Testing")
    thread.join(5)
    assert answers and answers[0].endswith(b"hello")
    assert capsys.readouterr().out == f"Testing at http://127.0.0.1:{port} (Ctrl-C stops it)\n"


def test_server_does_not_name_itself():
    with serve_in_thread(hello) as port:
        answer = exchange_bytes(port, REQUEST + b"Connection: close\r\n\r\n").lower()
    assert answer.endswith(b"hello") and b"uvicorn" not in answer


def test_server_refuses_long_headers():
    with serve_in_thread(hello, ConnectionLimits(head_bytes=2000, stop_seconds=2)) as port:
        long = exchange_bytes(port, REQUEST + b"X: " + b"x" * 3000)
        short = exchange_bytes(port, REQUEST + b"Connection: close\r\nX: " + b"x" * 1000 + b"\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 400") and short.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("start", [b"", b"GET / HT", REQUEST])
def test_server_closes_connections_whose_headers_are_slow(start: bytes):
    with serve_in_thread(hello, ConnectionLimits(head_seconds=0.2, stop_seconds=2)) as port:
        started = time.monotonic()
        assert exchange_bytes(port, start) == b""
        assert 0.1 < time.monotonic() - started < 3


def test_server_closes_connections_whose_second_request_is_slow():
    with (
        serve_in_thread(hello, ConnectionLimits(head_seconds=0.2, stop_seconds=2)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
    ):
        connection.sendall(REQUEST + b"\r\n")
        while not connection.recv(65536).endswith(b"hello"):
            pass
        connection.sendall(b"GET / HTTP")
        assert connection.recv(65536) == b""


def test_server_closes_connections_that_go_on_sending_after_their_answer():
    with serve_in_thread(hello, ConnectionLimits(head_seconds=0.2, stop_seconds=2)) as port:
        answer = exchange_bytes(port, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nabc")
    assert answer.endswith(b"hello")


def test_server_closes_connections_that_do_not_read_their_answer():
    size = 20_000_000
    with (
        serve_in_thread(PlainTextResponse(b"x" * size), ConnectionLimits(idle_seconds=1, stop_seconds=2)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
    ):
        connection.sendall(REQUEST + b"\r\n")
        time.sleep(1.3)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1_000_000):
                received += len(part)
        assert received < size
        assert len(exchange_bytes(port, REQUEST + b"Connection: close\r\n\r\n")) > size, "to a client that reads"


def test_server_answers_503_when_there_are_too_many_connections():
    with (
        serve_in_thread(hello, ConnectionLimits(connections=2, stop_seconds=2)) as port,
        socket.create_connection(("127.0.0.1", port)),
    ):
        time.sleep(0.1)
        assert exchange_bytes(port, REQUEST + b"\r\n").startswith(b"HTTP/1.1 503")


def test_limits_must_be_positive():
    with pytest.raises(UserError, match="--head-seconds is 0"):
        ConnectionLimits(head_seconds=0).check()


def test_missing_package_is_reported_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"uvicorn.*ssd-jax\[serve\]"):
        check_can_serve()
    assert import_package("starlette", "serve")
