"""Formats of image files that are read, and limits on the size of an image."""

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ssd_jax.errors import UserError, convert_errors, format_error_reason

# Formats in which photographs are kept. The order is that in which they are tried; Pillow loads its other plugins only
# when the first five do not fit. Left out are the formats that Pillow knows for documents (PDF, EPS, PSD), icons,
# textures, films and numbers, some of which run other programs or are recognized by accident.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000")

MAX_PIXELS_VARIABLE = "SSD_JAX_MAX_PIXELS"
DEFAULT_MAX_PIXELS = 200_000_000  # the largest sensors of phones and cameras
LARGE_PIXELS = (
    64_000_000  # larger images are decoded one at a time, and at a fraction of their size where that is enough
)

_HEIF = "HEIF"
_HEIF_PLUGINS = ("pillow_heif", "pi_heif")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_MAX_PIXELS_PER_BYTE = 1000  # of large images; even drawings have fewer
_BYTES_PER_PIXEL = 8  # of the largest files: four uncompressed channels of 16 bits
COPY_ADVICE = "Copy it again, or remove it."
_ADVICE = "Check the path and its permissions."
_GIT_LFS_POINTER = b"version https://git-lfs"


class _HeifPluginMissingError(Exception):
    """Raised for a HEIC file if no plugin of Pillow for this format is installed."""


def max_pixels() -> int:
    """Return the largest number of pixels of an image, from the environment variable SSD_JAX_MAX_PIXELS if it is set.

    Raises:
        UserError: If the variable is not a positive integer.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if not text:
        return DEFAULT_MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"{MAX_PIXELS_VARIABLE} is '{text}': expected a number of pixels, such as {DEFAULT_MAX_PIXELS}")
    return int(text)


def check_size(size: tuple[int, int], length: int | None = None) -> None:
    """Raise an error if an image of (width, height) has too many pixels.

    Unless the limit was set by the user, a large image must also have a plausible number of bytes, so that a file of a
    few bytes does not take gigabytes of memory.

    Args:
        size: Width and height of the image in pixels.
        length: Length of the file in bytes, if it is known.

    Raises:
        DecompressionBombError: If the image has too many pixels; `convert_decode_errors` converts it.
    """
    pixels = size[0] * size[1]
    if pixels > max_pixels():
        raise Image.DecompressionBombError(f"{size[0]} x {size[1]} pixels")
    is_limit_set = bool(os.environ.get(MAX_PIXELS_VARIABLE))
    if length is not None and not is_limit_set and pixels > max(LARGE_PIXELS, length * _MAX_PIXELS_PER_BYTE):
        raise Image.DecompressionBombError(f"{size[0]} x {size[1]} pixels in only {length} bytes")


def check_is_file(path: str | Path) -> int:
    """Return the length of a file in bytes, without opening it. Opening a named pipe would wait forever.

    Raises:
        UserError: If the path is a named pipe, a socket or a device, or does not exist.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        mode = status.st_mode
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise UserError(f"{path}: is {kind}, not an image file. Save the image as a file.")
    return status.st_size


def read_bytes(path: str | Path) -> bytes:
    """Return the content of an image file.

    Raises:
        UserError: If the path is not a file, or the file cannot be read, is empty or is larger than any image may be.
    """
    length = check_is_file(path)
    if length > max_pixels() * _BYTES_PER_PIXEL:
        raise UserError(f"{path}: the file is too large for an image ({length / 1e9:.1f} GB). {_limit_advice()}")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not data:
        raise UserError(f"{path}: the file is empty. Copy it again, or remove it.")
    return data


