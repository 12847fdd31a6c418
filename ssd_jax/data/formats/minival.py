"""COCO's splits trainval35k and minival, made from the files of 2017 or of 2014.

COCO 2014 has about 83,000 training images and 40,500 validation images. Bell et al. ("Inside-Outside Net", arXiv
1512.04143) kept 5000 of the latter for validation, minival, and trained on the other 35,000 as well: trainval35k, on
which the COCO models of the SSD paper are trained. COCO's train2017 and val2017 are these two splits ("minival is
exactly equivalent to the recently defined 2017 val set", Detectron, datasets/data/README.md).
"""

import functools
from collections.abc import Container
from importlib import resources
from typing import NamedTuple


class Part(NamedTuple):
    """Images of one COCO file."""

    file: str
    """Name of the file's content, such as train2014 for instances_train2014.json."""
    minival: bool | None = None
    """True selects the images in minival, False the others, None all images."""


# The choices of files for each split, in order of preference.
_CHOICES = {
    "trainval35k": ((Part("train2017"),), (Part("train2014"), Part("val2014", minival=False))),
    "minival": ((Part("val2017"),), (Part("val2014", minival=True),)),
}
SPLITS = tuple(_CHOICES)
"""Names of the splits that `find_parts` may find."""


def find_parts(split: str, files: Container[str]) -> tuple[Part, ...]:
    """Return the parts that make up a split.

    Args:
        split: Name of the split.
        files: Names of the content of the files that exist, such as train2014.

    Returns:
        The parts in order. Empty if the split is not in `SPLITS`, its files are missing, or it is a file itself.
    """
    choices = () if split in files else _CHOICES.get(split, ())
    return next((parts for parts in choices if all(part.file in files for part in parts)), ())


@functools.cache
def minival_ids() -> frozenset[int]:
    """Return COCO's ids of the 5000 images of minival."""
    text = resources.files("ssd_jax.data.formats").joinpath("coco_minival.txt").read_text(encoding="utf-8")
    return frozenset(int(number) for line in text.splitlines() if not line.startswith("#") for number in line.split())
