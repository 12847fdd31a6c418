"""Tests of opening image files: HEIC, and limits on the size of files."""

import base64
import sys

import numpy as np
import pytest
from PIL import Image

from ssd_jax.data import image_formats
from ssd_jax.data.image import image_size, mode_and_orientation, read_image
from ssd_jax.errors import UserError

# 64 x 32 pixels, the left half blue and the right half red, to be rotated by 90 degrees (EXIF orientation 6).
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAA"
    "AERAAAIAAQAAAAAB7AABAAAAAAAAACUAAgAAAAACEQABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZl"
    "AgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH/"
    "/wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29s"
    "cm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAIAAAAAEAAAAAAAAAAv///+AAAAACAAAAEHBpeGkAAAAA"
    "AwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAFFtZGF0AAAAISgBrxmA70ml"
    "v//wryEfdlG/hrIXhfLxR/4kd+fW5ENtbwAAAAZFeGlmAABNTQAqAAAACAABARIAAwAAAAEABgAAAAAAAA=="
)


@pytest.fixture
def heic(tmp_path, monkeypatch):
    """A HEIC file; its plugin is not registered yet."""
    monkeypatch.setattr(Image, "OPEN", {name: value for name, value in Image.OPEN.items() if name != "HEIF"})
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    return tmp_path / "IMG_1.HEIC"


def test_read_image_reads_heic_and_rotates_it_once(heic):
    pytest.importorskip("pi_heif")
    pixels = read_image(heic)
    assert pixels.shape == (64, 32, 3) and image_size(heic) == (32, 64)
    np.testing.assert_allclose(pixels[[8, -8], 16], [[0, 0, 255], [255, 0, 0]], atol=5)
    assert mode_and_orientation(heic) == ("RGB", 1)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_read_image_names_the_extra_that_reads_heic(heic, monkeypatch, read):
    for name in ("pillow_heif", "pi_heif"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it was not installed
    with pytest.raises(UserError, match=r"IMG_1\.HEIC: .*pip install 'ssd-jax\[heic\]'"):
        read(heic)


def test_read_image_reads_a_jpeg_that_is_named_heic(tmp_path):
    Image.new("RGB", (8, 4)).save(tmp_path / "a.HEIC", "JPEG")
    assert read_image(tmp_path / "a.HEIC").shape == (4, 8, 3)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.jp2"])
def test_read_image_rejects_a_large_image_in_a_few_bytes(tmp_path, monkeypatch, name):
    monkeypatch.setattr(image_formats, "LARGE_PIXELS", 100 * 100)
    monkeypatch.setattr(image_formats, "_MAX_PIXELS_PER_BYTE", 10)
    Image.new("RGB", (200, 100)).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: the image is too large \(200 x 100 pixels in only \d+ bytes\)"):
        read_image(tmp_path / name)
    monkeypatch.setenv("SSD_JAX_MAX_PIXELS", "1000000")
    assert read_image(tmp_path / name).shape == (100, 200, 3)


def test_read_bytes_rejects_a_file_that_is_larger_than_any_image(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(bytes(801))
    monkeypatch.setenv("SSD_JAX_MAX_PIXELS", "100")
    with pytest.raises(UserError, match=r"a\.jpg: the file is too large.*SSD_JAX_MAX_PIXELS"):
        image_formats.read_bytes(tmp_path / "a.jpg")


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "many"])
def test_max_pixels_rejects_what_is_not_a_positive_integer(monkeypatch, text):
    monkeypatch.setenv("SSD_JAX_MAX_PIXELS", text)
    with pytest.raises(UserError, match="SSD_JAX_MAX_PIXELS is"):
        image_formats.max_pixels()


@pytest.mark.filterwarnings("always")
def test_image_above_the_limit_is_one_error_without_a_warning_of_pillow(tmp_path, monkeypatch, recwarn):
    Image.new("L", (60, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns up to twice its limit
    monkeypatch.setenv("SSD_JAX_MAX_PIXELS", "2000")
    with pytest.raises(UserError, match=r"a\.png: the image is too large"):
        read_image(tmp_path / "a.png")
    assert not recwarn.list


def test_open_image_raises_the_limit_of_pillow(tmp_path, monkeypatch):
    Image.new("1", (2000, 1000)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)  # Pillow refuses more than twice as many pixels
    assert read_image(tmp_path / "a.png").shape == (1000, 2000, 3)


def test_read_image_does_not_open_documents_as_images(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="not in a known image format"):
        read_image(tmp_path / "a.jpg")
