"""Put the images of a data set into a new folder, under names that are unique there."""

import io
import os
import re
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ssd_jax.data.folder import spelling_key
from ssd_jax.data.image import EXTENSIONS, image_size, mode_and_orientation
from ssd_jax.data.source import Annotation, Source
from ssd_jax.errors import UserError
from ssd_jax.files import append_to_file_name, convert_write_errors, make_safe_file_name, replace_forbidden_characters
from ssd_jax.portability import link_or_copy

ImageMode = Literal["hardlink", "copy", "symlink"]
"""How images are put into the new folder. A hard link is a copy if the file system has none."""

_TAKEN_STEMS = re.compile(r"classes|names|class_names|labels|obj|data", re.IGNORECASE)
"""Names of files that contain class names in YOLO's format."""
_FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif"}


class NameBook:
    """The names of the images of a new data set. No two names differ only by their extension or their spelling."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def choose(self, annotation: Annotation) -> str:
        """Return a name without extension for an image: its own name or, if this is taken, one with its folder."""
        path = Path(annotation.file)
        is_file = path.is_file()
        stem = _make_safe_stem(path.stem if is_file else annotation.image_id)
        if spelling_key(stem) in self._used and is_file:
            stem = _make_safe_stem(f"{path.parent.name}_{path.stem}")
        first, number = stem, 2
        while spelling_key(stem) in self._used:
            stem, number = append_to_file_name(first, f"_{number}", 200), number + 1
        self._used.add(spelling_key(stem))
        return stem


def _make_safe_stem(stem: str) -> str:
    """Return a name that all readers take for the name of an image, with as few changes as possible."""
    if stem != stem.strip(" .") or not stem.isprintable() or "/" in stem or "%" in stem or "?" in stem:
        stem = make_safe_file_name(stem)
    stem = append_to_file_name(replace_forbidden_characters(stem), "", 200)
    end = os.path.splitext(stem)[1]
    if end.lower() in (*EXTENSIONS, ".xml", ".txt"):
        stem = f"{stem[: -len(end)]}_{end[1:]}"
    return f"{stem or 'image'}_" if not stem or _TAKEN_STEMS.fullmatch(stem) else stem


class ImagePlacer:
    """Puts images into folders.

    Args:
        mode: How files are put there.
        states_sizes: Whether the format states the size of an image, so that boxes that were drawn on the unrotated
            pixels of an image with an EXIF orientation are understood.
    """

    def __init__(self, mode: ImageMode, *, states_sizes: bool):
        self._mode, self._states_sizes = mode, states_sizes
        self.copied = 0
        """Number of images that were copied because a link was not possible."""
        self.encoded = 0
        """Number of images that were encoded again."""

    def place(self, source: Source, index: int, annotation: Annotation, folder: Path, stem: str) -> str:
        """Put an image into a folder that exists, and return the name of the new file.

        Raises:
            UserError: If the image cannot be read or written.
        """
        path = Path(annotation.file)
        if path.is_file() and (self._states_sizes or is_upright(path, annotation)):
            target = folder / f"{stem}{path.suffix}"
            with convert_write_errors(target):
                self._put(path, target)
            return target.name
        content, ending = read_encoded(source, index)
        if content is None:
            self.encoded += 1
        target = folder / f"{stem}{ending}"
        with convert_write_errors(target):
            target.write_bytes(content if content is not None else encode_png(source, index))
        return target.name

    def _put(self, path: Path, target: Path) -> None:
        if self._mode == "copy":
            shutil.copyfile(path, target)
        elif not link_or_copy(path, target, self._mode):
            self.copied += 1


def is_upright(path: Path, annotation: Annotation) -> bool:
    """Return whether the boxes of an image refer to its upright pixels."""
    try:
        return image_size(path) == (annotation.width, annotation.height)
    except UserError:
        return True


def read_encoded(source: Source, index: int) -> tuple[bytes | None, str]:
    """Return the encoded image of a source that stores it in a record, and its extension; None and .png otherwise."""
    content = source.encoded_image(index)
    if content is None:
        return None, ".png"
    with Image.open(io.BytesIO(content)) as image:
        if image.getexif().get(0x0112, 1) != 1:
            return None, ".png"
        return content, _FORMATS.get(image.format or "", ".png")


def encode_png(source: Source, index: int) -> bytes:
    """Return the pixels of an image as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(source.image(index))).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def is_plain(path: Path) -> bool:
    """Return whether an image file is a JPEG or PNG file in RGB that needs no rotation."""
    return path.suffix.lower() in (".jpg", ".jpeg", ".png") and mode_and_orientation(path) == ("RGB", 1)