def open_image(source: str | Path | io.BytesIO) -> Image.Image:
    """Open an image with Pillow, which reads its header. Only the formats that photographs are kept in are tried.

    Args:
        source: Path, or the content of the file. Use `convert_decode_errors` to convert the exceptions.

    Raises:
        DecompressionBombError: If the image has too many pixels.
        Exception: Exceptions of many types if the file is not an image.
    """
    # Pillow's own limit is the same for all images that a program reads. It refuses photographs of 180 megapixels.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels() > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels()
        # Above the limit, an image is refused below, and a warning of Pillow would say the same once more.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        image = Image.open(source, formats=_formats())
    except UnidentifiedImageError:
        if not _is_heif(source):
            raise
        _register_heif_plugin()
        image = Image.open(source, formats=_formats())
    length = len(source.getbuffer()) if isinstance(source, io.BytesIO) else None
    try:
        check_size(image.size, length)
    except Image.DecompressionBombError:
        image.close()
        raise
    return image


@contextmanager
def convert_decode_errors(name: str | Path, start: bytes, advice: str = COPY_ADVICE) -> Iterator[None]:
    """Convert the exceptions that decoders raise for an invalid image to UserErrors.

    Args:
        name: Path, or name of the image for messages. Nothing is read from it, since it may be a name that another
            program sent.
        start: The first bytes of the file.
        advice: What the user can do if the content is not that of an image.
    """
    try:
        yield
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name}: the image is too large ({_size_reason(error)}). {_limit_advice()}") from error
    except _HeifPluginMissingError as error:
        raise UserError(
            f"{name}: is in the format HEIC. Install its reader with: pip install 'ssd-jax[heic]'"
        ) from error
    except Exception as error:  # of any type: decoders raise many for files that were made to cause harm
        if start.startswith(_GIT_LFS_POINTER):
            text = "is a placeholder of Git LFS, not the image. Download the images with: git lfs pull"
            raise UserError(f"{name}: {text}") from error
        is_unknown = isinstance(error, UnidentifiedImageError)
        reason = "not in a known image format" if is_unknown else format_error_reason(error)
        raise UserError(f"{name}: can't be read as an image ({reason}). {advice}") from error


@contextmanager
def opened_file(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file with Pillow, and close it after the ``with`` block.

    Raises:
        UserError: If the file is missing, is not a file or is not an image; the message names the file. Exceptions of
            the decoder in the ``with`` block are converted, too.
    """
    check_is_file(path)
    with (
        convert_decode_errors(path, _read_start(path)),
        open_image(path) as image,
    ):
        yield image


def _read_start(path: str | Path) -> bytes:
    with convert_errors(f"{path}: can't be read", _ADVICE, catch=OSError), open(path, "rb") as stream:
        return stream.read(len(_GIT_LFS_POINTER))


def _limit_advice() -> str:
    return (
        f"The limit is {max_pixels() / 1e6:g} million pixels. For a true photograph, set {MAX_PIXELS_VARIABLE} to a "
        "larger number; otherwise remove the file."
    )


def _size_reason(error: Exception) -> str:
    text = str(error)
    pixels = re.search(r"\((\d+) pixels\)", text)  # Pillow's message
    return f"{int(pixels[1]):,} pixels" if pixels else text


def _unreadable(path: str | Path, error: OSError) -> UserError:
    return UserError(f"{path}: can't be read ({format_error_reason(error)}). {_ADVICE}")


def _formats() -> tuple[str, ...]:
    return (*FORMATS, _HEIF) if _HEIF in Image.OPEN else FORMATS


def _is_heif(source: str | Path | io.BytesIO) -> bool:
    if isinstance(source, io.BytesIO):
        header = source.getvalue()[:12]
    else:
        with open(source, "rb") as file:
            header = file.read(12)
    return header[4:8] == b"ftyp" and header[8:12] in _HEIF_BRANDS


def _register_heif_plugin() -> None:
    """Register a plugin of Pillow for HEIC files.

    Raises:
        _HeifPluginMissingError: If none is installed.
    """
    import importlib

    for name in _HEIF_PLUGINS:
        try:
            importlib.import_module(name).register_heif_opener()
        except ImportError:
            continue
        return
    raise _HeifPluginMissingError
