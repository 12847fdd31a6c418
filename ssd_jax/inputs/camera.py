"""Read frames from a camera with OpenCV, which the extra ``camera`` installs."""

import time
from collections.abc import Iterator

import numpy as np

from ssd_jax.errors import UserError
from ssd_jax.inputs.video import Frame
from ssd_jax.optional_packages import import_package


def read_camera(number: int, every: int = 1) -> Iterator[Frame]:
    """Yield frames of a camera until the iterator is closed.

    Args:
        number: Number of the camera, from 0.
        every: 1 for all frames, n for the frames 0, n, 2n, ...

    Raises:
        UserError: If OpenCV is not installed, there is no such camera, or the camera sends no frames any more.
    """
    cv2 = import_package("cv2", "camera")
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise UserError(f"{number}: there is no camera with this number, or another program uses it")
        start = time.monotonic()
        index = 0
        while camera.grab():  # skipped frames are not decoded
            if index % every == 0:
                is_read, pixels = camera.retrieve()
                if not is_read:
                    break
                yield Frame(np.ascontiguousarray(pixels[:, :, ::-1]), index, time.monotonic() - start)
            index += 1
        raise UserError(f"{number}: the camera sends no frames" + (" any more" if index else ""))
    finally:
        camera.release()
