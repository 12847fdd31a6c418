"""Read data sets in the format of PASCAL VOC, with one XML annotation file per image.

Format: The PASCAL Visual Object Classes Challenge 2007 Development Kit, section 5. Coordinates are used as they are in
the file. In VOC's own files, pixels are counted from 1, and xmax and ymax are the last pixels inside the box; most
tools that write this format today count from 0.
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssd_jax.config import Data
from ssd_jax.data.formats.reader import HASHED_SPLITS, SplitBuilder, find_split, select_by_hash
from ssd_jax.data.image import EXTENSIONS, image_size
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.data.source import FolderSource, RawObject, add_problem_if_normalised, join_names, read_text
from ssd_jax.errors import UserError, convert_errors
from ssd_jax.files import convert_read_errors

LAYOUT = ".xml files in Annotations/, in a folder for each split, or next to the images"

_ANNOTATION_FOLDERS = ("Annotations", "annotations", "labels", ".")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "img")
_ADVICE_NO_OBJECTS = "for an image without objects, write <annotation></annotation>"


class VocAnnotation(NamedTuple):
    """Content of an annotation file in VOC's format."""

    filename: str
    """File name of the image; empty if the file does not state it."""
    size: tuple[int, int] | None
    """Width and height of the image in pixels; None if missing or invalid."""
    objects: tuple[RawObject, ...]
    """Valid objects in the order of the file."""


def matches(root: Path) -> bool:
    """Return whether a folder or one of its subfolders contains XML files."""
    return root.is_dir() and any(_has_xml_files(folder) for folder in (root, *root.iterdir()))


def split_names(data: Data) -> tuple[str, ...]:
    """Return the names of the splits of a VOC folder."""
    return _find_split_names(Path(data.root))


def open_split(
    data: Data, split: str, class_names: Sequence[str] = (), problems: Problems | None = None
) -> FolderSource:
    """Open a split of a VOC folder, reading its annotation files and the headers of its images.

    A split is a list ``ImageSets/Main/<split>.txt`` or, without ``ImageSets/Main``, a folder such as ``train/`` or
    ``valid/``. Without either, images are assigned to train and val by `split_by_hash`. Annotation files are in
    ``Annotations/``, ``annotations/`` or ``labels/``, or in the folder itself; images are in ``JPEGImages/``,
    ``images/``, ``Images/`` or ``img/``, or in the folder of the annotation files.

    If most images of the list ``test`` have no annotation file, as in VOC 2012, their boxes are assumed not to be
    public, and the source has ``annotated=False``.

    Args:
        data: ``data.root`` is the folder.
        split: Name of the split.
        class_names: Class names in the order of their labels. Empty: the class names in all splits of the folder,
            sorted.
        problems: Object that collects errors and warnings. By default, the first error is raised.

    Raises:
        UserError: If the split does not exist or is empty. If ``problems`` raises errors, also if a file is
            missing or malformed, or if a class is not in ``class_names``.
    """
    root, problems = Path(data.root), problems or Problems()
    if split == "test" and _has_test_without_boxes(root):
        return _open_test_without_boxes(root, class_names, problems)
    xml_files, images = _files_of_split(root, data, split, problems)
    if not xml_files:
        others = join_names(name for name in _find_split_names(root) if name != split)
        raise UserError(
            f"{root}: the split '{split}' is empty. Other splits: {others}. A folder without lists and without a "
            "folder for each split needs at least two annotated images, which are divided into train and val."
        )
    parsed_files = {file: content for file in xml_files if (content := _parse_if_valid(file, problems)) is not None}
    builder = SplitBuilder(class_names or _class_names(root, parsed_files, problems), problems)
    for file, content in parsed_files.items():
        add_problem_if_normalised(content.objects, problems, file=file)
        with problems.collect_errors(Kind.MISSING, file):
            image = _find_image(file, images, content.filename)
            with problems.collect_errors(Kind.UNREADABLE, image):
                size = header_or_stated_size(image, content)
                if content.size is not None and content.size != size:
                    stated, actual = (f"{width} x {height}" for width, height in (content.size, size))
                    text = f"<size> is {stated}, but the image is {actual}. Check that the boxes fit the image."
                    problems.add(Kind.SIZE_DIFFERS, file, text)
                builder.add(file.stem, image, size, content.objects, file=file)
    for image in _unannotated_images(root, images):
        problems.add(Kind.UNANNOTATED, image, "")
    return builder.build()


# ---- a test split without public boxes ----


def _has_test_without_boxes(root: Path) -> bool:
    """Return whether most images of the list ``test`` have no annotation file.

    In VOC 2012, some images of ``test`` have an annotation file for other tasks (person layout and action
    classification), which contains only some of the objects.
    """
    file = root / "ImageSets" / "Main" / "test.txt"
    if not file.is_file():
        return False
    folder = _annotation_folder(root)
    annotated = [any((folder / f"{name}.xml").is_file() for name in names) for _, names in _read_lines(file)]
    return 2 * sum(annotated) < len(annotated)


