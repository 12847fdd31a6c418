"""Tasks that are timed, and the variants of each task that are compared."""

from typing import NamedTuple

BATCH = 4
OURS = "ssd-jax"
"""Name of the variant that uses ssd-jax."""


class Task(NamedTuple):
    """A task to time. For a task in TASKS, ssd_jax_side.py and torchvision_side.py have a function prepare_<name>."""

    name: str
    title: str
    """Title in the table."""
    images: int
    """Number of images per call. Times are per image, or per call if this number is 0."""
    other_variants: tuple[str, ...]
    """Variants that ssd-jax is compared with. The ratio is relative to the fastest of them."""
    target: float
    """Target of the ratio: the time of ssd-jax divided by that of the fastest other variant."""
    cores: int | None = None
    """Number of CPU cores that may be used. None: all cores."""
    rounds: int | None = None
    """Number of rounds. None: the number on the command line."""


DEFAULT, CHANNELS_LAST = "torchvision", "torchvision, channels last"

TASKS = (
    Task("forward", "network, forward pass", BATCH, (DEFAULT, CHANNELS_LAST), 1.0),
    Task("train", "training step: forward, loss, backward", BATCH, (DEFAULT, CHANNELS_LAST), 1.0),
    Task("detect_21", "decode, threshold, NMS; 21 classes", BATCH, (DEFAULT,), 0.2),
    Task("detect_91", "decode, threshold, NMS; 91 classes", BATCH, (DEFAULT,), 0.2),
    Task("loss", "matching, mining, loss; 4 objects, 21 classes", BATCH, (DEFAULT,), 1.0),
    Task("augment", "augmentation, 500 x 375 to 300 x 300, one core", BATCH, (DEFAULT,), 0.3, cores=1),
    Task("read", "JPEG of 500 x 375 to the training array, one core", BATCH, (DEFAULT,), 1.0, cores=1),
    Task("large_photo", "JPEG of 4000 x 3000 to 640 x 480, one core", 1, (DEFAULT,), 1.0, cores=1),
    Task("coco", "COCO evaluation, 5,000 images, 500,000 detections", 0, ("pycocotools",), 0.03, rounds=1),
)
