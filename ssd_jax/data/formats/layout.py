"""Find the images that belong to annotation files, wherever both are in the folder of a data set.

Tools write annotation files next to the images (``train/a.xml``), into a parallel folder (``labels/train/a.txt`` for
``images/train/a.jpg``), or into a folder beside that of the images (``train/annotations`` and ``train/images``). These
layouts have in common that an image has the name of its annotation file, and that their paths share more folders than
those of other files with this name.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from ssd_jax.data.folder import common_tail, parent

_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "data", "photos", "pictures")
_LABEL_FOLDERS = ("labels", "label", "annotations", "annots")
_OTHER_WORDS = ("segmentation", "mask", "depth", "visual", "pred", "result", "runs", "output", "backup")


@lru_cache(maxsize=100_000)
def folder_distance(one: str, other: str) -> tuple[int, int]:
    """Return a value that is lower the more likely files in two folders belong to each other.

    The values of two folders are compared as tuples. First, the same folder is best, then the folders that share most
    parts at the start and at the end of their paths. Then, the usual names of folders of images and labels are better
    than other names, and names such as ``masks`` or ``predictions`` are worse. Of other names, those that end in the
    same number are better: ``image_2`` for ``label_2``, as in KITTI.

    Args:
        one: Relative path of the folder of an annotation file, or of an image.
        other: Relative path of a folder in which the other file may be.
    """
    if one == other:
        return -1000, 0
    a, b = _parts(one), _parts(other)
    start = common_tail(a[::-1], b[::-1])
    end = common_tail(a[start:], b[start:])
    return -(start + end), _name_rank(b) - bool(_number(a) and _number(a) == _number(b))


def _parts(folder: str) -> list[str]:
    return folder.casefold().split("/") if folder else []


def _number(parts: list[str]) -> str:
    """Return the number at the end of the name of a folder, such as ``_2`` for ``image_2``; empty without one."""
    match = re.search(r"_\d+$", parts[-1]) if parts else None
    return match[0] if match else ""


def _name_rank(parts: list[str]) -> int:
    if is_side_folder("/".join(parts)):
        return 100
    usual = [*_IMAGE_FOLDERS, *_LABEL_FOLDERS]
    return min((usual.index(part) for part in parts if part in usual), default=50)


def is_side_folder(folder: str) -> bool:
    """Return whether a part of a path is a usual name for masks, results or drawings instead of images."""
    return any(word in part for part in _parts(folder) for word in _OTHER_WORDS)


def describe_layout(annotations: Iterable[str], images: Iterable[str], what: str) -> str:
    """Return a sentence about the folders of annotation files and images; empty for a usual layout or without files.

    The usual layouts are annotation files in the folder of the images, in ``Annotations/`` with images in
    ``JPEGImages/``, and in ``labels/`` with images in ``images/``, also inside of the folder of a split.

    Args:
        annotations: Relative paths of the annotation files.
        images: Relative paths of their images.
        what: Name of the annotation files, such as "VOC annotations".
    """
    places = Counter(map(parent, annotations)), Counter(map(parent, images))
    if not all(places):
        return ""
    pairs = zip(*(sorted(place) for place in places), strict=False)
    if len(places[0]) == len(places[1]) and all(_is_usual(one, other) for one, other in pairs):
        return ""
    texts = [", ".join(f"{folder or '.'}/" for folder in sorted(place)[:4]) for place in places]
    texts = [text + (", ..." if len(place) > 4 else "") for text, place in zip(texts, places, strict=True)]
    return f"{what} in {texts[0]}, images in {texts[1]}"


def _is_usual(annotations: str, images: str) -> bool:
    if annotations == images:
        return True
    usual = (("Annotations", "JPEGImages"), ("labels", "images"))
    return any(
        annotations.split("/").count(one) == 1
        and ["*" if part == one else part for part in annotations.split("/")]
        == ["*" if part == other else part for part in images.split("/")]
        for one, other in usual
    )
