"""Tests of reading videos."""

import numpy as np
import pytest
from helpers.videos import write_video

from ssd_jax.errors import UserError
from ssd_jax.inputs.finding import find_inputs
from ssd_jax.inputs.reading import Picture, count_pictures, make_readings
from ssd_jax.inputs.video import read_frames, read_info

LEVELS = [20 * i for i in range(10)]


def test_frames_are_read_with_their_positions_and_times(tmp_path):
    frames = list(read_frames(write_video(tmp_path / "a.mp4", LEVELS)))
    assert [frame.position for frame in frames] == list(range(10))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(10) / 10, atol=1e-6)
    np.testing.assert_allclose([frame.pixels[:, 40:].mean() for frame in frames], LEVELS, atol=4)
    assert frames[0].pixels.shape == (48, 64, 3)


def test_every_third_frame_keeps_its_position(tmp_path):
    video = write_video(tmp_path / "a.mp4", LEVELS)
    frames = list(read_frames(video, 3))
    assert [frame.position for frame in frames] == [0, 3, 6, 9]
    np.testing.assert_allclose([frame.pixels[:, 40:].mean() for frame in frames], LEVELS[::3], atol=4)
    assert count_pictures(find_inputs([video]).inputs, 3) == 4


@pytest.mark.parametrize(("rotation", "dark"), [(90, "bottom"), (-90, "top"), (180, "right")])
def test_frames_are_upright(tmp_path, rotation, dark):
    """OpenCV turns frames of such a video in the same way."""
    frame = next(read_frames(write_video(tmp_path / "a.mp4", [255], rotation=rotation))).pixels
    height, width = frame.shape[:2]
    parts = {
        "top": frame[: height // 2], "bottom": frame[height // 2 :],
        "left": frame[:, : width // 2], "right": frame[:, width // 2 :],
    }  # fmt: skip
    assert min(parts, key=lambda part: parts[part].mean()) == dark
    assert (width, height) == ((64, 48) if rotation == 180 else (48, 64))


def test_read_info_tells_whether_there_is_audio(tmp_path):
    assert read_info(write_video(tmp_path / "a.mp4", LEVELS, has_audio=True)).has_audio
    assert not read_info(write_video(tmp_path / "b.mp4", LEVELS)).has_audio


@pytest.mark.parametrize(("name", "has_audio"), [("a.mkv", False), ("a.mkv", True), ("a.avi", False)])
def test_video_whose_end_is_missing_is_an_error_after_its_frames(tmp_path, name, has_audio):
    levels = np.random.default_rng(0).integers(0, 255, 30).tolist()
    video = write_video(tmp_path / name, levels, size=(320, 240), has_audio=has_audio)
    assert len(list(read_frames(video))) == 30
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 2 // 3])
    frames = []
    with pytest.raises(UserError, match=r"ends after [012]\.\d of 3\.\d seconds") as error:
        frames.extend(read_frames(video))
    assert str(error.value).startswith(f"{video}: ") and len(str(error.value).splitlines()) == 1
    assert 0 < len(frames) < 25


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_broken_video_is_an_error_that_names_it(tmp_path, content):
    video = write_video(tmp_path / "a.mp4", LEVELS)
    video.write_bytes(video.read_bytes()[:600] if content is None else content)
    with pytest.raises(UserError) as error:
        list(read_frames(video))
    assert str(error.value).startswith(f"{video}: ") and len(str(error.value).splitlines()) == 1
    assert count_pictures(find_inputs([video]).inputs) == 0


def test_frames_before_and_after_damage_are_read(tmp_path):
    """Zeros replace a fifth of the frames' bytes in the middle."""
    levels = np.random.default_rng(0).integers(0, 255, 100).tolist()
    video = write_video(tmp_path / "a.mp4", levels, size=(320, 240))
    content = bytearray(video.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov")
    damaged = slice(start + (end - start) * 2 // 5, start + (end - start) * 3 // 5)
    content[damaged] = bytes(damaged.stop - damaged.start)
    video.write_bytes(content)
    *frames, error = [reading.read() for reading in make_readings(find_inputs([video]).inputs, 64)]
    assert 20 < len(frames) < 100 and all(isinstance(frame, Picture) for frame in frames)
    assert f"{video}: " in error.lines[0] and f"other {len(frames)} frames" in error.lines[0]
