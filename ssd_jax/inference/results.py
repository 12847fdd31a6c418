"""Detections in one image, as a `Detector` returns them."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex, overload

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8
from PIL import Image

from ssd_jax.data.image import read_reduced_image
from ssd_jax.data.image_formats import LARGE_PIXELS
from ssd_jax.data.pixels import array_to_rgb, to_rgb
from ssd_jax.data.source import suggest_name
from ssd_jax.drawing.boxes import class_colours, draw_boxes
from ssd_jax.errors import UserError
from ssd_jax.inference.detections import ImageDetections
from ssd_jax.optional_packages import import_package

ImageLike = str | Path | np.ndarray | Image.Image
"""An image: a path, a uint8 array of RGB, RGBA or grey pixels, see `array_to_rgb`, or a Pillow image."""
ScoreThreshold = float | Mapping[str, float]
"""Smallest score, or a dict with the smallest scores of some classes."""
NOTEBOOK_SIDE = 1000
"""Longest side in pixels of the drawing that a notebook shows."""


class Detection(NamedTuple):
    """One detected object."""

    name: str
    """Name of the class."""
    score: float
    """Confidence in [0, 1]."""
    box: tuple[float, float, float, float]
    """Corners x1, y1, x2, y2 in pixels of the original image."""


class Detections(list[Detection]):
    """The detections in one image: a list of `Detection`, best first, that also offers arrays and drawings.

    It equals a plain list with the same detections. A slice of it is of the same class. A notebook shows it as the
    image with the boxes.

    Args:
        detections: The detections.
        classes: Names of all classes of the detector, in the order of their labels 1 to C.
        size: (Width, height) of the image in pixels.
        image: The image, to draw on: a path, an array or a Pillow image, of any size. It is neither copied nor read
            before it is needed.

    Attributes:
        name: Path or address of the image or video, or number of the camera. These three are only those of
            `Detector.stream`.
        frame: Position of the frame in the video, from 0. None for an image.
        seconds: Time of the frame in the video. None for an image.
    """

    name: str | None = None
    frame: int | None = None
    seconds: float | None = None

    def __init__(
        self,
        detections: Iterable[Detection] = (),
        classes: Sequence[str] = (),
        size: tuple[int, int] = (0, 0),
        image: ImageLike | None = None,
    ) -> None:
        super().__init__(detections)
        self.classes, self.size, self.image = tuple(classes), size, image

    @classmethod
    def from_arrays(
        cls, arrays: ImageDetections, classes: Sequence[str], size: tuple[int, int], image: ImageLike | None = None
    ) -> "Detections":
        """Create the detections of an image from arrays."""
        rows = zip(arrays.boxes_px.tolist(), arrays.scores.tolist(), arrays.labels.tolist(), strict=True)
        return cls(
            (Detection(classes[label - 1], score, tuple(box)) for box, score, label in rows), classes, size, image
        )

    def to_arrays(self) -> ImageDetections:
        """Return the detections as a tuple of boxes, scores and labels."""
        return ImageDetections(self.boxes, self.scores, self.labels)

    @property
    def boxes(self) -> Float32[np.ndarray, "k 4"]:
        """Boxes as xyxy in pixels of the original image."""
        return np.array([d.box for d in self], np.float32).reshape(-1, 4)

    @property
    def scores(self) -> Float32[np.ndarray, " k"]:
        """Scores in [0, 1]."""
        return np.array([d.score for d in self], np.float32)

    @property
    def labels(self) -> Int32[np.ndarray, " k"]:
        """Labels of the classes, from 1 to C: positions in ``classes``, counted from 1."""
        label_of_class = {name: label for label, name in enumerate(self.classes, start=1)}
        return np.array([label_of_class[d.name] for d in self], np.int32)

    @property
    def class_names(self) -> Shaped[np.ndarray, " k"]:
        """Name of the class of each detection."""
        return np.array([d.name for d in self], np.str_)

    @overload
    def __getitem__(self, position: SupportsIndex) -> Detection: ...
    @overload
    def __getitem__(self, position: slice) -> "Detections": ...
    def __getitem__(self, position: SupportsIndex | slice) -> "Detection | Detections":
        if isinstance(position, slice):
            return self._replace(super().__getitem__(position))
        return super().__getitem__(position)

    def filter(
        self, *, classes: str | Iterable[str] | None = None, score_threshold: ScoreThreshold = 0.0
    ) -> "Detections":
        """Return the detections of some classes, with scores that are high enough.

        Args:
            classes: Name of a class, or names of several. None: all classes.
            score_threshold: Smallest score, in [0, 1], or a dict with the smallest scores of some classes.

        Raises:
            UserError: If there is no class of a name.
            ValueError: If a score is outside of its range.
        """
        chosen = self.classes if classes is None else check_classes(classes, self.classes)
        check_score_threshold(score_threshold, self.classes)
        thresholds = score_threshold if isinstance(score_threshold, Mapping) else dict.fromkeys(chosen, score_threshold)
        return self._replace(d for d in self if d.name in chosen and d.score >= thresholds.get(d.name, 0.0))

    def to_coco(self, image_id: int | None = None, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the detections in COCO's result format.

        Args:
            image_id: COCO's id of the image. None: the number that the name of the image file consists of, as that of
                COCO's own images does, such as 139 for 000000000139.jpg.
            category_ids: COCO's id of each class, in the order of the labels. None: the labels, 1 to C.

        Returns:
            Dicts with ``image_id``, ``category_id``, ``bbox`` (left, top, width and height in pixels) and ``score``.

        Raises:
            ValueError: If ``image_id`` is None, and the name of the image is not known, or is not a number.
        """
        if image_id is None:
            image_id = self._read_image_id()
        ids = range(1, len(self.classes) + 1) if category_ids is None else category_ids
        return [
            {"image_id": image_id, "category_id": ids[label - 1], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": d.score}
            for d, label in zip(self, self.labels.tolist(), strict=True)
            for x1, y1, x2, y2 in [d.box]
        ]

    def _read_image_id(self) -> int:
        """Return the number that the name of the image file consists of."""
        file = self.name or (self.image if isinstance(self.image, str | Path) else "")
        stem = Path(file).stem
        if self.frame is not None or not (stem.isascii() and stem.isdecimal()):
            raise ValueError(f"to_coco needs an image_id, because the name of the image is not a number: {str(file)!r}")
        return int(stem)

    def to_supervision(self) -> Any:
        """Return the detections as ``supervision.Detections``, for the trackers and annotators of this package.

        ``class_id`` is the position of the class in ``classes``, counted from 0, and ``data["class_name"]`` its name.

        Raises:
            UserError: If supervision is not installed.
        """
        supervision = import_package("supervision", "supervision")
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels.astype(int) - 1,
            data={"class_name": self.class_names},
        )

    def plot(self, *, line_width: int | None = None, show_labels: bool = True, show_scores: bool = True) -> Image.Image:
        """Return the image with the boxes drawn on it.

        Args:
            line_width: Width of the lines in pixels. None: they grow with the image.
            show_labels: Whether to draw the names of the classes and the scores.
            show_scores: Whether to draw the scores.

        Raises:
            UserError: If the image file cannot be read.
            ValueError: If the detections do not know their image.
        """
        return self._draw(self._read_image(), line_width, show_labels, show_scores)

    def _repr_png_(self) -> bytes | None:
        """Return the drawing that a notebook shows; None if the image is not known or no longer there."""
        try:
            pixels = self._read_image()
        except (UserError, ValueError):
            return None
        drawing = self._draw(pixels, None, True, True, NOTEBOOK_SIDE)
        stream = io.BytesIO()
        drawing.save(stream, "png")
        return stream.getvalue()

    def _read_image(self) -> UInt8[np.ndarray, "h w 3"]:
        if self.image is None:
            raise ValueError("these detections do not know their image: create them with image=...")
        if isinstance(self.image, str | Path):
            return read_reduced_image(self.image, None, (NOTEBOOK_SIDE, NOTEBOOK_SIDE), min_pixels=LARGE_PIXELS)[0]
        return to_rgb(self.image) if isinstance(self.image, Image.Image) else array_to_rgb(self.image)

    def _draw(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        line_width: int | None,
        show_labels: bool,
        show_scores: bool,
        max_side: float = math.inf,
    ) -> Image.Image:
        height, width = pixels.shape[:2]
        return draw_boxes(
            pixels,
            self.boxes * np.float32(width / max(1, self.size[0])),
            [d.name for d in self],
            self.scores,
            colours=class_colours(self.classes),
            scale=min(1.0, max_side / max(height, width)),
            line_width=line_width,
            show_labels=show_labels,
            show_scores=show_scores,
        )

    def _replace(self, detections: Iterable[Detection]) -> "Detections":
        """Return other detections of the same image."""
        found = Detections(detections, self.classes, self.size, self.image)
        found.name, found.frame, found.seconds = self.name, self.frame, self.seconds
        return found