def _open_test_without_boxes(root: Path, class_names: Sequence[str], problems: Problems) -> FolderSource:
    file = root / "ImageSets" / "Main" / "test.txt"
    folder = _image_folder(root, _annotation_folder(root))
    images = _images_by_stem(folder)
    builder = SplitBuilder(class_names or _class_names(root, {}, problems), problems)
    for number, names in _read_lines(file):
        image = next((images[name][0] for name in names if name in images), None)
        if image is None:
            text = f"image {names[-1]} is missing in {folder}. Add it, or remove the line from the list."
            problems.add(Kind.MISSING, f"{file} line {number}", text)
            continue
        with problems.collect_errors(Kind.UNREADABLE, image):
            builder.add(image.stem, image, image_size(image), [], file=image)
    return builder.build(annotated=False)


# ---- annotation files ----


def _parse_if_valid(file: Path, problems: Problems) -> VocAnnotation | None:
    with problems.collect_errors(Kind.MALFORMED, file):
        return parse_voc_xml(file, problems)
    return None


def parse_voc_xml(file: Path, problems: Problems | None = None) -> VocAnnotation:
    """Return the content of a VOC annotation file. Boxes are as in the file, not clipped to the image.

    Args:
        file: XML file.
        problems: Object that collects malformed objects. By default, the first malformed object raises an error.

    Raises:
        UserError: If the file cannot be read or is not well-formed, or if an object is malformed and
            ``problems`` raises errors. The message names the file and the line or object.
    """
    problems = problems or Problems()
    # An unknown encoding raises ValueError or LookupError.
    encoding_errors = convert_errors(
        f"{file}: can't be read as XML", "Save it as UTF-8.", catch=(ValueError, LookupError)
    )
    try:
        with convert_read_errors(file), encoding_errors:
            root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        text = f"not well-formed XML ({error}). Correct that line" if file.stat().st_size else "empty. Copy it again"
        raise UserError(f"{file}: {text}; {_ADVICE_NO_OBJECTS}.") from error
    width, height = (_parse_size(root.findtext(f"size/{side}")) for side in ("width", "height"))
    objects = []
    for number, node in enumerate(root.findall("object"), start=1):
        with problems.collect_errors(Kind.MALFORMED, file):
            objects.append(_parse_object(file, number, node))
    size = (width, height) if min(width, height) > 0 else None
    return VocAnnotation((root.findtext("filename") or "").strip(), size, tuple(objects))


def _parse_size(text: str | None) -> int:
    try:
        return int(float(text or 0))
    except ValueError:
        return 0  # an invalid size counts as missing, so the size of the image is used


def _parse_object(file: Path, number: int, node: ElementTree.Element) -> RawObject:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{file}: object {number} has no <name>. Add the name of its class.")
    left, top, right, bottom = (
        _parse_number(file, number, node, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    difficult = _parse_number(file, number, node, "difficult") if node.findtext("difficult") else 0
    return RawObject(f"object {number}", name, (left, top, right, bottom), difficult != 0)


def _parse_number(file: Path, number: int, node: ElementTree.Element, path: str) -> float:
    text, tag = node.findtext(path), path.split("/")[-1]
    if text is None:
        raise UserError(f"{file}: object {number} has no <{tag}>. Add it, or remove the object.")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{file}: object {number} has <{tag}> '{text.strip()}', which is not a number. Correct it.")
    return value


def header_or_stated_size(image: Path, content: VocAnnotation) -> tuple[int, int]:
    """Return the (width, height) in pixels from an image's header or, if it cannot be read, from the annotation file.

    Many tools write no <size> into the annotation file, or a wrong one. The <size> is therefore returned only if the
    image cannot be read. The loader reports such an image later, when it tries to read it.

    Raises:
        UserError: If the image cannot be read, and the annotation file does not state a size.
    """
    try:
        return image_size(image, content.size)
    except UserError:
        if content.size is None:
            raise
        return content.size


def _find_image(file: Path, images: dict[str, list[Path]], filename: str) -> Path:
    """Return the image with the stem of the annotation file or, if there is none, the image named by <filename>.

    If several images have the stem of the annotation file, <filename> selects one of them. The image named by
    <filename> is not used if it has an annotation file of its own: the given annotation file is then probably a copy
    in which <filename> was not changed.
    """
    own = images.get(file.stem, [])
    if len(own) == 1:
        return own[0]
    stem = Path(filename).stem
    others = [] if file.with_name(f"{stem}.xml").exists() else images.get(stem, [])
    named = [image for image in own or others if image.name == Path(filename).name]
    if named or own:
        return (named or own)[0]
    raise UserError(
        f"{file}: its image is missing: there is no {file.stem} with {', '.join(EXTENSIONS)}, and no '{filename}'. "
        "Add the image, or remove the annotation file."
    )


# ---- files of a split ----


def _find_split_names(root: Path) -> tuple[str, ...]:
    main = root / "ImageSets" / "Main"
    if main.is_dir():
        names = sorted(file.stem for file in main.glob("*.txt"))
        # VOC's lists for single classes are not splits; their names end in that of a split, as in aeroplane_train.txt.
        return tuple(n for n in names if not any(n.endswith("_" + other) for other in names))
    folders = tuple(sorted(f.name for f in root.iterdir() if f.is_dir() and _has_xml_files(f)))
    return tuple(f for f in folders if f not in _ANNOTATION_FOLDERS) or HASHED_SPLITS


def _files_of_split(root: Path, data: Data, split: str, problems: Problems) -> tuple[list[Path], dict[str, list[Path]]]:
    """Return the annotation files of a split, and a dict from file stems to the images in the image folder."""
    name = find_split(root, split, _find_split_names(root))
    if (root / "ImageSets" / "Main").is_dir():
        folder = _annotation_folder(root)
        files = _listed_annotation_files(root / "ImageSets" / "Main" / f"{name}.txt", folder, problems)
        return files, _images_by_stem(_image_folder(root, folder))
    if _has_xml_files(root / name):
        return sorted((root / name).glob("*.xml")), _images_by_stem(root / name)
    folder = _annotation_folder(root)
    files = sorted(folder.glob("*.xml"))
    selected = select_by_hash(files, [file.stem for file in files], name, data.val_fraction)
    return selected, _images_by_stem(_image_folder(root, folder))


def _has_xml_files(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob("*.xml"), None) is not None


def _annotation_folder(root: Path) -> Path:
    for name in _ANNOTATION_FOLDERS:
        if _has_xml_files(root / name):
            return root / name
    raise UserError(
        f"{root}: no .xml files in Annotations/, annotations/, labels/ or the folder itself. Add the annotation files."
    )


def _image_folder(root: Path, annotations: Path) -> Path:
    return next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), annotations)


