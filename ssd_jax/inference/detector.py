"""Use of a trained detector from Python.

>>> detector = ssd_jax.load("runs/my_run")
>>> detector("photo.jpg")
[Detection(name='cat', score=0.93, box=(40.2, 18.5, 211.0, 190.7))]
"""

import itertools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ssd_jax.config import Config
from ssd_jax.data.image import decode_reduced_image, read_reduced_image, reduce_to_fit
from ssd_jax.data.image_formats import LARGE_PIXELS
from ssd_jax.errors import UserError, escape_text
from ssd_jax.inference import pipeline
from ssd_jax.inference.batching import Batching, choose_batching
from ssd_jax.inference.detections import NO_DETECTIONS, DetectFn, ImageDetections, to_image_detections
from ssd_jax.inference.images import choose_canvas_side, get_image_name, make_type_error, to_array
from ssd_jax.inference.pipeline import DetectedPicture
from ssd_jax.inference.results import Detections, ImageLike, ScoreThreshold, check_classes, check_score_threshold
from ssd_jax.inference.tiles import TILE_OVERLAP, check_tile_options, count_views, detect_tiles
from ssd_jax.inputs.finding import Input, find_inputs, is_address
from ssd_jax.inputs.reading import UNLIMITED, Picture, Reading, Unreadable, make_readings
from ssd_jax.models.parameters import Params
from ssd_jax.plurals import format_count

logger = logging.getLogger(__name__)

ViewProgress = Callable[[int, int], object]
"""A function that is called after each view of an image in tiles, with the number of views so far and of all views."""
_MAX_BATCH_SIZE = 8
_MANY_VIEWS = 1000


