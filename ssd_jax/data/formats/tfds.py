"""Reads data sets that tensorflow-datasets has prepared as ArrayRecord files. TensorFlow is not needed.

Any detection set with the features ``image`` and ``objects/bbox`` can be read; `ssd_jax.data.formats.prepare` makes
the public ones from their archives. Format: https://www.tensorflow.org/datasets/external_tfrecord.
"""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, UInt8

# Not exported, but the only function that finds config and version of a set without running its code, which may
# import TensorFlow, as tfds.builder does.
from tensorflow_datasets.core.read_only_builder import builder_from_files

from ssd_jax.config import Data
from ssd_jax.data.formats.reader import missing_split_error
from ssd_jax.data.image import decode_image, stored_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import Annotation, RawObject, Source, annotation_from_objects, join_names, split_aliases
from ssd_jax.errors import UserError, user_errors

PREFIX = "tfds:"

_NO_LABELS = ("object",)  # class names of a set without labels
_WITHOUT_TRUTH = ("coco/2014", "coco/2017", "voc/2012")  # the boxes of their test images are not public


class TfdsSource(Source):
    """A split of a prepared set. An image and its boxes are one record, which is read on each access.

    ``category_ids`` is None, since tfds renumbers the classes and does not keep COCO's ids.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        class_names: Sequence[str] = (),
        problems: Problems | None = None,
    ):
        """Open a split.

        Args:
            builder: Prepared set.
            split: Name of a split that exists.
            class_names: Class names in the order of their labels. Empty: those of the set.
            problems: Collects problems of boxes whenever an annotation is read. By default, errors are
                raised and warnings ignored.

        Raises:
            UserError: The set has no images with boxes, or a class that is not in ``class_names``.
        """
        info = builder.info
        self._where, self._split = f"{PREFIX}{info.full_name} {split}", split
        self._features = _select_features(self._where, info.features)
        self._set_names = _label_names(self._where, info.features)
        self.class_names = tuple(class_names) or self._set_names
        self.notes = _notes(info)
        self.annotated = not (split.startswith("test") and f"{info.name}/{info.config_name}" in _WITHOUT_TRUTH)
        self._problems = problems
        self._labels = {name: label for label, name in enumerate(self.class_names, 1)}
        unknown = [name for name in self._set_names if name not in self._labels]
        if unknown:
            (problems or Problems()).add(
                Kind.UNKNOWN_CLASS,
                self._where,
                f"its classes {join_names(unknown)} are not among the classes {join_names(self.class_names)}. Use the "
                "data set that the model was trained on.",
            )
        self._records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)

    def __len__(self) -> int:
        return len(self._records)

    def sizes(self) -> None:
        """Return None: the sizes are in the headers of the images, so all records would have to be read."""

    def annotation(self, index: int) -> Annotation:
        """Read the annotation of an image. Boxes without area are left out.

        ``image_id`` is the image's file name without extension, or its id in the set, or the split and the index.

        Raises:
            UserError: The image has no readable header, a coordinate is not from 0 to 1, or a label has no
                name; names the record.
        """
        example, name = self._read(index)
        size = stored_size(example["image"], name)
        boxes = _boxes_px(np.reshape(example["objects"]["bbox"], (-1, 4)).astype(np.float32), size, name)

        def column(feature: str, default: Any) -> Sequence[Any]:
            return example["objects"].get(feature, [default] * len(boxes))

        labels = [int(label) for label in column("label", 0)]
        if not all(0 <= label < len(self._set_names) for label in labels):
            raise UserError(f"{name}: one of its labels {labels} has no name in the set. Correct the set.")
        flags = column("is_difficult", False), column("is_crowd", False)
        objects = [
            RawObject(
                f"object {position}",
                self._set_names[label],
                (box[0], box[1], box[2], box[3]),
                bool(difficult),
                bool(crowd),
                None if area is None else float(area),
            )
            for position, (box, label, difficult, crowd, area) in enumerate(
                zip(boxes.tolist(), labels, *flags, column("area", None), strict=True), 1
            )
        ]
        number = example.get("image/id")
        return annotation_from_objects(
            self._image_id(example, index),
            name,
            size,
            objects,
            self._labels,
            self._problems or Problems(),
            file=name,
            number=number if isinstance(number, int) else None,
        )

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Read an image as stored. EXIF orientation is ignored, since boxes of tfds refer to the pixels as stored.

        Raises:
            UserError: The record contains no image or an incomplete one; names the record.
        """
        example, name = self._read(index)
        return decode_image(example["image"], name)

    def _read(self, index: int) -> tuple[dict[str, Any], str]:
        """Return a record, with its image still encoded, and its name for messages."""
        name = f"{self._where}[{index}]"
        # The reader of ArrayRecord, and tfds while decoding, raise exceptions of many types.
        with user_errors(f"{name}: the file is damaged", "Copy it or prepare the set again."):
            example = self._features.deserialize_example_np(
                self._records[index], decoders={"image": tfds.decode.SkipDecoding()}
            )
        file = _as_text(example.get("image/filename", b""))
        return example, f"{name} ({file})" if file else name

    def _image_id(self, example: dict[str, Any], index: int) -> str:
        file = _as_text(example.get("image/filename", b""))
        if file:
            return str(PurePosixPath(file).with_suffix(""))
        return _as_text(example["image/id"]) if "image/id" in example else f"{self._split}-{index}"


