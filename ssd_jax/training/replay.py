"""Reproduce an augmented training image from the id of the image and the epoch::

    config = run_folder.read_config(Path("runs/my_run"))
    source = open_split(config, config.data.train_split)
    replay.draw_comparison(source, replay.replay_image(config, source, "000012", epoch=3))

The random numbers for a training image depend only on ``train.seed``, the epoch and the position of the image in the
split. The loader places images on a canvas, whose size depends on all images of the split. Therefore the split must not
have changed since the training. On the same kind of device, the result is bitwise identical to that of
`augment_batch` for the whole batch. The training step compiles the augmentation together with the matching, so the
corners of a box in the training step may differ by a rounding error.
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
    """An augmented training image with its boxes and labels, and the epoch and step in which it was used."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    """Position of the image in the train split, from 0."""
    epoch: int
    """Epoch, that is, pass over the train split, from 0."""
    step: int
    """Training step whose batch contained the image, from 1."""
    image: Float32[ndarray, "s s 3"]
    """Augmented image, RGB, 0 to 255."""
    boxes: Float32[ndarray, "g 4"]
    """Boxes (xyxy), normalised by the size of the augmented image; zero for padding."""
    labels: Int32[ndarray, " g"]
    """Labels, 1 to the number of classes; 0 for padding and for objects outside the augmented image."""


def replay_image(config: Config, source: Source, image_id: str, epoch: int) -> AugmentedImage:
    """Augment a training image as a run augmented it in a given epoch.

    Args:
        config: Config of the run.
        source: Split that the run was trained on.
        image_id: Id of an image of the split.
        epoch: Epoch, that is, pass over the split, from 0.

    Raises:
        UserError: If the split has no image with this id, if the run ends before it reaches the image in this epoch, or
            if the image file cannot be read.
    """
    index = find_image_position(source, image_id)
    step = find_step(config, source, index, epoch)
    source.image(index)  # raises an error for an unreadable image, which the loader would only skip
    batch = single_image_batch(source, config.data, index, epoch)
    images, boxes, labels = augment_batch(config, batch, sharding.single_device_mesh())
    return AugmentedImage(index, epoch, step, images[0], boxes[0], labels[0])


def find_image_position(source: Source, image_id: str) -> int:
    """Return the position of an image in a split, given the id of the image.

    Raises:
        UserError: If the split has no image with this id. The message names the most similar ids.
    """
    ids: list[str] = []
    for index, annotation in enumerate(source.annotations()):
        ids.append(annotation.image_id)
        if ids[index] == image_id:
            return index
    near = difflib.get_close_matches(image_id, ids)
    hint = f"Similar ids: {', '.join(near)}" if near else f"The ids look like {', '.join(ids[:3])}"
    raise UserError(f"the train split has {len(ids)} images but no image '{image_id}'. {hint}")


def find_step(config: Config, source: Source, index: int, epoch: int) -> int:
    """Return the number, from 1, of the training step whose batch contains an image in a given epoch.

    Raises:
        UserError: If the run ends before this step.
    """
    train, length = config.train, len(source)
    images = train.known_steps * train.batch_size
    if 0 <= epoch * length < images:
        place = stream_position(length, train.seed, index, epoch)
        if place < images:
            return place // train.batch_size + 1
    raise UserError(
        f"epoch {epoch}: the run does not reach this image. {train.steps} steps of {train.batch_size} images are "
        f"{images / length:.2f} epochs of {length} images; epochs are counted from 0"
    )


def draw_comparison(source: Source, augmented: AugmentedImage, side: int = 600) -> Image.Image:
    """Draw an image with its boxes on the left, and the augmented image with its boxes on the right.

    The captions name the id of the image, the epoch and the step.

    Args:
        source: Split that contains the image.
        augmented: The augmented image.
        side: Longest side of each of the two pictures, in pixels.

    Raises:
        UserError: If the image cannot be read.
    """
    index, caption = augmented.index, f"epoch {augmented.epoch}, step {augmented.step}"
    left = pictures.draw_truth_tile(source, index, source.image(index), side)
    right = pictures.draw_augmented_tile(
        augmented.image, augmented.boxes, augmented.labels, source.class_names, caption, side
    )
    return grid([left, right], columns=2)
