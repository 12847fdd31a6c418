"""The language of splits: ``train``, ``train+validation``, ``train[:50%]``, ``VOC2007/trainval+VOC2012/trainval``.

Names, sums and slices mean what they do in tensorflow-datasets; a folder before a name is one below
data.root, so that several data sets are joined.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError

_BOUND = r"-?\d+%?"
_TERM = re.compile(rf"(?:(?P<folder>[^\[\]]*)/)?(?P<name>[^\[\]/]+)(?:\[(?P<start>{_BOUND})?:(?P<stop>{_BOUND})?\])?")


class Term(NamedTuple):
    """One summand of a split."""

    folder: str
    """Below data.root; empty: data.root itself."""
    name: str
    start: str
    """First image, as in Python's slices, or per cent of them; empty: from the first."""
    stop: str


def parse_split(text: str) -> tuple[Term, ...]:
    """The summands of a split. Raises UserError where the text is none."""
    return tuple(_parse_term(text, part.strip()) for part in text.split("+"))


def _parse_term(text: str, part: str) -> Term:
    found = _TERM.fullmatch(part)
    if found is None:
        raise UserError(
            f"'{text}' is no split: '{part}' is neither a name, nor FOLDER/NAME, nor one of these with a slice such as "
            "[:50%] or [100:200]."
        )
    return Term(*(found[group] or "" for group in Term._fields))


def slice_positions(term: Term, length: int) -> range:
    """Which of ``length`` images a term takes; per cent are rounded to whole images."""
    start, stop = (_bound(bound, length) for bound in (term.start, term.stop))
    return range(length)[start:stop]


def _bound(text: str, length: int) -> int | None:
    if not text:
        return None
    return round(length * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def _label_map(old: Sequence[str], new: Sequence[str]) -> Int32[np.ndarray, " l"]:
    """Return the new label for each old one: entry k is the position of class k - 1 of ``old`` in ``new``, plus 1."""
    return np.array([0, *(1 + new.index(name) for name in old)], np.int32)


def _category_ids(source: Source, class_names: Sequence[str]) -> tuple[int, ...] | None:
    """Return a source's category ids in the order of other class names; -1 for classes that it lacks."""
    if source.category_ids is None:
        return None
    ids = dict(zip(source.class_names, source.category_ids, strict=True))
    return tuple(ids.get(name, -1) for name in class_names)


class JoinedSource(Source):
    """Images of several sources, or some of one, as one. Where folders differ they stand in front of image ids."""

    def __init__(self, parts: Sequence[tuple[Term, Source, range]]):
        """Join the images of each source at the given positions.

        The classes are those of the first source, followed by new ones of the others; labels are renumbered.
        """
        sources = [source for _, source, _ in parts]
        self.class_names = tuple(dict.fromkeys(name for source in sources for name in source.class_names))
        self._labels = [_label_map(source.class_names, self.class_names) for source in sources]
        ids = {_category_ids(source, self.class_names) for source in sources}
        self.category_ids = ids.pop() if len(ids) == 1 else None
        # Image ids of several files may collide; those are measured by their annotations.
        self.coco_truth = sources[0].coco_truth if len(sources) == 1 else None
        self.annotated = all(source.annotated for source in sources)
        self.notes = tuple(note for source in sources for note in source.notes)
        self.in_memory = all(source.in_memory for source in sources)
        self._sources = sources
        self._positions = [(part, position) for part, (_, _, taken) in enumerate(parts) for position in taken]
        folders = [term.folder for term, _, _ in parts]
        self._prefixes = [f"{folder}/" if len(set(folders)) > 1 else "" for folder in folders]

    def __len__(self) -> int:
        return len(self._positions)

    def sizes(self) -> list[tuple[int, int]] | None:
        sizes = [source.sizes() for source in self._sources]
        known = [s for s in sizes if s is not None]
        return [known[part][at] for part, at in self._positions] if len(known) == len(sizes) else None

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
