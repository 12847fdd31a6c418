"""Write and read small videos. Skip the tests of a module that uses them if PyAV is not installed."""

from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV is not installed (the extra video)")


def write_video(
    path: Path, levels: list[int], *, size: tuple[int, int] = (64, 48), has_audio: bool = False, rotation: int = 0
) -> Path:
    """Write a video of 10 frames per second, whose frames have a dark left half and a right half of a grey level.

    Args:
        path: File to write.
        levels: Grey level of each frame.
        size: Width and height.
        has_audio: Whether to add a track of silence.
        rotation: Angle by which players have to turn the frames, counterclockwise.
    """
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=44100) if has_audio else None
        for level in levels:
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[:, size[0] // 2 :] = level
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 44100
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path


def read_levels(path: Path) -> list[tuple[float, int]]:
    """Return the time and the grey level of the right half of each frame."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [(round(f.time, 3), round(f.to_ndarray(format="gray")[:, -f.width // 4 :].mean())) for f in frames]
