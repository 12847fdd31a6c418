"""Read data sets that tensorflow-datasets (tfds) has prepared as ArrayRecord files. TensorFlow is not needed.

Any data set with the features ``image`` and ``objects/bbox`` can be read. `ssd_jax.data.formats.prepare` prepares
public data sets from their archives. Format: https://www.tensorflow.org/datasets/external_tfrecord.
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, UInt8

# This function is not exported, but it is the only one that finds the config and the version of a data set without
# running the code of the data set. tfds.builder runs this code, which may import TensorFlow.
from tensorflow_datasets.core.read_only_builder import builder_from_files

from ssd_jax.config import Data
from ssd_jax.data.formats.reader import missing_split_error
from ssd_jax.data.image import decode_image, stored_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import Annotation, RawObject, Source, annotation_from_objects, join_names
from ssd_jax.errors import UserError, convert_errors

PREFIX = "tfds:"

_NO_LABELS = ("object",)  # class names of a data set without labels
_WITHOUT_TRUTH = ("coco/2014", "coco/2017", "voc/2012")  # data sets whose test images have no public boxes


class TfdsSource(Source):
    """A split of a data set that tfds has prepared. Image and boxes are stored in one record, which is read on access.

    ``category_ids`` is None, since tfds renumbers the classes and does not keep COCO's ids.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        class_names: Sequence[str] = (),
        problems: Problems | None = None,
    ):
        """Open a split of a prepared data set.

        Args:
            builder: Prepared data set.
            split: Name of a split that exists.
            class_names: Class names in the order of their labels. Empty: the class names of the data set.
            problems: Object that collects the problems of boxes whenever an annotation is read. By default, errors
                are raised and warnings are ignored.

        Raises:
            UserError: If the data set has no images with boxes, or has a class that is not in ``class_names`` and
                ``problems`` raises errors.
        """
        info = builder.info
        self._where, self._split = f"{PREFIX}{info.full_name} {split}", split
        self._features = _select_features(self._where, info.features)
        self._set_names = _label_names(self._where, info.features)
        self.class_names = tuple(class_names) or self._set_names
        self.notes = _data_set_notes(info)
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
        """Return None, because all records would have to be read to know the sizes of the images."""

    def annotation(self, index: int) -> Annotation:
        """Return the annotation of the image at an index. Boxes without an area are left out.

        ``image_id`` is the file name of the image without extension. If the data set does not store file names, it is
        the id of the image or, if there are no ids either, the name of the split and the index.

        Raises:
            UserError: If the image has no readable header, a coordinate is not from 0 to 1, or a label has no
                name; the message names the record.
        """
        example, name = self._read_record(index)
        size = stored_size(example["image"], name)
        boxes = _boxes_px(np.reshape(example["objects"]["bbox"], (-1, 4)).astype(np.float32), size, name)

        def object_feature(name: str, default: Any) -> Sequence[Any]:
            return example["objects"].get(name, [default] * len(boxes))

        labels = [int(label) for label in object_feature("label", 0)]
        if not all(0 <= label < len(self._set_names) for label in labels):
            raise UserError(f"{name}: one of its labels {labels} has no name in the data set. Correct the data set.")
        flags = object_feature("is_difficult", False), object_feature("is_crowd", False)
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
                zip(boxes.tolist(), labels, *flags, object_feature("area", None), strict=True), 1
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
        """Return the image at an index as RGB pixels.

        The image is not rotated by its EXIF orientation, since boxes of tfds refer to the pixels as stored.

        Raises:
            UserError: If the record contains no image or a truncated image; the message names the record.
        """
        example, name = self._read_record(index)
        return decode_image(example["image"], name)

    def encoded_image(self, index: int) -> bytes:
        """Return the encoded image at an index as it is stored."""
        return bytes(self._read_record(index)[0]["image"])

    def _read_record(self, index: int) -> tuple[dict[str, Any], str]:
        """Return the record at an index, with its image still encoded, and the name of the record for messages."""
        name = f"{self._where}[{index}]"
        # The reader of ArrayRecord, and tfds while decoding, raise exceptions of many types.
        with convert_errors(f"{name}: the file is damaged", "Copy it or prepare the data set again."):
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
    """Return the folder that contains the prepared data sets of tfds.

    It is ``data.tfds_dir``, or the default of tfds: $TFDS_DATA_DIR or ~/tensorflow_datasets.
    """
    return Path(data.tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits of a prepared data set. Raises UserError as `prepared_builder` does."""
    return tuple(prepared_builder(data).info.splits)


def open_split(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> TfdsSource:
    """Open a split of a prepared data set.

    The COCO data set of tfds has no category ids, and its areas are rounded down to integers. COCO's official metrics
    therefore require the original JSON files.

    Args:
        data: ``data.root`` is ``tfds:NAME``, ``tfds:NAME/CONFIG`` or ``tfds:NAME/CONFIG:VERSION``.
        split: Name of the split.
        class_names: Class names in the order of their labels. Empty: the class names of the data set.
        problems: Object that collects the problems of boxes whenever an annotation is read. By default, errors are
            raised and warnings are ignored.

    Raises:
        UserError: If the data set is not prepared as ArrayRecord files, if it has no images with boxes, or if a file of
            the split is missing. A class that is not in ``class_names`` is an error, too, unless ``problems`` collects
            errors.
    """
    builder = prepared_builder(data)
    splits = builder.info.splits
    if not splits[split].num_examples:
        sizes = [f"{name} ({info.num_examples} images)" for name, info in splits.items()]
        raise missing_split_error(data.root, split, sizes, f"there is no split {split!r} with images")
    for file in splits[split].filepaths:
        if not os.path.exists(file):
            raise UserError(f"{file}: this file of {data.root} is missing. Copy it or prepare the data set again.")
    return TfdsSource(builder, split, class_names, problems)


# ---- finding a prepared data set ----


def prepared_builder(data: Data) -> tfds.core.DatasetBuilder:
    """Return the builder (tfds' object for a data set) of the prepared data set that ``data.root`` names.

    Raises:
        UserError: If the data set is not prepared as ArrayRecord files, or if ``data.root`` is not a valid name.
    """
    name, folder = data.root.removeprefix(PREFIX), tfds_dir(data)
    if importlib.util.find_spec("array_record") is None:
        raise UserError(
            f"{data.root}: the package array_record, which reads it, exists only for Linux and macOS. On Windows, use "
            "WSL, or a folder of images and annotations"
        )
    try:
        builder = builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError:
        existing = join_names(sorted(_prepared_names(folder)))
        raise UserError(
            f"{data.root}: not prepared in '{folder}' (prepared there: {existing}).", *_list_preparation_steps(data)
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
            "read without TensorFlow. Move that folder, or give another one with --data.tfds_dir.",
            *_list_preparation_steps(data),
        )
    return builder


def _list_preparation_steps(data: Data) -> tuple[str, ...]:
    option = f" --data.tfds_dir {data.tfds_dir}" if data.tfds_dir else ""
    return (
        "To prepare it as ArrayRecord from its archives, with TensorFlow installed:",
        f"  ssd-jax prepare-data {data.root} --archives FOLDER{option}",
        "To prepare a data set of your own, in the folder of its code:",
        f"  tfds build --file_format=array_record --data_dir={tfds_dir(data)}",
    )


def _prepared_names(folder: Path) -> set[str]:
    """Return the names of the prepared data sets in a folder: NAME or NAME/CONFIG."""
    files = [*folder.glob("*/*/dataset_info.json"), *folder.glob("*/*/*/dataset_info.json")]
    return {file.parent.parent.relative_to(folder).as_posix() for file in files}


def _data_set_notes(info: tfds.core.DatasetInfo) -> tuple[str, ...]:
    if info.name != "coco":
        return ()
    return (
        "tfds drops COCO's category ids and rounds areas down to integers; for COCO's official metrics, use the folder "
        "with the original JSON files",
    )


# ---- features of a record ----


def _select_features(where: str, features: tfds.features.FeaturesDict) -> tfds.features.FeaturesDict:
    """Return only the features that are needed, so that other features of a record, such as masks, are not decoded."""
    objects = _inner_feature(features["objects"]) if "objects" in features else None
    if "image" not in features or not isinstance(objects, tfds.features.FeaturesDict) or "bbox" not in objects:
        raise UserError(
            f"{where}: not a data set of images with boxes, since image or objects/bbox is missing. Its features are "
            f"{join_names(sorted(features))}. Choose another data set."
        )
    image, bbox = features["image"], _inner_feature(objects["bbox"])
    if not isinstance(image, tfds.features.Image) or image.np_dtype == np.float32:
        raise UserError(f"{where}: the feature image has neither 8 nor 16 bits per channel, but is {image}.")
    # Data sets that were made before tfds had box formats do not state a format. Their boxes are normalised.
    box_format = getattr(bbox, "bbox_format", None)
    if not isinstance(bbox, tfds.features.BBoxFeature) or (box_format and box_format.value != "REL_YXYX"):
        raise UserError(f"{where}: the feature objects/bbox is not in tfds' usual format REL_YXYX, but is {bbox}.")
    names = ("bbox", "label", "is_difficult", "is_crowd", "area")
    selected = {name: objects[name] for name in names if name in objects}
    # A sequence of dicts and a dict of sequences are stored in the same way.
    sequence = type(features["objects"]) is tfds.features.Sequence
    optional = {name: features[name] for name in ("image/filename", "image/id") if name in features}
    return tfds.features.FeaturesDict({
        "image": image, "objects": tfds.features.Sequence(selected) if sequence else selected, **optional
    })  # fmt: skip


def _label_names(where: str, features: tfds.features.FeaturesDict) -> tuple[str, ...]:
    objects = _inner_feature(features["objects"])
    if "label" not in objects:
        return _NO_LABELS
    label = _inner_feature(objects["label"])
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise UserError(f"{where}: the feature objects/label is not a ClassLabel with names, but is {label}.")
    return tuple(label.names)


def _inner_feature(feature: Any) -> Any:
    return feature.feature if isinstance(feature, tfds.features.Sequence) else feature


def _boxes_px(bbox: Float32[np.ndarray, "g 4"], size: tuple[int, int], name: str) -> Float32[np.ndarray, "g 4"]:
    """Convert normalised boxes (ymin, xmin, ymax, xmax) to xyxy in pixels, for an image of (width, height)."""
    if not ((bbox >= 0) & (bbox <= 1)).all():
        raise UserError(f"{name}: its boxes {bbox.tolist()} are not all from 0 to 1. Correct the data set.")
    width, height = size
    # The product is computed in float64, so that coordinates that were integers become integers again, or float32
    # numbers next to them.
    return (bbox[:, [1, 0, 3, 2]].astype(np.float64) * (width, height, width, height)).astype(np.float32)


def _as_text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
