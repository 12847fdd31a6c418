"""Read image files as upright RGB pixels."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Integer, UInt8
from PIL import Image, UnidentifiedImageError

from ssd_jax.errors import UserError, convert_errors, format_error_reason

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

_ORIENTATION_TAG = 0x0112
_SWAP_SIDES = (5, 6, 7, 8)  # EXIF orientations for which rotating the image upright swaps its width and height
_ADVICE = "Check the path and its permissions."
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError)


def read_image(path: str | Path, annotated_size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file as RGB pixels, rotated upright by its EXIF orientation.

    Transparent images are blended with white, and 16-bit grey is scaled to 8 bits. If the file is an animation, its
    first frame is read.

    Args:
        path: Image file.
        annotated_size: Width and height of the image in pixels according to its annotation. If only the unrotated
            image has this size, the boxes were drawn on the unrotated image, which is then returned.

    Raises:
        UserError: If the file is missing, empty, truncated or not an image; the message names the file.
    """
    return _read_pixels_and_size(path, annotated_size, None)[0]


def read_reduced_image(
    path: str | Path, annotated_size: tuple[int, int] | None, canvas: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """Read an image file as `read_image` does, but at a reduced size if it is much larger than a canvas.

    A JPEG file whose longer side is at least three times that of the canvas is decoded at a half, a quarter or an
    eighth of its size, which is faster. The longer side of a reduced image is still at least 1.5 times that of the
    canvas; `reduce_to_fit` then shrinks the image with antialiasing. All other images are read at full size.

    Args:
        path: Image file.
        annotated_size: Width and height of the image according to its annotation, see `read_image`.
        canvas: Height and width of the canvas in pixels.

    Returns:
        The RGB pixels, and the (width, height) of the image at full size in pixels.

    Raises:
        UserError: If the file is missing, empty, truncated or not an image; the message names the file.
    """
    return _read_pixels_and_size(path, annotated_size, canvas)


def _read_pixels_and_size(
    path: str | Path, annotated_size: tuple[int, int] | None, canvas: tuple[int, int] | None
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    with convert_errors(f"{path}: can't be read", _ADVICE, catch=OSError):
        data = Path(path).read_bytes()
    if not data:
        raise UserError(f"{path}: the file is empty. Copy it again, or remove it.")
    with _convert_decode_errors(path):
        pixels, stored_size = _decode_pixels_and_size(data, canvas)
        orientation = _stored_orientation(data)
    if _is_annotation_unrotated(stored_size, orientation, annotated_size):
        return pixels, stored_size
    width, height = stored_size
    return _rotate_upright(pixels, orientation), (height, width) if orientation in _SWAP_SIDES else stored_size


def image_size(path: str | Path, annotated_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the (width, height) in pixels of the array that `read_image` returns, reading only the file's header.

    Raises:
        UserError: If the file is missing, empty or not an image; the message names the file.
    """
    with _open_image(path) as image:
        size, orientation = image.size, _exif_orientation(image)
    if orientation in _SWAP_SIDES and not _is_annotation_unrotated(size, orientation, annotated_size):
        return size[1], size[0]
    return size


def mode_and_orientation(path: str | Path) -> tuple[str, int]:
    """Return Pillow's mode (RGB, L, CMYK, ...) and the EXIF orientation (1 to 8, 1 is upright) of an image file.

    Raises:
        UserError: If the file is missing, empty or not an image; the message names the file.
    """
    with _open_image(path) as image:
        return image.mode, _exif_orientation(image)


def decode_image(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file as RGB pixels. The EXIF orientation is ignored.

    Args:
        data: Content of the image file.
        name: Name of the image for the error message.

    Raises:
        UserError: If the bytes are truncated or not an image; the message begins with ``name``.
    """
    with _convert_decode_errors(name):
        return _decode_pixels_and_size(data)[0]


def stored_size(data: bytes, name: str) -> tuple[int, int]:
    """Return the (width, height) in pixels of the array that `decode_image` returns, reading only the header.

    Raises:
        UserError: If the bytes are not an image; the message begins with ``name``.
    """
    with _convert_decode_errors(name), Image.open(io.BytesIO(data)) as image:
        return image.size


@contextmanager
def _open_image(path: str | Path) -> Iterator[Image.Image]:
    with (
        _convert_decode_errors(path),
        convert_errors(
            f"{path}: can't be read", _ADVICE, catch=(FileNotFoundError, IsADirectoryError, PermissionError)
        ),
        Image.open(path) as image,
    ):
        yield image


@contextmanager
def _convert_decode_errors(name: str | Path) -> Iterator[None]:
    """Convert the exceptions that Pillow and simplejpeg raise for an invalid image to UserErrors."""
    with (
        convert_errors(
            f"{name}: can't be read as an image",
            "Copy it again, or remove it.",
            catch=_PILLOW_ERRORS,
            reason=_decode_error_reason,
        ),
        convert_errors(f"{name}: the image is too large", "Reduce its size.", catch=Image.DecompressionBombError),
    ):
        yield


def _decode_error_reason(error: Exception) -> str:
    return (
        "not an image format that Pillow knows"
        if isinstance(error, UnidentifiedImageError)
        else format_error_reason(error)
    )


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


def _decode_pixels_and_size(
    data: bytes, canvas: tuple[int, int] | None = None
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """Return the unrotated pixels of an encoded image, and its (width, height) at full size.

    If a canvas is given, a large JPEG image is decoded at a reduced size, see `read_reduced_image`.
    """
    if data[:2] == b"\xff\xd8":
        try:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            divisor = 1 if canvas is None else _jpeg_divisor(max(height, width), max(canvas))
            # simplejpeg chooses the smallest size that is not below this minimum.
            min_size = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)}
            return simplejpeg.decode_jpeg(data, "RGB", **min_size), (width, height)
        except ValueError as error:
            # Pillow reads files with harmless defects that simplejpeg rejects. However, Pillow can also fill the
            # missing part of a truncated image with grey, so a truncated file is not passed on to Pillow.
            if "premature" in str(error).lower():
                raise
    with Image.open(io.BytesIO(data)) as image:
        return to_rgb(image), image.size


def _jpeg_divisor(longest_side: int, canvas_side: int) -> int:
    # libjpeg can decode at any multiple of 1/8 of the size, but only 1/2, 1/4 and 1/8 are fast.
    return next((d for d in (8, 4, 2) if d * 1.5 * canvas_side <= longest_side), 1)


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return the RGB pixels of a Pillow image, without rotating the image.

    Raises:
        ValueError: If the image has floating-point pixels.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save the image with 8 bits per channel")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        return np.repeat(_convert_16_to_8_bits(np.asarray(image))[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _convert_16_to_8_bits(grey: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return ((np.clip(grey, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def _stored_orientation(data: bytes) -> int:
    if data[:2] == b"\xff\xd8" and b"Exif" not in data:  # so that most JPEG files are not opened a second time
        return 1
    with Image.open(io.BytesIO(data)) as image:
        return _exif_orientation(image)


def _exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a Pillow image, 1 (upright) to 8. A missing or invalid value counts as 1."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (struct.error, Image.DecompressionBombError, *_PILLOW_ERRORS):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _is_annotation_unrotated(size: tuple[int, int], orientation: int, annotated_size: tuple[int, int] | None) -> bool:
    return orientation in _SWAP_SIDES and size[0] != size[1] and annotated_size == size


def _rotate_upright(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Return pixels rotated and mirrored to the upright image, given their EXIF orientation (EXIF 2.3, table 6)."""
    if orientation in _SWAP_SIDES:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
