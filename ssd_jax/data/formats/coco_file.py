"""Read annotation files in COCO's JSON format.

Format: https://cocodataset.org/#format-data, object detection. A box is given by left, top, width and height in pixels,
counted from 0. A file without ``annotations``, such as COCO's image_info_test-dev2017.json, lists images whose boxes
are not public.

Only what is used has to be right: ids may be texts, sizes may be missing, and a polygon may stand for a box.
"""

import math
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ssd_jax.data.formats.documents import read_json
from ssd_jax.data.problems import Kind, Problems
from ssd_jax.errors import UserError

Number = int | float | str
"""A number as some tools write it: an integer, a float such as 1.0, or a text."""
_MAX_INT64 = 2**63 - 1
_MAX_EXACT_FLOAT = 2**53  # larger integers are not all exact as floating-point numbers
_MAX_SIDE = 10**6  # pixels; a larger size is a mistake


class CocoImage(msgspec.Struct, gc=False):
    """An entry of ``images``."""

    id: Number
    file_name: str
    width: Number | None = None
    height: Number | None = None


class _RawObject(msgspec.Struct, gc=False):
    image_id: Number
    category_id: Number
    bbox: list[float | str] | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    id: Number | None = None
    area: float | str | None = None
    iscrowd: int | float | str | bool | None = 0
    ignore: int | float | str | bool | None = 0


class _RawCategory(msgspec.Struct):
    id: Number
    name: Number
    supercategory: Number | None = None


class _RawFile(msgspec.Struct):
    images: list[CocoImage]
    categories: list[_RawCategory]
    annotations: list[_RawObject] | None = None


class CocoObject(NamedTuple):
    """An entry of ``annotations``."""

    position: int
    """Position in the file, counted from 0."""
    image: int
    """Position of its image in `CocoFile.images`."""
    category: int
    """Position of its category in `CocoFile.categories`."""
    bbox: tuple[float, float, float, float]
    """Left, top, width and height in pixels. The size may be negative, as in the file."""
    area: float
    """Area in square pixels: as stated, or the area of the box."""
    is_crowd: bool
    is_ignored: bool = False
    """Value of the key ``ignore``, with which MMDetection and ``ssd-jax convert`` mark VOC's difficult objects."""


class CocoCategory(NamedTuple):
    """An entry of ``categories``."""

    id: int
    name: str
    supercategory: str | None


class CocoFile(NamedTuple):
    """The valid entries of an annotation file."""

    images: list[CocoImage]
    image_ids: list[int]
    """Id of each image."""
    categories: list[CocoCategory]
    objects: list[CocoObject]
    annotated: bool
    """False if the file has no ``annotations``."""
    notes: list[str]
    """Deviations from the format that do not matter, one sentence for each."""


def read_coco_file(file: Path, problems: Problems) -> CocoFile:
    """Return the valid entries of an annotation file.

    Raises:
        UserError: If the file cannot be read or is not valid JSON. If ``problems`` raises errors, also if an entry is
            malformed or an id is unknown or not unique.
    """
    try:
        raw = read_json(file, _RawFile, unique_keys=_RawFile.__struct_fields__)
        positions: Sequence[int] = range(len(raw.annotations or ()))
    except msgspec.ValidationError as error:
        with problems.collect_errors(Kind.MALFORMED, file):
            text = f"not in COCO's format: {error} (counted from 0). Correct that entry."
            raise UserError(f"{file}: {text}") from error
        raw, positions = _valid_entries(file, read_json(file, Any), problems)
    notes = _check_ids(file, raw, problems)
    image_ids, note = _integer_ids([entry.id for entry in raw.images], "images")
    category_ids, other_note = _integer_ids([entry.id for entry in raw.categories], "categories")
    groups = zip(raw.categories, category_ids, strict=True)
    categories = [
        CocoCategory(number, str(c.name), None if c.supercategory is None else str(c.supercategory))
        for c, number in groups
    ]
    is_annotated = raw.annotations is not None
    objects = _objects(file, raw, positions, categories, problems)
    notes += [text for text in (note, other_note) if text]
    return CocoFile(raw.images, image_ids, categories, objects, is_annotated, notes)