def tfds_dir(data: Data) -> Path:
    """Return the folder of prepared sets: data.tfds_dir, or tfds' default, $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    return Path(data.tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits of a prepared set. Raises UserError as `prepared_builder` does."""
    return tuple(prepared_builder(data).info.splits)


def open_split(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> TfdsSource:
    """Open a split of a prepared set.

    COCO's official metrics cannot be computed from tfds' COCO, which drops category ids and rounds areas down to
    integers. They require the original JSON files.

    Args:
        data: ``data.root`` is ``tfds:NAME``, ``tfds:NAME/CONFIG`` or ``tfds:NAME/CONFIG:VERSION``.
        split: Name of the split.
        class_names: Class names in the order of their labels. Empty: those of the set.
        problems: Collects problems of boxes whenever an annotation is read.

    Raises:
        UserError: The set is not prepared as ArrayRecord, has no images with boxes, has no such split, or
            lacks a file. Unless problems are collected, also for a class that is not in ``class_names``.
    """
    builder = prepared_builder(data)
    splits = builder.info.splits
    name = next((name for name in split_aliases(split) if name in splits), "")
    if not name or not splits[name].num_examples:
        sizes = [f"{name} ({info.num_examples} images)" for name, info in splits.items()]
        raise missing_split_error(data.root, split, sizes, f"there is no split {split!r} with images")
    for file in splits[name].filepaths:
        if not os.path.exists(file):
            raise UserError(f"{file}: this file of {data.root} is missing. Copy it or prepare the set again.")
    return TfdsSource(builder, name, class_names, problems)


# ---- finding a prepared set ----


def prepared_builder(data: Data) -> tfds.core.DatasetBuilder:
    """Return tfds' builder of the prepared set that data.root names.

    Raises:
        UserError: The set is not prepared, or not as ArrayRecord, or data.root is not a valid name.
    """
    name, folder = data.root.removeprefix(PREFIX), tfds_dir(data)
    try:
        builder = builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        existing = join_names(sorted(_prepared_names(folder)))
        raise UserError(
            f"{data.root}: not prepared in '{folder}' (prepared there: {existing}).\n{_how_to_prepare(data)}"
        ) from None
    except ValueError:
        raise UserError(
            f"data.root: '{data.root}' is not a valid name. Write tfds:NAME, tfds:NAME/CONFIG or "
            "tfds:NAME/CONFIG:VERSION, such as tfds:voc/2007."
        ) from None
    formats = [f for f in (builder.info.file_format, *builder.info.alternative_file_formats) if f]
    if tfds.core.FileFormat.ARRAY_RECORD not in formats:
        raise UserError(
            f"{data.root}: '{builder.data_dir}' contains {join_names(f.value for f in formats)} files, which cannot be "
            f"read without TensorFlow. Move that folder, or give another one with --data.tfds_dir.\n"
            f"{_how_to_prepare(data)}"
        )
    return builder


def _how_to_prepare(data: Data) -> str:
    option = f" --data.tfds_dir {data.tfds_dir}" if data.tfds_dir else ""
    return (
        "To prepare it as ArrayRecord from its archives, with TensorFlow installed:\n"
        f"  ssd-jax prepare-data {data.root} --archives FOLDER{option}\n"
        "For a set of your own, in the folder of its code:\n"
        f"  tfds build --file_format=array_record --data_dir={tfds_dir(data)}"
    )


def _prepared_names(folder: Path) -> set[str]:
    """Return the names of the prepared sets in a folder: NAME or NAME/CONFIG."""
    files = [*folder.glob("*/*/dataset_info.json"), *folder.glob("*/*/*/dataset_info.json")]
    return {file.parent.parent.relative_to(folder).as_posix() for file in files}


def _notes(info: tfds.core.DatasetInfo) -> tuple[str, ...]:
    if info.name != "coco":
        return ()
    return (
        "tfds drops COCO's category ids and rounds areas down to integers; for COCO's official metrics, use the folder "
        "with the original JSON files",
    )


# ---- features of a record ----


def _select_features(where: str, features: tfds.features.FeaturesDict) -> tfds.features.FeaturesDict:
    """Return the features that are read here, so that others, such as masks, are not decoded."""
    objects = _inner(features["objects"]) if "objects" in features else None
    if "image" not in features or not isinstance(objects, tfds.features.FeaturesDict) or "bbox" not in objects:
        raise UserError(
            f"{where}: not a set of images with boxes, since the features image and objects/bbox are missing. Its "
            f"features are {join_names(sorted(features))}. Choose another set."
        )
    image, bbox = features["image"], _inner(objects["bbox"])
    if not isinstance(image, tfds.features.Image) or image.np_dtype == np.float32:
        raise UserError(f"{where}: the feature image has neither 8 nor 16 bits per channel, but is {image}.")
    # Sets made before tfds had box formats do not state one. Their boxes are relative.
    box_format = getattr(bbox, "bbox_format", None)
    if not isinstance(bbox, tfds.features.BBoxFeature) or (box_format and box_format.value != "REL_YXYX"):
        raise UserError(f"{where}: the feature objects/bbox is not in tfds' usual format REL_YXYX, but is {bbox}.")
    names = ("bbox", "label", "is_difficult", "is_crowd", "area")
    selected = {name: objects[name] for name in names if name in objects}
    # A sequence of objects and an object of sequences are stored in the same way.
    sequence = type(features["objects"]) is tfds.features.Sequence
    optional = {name: features[name] for name in ("image/filename", "image/id") if name in features}
    return tfds.features.FeaturesDict({
        "image": image, "objects": tfds.features.Sequence(selected) if sequence else selected, **optional
    })  # fmt: skip


def _label_names(where: str, features: tfds.features.FeaturesDict) -> tuple[str, ...]:
    objects = _inner(features["objects"])
    if "label" not in objects:
        return _NO_LABELS
    label = _inner(objects["label"])
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise UserError(f"{where}: the feature objects/label is not a ClassLabel with names, but is {label}.")
    return tuple(label.names)


def _inner(feature: Any) -> Any:
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def _boxes_px(bbox: Float32[np.ndarray, "g 4"], size: tuple[int, int], name: str) -> Float32[np.ndarray, "g 4"]:
    """Convert normalised ymin, xmin, ymax, xmax to xyxy in pixels of an image of (width, height)."""
    if not ((bbox >= 0) & (bbox <= 1)).all():
        raise UserError(f"{name}: its boxes {bbox.tolist()} are not all from 0 to 1. Correct the set.")
    width, height = size
    # In float64, integer coordinates become integers again, or their neighbours.
    return (bbox[:, [1, 0, 3, 2]].astype(np.float64) * (width, height, width, height)).astype(np.float32)


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
