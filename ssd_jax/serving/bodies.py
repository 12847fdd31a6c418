"""Read the images in the body of a request, all in memory and within limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.requests import Request

from ssd_jax.serving.errors import CLOSE, RETRY, RequestError
from ssd_jax.serving.forms import is_form, parse_form
from ssd_jax.serving.limits import Limits


class Upload(NamedTuple):
    """An image file in a request."""

    name: str | None
    """Name of the file in the form. It is only repeated in the answer."""
    data: bytes


class BodyReader:
    """Reader of the bodies of requests. All bodies together have a limited size.

    Args:
        limits: Limits of the size and of the time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._held = limits, 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[list[Upload]]:
        """Read the body of a request, and yield its files, for which there is room until the end of the block.

        A body of the type multipart/form-data has any number of files, and any other body is one file.

        Raises:
            RequestError: If the body is empty, too large, too slow, compressed, or not a form of files.
            ClientDisconnect: If the client closes the connection before the end of the body.
        """
        chunks: list[bytes] = []
        held = 0
        try:
            async for chunk in self._receive(request):
                self._held += len(chunk)
                held += len(chunk)
                chunks.append(chunk)
            data = b"".join(chunks)
            chunks.clear()
            if not data:
                raise RequestError(422, "the body is empty: send the bytes of an image file, or a form with files")
            content_type = request.headers.get("content-type", "")
            if is_form(content_type):
                # A form that was made to cause harm takes its time, during which other requests should be read.
                files = await asyncio.to_thread(parse_form, content_type, data, self._limits.files)
                del data
                yield [Upload(*file) for file in files]
            else:
                yield [Upload(None, data)]
        finally:
            self._held -= held

    async def _receive(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the chunks of a body for which there is room.

        Raises:
            RequestError: If the body is too large, too slow or compressed.
        """
        self._check_head(request)
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    self._check_room(size, len(chunk))
                    yield chunk
        except TimeoutError:
            seconds = self._limits.body_seconds
            raise RequestError(408, f"the body was not complete after {seconds:g} seconds", CLOSE) from None

    def _check_head(self, request: Request) -> None:
        """Refuse a request whose headers show that its body will not be accepted, before the body is sent."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError(415, "a body with a Content-Encoding is not accepted: send the file as it is")
        length = request.headers.get("content-length", "")
        if length.isdecimal():
            self._check_room(int(length), 0)

    def _check_room(self, size: int, added: int) -> None:
        """Raise an error if a body of a size is too large, or there is no room for the bytes that are added to it."""
        if size > self._limits.body_bytes:
            raise RequestError(413, f"the body is larger than the limit of {self._limits.body_bytes} bytes")
        if self._held + added > self._limits.held_bytes:
            raise RequestError(503, "too many images are being sent: try again in a second", RETRY)
