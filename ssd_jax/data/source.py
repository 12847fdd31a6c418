"""What a data set is to the rest of the program: annotations and images by position."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from ssd_jax.data.image import read_image, read_reduced_image
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError


class Annotation(NamedTuple):
    """What a data set says about one image, before anything is resized or normalised."""

    image_id: str
    """Unique in the data set; a VOC file's stem, a COCO file name."""
    file: str
    """Path of the image; for generated pictures a description."""
    width: int
    height: int
    """Pixels of the upright original image."""
    boxes_px: Float32[np.ndarray, "g 4"]
    """xyxy, pixels of the original image, as the file has them: some may reach beyond the image,
    but each has an area inside it."""
    labels: Int32[np.ndarray, " g"]
    """1..C; positions in Source.class_names plus one."""
    difficult: Bool[np.ndarray, " g"]
    crowd: Bool[np.ndarray, " g"]
    """COCO's iscrowd; never trained on."""
    area_px: Float32[np.ndarray, " g"]
    """COCO's area, that of the segment; elsewhere the box's."""
    number: int | None = None
    """The data set's own number of the image, COCO's id; None where it has none."""


class CocoTruth(NamedTuple):
    """The objects of a COCO file with all their digits, those without an area inside their image included.

    COCO's official numbers are made of these. Rows are in the order of the file.
    """

    image_ids: Int64[np.ndarray, " t"]
    category_ids: Int64[np.ndarray, " t"]
    boxes_px_xywh: Float64[np.ndarray, "t 4"]
    area_px: Float64[np.ndarray, " t"]
    crowd: Bool[np.ndarray, " t"]


