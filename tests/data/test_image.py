"""Tests of reading image files. Most of the expected pixels are those that Pillow reads."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from ssd_jax.data import image
from ssd_jax.data.image import (
    EXTENSIONS,
    collect_image_notes,
    decode_image,
    image_size,
    mode_and_orientation,
    read_image,
    read_reduced_image,
    stored_size,
)
from ssd_jax.data.image_formats import FORMATS
from ssd_jax.errors import UserError


@pytest.fixture
def photo():
    """Return a smooth image of 64 x 48 pixels, which JPEG compression hardly changes."""
    y, x = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([x * 3, y * 5, 255 - x * 2 - y], axis=-1).astype(np.uint8))


def encode_jpeg(photo, **options):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def read_with_pillow(file, mode="RGB"):
    with Image.open(file) as image:
        return np.asarray(image.convert(mode))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
def test_read_image_decodes_jpeg_files_exactly_like_pillow(photo, tmp_path, options):
    file = tmp_path / "a.jpg"
    file.write_bytes(encode_jpeg(photo, **options))
    np.testing.assert_array_equal(read_image(file), read_with_pillow(file))
    assert image_size(file) == (64, 48)


def test_read_image_decodes_jpeg_files_of_odd_size_like_pillow(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (33, 17, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), read_with_pillow(tmp_path / "a.jpg"))


OPTIONS = {  # options with which a format stores the pixels exactly, or nearly
    "a.png": {}, "a.webp": {"lossless": True}, "a.tif": {}, "lzw.tif": {"compression": "tiff_lzw"},
    "a.avif": {"quality": 100, "subsampling": "4:4:4"}, "a.jpg": {"quality": 100, "subsampling": 0},
}  # fmt: skip


def exif_with_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def rotate(pixels, orientation):
    """Return the pixels as a viewer shows them, by the table of the EXIF standard."""
    turned = pixels.transpose(1, 0, 2) if orientation > 4 else pixels
    turned = turned[::-1] if orientation in (3, 4, 7, 8) else turned
    return turned[:, ::-1] if orientation in (2, 3, 6, 7) else turned


def assert_similar(pixels, expected):
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_readers_apply_the_orientation_once_in_every_format(photo, tmp_path, orientation, name):
    """Pillow rotates TIFF files when it loads them, and no others."""
    file, pixels = tmp_path / name, np.asarray(photo)
    photo.save(file, exif=exif_with_orientation(orientation), **OPTIONS[name])
    upright = rotate(pixels, orientation)
    assert_similar(read_image(file), upright)
    assert image_size(file) == upright.shape[1::-1]
    assert mode_and_orientation(file) == ("RGB", orientation)
    data = file.read_bytes()
    assert_similar(decode_image(data, name), pixels)
    assert stored_size(data, name) == (64, 48)
    # An annotation of the stored size was made on the unrotated image.
    as_annotated = pixels if orientation > 4 else upright
    assert_similar(read_image(file, (64, 48)), as_annotated)
    assert image_size(file, (64, 48)) == as_annotated.shape[1::-1]
    reduced, size = read_reduced_image(file, (64, 48), (500, 500))
    assert_similar(reduced, as_annotated)
    assert size == as_annotated.shape[1::-1]
    for annotated in ((48, 64), (10, 10)):  # the size of the upright image, and another size
        assert_similar(read_image(file, annotated), upright)
        assert image_size(file, annotated) == upright.shape[1::-1]


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_read_image_and_image_size_agree_on_an_orientation_in_xmp(photo, tmp_path, name):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    photo.save(tmp_path / name, **({"xmp": xmp} if name == "a.jpg" else {"tiffinfo": {700: xmp}}))
    assert read_image(tmp_path / name).shape == (64, 48, 3)
    assert image_size(tmp_path / name) == (48, 64)


@pytest.mark.parametrize("late", [False, True])
def test_image_size_of_a_png_reads_an_orientation_before_and_after_the_pixels(photo, tmp_path, monkeypatch, late):
    file = tmp_path / "a.png"
    photo.save(file, exif=exif_with_orientation(6))
    if late:
        data = file.read_bytes()
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        file.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    else:
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the pixels are decoded"))
    assert image_size(file) == (48, 64)


def test_read_image_rotates_a_square_image_regardless_of_the_annotated_size(tmp_path):
    file = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(file, exif=exif)
    np.testing.assert_array_equal(read_image(file, (8, 8)), np.rot90(pixels, -1))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_read_image_ignores_an_invalid_orientation(photo, tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    photo.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(photo))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_read_image_repeats_grey_values_in_three_channels(photo, tmp_path, name):
    photo.convert("L").save(tmp_path / name)
    pixels = read_image(tmp_path / name)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], read_with_pillow(tmp_path / name, "L"))


def test_read_image_scales_16_bit_grey_values_to_8_bits(tmp_path):
    grey = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    # The expected value is round(v / 257), which maps 0-65535 to 0-255.
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], [[0, 0, 1, 1, 128, 255]])


def test_read_image_rejects_floating_point_pixels(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif.*8 bits per channel"):
        read_image(tmp_path / "a.tif")


def test_read_image_blends_transparent_pixels_with_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]])


def test_read_image_blends_a_transparent_palette_entry_with_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "holes.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), [[[200, 100, 50], [1, 2, 3]]])
    np.testing.assert_array_equal(read_image(tmp_path / "holes.png"), [[[200, 100, 50], [255, 255, 255]]])


def test_read_image_converts_cmyk_to_rgb(photo, tmp_path):
    # As Photoshop does, Pillow writes inverted CMYK values and Adobe's marker.
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(photo.convert("CMYK")))
    difference = np.abs(read_image(tmp_path / "a.jpg").astype(int) - np.asarray(photo))
    assert difference.mean() < 4


@pytest.mark.parametrize("extension", ["bmp", "gif", "tif", "webp"])
def test_read_image_reads_bmp_gif_tif_and_webp_like_pillow(photo, tmp_path, extension):
    photo.save(tmp_path / f"a.{extension}")
    np.testing.assert_array_equal(
        read_image(tmp_path / f"a.{extension}"), read_with_pillow(tmp_path / f"a.{extension}")
    )


def test_read_image_detects_the_format_from_the_content(photo, tmp_path):
    photo.save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), np.asarray(photo))


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "JPEG closed", "PNG"])
def test_read_image_rejects_a_truncated_file(tmp_path, fraction, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(buffer, kind.split()[0])
    content = buffer.getvalue()[: int(len(buffer.getvalue()) * fraction)]
    file = tmp_path / "a.img"
    file.write_bytes(content + (b"\xff\xd9" if "closed" in kind else b""))
    with pytest.raises(UserError, match=r"a\.img: .*Copy it again"):
        read_image(file)


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp", "a.gif", "a.avif", "a.jp2", "a.ppm"])
def test_read_image_rejects_an_image_above_the_pixel_limit(photo, tmp_path, monkeypatch, read, name):
    photo.save(tmp_path / name)
    monkeypatch.setenv("SSD_JAX_MAX_PIXELS", str(48 * 64 - 1))
    with pytest.raises(UserError, match=rf"{name}: the image is too large \(64 x 48 pixels\).*SSD_JAX_MAX_PIXELS"):
        read(tmp_path / name)
    monkeypatch.setenv("SSD_JAX_MAX_PIXELS", str(48 * 64))
    read(tmp_path / name)


def test_read_image_ignores_bytes_after_the_end_of_a_jpeg(photo, tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(photo) + b"trailing")
    assert read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize(
    ("content", "word"), [(None, "No such file"), (b"", "a.jpg"), (b"<html></html>", "known image format")]
)
def test_read_image_error_names_the_unreadable_file(tmp_path, read, content, word):
    file = tmp_path / "a.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
        read(file)
    assert str(error.value).startswith(f"{file}: ")


@pytest.mark.parametrize("read", [read_image, image_size])
def test_read_image_rejects_a_folder(tmp_path, read):
    with pytest.raises(UserError, match="Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_read_image_does_not_open_a_named_pipe(tmp_path, read):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg: is a named pipe"):
        read(tmp_path / "a.jpg")


def test_extensions_are_those_of_the_formats_that_are_read():
    films, floating_point = {".avifs"}, {".pfm"}
    Image.init()
    known = {extension for extension, name in Image.registered_extensions().items() if name in FORMATS}
    assert set(EXTENSIONS) - {".heic", ".heif", ".hif"} == known - films - floating_point


def make_smooth_image(width, height):
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack([x * 255 // width, y * 255 // height, 128 + 60 * np.sin(x / 50)], -1).astype(np.uint8)
    )


@pytest.mark.parametrize(
    ("size", "divisor"),
    [
        ((299, 200), 1),
        ((300, 20), 2),
        ((20, 301), 2),
        ((599, 599), 2),
        ((600, 455), 4),
        ((1200, 901), 8),
        ((3001, 5), 8),
    ],
)
def test_read_reduced_image_decodes_a_large_jpeg_at_a_fraction_of_the_size(tmp_path, size, divisor):
    file = tmp_path / "a.jpg"
    make_smooth_image(*size).save(file, quality=95)
    expected = read_with_pillow(file) if divisor == 1 else np.asarray(Image.open(file).convert("RGB").reduce(divisor))
    pixels, full_size = read_reduced_image(file, None, (60, 100))
    assert pixels.shape == expected.shape and full_size == size
    difference = np.abs(pixels.astype(int) - expected)[:-1, :-1]  # the last row and column may be partial
    assert difference.size == 0 or difference.mean() < 1
    np.testing.assert_array_equal(read_image(file), read_with_pillow(file))


@pytest.mark.parametrize("orientation", [1, 6])
def test_read_reduced_image_rotates_images_by_the_exif_orientation(tmp_path, orientation):
    file = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    make_smooth_image(640, 480).save(file, exif=exif)
    upright = (480, 640) if orientation == 6 else (640, 480)
    pixels, full_size = read_reduced_image(file, None, (100, 100))
    assert pixels.shape[1::-1] == (upright[0] // 4, upright[1] // 4) and full_size == upright
    pixels, full_size = read_reduced_image(file, (640, 480), (100, 100))
    assert pixels.shape == (120, 160, 3) and full_size == (640, 480)


def test_read_reduced_image_decodes_a_png_at_full_size(tmp_path):
    make_smooth_image(640, 480).save(tmp_path / "a.png")
    pixels, full_size = read_reduced_image(tmp_path / "a.png", None, (50, 50))
    np.testing.assert_array_equal(pixels, read_with_pillow(tmp_path / "a.png"))
    assert full_size == (640, 480)


@pytest.mark.parametrize("name", ["a.png", "a.jp2", "one_level.jp2", "grey.png", "palette.png"])
def test_read_reduced_image_reduces_a_large_image_of_any_format(tmp_path, monkeypatch, name):
    """The limit of what counts as large is set below the size of the image."""
    monkeypatch.setattr(image, "LARGE_PIXELS", 640 * 480 - 1)
    large = make_smooth_image(640, 480).convert({"grey.png": "L", "palette.png": "P"}.get(name, "RGB"))
    large.save(tmp_path / name, **({"num_resolutions": 2} if name == "one_level.jp2" else {}))
    pixels, full_size = read_reduced_image(tmp_path / name, None, (100, 100))
    assert full_size == (640, 480)
    assert_similar(pixels, np.asarray(large.convert("RGB").reduce(4)))
    assert read_reduced_image(tmp_path / name, None, (100, 100), min_pixels=640 * 480 + 1)[0].shape == (480, 640, 3)


def test_read_image_notes_a_jpeg_without_its_last_bytes(photo, tmp_path, caplog):
    file = tmp_path / "a.jpg"
    file.write_bytes(encode_jpeg(photo)[:-2])
    note = "the file lacks its end marker, but no pixels"
    for _ in range(3):  # logged once, although an image is read in every epoch
        np.testing.assert_array_equal(read_image(file), np.asarray(Image.open(io.BytesIO(encode_jpeg(photo)))))
    assert caplog.messages == [f"{file}: {note}"]
    with collect_image_notes() as notes:
        read_image(file)
    assert notes == [note] and len(caplog.messages) == 1


def test_read_reduced_image_rejects_a_truncated_file(tmp_path):
    data = encode_jpeg(make_smooth_image(640, 480))
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"a\.jpg: "):
        read_reduced_image(tmp_path / "a.jpg", None, (50, 50))


def test_placeholder_of_git_lfs_is_called_by_its_name(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    for read in (read_image, image_size):
        with pytest.raises(UserError, match=r"a\.jpg: .*git lfs pull"):
            read(file)
