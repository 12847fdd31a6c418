"""What a data set is to the rest of the program: annotations and images by position."""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8


class Annotation(NamedTuple):
    """What a data set says about one image, before anything is resized or normalised."""

    image_id: str
    """Unique in the data set; a VOC file's stem, a COCO file name."""
    file: str
    """Path for messages; for generated pictures a description."""
    width: int
    height: int
    """Pixels of the upright original image."""
    boxes_px: Float32[np.ndarray, "g 4"]
    """xyxy, pixels of the original image, as the file has them."""
    labels: Int32[np.ndarray, " g"]
    """1..C; positions in Source.class_names plus one."""
    difficult: Bool[np.ndarray, " g"]
    crowd: Bool[np.ndarray, " g"]
    """COCO's iscrowd; never trained on."""
    area_px: Float32[np.ndarray, " g"]
    """COCO's area, that of the segment; elsewhere the box's."""


class Source(Protocol):
    """A split of a data set. Random access, no state, safe to read from many threads."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def annotation(self, index: int) -> Annotation: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """RGB, upright, original size. Raises UserError with the file's name if it can't be read."""
        ...
