"""Write a copy of a data set, in COCO's format and without the problems that can be corrected automatically."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from ssd_jax.data.image import mode_and_orientation
from ssd_jax.data.problems import Kind, Problem
from ssd_jax.data.source import Annotation, Source, clip_box
from ssd_jax.errors import UserError
from ssd_jax.files import convert_write_errors, make_safe_file_name, write_text

_OTHER_FOLDER = "Name a new folder for the cleaned copy."


def check_copy_folder(out: Path, root: Path) -> None:
    """Check that the folder for a copy of a data set is new or empty, and is not inside the data set.

    Raises:
        UserError: If the folder is not empty, or is inside ``root``.
    """
    with convert_write_errors(out, _OTHER_FOLDER):
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty. {_OTHER_FOLDER}")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{out} is inside the data set, {root}. {_OTHER_FOLDER}")


def check_annotations_readable(problems: Iterable[Problem]) -> None:
    """Check that every annotation could be read.

    In a copy, the objects of an unreadable annotation would be missing, and training would treat them as background.

    Raises:
        UserError: If an annotation is malformed or of an unknown class.
    """
    unread = [p for p in problems if p.kind in (Kind.MALFORMED, Kind.UNKNOWN_CLASS)]
    if unread:
        raise UserError(
            f"no cleaned copy is written: {len(unread)} annotations are malformed or of an unknown class, the first in "
            f"{unread[0].file}. Their objects would become background; correct them first"
        )


def write_clean_copy(
    out: Path, splits: Mapping[str, Source], digests: Mapping[str, bytes], progress: Callable[[int], object]
) -> dict[str, int]:
    """Write a copy of a data set, in COCO's format and without the problems that can be corrected automatically.

    The files are ``annotations/instances_<split>.json`` and the images in ``images/<split>/``. Boxes are clipped to
    their image, and repeated boxes are left out (the sources already leave out boxes without an area). Unusable images
    are left out. Of several images with equal pixels, only one is kept, in the last of their splits, so that no image
    is used for both training and evaluation. Images that are rotated by EXIF or are not RGB are written upright and in
    RGB; the files of all other images are copied.

    Args:
        out: The new folder.
        splits: The splits by name.
        digests: Hashes of the usable images by file, from `checks.check_images`.
        progress: Function that is called with the number of images that were just processed.

    Returns:
        Number of images in each split of the copy.

    Raises:
        UserError: If the folder cannot be written.
    """
    with convert_write_errors(out, _OTHER_FOLDER):
        (out / "annotations").mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    written = {}
    for split, source in reversed(list(splits.items())):
        kept = []
        for index, annotation in enumerate(source.annotations()):
            digest = digests.get(annotation.file)
            if digest is not None and digest not in seen:
                seen.add(digest)
                kept.append(index)
            progress(1)
        _write_split(out, make_safe_file_name(split), source, kept)
        written[split] = len(kept)
    return dict(reversed(written.items()))


def _write_split(out: Path, split: str, source: Source, indices: list[int]) -> None:
    folder = out / "images" / split
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": label, "name": name} for label, name in enumerate(source.class_names, start=1)]
    with convert_write_errors(folder):
        folder.mkdir(parents=True)
    for number, index in enumerate(indices, start=1):
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
    write_text(out / "annotations" / f"instances_{split}.json", msgspec.json.encode(content).decode())


def _clean_objects(annotation: Annotation) -> list[tuple[tuple[float, float, float, float], int, int]]:
    """Return (clipped box, label, crowd flag) of each object of an annotation, without repeated objects."""
    rows = zip(annotation.boxes_px.tolist(), annotation.labels.tolist(), annotation.crowd.tolist(), strict=True)
    size = (annotation.width, annotation.height)
    clipped = [(clip_box(box, size), label, int(crowd)) for box, label, crowd in rows]
    return list(dict.fromkeys((box, label, crowd) for box, label, crowd in clipped if box is not None))


def _write_image(folder: Path, source: Source, index: int) -> Path:
    """Write an image to a folder, and return the path of the new file.

    The file is copied if the image is RGB and upright. Otherwise it is encoded again, because other programs might
    read the original in another way.
    """
    annotation = source.annotation(index)
    stem, file = make_safe_file_name(annotation.image_id), Path(annotation.file)
    stem = stem.removesuffix(file.suffix)
    is_plain = file.is_file() and mode_and_orientation(file) == ("RGB", 1)
    is_lossy = file.suffix.lower() in (".jpg", ".jpeg")
    target = folder / f"{stem}{file.suffix.lower() if is_plain else '.jpg' if is_lossy else '.png'}"
    number = 2
    while target.exists():
        target, number = target.with_name(f"{stem}_{number}{target.suffix}"), number + 1
    with convert_write_errors(target):
        if is_plain:
            shutil.copyfile(file, target)
        else:
            Image.fromarray(np.asarray(source.image(index))).save(target, quality=95)
    return target
