"""Read image files as upright RGB pixels."""

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from ssd_jax.data import jpeg
from ssd_jax.data.image_formats import (
    COPY_ADVICE,
    LARGE_PIXELS,
    check_size,
    convert_decode_errors,
    open_image,
    opened_file,
    read_bytes,
)
from ssd_jax.data.pixels import SWAP_SIDES, exif_orientation, load_scaled, rotate_upright, to_rgb, undo_rotation

logger = logging.getLogger(__name__)

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
    *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Endings of image files in lower case. They are Pillow's endings of the formats in `ssd_jax.data.image_formats`,
except those of films and of floating-point pixels."""


_large_image = threading.Lock()  # large images are decoded one at a time, whatever the number of threads
_notes: ContextVar[list[str] | None] = ContextVar("notes on images", default=None)
_logged_notes: set[str] = set()
_REDUCIBLE_MODES = ("L", "LA", "RGB", "RGBA", "CMYK")


class _StoredImage(NamedTuple):
    pixels: UInt8[np.ndarray, "h w 3"]
    """Pixels as they are stored, not rotated; perhaps at a reduced size."""
    size: tuple[int, int]
    """(Width, height) of the stored image at full size in pixels."""
    orientation: int
    """EXIF orientation, 1 to 8."""


def read_image(path: str | Path, annotated_size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file as RGB pixels, rotated upright by its EXIF orientation.

    Transparent images are blended with white. Pixels of more than 8 bits are scaled to 8 bits by the range that they
    really use, see `ssd_jax.data.pixels.scale_to_8_bits`. If the file is an animation, its first frame is read. A JPEG
    file of which only the last few rows are missing is completed with grey, and a note is logged once or collected,
    see `collect_image_notes`.

    Args:
        path: Image file.
        annotated_size: Width and height of the image in pixels according to its annotation. If only the unrotated
            image has this size, the boxes were drawn on the unrotated image, which is then returned.

    Raises:
        UserError: If the file is missing, empty, truncated, too large or not an image; the message names the file.
    """
    return _read_pixels_and_size(path, annotated_size, None, 0)[0]


