"""Requests to the app of `ssd-jax serve`, in this process."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from ssd_jax.inference.detector import Detector
from ssd_jax.serving.app import make_app
from ssd_jax.serving.limits import Limits


@contextlib.contextmanager
def open_client(detector: Detector, limits: Limits | None = None, **options: Any) -> Iterator[TestClient]:
    """Yield a client of an app that detects objects with a detector. ``client.service`` is its service."""
    app, service = make_app(detector, "tiny", limits=limits or Limits(), **options)
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        client.service = service  # type: ignore[attr-defined]
        yield client


def encode_image(pixels: np.ndarray, kind: str = "png", **options: Any) -> bytes:
    """Return an image as the content of a file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def make_bomb(side: int) -> bytes:
    """Return a small PNG file of a black square with a side of many pixels."""
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "png")
    return stream.getvalue()
