"""The works that are timed, and which way of doing them is compared with which."""

from typing import NamedTuple

BATCH = 4
OURS = "ssd-jax"


class Work(NamedTuple):
    """Something that both libraries do. Each way of it is a function of the library's module, by this name."""

    name: str
    title: str
    images: int
    """In one call; times are of one image, or of one call where it is 0."""
    theirs: tuple[str, ...]
    """Ways of the other side. The better one is compared with."""
    aim: float
    """Of our time over theirs."""
    cores: int | None = None
    """None: all there are."""
    rounds: int | None = None
    """None: as many as are asked for."""


DEFAULT, CHANNELS_LAST = "torchvision", "torchvision, channels last"

WORKS = (
    Work("forward", "network, forward", BATCH, (DEFAULT, CHANNELS_LAST), 1.0),
    Work("train", "training step: forward, loss, backward", BATCH, (DEFAULT, CHANNELS_LAST), 1.0),
    Work("detect_21", "decode, threshold, NMS; 21 classes", BATCH, (DEFAULT,), 0.2),
    Work("detect_91", "decode, threshold, NMS; 91 classes", BATCH, (DEFAULT,), 0.2),
    Work("loss", "matching, mining, loss; 4 objects, 21 classes", BATCH, (DEFAULT,), 1.0),
    Work("augment", "augmentation, 500 x 375 to 300 x 300, one core", BATCH, (DEFAULT,), 0.3, cores=1),
    Work("read", "JPEG of 500 x 375 to the array that is trained on, one core", BATCH, (DEFAULT,), 1.0, cores=1),
    Work("photograph", "JPEG of 4000 x 3000 to 640 x 480, one core", 1, (DEFAULT,), 1.0, cores=1),
    Work("coco", "COCO evaluation, 5,000 images, 500,000 detections", 0, ("pycocotools",), 0.03, rounds=1),
)
