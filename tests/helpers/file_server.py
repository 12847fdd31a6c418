"""A server on the loopback address that sends a file in many ways, also in wrong ones."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """A running server. ``url`` plus the name of a behavior is an address of the file.

    ``good``: sends the file, or the requested range. ``cut``: closes the connection in the middle of the first answer.
    ``cut_always``: closes every connection after a part. ``no_range``: as cut, and then always sends the whole file.
    ``stall``: stops in the middle of the first answer, but keeps the connection. ``busy``: answers 503 once.
    ``slow``: pauses several times. ``redirect``: redirects to good. ``redirect_to_file``: redirects to a file of this
    machine. ``refuse_range``: answers 416 to ranges.
    ``endless``: sends more and more. Everything else: status 404.
    """

    url: str
    content: bytes
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Behavior and header ``Range`` of each request."""


@contextmanager
def run_file_server(content: bytes) -> Iterator[FileServer]:
    """Run a server for a file during the ``with`` block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            behavior = self.path.split("/")[1]
            is_first = behavior not in [name for name, _ in server_state.requests]
            server_state.requests.append((behavior, self.headers["Range"]))
            if behavior == "redirect":
                self.send_answer(302, b"", Location=self.path.replace("redirect", "good"))
            elif behavior == "redirect_to_file":
                self.send_answer(302, b"", Location="file:///etc/hostname")
            elif behavior == "busy" and is_first:
                self.send_answer(503, b"later")
            elif behavior == "refuse_range" and self.headers["Range"]:
                self.send_answer(416, b"")
            elif behavior == "endless":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(content)
            elif behavior in ("good", "cut", "cut_always", "no_range", "stall", "busy", "slow", "refuse_range"):
                self.send_file(behavior, is_first)
            else:
                self.send_answer(404, b"<html>not here</html>")

        def send_response(self, *arguments: object) -> None:
            """Say that the connection closes; otherwise a client may send its next request into the closing one."""
            super().send_response(*arguments)
            self.send_header("Connection", "close")

        def send_file(self, behavior: str, is_first: bool) -> None:
            start = 0
            if self.headers["Range"] and behavior != "no_range":
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            rest = content[start:]
            is_cut = behavior == "cut_always" or (behavior in ("cut", "no_range", "stall") and is_first)
            sent = rest[: len(rest) // 2] if is_cut else rest
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            size = len(sent) // 4 + 1 if behavior == "slow" else max(1, len(sent))
            for position in range(0, len(sent), size):
                self.wfile.write(sent[position : position + size])
                self.wfile.flush()
                time.sleep(0.3 if behavior == "slow" else 0)
            if behavior == "stall" and is_first:
                time.sleep(1)

        def send_answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class QuietServer(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:  # a client that closes its connection is no error
            pass

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        server_state = FileServer(f"http://127.0.0.1:{server.server_port}/", content)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server_state
        finally:
            server.shutdown()
            thread.join()
