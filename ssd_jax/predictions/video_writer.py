"""Write video files with PyAV, which the extra ``video`` installs."""

from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ssd_jax.errors import UserError
from ssd_jax.files import append_to_file_name, convert_write_errors
from ssd_jax.optional_packages import import_package
from ssd_jax.predictions.prediction import OUT_ADVICE

_TICKS_PER_SECOND = 90_000  # the usual unit of time in videos, of which most frame rates have whole numbers
_NOMINAL_RATE = 30  # which the encoder asks for; the time of each frame is its own
_CODEC = "libx264"
_ENCODER_OPTIONS = {"crf": "20", "preset": "veryfast"}


class VideoWriter:
    """Writer of a video file in the format MP4 with H.264, without audio.

    The file gets its name when it is complete.

    Args:
        path: File to write.
    """

    def __init__(self, path: Path) -> None:
        self._av = import_package("av", "video")
        self._path = path
        self._part = path.with_name(append_to_file_name(path.stem, ".part.mp4"))
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def write(self, pixels: UInt8[np.ndarray, "h w 3"], seconds: float) -> None:
        """Append a frame. Frames of another size than the first one are resized to it.

        Args:
            pixels: RGB pixels. If a side is odd, its last row or column is repeated, as the format needs even sides.
            seconds: Time of the frame.

        Raises:
            UserError: If the file cannot be written.
        """
        with self._convert_errors():
            if self._container is None:
                self._open(pixels.shape[1], pixels.shape[0])
            padded = np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge")
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            self._last = frame.pts = max(self._last + 1, round(seconds * _TICKS_PER_SECOND))
            frame.time_base = Fraction(1, _TICKS_PER_SECOND)
            self._container.mux(self._stream.encode(frame))

    def close(self, *, keep: bool = True) -> None:
        """Complete the file, or remove it. Without any frame, there is no file.

        Raises:
            UserError: If the file cannot be written.
        """
        container, self._container = self._container, None
        if container is None:
            return
        try:
            with self._convert_errors():
                try:
                    if keep:
                        container.mux(self._stream.encode())
                finally:
                    container.close()
                if keep:
                    self._part.replace(self._path)
        except UserError:
            if keep:  # or else there was an error before, such as a full disk, which was reported then
                raise
        finally:
            self._part.unlink(missing_ok=True)

    def _open(self, width: int, height: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._part), mode="w", format="mp4")
        stream = self._container.add_stream(_CODEC, rate=_NOMINAL_RATE, options=_ENCODER_OPTIONS)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS_PER_SECOND)
        self._stream = stream

    def _convert_errors(self) -> AbstractContextManager[None]:
        return convert_write_errors(self._path, OUT_ADVICE)
