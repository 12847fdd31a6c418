"""Protection of a server against other web sites: headers of its answers, and requests that it refuses."""

import base64
import hmac
import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Policy of a page that loads its own files only. It forbids scripts and styles in the HTML text."""
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",
}
"""Headers of every answer. One that an endpoint sets itself is kept."""
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Return whether a host name or an IP address is that of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def protect(app: ASGIApp, host: str, allowed_hosts: Iterable[str] = (), token: str | None = None) -> ASGIApp:
    """Return an app that refuses requests of other web sites, and adds `SECURITY_HEADERS` to its answers.

    A page of another site can send requests to a server on this machine. A browser says in ``Sec-Fetch-Site`` that it
    is such a request, which is refused unless it only opens a page. The other site can also give its own name the
    address of this machine, so that both look like one site to the browser. A server on a loopback address therefore
    refuses requests for other names.

    Args:
        app: The app.
        host: Host name or IP address that the server listens on.
        allowed_hosts: Further names by which a server on a loopback address is reached, as through a reverse proxy.
        token: Secret that every request must have, except for ``/health``: as a bearer token, or as the password of
            basic authentication, for which browsers ask. None: requests need none.
    """
    app = _SameSite(app if token is None else _RequireToken(app, token))
    if is_loopback(host):
        names = [*_LOOPBACK_NAMES, f"[{host}]" if ":" in host else host, *allowed_hosts]
        app = TrustedHostMiddleware(app, names, www_redirect=False)
    return _SecurityHeaders(app)


class _SameSite:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            is_opened = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
            if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_opened:
                refusal = JSONResponse({"detail": "requests of other web sites are not accepted"}, 403)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


class _RequireToken:
    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = _read_token(Headers(scope=scope).get("authorization", ""))
            if not hmac.compare_digest(given, self._token):
                headers = {"WWW-Authenticate": 'Basic realm="ssd-jax", charset="UTF-8"'}
                refusal = JSONResponse({"detail": "a token is needed: Authorization: Bearer TOKEN"}, 401, headers)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _read_token(authorization: str) -> bytes:
    """Return the token in the value of an Authorization header. It is empty if there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2] if scheme.lower() == "basic" else b""
    except ValueError:
        return b""


class _SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)