class Detector:
    """A trained network that detects objects in images, on one device. `ssd_jax.load` creates it.

    Attributes:
        config: Config of the network.
        class_names: Names of the classes, in the order of their labels 1 to C.
        params: Parameters of the network. None if the detector was loaded from an exported file.
        step: Training step of the checkpoint.
        batch_size: Number of images in which objects are detected at the same time, if a call does not say it.
    """

    def __init__(
        self,
        config: Config,
        detect: DetectFn,
        step: int,
        params: Params | None = None,
        batching: Batching = "any",
    ) -> None:
        """Create a detector from a function.

        Args:
            config: Config of the network. The detector uses its class names, and the largest size of an image.
            detect: Function from a batch of square canvases to detections, see `DetectFn`.
            step: Training step of the parameters.
            params: The parameters that ``detect`` uses, if they are known.
            batching: How many images ``detect`` gets in one call. "single": one, and it is called in several threads.
                "padded": as many as the size of a batch, with empty images at the end if there are fewer, because it is
                compiled for each number. "any": as many as there are.
        """
        self.config, self.params, self.step = config, params, step
        self.class_names = config.model.class_names
        self.batch_size = min(_MAX_BATCH_SIZE, os.cpu_count() or 1) if batching == "single" else _MAX_BATCH_SIZE
        self._detect, self._batching = detect, batching

    @classmethod
    def from_params(cls, config: Config, params: Params, step: int) -> "Detector":
        """Create a detector from the parameters of a network.

        Args:
            config: Config of the network.
            params: The parameters.
            step: Training step of the parameters.
        """
        from ssd_jax.inference.stored_program import make_detect_fn  # imports JAX, which other programs do not need

        return cls(config, make_detect_fn(config, params), step, params, choose_batching())

    def __repr__(self) -> str:
        names, side = self.class_names, self.config.model.image_size
        listing = ", ".join(map(escape_text, names[:3])) + (", ..." if len(names) > 3 else "")
        count = format_count(len(names), "classes")
        return f"<Detector {self.config.name!r}: {count} ({listing}), {side} x {side} px, step {self.step}>"

    @overload
    def __call__(
        self,
        images: ImageLike,
        *,
        score_threshold: ScoreThreshold = 0.5,
        classes: str | Iterable[str] | None = None,
        batch_size: int | None = None,
    ) -> Detections: ...
    @overload
    def __call__(
        self,
        images: list[ImageLike],
        *,
        score_threshold: ScoreThreshold = 0.5,
        classes: str | Iterable[str] | None = None,
        batch_size: int | None = None,
    ) -> list[Detections]: ...
    def __call__(
        self,
        images: ImageLike | list[ImageLike],
        *,
        score_threshold: ScoreThreshold = 0.5,
        classes: str | Iterable[str] | None = None,
        batch_size: int | None = None,
    ) -> Detections | list[Detections]:
        """Detect objects in one image or in a list of images.

        The first call compiles the network, and keeps the program in the user's cache folder for later processes. On a
        CPU, the detections in an image are exactly the same for every size of the batches.

        Args:
            images: An image, or a list of images. An image is a path, a uint8 array of RGB (h, w, 3), RGBA (h, w, 4) or
                grey (h, w) pixels, or a Pillow image, which is not rotated, so that boxes are in its own pixels.
            score_threshold: Smallest score of the detections to return, in [0, 1], or a dict with the smallest scores
                of some classes. Detections with scores up to the run's ``detect.score_threshold`` are never returned.
            classes: Name of a class, or names of several, to return. None: all classes.
            batch_size: Number of images in which objects are detected at the same time. None: `batch_size` of the
                detector, which depends on the device.

        Returns:
            The detections of the image, best first. For a list of images, a list with the detections of each image.

        Raises:
            UserError: If an image file cannot be read, or there is no class of a name.
            TypeError: If an image is none of the types above.
            ValueError: If an array has another shape or type, or an argument is outside of its range.
        """
        classes = self._check_arguments(score_threshold, classes, batch_size)
        if isinstance(images, str | Path | np.ndarray | Image.Image):
            pixels, size = self._read_any(images)
            found = self.detect_reduced(pixels, size, score_threshold=score_threshold, classes=classes)
            found.image = images  # a path takes less memory than the pixels
            return found
        if isinstance(images, bytes | bytearray) or not isinstance(images, Iterable):
            raise make_type_error(images)
        images = list(images)
        detections = []
        for image, result in zip(images, self.detect_in_order(self._make_readings(images), batch_size), strict=True):
            if isinstance(result, Unreadable):
                raise UserError(*result.lines)
            found = result.detections.filter(score_threshold=score_threshold, classes=classes)
            found.image = image
            detections.append(found)
        return detections

    def stream(
        self,
        source: str | Path | int | Iterable[str | Path | np.ndarray | Image.Image],
        *,
        score_threshold: ScoreThreshold = 0.5,
        classes: str | Iterable[str] | None = None,
        batch_size: int | None = None,
        every: int = 1,
        tile: int | None = None,
        overlap: float = TILE_OVERLAP,
        skip_unreadable: bool = False,
    ) -> Iterator[Detections]:
        """Detect objects in images, in the frames of a video or of a camera, one after the other.

        Each picture is yielded as soon as possible, while the next ones are already read. ``name``, ``frame`` and
        ``seconds`` of the result tell which picture it is, and ``image`` has its pixels. What cannot be read is left
        out, and named by an error after the last picture.

        Args:
            source: What ``ssd-jax predict`` takes: an image or video file, a folder, a pattern such as ``"*.jpg"``, a
                list of paths in a ``.txt`` file, or an http(s) address; the number of a camera; or an iterable of
                images as for a call, which may be endless.
            score_threshold: As for a call.
            classes: As for a call.
            batch_size: As for a call.
            every: 1 for all frames of a video, n for the frames 0, n, 2n, ...
            tile: Side of the tiles in pixels, as for `tiled`. None: no tiles.
            overlap: As for `tiled`.
            skip_unreadable: Whether to log a warning about each image that cannot be read, and to raise no error.

        Yields:
            The detections of each picture, best first.

        Raises:
            UserError: If there is nothing to read, there is no class of a name, or there are no such tiles; after the
                last picture, if something could not be read.
            TypeError: If an image of an iterable is of a wrong type.
            ValueError: If an argument is outside of its range.
        """
        classes = self._check_arguments(score_threshold, classes, batch_size)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if tile is not None:
            check_tile_options(tile, overlap)
        side = self.config.data.max_image_size if tile is None else UNLIMITED
        readings: Iterator[Reading]
        if isinstance(source, str | Path | int):
            found = find_inputs([str(source)])
            failures = [Reading(partial(Unreadable, (line,)), 0) for line in found.unusable]
            readings = itertools.chain(make_readings(found.inputs, side, every), failures)
        elif isinstance(source, bytes | bytearray) or not isinstance(source, Iterable):
            raise make_type_error(source)
        else:
            readings = self._make_readings(source, side)
        results = self.detect_in_order(readings, batch_size, tile, overlap)
        return self._stream(results, skip_unreadable, classes=classes, score_threshold=score_threshold)

    def _stream(
        self, results: Iterator[DetectedPicture | Unreadable], skip_unreadable: bool, **chosen: Any
    ) -> Iterator[Detections]:
        lines: list[str] = []
        for result in results:
            if isinstance(result, DetectedPicture):
                yield result.detections.filter(**chosen)
            elif skip_unreadable:
                logger.warning("%s", "\n".join(map(escape_text, result.lines)))
            else:
                lines += result.lines
        if lines:
            raise UserError(*lines)

    def detect_in_order(
        self,
        readings: Iterable[Reading],
        batch_size: int | None = None,
        tile: int | None = None,
        overlap: float = TILE_OVERLAP,
        show_views: ViewProgress | None = None,
    ) -> Generator[DetectedPicture | Unreadable, None, None]:
        """Read pictures and detect objects in them, in several threads, and yield the results in order.

        Args:
            readings: The pictures to read, as of `make_readings`.
            batch_size: As for a call.
            tile: Side of the tiles in pixels, as for `tiled`. None: no tiles.
            overlap: As for `tiled`.
            show_views: Function that is called after each tile.

        Yields:
            Each picture with all its detections, of any score, or the error if it cannot be read.
        """
        size = batch_size or self.batch_size
        if tile is not None:

            def detect_in_tiles(pictures: Sequence[Picture]) -> list[Detections]:
                found = [
                    self._detect_tiles(p.pixels, p.size, tile, overlap, batch_size, p.name, show_views)
                    for p in pictures
                ]
                return [self._make_detections(*pair) for pair in zip(pictures, found, strict=True)]

            # The tiles of a picture are a batch.
            return pipeline.detect_in_order(detect_in_tiles, readings, batch_size=1, is_stacked=True)

        def detect(pictures: Sequence[Picture]) -> list[Detections]:
            arrays = self._detect_batch([picture.pixels for picture in pictures], [p.size for p in pictures], size)
            return [self._make_detections(*pair) for pair in zip(pictures, arrays, strict=True)]

        return pipeline.detect_in_order(detect, readings, batch_size=size, is_stacked=self.is_stacked)

    def read(self, path: str | Path, side: int | None = None) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
        """Read an image file for detection.

        An image with more than 64 million pixels is read at a reduced size, which takes less memory. The reduced image
        is still larger than what the network samples.

        Args:
            path: The image file.
            side: Side in pixels below which an image is not reduced. None: what the network samples.

        Returns:
            The RGB pixels, and the (width, height) of the image at full size in pixels.

        Raises:
            UserError: If the file cannot be read, or ``path`` is an address.
        """
        if isinstance(path, str) and is_address(path):
            raise UserError(f"{path}: an address, not a file. `Detector.stream` and `ssd-jax predict` download images")
        side = side or self.config.data.max_image_size
        return read_reduced_image(path, None, (side, side), min_pixels=LARGE_PIXELS)

    def decode(self, data: bytes, name: str = "image") -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
        """Decode the content of an image file for detection, without reading any file.

        The image is shrunk to the size from which the network samples, so that it takes little memory. The detections
        in it are the same bits as those in the file, since a larger image is shrunk in the same way later.

        Args:
            data: Content of the file.
            name: Name of the image for messages.

        Returns:
            The RGB pixels, and the (width, height) of the image at full size in pixels.

        Raises:
            UserError: If the image cannot be decoded, or is too large; the message begins with ``name``.
        """
        largest = self.config.data.max_image_size
        pixels, size = decode_reduced_image(data, name, (largest, largest), min_pixels=LARGE_PIXELS)
        side = choose_canvas_side(max(pixels.shape[:2]), largest)
        return reduce_to_fit(pixels, (side, side)), size

    def detect_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        sizes: Sequence[tuple[int, int]],
        batch_size: int | None = None,
    ) -> list[Detections]:
        """Detect objects in a few images, which are in memory, at the same time.

        Args:
            images: The RGB pixels of each image, perhaps at a reduced size.
            sizes: (Width, height) of each image at full size in pixels. The boxes are in pixels of this size.
            batch_size: Largest number of images of such a call, for which a program is compiled. None: `batch_size`.

        Returns:
            All detections of each image, of any score, best first.
        """
        arrays = self._detect_batch(images, sizes, batch_size or self.batch_size)
        return [
            Detections.from_arrays(found, self.class_names, size) for found, size in zip(arrays, sizes, strict=True)
        ]

    @property
    def is_stacked(self) -> bool:
        """Whether the images of a batch are passed to one call of the network, and not to calls in several threads."""
        return self._batching != "single"

    @property
    def canvas_sides(self) -> tuple[int, ...]:
        """Sides in pixels of the square canvases that images are placed on, from small to large."""
        largest = self.config.data.max_image_size
        sides = [choose_canvas_side(1, largest)]
        while sides[-1] < largest:
            sides.append(choose_canvas_side(sides[-1] + 1, largest))
        return tuple(sides)

    def detect_reduced(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        size: tuple[int, int],
        *,
        score_threshold: ScoreThreshold = 0.5,
        classes: str | Iterable[str] | None = None,
    ) -> Detections:
        """Detect objects in an image that may have been read at a reduced size.

        Args:
            pixels: The RGB pixels.
            size: (Width, height) of the image at full size in pixels. The boxes are in pixels of this size.
            score_threshold: As for a call.
            classes: As for a call.

        Returns:
            The detections of the image, best first.
        """
        (arrays,) = self._detect_batch([pixels], [size], 1)
        found = Detections.from_arrays(arrays, self.class_names, size, pixels)
        return found.filter(score_threshold=score_threshold, classes=classes)

    def tiled(
        self,
        image: ImageLike,
        *,
        tile: int = 640,
        overlap: float = TILE_OVERLAP,
        score_threshold: ScoreThreshold = 0.5,
        classes: str | Iterable[str] | None = None,
        batch_size: int | None = None,
    ) -> Detections:
        """Detect small objects in a large image, by detection in overlapping tiles and in the whole image.

        The network sees each tile at its own input size. `ssd_jax.inference.tiles` describes how the boxes of all
        tiles become one set. Up to ``detect.max_detections`` objects are found in each tile.

        Args:
            image: As for a call.
            tile: Side of a tile in pixels of the image. The objects should be about as large in relation to a tile as
                they are to the images of the training.
            overlap: Least share of the side that neighbouring tiles have in common, in [0, 1). Objects up to this size
                are seen whole in a tile.
            score_threshold: As for a call.
            classes: As for a call.
            batch_size: As for a call, a number of tiles.

        Returns:
            The detections of the image, best first.

        Raises:
            UserError: If an image file cannot be read, there is no class of a name, or there are no such tiles.
            ValueError: If an array has another shape or type, or an argument is outside of its range.
        """
        classes = self._check_arguments(score_threshold, classes, batch_size)
        pixels, size = self._read_any(image, UNLIMITED)
        arrays = self._detect_tiles(pixels, size, tile, overlap, batch_size, get_image_name(image))
        found = Detections.from_arrays(arrays, self.class_names, size, image)
        return found.filter(score_threshold=score_threshold, classes=classes)

    def _detect_tiles(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        size: tuple[int, int],
        tile: int,
        overlap: float,
        batch_size: int | None,
        name: str,
        show_views: ViewProgress | None = None,
    ) -> ImageDetections:
        """Return the detections in an image, in pixels of its (width, height) at full size."""
        check_tile_options(tile, overlap)
        count = count_views(pixels.shape[1], pixels.shape[0], tile, overlap)
        if count > _MANY_VIEWS:
            logger.warning(
                "%s: is divided into %s tiles of %d px, which takes long. Larger tiles are fewer",
                escape_text(name), f"{count - 1:,}", tile,
            )  # fmt: skip

        def detect_views(views: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[ImageDetections]:
            found = []
            for result in self.detect_in_order(self._make_readings(views), batch_size):
                assert isinstance(result, DetectedPicture), "arrays can be read"
                found.append(result.detections.to_arrays())
                if show_views is not None:
                    show_views(len(found), count)
            return found

        found = detect_tiles(detect_views, pixels, tile, overlap, self.config.detect.nms_iou_threshold)
        return found._replace(boxes_px=found.boxes_px * np.float32(size[0] / pixels.shape[1]))

    def _detect_batch(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], sizes: Sequence[tuple[int, int]], batch_size: int
    ) -> list[ImageDetections]:
        """Return the detections in a few images, each in pixels of its (width, height) at full size.

        Images whose canvases have the same size are passed to the network in one call.
        """
        largest = self.config.data.max_image_size
        sides = [choose_canvas_side(max(image.shape[:2]), largest) for image in images]
        detections: list[ImageDetections] = [NO_DETECTIONS] * len(images)
        for side in dict.fromkeys(sides):
            chosen = [i for i, other in enumerate(sides) if other == side]
            count = max(batch_size, len(chosen)) if self._batching == "padded" else len(chosen)
            canvas = np.zeros((count, side, side, 3), np.uint8)
            shapes = np.ones((count, 2), np.int32)
            for slot, i in enumerate(chosen):
                content = reduce_to_fit(images[i], (side, side))
                shapes[slot] = content.shape[:2]
                canvas[slot, : content.shape[0], : content.shape[1]] = content
            outputs = [np.asarray(field) for field in self._detect(canvas, shapes[:, 0], shapes[:, 1])]
            for slot, i in enumerate(chosen):
                detections[i] = to_image_detections(outputs, slot, *sizes[i])
        return detections

    def _make_detections(self, picture: Picture, arrays: ImageDetections) -> Detections:
        found = Detections.from_arrays(arrays, self.class_names, picture.size, picture.pixels)
        found.name, found.frame, found.seconds = picture.name, picture.frame, picture.seconds
        return found

    def _read_any(
        self, image: ImageLike, side: int | None = None
    ) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
        """Return the pixels of an image, perhaps reduced to a side, and its (width, height) at full size in pixels."""
        if isinstance(image, str | Path):
            return self.read(image, side)
        pixels = to_array(image)
        return pixels, (pixels.shape[1], pixels.shape[0])

    def _make_readings(self, images: Iterable[ImageLike], side: int | None = None) -> Iterator[Reading]:
        return (Reading(partial(self._read_picture, image, side), 0) for image in images)

    def _read_picture(self, image: ImageLike, side: int | None) -> Picture | Unreadable:
        name = get_image_name(image)
        try:
            return Picture(Input("image", name, Path(name)), *self._read_any(image, side))
        except UserError as error:
            return Unreadable(error.args)

    def _check_arguments(
        self, score_threshold: ScoreThreshold, classes: str | Iterable[str] | None, batch_size: int | None
    ) -> tuple[str, ...] | None:
        """Raise an error for a wrong argument before anything is read, and return the names of the classes."""
        check_score_threshold(score_threshold, self.class_names)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        return None if classes is None else check_classes(classes, self.class_names)
