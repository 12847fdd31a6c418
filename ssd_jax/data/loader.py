"""Batches of one shape from a data source, read ahead in threads.

The host only decodes and lays out; augmentation is the accelerator's work. Order, epochs and the
place in the stream are grain's (https://google-grain.readthedocs.io).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from PIL import Image

from ssd_jax.config import Data
from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError

logger = logging.getLogger(__name__)

_GRANULE = 32  # canvas sides are multiples of it, so that similar data sets share compiled programs
_MAX_THREADS = 8
_ENDLESS = 2**48  # images; grain's own endless repetition overflows for batches of one


class Batch(NamedTuple):
    """What the accelerator gets. Padding: label 0, box zero; images lie top left on a black canvas."""

    canvas: UInt8[np.ndarray, "b h w 3"]
    height: Int32[np.ndarray, " b"]
    """Pixels of the image in the canvas; at least 1."""
    width: Int32[np.ndarray, " b"]
    gt_boxes: Float32[np.ndarray, "b g 4"]
    """xyxy, normalised to the image, not to the canvas; cut to [0, 1]."""
    gt_labels: Int32[np.ndarray, "b g"]
    gt_difficult: Bool[np.ndarray, "b g"]
    index: Int32[np.ndarray, " b"]  # type: ignore[assignment]  # hides tuple.index
    """Position in the source; -1 in slots beyond the end of an evaluation."""
    epoch: Int32[np.ndarray, " b"]
    """Pass over the source that the image belongs to, from 0."""
    valid: Bool[np.ndarray, " b"]
    """False: the image can't be read, or the slot lies beyond the end. No objects then."""


class Batches(Iterator[Batch]):
    """A stream of batches whose place can be saved (`get_state`) and taken up again (`set_state`)."""

    def __init__(self, dataset: grain.IterDataset, unreadable: dict[int, str]):
        self._iterator = iter(dataset)
        self.unreadable = unreadable
        """Messages about images that couldn't be read so far, by index; each is logged once, too."""

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        """JSON-able; stands for the batches handed out, whatever has been read ahead."""
        return self._iterator.get_state()

    def set_state(self, state: dict[str, int]) -> None:
        self._iterator.set_state(state)


