"""Tests of writing videos to a disk that is full."""

import errno
from typing import Any

import numpy as np
import pytest

from ssd_jax.errors import UserError
from ssd_jax.predictions.video_writer import VideoWriter

pytest.importorskip("av", reason="PyAV is not installed")


class FullDisk:
    """A container of PyAV that cannot write its end."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def mux(self, packets: object) -> None:
        pass

    def close(self) -> None:
        self._container.close()
        raise OSError(errno.ENOSPC, "No space left on device")


def make_writer_with_full_disk(path) -> VideoWriter:
    writer = VideoWriter(path)
    for number in range(100):  # the encoder keeps the first ones back
        writer.write(np.zeros((48, 64, 3), np.uint8), number / 10)
    assert list(path.parent.iterdir()), "the file has been begun"
    writer._container = FullDisk(writer._container)
    return writer


def test_full_disk_at_the_end_of_a_video_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.mp4: .*No space left"):
        make_writer_with_full_disk(tmp_path / "a.mp4").close()
    assert list(tmp_path.iterdir()) == []


def test_removal_of_a_video_after_an_error_raises_no_other_error(tmp_path):
    make_writer_with_full_disk(tmp_path / "a.mp4").close(keep=False)
    assert list(tmp_path.iterdir()) == []


def test_complete_video_has_its_name(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4")
    writer.write(np.zeros((48, 64, 3), np.uint8), 0.0)
    writer.close()
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
