"""Recommend a config for own data from the sizes of the objects and images, and from the device."""

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssd_jax.config import SMALL_BOXES, SSD300_COCO_BOXES, SSD512_COCO_BOXES, Config, Data
from ssd_jax.data.check.box_coverage import best_iou, training_boxes
from ssd_jax.data.source import Source, keep_trainable_objects
from ssd_jax.portability import quote_argument

OWN_DATA_BOXES = {
    "own_data_small": SMALL_BOXES,
    "own_data": SSD300_COCO_BOXES,
    "own_data_512": SSD512_COCO_BOXES,
}
"""Default boxes of each config for own data, by the name of the config. The input grows from one to the next."""

DEFAULT_MAX_OBJECTS = {"own_data_small": 64, "own_data": 64, "own_data_512": 128}
"""Value of ``data.max_objects`` in each config for own data."""

_MIN_GAIN = 0.05  # fraction of the objects that a larger input must match additionally
_SMALL_IMAGE_PX = 240  # enlarging smaller images to 300 px adds no information
_MIN_SIDE = 0.001  # of an object, relative to the image
_MANY_IMAGES = 1000  # from which a wider network is recommended on a GPU or TPU
_MIN_OBJECTS = 5  # of a class that the choice depends on
_MOST_OBJECTS = 1000  # of an image that a recommended command makes room for; the memory grows with this number
_ACCELERATORS = ("nvidia[0-9]*", "accel[0-9]*", "vfio/[0-9]*", "kfd")  # files in /dev of GPUs and TPUs


class Recommendation(NamedTuple):
    """A recommended config for a data set."""

    name: str
    """Name of the config."""
    reason: str
    """Reasons for the choice, in one or two sentences."""
    command: str
    """Command that trains with the config."""


def recommend_config(source: Source, config: Config, *, has_accelerator: bool) -> Recommendation | None:
    """Return the config that fits a train split and the device best.

    Args:
        source: The train split.
        config: Config whose data options and class names the recommended command contains.
        has_accelerator: Whether training would run on a GPU or TPU.

    Returns:
        The recommendation, or None if the config is for a published data set, whose classes it defines, or if the
        split has no objects.
    """
    boxes, labels = training_boxes(source, config.data)
    is_sound = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=1) > _MIN_SIDE  # other boxes are mistakes
    is_published = config.model.class_names and config.name not in OWN_DATA_BOXES
    if is_published or not is_sound.any():
        return None
    unmatched = measure_unmatched(boxes[is_sound], labels[is_sound], config.match.iou_threshold)
    sizes = source.sizes()
    side = float(np.median([max(size) for size in sizes])) if sizes else math.inf
    name, reason = choose_config(unmatched, side, has_accelerator=has_accelerator)
    command = f"ssd-jax train {name} {format_data_options(config.data)}"
    most = max(len(keep_trainable_objects(a, config.data.train_on_difficult).labels) for a in source.annotations())
    max_objects = choose_max_objects(config, name, most)
    if max_objects != DEFAULT_MAX_OBJECTS[name]:
        command += f" --data.max_objects {max_objects}"
    if config.model.class_names:
        command += f" --model.class_names {' '.join(map(quote_argument, config.model.class_names))}"
    if config.train.eval_every == 0:
        command += " --train.eval_every 0"
    if has_accelerator and len(source) >= _MANY_IMAGES:
        command += " --model.width 0.5"
        reason += f" For {len(source)} images, a wider network is worth its time on a GPU or TPU."
    return Recommendation(name, reason, command)


def choose_max_objects(config: Config, name: str, most: int) -> int:
    """Return the value of ``data.max_objects`` for a recommended config.

    It is the value that the user gave or, without one, the default of the recommended config, or more if images have
    more objects.

    Args:
        config: Config that was checked.
        name: Name of the recommended config.
        most: Largest number of objects in an image.
    """
    given = config.data.max_objects
    if given != DEFAULT_MAX_OBJECTS.get(config.name, Data().max_objects):
        return given
    return max(DEFAULT_MAX_OBJECTS[name], min(most, _MOST_OBJECTS))


