"""Find the files of COCO 2017 or COCO 2014 from which the splits trainval35k and minival can be made.

COCO 2014 has about 83,000 training images and 40,500 validation images. Bell et al. ("Inside-Outside Net", arXiv
1512.04143) divided the validation images: 5000 of them, *minival*, are used for validation; the other 35,000 and the
training images are used for training and are called *trainval35k*. The COCO models of the SSD paper are trained on
trainval35k. COCO's train2017 and val2017 contain the same images as trainval35k and minival ("minival is exactly
equivalent to the recently defined 2017 val set", Detectron, datasets/data/README.md).
"""

import functools
from collections.abc import Container
from importlib import resources
from typing import NamedTuple


class Part(NamedTuple):
    """The images that a split takes from one COCO file."""

    file: str
    """Name of the COCO file without prefix and extension, such as train2014 for instances_train2014.json."""
    minival: bool | None = None
    """True selects the images that are in minival, False the images that are not, None all images."""


# For each split: the parts that it can be made of, in order of preference.
_CHOICES = {
    "trainval35k": ((Part("train2017"),), (Part("train2014"), Part("val2014", minival=False))),
    "minival": ((Part("val2017"),), (Part("val2014", minival=True),)),
}
SPLITS = tuple(_CHOICES)
"""Names of the splits that `find_parts` knows."""


def find_parts(split: str, files: Container[str]) -> tuple[Part, ...]:
    """Return the parts that make up a split.

    Args:
        split: Name of the split.
        files: Names of the COCO files that exist, in the form of `Part.file`.

    Returns:
        The parts in order. Empty if the split is not in `SPLITS`, if its files are missing, or if there is a file with
        the name of the split.
    """
    choices = () if split in files else _CHOICES.get(split, ())
    return next((parts for parts in choices if all(part.file in files for part in parts)), ())


@functools.cache
def minival_ids() -> frozenset[int]:
    """Return the COCO ids of the 5000 minival images."""
    text = resources.files("ssd_jax.data.formats").joinpath("coco_minival.txt").read_text(encoding="utf-8")
    return frozenset(int(number) for line in text.splitlines() if not line.startswith("#") for number in line.split())