def check_classes(names: str | Iterable[str], classes: Sequence[str], option: str = "classes") -> tuple[str, ...]:
    """Return the names of classes as a tuple.

    Args:
        names: Name of a class, or names of several.
        classes: Names of all classes.
        option: Name of the argument or option, for the message.

    Raises:
        UserError: If there is no class of a name. The message has a similar name, or the first few names.
    """
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen:
        if name not in classes:
            hint = suggest_name(name, tuple(classes))
            raise UserError(
                f"{option}: the detector has no class '{name}'. {hint}Its classes are {_list_some(classes)}"
            )
    return chosen


def check_score_threshold(score_threshold: ScoreThreshold, classes: Sequence[str]) -> None:
    """Raise an error about a wrong smallest score.

    Args:
        score_threshold: The smallest score, or those of some classes.
        classes: Names of all classes.

    Raises:
        UserError: If there is no class of a name.
        ValueError: If a score is not in [0, 1].
    """
    thresholds = score_threshold if isinstance(score_threshold, Mapping) else {}
    check_classes(thresholds, classes, "score_threshold")
    for score in thresholds.values() if isinstance(score_threshold, Mapping) else [score_threshold]:
        if not 0 <= score <= 1:
            raise ValueError(f"score_threshold must be in [0, 1], got {score}")


def _list_some(classes: Sequence[str], count: int = 10) -> str:
    return ", ".join(classes[:count]) + (", ..." if len(classes) > count else "")
