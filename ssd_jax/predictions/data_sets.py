"""Detections as data sets in COCO's, YOLO's and VOC's format, to correct in a labelling tool and to train on.

Each data set is a folder of its own with the annotations, and links to the images where the file system has links, or
else copies. `ssd_jax.data` reads these folders.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from ssd_jax.data.image import EXTENSIONS
from ssd_jax.data.source import make_annotation
from ssd_jax.data.writers.folders import CocoWriter, Entry, FolderWriter, VocWriter, YoloWriter
from ssd_jax.files import append_to_file_name, convert_write_errors
from ssd_jax.portability import link_or_copy
from ssd_jax.predictions.formats import COCO_FOLDER, VOC_FOLDER, YOLO_FOLDER
from ssd_jax.predictions.prediction import OUT_ADVICE, Prediction, PredictionWriter, save_image

DataSetFormat = Literal["coco", "yolo", "voc"]
_WRITERS: Mapping[DataSetFormat, tuple[str, Callable[[Path, tuple[str, ...]], FolderWriter]]] = {
    "coco": (COCO_FOLDER, partial(CocoWriter, annotation_folder="")),
    "yolo": (YOLO_FOLDER, YoloWriter),
    "voc": (VOC_FOLDER, VocWriter),
}
"""Name of the folder of the data set, and its writer, by format."""


class DataSetWriter(PredictionWriter):
    """Writer of a data set without splits. COCO's file is complete after `finish`, and the others after each image.

    Args:
        name: Format of the data set.
    """

    def __init__(self, out: Path, class_names: tuple[str, ...], name: DataSetFormat) -> None:
        folder, open_writer = _WRITERS[name]
        super().__init__(out / folder, class_names)
        self._used: set[str] = set()
        self._writer = open_writer(self.out, class_names)
        self._images = self._writer.image_folder("")
        with convert_write_errors(self.out, OUT_ADVICE):
            self._images.mkdir(parents=True, exist_ok=True)
        self._writer.start_split("")

    def write(self, prediction: Prediction) -> None:
        image = self._provide_image(prediction).as_posix()
        found = prediction.detections
        labels = found.labels.tolist()
        annotation = make_annotation(image, image, found.size, [d.box for d in found], labels)
        self._writer.write(Entry(annotation, labels, image, [d.score for d in found]))

    def finish(self) -> None:
        self._writer.finish_split()

    def close(self) -> None:
        self._writer.close()

    def _provide_image(self, prediction: Prediction) -> Path:
        """Put the image of a prediction into the data set, and return its path relative to the folder of images.

        The paths of two images differ in more than their endings, so that each can have its own label file.
        """
        relative = self._choose_name(prediction)
        file = self._images / relative
        if prediction.source is None or relative.suffix.lower() != prediction.source.suffix.lower():
            # The boxes are in pixels of the full size, and the pixels may be those of a reduced one.
            save_image(file, Image.fromarray(prediction.pixels).resize(prediction.detections.size), quality=95)
            return relative
        with convert_write_errors(file, OUT_ADVICE):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            link_or_copy(prediction.source, file, "symlink")
        return relative

    def _choose_name(self, prediction: Prediction) -> Path:
        """Return a name with the ending of the image file, or .jpg if the image has to be written."""
        target, source = prediction.target, prediction.source
        if prediction.frame is not None:  # frames differ in their numbers, and a camera has no last one
            return target.with_suffix(".jpg")
        ending = source.suffix if source is not None and source.suffix.lower() in EXTENSIONS else ".jpg"
        stem = target.stem  # a for a.jpg, and a.png for a.png
        if stem.lower().endswith(ending.lower()):
            stem = stem[: -len(ending)]
        number, first = 2, stem
        while target.with_name(stem).as_posix().casefold() in self._used:
            stem = append_to_file_name(first, f"_{number}")
            number += 1
        self._used.add(target.with_name(stem).as_posix().casefold())
        return target.with_name(append_to_file_name(stem, ending))
