"""Write data sets as ArrayRecord files that tensorflow-datasets and `ssd_jax.data.formats.tfds` read.

TensorFlow is not needed. A shard is complete when it has its final name, so that a conversion that was interrupted goes
on with the next shard.
"""

import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssd_jax.data.source import Annotation, Source, normalised_boxes
from ssd_jax.data.writers.images import encode_png, is_plain, is_upright, read_encoded
from ssd_jax.errors import UserError
from ssd_jax.files import convert_write_errors, write_text

VERSION = "1.0.0"
_SHARD_BYTES = 256 * 2**20
"""Approximate size of a shard."""
_STATE = "convert_shards.json"
"""File in the unfinished folder with the number of records and bytes of each complete shard."""


class ArrayRecordWriter:
    """Writer of a data set of tensorflow-datasets.

    Args:
        out: Folder that contains the folder of the data set.
        name: Name of the data set.
        class_names: Class names in the order of their labels.
    """

    def __init__(self, out: Path, name: str, class_names: Sequence[str]):
        try:
            import tensorflow_datasets as tfds
            from array_record.python import array_record_module
        except ImportError:
            raise UserError(
                "--to tfds needs the package array_record, which exists only for Linux and macOS. Choose another --to."
            ) from None
        self._tfds, self._array_record = tfds, array_record_module
        self._name, self.folder = name, out / name / VERSION
        self.notes: dict[str, int] = {}
        self.encoded = 0
        features = tfds.features
        objects = {
            "bbox": features.BBoxFeature(),
            "label": features.ClassLabel(names=list(class_names)),
            "is_difficult": np.bool_,
            "is_crowd": np.bool_,
            "area": np.float32,
        }
        self._features = features.FeaturesDict({
            "image": features.Image(shape=(None, None, 3)),
            "image/filename": features.Text(),
            "image/id": np.int64,
            "objects": features.Sequence(objects),
        })  # fmt: skip
        self._shards: dict[str, list[tuple[int, int]]] = {}
        with convert_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        state = self.folder / _STATE
        self._done: dict[str, tuple[int, int]] = json.loads(state.read_text("utf-8")) if state.exists() else {}

    def write_split(
        self, split: str, source: Source, labels: Mapping[int, int], positions: Sequence[int], progress: Any
    ) -> None:
        """Write the images of a split into shards. Shards that are already complete are not written again.

        Args:
            split: Name of the split.
            source: The images and annotations.
            labels: New label of each label of the source.
            positions: Positions of the images in the source.
            progress: Function that is called with the number of images that were just written.
        """
        files = [source.annotation(position).file for position in positions]
        total = sum(os.path.getsize(file) if os.path.isfile(file) else 100_000 for file in files)
        count = max(1, min(math.ceil(total / _SHARD_BYTES), len(positions)))
        template = self._template(split)
        self._shards[split] = []
        for number, own in enumerate(np.array_split(np.asarray(positions, np.int64), count)):
            file = Path(template.sharded_filepath(shard_index=number, num_shards=count))
            if file.name in self._done and file.exists():
                progress(len(own))
            else:
                self._done[file.name] = self._write_shard(file, source, labels, own.tolist(), progress)
                write_text(self.folder / _STATE, json.dumps(self._done))
            self._shards[split].append(self._done[file.name])

    def _write_shard(
        self, file: Path, source: Source, labels: Mapping[int, int], positions: Sequence[int], progress: Any
    ) -> tuple[int, int]:
        temporary = file.with_name(f"{file.name}.tmp")
        size = 0
        with convert_write_errors(file):
            writer = self._array_record.ArrayRecordWriter(str(temporary), "group_size:1")
            for position in positions:
                record = self._make_record(source, position, labels)
                writer.write(record)
                size += len(record)
                progress(1)
            writer.close()
            os.replace(temporary, file)
        return len(positions), size

    def _make_record(self, source: Source, index: int, labels: Mapping[int, int]) -> bytes:
        annotation = source.annotation(index)
        boxes = normalised_boxes(annotation)
        size = np.array([annotation.width, annotation.height] * 2, np.float32)
        is_cut = np.any((annotation.boxes_px < 0) | (annotation.boxes_px > size), axis=1)
        if is_cut.any():
            phrase = "boxes were cut at the border of their image"
            self.notes[phrase] = self.notes.get(phrase, 0) + int(is_cut.sum())
        objects = {
            "bbox": [self._tfds.features.BBox(*map(float, (y1, x1, y2, x2))) for x1, y1, x2, y2 in boxes],
            "label": [labels[label] - 1 for label in annotation.labels.tolist()],
            "is_difficult": annotation.difficult,
            "is_crowd": annotation.crowd,
            "area": annotation.area_px,
        }
        name = os.path.basename(annotation.file) if os.path.isfile(annotation.file) else annotation.image_id
        example = {
            "image": io.BytesIO(self._encode(source, index, annotation)),
            "image/filename": name.encode(errors="backslashreplace").decode(),
            "image/id": index + 1 if annotation.number is None else annotation.number,
            "objects": objects,
        }
        return self._features.serialize_example(self._features.encode_example(example))

    def _encode(self, source: Source, index: int, annotation: Annotation) -> bytes:
        """Return the image as JPEG or PNG in RGB whose stored pixels are upright."""
        path = Path(annotation.file)
        if path.is_file():
            if is_plain(path) and is_upright(path, annotation):
                return path.read_bytes()
        else:
            content, ending = read_encoded(source, index)
            if content is not None and ending in (".jpg", ".png"):
                return content
        self.encoded += 1
        return encode_png(source, index)

    def _template(self, split: str) -> Any:
        return self._tfds.core.ShardedFileTemplate(
            data_dir=self.folder, dataset_name=self._name, split=split, filetype_suffix="array_record"
        )

    def finish(self) -> None:
        """Write the metadata, with which the data set becomes complete."""
        infos = [
            self._tfds.core.SplitInfo(
                name=split,
                shard_lengths=[count for count, _ in shards],
                num_bytes=sum(size for _, size in shards),
                filename_template=self._template(split),
            )
            for split, shards in self._shards.items()
        ]
        with convert_write_errors(self.folder):
            self._tfds.folder_dataset.write_metadata(
                data_dir=self.folder, features=self._features, split_infos=infos, check_data=False
            )
            (self.folder / _STATE).unlink(missing_ok=True)
