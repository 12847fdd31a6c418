"""Tests of decoding JPEG files: truncated files, and files that would take much time or memory."""

import io

import numpy as np
import pytest
from PIL import Image

from ssd_jax.data import jpeg

SIZE = (320, 240)


@pytest.fixture(scope="module")
def noise():
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    smooth = np.stack([x * 200 // SIZE[0], y * 200 // SIZE[1], 100 + 60 * np.sin(x / 20)], -1)
    return Image.fromarray((smooth + np.random.default_rng(0).integers(0, 20, smooth.shape)).astype(np.uint8))


def encode(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def decode(data, divisor=1):
    return jpeg.decode_jpeg(data, jpeg.read_size(data), divisor)


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_decode_jpeg_completes_a_file_without_its_last_bytes(noise, options, end):
    data = encode(noise, **options)
    whole, note = decode(data)
    assert note == ""
    pixels, note = decode(data[:-100] + end)
    assert "truncated" in note
    np.testing.assert_array_equal(pixels[:-32], whole[:-32])
    assert np.abs(pixels.astype(int) - whole).max() > 0


def test_decode_jpeg_states_the_number_of_missing_rows(noise):
    pixels, note = decode(encode(noise, subsampling=0)[:-100])
    assert note == "the file is truncated; in the last 8 of its 240 rows, missing pixels are grey"
    assert (pixels[-8:, -8:] == 128).all()


@pytest.mark.parametrize("divisor", [1, 2, 8])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_decode_jpeg_rejects_a_file_of_which_much_is_missing(noise, options, fraction, divisor):
    data = encode(noise, **options)
    with pytest.raises(EOFError, match=r"of 240 rows are missing"):
        decode(data[: int(len(data) * fraction)], divisor)


def test_decode_jpeg_rejects_a_progressive_file_without_its_last_scan(noise):
    data = encode(noise, progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    with pytest.raises(EOFError, match="a part of its detail is missing"):
        decode(data[: last_scan - 100])
    # The last scan only adds the last bit of the coefficients.
    pixels, _ = decode(data[: last_scan + 100])
    assert np.abs(pixels.astype(int) - decode(data)[0]).mean() < 10


@pytest.mark.parametrize(("fraction", "accepted"), [(0.98, True), (0.94, False)])
def test_decode_jpeg_completes_up_to_four_percent_of_the_pixels(noise, fraction, accepted):
    data = encode(noise.resize((16, 1600)), subsampling=0)
    cut = data[: int(len(data) * fraction)]
    if accepted:
        assert "of its 1600 rows, missing pixels are grey" in decode(cut)[1]
    else:
        with pytest.raises(EOFError, match="of 1600 rows are missing"):
            decode(cut)


def test_decode_jpeg_rejects_more_than_100_scans(noise):
    data = encode(noise.resize((16, 16)), progressive=True)
    start = data.rindex(b"\xff\xda")
    repeated = data[:-2] + data[start:-2] * 120 + data[-2:]
    with pytest.raises(EOFError, match="scans, more than 100"):
        decode(repeated)
    # Pixels and films that follow the image are not counted.
    assert decode(data + b"\xff\xda" * 200)[1] == ""


@pytest.mark.parametrize(
    ("message", "is_damaged"),
    [
        ("Corrupt JPEG data: bad Huffman code", True),
        ("Corrupt JPEG data: found marker 0xd9 instead of RST3", True),
        ("Corrupt JPEG data: 3 extraneous bytes before marker 0xd9", False),
        ("Unsupported color conversion request", False),
    ],
)
def test_describe_damage_notes_only_defects_that_change_pixels(message, is_damaged):
    assert ("damaged" in jpeg.describe_damage(ValueError(message))) == is_damaged
