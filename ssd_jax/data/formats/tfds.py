"""Sets that tensorflow-datasets has prepared, read from ArrayRecord files without TensorFlow.

Any detection set with the features ``image`` and ``objects/bbox``; `ssd_jax.data.formats.prepare` makes the
public ones from their archives. Format: https://www.tensorflow.org/datasets/external_tfrecord.
"""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, UInt8
from tensorflow_datasets.core import constants
from tensorflow_datasets.core.features.bounding_boxes_utils import BBoxFormat
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.core.read_only_builder import builder_from_files

from ssd_jax.config import Data
from ssd_jax.data.image import decode_image, stored_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import Annotation, RawObject, Source, annotation_from_objects, join_names, split_aliases
from ssd_jax.errors import UserError

PREFIX = "tfds:"

_UNNAMED = ("object",)  # the one class of a set without labels
_WITHOUT_TRUTH = ("coco/2014", "coco/2017", "voc/2012")  # of their test images the boxes are not public


class TfdsSource(Source):
    """A split of a prepared set. An image and its boxes are one record, read when either is asked for."""

    category_ids: tuple[int, ...] | None = None
    """tfds numbers the classes anew; COCO's own numbers are not kept."""
    in_memory = False

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        class_names: Sequence[str] = (),
        problems: Problems | None = None,
    ):
        """problems: what is wrong with boxes is added to them whenever an annotation is read."""
        info = builder.info
        self._where, self._split = f"{PREFIX}{info.full_name} {split}", split
        self._features = _read_features(self._where, info.features)
        self._own_names = _label_names(self._where, info.features)
        self.class_names = tuple(class_names) or self._own_names
        self.notes = _notes(info)
        self.annotated = not (split.startswith("test") and f"{info.name}/{info.config_name}" in _WITHOUT_TRUTH)
        self._problems = problems
        self._labels = {name: label for label, name in enumerate(self.class_names, 1)}
        unknown = [name for name in self._own_names if name not in self._labels]
        if unknown:
            (problems or Problems()).add(
                Kind.UNKNOWN_CLASS,
                self._where,
                f"its classes {join_names(unknown)} are not among the classes {join_names(self.class_names)}. Name the "
                "data that the model was trained on.",
            )
        self._records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)

    def __len__(self) -> int:
        return len(self._records)

    def sizes(self) -> None:
        """Unknown: the size is in the image's header, and all records would have to be read."""

    def annotation(self, index: int) -> Annotation:
        """image_id is the image's file name without its ending, else its id in the set, else the split and
        the position. Boxes without area are left out.

        Raises UserError, naming the record, for an image without a readable header, a coordinate that
        is not from 0 to 1, and a label without a name.
        """
        example, name = self._read(index)
        size = stored_size(example["image"], name)
        boxes = _boxes_px(np.reshape(example["objects"]["bbox"], (-1, 4)).astype(np.float32), size, name)

        def column(feature: str, default: Any) -> Sequence[Any]:
            return example["objects"].get(feature, [default] * len(boxes))

        labels = [int(label) for label in column("label", 0)]
        if not all(0 <= label < len(self._own_names) for label in labels):
            raise UserError(f"{name}: one of its labels {labels} has no name in the set. Correct the set.")
        flags = column("is_difficult", False), column("is_crowd", False)
        objects = [
            RawObject(
                f"object {position}",
                self._own_names[label],
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
        """As stored: tfds lays boxes on the pixels as stored, so EXIF's orientation turns neither.

        Raises UserError, naming the record, if it holds no image or one that ends early.
        """
        example, name = self._read(index)
        return decode_image(example["image"], name)

    def _read(self, index: int) -> tuple[dict[str, Any], str]:
        """The record, its image still encoded, and its name for a message."""
        name = f"{self._where}[{index}]"
        try:
            example = self._features.deserialize_example_np(
                self._records[index], decoders={"image": tfds.decode.SkipDecoding()}
            )
        except Exception as error:  # of the ArrayRecord reader, or of tfds for what it read: of any class
            raise UserError(f"{name}: its file is damaged ({error}). Copy or prepare it again.") from error
        file = _text(example.get("image/filename", b""))
        return example, f"{name} ({file})" if file else name

    def _image_id(self, example: dict[str, Any], index: int) -> str:
        file = _text(example.get("image/filename", b""))
        if file:
            return str(PurePosixPath(file).with_suffix(""))
        return _text(example["image/id"]) if "image/id" in example else f"{self._split}-{index}"


def tfds_dir(data: Data) -> Path:
    """The folder that holds all prepared sets: data.tfds_dir, else tfds' own, $TFDS_DATA_DIR or
    ~/tensorflow_datasets."""
    return Path(data.tfds_dir or constants.DATA_DIR).expanduser()


def tfds_splits(data: Data) -> tuple[str, ...]:
    """Names of the splits of a prepared set. Raises UserError as `open_tfds` does."""
    return tuple(prepared_builder(data).info.splits)


def open_tfds(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> TfdsSource:
    """One split of the prepared set that data.root names.

    COCO's official numbers can't be had from tfds' COCO, which keeps no category ids and cuts areas
    to whole numbers: they need the original JSON files.

    class_names: the classes, in the order of their labels. Empty: those of the set.
    problems: collects what is wrong with boxes, whenever an annotation is read.

    Raises UserError for a set that is not prepared, or not as ArrayRecord, that has no images with
    boxes, has no such split, lacks a file, or, unless problems are collected, has a class that is not
    in class_names.
    """
    builder = prepared_builder(data)
    splits = builder.info.splits
    name = next((name for name in split_aliases(split) if name in splits), "")
    if not name or not splits[name].num_examples:
        known = join_names(f"{name} ({info.num_examples} images)" for name, info in splits.items())
        raise UserError(f"{data.root}: there is no split '{split}' with images. Its splits: {known}.")
    for file in splits[name].filepaths:
        if not os.path.exists(file):
            raise UserError(f"{file}: this file of {data.root} is missing. Copy it again, or prepare the set again.")
    return TfdsSource(builder, name, class_names, problems)


# ---- finding a prepared set ----


def prepared_builder(data: Data) -> tfds.core.DatasetBuilder:
    """tfds' own view of a prepared set. Raises UserError if it is not there, or not as ArrayRecord."""
    name, folder = data.root.removeprefix(PREFIX), tfds_dir(data)
    try:
        builder = builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        there = sorted(_names_in(folder))
        raise UserError(
            f"{data.root}: not prepared in '{folder}' (there: {join_names(there)}).\n{_how_to(data)}"
        ) from None
    except ValueError:
        raise UserError(
            f"data.root: '{data.root}' is no name of a tfds set. Write tfds:NAME, tfds:NAME/CONFIG or "
            "tfds:NAME/CONFIG:VERSION, such as tfds:voc/2007."
        ) from None
    found = {builder.info.file_format, *builder.info.alternative_file_formats}
    if FileFormat.ARRAY_RECORD not in found:
        formats = ", ".join(f.value for f in found if f)
        raise UserError(
            f"{data.root}: prepared as {formats} in '{builder.data_dir}', which can't be read without TensorFlow. Move "
            f"that folder away, or name another with --data.tfds_dir.\n{_how_to(data)}"
        )
    return builder


def _how_to(data: Data) -> str:
    where = f" --data.tfds_dir {data.tfds_dir}" if data.tfds_dir else ""
    return (
        "To prepare it as ArrayRecord from its archives, where TensorFlow is installed:\n"
        f"  ssd-jax prepare-data {data.root} --archives FOLDER{where}\n"
        "A set of your own, in the folder of its code:\n"
        f"  tfds build --file_format=array_record --data_dir={tfds_dir(data)}"
    )


def _names_in(folder: Path) -> set[str]:
    """Prepared sets: name, or name/config."""
    files = [*folder.glob("*/*/dataset_info.json"), *folder.glob("*/*/*/dataset_info.json")]
    return {file.parent.parent.relative_to(folder).as_posix() for file in files}


def _notes(info: tfds.core.DatasetInfo) -> tuple[str, ...]:
    if info.name != "coco":
        return ()
    return (
        "tfds keeps no category ids of COCO and cuts areas to whole numbers; for COCO's official numbers name the "
        "folder of the original JSON files",
    )


# ---- what a record holds ----


def _read_features(where: str, features: tfds.features.FeaturesDict) -> tfds.features.FeaturesDict:
    """Those that are read here. What else a set has, masks say, is then not decoded."""
    objects = _item(features["objects"]) if "objects" in features else None
    if "image" not in features or not isinstance(objects, tfds.features.FeaturesDict) or "bbox" not in objects:
        raise UserError(
            f"{where}: no set of images with boxes, which has the features image and objects/bbox. "
            f"Its features: {join_names(sorted(features))}."
        )
    image, bbox = features["image"], _item(objects["bbox"])
    if not isinstance(image, tfds.features.Image) or image.np_dtype == np.float32:
        raise UserError(f"{where}: its feature image is not of 8 or 16 bit pixels, but {image}.")
    # Sets from before tfds knew of formats state none, and are relative.
    if not isinstance(bbox, tfds.features.BBoxFeature) or bbox.bbox_format not in (None, BBoxFormat.REL_YXYX):
        raise UserError(f"{where}: its feature objects/bbox is not in tfds' usual format REL_YXYX, but {bbox}.")
    names = ("bbox", "label", "is_difficult", "is_crowd", "area")
    read = {name: objects[name] for name in names if name in objects}
    # Either a sequence of objects, or an object of sequences: the records are the same.
    sequence = type(features["objects"]) is tfds.features.Sequence
    optional = {name: features[name] for name in ("image/filename", "image/id") if name in features}
    return tfds.features.FeaturesDict({
        "image": image, "objects": tfds.features.Sequence(read) if sequence else read, **optional
    })  # fmt: skip


def _label_names(where: str, features: tfds.features.FeaturesDict) -> tuple[str, ...]:
    objects = _item(features["objects"])
    if "label" not in objects:
        return _UNNAMED
    label = _item(objects["label"])
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise UserError(f"{where}: its feature objects/label is not a ClassLabel with names, but {label}.")
    return tuple(label.names)


def _item(feature: Any) -> Any:
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def _boxes_px(bbox: Float32[np.ndarray, "g 4"], size: tuple[int, int], name: str) -> Float32[np.ndarray, "g 4"]:
    """tfds' ymin, xmin, ymax, xmax from 0 to 1 to xyxy in pixels of an image of (width, height)."""
    if not ((bbox >= 0) & (bbox <= 1)).all():
        raise UserError(f"{name}: its boxes {bbox.tolist()} are not all from 0 to 1. Correct the set.")
    width, height = size
    # Twice the precision: a box of whole pixels is whole again, or next to it.
    return (bbox[:, [1, 0, 3, 2]].astype(np.float64) * (width, height, width, height)).astype(np.float32)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
