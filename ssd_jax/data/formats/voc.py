"""Folders in the layout of PASCAL VOC: one XML file of boxes for each image.

Format: The PASCAL Visual Object Classes Challenge 2007 Development Kit, section 5. Coordinates are
taken as they stand in the file (the kit counts pixels from 1, and its last pixel lies inside the
box; most tools that write the format today count from 0).
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssd_jax.config import Data
from ssd_jax.data.image import EXTENSIONS, image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import (
    FolderSource,
    RawObject,
    annotation_from_objects,
    hash_split,
    join_names,
    make_annotation,
    read_text,
    split_aliases,
    warn_if_normalised,
)
from ssd_jax.errors import UserError

_ANNOTATION_FOLDERS = ("Annotations", "annotations", "labels", ".")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "img")
_WITHOUT_OBJECTS = "let it hold <annotation></annotation>"


class _Parsed(NamedTuple):
    filename: str
    size: tuple[int, int] | None
    objects: tuple[RawObject, ...]


def open_voc(data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None) -> FolderSource:
    """One split of a VOC folder; reads all its annotations, no pixels.

    Splits are the lists in ``ImageSets/Main``, or else folders of their own (``train/``,
    ``valid/``), or else train and val by a hash of the image's name (`hash_split`). Annotations lie in
    ``Annotations/`` or beside the images, images in ``JPEGImages/``, ``images/`` or beside the XML.

    A list called test most of whose images have no annotation file, as VOC2012's, is one whose boxes only
    its challenge's server knows; the source is then not annotated.

    class_names: the classes, in the order of their labels. Empty: those found in the folder, over
        all its splits, sorted by name.
    problems: collects what is wrong instead of stopping at it.

    Raises UserError, naming the file, for a split that is not there, and, unless they are
    collected, for a file that is not there, malformed XML, and a class that is not in class_names.
    """
    root, problems = Path(data.root), problems or Problems()
    if split == "test" and _is_challenge(root):
        return _open_challenge(root, class_names, problems)
    xml_files, images = _split_files(root, data, split, problems)
    if not xml_files:
        others = join_names(name for name in voc_splits(root) if name != split)
        raise UserError(
            f"{root}: the split '{split}' is empty. Other splits: {others}. Where a folder has neither lists nor a "
            "folder for each split, it takes two annotated images to make train and val of them."
        )
    parsed = {file: content for file in xml_files if (content := _parse(file, problems)) is not None}
    names = tuple(class_names) or _class_names(root, parsed, problems)
    labels = {name: label for label, name in enumerate(names, start=1)}
    annotations = []
    for file, content in parsed.items():
        warn_if_normalised(content.objects, problems, file=file)
        with problems.collecting(Kind.MISSING, file):
            image = _find_image(file, images, content.filename)
            with problems.collecting(Kind.UNREADABLE, image):
                size = true_size(image, content)
                if content.size is not None and content.size != size:
                    stated, found = (f"{width} x {height}" for width, height in (content.size, size))
                    text = f"<size> says {stated}, the picture is {found}: do the boxes fit?"
                    problems.add(Kind.SIZE_DIFFERS, file, text)
                objects = content.objects
                annotations.append(
                    annotation_from_objects(file.stem, str(image), size, objects, labels, problems, file=file)
                )
    for image in _unannotated(root, images):
        problems.add(Kind.UNANNOTATED, image, "")
    return FolderSource(annotations, names, problems.notes())


def _is_challenge(root: Path) -> bool:
    """Whether most images of the list test have no annotation file.

    Some of VOC2012's have one for other tasks, layout and action, with a part of the objects.
    """
    file = root / "ImageSets" / "Main" / "test.txt"
    if not file.is_file():
        return False
    folder = _annotation_folder(root)
    annotated = [any((folder / f"{name}.xml").is_file() for name in names) for _, names in _read_lines(file)]
    return 2 * sum(annotated) < len(annotated)


def _open_challenge(root: Path, class_names: Sequence[str], problems: Problems) -> FolderSource:
    """The images of the list test, without objects."""
    file = root / "ImageSets" / "Main" / "test.txt"
    folder = _image_folder(root, _annotation_folder(root))
    images = _images_by_stem(folder)
    annotations = []
    for number, names in _read_lines(file):
        found = next((images[name][0] for name in names if name in images), None)
        if found is None:
            text = f"there is no image {names[-1]} in {folder}. Add it, or take the line out of the list."
            problems.add(Kind.MISSING, f"{file} line {number}", text)
            continue
        with problems.collecting(Kind.UNREADABLE, found):
            annotations.append(make_annotation(found.stem, str(found), image_size(found), [], []))
    classes = tuple(class_names) or _class_names(root, {}, problems)
    return FolderSource(annotations, classes, problems.notes(), annotated=False)


def is_voc(root: Path) -> bool:
    """Whether a folder holds XML files where `open_voc` looks for them."""
    return root.is_dir() and any(_annotated(folder) for folder in (root, *root.iterdir()))


def voc_splits(root: Path) -> tuple[str, ...]:
    """Names of the splits that a VOC folder has."""
    main = root / "ImageSets" / "Main"
    if main.is_dir():
        names = sorted(file.stem for file in main.glob("*.txt"))
        # The kit's lists of one class, aeroplane_train.txt beside train.txt, are no splits.
        return tuple(n for n in names if not any(n.endswith("_" + other) for other in names))
    folders = tuple(sorted(f.name for f in root.iterdir() if f.is_dir() and next(f.glob("*.xml"), None)))
    folders = tuple(f for f in folders if f not in _ANNOTATION_FOLDERS)
    return folders or ("train", "val")


def _parse(file: Path, problems: Problems) -> _Parsed | None:
    with problems.collecting(Kind.MALFORMED, file):
        return parse_voc_xml(file, problems)
    return None


def parse_voc_xml(file: Path, problems: Problems | None = None) -> _Parsed:
    """The content of one annotation file; boxes xyxy in pixels, as they stand, unclipped.

    Raises UserError, naming the file and the line or the object, if anything is missing or malformed;
    with problems that collect, an object that is malformed goes there.
    """
    problems = problems or Problems()
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        if not file.stat().st_size:
            raise UserError(f"{file}: the file is empty. For an image without objects: {_WITHOUT_OBJECTS}.") from None
        raise UserError(
            f"{file}: not well-formed XML ({error}). Mend that line. For an image without objects: {_WITHOUT_OBJECTS}."
        ) from error
    except (ValueError, LookupError) as error:  # of encodings
        raise UserError(f"{file}: can't be read as XML ({error}). Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror}).") from error
    width, height = (_size_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    objects = []
    for number, node in enumerate(root.findall("object"), start=1):
        with problems.collecting(Kind.MALFORMED, file):
            objects.append(_parse_object(file, number, node))
    size = (width, height) if min(width, height) > 0 else None
    return _Parsed((root.findtext("filename") or "").strip(), size, tuple(objects))


def _size_number(text: str | None) -> int:
    try:
        return int(float(text or 0))
    except ValueError:
        return 0  # as good as missing: the image's own size then counts


def _parse_object(file: Path, number: int, node: ElementTree.Element) -> RawObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{file}: object {number} has no <name>. Give it the name of its class.")
    left, top, right, bottom = (
        _number(file, number, node, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    difficult = _number(file, number, node, "difficult") if node.findtext("difficult") else 0
    return RawObject(f"object {number}", name, (left, top, right, bottom), difficult != 0)


def _number(file: Path, number: int, node: ElementTree.Element, tag: str) -> float:
    text = node.findtext(tag)
    if text is None:
        raise UserError(f"{file}: object {number} has no <{tag.split('/')[-1]}>. Add it, or remove the object.")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{file}: object {number} has <{tag.split('/')[-1]}> '{text.strip()}', which is no number.")
    return value


def true_size(image: Path, content: _Parsed) -> tuple[int, int]:
    """Width and height by the image's header: many tools write a wrong <size>, or none."""
    try:
        return image_size(image, content.size)
    except UserError:
        if content.size is None:
            raise
        return content.size  # the loader reports the image when it is its turn


