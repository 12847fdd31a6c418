"""Load batches of a fixed shape from a data set. Several threads load them before they are needed.

The host only decodes and pads images; augmentation runs on the accelerator. The library grain
(https://google-grain.readthedocs.io) implements shuffling, epochs and the position in the stream.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from ssd_jax.config import Data
from ssd_jax.data.image import fitted_size, reduce_to_fit
from ssd_jax.data.source import Source, keep_trainable_objects, normalised_boxes
from ssd_jax.errors import UserError

logger = logging.getLogger(__name__)

_CANVAS_MULTIPLE = 32  # pixels; canvas sides are multiples of it, so that similar data sets share compiled programs
_MAX_THREADS = 8
STRICT_ADVICE = "Stopped because of --strict; without this option, the image is skipped"
_ENDLESS = 2**48  # images in a training stream; grain's own endless repetition overflows for batches of one


class Batch(NamedTuple):
    """A batch of images and their objects, as it is sent to the accelerator.

    A batch has a fixed number of slots, one for each image. An image is at the top left of a black canvas. The objects
    of an image are followed by padding: objects with label 0 and the box (0, 0, 0, 0).
    """

    canvas: UInt8[np.ndarray, "b h w 3"]
    """Canvases with the RGB images."""
    height: Int32[np.ndarray, " b"]
    """Height of each image in the canvas in pixels; at least 1."""
    width: Int32[np.ndarray, " b"]
    """Width of each image in the canvas in pixels; at least 1."""
    gt_boxes: Float32[np.ndarray, "b g 4"]
    """Boxes, xyxy, normalised to the image (not to the canvas) and clipped to [0, 1]."""
    gt_labels: Int32[np.ndarray, "b g"]
    """Label of each box, from 1; 0 is padding."""
    gt_difficult: Bool[np.ndarray, "b g"]
    """VOC's ``difficult`` flag of each object."""
    index: Int32[np.ndarray, " b"]  # type: ignore[assignment]  # hides tuple.index
    """Position of each image in the source; -1 in a slot after the last image of the split in an evaluation."""
    epoch: Int32[np.ndarray, " b"]
    """Epoch that each image belongs to, counted from 0."""
    valid: Bool[np.ndarray, " b"]
    """False in a slot without an image: the image cannot be read, or the slot is after the last image of an
    evaluation. The slot then has no objects."""


class Batches(Iterator[Batch]):
    """A stream of batches whose position can be saved and restored.

    Args:
        dataset: Data set of grain that yields the batches.
        unreadable: Dict to which `dataset` adds a message for each image that it cannot read.
    """

    def __init__(self, dataset: grain.IterDataset, unreadable: dict[int, str]):
        self._iterator = iter(dataset)
        self.unreadable = unreadable
        """Message about each image that could not be read so far, by the index of the image in the source. Each message
        is also logged once."""

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, int]:
        """Return the position in the stream as a JSON-compatible dict.

        The position is the number of batches that were returned. Batches that threads have read ahead do not count.
        """
        return self._iterator.get_state()

    def set_state(self, state: dict[str, int]) -> None:
        """Continue the stream from a position that `get_state` returned."""
        self._iterator.set_state(state)


