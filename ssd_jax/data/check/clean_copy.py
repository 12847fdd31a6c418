"""A copy of a data set without what a check found wrong with it, in COCO's layout."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from ssd_jax import files
from ssd_jax.data.image import mode_and_orientation
from ssd_jax.data.problems import Kind, Problem
from ssd_jax.data.source import Annotation, Source, clip_box
from ssd_jax.errors import UserError
from ssd_jax.files import safe_file_name

OTHER_FOLDER = "Name a new folder for the cleaned copy."


def check_target(out: Path, root: Path) -> None:
    """Raises UserError where no copy can go: a folder with things in it, or one inside the data."""
    with files.user_errors_on_write(out, OTHER_FOLDER):
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out}: there are things in it. {OTHER_FOLDER}")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{out}: lies in the data, {root}. {OTHER_FOLDER}")


def check_fixable(problems: Iterable[Problem]) -> None:
    """Raises UserError where something was annotated that could not be read: left out, it would be background."""
    unread = [p for p in problems if p.kind in (Kind.MALFORMED, Kind.UNKNOWN_CLASS)]
    if unread:
        raise UserError(
            f"no cleaned copy is written: {len(unread)} annotations are malformed or of an unknown class, the first in "
            f"{unread[0].file}. Without them their objects would be shown as background; mend them first"
        )


def write_clean_copy(
    out: Path, splits: Mapping[str, Source], digests: Mapping[str, bytes], progress: Callable[[int], object]
) -> dict[str, int]:
    """Writes ``annotations/instances_<split>.json`` and ``images/<split>/`` under a new folder.

    Boxes are cut to their image, repeated ones left out (those without an area the sources leave out
    already). Images that can't be used are left out, and of those with equal pixels all but one,
    which is the last split's: what is measured on is not trained on. Images that are rotated by EXIF
    or not RGB are written anew, upright and RGB; the others' bytes are copied.

    digests: of the files that can be used, as `check_data.check_images` returns them.

    Returns how many images each split has. Raises UserError if out can't be written.
    """
    with files.user_errors_on_write(out, OTHER_FOLDER):
        (out / "annotations").mkdir(parents=True, exist_ok=True)
    taken: set[bytes] = set()
    written = {}
    for split, source in reversed(list(splits.items())):
        kept = []
        for index, annotation in enumerate(source.annotations()):
            digest = digests.get(annotation.file)
            if digest is not None and digest not in taken:
                taken.add(digest)
                kept.append(index)
            progress(1)
        _write_split(out, safe_file_name(split), source, kept)
        written[split] = len(kept)
    return dict(reversed(written.items()))


def _write_split(out: Path, split: str, source: Source, kept: list[int]) -> None:
    folder = out / "images" / split
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": label, "name": name} for label, name in enumerate(source.class_names, start=1)]
    with files.user_errors_on_write(folder):
        folder.mkdir(parents=True)
    for number, index in enumerate(kept, start=1):
        annotation = source.annotation(index)
        target = _write_image(folder, source, index)
        entry = {"id": number, "file_name": target.name, "width": annotation.width, "height": annotation.height}
        content["images"].append(entry)
        for box, label, crowd in _clean_objects(annotation):
            left, top, right, bottom = box
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": number, "category_id": label,
                "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                "iscrowd": crowd,
            })  # fmt: skip
    text = msgspec.json.encode(content).decode()
    files.write_text(out / "annotations" / f"instances_{split}.json", text)


def _clean_objects(annotation: Annotation) -> list[tuple[tuple[float, float, float, float], int, int]]:
    """Boxes cut to the image, labels and crowd flags, each combination once."""
    rows = zip(annotation.boxes_px.tolist(), annotation.labels.tolist(), annotation.crowd.tolist(), strict=True)
    size = (annotation.width, annotation.height)
    found = [(clip_box(box, size), label, int(crowd)) for box, label, crowd in rows]
    return list(dict.fromkeys((box, label, crowd) for box, label, crowd in found if box is not None))


def _write_image(folder: Path, source: Source, index: int) -> Path:
    """The file as it is; written anew where other programs might take it differently than it was checked."""
    annotation = source.annotation(index)
    stem, file = safe_file_name(annotation.image_id), Path(annotation.file)
    stem = stem.removesuffix(file.suffix)
    plain = file.is_file() and mode_and_orientation(file) == ("RGB", 1)
    lossy = file.suffix.lower() in (".jpg", ".jpeg")
    target = folder / f"{stem}{file.suffix.lower() if plain else '.jpg' if lossy else '.png'}"
    number = 2
    while target.exists():
        target, number = target.with_name(f"{stem}_{number}{target.suffix}"), number + 1
    with files.user_errors_on_write(target):
        if plain:
            shutil.copyfile(file, target)
        else:
            picture = Image.fromarray(np.asarray(source.image(index)))
            picture.save(target, quality=95)
    return target
