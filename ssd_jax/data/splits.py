"""Parse split specifications and join the splits that they name.

Examples of specifications are ``train``, ``train+validation``, ``train[:50%]`` and
``VOC2007/trainval+VOC2012/trainval``. Names, sums and slices have the same meaning as in tensorflow-datasets. A folder
before a name is relative to ``data.root``, so that several data sets can be joined.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from ssd_jax.config import Config, Data
from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError

_BOUND = r"-?\d+%?"
_TERM = re.compile(rf"(?:(?P<folder>[^\[\]]*)/)?(?P<name>[^\[\]/]+)(?:\[(?P<start>{_BOUND})?:(?P<stop>{_BOUND})?\])?")


class Term(NamedTuple):
    """One term of a split specification: ``folder/name[start:stop]``."""

    folder: str
    """Folder relative to ``data.root``; empty for ``data.root`` itself."""
    name: str
    """Name of the split in that folder."""
    start: str
    """Start of the slice: a position as in a Python slice, or a percentage of the images. Empty: the first image."""
    stop: str
    """End of the slice, in the notation of ``start``. Empty: the end of the split."""


def parse_split(text: str) -> tuple[Term, ...]:
    """Parse a split specification into its terms.

    Raises:
        UserError: If the text is not a split specification.
    """
    return tuple(_parse_term(text, part.strip()) for part in text.split("+"))


def _parse_term(text: str, part: str) -> Term:
    match = _TERM.fullmatch(part)
    if match is None:
        raise UserError(
            f"'{text}' is not a split: '{part}' must be NAME or FOLDER/NAME, optionally with a slice such as [:50%] or "
            "[100:200]."
        )
    return Term(*(match[group] or "" for group in Term._fields))


def select_required_splits(config: Config) -> Data:
    """Return the options of the data set of a run, which ask for no val split if training does not evaluate.

    Then no images are held out of train for val, see `ssd_jax.data.formats.open.open_source`.
    """
    if config.train.eval_every != 0:
        return config.data
    return dataclasses.replace(config.data, val_split=config.data.train_split)


def slice_positions(term: Term, length: int) -> range:
    """Return the positions that a term selects in a split of ``length`` images.

    Percentages are rounded to whole images.
    """
    start, stop = (_parse_bound(bound, length) for bound in (term.start, term.stop))
    return range(length)[start:stop]


def _parse_bound(text: str, length: int) -> int | None:
    if not text:
        return None
    return round(length * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def _label_map(old_names: Sequence[str], new_names: Sequence[str]) -> Int32[np.ndarray, " l"]:
    """Return an array that maps each label for ``old_names`` to the label for ``new_names``. Label 0 stays 0."""
    return np.array([0, *(1 + new_names.index(name) for name in old_names)], np.int32)


def _category_ids(source: Source, class_names: Sequence[str]) -> tuple[int, ...] | None:
    """Return a source's category ids in the order of the given class names, with -1 for classes not in the source."""
    if source.category_ids is None:
        return None
    ids = dict(zip(source.class_names, source.category_ids, strict=True))
    return tuple(ids.get(name, -1) for name in class_names)


class JoinedSource(Source):
    """A source that consists of selected images of one or several other sources.

    If the sources are from different folders, image ids are prefixed with the folder.

    Args:
        parts: Each term with its source and the positions that the term selects. The classes of the joined
            source are the classes of the first source, followed by additional classes of the other sources; labels
            are renumbered.
    """

    def __init__(self, parts: Sequence[tuple[Term, Source, Sequence[int]]]):
        sources = [source for _, source, _ in parts]
        self.class_names = tuple(dict.fromkeys(name for source in sources for name in source.class_names))
        self._labels = [_label_map(source.class_names, self.class_names) for source in sources]
        ids = {_category_ids(source, self.class_names) for source in sources}
        self.category_ids = ids.pop() if len(ids) == 1 else None
        # Two COCO files may use the same image id for different images, so joined files have no COCO truth. Metrics
        # are then computed from the annotations.
        self.coco_truth = sources[0].coco_truth if len(sources) == 1 else None
        self.annotated = all(source.annotated for source in sources)
        self.notes = tuple(note for source in sources for note in source.notes)
        self.in_memory = all(source.in_memory for source in sources)
        self._sources = sources
        self._positions = [(part, position) for part, (_, _, selected) in enumerate(parts) for position in selected]
        folders = [term.folder for term, _, _ in parts]
        self._prefixes = [f"{folder}/" if len(set(folders)) > 1 else "" for folder in folders]

    def __len__(self) -> int:
        return len(self._positions)

    def sizes(self) -> list[tuple[int, int]] | None:
        sizes = [source.sizes() for source in self._sources]
        known = [s for s in sizes if s is not None]
        return [known[part][position] for part, position in self._positions] if len(known) == len(sizes) else None

    def annotation(self, index: int) -> Annotation:
        part, position = self._positions[index]
        annotation = self._sources[part].annotation(position)
        return annotation._replace(
            image_id=self._prefixes[part] + annotation.image_id, labels=self._labels[part][annotation.labels]
        )

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        part, position = self._positions[index]
        return self._sources[part].image(position)

    def reduced_image(self, index: int, canvas: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        part, position = self._positions[index]
        return self._sources[part].reduced_image(position, canvas)
