"""Recognise the names of splits, and divide a data set without splits into train and val."""

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from ssd_jax.errors import UserError

_SYNONYMS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validate", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
_KINDS = {name: kind for kind, names in _SYNONYMS.items() for name in names}
_ONLY_WHOLE = ("dev", "eval")  # these words mean something else as a part of a name, as in eval_results
_SUFFIXES = ("set", "data", "images", "imgs", "labels", "annotations")
_OTHER_SPLITS = re.compile(r"(minival|trainval35k|test[-_]?dev)[-_]?\d*", re.IGNORECASE)


def split_kind(name: str) -> str | None:
    """Return ``"train"``, ``"val"`` or ``"test"`` for a name of such a split, or None for any other name.

    The name may be a synonym (``valid``), may end in a number (``train2017``), and may be one word of a longer name
    (``instances_Train``, ``obj_train_data``). Letter case is ignored.
    """
    if _OTHER_SPLITS.fullmatch(name):
        return None
    words = _words(name)
    kinds = {_KINDS[word] for word in words if word in _KINDS and (len(words) == 1 or word not in _ONLY_WHOLE)}
    return kinds.pop() if len(kinds) == 1 else None


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case, without numbers: ``obj_TrainData2`` consists of obj, train and data."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    for suffix in _SUFFIXES:  # trainset, valdata
        words = [shorter if (shorter := word.removesuffix(suffix)) in _KINDS else word for word in words]
    return words


def is_split_name(name: str) -> bool:
    """Return whether the name of a file or folder is a usual name of a split: train, val2017, ..."""
    return split_kind(name) is not None or _OTHER_SPLITS.fullmatch(name) is not None


def is_plain_split_name(name: str) -> bool:
    """Return whether a name is only that of a split, perhaps with a number: train, valid or val2017, not my_train."""
    return re.fullmatch(rf"(?i)({'|'.join(_KINDS)})[-_]?\d*", name) is not None or bool(_OTHER_SPLITS.fullmatch(name))


def split_of_path(folder: str) -> str | None:
    """Return the first part of a relative path that is a name of a split, or None if there is none."""
    return next((part for part in folder.split("/") if is_split_name(part)), None)


def find_split_name(split: str, names: Iterable[str]) -> str | None:
    """Return the name that a requested split has in a data set, or None if the data set has no such split.

    These are tried in order: the same name; the same name in other letter case; the same name followed by a number;
    a synonym; a longer name that contains a synonym (see `split_kind`).

    Args:
        split: Requested name.
        names: Names of the splits of the data set.

    Raises:
        UserError: If several names fit equally well.
    """
    names = list(names)
    for fits in _name_tests(split):
        found = [name for name in names if fits(name)]
        if len(found) > 1:
            raise UserError(f"the split '{split}' is ambiguous: {', '.join(found)}. Use one of these names.")
        if found:
            return found[0]
    return None


def _name_tests(split: str) -> Iterator[Callable[[str], object]]:
    """Yield the tests by which `find_split_name` finds the name of a split, in order."""
    folded = split.casefold()
    yield lambda name: name == split
    yield lambda name: name.casefold() == folded
    yield lambda name: re.fullmatch(re.escape(folded) + r"[-_]?\d+", name.casefold())
    if folded in _KINDS and folded != "trainval":  # trainval contains val, so train is no synonym of it
        kind = _KINDS[folded]
        for synonym in _SYNONYMS[kind]:
            yield functools.partial(re.fullmatch, rf"(?i){synonym}[-_]?\d*")
        yield lambda name: split_kind(name) == kind


def split_by_hash(image_ids: Sequence[str], fraction: float) -> list[bool]:
    """Assign each image of a data set without splits to val (True) or to train (False).

    The assignment depends on a hash of the image's id, so an image stays in its split when other images are added or
    removed. There is one exception: if all of two or more images would be in the same split, one of them is moved, so
    that neither split is empty. A single image is in train.

    Args:
        image_ids: Ids of all images.
        fraction: Expected fraction of the images in val, from 0 to 1.

    Returns:
        True for each image in val, False for each image in train.
    """
    digests = (hashlib.blake2b(i.encode(errors="backslashreplace"), digest_size=8).digest() for i in image_ids)
    hashes = [int.from_bytes(digest) / 2**64 for digest in digests]
    in_val = [value < fraction for value in hashes]
    if len(in_val) == 1:
        return [False]
    if len(in_val) > 1 and len(set(in_val)) == 1:
        in_val[hashes.index(max(hashes) if in_val[0] else min(hashes))] ^= True
    return in_val
