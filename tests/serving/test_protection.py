"""Tests of the headers of answers, and of the requests that are refused."""

import base64

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ssd_jax.serving.protection import SECURITY_HEADERS, is_loopback, protect


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello", headers={"Cache-Control": "no-store"})


app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])


def make_client(host: str = "127.0.0.1", **options) -> TestClient:
    return TestClient(protect(app, host, **options), base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/missing", 404)])
def test_every_answer_has_the_security_headers(path: str, status: int):
    response = make_client().get(path)
    assert response.status_code == status
    expected = SECURITY_HEADERS | ({"Cache-Control": "no-store"} if path == "/" else {})
    assert {name: response.headers[name] for name in SECURITY_HEADERS} == expected


def test_policy_forbids_inline_scripts_and_other_sites():
    policy = make_client().get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy and "*" not in policy


@pytest.mark.parametrize("name", ["localhost:8000", "127.0.0.1:1", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_server_on_loopback_accepts_its_names(name: str):
    assert make_client().get("/", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize("name", ["example.com", "localhost.example.com", "127.0.0.1.example.com", ""])
def test_server_on_loopback_refuses_other_names(name: str):
    response = make_client().get("/", headers={"Host": name})
    assert response.status_code == 400 and response.headers["x-content-type-options"] == "nosniff"


def test_server_on_loopback_accepts_further_names_if_allowed():
    client = make_client(allowed_hosts=["example.com"])
    assert client.get("/", headers={"Host": "example.com"}).status_code == 200


def test_server_on_other_addresses_accepts_any_name():
    assert make_client("0.0.0.0").get("/", headers={"Host": "example.com"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "site", "mode", "status"),
    [
        ("POST", "cross-site", "no-cors", 403),
        ("POST", "same-site", "cors", 403),
        ("POST", "cross-site", "navigate", 403),
        ("GET", "cross-site", "no-cors", 403),
        ("GET", "cross-site", "navigate", 200),
        ("POST", "same-origin", "cors", 200),
        ("GET", "none", "navigate", 200),
    ],
)
def test_requests_of_other_sites_are_refused(method: str, site: str, mode: str, status: int):
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    assert make_client().request(method, "/", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer secret", 200),
        ("bearer secret", 200),
        ("Basic " + base64.b64encode(b"anyone:secret").decode(), 200),
        ("Basic " + base64.b64encode(b"secret").decode(), 401),
        ("Basic ???", 401),
        ("Bearer secre", 401),
        ("Bearer ", 401),
        ("secret", 401),
        ("", 401),
        ("Bearer s\u00e9cret", 401),
    ],
)
def test_token_is_required_if_there_is_one(authorization: str, status: int):
    client = make_client(token="secret")
    response = client.get("/", headers={"Authorization": authorization.encode("latin-1")})
    assert response.status_code == status
    assert ("www-authenticate" in response.headers) == (status == 401) and "x-frame-options" in response.headers


def test_health_needs_no_token():
    assert make_client(token="secret").get("/health").status_code == 404  # of this app


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_is_loopback_knows_the_addresses_of_this_machine(host: str, expected: bool):
    assert is_loopback(host) == expected
