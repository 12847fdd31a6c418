"""Read video files with PyAV, which the extra ``video`` installs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ssd_jax.errors import UserError, convert_errors, format_error_reason
from ssd_jax.optional_packages import import_package
from ssd_jax.plurals import format_count

_USUAL_RATE = 25  # frames per second of a video that does not say it
_END_TOLERANCE = 0.1  # share of the length of a video by which its last frame may end earlier, up to a second


class Frame(NamedTuple):
    """A frame of a video."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """Upright RGB pixels."""
    position: int
    """Position in the video, from 0."""
    seconds: float
    """Time in the video."""


class VideoInfo(NamedTuple):
    """Properties of a video, from its header."""

    frames: int | None
    """Number of frames, which may be estimated. None if it is not known."""
    has_audio: bool


def read_info(path: str | Path) -> VideoInfo:
    """Read the header of a video file.

    Raises:
        UserError: If the file cannot be read, or has no video; the message names the file.
    """
    with _open(path) as (container, stream):
        rate = float(stream.average_rate or 0)
        seconds = (container.duration or 0) / 1e6
        frames = stream.frames or round(seconds * rate) or None
        return VideoInfo(frames, bool(container.streams.audio))


def read_frames(path: str | Path, every: int = 1) -> Iterator[Frame]:
    """Yield the frames of a video file.

    Damaged parts are left out. After the last frame, an error tells about them, or that the end of the file is missing,
    if the file says how long it should be.

    Args:
        path: Video file.
        every: 1 for all frames, n for the frames 0, n, 2n, ...

    Raises:
        UserError: If the file cannot be read, has no video, or is damaged; the message names the file.
    """
    av = import_package("av", "video")
    index = damaged = 0
    end = 0.0
    with _open(path) as (container, stream):
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or _USUAL_RATE)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                damaged += 1
                continue
            for frame in frames:
                seconds = float(frame.time if frame.time is not None else index / rate)
                end = max(end, seconds + float((frame.duration or 0) * (frame.time_base or 0)))
                if index % every == 0:
                    yield Frame(_to_pixels(frame), index, seconds)
                index += 1
        expected = _read_seconds(container, stream)
    if not index:
        raise UserError(f"{path}: this video has no frames that can be read. Copy it again, or remove it.")
    tolerance = max(2 / rate, min(1.0, expected * _END_TOLERANCE))
    if end < expected - tolerance:
        text = f"this video ends after {end:.1f} of {expected:.1f} seconds, the rest is missing"
        raise UserError(f"{path}: {text}. {format_count(index, 'frames were')} read. Copy it again, or remove it.")
    if damaged:
        raise UserError(f"{path}: {damaged} parts of this video are damaged. The other {index} frames were read.")


def _read_seconds(container: Any, stream: Any) -> float:
    """Return how long a video is according to its file, or 0 if the file does not say it."""
    if "avi" in container.format.name:  # whose other entries FFmpeg corrects by the size of the file
        return float(stream.frames / (stream.average_rate or _USUAL_RATE))
    if stream.duration:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    if match := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):  # of Matroska
        hours, minutes, seconds = map(float, match.groups())
        return 3600 * hours + 60 * minutes + seconds
    is_alone = len(container.streams) == 1  # or else another stream may be longer
    return (container.duration or 0) / 1e6 if is_alone else 0.0


def _to_pixels(frame: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Return the upright RGB pixels of a frame of PyAV."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counterclockwise, as of np.rot90
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@contextmanager
def _open(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Open a video file, and yield its container and its first video stream."""
    av = import_package("av", "video")
    with (
        convert_errors(
            f"{path}: can't be read as a video",
            "Copy it again, or remove it.",
            catch=(OSError, ValueError),
            reason=lambda error: getattr(error, "strerror", None) or format_error_reason(error),
        ),
        av.open(str(path), metadata_errors="ignore") as container,
    ):
        if not container.streams.video:
            raise UserError(f"{path}: this file has no video.")
        yield container, container.streams.video[0]
