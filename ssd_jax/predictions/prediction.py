"""The detections in one image or frame with all that files about them contain, and the base class of the writers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ssd_jax.files import convert_write_errors
from ssd_jax.inference.results import Detections

OUT_ADVICE = "Name another --out."


@dataclass(frozen=True)
class Prediction:
    """The detections in one image of the user, or in one frame of a video."""

    file: str
    """The image or video as the user named it: a path or an address."""
    target: Path
    """Path of the picture with boxes relative to the output folder. Each prediction has a different one."""
    pixels: UInt8[np.ndarray, "h w 3"]
    """RGB pixels, which may be those of the image at a reduced size."""
    detections: Detections
    """The detections, in pixels of the image at full size, which is their ``size``."""
    source: Path | None = None
    """The image file. None for frames and for images that are not on this machine."""
    frame: int | None = None
    """Number of the frame in the video, from 0. None for an image."""

    @property
    def boxes_in_pixels(self) -> Float32[np.ndarray, "k 4"]:
        """Boxes as xyxy in pixels of ``pixels``."""
        return self.detections.boxes * np.float32(self.pixels.shape[1] / self.detections.size[0])


class PredictionWriter:
    """Writer of one kind of files. It needs the same memory for any number of predictions.

    Args:
        out: The output folder, which exists.
        class_names: Names of all classes, in the order of their labels.
    """

    def __init__(self, out: Path, class_names: tuple[str, ...]) -> None:
        self.out, self.class_names = out, class_names

    def write(self, prediction: Prediction) -> None:
        """Write a prediction.

        Raises:
            UserError: If a file cannot be written.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Write what can be written only after the last prediction."""

    def close(self) -> None:
        """Close all files. Without a call of `finish` before it, remove the temporary ones."""


def save_image(file: Path, image: Any, quality: int) -> None:
    """Save a Pillow image as a JPEG file, in a folder that may not exist yet."""
    with convert_write_errors(file, OUT_ADVICE):
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file, "JPEG", quality=quality)
