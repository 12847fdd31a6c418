"""Annotations and images of a data set, independent of its file format.

A module that reads a format (`ssd_jax.data.formats`) returns a `Source`: one split of a data set. The loader, the
evaluation and the check access the data only through this interface.
"""

import copy
import difflib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from ssd_jax.config import Data
from ssd_jax.data.image import read_image, read_reduced_image
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError, convert_errors
from ssd_jax.files import convert_read_errors, convert_to_utf8


class Annotation(NamedTuple):
    """Annotation of one image, with coordinates in pixels of the upright image at its original size."""

    image_id: str
    """Identifier that is unique in the data set, such as the stem of a VOC file or the file name of a COCO image."""
    file: str
    """Path of the image file. If the image is generated or stored in a record, a description of the image."""
    width: int
    """Width of the upright image in pixels."""
    height: int
    """Height of the upright image in pixels."""
    boxes_px: Float32[np.ndarray, "g 4"]
    """Boxes, xyxy in pixels, not clipped. A box may extend beyond the image, but has an area inside it."""
    labels: Int32[np.ndarray, " g"]
    """Label of each box: 1 + the position of its class in `Source.class_names`."""
    difficult: Bool[np.ndarray, " g"]
    """VOC's ``difficult`` flag of each object."""
    crowd: Bool[np.ndarray, " g"]
    """COCO's ``iscrowd`` flag of each object. Crowd objects are not used in training."""
    area_px: Float32[np.ndarray, " g"]
    """Area of each object in square pixels: as stated in the annotation (COCO's ``area``), or the area of the box."""
    number: int | None = None
    """Numeric id of the image in the data set (COCO's ``id``), if it has one."""


_COLUMN_TYPES: Mapping[str, type[np.generic]] = {
    "boxes_px": np.float32,
    "labels": np.int32,
    "difficult": np.bool_,
    "crowd": np.bool_,
    "area_px": np.float32,
}
"""Type of each array of an `Annotation`, in their order."""


class AnnotationTable(Sequence[Annotation]):
    """Annotations of many images in a few arrays, which need much less memory than small arrays for each image.

    Annotations can be appended until the first one is read.
    """

    def __init__(self, annotations: Iterable[Annotation] = ()):
        self._images: list[tuple[str, str, int, int, int | None]] = []
        self._ends = array("q", [0])
        self._columns = {name: bytearray() for name in _COLUMN_TYPES}
        for annotation in annotations:
            self.append(annotation)

    def append(self, annotation: Annotation) -> None:
        """Append the annotation of an image."""
        image = annotation.image_id, annotation.file, annotation.width, annotation.height, annotation.number
        self._images.append(image)
        self._ends.append(self._ends[-1] + len(annotation.labels))
        for name, column in self._columns.items():
            column += np.asarray(getattr(annotation, name), _COLUMN_TYPES[name]).tobytes()

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Annotation]: ...
    def __getitem__(self, index: int | slice) -> Annotation | list[Annotation]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        image_id, file, width, height, number = self._images[index]
        start = index % len(self)
        rows = slice(self._ends[start], self._ends[start + 1])
        boxes, labels, difficult, crowd, areas = (column[rows] for column in self._arrays)
        return Annotation(image_id, file, width, height, boxes, labels, difficult, crowd, areas, number)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        boxes, *others = (np.frombuffer(column, _COLUMN_TYPES[name]) for name, column in self._columns.items())
        return boxes.reshape(-1, 4), *others

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image in pixels."""
        return [(width, height) for _, _, width, height, _ in self._images]


class CocoTruth(NamedTuple):
    """All annotations of a COCO file at full precision, including objects without an area inside their image.

    COCO's official metrics are computed from these arrays. The annotations are in the order of the file.
    """

    image_ids: Int64[np.ndarray, " t"]
    """COCO's image id for each annotation."""
    category_ids: Int64[np.ndarray, " t"]
    """COCO's category id for each annotation."""
    boxes_px_xywh: Float64[np.ndarray, "t 4"]
    """Left edge, top edge, width and height of each box in pixels."""
    area_px: Float64[np.ndarray, " t"]
    """Area of each object in square pixels."""
    crowd: Bool[np.ndarray, " t"]
    """COCO's ``iscrowd`` flag of each annotation."""