def read_reduced_image(
    path: str | Path, annotated_size: tuple[int, int] | None, canvas: tuple[int, int], min_pixels: int = 0
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """Read an image file as `read_image` does, but at a reduced size if it is much larger than a canvas.

    A JPEG file whose longer side is at least three times that of the canvas is decoded at a half, a quarter or an
    eighth of its size, which is faster. The longer side of a reduced image is still at least 1.5 times that of the
    canvas; `reduce_to_fit` then shrinks the image with antialiasing. Images in other formats are read at full size
    unless they have more than 64 million pixels; those are reduced, too, which saves memory.

    Args:
        path: Image file.
        annotated_size: Width and height of the image according to its annotation, see `read_image`.
        canvas: Height and width of the canvas in pixels.
        min_pixels: Images with fewer pixels are read at full size.

    Returns:
        The RGB pixels, and the (width, height) of the image at full size in pixels.

    Raises:
        UserError: If the file is missing, empty, truncated, too large or not an image; the message names the file.
    """
    return _read_pixels_and_size(path, annotated_size, canvas, min_pixels)


def decode_reduced_image(
    data: bytes, name: str, canvas: tuple[int, int], min_pixels: int = 0, advice: str = COPY_ADVICE
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """Decode the bytes of an image as `read_reduced_image` does.

    Args:
        data: Content of the image file.
        name: Name of the image for messages.
        canvas: Height and width of the canvas in pixels.
        min_pixels: Images with fewer pixels are decoded at full size.
        advice: What the user can do if the bytes are not those of an image.

    Raises:
        UserError: If the bytes are truncated or not an image; the message begins with ``name``.
    """
    with convert_decode_errors(name, data, advice):
        return _decode_pixels_and_size(data, name, None, canvas, min_pixels)


def _read_pixels_and_size(
    path: str | Path, annotated_size: tuple[int, int] | None, canvas: tuple[int, int] | None, min_pixels: int
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    data = read_bytes(path)
    with convert_decode_errors(path, data):
        return _decode_pixels_and_size(data, path, annotated_size, canvas, min_pixels)


def _decode_pixels_and_size(
    data: bytes,
    path: str | Path,
    annotated_size: tuple[int, int] | None,
    canvas: tuple[int, int] | None,
    min_pixels: int,
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    pixels, size, orientation = _decode(data, path, canvas, min_pixels)
    if _is_annotation_unrotated(size, orientation, annotated_size):
        return np.ascontiguousarray(pixels), size
    upright = np.ascontiguousarray(rotate_upright(pixels, orientation))
    return upright, size[::-1] if orientation in SWAP_SIDES else size


def image_size(path: str | Path, annotated_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the (width, height) in pixels of the array that `read_image` returns, reading only the file's header.

    Raises:
        UserError: If the file is missing, empty, too large or not an image; the message names the file.
    """
    with opened_file(path) as image:
        size, orientation = _stored_size(image), exif_orientation(image)
    if orientation in SWAP_SIDES and not _is_annotation_unrotated(size, orientation, annotated_size):
        return size[1], size[0]
    return size


def mode_and_orientation(path: str | Path) -> tuple[str, int]:
    """Return Pillow's mode (RGB, L, CMYK, ...) and the EXIF orientation (1 to 8, 1 is upright) of an image file.

    Raises:
        UserError: If the file is missing, empty or not an image; the message names the file.
    """
    with opened_file(path) as image:
        return image.mode, exif_orientation(image)


def image_format(path: str | Path) -> str:
    """Return Pillow's name of the format of an image file (JPEG, PNG, ...), which its name may contradict.

    Raises:
        UserError: If the file is missing, empty or not an image; the message names the file.
    """
    with opened_file(path) as image:
        return image.format or ""


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file as RGB pixels. The EXIF orientation is ignored.

    Args:
        data: Content of the image file.
        name: Name of the image for messages.

    Raises:
        UserError: If the bytes are truncated or not an image; the message begins with ``name``.
    """
    with convert_decode_errors(name, data):
        return np.ascontiguousarray(_decode(data, name, None, 0).pixels)


def stored_size(data: bytes, name: str) -> tuple[int, int]:
    """Return the (width, height) in pixels of the array that `decode_image` returns, reading only the header.

    Raises:
        UserError: If the bytes are not an image; the message begins with ``name``.
    """
    with convert_decode_errors(name, data), open_image(io.BytesIO(data)) as image:
        return _stored_size(image)


@contextmanager
def collect_image_notes() -> Iterator[list[str]]:
    """Collect notes about images that are read in the ``with`` block, by this thread, instead of logging them.

    Yields:
        A list of notes, which do not name the image, such as "the file is truncated; up to 8 of its 480 rows are grey
        at the lower edge".
    """
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def _add_note(name: str | Path, note: str) -> None:
    """Collect a note about an image, or log it. A note is logged only once, although images are read in every epoch."""
    line = f"{name}: {note}"
    notes = _notes.get()
    if notes is not None:
        notes.append(note)
    elif line not in _logged_notes:
        logger.warning("%s", line)
        _logged_notes.add(line)


def fitted_size(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) in pixels that an image has after it is shrunk to fit a canvas.

    Args:
        size: (Height, width) of the image. An image that fits the canvas keeps its size.
        canvas: (Height, width) of the canvas.

    Returns:
        The size with the same aspect ratio, rounded to whole pixels. Height and width are at least 1.
    """
    scale = min(1.0, canvas[0] / size[0], canvas[1] / size[1])
    height, width = (min(max(round(side * scale), 1), limit) for side, limit in zip(size, canvas, strict=True))
    return height, width


def reduce_to_fit(image: UInt8[np.ndarray, "h w 3"], canvas: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Return an image shrunk with antialiasing to fit a canvas of (height, width), or the image itself if it fits."""
    height, width = fitted_size(image.shape[:2], canvas)
    if (height, width) == image.shape[:2]:
        return image
    # The support of Pillow's bilinear filter grows with the reduction, so the filter averages pixels. reducing_gap
    # halves the work for large images without a visible difference.
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _decode(data: bytes, name: str | Path, canvas: tuple[int, int] | None, min_pixels: int) -> _StoredImage:
    """Decode an image file, and add a note if it had to be completed.

    If a canvas is given and the image has at least ``min_pixels`` pixels, the pixels may be at a reduced size, see
    `read_reduced_image`.
    """
    if jpeg.is_jpeg(data):
        decoded, note = _decode_jpeg(data, canvas, min_pixels)
        if note:
            _add_note(name, note)
        if decoded is not None:
            return decoded
    with open_image(io.BytesIO(data)) as image, _lock_if_large(image.size):
        size = _stored_size(image)
        divisor = _choose_divisor(size, canvas, max(min_pixels, LARGE_PIXELS))
        if divisor > 1 and isinstance(image, Jpeg2KImageFile):
            image.reduce = min(divisor.bit_length() - 1, _jpeg2000_levels(data))
        orientation = exif_orientation(image)
        loaded = load_scaled(image, lambda: open_image(io.BytesIO(data)))
        factor = round(divisor * max(loaded.size) / max(size))
        if factor > 1:
            loaded = loaded if loaded.mode in _REDUCIBLE_MODES else loaded.convert("RGB")
            loaded = Image.Image.reduce(loaded, factor)  # the plugin for JPEG 2000 hides this method
        pixels = to_rgb(loaded)
        # Pillow itself rotates TIFF files when it loads them, and then removes their orientation.
        is_rotated = exif_orientation(image) != orientation
        stored = undo_rotation(pixels, orientation) if is_rotated else pixels
        # The header of a damaged HEIC file may state another size than that of its pixels.
        return _StoredImage(stored, size if divisor > 1 else (stored.shape[1], stored.shape[0]), orientation)


def _decode_jpeg(data: bytes, canvas: tuple[int, int] | None, min_pixels: int) -> tuple[_StoredImage | None, str]:
    """Decode a JPEG file, and return it with a note. The image is None if Pillow may be able to read it."""
    try:
        size = jpeg.read_size(data)
        check_size(size, len(data))
        with _lock_if_large(size):
            pixels, note = jpeg.decode_jpeg(data, size, _choose_divisor(size, canvas, min_pixels))
    except ValueError as error:
        # Pillow reads files with harmless defects that simplejpeg rejects. However, Pillow can also fill the
        # missing part of a truncated image with grey, so a truncated file is not passed on to Pillow.
        return None, jpeg.describe_damage(error)
    return _StoredImage(pixels, size, _jpeg_orientation(data)), note


def _choose_divisor(size: tuple[int, int], canvas: tuple[int, int] | None, min_pixels: int) -> int:
    if canvas is None or size[0] * size[1] < min_pixels:
        return 1
    return jpeg.choose_divisor(max(size), max(canvas))


def _lock_if_large(size: tuple[int, int]) -> AbstractContextManager[object]:
    return _large_image if size[0] * size[1] > LARGE_PIXELS else nullcontext()


def _jpeg_orientation(data: bytes) -> int:
    if not jpeg.has_metadata(data):  # so that most files are not opened a second time
        return 1
    with open_image(io.BytesIO(data)) as image:
        return exif_orientation(image)


def _jpeg2000_levels(data: bytes) -> int:
    """Return how many times the size of a JPEG 2000 image can be halved when it is decoded."""
    position = data.find(b"\xff\x52")  # the marker of the coding style
    return data[position + 9] if 0 <= position < len(data) - 9 else 0


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return the (width, height) of an image that is opened, but not loaded, before it is rotated upright."""
    if isinstance(image, TiffImageFile):  # Pillow states the size of the upright image if it knows the orientation
        return image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return image.size


def _is_annotation_unrotated(size: tuple[int, int], orientation: int, annotated_size: tuple[int, int] | None) -> bool:
    return orientation in SWAP_SIDES and size[0] != size[1] and annotated_size == size
