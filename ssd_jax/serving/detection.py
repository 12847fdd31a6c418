"""The service behind the endpoints: detection in the images of requests."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from ssd_jax.inference.detector import Detector
from ssd_jax.serving.answers import ImageAnswer, ImageError, list_objects
from ssd_jax.serving.batches import BatchQueue
from ssd_jax.serving.bodies import Upload
from ssd_jax.serving.errors import RETRY, RequestError
from ssd_jax.serving.images import ImageDecoder
from ssd_jax.serving.limits import Batching, Limits
from ssd_jax.serving.parameters import Choice


class DetectionService:
    """Detection in the images of all requests. Its coroutines must run in one event loop.

    Args:
        detector: The detector.
        limits: Limits of the images.
        batching: How requests are batched together.
        observe_batch: Function that is called with the number of images of each call of the network.
    """

    def __init__(
        self, detector: Detector, limits: Limits, batching: Batching, observe_batch: Callable[[int], None]
    ) -> None:
        self.detector = detector
        self.waiting = 0
        """Number of images that are decoded or wait for the network."""
        self.failure: Exception | None = None
        """Error of the compilation."""
        self._limits = limits
        self._decoder = ImageDecoder(detector, limits.pixels, min(4, os.cpu_count() or 1))
        self._queue = BatchQueue(detector, batching.batch, batching.wait_ms / 1000, observe_batch)
        self._compilation: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        """Number of images that wait for the network."""
        return self._queue.waiting

    @property
    def is_ready(self) -> bool:
        """Whether the network is compiled."""
        return self._compilation is not None and self._compilation.done() and self.failure is None

    def start(self, stop: Callable[[], None]) -> None:
        """Start to detect, and compile the network in the background.

        Args:
            stop: Function that is called if the network cannot be compiled. `failure` is then the error.
        """
        self._queue.start()
        self._compilation = asyncio.create_task(self._compile(stop))

    def close(self) -> None:
        """Stop."""
        if self._compilation is not None:
            self._compilation.cancel()
        self._queue.close()
        self._decoder.close()

    async def detect(self, upload: Upload, choice: Choice) -> ImageAnswer:
        """Detect objects in an image.

        Raises:
            RequestError: If the image cannot be decoded, or too many are waiting.
        """
        with self._admit(1):
            return await self._detect_one(upload, choice)

    async def detect_all(self, uploads: Sequence[Upload], choice: Choice) -> list[ImageAnswer | ImageError]:
        """Detect objects in the images of a form. One that cannot be decoded does not keep the others from it.

        Raises:
            RequestError: If too many images are waiting.
        """
        with self._admit(len(uploads)):
            return list(await asyncio.gather(*(self._detect_in_form(upload, choice) for upload in uploads)))

    async def _compile(self, stop: Callable[[], None]) -> None:
        try:
            await self._queue.compile()
        except Exception as error:
            self.failure = error
            stop()

    @contextmanager
    def _admit(self, images: int) -> Iterator[None]:
        """Count images as waiting during the ``with`` block."""
        if self.waiting + images > self._limits.waiting:
            raise RequestError(503, "too many images are waiting: try again in a second", RETRY)
        self.waiting += images
        try:
            yield
        finally:
            self.waiting -= images

    async def _detect_in_form(self, upload: Upload, choice: Choice) -> ImageAnswer | ImageError:
        try:
            return await self._detect_one(upload, choice)
        except RequestError as error:
            return ImageError(error.detail, error.status, upload.name)

    async def _detect_one(self, upload: Upload, choice: Choice) -> ImageAnswer:
        started = perf_counter()
        image = await self._decoder.decode(upload.data)
        found = choice.select(await self._queue.detect(image))
        milliseconds = round(1000 * (perf_counter() - started), 3)
        return ImageAnswer(*image.size, list_objects(found), milliseconds, image.notes, upload.name)
