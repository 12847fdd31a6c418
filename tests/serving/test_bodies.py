"""Tests of reading the bodies of requests: time, room in memory, and connections that end."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from ssd_jax.serving.bodies import BodyReader
from ssd_jax.serving.errors import RequestError
from ssd_jax.serving.limits import Limits

LIMITS = Limits(body_bytes=100, held_bytes=150, body_seconds=0.1)


def make_request(*chunks: bytes | float | None, **headers: str) -> Request:
    """Return a request whose body has chunks, pauses in seconds, and perhaps the end of the connection: None."""
    events = list(chunks)

    async def receive() -> dict[str, Any]:
        while events and isinstance(events[0], float):
            await asyncio.sleep(events.pop(0))
        if not events:
            return {"type": "http.request", "body": b"", "more_body": False}
        chunk = events.pop(0)
        return (
            {"type": "http.disconnect"} if chunk is None else {"type": "http.request", "body": chunk, "more_body": True}
        )

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": encoded, "method": "POST"}, receive)


async def read(reader: BodyReader, *chunks: bytes | float | None, **headers: str) -> bytes:
    async with reader.read(make_request(*chunks, **headers)) as (upload,):
        return upload.data


def test_body_is_the_chunks_together():
    assert asyncio.run(read(BodyReader(LIMITS), b"ab", b"", b"cd")) == b"abcd"


def test_slow_bodies_get_408_and_their_connection_is_closed():
    with pytest.raises(RequestError, match=r"0\.1 seconds") as caught:
        asyncio.run(read(BodyReader(LIMITS), b"ab", 5.0))
    assert caught.value.status == 408 and caught.value.headers == {"Connection": "close"}


def test_declared_length_is_refused_before_the_body_is_read():
    with pytest.raises(RequestError) as caught:
        asyncio.run(read(BodyReader(LIMITS), 5.0, **{"content-length": "101"}))
    assert caught.value.status == 413


def test_room_for_bodies_is_limited_and_given_back():
    async def run() -> list[Any]:
        reader = BodyReader(LIMITS)
        async with reader.read(make_request(b"a" * 100)):
            results = await asyncio.gather(read(reader, b"b" * 50), return_exceptions=True)
            results += await asyncio.gather(read(reader, b"b" * 50, b"c"), return_exceptions=True)
        for chunks in ([b"d" * 99, 5.0], [b"d" * 101], [b"d" * 99, None]):  # too slow, too large, and ended
            results += await asyncio.gather(read(reader, *chunks), return_exceptions=True)
        async with reader.read(make_request(b"a" * 100)):
            return [*results, await read(reader, b"e" * 50)]

    fits, excess, slow, large, ended, last = asyncio.run(run())
    assert fits == b"b" * 50 and last == b"e" * 50
    assert (excess.status, excess.headers) == (503, {"Retry-After": "1"})
    assert (slow.status, large.status) == (408, 413) and isinstance(ended, ClientDisconnect)
