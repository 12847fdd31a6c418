"""Read inputs, one picture or frame of a video after the other."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from ssd_jax.data.image import collect_image_notes, decode_reduced_image, image_size, read_reduced_image
from ssd_jax.data.image_formats import LARGE_PIXELS
from ssd_jax.errors import UserError
from ssd_jax.inputs.address import download_image
from ssd_jax.inputs.camera import read_camera
from ssd_jax.inputs.finding import FoundInputs, Input, Kind
from ssd_jax.inputs.video import read_frames, read_info
from ssd_jax.optional_packages import import_package

T = TypeVar("T")
UNLIMITED = 1 << 30
"""Side of a picture that no file has, so that all pictures are read at full size."""


@dataclass(frozen=True)
class Picture:
    """An image, or a frame of a video, that was read."""

    input: Input
    """The input that the picture is from."""
    pixels: UInt8[np.ndarray, "h w 3"]
    """Upright RGB pixels. Those of an image with more than 64 million pixels may be at a reduced size."""
    size: tuple[int, int]
    """(Width, height) at full size in pixels."""
    frame: int | None = None
    """Position in the video, from 0. None for an image."""
    seconds: float | None = None
    """Time in the video. None for an image."""
    notes: tuple[str, ...] = ()
    """Notes for the user, such as that a few rows are missing. They do not name the picture."""

    @property
    def name(self) -> str:
        """Path, address, or number of a camera, for messages."""
        return self.input.location


class Unreadable(NamedTuple):
    """An input that could not be read."""

    lines: tuple[str, ...]
    """Lines of the error message, which name the input."""


class Reading(NamedTuple):
    """A picture that will be read by a call, which may be made in any thread."""

    read: Callable[[], Picture | Unreadable]
    pixels: int
    """About how many pixels it will have."""


def make_readings(inputs: Iterable[Input], max_side: int, every: int = 1) -> Iterator[Reading]:
    """Yield what has to be read, one picture or frame after the other.

    Images are read by the calls of `Reading.read`. Frames are decoded while this function iterates, since a frame
    depends on those before it.

    Args:
        inputs: The inputs. A camera has no end.
        max_side: Longest side of a picture that the detector uses. Images with more than 64 million pixels are read at
            a reduced size that is at least that large.
        every: 1 for all frames of a video, n for the frames 0, n, 2n, ...
    """
    for item in inputs:
        if item.is_film:
            yield from _make_frame_readings(item, every)
        else:
            yield Reading(partial(read_picture, item, max_side), _estimate_pixels(item))


def leave_out_unsupported(found: FoundInputs) -> FoundInputs:
    """Move videos and cameras to the unusable sources if a package that reads them is not installed.

    Raises:
        UserError: If no other inputs remain.
    """
    problems = {kind: _find_missing_package(kind) for kind in {item.kind for item in found.inputs}}
    inputs = [item for item in found.inputs if problems[item.kind] is None]
    if not inputs:
        raise UserError(*found.unusable, *dict.fromkeys(filter(None, problems.values())))
    lines = [f"{item.location}: {problems[item.kind]}" for item in found.inputs if problems[item.kind]]
    return found._replace(inputs=inputs, unusable=[*found.unusable, *lines])


def _find_missing_package(kind: Kind) -> str | None:
    """Return the message about a package that a kind of inputs needs and that is not installed, or None."""
    try:
        if kind == "camera":
            import_package("cv2", "camera")
        if kind in ("video", "camera"):
            import_package("av", "video")  # which also writes the videos of cameras
    except UserError as error:
        return str(error)
    return None


def read_picture(item: Input, max_side: int) -> Picture | Unreadable:
    """Read an image.

    Args:
        item: An image in a file or at an address.
        max_side: See `make_readings`.
    """
    canvas = max_side, max_side
    try:
        with collect_image_notes() as notes:
            if item.kind == "address":
                content = download_image(item.location)
                pixels, size = decode_reduced_image(content, item.location, canvas, LARGE_PIXELS, "Check the address.")
            else:
                pixels, size = read_reduced_image(item.location, None, canvas, LARGE_PIXELS)
    except UserError as error:
        return Unreadable(error.args)
    return Picture(item, pixels, size, notes=tuple(notes))


def count_pictures(inputs: Iterable[Input], every: int = 1) -> int | None:
    """Return about how many pictures and frames the inputs have, or None if it is not known.

    Args:
        inputs: The inputs.
        every: As for `make_readings`.
    """
    counts = [_count_frames(item, every) if item.is_film else 1 for item in inputs]
    return None if None in counts else sum(filter(None, counts))


def _count_frames(item: Input, every: int) -> int | None:
    if item.kind == "camera":
        return None
    try:
        frames = read_info(item.location).frames
    except UserError:  # which is reported when the video is read
        return 0
    return None if frames is None else -(-frames // every)


def _make_frame_readings(item: Input, every: int) -> Iterator[Reading]:
    """Yield the frames of a video or a camera, which are already decoded, and then the error if there was one."""
    try:
        is_video = item.kind == "video"
        frames = read_frames(item.location, every) if is_video else read_camera(int(item.location), every)
        for frame in frames:
            size = frame.pixels.shape[1], frame.pixels.shape[0]
            picture = Picture(item, frame.pixels, size, frame.position, frame.seconds)
            yield Reading(partial(_return, picture), size[0] * size[1])
    except UserError as error:
        yield Reading(partial(_return, Unreadable(error.args)), 0)


def _return(value: T) -> T:
    return value


def _estimate_pixels(item: Input) -> int:
    """Return the number of pixels of an image from the header of its file, or 0 if it is not known."""
    if item.kind == "address":
        return 0
    try:
        width, height = image_size(item.location)
    except UserError:  # which is reported when the image is read
        return 0
    return min(width * height, LARGE_PIXELS)
