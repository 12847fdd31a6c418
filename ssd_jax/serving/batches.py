"""Detection in the images of several requests at the same time."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ssd_jax.inference.detector import Detector
from ssd_jax.inference.results import Detections
from ssd_jax.serving.images import DecodedImage


class _Work(NamedTuple):
    image: DecodedImage
    result: "asyncio.Future[Detections]"


class BatchQueue:
    """Queue of images in front of the network.

    If the detector stacks images, one thread calls the network with all that wait, up to the size of a batch. A batch
    that is not full waits a few milliseconds for further images. Otherwise, as for a network of JAX on a CPU, as many
    threads as the size of a batch call the network with one image each, and none waits.

    Args:
        detector: The detector.
        batch_size: Number of images in which objects are detected at the same time. None: that of the detector.
        wait_seconds: Time for which a batch that is not full waits.
        observe: Function that is called with the number of images of each batch.
    """

    def __init__(
        self, detector: Detector, batch_size: int | None, wait_seconds: float, observe: Callable[[int], None]
    ) -> None:
        self._detector, self._wait_seconds, self._observe = detector, wait_seconds, observe
        self._batch_size = batch_size or detector.batch_size
        self._calls = 1 if detector.is_stacked else self._batch_size
        self._most = self._batch_size if detector.is_stacked else 1
        # Programs of exported files may be called by one thread only. JAX can compile in a further one.
        self._threads = ThreadPoolExecutor(1 if detector.is_stacked else self._calls + 1, "network")
        self._queue: asyncio.Queue[_Work] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        """Number of images that wait for the network."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start to take images from the queue."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._calls)]

    async def compile(self) -> None:
        """Compile the network for images of all sizes, so that no request waits for it later."""
        for side in self._detector.canvas_sides:
            await self._call([DecodedImage(np.zeros((side, side, 3), np.uint8), (side, side), [])])

    async def detect(self, image: DecodedImage) -> Detections:
        """Return all detections in an image, of any score."""
        result: asyncio.Future[Detections] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Work(image, result))
        return await result

    def close(self) -> None:
        """Stop."""
        for worker in self._workers:
            worker.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            batch = [work for work in await self._collect() if not work.result.done()]  # requests can be cancelled
            if not batch:
                continue
            self._observe(len(batch))
            try:
                found = await self._call([work.image for work in batch])
            except Exception as error:
                for work in batch:
                    if not work.result.done():
                        work.result.set_exception(error)
            else:
                for work, detections in zip(batch, found, strict=True):
                    if not work.result.done():
                        work.result.set_result(detections)

    async def _collect(self) -> list[_Work]:
        """Return the images of the next batch."""
        batch = [await self._queue.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_seconds):
                while len(batch) < self._most:
                    batch.append(await self._queue.get())
        return batch

    async def _call(self, images: Sequence[DecodedImage]) -> list[Detections]:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads,
            self._detector.detect_batch,
            [image.pixels for image in images],
            [image.size for image in images],
            self._batch_size,
        )
