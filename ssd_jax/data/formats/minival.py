"""COCO's trainval35k and minival, from the files of 2017 or of 2014.

In 2014 COCO had some 83,000 images to train on and 40,500 for validation. Of the latter Bell et al. ("Inside-Outside
Net", arXiv 1512.04143) kept 5000, minival, and trained on the other 35,000 too: trainval35k, on which the paper's
COCO models are trained. COCO's train2017 and val2017 are these two splits ("minival is exactly equivalent to the
recently defined 2017 val set", Detectron, datasets/data/README.md).
"""

import functools
from collections.abc import Container
from importlib import resources
from typing import NamedTuple


class Part(NamedTuple):
    """Images of one COCO file."""

    file: str
    """What the file holds: train2014, for instances_train2014.json."""
    minival: bool | None = None
    """True: only those of minival. False: only the others. None: all."""


# What may stand for a split; where the files of several are there, the first does.
_MADE_OF = {
    "trainval35k": ((Part("train2017"),), (Part("train2014"), Part("val2014", minival=False))),
    "minival": ((Part("val2017"),), (Part("val2014", minival=True),)),
}
SPLITS = tuple(_MADE_OF)


def find_parts(split: str, files: Container[str]) -> tuple[Part, ...]:
    """What the split is made of in a folder with these files; empty where it can't be, or is a file of its own."""
    choices = () if split in files else _MADE_OF.get(split, ())
    return next((parts for parts in choices if all(part.file in files for part in parts)), ())


@functools.cache
def minival_ids() -> frozenset[int]:
    """COCO's ids of the 5000 images of minival."""
    text = resources.files("ssd_jax.data.formats").joinpath("coco_minival.txt").read_text(encoding="utf-8")
    return frozenset(int(number) for line in text.splitlines() if not line.startswith("#") for number in line.split())
