"""Image files to upright RGB pixels."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Integer, UInt8
from PIL import Image, UnidentifiedImageError

from ssd_jax.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

_ORIENTATION = 0x0112  # the EXIF tag
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_image(path: str | Path, annotated_size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image file, RGB, turned upright by its EXIF orientation.

    Transparent images are laid on white; 16-bit grey is scaled to 8 bits; of an animation the
    first frame is taken.

    annotated_size: width and height that the data set states. Where it fits only the pixels as
        stored, before the turn, the boxes were drawn on those, and the image is left as stored.

    Raises UserError, naming the file, if it is missing, empty, cut short or no image.
    """
    return _read(path, annotated_size, None)[0]


def read_reduced_image(
    path: str | Path, annotated_size: tuple[int, int] | None, canvas: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """The image of `read_image`, which is to be reduced to a canvas (height, width), and its own width and height.

    A JPEG that is much larger comes at a half, a quarter or an eighth of its size, which is decoded in less
    time; never at less than 1.5 times what fits, so that the rest is left to a better filter. Raises as
    `read_image` does.
    """
    return _read(path, annotated_size, canvas)


def _read(
    path: str | Path, annotated_size: tuple[int, int] | None, canvas: tuple[int, int] | None
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    data = _read_bytes(path)
    try:
        pixels, stored = _decode(data, canvas)
        orientation = _orientation(data)
    except _PILLOW_ERRORS as error:
        raise UserError(_broken(path, error)) from error
    if _as_stored(stored, orientation, annotated_size):
        return pixels, stored
    width, height = stored
    return _turn_upright(pixels, orientation), (height, width) if orientation in _TURNED else stored


def image_size(path: str | Path, annotated_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Width and height of the array that `read_image` would return, from the file's header alone.

    Raises UserError, naming the file, if it is missing, empty or no image.
    """
    with _opened(path) as image:
        size, orientation = image.size, _exif_orientation(image)
    if orientation in _TURNED and not _as_stored(size, orientation, annotated_size):
        return size[1], size[0]
    return size


def mode_and_orientation(path: str | Path) -> tuple[str, int]:
    """Pillow's mode (RGB, L, CMYK, ...) and EXIF orientation (1, upright, to 8), from the file's header alone.

    Raises UserError, naming the file, if it is missing, empty or no image.
    """
    with _opened(path) as image:
        return image.mode, _exif_orientation(image)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError(_missing(path)) from error
    except _PILLOW_ERRORS as error:
        raise UserError(_broken(path, error)) from error


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of the bytes of an image file, as stored: whatever its EXIF says, it is not turned.

    Raises UserError, beginning with name, if they are no image or end early.
    """
    try:
        return _decode(data)[0]
    except _PILLOW_ERRORS as error:
        raise UserError(_broken(name, error)) from error


def stored_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of the array that `decode_image` would return, from the header alone.

    Raises UserError, beginning with name, if the bytes are no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except _PILLOW_ERRORS as error:
        raise UserError(_broken(name, error)) from error


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(_missing(path)) from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}). Check the path and its permissions.") from error
    if not data:
        raise UserError(f"{path}: the file is empty. Copy it again, or remove it.")
    return data


def _missing(path: str | Path) -> str:
    return f"{path}: no such image. Put the file there, or correct the path."


def _broken(path: str | Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"{path}: too large to be read as an image ({error}). Reduce it."
    reason = "no image format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
    return f"{path}: can't be read as an image ({reason}). Copy it again, or remove it."


def _decode(data: bytes, canvas: tuple[int, int] | None = None) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """And width and height of the whole image."""
    if data[:2] == b"\xff\xd8":
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            divisor = 1 if canvas is None else _divisor(max(height, width), max(canvas))
            # simplejpeg takes the smallest size that is no less.
            least = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)}
            return simplejpeg.decode_jpeg(data, "RGB", **least), (width, height)
        except ValueError as error:
            # Pillow passes over harmless oddities that simplejpeg refuses, but it also fills a picture
            # that ends early with grey, so that one is not handed on.
            if "premature" in str(error).lower():
                raise
    with Image.open(io.BytesIO(data)) as image:
        return to_rgb(image), image.size


def _divisor(longest: int, longest_of_canvas: int) -> int:
    """Of the eighths that libjpeg can decode to, the powers of two alone are fast."""
    return next((d for d in (8, 4, 2) if d * 1.5 * longest_of_canvas <= longest), 1)


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of a Pillow image of any mode, as stored. Raises ValueError for floating-point ones."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range: save it with 8 bits per channel")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        return np.repeat(_sixteen_to_eight_bits(np.asarray(image))[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _sixteen_to_eight_bits(grey: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return ((np.clip(grey, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def _orientation(data: bytes) -> int:
    if data[:2] == b"\xff\xd8" and b"Exif" not in data:  # spares most JPEGs a second parser
        return 1
    with Image.open(io.BytesIO(data)) as image:
        return _exif_orientation(image)


def _exif_orientation(image: Image.Image) -> int:
    """1 (upright) to 8; 1 where the file says nothing or nonsense."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (struct.error, *_PILLOW_ERRORS):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _as_stored(stored: tuple[int, int], orientation: int, annotated: tuple[int, int] | None) -> bool:
    return orientation in _TURNED and stored[0] != stored[1] and annotated == stored


def _turn_upright(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """EXIF 2.3, table 6: where row 0 and column 0 of the stored pixels belong."""
    if orientation in _TURNED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
