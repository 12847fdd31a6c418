"""What a data set is to the rest of the program: annotations and images by position."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from ssd_jax.data.image import read_image
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


@runtime_checkable
class Source(Protocol):
    """A split of a data set. Random access, no state, safe to read from many threads."""

    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    """What was found odd and how it was taken, one sentence each, for the program to print."""

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """Width and height, pixels of the upright original image."""
        ...

    def annotation(self, index: int) -> Annotation: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB, upright, original size. Raises UserError with the file's name if it can't be read."""
        ...


class FolderSource:
    """A split whose annotations are held in memory and whose images are files."""

    def __init__(self, annotations: Sequence[Annotation], class_names: Sequence[str], notes: Sequence[str] = ()):
        self.class_names = tuple(class_names)
        self.notes = tuple(notes)
        self._annotations = tuple(annotations)

    def __len__(self) -> int:
        return len(self._annotations)

    def size(self, index: int) -> tuple[int, int]:
        return self._annotations[index].width, self._annotations[index].height

    def annotation(self, index: int) -> Annotation:
        return self._annotations[index]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Raises UserError if the file can't be read, or has another size than its boxes were drawn for."""
        annotation = self._annotations[index]
        stated = (annotation.width, annotation.height)
        image = read_image(annotation.file, stated)
        found = (image.shape[1], image.shape[0])
        if found != stated:
            raise UserError(
                f"{annotation.file}: the image is {found[0]} x {found[1]} pixels, but its annotation was made for "
                f"{stated[0]} x {stated[1]}. Correct the annotation, or put the image back that it belongs to."
            )
        return image


def make_annotation(
    image_id: str,
    file: str,
    size: tuple[int, int],
    boxes_px: Sequence[Sequence[float]],
    labels: Sequence[int],
    difficult: Sequence[bool] | None = None,
    crowd: Sequence[bool] | None = None,
    area_px: Sequence[float] | None = None,
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
    )


def clip_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The part of an xyxy box inside an image of (width, height); None where that has no area."""
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[2], float(size[0])), min(box[3], float(size[1]))
    return (left, top, right, bottom) if right > left and bottom > top else None


def held_out(image_ids: Sequence[str], fraction: float) -> list[bool]:
    """Which images are for validation where the data set doesn't say, by a hash of the image's id.

    An image keeps its side when others are added or removed. Of two images or more at least one
    lies on either side.
    """
    shares = [int.from_bytes(hashlib.blake2b(i.encode(), digest_size=8).digest()) / 2**64 for i in image_ids]
    held = [share < fraction for share in shares]
    if len(held) > 1 and len(set(held)) == 1:
        held[shares.index(max(shares) if held[0] else min(shares))] ^= True
    return held


def summarise(problems: Sequence[str], what: str) -> list[str]:
    """One note for problems of one kind, with the first few named; none for none."""
    if not problems:
        return []
    shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
    return [f"{len(problems)} {what}: {shown}"]
