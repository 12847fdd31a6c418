"""Tests of reading images from addresses, and frames of cameras."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.file_server import run_file_server
from PIL import Image

from ssd_jax.errors import UserError
from ssd_jax.inputs import address
from ssd_jax.inputs.camera import read_camera
from ssd_jax.inputs.finding import find_inputs
from ssd_jax.inputs.reading import Picture, Unreadable, count_pictures, leave_out_unsupported, make_readings


def read_all(*sources: str, every: int = 1) -> list[Picture | Unreadable]:
    return [reading.read() for reading in make_readings(find_inputs(sources).inputs, 64, every)]


@pytest.fixture(scope="module")
def server():
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 100, 50)).save(stream, "png")
    with run_file_server(stream.getvalue()) as server:
        yield server


# ---- addresses ----


@pytest.mark.parametrize("behavior", ["good", "redirect", "slow"])
def test_image_at_an_address_is_read(server, behavior):
    (picture,) = read_all(f"{server.url}{behavior}/a.png")
    assert picture.size == (30, 20) and picture.pixels[0, 0].tolist() == [200, 100, 50]
    assert picture.name == f"{server.url}{behavior}/a.png"


@pytest.mark.parametrize(
    ("behavior", "words"),
    [("missing", "HTTP status 404"), ("busy", "HTTP status 503"), ("cut", "connection was lost"),
     ("endless", "more than 0.5 MB"), ("stall", "does not answer")],
)  # fmt: skip
def test_failed_download_is_one_line_with_the_address(server, monkeypatch, behavior, words):
    monkeypatch.setattr(address, "MAX_BYTES", 500_000)
    monkeypatch.setattr(address, "_TIMEOUTS_S", (1.0, 0.3))
    result, good = read_all(f"{server.url}{behavior}/a.png", f"{server.url}good/b.png")
    (line,) = result.lines
    assert line.startswith(f"{server.url}{behavior}/a.png: ") and words in line and "\n" not in line
    assert isinstance(good, Picture)


def test_download_that_takes_too_long_is_given_up(server, monkeypatch):
    monkeypatch.setattr(address, "MAX_SECONDS", 0.1)
    (result,) = read_all(f"{server.url}slow/a.png")
    assert "takes more than 0.1 s" in result.lines[0]


def test_wrong_content_at_an_address_is_named():
    with run_file_server(b"<html>no image</html>") as server:
        (result,) = read_all(f"{server.url}good/a.png")
    assert result.lines[0].startswith(f"{server.url}good/a.png: can't be read as an image")
    assert "Check the address." in result.lines[0] and "Copy it" not in result.lines[0]


def test_redirect_to_a_file_is_not_followed(server):
    (result,) = read_all(f"{server.url}redirect_to_file/a.png")
    assert "redirects to an address" in result.lines[0] and "adapter" not in result.lines[0]


def test_unreachable_host_is_named():
    (result,) = read_all("http://127.0.0.1:9/a.png")
    assert "no connection to 127.0.0.1:9" in result.lines[0]


# ---- cameras ----


class Camera:
    """A stand-in for OpenCV's VideoCapture, which sends ``count`` frames of increasing blue levels."""

    count, is_open, released = 5, True, 0

    def __init__(self, number: int) -> None:
        self.position = -1

    def isOpened(self) -> bool:  # noqa: N802
        return self.is_open

    def grab(self) -> bool:
        self.position += 1
        return self.position < self.count

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 6, 3), (self.position, 0, 0), np.uint8)

    def release(self) -> None:
        Camera.released += 1


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr(Camera, "released", 0)
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Camera))
    return Camera


def test_frames_of_a_camera_are_rgb_and_the_end_is_an_error(camera):
    *frames, end = read_all("0", every=2)
    assert [frame.frame for frame in frames] == [0, 2, 4]
    assert [frame.pixels[0, 0].tolist() for frame in frames] == [[0, 0, 0], [0, 0, 2], [0, 0, 4]]
    assert [frame.seconds for frame in frames] == sorted(frame.seconds for frame in frames)
    assert "no frames any more" in end.lines[0] and camera.released == 1
    assert count_pictures(find_inputs(["0"]).inputs) is None


def test_camera_is_released_when_reading_stops(camera):
    frames = read_camera(0)
    next(frames)
    frames.close()
    assert camera.released == 1


def test_missing_camera_is_an_error(camera, monkeypatch):
    monkeypatch.setattr(camera, "is_open", False)
    (result,) = read_all("3")
    assert result.lines[0].startswith("3: there is no camera")


@pytest.mark.parametrize(("source", "module", "extra"), [("0", "cv2", "camera"), ("a.mp4", "av", "video")])
def test_missing_library_is_named_with_its_extra(tmp_path, monkeypatch, source, module, extra):
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(UserError, match=rf"ssd-jax\[{extra}\]"):
        leave_out_unsupported(find_inputs([source]))
    found = leave_out_unsupported(find_inputs([source, "nothing.png", "b.png"]))
    assert [item.location for item in found.inputs] == ["b.png"]
    assert found.unusable[0].startswith("nothing.png: ") and found.unusable[1].startswith(f"{source}: the package ")
