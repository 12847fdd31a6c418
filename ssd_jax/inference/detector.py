"""Use of a trained detector from Python.

>>> detector = ssd_jax.load("runs/my_run")
>>> detector("photo.jpg")
[Detection(name='cat', score=0.93, box=(40.2, 18.5, 211.0, 190.7))]
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ssd_jax.config import Config
from ssd_jax.data.image import read_image, read_reduced_image, reduce_to_fit
from ssd_jax.data.image_formats import LARGE_PIXELS
from ssd_jax.data.pixels import to_rgb
from ssd_jax.errors import escape_text
from ssd_jax.inference.detections import ImageDetections, to_image_detections
from ssd_jax.inference.results import Detections, ImageLike
from ssd_jax.inference.stored_program import DetectFn, make_detect_fn
from ssd_jax.inference.tiles import TILE_OVERLAP, detect_tiles
from ssd_jax.models.parameters import Params
from ssd_jax.plurals import format_count
from ssd_jax.runtime import sharding


class Detector:
    """A trained network that detects objects in images, on one device. `ssd_jax.load` creates it.

    Attributes:
        config: Config of the network.
        class_names: Names of the classes, in the order of their labels 1 to C.
        params: Parameters of the network. None if the detector was loaded from an exported file.
        step: Training step of the checkpoint.
    """

    def __init__(self, config: Config, detect: DetectFn, step: int, params: Params | None = None) -> None:
        """Create a detector from a function.

        Args:
            config: Config of the network. The detector uses its class names, and the largest size of an image.
            detect: Function from a batch of square canvases to detections, see `DetectFn`.
            step: Training step of the parameters.
            params: The parameters that ``detect`` uses, if they are known.
        """
        self.config, self.params, self.step = config, params, step
        self.class_names = config.model.class_names
        self._detect = detect

    @classmethod
    def from_params(cls, config: Config, params: Params, step: int) -> "Detector":
        """Create a detector from the parameters of a network."""
        return cls(config, make_detect_fn(config, params), step, params)

    def __repr__(self) -> str:
        names, side = self.class_names, self.config.model.image_size
        listing = ", ".join(map(escape_text, names[:3])) + (", ..." if len(names) > 3 else "")
        count = format_count(len(names), "classes")
        return f"<Detector {self.config.name!r}: {count} ({listing}), {side} x {side} px, step {self.step}>"

    @overload
    def __call__(self, images: ImageLike, *, score_threshold: float = 0.5) -> Detections: ...
    @overload
    def __call__(self, images: list[ImageLike], *, score_threshold: float = 0.5) -> list[Detections]: ...
    def __call__(
        self, images: ImageLike | list[ImageLike], *, score_threshold: float = 0.5
    ) -> Detections | list[Detections]:
        """Detect objects in one image or in a list of images.

        The first call compiles the network, and keeps the program in the user's cache folder for later processes.
        Images are processed one at a time, so a list needs no more memory than a single image.

        Args:
            images: An image, or a list of images. An image is a path, a uint8 RGB array of shape (h, w, 3), or a
                Pillow image, which is converted to RGB and not rotated, so that boxes are in its own pixels.
            score_threshold: Smallest score of the detections to return, in [0, 1]. Detections with scores up to
                the run's ``detect.score_threshold`` are never returned.

        Returns:
            The detections of the image, best first. For a list of images, a list with the detections of each image.

        Raises:
            UserError: If an image file cannot be read.
            TypeError: If an image is none of the types above.
            ValueError: If an array has another shape or type, or ``score_threshold`` is outside [0, 1].
        """
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must be in [0, 1], got {score_threshold}")
        if isinstance(images, str | Path | np.ndarray | Image.Image):
            return self._detect_one(images, score_threshold)
        if not isinstance(images, Iterable):
            raise _make_type_error(images)
        return [self._detect_one(image, score_threshold) for image in images]

    def read(self, path: str | Path) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
        """Read an image file for detection.

        An image with more than 64 million pixels is read at a reduced size, which takes less memory. The reduced image
        is still larger than what the network samples.

        Returns:
            The RGB pixels, and the (width, height) of the image at full size in pixels.

        Raises:
            UserError: If the file cannot be read.
        """
        side = self.config.data.max_image_size
        return read_reduced_image(path, None, (side, side), min_pixels=LARGE_PIXELS)

    def detect_reduced(
        self, pixels: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], *, score_threshold: float = 0.5
    ) -> Detections:
        """Detect objects in an image that may have been read at a reduced size.

        Args:
            pixels: The RGB pixels.
            size: (Width, height) of the image at full size in pixels. The boxes are in pixels of this size.
            score_threshold: Smallest score of the detections to return, in [0, 1].

        Returns:
            The detections of the image, best first.
        """
        side = choose_canvas_side(max(pixels.shape[:2]), self.config.data.max_image_size)
        canvas = np.zeros((1, side, side, 3), np.uint8)
        content = reduce_to_fit(pixels, (side, side))
        canvas[0, : content.shape[0], : content.shape[1]] = content
        shape = np.array(content.shape[:2], np.int32)
        outputs = sharding.fetch(self._detect(canvas, shape[:1], shape[1:]))
        detections = to_image_detections(outputs, 0, *size)
        return Detections.from_arrays(detections, self.class_names, size, pixels).filter(
            score_threshold=score_threshold
        )

    def tiled(
        self,
        image: ImageLike,
        *,
        tile: int = 640,
        overlap: float = TILE_OVERLAP,
        score_threshold: float = 0.5,
    ) -> Detections:
        """Detect small objects in a large image, by detection in overlapping tiles and in the whole image.

        The network sees each tile at its own input size. `ssd_jax.inference.tiles` describes how the boxes of all
        tiles become one set. Up to ``detect.max_detections`` objects are found in each tile.

        Args:
            image: A path, a uint8 RGB array of shape (h, w, 3), or a Pillow image.
            tile: Side of a tile in pixels of the image. The objects should be about as large in relation to a tile as
                they are to the images of the training.
            overlap: Least share of the side that neighbouring tiles have in common, in [0, 1). Objects up to this size
                are seen whole in a tile.
            score_threshold: Smallest score of the detections to return, in [0, 1].

        Returns:
            The detections of the image, best first.

        Raises:
            UserError: If an image file cannot be read, or there are no such tiles.
            ValueError: If an array has another shape or type.
        """
        pixels = read_image(image) if isinstance(image, str | Path) else _to_array(image)

        def detect_views(views: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ImageDetections]:
            return [found.to_arrays() for found in self(list(views), score_threshold=0.0)]

        arrays = detect_tiles(detect_views, pixels, tile, overlap, self.config.detect.nms_iou_threshold)
        found = Detections.from_arrays(arrays, self.class_names, (pixels.shape[1], pixels.shape[0]), image)
        return found.filter(score_threshold=score_threshold)

    def _detect_one(self, image: ImageLike, score_threshold: float) -> Detections:
        if isinstance(image, str | Path):
            pixels, size = self.read(image)
        else:
            pixels = _to_array(image)
            size = pixels.shape[1], pixels.shape[0]
        found = self.detect_reduced(pixels, size, score_threshold=score_threshold)
        found.image = image  # a path takes less memory than the pixels
        return found


def choose_canvas_side(image_side: int, max_side: int) -> int:
    """Return the side in pixels of the square canvas that an image is placed on.

    The side is the smallest of 640, 1280, 2560, ... that is at least ``image_side``, limited to ``max_side``. There are
    only a few different sides, so that images of all sizes need few compiled programs.

    Args:
        image_side: Longer side of the image in pixels.
        max_side: Upper limit of the result. Larger images are reduced to it.
    """
    side = 640
    while side < image_side:
        side *= 2
    return min(side, max_side)


def _to_array(image: np.ndarray | Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise _make_type_error(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"expected a uint8 RGB array of shape (h, w, 3), got {image.dtype} of shape {image.shape}")
    return image


def _make_type_error(image: object) -> TypeError:
    return TypeError(f"expected a path, a uint8 RGB array or a PIL image, got {type(image).__name__}")