def _images_by_stem(folder: Path) -> dict[str, list[Path]]:
    images: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in EXTENSIONS:
            images.setdefault(file.stem, []).append(file)
    return images


def _listed_annotation_files(file: Path, annotations: Path, problems: Problems) -> list[Path]:
    """Return the annotation files of the images in a list, in the order of the list, without repetitions."""
    files = []
    for number, names in _read_lines(file):
        candidates = [annotations / f"{name}.xml" for name in names]
        existing = next((xml for xml in candidates if xml.is_file()), None)
        if existing is None:
            problems.add(
                Kind.MISSING,
                f"{file} line {number}",
                f"the annotation file {candidates[-1]} is missing. Add it, or remove the line from the list; "
                f"{_ADVICE_NO_OBJECTS}.",
            )
            continue
        files.append(existing)
    return list(dict.fromkeys(files))


def _read_lines(file: Path) -> list[tuple[int, list[str]]]:
    """Return the number of each non-blank line of a list, and the image names that the line may stand for."""
    lines = read_text(file).splitlines()
    return [(number, names) for number, line in enumerate(lines, start=1) if (names := _candidate_names(line.strip()))]


def _candidate_names(entry: str) -> list[str]:
    """Return the image names that a line of a list may stand for, the whole line first.

    A line is the name of an image, perhaps with an extension, and perhaps with a second column (-1, 0 or 1) as in lists
    for single classes. Names may contain spaces and dots.
    """
    *name, last = entry.split() or [""]
    entries = [entry] if entry else []
    if name and last in ("-1", "0", "1"):
        entries.append(entry[: -len(last)].rstrip())
    stems = [e[: -len(Path(e).suffix)] for e in entries if Path(e).suffix.lower() in EXTENSIONS]
    return [*entries, *stems]


def _unannotated_images(root: Path, images: dict[str, list[Path]]) -> list[Path]:
    """Return the images without an annotation file, or no images if lists of images define the splits."""
    if (root / "ImageSets" / "Main").is_dir():
        return []
    stems = {file.stem for file in _all_xml_files(root)}
    return [files[0] for stem, files in images.items() if stem not in stems]


def _all_xml_files(root: Path) -> list[Path]:
    splits = [root / name for name in _find_split_names(root) if _has_xml_files(root / name)]
    folders = splits if splits and not (root / "ImageSets" / "Main").is_dir() else [_annotation_folder(root)]
    return [file for folder in folders for file in sorted(folder.glob("*.xml"))]


def _class_names(root: Path, parsed_files: dict[Path, VocAnnotation], problems: Problems) -> tuple[str, ...]:
    other_splits = Problems(raise_errors=problems.raise_errors)  # discarded: opening those splits finds them again
    contents = (parsed_files.get(file) or _parse_if_valid(file, other_splits) for file in _all_xml_files(root))
    names = sorted({o.name for content in contents if content for o in content.objects})
    if not names:
        raise UserError(f"{root}: no annotation file contains an object, so there is nothing to learn. Add boxes.")
    return tuple(names)
