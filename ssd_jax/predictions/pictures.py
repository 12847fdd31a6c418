"""Pictures of detections: images with boxes, and the parts of images that are in boxes."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_jax.drawing.boxes import class_colours, draw_boxes
from ssd_jax.files import append_to_file_name, convert_write_errors, make_safe_file_name
from ssd_jax.predictions.formats import CROP_FOLDER
from ssd_jax.predictions.prediction import OUT_ADVICE, Prediction, PredictionWriter, save_image


@dataclass(frozen=True)
class DrawingOptions:
    """Appearance of boxes and labels, see `draw_boxes`."""

    line_width: int | None = None
    show_labels: bool = True
    show_scores: bool = True


DEFAULT_DRAWING = DrawingOptions()


class PictureWriter(PredictionWriter):
    """Writer of the images with their boxes. Frames of videos are left out, because a video is one file."""

    def __init__(self, out: Path, class_names: tuple[str, ...], drawing: DrawingOptions = DEFAULT_DRAWING) -> None:
        super().__init__(out, class_names)
        self._drawing, self._colours = drawing, class_colours(class_names)

    def draw(self, prediction: Prediction) -> Image.Image:
        """Return an image or frame with its boxes."""
        return draw_boxes(
            prediction.pixels,
            prediction.boxes_in_pixels,
            [d.name for d in prediction.detections],
            prediction.detections.scores,
            colours=self._colours,
            line_width=self._drawing.line_width,
            show_labels=self._drawing.show_labels,
            show_scores=self._drawing.show_scores,
        )

    def encode(self, prediction: Prediction) -> bytes:
        """Return the content of the file of an image with its boxes."""
        stream = io.BytesIO()
        self.draw(prediction).save(stream, "JPEG", quality=92)
        return stream.getvalue()

    def write(self, prediction: Prediction, content: bytes | None = None) -> None:
        """Write the image with its boxes.

        Args:
            prediction: The prediction.
            content: What `encode` returned for it. None: it is encoded now.
        """
        if prediction.frame is not None:
            return
        file = self.out / prediction.target
        with convert_write_errors(file, OUT_ADVICE):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.encode(prediction) if content is None else content)


class CropWriter(PredictionWriter):
    """Writer of ``crops/CLASS/IMAGE_NUMBER.jpg``: the part of the image in each box, numbered from 1, best first."""

    def __init__(self, out: Path, class_names: tuple[str, ...]) -> None:
        super().__init__(out, class_names)
        self._folders = make_class_folders(class_names)

    def write(self, prediction: Prediction) -> None:
        height, width = prediction.pixels.shape[:2]
        limits = (width, height, width, height)
        for number, (detection, box) in enumerate(
            zip(prediction.detections, prediction.boxes_in_pixels, strict=True), start=1
        ):
            low, high = np.floor(box[:2]), np.maximum(np.ceil(box[2:]), np.floor(box[:2]) + 1)
            x1, y1, x2, y2 = np.clip([*low, *high], 0, limits).astype(int).tolist()
            if x1 == x2 or y1 == y2:  # a box on the border of the image
                continue
            name = append_to_file_name(prediction.target.stem, f"_{number}.jpg")
            file = self.out / CROP_FOLDER / self._folders[detection.name] / prediction.target.with_name(name)
            save_image(file, Image.fromarray(prediction.pixels[y1:y2, x1:x2]), quality=95)


def make_class_folders(class_names: tuple[str, ...]) -> dict[str, str]:
    """Return a different name of a folder for each class, which is safe on all systems."""
    folders: dict[str, str] = {}
    used: set[str] = set()
    for label, name in enumerate(class_names, start=1):
        folder = make_safe_file_name(name) or f"class_{label}"
        if folder.casefold() in used:
            folder = f"{folder}_{label}"
        used.add(folder.casefold())
        folders[name] = folder
    return folders
