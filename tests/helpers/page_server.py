"""A server on the loopback address for the page with a detector: files from a dict, and answers to pictures."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
    "wasm": "application/wasm",
}


@contextmanager
def run_page_server(
    files: dict[str, bytes],
    detect: Callable[[bytes], tuple[int, bytes]] | None = None,
    headers: dict[str, str] | None = None,
) -> Iterator[str]:
    """Run a server during the ``with`` block, and yield its address.

    Args:
        files: Content of each file by its path. It may be changed while the server runs.
        detect: Function from the body of a POST request to the status and the body of the answer.
        headers: Headers of all answers.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].removeprefix("/")
            name = f"{name}index.html" if name == "" or name.endswith("/") else name
            self.send_answer(*((200, files[name], name) if name in files else (404, b"not here", "")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert detect is not None
            self.send_answer(*detect(body), "answer.json")

        def send_answer(self, status: int, body: bytes, name: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", _TYPES.get(name.rpartition(".")[2], "application/octet-stream"))
            self.send_header("Content-Length", str(len(body)))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

    class QuietServer(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:  # a browser that closes its connection is no error
            pass

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