def train_batches(source: Source, data: Data, batch_size: int, seed: int, rows: Sequence[int] | None = None) -> Batches:
    """An endless stream, shuffled anew in each epoch; a function of its arguments alone.

    Epochs follow each other without a gap: a batch may hold the end of one and the start of the
    next. Crowd objects are left out, and difficult ones where data.train_on_difficult is False. An
    image that can't be read keeps its slot, with valid=False; with data.strict it raises UserError.

    rows: which images of each batch are wanted, where several processes share it. The place in the
        stream counts batches, so it is the same for all of them, however many there are.
    """
    shape = canvas_shape(source, data.max_image_size)
    order = _shuffled(len(source), seed)
    unreadable: dict[int, str] = {}
    rows = range(batch_size) if rows is None else rows

    def load(place: int) -> _Example:
        step, slot = divmod(place, len(rows))
        position = step * batch_size + int(rows[slot])
        epoch = position // len(source)
        return _load(source, order[position], data.train_on_difficult, shape, epoch, unreadable, data.strict)

    places = grain.MapDataset.range(_ENDLESS // batch_size * len(rows))
    return _stream(places.map(load), len(rows), shape, data.max_objects, unreadable)


def single_image_batch(source: Source, data: Data, index: int, epoch: int) -> Batch:
    """The slot, as a batch of one, that `train_batches` has for an image in an epoch; nothing before it is read."""
    shape = canvas_shape(source, data.max_image_size)
    example = _load(source, index, data.train_on_difficult, shape, epoch, {}, data.strict)
    return _collate([example], shape, data.max_objects)


def stream_position(length: int, seed: int, index: int, epoch: int) -> int:
    """How many images come before that one in the stream of `train_batches` over a source of that length."""
    order = _shuffled(length, seed)
    return next(place for place in range(epoch * length, (epoch + 1) * length) if order[place] == index)


def _shuffled(length: int, seed: int) -> grain.MapDataset:
    """Positions in the source, each once in every epoch."""
    return grain.MapDataset.range(length).seed(seed).shuffle().repeat(_ENDLESS // length + 1)


def eval_batches(
    source: Source,
    data: Data,
    batch_size: int,
    unreadable: dict[int, str] | None = None,
    rows: Sequence[int] | None = None,
) -> Batches:
    """Each image once, in order, with all its objects but crowds; the last batch is filled up with invalid slots.

    unreadable: what an earlier pass over the source could not read; it is not told again, and what this one
        can't read is added.
    rows: of each batch, as of `train_batches`.
    """
    shape = canvas_shape(source, data.max_image_size)
    unreadable = {} if unreadable is None else unreadable
    rows = range(batch_size) if rows is None else rows

    def load(place: int) -> _Example:
        batch, slot = divmod(place, len(rows))
        index = batch * batch_size + int(rows[slot])
        if index >= len(source):
            return _empty(-1, 0)
        return _load(source, index, True, shape, 0, unreadable, data.strict)

    slots = -(-len(source) // batch_size) * len(rows)
    return _stream(grain.MapDataset.range(slots).map(load), len(rows), shape, data.max_objects, unreadable)


def canvas_shape(source: Source, canvas: int) -> tuple[int, int]:
    """Height and width that hold every image of a source, once those beyond canvas are reduced.

    Rounded up to a multiple of 32, but never beyond canvas: small images don't travel in large
    canvases, and the shape stays the same for the whole run. Where sizes are not known beforehand,
    canvas for both.
    """
    sizes = source.sizes()
    if sizes is None:
        return canvas, canvas
    height, width = map(max, zip(*(fit_size(size[::-1], (canvas, canvas)) for size in set(sizes)), strict=True))
    height, width = (min(-(-side // _GRANULE) * _GRANULE, canvas) for side in (height, width))
    return height, width


def fit_size(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image reduced, never enlarged, to lie within a canvas; at least 1."""
    scale = min(1.0, canvas[0] / size[0], canvas[1] / size[1])
    height, width = (min(max(round(side * scale), 1), limit) for side, limit in zip(size, canvas, strict=True))
    return height, width


def count_dropped_objects(source: Source, data: Data) -> int:
    """How many objects to train on are cut because their image has more than data.max_objects."""
    images = (keep_trainable_objects(annotation, data.train_on_difficult) for annotation in source.annotations())
    return sum(max(len(image.labels) - data.max_objects, 0) for image in images)


class _Example(NamedTuple):
    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float32[np.ndarray, "g 4"]
    labels: Int32[np.ndarray, " g"]
    difficult: Bool[np.ndarray, " g"]
    index: int  # type: ignore[assignment]
    epoch: int
    valid: bool


def keep_trainable_objects(annotation: Annotation, with_difficult: bool) -> Annotation:
    """Without the objects that are never trained on: crowds, and, unless asked for, difficult ones."""
    keep = ~annotation.crowd if with_difficult else ~(annotation.crowd | annotation.difficult)
    return annotation._replace(
        boxes_px=annotation.boxes_px[keep],
        labels=annotation.labels[keep],
        difficult=annotation.difficult[keep],
        crowd=annotation.crowd[keep],
        area_px=annotation.area_px[keep],
    )


def _load(
    source: Source,
    index: int,
    with_difficult: bool,
    shape: tuple[int, int],
    epoch: int,
    unreadable: dict[int, str],
    strict: bool,
) -> _Example:
    try:
        annotation = keep_trainable_objects(source.annotation(index), with_difficult)
        image = source.reduced_image(index, shape)
    except UserError as error:
        if strict:
            raise UserError(f"{error}\nStopped there, as --strict asks; without it the image is passed over") from error
        told = str(error)
        if unreadable.setdefault(index, told) is told:  # one step: two threads may come to an image at once
            logger.warning("%s", told)
        return _empty(index, epoch)
    boxes = annotation.boxes_px / np.array([annotation.width, annotation.height] * 2, np.float32)
    return _Example(
        reduce_to_fit(image, shape), np.clip(boxes, 0, 1), annotation.labels, annotation.difficult, index, epoch, True
    )


def _empty(index: int, epoch: int) -> _Example:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    return _Example(np.zeros((1, 1, 3), np.uint8), *nothing, index, epoch, False)


def reduce_to_fit(image: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image as it is where it fits into (height, width), else reduced with antialiasing until it does."""
    height, width = fit_size(image.shape[:2], shape)
    if (height, width) == image.shape[:2]:
        return image
    # Pillow's bilinear filter grows with the reduction, so it averages; reducing_gap spares it half
    # of the work on large photographs, without a visible difference.
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _collate(examples: Sequence[_Example], shape: tuple[int, int], max_objects: int) -> Batch:
    size = len(examples)
    canvas = np.zeros((size, *shape, 3), np.uint8)
    boxes = np.zeros((size, max_objects, 4), np.float32)
    labels = np.zeros((size, max_objects), np.int32)
    difficult = np.zeros((size, max_objects), bool)
    for slot, example in enumerate(examples):
        height, width = example.image.shape[:2]
        canvas[slot, :height, :width] = example.image
        count = min(len(example.labels), max_objects)
        boxes[slot, :count] = example.boxes[:count]
        labels[slot, :count] = example.labels[:count]
        difficult[slot, :count] = example.difficult[:count]
    return Batch(
        canvas,
        np.array([e.image.shape[0] for e in examples], np.int32),
        np.array([e.image.shape[1] for e in examples], np.int32),
        boxes,
        labels,
        difficult,
        np.array([e.index for e in examples], np.int32),
        np.array([e.epoch for e in examples], np.int32),
        np.array([e.valid for e in examples], bool),
    )


def _stream(
    dataset: grain.MapDataset,
    batch_size: int,
    shape: tuple[int, int],
    max_objects: int,
    unreadable: dict[int, str],
) -> Batches:
    """Whole batches are made in threads: decoding lets go of Python's lock."""
    batches = dataset.batch(batch_size, batch_fn=lambda examples: _collate(examples, shape, max_objects))
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
    return Batches(batches.to_iter_dataset(options), unreadable)