def _find_image(file: Path, images: dict[str, list[Path]], filename: str) -> Path:
    """By the annotation's own name; where several images have it, or none, by its <filename>.

    Not by a <filename> whose image has an annotation of its own, as in a copied XML file.
    """
    found = images.get(file.stem, [])
    if len(found) == 1:
        return found[0]
    stem = Path(filename).stem
    others = [] if file.with_name(f"{stem}.xml").exists() else images.get(stem, [])
    named = [image for image in found or others if image.name == Path(filename).name]
    if named or found:
        return (named or found)[0]
    raise UserError(
        f"{file}: there is no image for it: no {file.stem} with {', '.join(EXTENSIONS)}, and no '{filename}'. "
        "Add the image, or remove the annotation."
    )


def _split_files(root: Path, data: Data, split: str, problems: Problems) -> tuple[list[Path], dict[str, list[Path]]]:
    """Annotation files of a split, and the images of the folder by stem."""
    splits = voc_splits(root)
    name = next((spelling for spelling in split_aliases(split) if spelling in splits), None)
    if name is None:
        raise UserError(f"{root}: there is no split '{split}'. Its splits: {join_names(splits)}.")
    if (root / "ImageSets" / "Main").is_dir():
        folder = _annotation_folder(root)
        files = _read_list(root / "ImageSets" / "Main" / f"{name}.txt", folder, problems)
        return files, _images_by_stem(_image_folder(root, folder))
    if _annotated(root / name):
        return sorted((root / name).glob("*.xml")), _images_by_stem(root / name)
    folder = _annotation_folder(root)
    files = sorted(folder.glob("*.xml"))
    held = hash_split([file.stem for file in files], data.val_fraction)
    wanted = [file for file, val in zip(files, held, strict=True) if val == (name == "val")]
    return wanted, _images_by_stem(_image_folder(root, folder))


