"""Pictures with which an exported file is compared with the original."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from ssd_jax.config import Config
from ssd_jax.data.image import read_image, reduce_to_fit
from ssd_jax.data.run_splits import open_split
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.model_zoo.catalog import BUNDLED_FOLDER

Picture = UInt8[np.ndarray, "_ _ 3"]  # a list of pictures has several sizes

COUNT = 8
"""Number of pictures."""
CALIBRATION_COUNT = 100
"""Number of pictures from which the ranges of the activations are estimated for int8."""


def choose_pictures(config: Config, count: int | None = None) -> tuple[list[Picture], str]:
    """Return pictures of the run's val split or, if its data cannot be read, pictures that come with the package.

    Args:
        config: Config of the run.
        count: Number of pictures, if there are as many. None: 8.

    Returns:
        The pictures, reduced to ``data.max_image_size`` as for detection, and in words where they are from.
    """
    side = config.data.max_image_size
    try:
        source = open_split(config, config.data.val_split) if config.data.root else None
        pictures = _read_some(source, count or COUNT) if source is not None else []
    except UserError:
        pictures = []
    if pictures:
        return [reduce_to_fit(picture, (side, side)) for picture in pictures], f"{config.data.val_split} split"
    return [reduce_to_fit(picture, (side, side)) for picture in _make_bundled_pictures()], "photographs of the package"


class Canvases(NamedTuple):
    """A batch of pictures, each of which fills the upper left of its canvas."""

    canvas: UInt8[np.ndarray, "b side side 3"]
    height: Int32[np.ndarray, " b"]
    """Height of each picture in pixels."""
    width: Int32[np.ndarray, " b"]
    """Width of each picture in pixels."""

    def make_batches(self, size: int) -> Iterator[UInt8[np.ndarray, "size h w 3"]]:
        """Yield a batch for each picture without its canvas, in which the picture is repeated."""
        for canvas, height, width in zip(*self, strict=True):
            yield canvas[None, :height, :width].repeat(size, axis=0)


def place_on_canvases(pictures: Sequence[Picture], side: int) -> Canvases:
    """Return pictures in the upper left of square canvases."""
    canvas = np.zeros((len(pictures), side, side, 3), np.uint8)
    for slot, picture in zip(canvas, pictures, strict=True):
        slot[: picture.shape[0], : picture.shape[1]] = picture
    height, width = (np.array([picture.shape[axis] for picture in pictures], np.int32) for axis in (0, 1))
    return Canvases(canvas, height, width)


def choose_positions(length: int, count: int) -> list[int]:
    """Return at most ``count`` positions that are spread evenly over a sequence."""
    return [int(position) for position in np.linspace(0, length - 1, min(count, length)).round()]


def _read_some(source: Source, count: int) -> list[Picture]:
    """Return readable images that are spread evenly over a split."""
    pictures: list[Picture] = []
    for index in choose_positions(len(source), count):
        try:
            pictures.append(np.asarray(source.image(index)))
        except UserError:
            continue
    return pictures


def _make_bundled_pictures() -> list[Picture]:
    """Return photographs, and parts and mirror images of them of other sizes."""
    files = sorted((BUNDLED_FOLDER.parent / "photographs").glob("*.jpg"))
    photographs = [read_image(file) for file in files]
    parts = [p[:: 2 if i else 1, i * 40 : i * 40 + 300].copy() for i, p in enumerate(photographs)]
    return [*photographs, *parts, photographs[0][:, ::-1].copy(), photographs[1][::-1].copy()][:COUNT]
