"""Read data sets in the format of PASCAL VOC, with one XML annotation file per image.

Format: The PASCAL Visual Object Classes Challenge 2007 Development Kit, section 5. Coordinates are used as they are in
the file. In VOC's own files, pixels are counted from 1, and xmax and ymax are the last pixels inside the box; most
tools that write this format today count from 0.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from ssd_jax.config import Data
from ssd_jax.data.folder import (
    AmbiguousPathError,
    Folder,
    group_by_stem,
    lowest,
    parent,
    spelling_key,
    split_path,
    stem,
)
from ssd_jax.data.formats.layout import describe_layout, folder_distance
from ssd_jax.data.formats.other_formats import find_sidecar_files, report_sidecar_files
from ssd_jax.data.formats.reader import SplitBuilder
from ssd_jax.data.formats.voc_xml import ADVICE_NO_OBJECTS, VocAnnotation, header_or_stated_size, parse_voc_xml
from ssd_jax.data.image import EXTENSIONS, image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, add_problem_if_normalised, join_names, read_text
from ssd_jax.data.split_names import find_split_name, is_split_name, split_of_path
from ssd_jax.data.splits import parse_split
from ssd_jax.errors import UserError

LAYOUT = ".xml files with the root element <annotation>, and images with the same names"

_MAIN = "ImageSets/Main"  # folder of the lists in the original data sets
_SNIFFED_FILES = 20  # files that are examined to recognise the format
_SNIFFED_BYTES = 2000


def count_annotated(folder: Folder) -> int:
    """Return the number of XML files, or 0 if none of the first ones has the root element <annotation>."""
    files = folder.with_extension(".xml")
    return len(files) if any(_looks_like_voc(folder.full_path(f)) for f in islice(files, _SNIFFED_FILES)) else 0


def _looks_like_voc(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            start = stream.read(_SNIFFED_BYTES)
    except OSError:
        return False
    # Null bytes are removed so that UTF-16 is recognised, too.
    return re.search(rb"<(\w+:)?annotation[\s/>]", start.replace(b"\0", b"")) is not None


def split_names(folder: Folder, data: Data) -> tuple[str, ...]:
    """Return the names of the splits: those of the lists of images or, without lists, those of the folders."""
    return tuple(_find_lists(folder)) or tuple(_folder_splits(folder))


def open_split(folder: Folder, data: Data, split: str, class_names: Sequence[str], problems: Problems) -> FolderSource:
    """Open a split of a VOC folder, reading its annotation files and the headers of its images.

    A split is a list such as ``ImageSets/Main/train.txt`` or ``train.txt``; or all annotation files in folders whose
    path contains the name of the split, such as ``train/`` or ``annotations/train/``. Annotation files may be in any
    folder. The image of an annotation file has the same name, or is named by <filename>; of several such images, the
    one in the closest folder is used (see `ssd_jax.data.formats.layout`).

    If most images of the list ``test`` have no annotation file, as in VOC 2012, their boxes are assumed not to be
    public, and the source has ``annotated=False``.

    Args:
        folder: The folder.
        data: Options of the data set.
        split: Name of the split, or an empty text for all images.
        class_names: Class names in the order of their labels. Empty: the class names in all splits of the folder,
            sorted.
        problems: Object that collects errors and warnings.

    Raises:
        UserError: If the split is empty. If ``problems`` raises errors, also if a file is missing or malformed, or if
            a class is not in ``class_names``.
    """
    reader = _VocReader(folder, problems)
    lists = _find_lists(folder)
    if split in lists and split.lower() == "test" and reader.is_test_without_boxes(lists[split][0]):
        return reader.open_test_without_boxes(lists[split][0], class_names)
    if split in lists:
        files = [xml for file in lists[split] for xml in reader.read_list(file)]
    elif split:
        files = _folder_splits(folder)[split]
    else:
        files = [xml for same in lists.values() for file in same for xml in reader.read_list(file)] or list(
            reader.xml_files
        )
    if not reader.xml_files:
        raise UserError(f"{folder.path}: it contains no .xml files. Add the annotation files.")
    if not files:
        raise UserError(f"{folder.path}: the split '{split}' is empty. Other splits: {join_names(lists)}.")
    options = (data.train_split, data.val_split, data.test_split)
    used = {split}
    for name in {term.name for option in options for term in parse_split(option)}:
        with suppress(UserError):  # an ambiguous name; opening this split reports it
            used.add(find_split_name(name, lists) or name)
    known = {name: same for name, same in lists.items() if name in used}
    return reader.open(list(dict.fromkeys(files)), known or lists, class_names)


# ---- splits ----


def _find_lists(folder: Folder) -> dict[str, list[str]]:
    """Return a dict from the names of splits to the relative paths of the lists of their images.

    The lists are the .txt files in ``ImageSets/Main`` or, if there are none, files with the name of a split in
    ``ImageSets`` or in the folder itself. If all lists in ``ImageSets/Main`` are for single classes, as in the exports
    of VoTT, the lists of a split are joined.

    Raises:
        UserError: If several folders in the folder have lists in ``ImageSets/Main``.
    """
    texts = folder.with_extension(".txt")
    mains = sorted({parent(file) for file in texts if f"/{parent(file)}".endswith(f"/{_MAIN}")})
    if len(mains) > 1:
        choices = ", ".join(str(folder.full_path(place.removesuffix(_MAIN))) for place in mains)
        raise UserError(
            f"{folder.path}: it contains several data sets. Choose one of them with --data.root: {choices}."
        )
    if mains:
        names = {stem(file): file for file in texts if parent(file) == mains[0]}
        # VOC's lists for single classes are not splits; their names end in that of a split (aeroplane_train).
        own = {n: [file] for n, file in names.items() if not any(n.endswith("_" + other) for other in names)}
        endings = {name: name.rpartition("_")[2] for name in own}
        if len(set(endings.values())) == len(own) or not all(map(is_split_name, endings.values())):
            return own
        return {
            end: [names[n] for n, other in endings.items() if other == end] for end in sorted(set(endings.values()))
        }
    for place in ("ImageSets", ""):
        lists = {stem(file): [file] for file in texts if parent(file) == place and is_split_name(stem(file))}
        if lists:
            return lists
    return {}


def _folder_splits(folder: Folder) -> dict[str, list[str]]:
    """Return the relative paths of the annotation files by the name of their split; empty if no folder names a split.

    Folders without the name of a split are splits, too, if others have one; their name is that of the first folder.
    """
    files = folder.with_extension(".xml")
    if not any(split_of_path(parent(file)) for file in files):
        return {}
    splits: dict[str, list[str]] = {}
    for file in files:
        place = parent(file)
        name = split_of_path(place) or place.split("/")[0]
        if name:
            splits.setdefault(name, []).append(file)
    return splits


class _VocReader:
    """Reads annotation files and finds their images.

    Args:
        folder: Folder of the data set.
        problems: Object that collects errors and warnings.
    """

    def __init__(self, folder: Folder, problems: Problems):
        self._folder, self._problems = folder, problems
        self.xml_files = folder.with_extension(".xml")
        self._xml_by_stem = group_by_stem(self.xml_files)
        self._parsed: dict[str, VocAnnotation | None] = {}

    def open(self, files: Sequence[str], lists: dict[str, list[str]], class_names: Sequence[str]) -> FolderSource:
        """Return a source with the images of annotation files. Files that no split uses become problems."""
        problems = self._problems
        images: dict[str, str] = {}  # the annotation file of each image
        contents = {file: content for file in files if (content := self._parse(file, problems)) is not None}
        builder = SplitBuilder(class_names or self._class_names(), problems, place=self._folder.root)
        for relative, content in contents.items():
            file = self._folder.full_path(relative)
            add_problem_if_normalised(content.objects, problems, file=file)
            with problems.collect_errors(Kind.MISSING, file):
                image = self._find_image(relative, content)
                path = self._folder.full_path(image)
                with problems.collect_errors(Kind.UNREADABLE, path):
                    size = header_or_stated_size(path, content)
                    if content.size is not None and content.size != size:
                        stated, actual = (f"{width} x {height}" for width, height in (content.size, size))
                        text = f"<size> is {stated}, but the image is {actual}. Check that the boxes fit the image."
                        problems.add(Kind.SIZE_DIFFERS, file, text)
                    if image in images:
                        text = f"its image also has the annotation file {images[image]}. Keep one of the two files."
                        problems.add(Kind.MALFORMED, file, text)
                        continue
                    builder.add(stem(relative), path, size, content.objects, file=file)
                    images[image] = relative
        layout = describe_layout(contents, images, "VOC annotations")
        if layout:
            problems.add(Kind.LAYOUT, self._folder.root, layout, group=layout)
        self._report_unused(lists)
        return builder.build()

    def _parse(self, relative: str, problems: Problems) -> VocAnnotation | None:
        """Return the content of an annotation file; None if it is malformed or not an annotation file."""
        if relative not in self._parsed:
            self._parsed[relative] = None
            file = self._folder.full_path(relative)
            with problems.collect_errors(Kind.MALFORMED, file):
                self._parsed[relative] = parse_voc_xml(file, problems)
        return self._parsed[relative]

    def _class_names(self) -> tuple[str, ...]:
        # The problems of other splits are discarded here, because opening those splits finds them again.
        problems = Problems(raise_errors=self._problems.raise_errors)
        contents = [self._parse(file, problems) for file in self.xml_files]
        names = sorted({o.name for content in contents if content for o in content.objects})
        if not names:
            raise UserError(
                f"{self._folder.path}: no annotation file contains an object, so there is nothing to learn. Add boxes."
            )
        return tuple(names)

    # ---- images ----

    def _find_image(self, relative: str, content: VocAnnotation) -> str:
        """Return the relative path of the image of an annotation file.

        It is the image with the name of the annotation file (``a.xml`` or ``a.jpg.xml``) or, if there is none, the
        image that <filename> names. If several images have the name of the annotation file, <filename> selects one
        of them. The image named by <filename> is not used if it has an annotation file of its own: this file is then
        probably a copy in which <filename> was not changed.
        """
        own_name, place = stem(relative), parent(relative)
        own = self._folder.images_named(own_name)
        named = split_path(content.filename)[-1:]
        others = [] if own or not named else self._folder.images_named(stem(named[0]))
        if others and any(parent(xml) == place for xml in self._xml_by_stem.get(spelling_key(stem(named[0])), [])):
            text = f"there is no image '{own_name}', and '{named[0]}' in <filename> has its own annotation file. "
            raise UserError(f"{self._folder.full_path(relative)}: {text}Rename or remove one of the files.")
        candidates = own or others
        if not candidates:
            raise UserError(f"{self._folder.full_path(relative)}: {self._missing_image_text(own_name, named)}")

        def order(image: str) -> tuple[object, ...]:
            name = image.rpartition("/")[2]
            is_named = bool(named) and spelling_key(name) == spelling_key(named[0])
            is_exact = own_name in (name, stem(name))
            return not is_named if others else 0, folder_distance(place, parent(image)), not is_exact, not is_named

        try:
            image = lowest(candidates, order)
        except AmbiguousPathError as error:
            if len({parent(choice) for choice in error.choices}) == 1:
                return error.choices[0]  # such as a.jpg and a.png in one folder: <filename> names neither
            raise UserError(
                f"{self._folder.full_path(relative)}: its image may be any of {join_names(error.choices)}. Remove "
                "or rename the folders that do not belong to the annotations."
            ) from None
        if own and stem(image) != own_name and image.rpartition("/")[2] != own_name:
            self._problems.add(Kind.NAME_DIFFERS, self._folder.full_path(relative), f"({image})")
        return image

    def _missing_image_text(self, name: str, named: Sequence[str]) -> str:
        closest = self._folder.image_with_most_similar_name((named or [name])[0])
        texts = [f"its image is missing: there is no image '{name}'"]
        if named and stem(named[0]) != name:
            texts.append(f"and no '{named[0]}'")
        hint = f" The most similar name is {closest}." if closest else ""
        return " ".join(texts) + f".{hint} Add the image, or remove the annotation file."

    # ---- lists ----

    def read_list(self, file: str) -> list[str]:
        """Return the annotation files of the images in a list, in the order of the list, without repetitions."""
        files = []
        for number, names in _read_lines(self._folder.full_path(file)):
            existing = next((xml for name in names if (xml := self._find_xml(name)) is not None), None)
            if existing is None:
                self._problems.add(
                    Kind.MISSING,
                    f"{self._folder.full_path(file)} line {number}",
                    f"the annotation file {names[-1]}.xml is missing. Add it, or remove the line from the list; "
                    f"{ADVICE_NO_OBJECTS}.",
                )
                continue
            files.append(existing)
        return list(dict.fromkeys(files))

    def _find_xml(self, name: str) -> str | None:
        """Return the annotation file that the entry of a list refers to, which may contain folders."""
        parts = split_path(name)
        candidates = self._xml_by_stem.get(spelling_key(parts[-1]), []) if parts else []
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        place = "/".join(parts[:-1])
        return min(candidates, key=lambda xml: (stem(xml) != parts[-1], folder_distance(place, parent(xml)), xml))

    def _report_unused(self, lists: dict[str, list[str]]) -> None:
        """Add a problem for each annotation file that is in no split, or each image without an annotation file.

        Images without an annotation file are reported if there are no lists, and in folders of annotated images only,
        since other folders may contain masks or results.
        """
        if lists:
            lines = [names for same in lists.values() for file in same for _, names in self._lines(file)]
            known = {stem(xml) for names in lines for xml in self._found(names)}
            for xml in self.xml_files:
                if stem(xml) not in known:
                    self._problems.add(Kind.IN_NO_SPLIT, self._folder.full_path(xml), "")
            return
        splits = _folder_splits(self._folder)
        in_splits = {xml for files in splits.values() for xml in files}
        for xml in self.xml_files if splits else ():
            if xml not in in_splits and self._parse(xml, Problems(raise_errors=False)) is not None:
                self._problems.add(Kind.IN_NO_SPLIT, self._folder.full_path(xml), "")
        places = {parent(image) for stems in self._xml_by_stem for image in self._folder.images_named(stems)}
        unannotated = [
            image
            for image in self._folder.images
            if not {spelling_key(stem(image)), spelling_key(image.rpartition("/")[2])} & self._xml_by_stem.keys()
        ]
        sidecars = find_sidecar_files(self._folder, unannotated)
        report_sidecar_files(self._folder, sidecars, self._problems)
        for image in unannotated:
            if parent(image) in places and image not in sidecars:
                self._problems.add(Kind.UNANNOTATED, self._folder.full_path(image), "")

    def _lines(self, file: str) -> list[tuple[int, list[str]]]:
        return _read_lines(self._folder.full_path(file))

    def _found(self, names: Iterable[str]) -> list[str]:
        return [xml for name in names if (xml := self._find_xml(name)) is not None][:1]

    # ---- a test split without public boxes ----

    def is_test_without_boxes(self, file: str) -> bool:
        """Return whether most images of a list have no annotation file.

        In VOC 2012, some images of ``test`` have an annotation file for other tasks (person layout and action
        classification), which contains only some of the objects.
        """
        annotated = [bool(self._found(names)) for _, names in self._lines(file)]
        return 2 * sum(annotated) < len(annotated)

    def open_test_without_boxes(self, file: str, class_names: Sequence[str]) -> FolderSource:
        builder = SplitBuilder(class_names or self._class_names(), self._problems)
        for number, names in self._lines(file):
            images = [image for name in names for image in self._folder.images_named(split_path(name)[-1])]
            if not images:
                text = f"image {names[-1]} is missing. Add it, or remove the line from the list."
                self._problems.add(Kind.MISSING, f"{self._folder.full_path(file)} line {number}", text)
                continue
            path = self._folder.full_path(min(images, key=lambda image: (folder_distance("", parent(image)), image)))
            with self._problems.collect_errors(Kind.UNREADABLE, path):
                builder.add(path.stem, path, image_size(path), [], file=path)
        return builder.build(annotated=False)


def _read_lines(file: Path) -> list[tuple[int, list[str]]]:
    """Return the number of each non-blank line of a list, and the image names that the line may stand for."""
    lines = read_text(file).splitlines()
    return [(number, names) for number, line in enumerate(lines, start=1) if (names := _candidate_names(line.strip()))]


def _candidate_names(entry: str) -> list[str]:
    """Return the image names, without extension, that a line of a list may stand for, the whole line first.

    A line is the name or path of an image, perhaps with an extension, and perhaps with a second column: -1, 0 or 1, as
    in lists for single classes, or the path of the annotation file. Names may contain spaces and dots.
    """
    *first, last = entry.split() or [""]
    entries = [entry] if entry else []
    if first and last in ("-1", "0", "1"):
        entries.append(entry[: -len(last)].rstrip())
    if first and last.lower().endswith(".xml"):
        entries.append(last)
    return [e[: -len(Path(e).suffix)] if Path(e).suffix.lower() in (*EXTENSIONS, ".xml") else e for e in entries]