def keep_trainable_objects(annotation: Annotation, with_difficult: bool) -> Annotation:
    """Return an annotation without its crowd objects and, unless ``with_difficult`` is set, its difficult objects."""
    keep = ~annotation.crowd if with_difficult else ~(annotation.crowd | annotation.difficult)
    return annotation._replace(
        boxes_px=annotation.boxes_px[keep],
        labels=annotation.labels[keep],
        difficult=annotation.difficult[keep],
        crowd=annotation.crowd[keep],
        area_px=annotation.area_px[keep],
    )


def normalised_boxes(annotation: Annotation) -> Float32[np.ndarray, "g 4"]:
    """Return the boxes of an annotation, xyxy, divided by the width and height of the image and clipped to [0, 1]."""
    size = np.array([annotation.width, annotation.height] * 2, np.float32)
    return np.clip(annotation.boxes_px / size, 0, 1)


class Source(ABC):
    """A split of a data set. Its annotations and images can be read in any order and from many threads at once.

    A subclass sets `class_names` and defines `__len__`, `sizes`, `annotation` and `image`.
    """

    class_names: tuple[str, ...]
    """Class names in the order of the labels: the first name has label 1."""
    category_ids: tuple[int, ...] | None = None
    """Number of each class in the data set's own files (COCO's category id); None if the files have no such numbers."""
    coco_truth: CocoTruth | None = None
    """All annotations of the COCO file at full precision. Their image ids are the values of `Annotation.number`. The
    file may contain more images than the split. None if the data is not in COCO's format."""
    annotated: bool = True
    """False for the test images of a challenge if their boxes are not public. These images cannot be used for training,
    and no metrics can be computed on them."""
    notes: tuple[str, ...] = ()
    """Problems of the data and how they are handled, one sentence for each kind of problem."""
    in_memory: bool = False
    """True if all annotations are held in memory, so that iterating over them takes little time."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sizes(self) -> Sequence[tuple[int, int]] | None:
        """Return the (width, height) of each upright image in pixels, or None if this requires reading the images."""

    @abstractmethod
    def annotation(self, index: int) -> Annotation:
        """Return the annotation of the image at an index.

        Raises:
            UserError: If the annotation is read on access, and cannot be read.
        """

    def annotations(self) -> Iterator[Annotation]:
        """Return an iterator over the annotations of all images, in order. Raises UserError like `annotation`."""
        return (self.annotation(index) for index in range(len(self)))

    @abstractmethod
    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image at an index as upright RGB pixels at its original size.

        Raises:
            UserError: If the image cannot be read; the message names the file.
        """

    def encoded_image(self, index: int) -> bytes | None:
        """Return the encoded image at an index as it is stored in a record; None if it is a file or generated."""
        return None

    def reduced_image(self, index: int, canvas: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image at an index, possibly at a reduced size that is still larger than a canvas.

        The caller shrinks the result to fit the canvas. A source that can decode large images faster at a fraction of
        their size overrides this method; by default, the image has its original size.

        Args:
            index: Position of the image in the source.
            canvas: (Height, width) of the canvas in pixels.

        Raises:
            UserError: If the image cannot be read; the message names the file.
        """
        return self.image(index)


def count_dropped_objects(source: Source, data: Data) -> int:
    """Return the number of objects that training drops because an image has more than ``data.max_objects`` objects."""
    images = (keep_trainable_objects(annotation, data.train_on_difficult) for annotation in source.annotations())
    return sum(max(len(image.labels) - data.max_objects, 0) for image in images)


class FolderSource(Source):
    """A split whose annotations are held in memory and whose images are files.

    Args:
        annotations: Annotation of each image.
        class_names: Class names in the order of the labels.
        notes: Problems of the data, see `Source.notes`.
        category_ids: Number of each class in the data set's own files.
        coco_truth: Full COCO annotations, see `Source.coco_truth`.
        annotated: False if the boxes of these images are not public.
    """

    in_memory = True

    def __init__(
        self,
        annotations: Sequence[Annotation],
        class_names: Sequence[str],
        notes: Sequence[str] = (),
        category_ids: Sequence[int] | None = None,
        coco_truth: CocoTruth | None = None,
        annotated: bool = True,
    ):
        self.class_names = tuple(class_names)
        self.category_ids = None if category_ids is None else tuple(category_ids)
        self.coco_truth = coco_truth
        self.annotated = annotated
        self.notes = tuple(notes)
        self._annotations = annotations if isinstance(annotations, AnnotationTable) else AnnotationTable(annotations)
        self._positions: Sequence[int] = range(len(annotations))

    def select(self, positions: Iterable[int]) -> "FolderSource":
        """Return a source with the images at some positions."""
        selected = copy.copy(self)
        selected._positions = [self._positions[position] for position in positions]
        return selected

    def __len__(self) -> int:
        return len(self._positions)

    def sizes(self) -> Sequence[tuple[int, int]]:
        sizes = self._annotations.sizes
        return [sizes[position] for position in self._positions]

    def annotation(self, index: int) -> Annotation:
        return self._annotations[self._positions[index]]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image at an index as upright RGB pixels at its original size.

        Raises:
            UserError: If the file cannot be read, or if the image has another size than its annotation.
        """
        annotation = self.annotation(index)
        image = read_image(annotation.file, (annotation.width, annotation.height))
        _check_size(annotation, (image.shape[1], image.shape[0]))
        return image

    def reduced_image(self, index: int, canvas: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image at an index, at a reduced size if it is a large JPEG file; see `Source.reduced_image`."""
        annotation = self.annotation(index)
        image, size = read_reduced_image(annotation.file, (annotation.width, annotation.height), canvas)
        _check_size(annotation, size)
        return image


def _check_size(annotation: Annotation, size: tuple[int, int]) -> None:
    if size != (annotation.width, annotation.height):
        raise UserError(
            f"{annotation.file}: the image has {size[0]} x {size[1]} pixels, but its annotation was made for "
            f"{annotation.width} x {annotation.height}. Correct the annotation, or restore the original image."
        )


def make_annotation(
    image_id: str,
    file: str,
    size: tuple[int, int],
    boxes_px: Sequence[Sequence[float]],
    labels: Sequence[int],
    difficult: Sequence[bool] | None = None,
    crowd: Sequence[bool] | None = None,
    area_px: Sequence[float] | None = None,
    number: int | None = None,
) -> Annotation:
    """Return an `Annotation` made from lists of numbers.

    Args:
        image_id: Unique identifier of the image.
        file: Path of the image.
        size: Width and height of the image in pixels.
        boxes_px: Boxes, xyxy in pixels.
        labels: Label of each box, from 1.
        difficult: VOC's ``difficult`` flag of each box; all False by default.
        crowd: COCO's ``iscrowd`` flag of each box; all False by default.
        area_px: Area of each object in square pixels; the area of its box by default.
        number: Numeric id of the image in the data set, if it has one.
    """
    boxes = np.asarray(boxes_px, np.float32).reshape(-1, 4)
    no_flags = [False] * len(boxes)
    box_areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Annotation(
        image_id,
        file,
        *size,
        boxes,
        np.asarray(labels, np.int32),
        np.asarray(no_flags if difficult is None else difficult, bool),
        np.asarray(no_flags if crowd is None else crowd, bool),
        np.asarray(box_areas if area_px is None else area_px, np.float32),
        number,
    )


class RawObject(NamedTuple):
    """An object as it is read from an annotation file, before it is checked."""

    where: str
    """Place in the file, for messages: ``object 3``, ``line 7``, ``annotations[41]``."""
    name: str
    """Class name."""
    box_px: tuple[float, float, float, float]
    """Box, xyxy in pixels."""
    difficult: bool = False
    crowd: bool = False
    area_px: float | None = None
    """Area in square pixels; None stands for the area of the box."""


def annotation_from_objects(
    image_id: str,
    image_file: str,
    size: tuple[int, int],
    objects: Iterable[RawObject],
    labels: Mapping[str, int],
    problems: Problems,
    *,
    file: object,
    number: int | None = None,
) -> Annotation:
    """Return the annotation of an image, after checking its objects.

    Objects of an unknown class and objects without an area inside the image are left out. Swapped corners of boxes are
    put in order.

    Args:
        image_id: Unique identifier of the image.
        image_file: Path of the image.
        size: Width and height of the image in pixels.
        objects: Objects in the order of the file.
        labels: Label of each class name.
        problems: Object that collects the problems, or raises errors.
        file: File that the objects were read from. The problems name this file.
        number: Numeric id of the image in the data set, if it has one.

    Raises:
        UserError: If an object is of an unknown class, and ``problems`` raises errors.
    """
    kept: list[RawObject] = []
    first_with: dict[tuple[str, tuple[float, ...]], RawObject] = {}  # by class and box
    for entry in objects:
        if entry.name not in labels:
            problems.add(
                Kind.UNKNOWN_CLASS,
                file,
                f"{entry.where} is of class '{entry.name}', which is not among the classes {join_names(labels)}. "
                f"{suggest_name(entry.name, tuple(labels))}Correct the name, or add the class.",
                group=entry.name,
            )
            continue
        text = f"{entry.where} ({entry.name} {' '.join(f'{edge:g}' for edge in entry.box_px)})"
        ordered = order_corners(entry.box_px)
        if ordered != entry.box_px:
            problems.add(Kind.SWAPPED, file, text)
            entry = entry._replace(box_px=ordered)
        inside = clip_box(entry.box_px, size)
        if inside is None:
            problems.add(Kind.NO_AREA, file, text)
            continue
        if inside != entry.box_px:
            problems.add(Kind.OUT_OF_IMAGE, file, text)
        first = first_with.setdefault((entry.name, entry.box_px), entry)
        if first is not entry:
            problems.add(Kind.DUPLICATE, file, f"{text}, same as {first.where}")
        kept.append(entry)
    areas = [(x2 - x1) * (y2 - y1) if o.area_px is None else o.area_px for o in kept for x1, y1, x2, y2 in [o.box_px]]
    return make_annotation(
        image_id,
        image_file,
        size,
        [o.box_px for o in kept],
        [labels[o.name] for o in kept],
        [o.difficult for o in kept],
        [o.crowd for o in kept],
        areas,
        number,
    )


@lru_cache
def suggest_name(name: str, names: Sequence[str]) -> str:
    """Return a question about the most similar name, followed by a space, or an empty string."""
    similar = difflib.get_close_matches(name, names, 1)
    return f"Did you mean '{similar[0]}'? " if similar else ""


def order_corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Return an xyxy box with its corners in order, so that x1 <= x2 and y1 <= y2."""
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def add_problem_if_normalised(
    objects: Sequence[RawObject], problems: Problems, *, file: object, where: str = ""
) -> None:
    """Add a problem if the boxes of an image look normalised although the format states boxes in pixels.

    Boxes look normalised if all their coordinates are from 0 to 1, and at least one coordinate is neither 0 nor 1.

    Args:
        objects: All objects of the image.
        problems: Object that collects the problem, or raises it.
        file: File that the objects were read from.
        where: Start of the message. It names the image if ``file`` does not.

    Raises:
        UserError: If the boxes look normalised, and ``problems`` raises errors.
    """
    edges = [edge for entry in objects for edge in entry.box_px]
    if edges and all(0 <= edge <= 1 for edge in edges) and any(0 < edge < 1 for edge in edges):
        text = "all coordinates are between 0 and 1, so the boxes look normalised. Write them in pixels."
        problems.add(Kind.MALFORMED, file, f"{where}{text}")


def clip_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Return the part of an xyxy box (in pixels) inside an image of (width, height), or None if this part is empty."""
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[2], float(size[0])), min(box[3], float(size[1]))
    return (left, top, right, bottom) if right > left and bottom > top else None


def read_text(file: Path) -> str:
    """Return the content of a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        UserError: If the file cannot be read or is in another encoding; the message names the file.
    """
    with (
        convert_read_errors(file, "Check its permissions."),
        convert_errors(
            f"{file}: not text in UTF-8", "Save it as UTF-8.", catch=UnicodeDecodeError, reason=_decode_error_reason
        ),
    ):
        text = convert_to_utf8(file.read_bytes()).decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode_error_reason(error: Exception) -> str:
    assert isinstance(error, UnicodeDecodeError)
    return f"{error.reason} at byte {error.start}"


def join_names(names: Iterable[object]) -> str:
    """Return names joined by commas, for a message, or "none" if there are no names."""
    return ", ".join(map(str, names)) or "none"
