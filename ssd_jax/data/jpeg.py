"""Decode JPEG files with libjpeg-turbo, at a fraction of their size if that is enough, and complete truncated ones."""

import itertools
import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8

_SCAN, _END, _METADATA, _PROGRESSIVE = 0xDA, 0xD9, 0xE1, (0xC2, 0xCA)  # markers
_GREY = 128  # value of the pixels that libjpeg fills in where the data is missing
_MAX_SCANS = 100  # a progressive JPEG has about ten; every scan takes time, but few bytes
_MISSING_FRACTION = 0.04  # largest part of the pixels that may be missing: a row of blocks of an image of 400 rows


def is_jpeg(data: bytes) -> bool:
    """Return whether a file with this content is a JPEG file."""
    return data[:2] == b"\xff\xd8"


def read_size(data: bytes) -> tuple[int, int]:
    """Return the (width, height) in pixels of a JPEG file. Raises ValueError if its header is invalid."""
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    return width, height


def has_metadata(data: bytes) -> bool:
    """Return whether a JPEG file may contain an orientation, in EXIF or in XMP."""
    return _METADATA in _iterate_header_markers(data)


def decode_jpeg(data: bytes, size: tuple[int, int], divisor: int) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
    """Decode a JPEG file as RGB pixels, without rotating by its EXIF orientation.

    A file whose end is missing is completed with grey pixels if only a few rows are missing.

    Args:
        data: Content of the file.
        size: (Width, height) of the image in pixels, from `read_size`.
        divisor: 1, 2, 4 or 8. The image is decoded at this fraction of its size, rounded up.

    Returns:
        The pixels, and a note on what was completed; empty if the file is whole.

    Raises:
        EOFError: If a substantial part of the image is missing.
        ValueError: If the file has a defect, perhaps one that Pillow ignores, or was made to take a long time.
    """
    width, height = size
    _check_scans(data)
    # simplejpeg chooses the smallest size that is not below this minimum.
    options = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)}
    try:
        return simplejpeg.decode_jpeg(data, "RGB", **options), ""
    except ValueError as error:
        if "premature" not in str(error).lower():
            raise
    closed = data + b"\xff\xd9"
    try:
        return simplejpeg.decode_jpeg(closed, "RGB", **options), "the file lacks its end marker, but no pixels"
    except ValueError:
        pixels = simplejpeg.decode_jpeg(closed, "RGB", strict=False, **options)
    return pixels, _describe_missing_part(data, pixels, height)


def choose_divisor(longest_side: int, canvas_side: int) -> int:
    """Return the largest of 8, 4, 2 and 1 that leaves a side at least 1.5 times as long as that of a canvas.

    libjpeg can decode at any multiple of 1/8 of the size, but only 1/2, 1/4 and 1/8 are fast.
    """
    return next((d for d in (8, 4, 2) if d * 1.5 * canvas_side <= longest_side), 1)


def describe_damage(error: ValueError) -> str:
    """Return a note on a defect that Pillow ignores, although pixels inside the image may be wrong; else an empty one.

    Args:
        error: The error of `decode_jpeg`.
    """
    is_damaged = re.search(r"huffman|instead of RST", str(error), re.IGNORECASE)
    return "the file is damaged; a part of its pixels is grey or shifted" if is_damaged else ""


def _check_scans(data: bytes) -> None:
    """Raise an EOFError if a file has so many scans that decoding it would take minutes."""
    # A film may follow the image in the file, so the whole file may contain more of these two bytes.
    if _is_progressive(data) and data.count(b"\xff\xda") > _MAX_SCANS:
        scans = sum(marker == _SCAN for marker, _ in _iterate_segments(data))
        if scans > _MAX_SCANS:
            raise EOFError(f"it has {scans} scans, more than {_MAX_SCANS}")


def _describe_missing_part(data: bytes, pixels: UInt8[np.ndarray, "h w 3"], height: int) -> str:
    """Return a note on the missing part of a truncated file whose pixels were completed.

    Raises:
        EOFError: If a substantial part is missing.
    """
    if _is_progressive(data):
        # Every scan adds detail to the whole image. The last one adds the lowest bit of a part of the coefficients.
        if not _lacks_only_last_bits(data):
            raise EOFError("the file is truncated, and a part of its detail is missing")
        return "the file is truncated; a part of its finest detail is missing"
    # Blocks are stored row by row, so the missing ones reach to the right edge and to the lower one.
    is_grey = (pixels[::-1, ::-1] == _GREY).all(axis=2)
    rows = _count_leading(is_grey[:, 0])
    missing = sum(map(_count_leading, is_grey[:rows]))
    rows = -(-rows * height // len(pixels))
    if missing > _MISSING_FRACTION * is_grey.size:
        raise EOFError(f"the file is truncated, and {rows} of {height} rows are missing")
    return f"the file is truncated; in the last {rows} of its {height} rows, missing pixels are grey"


def _count_leading(flags: Bool[np.ndarray, " n"]) -> int:
    """Return the number of True values before the first False one."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def _is_progressive(data: bytes) -> bool:
    return any(marker in _PROGRESSIVE for marker in _iterate_header_markers(data))


def _lacks_only_last_bits(data: bytes) -> bool:
    """Return whether the last scan of a progressive JPEG file refines coefficients, and all others were complete."""
    lowest_bit = np.full((256, 64), 255)  # of each coefficient of each component
    components: set[int] = set()
    is_refinement = False
    for marker, segment in _iterate_segments(data):
        if marker in _PROGRESSIVE:
            components.update(segment[6::3][: segment[5]])
        elif marker == _SCAN and len(segment) == 4 + 2 * segment[0]:
            first, last, bits = segment[-3:]
            is_refinement = bits >> 4 > 0
            for component in segment[1:-3:2]:
                lowest_bit[component, first : last + 1] = bits & 15
    return bool(components) and is_refinement and not lowest_bit[sorted(components)].any()


def _iterate_header_markers(data: bytes) -> Iterator[int]:
    """Return an iterator over the markers before the pixels."""
    return itertools.takewhile(lambda marker: marker != _SCAN, (marker for marker, _ in _iterate_segments(data)))


# A marker is 0xff and a byte that is neither 0 (an escaped 0xff), 0xff (padding) nor a restart marker.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def _iterate_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the (marker, content without its length) of each segment of a JPEG file up to the end marker."""
    position = 2
    while found := _MARKER.search(data, position):
        marker, start = data[found.start() + 1], found.end()
        if marker == _END:
            return
        length = int.from_bytes(data[start : start + 2], "big")
        yield marker, data[start + 2 : start + length]
        position = start + max(length, 2)