def measure_unmatched(
    boxes: Float[np.ndarray, "g 4"], labels: Int[np.ndarray, " g"], threshold: float
) -> dict[str, float]:
    """Return the fraction of unmatched objects for each config of `OWN_DATA_BOXES`, as a mean over the classes.

    mAP is a mean over the classes, too: a rare class of small objects matters as much as a frequent one. Classes with a
    few objects are left out unless there are no others.
    """
    counts = np.bincount(labels)
    classes = np.flatnonzero(counts >= _MIN_OBJECTS)
    classes = classes if len(classes) else np.flatnonzero(counts)
    fractions = {}
    for name, box_config in OWN_DATA_BOXES.items():
        unmatched = best_iou(boxes, box_config) < threshold
        fractions[name] = float(np.mean([unmatched[labels == label].mean() for label in classes]))
    return fractions


def choose_config(unmatched: Mapping[str, float], image_side: float, *, has_accelerator: bool) -> tuple[str, str]:
    """Return the name of a config and the reasons for it.

    Args:
        unmatched: Fraction of unmatched objects for each config, see `measure_unmatched`.
        image_side: Median of the longer side of the images, in pixels.
        has_accelerator: Whether training would run on a GPU or TPU.
    """
    small, medium, large = (unmatched[name] for name in OWN_DATA_BOXES)
    if medium - large >= _MIN_GAIN:
        reason = (
            f"{medium:.0%} of the objects are out of reach with an input of 300 px, mostly because they are too small; "
            f"with 512 px, it is {large:.0%}."
        )
        if large >= _MIN_GAIN:
            reason += " To reach the others, cut large images into tiles before labelling."
        if not has_accelerator:
            reason += " No GPU or TPU was found: the input has three times as many pixels as own_data's, so be patient."
        return "own_data_512", reason
    if medium >= _MIN_GAIN:
        reason = f"{medium:.0%} of the objects are out of reach with an input of 300 px, and {large:.0%} with 512 px."
        return (
            "own_data",
            f"{reason} To reach them, change the default boxes (see above), or cut large images into tiles.",
        )
    if small - medium < _MIN_GAIN and image_side <= _SMALL_IMAGE_PX:
        return "own_data_small", f"the images are small (median of the longer side: {image_side:g} px)."
    if small - medium < _MIN_GAIN and not has_accelerator:
        return "own_data_small", (
            f"no GPU or TPU was found, and the objects are large enough for an input of 160 px ({small:.0%} are out of "
            "reach). It has about a quarter of the pixels of own_data's input of 300 px, which shows more details."
        )
    if small - medium < _MIN_GAIN:
        return (
            "own_data",
            f"{medium:.0%} of the objects are out of reach with an input of 300 px, and a GPU or TPU was found.",
        )
    return "own_data", (
        f"{small:.0%} of the objects (mean over the classes) are out of reach with 160 px, {medium:.0%} with 300 px."
    )


def format_data_options(data: Data) -> str:
    """Return command-line options for the folder and for the options of the data set that differ from the defaults.

    Options that depend on the network, such as ``max_image_size`` and ``max_objects``, are left out.
    """
    names = ("root", "format", "tfds_dir", "train_split", "val_split", "test_split", "val_fraction")
    defaults = Data()
    options = [
        f"--data.{name} {quote_argument(str(getattr(data, name)))}"
        for name in names
        if name == "root" or getattr(data, name) != getattr(defaults, name)
    ]
    options += ["--data.no_train_on_difficult"] * (not data.train_on_difficult) + ["--data.strict"] * data.strict
    return " ".join(options)


def find_accelerator() -> bool:
    """Return whether the machine seems to have a GPU or TPU that JAX may use.

    JAX itself is not asked, because it takes seconds to start and may occupy the device.
    """
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    return shutil.which("nvidia-smi") is not None or any(any(Path("/dev").glob(name)) for name in _ACCELERATORS)
