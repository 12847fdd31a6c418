"""Convert decoded images to upright RGB pixels of 8 bits."""

import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageFile

_ORIENTATION_TAG = 0x0112
SWAP_SIDES = (5, 6, 7, 8)  # EXIF orientations for which rotating the image upright swaps its width and height
_INVERSE = {6: 8, 8: 6}  # all other orientations are undone by applying them again
_BITS = (8, 10, 12, 14, 16, 24, 32)  # numbers of bits of a sensor or a file
_BITS_PER_SAMPLE_TAG, _MAXIMUM_TAG = 258, 281
_BAND_PIXELS = 2**24  # pixels that are converted at a time
_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")
# Pillow keeps only the higher byte of colours of 16 bits. With the other byte order, it keeps the lower one.
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", _OTHER))
}
_GREY_ALPHA = "LA;16B"  # of PNG files, which Pillow opens in the mode RGBA; read as RGBA, they give both bytes of each
_OTHER_BYTE[_GREY_ALPHA] = "RGBA"


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return the RGB pixels of a Pillow image, without rotating the image.

    Transparent images are blended with white. Grey of more than 8 bits is scaled to 8 bits, see `scale_to_8_bits`.

    Raises:
        ValueError: If the image has floating-point pixels.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save the image with 8 bits per channel")
    if image.mode.startswith("I"):  # grey of 16 bits, which Pillow's own conversion would clip at 255
        grey = scale_to_8_bits(np.asarray(image), _stated_maximum(image))
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    rows = max(_BAND_PIXELS // image.width, 1)
    if rows >= image.height:
        return np.array(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)  # in bands, because Pillow copies what it converts
    for top in range(0, image.height, rows):
        pixels[top : top + rows] = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
    return pixels


def array_to_rgb(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Return the RGB pixels of an array, as `to_rgb` does for the same pixels in a file.

    Args:
        image: uint8 array of shape (h, w) or (h, w, 1) for grey, (h, w, 3) for RGB, or (h, w, 4) for RGB and opacity.

    Raises:
        ValueError: If the array has another type or shape, or no pixels.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
        raise ValueError(
            "expected a uint8 array of shape (h, w, 3) for RGB, (h, w, 4) for RGBA, or (h, w) for grey pixels, "
            f"got {image.dtype} of shape {image.shape}"
        )
    if channels == 3:
        return image
    return to_rgb(Image.fromarray(image.reshape(image.shape[:2]) if channels == 1 else np.ascontiguousarray(image)))


def scale_to_8_bits(
    values: Integer[np.ndarray, "*shape"], stated_maximum: int | None = None
) -> UInt8[np.ndarray, "*shape"]:
    """Scale pixels of more than 8 bits to 8 bits by the range that they really use.

    Cameras with 10, 12 or 14 bits usually store their pixels unchanged in 16 bits. Such an image would be nearly black
    if it was scaled by the range of 16 bits. The range is therefore the smallest of 8, 10, 12, 14, 16, 24 and 32 bits
    that contains the largest value.

    Args:
        values: Pixels. Negative ones count as 0.
        stated_maximum: Largest value according to the file; ignored if a pixel is larger.
    """
    values = np.maximum(values, 0)
    largest = int(values.max(initial=0))
    full = 2 ** next(bits for bits in _BITS if largest < 2**bits) - 1
    if stated_maximum is not None and largest <= stated_maximum:
        full = stated_maximum
    wide = values.astype(np.uint32 if full < 2**16 else np.uint64)
    return ((wide * 255 + full // 2) // full).astype(np.uint8)


def load_scaled(image: Image.Image, open_again: Callable[[], Image.Image]) -> Image.Image:
    """Load the pixels of an opened image file. Colours of 16 bits are scaled by the range that they really use.

    Args:
        image: The image, which is not loaded yet.
        open_again: Function that opens the file a second time, to read the lower bytes of dark images.

    Returns:
        The image with 8 bits per channel, or grey of up to 32 bits.
    """
    raw_mode = _raw_mode(image)
    other_byte = _OTHER_BYTE.get(raw_mode, "")
    image.load()
    if not other_byte:
        return image
    high = np.asarray(image)
    if high[..., :3].max(initial=0) >= 2**6:  # all of 16 bits are used, and the higher byte is the pixel
        return image
    with open_again() as twin:
        assert isinstance(twin, ImageFile.ImageFile)
        twin.tile = [tile._replace(args=_replace_raw_mode(tile.args, other_byte)) for tile in twin.tile]
        stored = np.asarray(twin)
    if raw_mode == _GREY_ALPHA:
        high, stored = (stored[..., [byte, byte, byte, byte + 2]] for byte in (0, 1))
    values = high.astype(np.uint16) * 256 + stored
    scaled = np.concatenate([scale_to_8_bits(values[..., :3]), scale_to_8_bits(values[..., 3:])], axis=-1)
    return Image.fromarray(scaled)


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a Pillow image, 1 (upright) to 8. A missing or invalid value counts as 1.

    An orientation that the decoder has already applied to the pixels is 1 after they are loaded.
    """
    try:
        if image.format == "PNG" and not _has_late_orientation(image):
            exif = Image.Image.getexif(image)  # PngImageFile.getexif decodes the whole file
        else:
            exif = image.getexif()
        orientation = exif.get(_ORIENTATION_TAG, 1)
    except (struct.error, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def rotate_upright(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Return pixels rotated and mirrored to the upright image, given their EXIF orientation (EXIF 2.3, table 6).

    The result is a view of the pixels.
    """
    if orientation in SWAP_SIDES:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def undo_rotation(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Return the pixels as stored, from an image that was rotated upright. The result is a view of the pixels."""
    return rotate_upright(pixels, _INVERSE.get(orientation, orientation))


def _stated_maximum(image: Image.Image) -> int | None:
    """Return the largest possible value of a grey pixel according to the tags of a TIFF file, if it has such tags."""
    tags = getattr(image, "tag_v2", {})
    bits = _first(tags.get(_BITS_PER_SAMPLE_TAG))
    if isinstance(bits, int) and 8 < bits < 16:
        return 2**bits - 1
    maximum = _first(tags.get(_MAXIMUM_TAG))
    # Programs write 65535 without looking at the pixels.
    return maximum if isinstance(maximum, int) and 255 <= maximum < 65535 else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the layout of the pixels in an image file that is not loaded yet, such as "RGB;16B"."""
    tiles = getattr(image, "tile", None)
    args = _first(tiles[0].args) if tiles else ""
    return args if isinstance(args, str) else ""


def _replace_raw_mode(args: Any, mode: str) -> Any:
    return (mode, *args[1:]) if isinstance(args, tuple) else mode


def _has_late_orientation(image: Image.Image) -> bool:
    """Return whether a PNG file may have an orientation behind its pixels, where Pillow finds it only by decoding."""
    file = getattr(image, "fp", None)
    if file is None:  # the image is loaded
        return False
    start, position, behind = file.tell(), 8, False
    try:
        while True:
            file.seek(position)
            header = file.read(8)
            if len(header) < 8:
                return False
            length, name = struct.unpack(">I4s", header)
            behind = behind or name == b"IDAT"
            if behind and (
                name == b"eXIf"
                or (name in (b"iTXt", b"tEXt", b"zTXt") and file.read(16).startswith((b"XML:com", b"Raw profile")))
            ):
                return True
            position += length + 12
    finally:
        file.seek(start)