class Source(ABC):
    """A split of a data set: random access to its annotations and images, safe to use from many threads.

    A subclass sets `class_names` and defines `__len__`, `sizes`, `annotation` and `image`.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...] | None = None
    """Number of each class in the data set's own files (COCO's category id), if it has such numbers."""
    coco_truth: CocoTruth | None = None
    """COCO's annotations with all digits, addressed by `Annotation.number`; None if the data is not COCO's. It
    may contain more images than the split."""
    annotated: bool = True
    """False for the test images of a challenge whose boxes are not public: they cannot be trained or measured on."""
    notes: tuple[str, ...] = ()
    """Oddities of the data and how they are handled, one sentence each, to be printed."""
    in_memory: bool = False
    """Whether all annotations are held in memory, so that reading every one of them is cheap."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sizes(self) -> Sequence[tuple[int, int]] | None:
        """Return the (width, height) of each upright image in pixels, or None if that requires reading the images."""

    @abstractmethod
    def annotation(self, index: int) -> Annotation:
        """Return the annotation of an image.

        Raises:
            UserError: the annotation is stored with the image and cannot be read.
        """

    def annotations(self) -> Iterator[Annotation]:
        """Iterate over the annotations of all images, in order. Raises as `annotation` does."""
        return (self.annotation(index) for index in range(len(self)))

    @abstractmethod
    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return an image as upright RGB pixels at its original size.

        Raises:
            UserError: the image cannot be read; the message names the file.
        """

    def reduced_image(self, index: int, canvas: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """Return an image that will be shrunk to fit a canvas of (height, width).

        A source that can decode large images faster at a fraction of their size overrides this method. The
        result is then smaller than `image`, but larger than what fits the canvas. Raises as `image` does.
        """
        return self.image(index)


class FolderSource(Source):
    """A split whose annotations are held in memory and whose images are files."""

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
        self._annotations = tuple(annotations)

    def __len__(self) -> int:
        return len(self._annotations)

    def sizes(self) -> Sequence[tuple[int, int]]:
        return [(annotation.width, annotation.height) for annotation in self._annotations]

    def annotation(self, index: int) -> Annotation:
        return self._annotations[index]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Raises UserError if the file can't be read, or has another size than its boxes were drawn for."""
        annotation = self._annotations[index]
        image = read_image(annotation.file, (annotation.width, annotation.height))
        _check_size(annotation, (image.shape[1], image.shape[0]))
        return image

    def reduced_image(self, index: int, canvas: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        """Decode JPEG files at a fraction of their size. Raises as `image` does."""
        annotation = self._annotations[index]
        image, size = read_reduced_image(annotation.file, (annotation.width, annotation.height), canvas)
        _check_size(annotation, size)
        return image


def _check_size(annotation: Annotation, found: tuple[int, int]) -> None:
    if found != (annotation.width, annotation.height):
        raise UserError(
            f"{annotation.file}: the image is {found[0]} x {found[1]} pixels, but its annotation was made for "
            f"{annotation.width} x {annotation.height}. "
            "Correct the annotation, or put the image back that it belongs to."
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
    """An Annotation from plain lists; size is (width, height). No flags: all False; no areas: the boxes'."""
    boxes = np.asarray(boxes_px, np.float32).reshape(-1, 4)
    none = [False] * len(boxes)
    box_areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Annotation(
        image_id,
        file,
        *size,
        boxes,
        np.asarray(labels, np.int32),
        np.asarray(none if difficult is None else difficult, bool),
        np.asarray(none if crowd is None else crowd, bool),
        np.asarray(box_areas if area_px is None else area_px, np.float32),
        number,
    )


class RawObject(NamedTuple):
    """An object as its file has it, before anything about it was judged."""

    where: str
    """Its place in the file: object 3, line 7, annotations[41]."""
    name: str
    box_px: tuple[float, float, float, float]
    """xyxy."""
    difficult: bool = False
    crowd: bool = False
    area_px: float | None = None
    """None: the box's."""


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
    """The annotation of an image of (width, height), and what is wrong with its objects.

    An object of a class without a label, and one without an area inside the image, is left out.
    file: where the objects were read, for the problems to name.
    """
    kept: list[RawObject] = []
    for entry in objects:
        if entry.name not in labels:
            problems.add(
                Kind.UNKNOWN_CLASS,
                file,
                f"{entry.where} is of class '{entry.name}', which is not among the classes {join_names(labels)}. "
                "Correct the name, or add the class.",
            )
            continue
        what = f"{entry.where} ({entry.name} {' '.join(f'{edge:g}' for edge in entry.box_px)})"
        inside = clip_box(entry.box_px, size)
        if inside is None:
            problems.add(Kind.NO_AREA, file, what + _reversed(entry.box_px))
            continue
        if inside != entry.box_px:
            problems.add(Kind.OUT_OF_IMAGE, file, what)
        twin = next((k for k in kept if k.name == entry.name and k.box_px == entry.box_px), None)
        if twin is not None:
            problems.add(Kind.DUPLICATE, file, f"{what}, as {twin.where}")
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


def _reversed(box: Sequence[float]) -> str:
    """What of an xyxy box is in the wrong order, for the end of a message; empty where nothing is."""
    wrong = [
        f"{axis}max is below {axis}min" for axis, low, high in zip("xy", box[:2], box[2:], strict=True) if high < low
    ]
    return f": {' and '.join(wrong)} (corners swapped, or a size below 0?)" if wrong else ""


def warn_if_normalised(objects: Sequence[RawObject], problems: Problems, *, file: object, where: str = "") -> None:
    """For a format of pixels: tells of an image whose boxes all lie in its first pixel, with fractions of it."""
    edges = [edge for entry in objects for edge in entry.box_px]
    if edges and all(0 <= edge <= 1 for edge in edges) and any(0 < edge < 1 for edge in edges):
        text = "its boxes lie between 0 and 1, and look like shares of the image. Write them in pixels."
        problems.add(Kind.MALFORMED, file, f"{where}{text}")


def clip_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The part of an xyxy box inside an image of (width, height); None where that has no area."""
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[2], float(size[0])), min(box[3], float(size[1]))
    return (left, top, right, bottom) if right > left and bottom > top else None


def hash_split(image_ids: Sequence[str], fraction: float) -> list[bool]:
    """Which images are for validation where the data set doesn't say, by a hash of the image's id.

    An image keeps its side when others are added or removed. Of two images or more at least one
    lies on either side.
    """
    shares = [int.from_bytes(hashlib.blake2b(i.encode(), digest_size=8).digest()) / 2**64 for i in image_ids]
    held = [share < fraction for share in shares]
    if len(held) > 1 and len(set(held)) == 1:
        held[shares.index(max(shares) if held[0] else min(shares))] ^= True
    return held


_SPLIT_NAME = re.compile(r"(train|trainval|val|valid|validation|minival|test|test-dev)[-_]?\d*")


def is_split_name(name: str) -> bool:
    """Whether files and folders of this name are likely to be a split: train, val2017, ..."""
    return _SPLIT_NAME.fullmatch(name) is not None


def split_aliases(split: str) -> tuple[str, ...]:
    """Names under which folders have a split, the one asked for first."""
    same = ("val", "valid", "validation")
    return (split, *(name for name in same if name != split)) if split in same else (split,)


def path_suffixes(path: str) -> list[str]:
    """What a path that was written elsewhere, perhaps on Windows, may mean here: itself, and it without its first
    folders, the fewest first."""
    parts = Path(path.replace("\\", "/")).parts
    return [path, *(str(Path(*parts[start:])) for start in range(len(parts)))]


def read_text(file: Path) -> str:
    """Raises UserError, naming the file, where it is not text in UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: not text in UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror}). Check its permissions.") from error


def join_names(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"
