"""Tests of scaling images of more than 8 bits per channel."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ssd_jax.data.image import read_image
from ssd_jax.data.pixels import scale_to_8_bits


def ramp(bits):
    """Return grey values from 0 to the largest of a number of bits."""
    return np.linspace(0, 2**bits - 1, 40 * 24).round().astype(np.uint16).reshape(24, 40)


def expected_pixels(values, bits):
    return np.round(values / (2**bits - 1) * 255)


def write_png(file, pixels, colour_type):
    """Write a PNG file with 16 bits per channel."""
    height, width = pixels.shape[:2]

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def write_tiff(file, pixels, order="<", **tags):
    """Write an uncompressed TIFF file with 16 bits per channel."""
    height, width, channels = pixels.shape
    content = pixels.astype(f"{order}u2").tobytes()
    fields = {256: width, 257: height, 258: 16, 259: 1, 262: 2 if channels > 1 else 1, 273: 8, 277: channels,
              278: height, 279: len(content)} | {int(tag[1:]): value for tag, value in tags.items()}  # fmt: skip
    directory = struct.pack(f"{order}H", len(fields))
    end = 8 + len(content) + 2 + 12 * len(fields) + 4
    for tag, value in sorted(fields.items()):
        if tag == 258 and channels > 1:
            directory += struct.pack(f"{order}HHII", tag, 3, channels, end)
        else:
            directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(content))
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    file.write_bytes(header + content + directory + bytes(4) + bits)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif"])
def test_read_image_scales_grey_by_its_real_range(tmp_path, bits, name):
    options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    Image.fromarray(ramp(bits)).save(tmp_path / name, **options)
    for channel in range(3):
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., channel], expected_pixels(ramp(bits), bits))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["rgb.png", "rgba.png", "little.tif", "big.tif"])
def test_read_image_scales_colours_by_their_real_range(tmp_path, bits, name):
    grey = ramp(bits)
    pixels = np.stack([grey, grey[::-1], grey // 2], -1)
    opaque = np.full((24, 40, 1), 2**bits - 1, np.uint16)
    if name.endswith(".png"):
        content = np.concatenate([pixels, opaque], -1) if name == "rgba.png" else pixels
        write_png(tmp_path / name, content, 6 if name == "rgba.png" else 2)
    else:
        write_tiff(tmp_path / name, pixels, "<" if name == "little.tif" else ">")
    difference = read_image(tmp_path / name) - expected_pixels(pixels, bits)
    assert np.abs(difference).max() <= (1 if bits == 16 else 0)  # Pillow drops the lower byte of 16 bits


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_read_image_scales_grey_with_transparency_by_its_real_range(tmp_path, bits):
    grey = ramp(bits)
    alpha = np.full_like(grey, 65535)
    alpha[0] = 0
    write_png(tmp_path / "a.png", np.stack([grey, alpha], -1), 4)
    expected = expected_pixels(grey, bits)
    expected[0] = 255  # transparent pixels are white
    difference = read_image(tmp_path / "a.png") - expected[..., None]
    assert np.abs(difference).max() <= (1 if bits == 16 else 0)  # Pillow drops the lower byte of 16 bits


def test_read_image_keeps_the_transparency_of_dark_colours(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint16)
    pixels[..., :3], pixels[0, :, 3] = 1000, 65535
    write_png(tmp_path / "a.png", pixels, 6)
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [round(1000 / 1023 * 255), 255]


@pytest.mark.parametrize(
    ("maximum", "pixel"), [(4095, 1), (2000, 3), (65535, 5), (100, 5)]
)  # 1023, 65535 and 100 are not what the file says about its range
def test_read_image_uses_the_range_that_a_tiff_states(tmp_path, maximum, pixel):
    write_tiff(tmp_path / "a.tif", np.full((4, 4, 1), 20 if maximum != 100 else 200, np.uint16), T281=maximum)
    stated = {4095: 20 / 4095, 2000: 20 / 2000, 65535: 20 / 255, 100: 200 / 255}[maximum]
    assert read_image(tmp_path / "a.tif")[0, 0, 0] == round(stated * 255)


def test_scale_to_8_bits_keeps_negative_and_large_values_in_range():
    assert scale_to_8_bits(np.array([-5, 0, 255], np.int32)).tolist() == [0, 0, 255]
    assert scale_to_8_bits(np.array([0, 2**23, 2**24 - 1], np.int32)).tolist() == [0, 128, 255]
    assert scale_to_8_bits(np.array([0, 2**31 - 1], np.int32)).tolist() == [0, 127]
    assert scale_to_8_bits(np.zeros((0, 4), np.uint16)).shape == (0, 4)
    assert scale_to_8_bits(np.array([4000], np.uint16), stated_maximum=100).tolist() == [round(4000 / 4095 * 255)]