def train_batches(source: Source, data: Data, batch_size: int, seed: int, rows: Sequence[int] | None = None) -> Batches:
    """Return an endless stream of training batches, with a new order of the images in every epoch.

    The stream depends only on the arguments. Epochs follow each other without a gap, so a batch may contain the end
    of one epoch and the start of the next. Crowd objects are left out; difficult objects are left out unless
    ``data.train_on_difficult`` is set. An image that cannot be read keeps its slot, with ``valid=False``.

    Args:
        source: The train split.
        data: Options of the data: image size, padding, difficult objects, strictness.
        batch_size: Number of images per batch, over all processes.
        seed: Seed of the shuffling.
        rows: Slots of each batch that this process loads; all by default. The position in the stream counts
            batches, so it does not depend on the number of processes.

    Raises:
        UserError: If ``data.strict`` is set and an image cannot be read. It is raised while iterating.
    """
    shape = canvas_shape(source, data.max_image_size)
    order = _shuffled_positions(len(source), seed)
    unreadable: dict[int, str] = {}
    rows = range(batch_size) if rows is None else rows

    def load_example(number: int) -> _Example:
        step, slot = divmod(number, len(rows))
        position = step * batch_size + int(rows[slot])
        epoch = position // len(source)
        return _load_example(source, order[position], data.train_on_difficult, shape, epoch, unreadable, data.strict)

    numbers = grain.MapDataset.range(_ENDLESS // batch_size * len(rows))
    return _load_batches(numbers.map(load_example), len(rows), shape, data.max_objects, unreadable)


def single_image_batch(source: Source, data: Data, index: int, epoch: int) -> Batch:
    """Return a batch with one image, as the image appears in the stream of `train_batches`.

    The images that precede this image in the stream are not read.

    Args:
        source: The train split.
        data: Options of the data, as for `train_batches`.
        index: Position of the image in the source.
        epoch: Epoch to which the image belongs, counted from 0.

    Raises:
        UserError: If ``data.strict`` is set and the image cannot be read.
    """
    shape = canvas_shape(source, data.max_image_size)
    example = _load_example(source, index, data.train_on_difficult, shape, epoch, {}, data.strict)
    return _collate_examples([example], shape, data.max_objects)


def stream_position(length: int, seed: int, index: int, epoch: int) -> int:
    """Return the position of an image in the stream of `train_batches`: the number of images before it.

    Args:
        length: Number of images in the source.
        seed: Seed of the stream.
        index: Position of the image in the source.
        epoch: Epoch in which the image is looked up, counted from 0. Every epoch contains the image once.
    """
    order = _shuffled_positions(length, seed)
    return next(number for number in range(epoch * length, (epoch + 1) * length) if order[number] == index)


def _shuffled_positions(length: int, seed: int) -> grain.MapDataset:
    """Return an endless data set of positions in a source. Each epoch contains every position once, in a new order."""
    return grain.MapDataset.range(length).seed(seed).shuffle().repeat(_ENDLESS // length + 1)


def eval_batches(
    source: Source,
    data: Data,
    batch_size: int,
    unreadable: dict[int, str] | None = None,
    rows: Sequence[int] | None = None,
) -> Batches:
    """Return the batches of an evaluation, which contain every image of a split once, in order.

    The last batch is filled up with slots without an image (``valid=False``). Crowd objects are left out; difficult
    objects are included.

    Args:
        source: The split.
        data: Options of the data, as for `train_batches`.
        batch_size: Number of images per batch, over all processes.
        unreadable: Messages about unreadable images from an earlier pass over the source, by index. These messages are
            not logged again. Messages of this pass are added to the dict.
        rows: Slots of each batch that this process loads; all by default.

    Raises:
        UserError: If ``data.strict`` is set and an image cannot be read. It is raised while iterating.
    """
    shape = canvas_shape(source, data.max_image_size)
    unreadable = {} if unreadable is None else unreadable
    rows = range(batch_size) if rows is None else rows

    def load_example(number: int) -> _Example:
        batch, slot = divmod(number, len(rows))
        index = batch * batch_size + int(rows[slot])
        if index >= len(source):
            return _empty_example(-1, 0)
        return _load_example(source, index, True, shape, 0, unreadable, data.strict)

    slots = -(-len(source) // batch_size) * len(rows)
    return _load_batches(
        grain.MapDataset.range(slots).map(load_example), len(rows), shape, data.max_objects, unreadable
    )


def canvas_shape(source: Source, max_image_size: int) -> tuple[int, int]:
    """Return the (height, width) in pixels of a canvas into which every image of a source fits.

    Images with a side longer than ``max_image_size`` are assumed to be shrunk to it. The sides of the canvas are
    rounded up to a multiple of 32, but not beyond ``max_image_size``. If the sizes of the images are unknown, both
    sides are ``max_image_size``.
    """
    sizes = source.sizes()
    if sizes is None:
        return max_image_size, max_image_size
    square = (max_image_size, max_image_size)
    sides = map(max, zip(*(fitted_size(size[::-1], square) for size in set(sizes)), strict=True))
    height, width = (min(-(-side // _CANVAS_MULTIPLE) * _CANVAS_MULTIPLE, max_image_size) for side in sides)
    return height, width


class _Example(NamedTuple):
    """Content of one slot of a batch, before padding."""

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float32[np.ndarray, "g 4"]
    labels: Int32[np.ndarray, " g"]
    difficult: Bool[np.ndarray, " g"]
    index: int  # type: ignore[assignment]
    epoch: int
    valid: bool


def _load_example(
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
            raise UserError(*error.args, STRICT_ADVICE) from error
        message = str(error)
        # setdefault is atomic: two threads may reach an image at the same time, and only one of them logs it.
        if unreadable.setdefault(index, message) is message:
            logger.warning("%s", message)
        return _empty_example(index, epoch)
    boxes, labels, difficult = normalised_boxes(annotation), annotation.labels, annotation.difficult
    return _Example(reduce_to_fit(image, shape), boxes, labels, difficult, index, epoch, True)


def _empty_example(index: int, epoch: int) -> _Example:
    no_objects = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    return _Example(np.zeros((1, 1, 3), np.uint8), *no_objects, index, epoch, False)


def _collate_examples(examples: Sequence[_Example], shape: tuple[int, int], max_objects: int) -> Batch:
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


def _load_batches(
    dataset: grain.MapDataset,
    batch_size: int,
    shape: tuple[int, int],
    max_objects: int,
    unreadable: dict[int, str],
) -> Batches:
    """Return a stream of batches that threads load. The threads run in parallel, since decoding releases the GIL."""
    batches = dataset.batch(batch_size, batch_fn=lambda examples: _collate_examples(examples, shape, max_objects))
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
    return Batches(batches.to_iter_dataset(options), unreadable)