def _check_ids(file: Path, raw: _RawFile, problems: Problems) -> list[str]:
    """Add problems for ids that are not unique, and return notes about unusual ids.

    Raises:
        UserError: If an id may have lost digits. If ``problems`` raises errors, also if one is not unique.
    """
    annotations = raw.annotations or []
    _check_ids_exact(
        file,
        {
            "the id of an image": (image.id for image in raw.images),
            "image_id": (entry.image_id for entry in annotations),
            "category_id": (entry.category_id for entry in annotations),
        },
    )
    for what, entries in (("images", raw.images), ("categories", raw.categories)):
        for number in _repeated(_id_key(entry.id) for entry in entries):
            text = f"the id {number} occurs more than once in '{what}'. Ids must be unique; change one of them."
            problems.add(Kind.MALFORMED, file, text)
    ids = [_id_key(entry.id) for entry in annotations if entry.id is not None]
    repeated = _repeated(ids)
    if repeated:
        text = f"({len(repeated)} ids, such as {repeated[0]})"
        problems.add(Kind.REPEATED_ID, file, text)
    if 0 in ids:
        # pycocotools stores the id of the matched annotation with each detection, and treats the id 0 as no match.
        return ["an annotation has the id 0, which pycocotools treats as never matched; here it is like any other"]
    return []


def _repeated(keys: Any) -> list[Any]:
    return [key for key, count in Counter(keys).items() if count > 1]


def _id_key(number: Number) -> Hashable:
    """Return a key that is equal for an id in its different forms, such as 1, 1.0 and "1"."""
    if isinstance(number, str):
        text = number.strip()
        return int(text) if text.isdecimal() and text.isascii() and len(text) < 40 else number
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _check_ids_exact(file: Path, ids: Mapping[str, Iterable[Number]]) -> None:
    """Check that no id is a floating-point number that may have lost digits.

    Raises:
        UserError: If there is such an id, because it may stand for another image or category.
    """
    for key, numbers in ids.items():
        for number in numbers:
            if isinstance(number, float) and abs(number) > _MAX_EXACT_FLOAT:
                raise UserError(
                    f"{file}: {key} {number:g} is a floating-point number above 2^53, which may have lost digits, so "
                    "it is unclear what it names. Write ids as integers or texts."
                )


def _integer_ids(ids: Sequence[Number], what: str) -> tuple[list[int], str]:
    """Return the ids as integers of 64 bits, and a note if they are positions because the ids are no such integers."""
    keys = [_id_key(number) for number in ids]
    if all(isinstance(key, int) and abs(key) <= _MAX_INT64 for key in keys):
        return keys, ""  # type: ignore[return-value]
    note = f"the ids of {what} are not integers of 64 bits, so their positions in the file (from 1) are used as ids"
    return list(range(1, len(ids) + 1)), note


def _valid_entries(file: Path, content: Any, problems: Problems) -> tuple[_RawFile, Sequence[int]]:
    """Return a file without its malformed entries, and the position in the file of each valid annotation.

    Each malformed entry becomes a problem, except for the first, which the caller has added.
    """
    kept: dict[str, dict[int, Any]] = {}
    first_seen = False
    for key, kind in (("images", CocoImage), ("annotations", _RawObject), ("categories", _RawCategory)):
        kept[key] = {}
        entries = content.get(key) if isinstance(content, dict) else None
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            try:
                kept[key][number] = msgspec.json.decode(msgspec.json.encode(entry), type=kind)
            except msgspec.ValidationError as error:
                if first_seen:
                    problems.add(Kind.MALFORMED, file, f"{key}[{number}]: {error}. Correct that entry.")
                first_seen = True
    return _RawFile(**{key: list(entries.values()) for key, entries in kept.items()}), list(kept["annotations"])