def _annotated(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob("*.xml"), None) is not None


def _annotation_folder(root: Path) -> Path:
    for name in _ANNOTATION_FOLDERS:
        if _annotated(root / name):
            return root / name
    raise UserError(f"{root}: there are no .xml files in Annotations/, annotations/, labels/ or the folder itself.")


def _image_folder(root: Path, annotations: Path) -> Path:
    return next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), annotations)


def _images_by_stem(folder: Path) -> dict[str, list[Path]]:
    images: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in EXTENSIONS:
            images.setdefault(file.stem, []).append(file)
    return images


def _read_list(file: Path, annotations: Path, problems: Problems) -> list[Path]:
    """Annotation files of the images that a list names, in its order, once each.

    A line is an image's name, perhaps with its ending, perhaps with a second column as in the lists
    of one class. Where there is no annotation file for it, list and line go to problems.
    """
    found = []
    for number, names in _read_lines(file):
        files = [annotations / f"{name}.xml" for name in names]
        existing = next((xml for xml in files if xml.is_file()), None)
        if existing is None:
            problems.add(
                Kind.MISSING,
                f"{file} line {number}",
                f"there is no annotation file {files[-1]}. Add it (for an image without objects: {_WITHOUT_OBJECTS}), "
                "or take the line out of the list.",
            )
            continue
        found.append(existing)
    return list(dict.fromkeys(found))


def _read_lines(file: Path) -> list[tuple[int, list[str]]]:
    """Of a list's lines that name an image their numbers, and what they may mean (`_names_on`)."""
    lines = read_text(file).splitlines()
    return [(number, names) for number, line in enumerate(lines, start=1) if (names := _names_on(line.strip()))]


def _names_on(entry: str) -> list[str]:
    """What a line of a list may mean, the most literal first: names may hold blanks and dots."""
    *name, last = entry.split() or [""]
    entries = [entry] if entry else []
    if name and last in ("-1", "0", "1"):
        entries.append(entry[: -len(last)].rstrip())
    endings = [e[: -len(Path(e).suffix)] for e in entries if Path(e).suffix.lower() in EXTENSIONS]
    return [*entries, *endings]


def _unannotated(root: Path, images: dict[str, list[Path]]) -> list[Path]:
    """Images that no annotation names, where the annotation files are all there is to make a split from."""
    if (root / "ImageSets" / "Main").is_dir():
        return []
    stems = {file.stem for file in _all_xml_files(root)}
    return [found[0] for stem, found in images.items() if stem not in stems]


def _all_xml_files(root: Path) -> list[Path]:
    splits = [root / name for name in voc_splits(root) if _annotated(root / name)]
    folders = splits if splits and not (root / "ImageSets" / "Main").is_dir() else [_annotation_folder(root)]
    return [file for folder in folders for file in sorted(folder.glob("*.xml"))]


def _class_names(root: Path, parsed: dict[Path, _Parsed], problems: Problems) -> tuple[str, ...]:
    elsewhere = Problems(raise_errors=problems.raise_errors)  # in other splits: collected when those are opened
    contents = (parsed.get(file) or _parse(file, elsewhere) for file in _all_xml_files(root))
    names = sorted({o.name for content in contents if content for o in content.objects})
    if not names:
        raise UserError(f"{root}: no annotation file holds an object, so there is nothing to learn. Add some boxes.")
    return tuple(names)
