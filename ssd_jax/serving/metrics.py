"""Metrics of the server for Prometheus."""

from collections.abc import Callable
from time import perf_counter

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Metrics of one server.

    Attributes:
        content_type: Content type of `format`.

    Args:
        get_waiting: Function that returns the number of images that are decoded or wait for the network.
        get_queued: Function that returns the number of images that wait for the network.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, get_waiting: Callable[[], int], get_queued: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("ssd_jax_requests", "Answered requests.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "ssd_jax_request_seconds",
            "Time from the headers of a request for detections to the end of its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "ssd_jax_batch_images", "Images of a call of the network.", buckets=_SIZES, registry=registry
        )
        for name, text, function in (
            ("ssd_jax_waiting_images", "Images that are decoded or wait for the network.", get_waiting),
            ("ssd_jax_queued_images", "Images that wait for the network.", get_queued),
        ):
            Gauge(name, text, registry=registry).set_function(function)

    def count_request(self, path: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()

    def observe_seconds(self, seconds: float) -> None:
        """Add the time that a request for detections took."""
        self._seconds.observe(seconds)

    def observe_batch(self, images: int) -> None:
        """Add the number of images of a batch."""
        self._batches.observe(images)

    def format(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class CountRequests:
    """App that counts the answers of another app.

    Args:
        app: The other app.
        metrics: Where to count.
        paths: Paths that are counted under their names. All others count as "other", since there may be any number.
        timed_path: Path of which the time is observed, too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str], timed_path: str) -> None:
        self._app, self._metrics, self._paths, self._timed_path = app, metrics, paths, timed_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_and_read_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = perf_counter()
        try:
            await self._app(scope, receive, send_and_read_status)
        finally:
            path = scope["path"]
            self._metrics.count_request(path if path in self._paths else "other", status)
            if path == self._timed_path:
                self._metrics.observe_seconds(perf_counter() - started)