def _objects(
    file: Path, raw: _RawFile, positions: Sequence[int], categories: Sequence[CocoCategory], problems: Problems
) -> list[CocoObject]:
    """Return the valid objects of a file, and remove its annotations from ``raw``, to need less memory."""
    objects = []
    entries = deque(raw.annotations or ())
    raw.annotations = None
    image_index = {_id_key(image.id): index for index, image in enumerate(raw.images)}
    category_index = {_id_key(category.id): index for index, category in enumerate(raw.categories)}
    for position in positions:
        entry = entries.popleft()
        where = f"annotations[{position}]"
        image, category = image_index.get(_id_key(entry.image_id)), category_index.get(_id_key(entry.category_id))
        if image is None:
            text = f"{where} has image_id {entry.image_id}, which is not in 'images'. "
            problems.add(Kind.MALFORMED, file, text + "Correct the id, or remove the annotation.")
            continue
        if category is None:
            names = ", ".join(c.name for c in categories) or "none"
            text = f"{where} has category_id {entry.category_id}, which is not in 'categories' ({names}). "
            text += "Correct the id, or add the category."
            problems.add(Kind.UNKNOWN_CLASS, file, text, group=str(entry.category_id))
            continue
        box = _box(entry)
        if box is None:
            name = raw.images[image].file_name
            text = f"{where} of {name} has no 'bbox' of four numbers and no polygon. Correct it, or remove it."
            problems.add(Kind.MALFORMED, file, text)
            continue
        area = _to_float(entry.area)
        area = box[2] * box[3] if math.isnan(area) else area
        if not entry.bbox:
            problems.add(Kind.OUTLINES, file, f"{where} of {raw.images[image].file_name} (polygon without bbox)")
        objects.append(
            CocoObject(position, image, category, box, area, _is_true(entry.iscrowd), _is_true(entry.ignore))
        )
    return objects


def _box(entry: _RawObject) -> tuple[float, float, float, float] | None:
    """Return the bbox of an entry or, if it is missing or empty, the box around its polygons; None without either."""
    numbers = [_to_float(value) for value in entry.bbox or ()]
    if len(numbers) == 4 and all(map(math.isfinite, numbers)):
        left, top, width, height = numbers
        return left, top, width, height
    if entry.bbox:
        return None
    try:
        polygons = msgspec.json.decode(entry.segmentation, type=list[list[float]])
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None
    xs, ys = ([value for polygon in polygons for value in polygon[start::2]] for start in (0, 1))
    if len(xs) < 2 or len(xs) != len(ys):
        return None
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _to_float(value: float | str | None) -> float:
    """Return a number that may be written as a text, or NaN if it is no number."""
    try:
        return math.nan if value is None else float(value)
    except ValueError:
        return math.nan


def _is_true(flag: Any) -> bool:
    return flag.strip().lower() in ("1", "true") if isinstance(flag, str) else bool(flag)


def stated_size(image: CocoImage) -> tuple[int, int] | None:
    """Return the (width, height) that a file states for an image, or None if it states none."""
    try:
        width, height = (int(float(side or 0)) for side in (image.width, image.height))
    except (ValueError, OverflowError):
        return None
    return (width, height) if min(width, height) >= 1 and max(width, height) <= _MAX_SIDE else None


def class_categories(file: Path, content: CocoFile) -> dict[int, CocoCategory]:
    """Return a dict from the position in the file to the category, for all categories that are classes, ordered by id.

    A category without objects is left out if it is the supercategory of another category, as in Roboflow's exports, or
    if another category has the same name.

    Raises:
        UserError: If two categories with objects have the same name, or if there is no category.
    """
    used = {entry.category for entry in content.objects}
    supers = Counter(c.supercategory for c in content.categories)
    names = Counter(c.name for c in content.categories)

    def is_group(category: CocoCategory) -> bool:
        others = supers[category.name] - (category.supercategory == category.name)
        return others > 0 or names[category.name] > 1

    kept = {i: c for i, c in enumerate(content.categories) if i in used or not is_group(c)}
    if not kept:
        kept = {{c.name: i for i, c in enumerate(content.categories)}[c.name]: c for c in content.categories}
    repeated = [name for name, count in Counter(c.name for c in kept.values()).items() if count > 1]
    if repeated:
        raise UserError(f"{file}: two categories have the name '{repeated[0]}'. Rename or merge them.")
    if not kept:
        raise UserError(f"{file}: 'categories' is empty. List the classes there.")
    return dict(sorted(kept.items(), key=lambda item: item[1].id))


def take_objects_by_image(content: CocoFile) -> dict[int, list[CocoObject]]:
    """Return the objects of each image, by its position in the file, and remove them from the content of the file.

    A caller that removes the objects of an image when they are used needs no memory for all of them.
    """
    objects: dict[int, list[CocoObject]] = {index: [] for index in range(len(content.images))}
    for entry in content.objects:
        objects[entry.image].append(entry)
    content.objects.clear()
    return objects
