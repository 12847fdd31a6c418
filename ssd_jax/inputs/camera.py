"""Read frames from a camera with OpenCV, which the extra ``camera`` installs."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssd_jax.errors import UserError
from ssd_jax.inputs.video import Frame


def read_camera(number: int, every: int = 1) -> Iterator[Frame]:
    """Yield frames of a camera until the iterator is closed.

    Args:
        number: Number of the camera, from 0.
        every: 1 for all frames, n for the frames 0, n, 2n, ...

    Raises:
        UserError: If OpenCV is not installed, there is no such camera, or the camera sends no frames any more.
    """
    cv2 = import_cv2()
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


def import_cv2() -> Any:
    """Return the module of OpenCV.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise UserError("Cameras are read by OpenCV. Install it with: pip install 'ssd-jax[camera]'") from None
    return cv2
