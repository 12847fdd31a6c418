"""Decode the images of requests in threads, so that a large or broken one delays no other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ssd_jax.data.image import collect_image_notes, stored_size
from ssd_jax.errors import UserError, escape_text
from ssd_jax.inference.detector import Detector
from ssd_jax.runtime.memory import return_free_memory
from ssd_jax.serving.errors import RequestError

T = TypeVar("T")
LARGE_PIXELS = 16_000_000
"""Larger images are decoded one at a time, in a thread of their own. They take long, and much memory."""
_NAME = "image"  # for messages; the name that the client gave is not used
_ADVICE = " Copy it again, or remove it."  # which does not fit an image that was sent


class DecodedImage(NamedTuple):
    """An image of a request, shrunk for detection."""

    pixels: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]
    """(Width, height) of the upright image at full size in pixels."""
    notes: list[str]


class ImageDecoder:
    """Decoder of the images of requests.

    Args:
        detector: The detector, which decides how the images are shrunk.
        max_pixels: Largest number of pixels of an image.
        threads: Number of threads that decode images of ordinary size.
    """

    def __init__(self, detector: Detector, max_pixels: int, threads: int) -> None:
        self._detector, self._max_pixels = detector, max_pixels
        self._threads = ThreadPoolExecutor(threads, "decode")
        self._large_thread = ThreadPoolExecutor(1, "decode_large")

    async def decode(self, data: bytes) -> DecodedImage:
        """Decode an image.

        Raises:
            RequestError: If the image has too many pixels, or cannot be decoded.
        """
        width, height = await self._run(self._threads, lambda: stored_size(data, _NAME))
        pixels = width * height
        if pixels > self._max_pixels:
            raise RequestError(413, f"{_NAME}: {width} x {height} pixels are more than the limit of {self._max_pixels}")
        if pixels > LARGE_PIXELS:
            return await self._run(self._large_thread, lambda: self._decode_large(data))
        return await self._run(self._threads, lambda: self._decode(data))

    def close(self) -> None:
        """End the threads after what they do now."""
        for threads in (self._threads, self._large_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    def _decode(self, data: bytes) -> DecodedImage:
        with collect_image_notes() as notes:
            return DecodedImage(*self._detector.decode(data, _NAME), notes)

    def _decode_large(self, data: bytes) -> DecodedImage:
        try:
            return self._decode(data)
        finally:
            return_free_memory()  # or the process would keep as much as the largest image took

    async def _run(self, threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, function)
        except UserError as error:
            is_too_large = isinstance(error.__cause__, Image.DecompressionBombError | Image.DecompressionBombWarning)
            if is_too_large:
                detail = f"more than the limit of {self._max_pixels}, or far more than a file of this length has"
                raise RequestError(413, f"{_NAME}: too many pixels, {detail}") from error
            raise RequestError(422, escape_text(error.args[0]).removesuffix(_ADVICE)) from error
