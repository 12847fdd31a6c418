"""What the network saw of one image in one epoch, made again from the image's id and the epoch alone.

    config = run_folder.read_config(Path("runs/my_run"))
    source = open_source(config.data, config.data.train_split, config.model.class_names)
    replay.draw(source, replay.replay_image(config, source, "000012", epoch=3))

Everything random about a training image comes from (train.seed, epoch, index), and its canvas from the
sizes of all images of the split: of the split that the run was trained on, not of one that has changed.
On a device of the same kind all is, to the bit, what the augmentation makes of the whole batch. In the
training step, compiled together with the matching, an edge of a box may differ in the last of 24 bits.
"""

import difflib
from typing import NamedTuple

from jaxtyping import Float32, Int32
from numpy import ndarray
from PIL import Image

from ssd_jax.config import Config
from ssd_jax.data.loader import single_image_batch, stream_position
from ssd_jax.data.source import Source
from ssd_jax.errors import UserError
from ssd_jax.report import pictures
from ssd_jax.report.draw import grid
from ssd_jax.runtime import sharding
from ssd_jax.training.train_step import augment_batch


class AugmentedImage(NamedTuple):
    """One image of one epoch, as it came out of the augmentation."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    """Position in the train split."""
    epoch: int
    step: int
    """Of the training step whose batch it was in, from 1."""
    image: Float32[ndarray, "s s 3"]
    """RGB, 0 to 255."""
    boxes: Float32[ndarray, "g 4"]
    """xyxy, normalised; those of padding are zero."""
    labels: Int32[ndarray, " g"]
    """1..C; 0 is padding, and where an object was that is not seen in the picture."""


def replay_image(config: Config, source: Source, image_id: str, epoch: int) -> AugmentedImage:
    """The augmented image, its boxes and labels.

    config: of the run. source: the split that it was trained on.

    Raises UserError for an id that is not in the split, an epoch in which the run does not come to
    the image, and a file that can't be read.
    """
    index = find_image(source, image_id)
    step = find_step(config, source, index, epoch)
    source.image(index)  # the loader would pass over an image that can't be read
    batch = single_image_batch(source, config.data, index, epoch)
    images, boxes, labels = augment_batch(config, batch, sharding.single_device_mesh())
    return AugmentedImage(index, epoch, step, images[0], boxes[0], labels[0])


def find_image(source: Source, image_id: str) -> int:
    """The position of an image in a split. Raises UserError, with the ids most like it, where it is not there."""
    ids: list[str] = []
    for index, annotation in enumerate(source.annotations()):
        ids.append(annotation.image_id)
        if ids[index] == image_id:
            return index
    near = difflib.get_close_matches(image_id, ids)
    hint = f"Near it: {', '.join(near)}" if near else f"Their ids are like {', '.join(ids[:3])}"
    raise UserError(f"there is no image '{image_id}' among the {len(ids)} of the train split. {hint}")


def find_step(config: Config, source: Source, index: int, epoch: int) -> int:
    """The step that an image belongs to in an epoch. Raises UserError where the run ends before it."""
    train, length = config.train, len(source)
    images = train.steps * train.batch_size
    if 0 <= epoch * length < images:
        place = stream_position(length, train.seed, index, epoch)
        if place < images:
            return place // train.batch_size + 1
    raise UserError(
        f"epoch {epoch}: the run does not come to this image in it. Its {train.steps} steps of {train.batch_size} "
        f"images are {images / length:.2f} times the {length} images of the split; epochs count from 0"
    )


def draw(source: Source, seen: AugmentedImage, side: int = 600) -> Image.Image:
    """The original with all its boxes, and beside it what the network saw; longest sides of ``side`` pixels. Below them
    stand the image's id, and the epoch and its step.

    Raises UserError where the original can't be read.
    """
    original = pictures.truth_tile(source, seen.index, source.image(seen.index), side)
    caption = f"epoch {seen.epoch}, step {seen.step}"
    augmented = pictures.augmented_tile(seen.image, seen.boxes, seen.labels, source.class_names, caption, side)
    return grid([original, augmented], columns=2)
