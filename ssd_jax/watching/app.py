"""The HTTP interface of ``ssd-jax watch``: the page, and the state of the runs as JSON."""

import importlib.resources
import re
import secrets
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssd_jax.watching.watcher import Watcher

REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
"""Security policy of a report page: that of the page itself, and no rights on this server."""
_MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
_MAX_COMPARED = 100
_KNOWN = re.compile(r"(\d{1,12})\.(\d{1,12})", re.ASCII)


def make_watch_app(watcher: Watcher) -> Starlette:
    """Return the ASGI app that shows the runs of a folder.

    No part of a request becomes a part of a path. Names in requests are compared with those of the files of the page,
    of the runs that were found, and of the pictures and report pages in them; anything else is answered with 404.

    Args:
        watcher: Reader of the runs.
    """
    page = read_page_files()
    session = secrets.token_hex(8)

    def send_page_file(request: Request) -> Response:
        name = request.path_params.get("file", "index.html")
        if name not in page:
            raise HTTPException(404)
        return Response(page[name], media_type=_MEDIA_TYPES[name[name.rindex(".") :]])

    def send_overview(request: Request) -> Response:
        return _make_json(msgspec.structs.asdict(watcher.read_overview()) | {"session": session})

    def send_curves(request: Request) -> Response:
        known = [_parse_known(request.query_params.get(group, "")) for group in ("train", "val")]
        curves = watcher.read_curves(request.path_params["run"], *known)
        if curves is None:
            raise HTTPException(404)
        return _make_json(curves)

    def send_differences(request: Request) -> Response:
        return _make_json(watcher.find_differences(request.query_params.getlist("run")[:_MAX_COMPARED]))

    def send_run_file(request: Request) -> Response:
        found = watcher.read_file(request.path_params["run"], request.path_params["file"])
        if found is None:
            raise HTTPException(404)
        file, content = found
        headers = {"Cache-Control": "no-store"}
        if file.kind == "report":
            # A browser refuses a page that has both a sandbox and a policy about its opener.
            headers |= {"Content-Security-Policy": REPORT_POLICY, "Cross-Origin-Opener-Policy": "unsafe-none"}
        return Response(content, media_type=file.media_type, headers=headers)

    app = Starlette(
        routes=[
            Route("/", send_page_file),
            Route("/api/runs", send_overview),
            Route("/api/runs/{run}/curves", send_curves),
            Route("/api/differences", send_differences),
            Route("/runs/{run}/{file}", send_run_file),
            Route("/{file}", send_page_file),
        ]
    )
    app.router.redirect_slashes = False
    return app


def read_page_files() -> dict[str, bytes]:
    """Return the files of the page by name. ``page.css`` is that of the report."""
    folder = importlib.resources.files("ssd_jax.watching").joinpath("page")
    style = importlib.resources.files("ssd_jax.report").joinpath("page.css")
    return {file.name: file.read_bytes() for file in [*folder.iterdir(), style]}


def _parse_known(text: str) -> tuple[int, int]:
    """Return the ``number`` and ``fixed`` of the points that a page has, or numbers that ask for all points."""
    match = _KNOWN.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _make_json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json", headers={"Cache-Control": "no-store"})
