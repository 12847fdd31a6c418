"""The app: its endpoints, and the page in the browser."""

import json
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ssd_jax.inference.detector import Detector
from ssd_jax.serving.answers import ErrorAnswer, FormAnswer, Health, ImageError, ModelAnswer
from ssd_jax.serving.bodies import BodyReader
from ssd_jax.serving.detection import DetectionService
from ssd_jax.serving.errors import NO_HEADERS, RequestError
from ssd_jax.serving.forms import is_form
from ssd_jax.serving.limits import Batching, Limits
from ssd_jax.serving.metrics import CountRequests, Metrics
from ssd_jax.serving.openapi import make_document, read_style, render_document
from ssd_jax.serving.parameters import parse_choice
from ssd_jax.web_page.page import (
    CONFIG_NAME,
    CONTENT_SECURITY_POLICY,
    PageConfig,
    encode_page_config,
    read_page_files,
)

_LIMITS, _BATCHING = Limits(), Batching()
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
_PAGE_HEADERS = {"Content-Security-Policy": f"{CONTENT_SECURITY_POLICY}; frame-ancestors 'none'"}


def make_app(
    detector: Detector,
    name: str,
    *,
    limits: Limits = _LIMITS,
    batching: Batching = _BATCHING,
    protection: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    stop: Callable[[], None] = lambda: None,
) -> tuple[ASGIApp, DetectionService]:
    """Return an app that detects objects, and its service.

    Args:
        detector: The detector.
        name: Name of the run, model or file, without the folder that it is in.
        limits: Limits of the requests.
        batching: How requests are batched together.
        protection: Function from an app to one that refuses some requests, see `ssd_jax.serving.protection.protect`.
        stop: Function that ends the server. It is called if the network cannot be compiled.
    """
    metrics = Metrics(lambda: service.waiting, lambda: service.queued)
    service = DetectionService(detector, limits, batching, metrics.observe_batch)
    bodies = BodyReader(limits)

    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[None]:
        service.start(stop)
        try:
            yield
        finally:
            service.close()

    async def detect(request: Request) -> Response:
        choice = parse_choice(request.query_params, detector.class_names)
        async with bodies.read(request) as uploads:
            if not is_form(request.headers.get("content-type", "")):
                return _respond(await service.detect(uploads[0], choice))
            images = await service.detect_all(uploads, choice)
        errors = [image for image in images if isinstance(image, ImageError)]
        if len(errors) < len(images):
            return _respond(FormAnswer(images))
        return _respond(FormAnswer(images, errors[0].error), errors[0].status)

    async def show_health(request: Request) -> Response:
        return _respond(Health("ready")) if service.is_ready else _respond(Health("starting"), 503)

    async def show_metrics(request: Request) -> Response:
        return Response(metrics.format(), media_type=metrics.content_type)

    document = make_document(name)
    fixed = {
        **_make_page(detector, name),
        "/model": _respond(_describe_model(detector, name)),
        "/openapi.json": Response(json.dumps(document), media_type="application/json"),
        "/docs": Response(render_document(document), media_type="text/html"),
        "/api.css": Response(read_style(), media_type="text/css"),
    }
    routes = [
        Route("/detect", detect, methods=["POST"]),
        Route("/health", show_health),
        Route("/metrics", show_metrics),
        *(Route(path, _make_endpoint(response)) for path, response in fixed.items()),
    ]
    app = Starlette(
        routes=routes,
        lifespan=run,
        exception_handlers=dict.fromkeys((RequestError, HTTPException, ClientDisconnect, Exception), _answer_error),
    )
    app.router.redirect_slashes = False
    paths = frozenset(["/detect", "/health", "/metrics", *fixed])
    return CountRequests(protection(app), metrics, paths, "/detect"), service


def _make_page(detector: Detector, name: str) -> dict[str, Response]:
    """Return the responses of the files of the page by their paths."""
    config = PageConfig(
        backend="server",
        name=name,
        class_names=detector.class_names,
        score_threshold=detector.config.detect.score_threshold,
        detect_url="detect?score=0",
    )
    files = {**read_page_files(), CONFIG_NAME: encode_page_config(config)}
    page = {f"/{file}": _make_file_response(file, content) for file, content in files.items()}
    return {"/": page["/index.html"], **page}


def _make_file_response(name: str, content: bytes) -> Response:
    kind = next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), None)
    kind = kind or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(content, media_type=kind, headers=_PAGE_HEADERS)


def _make_endpoint(response: Response) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that gives the same response to every request, from memory."""

    async def endpoint(request: Request) -> Response:
        return response

    return endpoint


def _describe_model(detector: Detector, name: str) -> ModelAnswer:
    config = detector.config
    return ModelAnswer(
        name=name,
        config=config.name,
        step=detector.step,
        class_names=list(detector.class_names),
        image_size=config.model.image_size,
        max_image_size=config.data.max_image_size,
        score_threshold=config.detect.score_threshold,
        max_detections=config.detect.max_detections,
    )


def _respond(answer: msgspec.Struct, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    return Response(msgspec.json.encode(answer), status, headers, "application/json")


async def _answer_error(request: Request, error: Exception) -> Response:
    match error:
        case RequestError():
            return _respond(ErrorAnswer(error.detail), error.status, error.headers)
        case HTTPException():
            return _respond(ErrorAnswer(error.detail), error.status_code, error.headers or NO_HEADERS)
        case ClientDisconnect():  # nobody reads this
            return _respond(ErrorAnswer("the connection was closed before the end of the request"), 400)
    return _respond(ErrorAnswer("the server failed; its log has the error"), 500)
