"""Tests of the page with a detector in a browser. A server of the test answers in place of a detector."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
import pytest
from helpers.browser import Page, run_browser
from helpers.detector_page import (
    open_detector_page,
    save_detections,
    set_lowest_score,
    show_picture,
    start_waiting,
    wait_for_result,
)
from helpers.page_server import run_page_server
from PIL import Image

from ssd_jax.data.image import read_image, reduce_to_fit
from ssd_jax.web_page.page import PageConfig, encode_page_config, read_page_files

HOSTILE = "<img src=x onerror=alert(1)>"
"""Name of the second class."""
DETECTIONS = [
    {"class_index": 0, "score": 0.97, "box": [2.5, 3, 40, 30]},
    {"class_index": 1, "score": 0.62, "box": [30, 10, 60.25, 44]},
    {"class_index": 0, "score": 0.2, "box": [0, 0, 10, 10]},
]


class Answers:
    """Answers of the server of the test to pictures, and the pictures that it got."""

    def __init__(self) -> None:
        self.pictures: list[bytes] = []
        self.reset()

    def reset(self) -> None:
        result = {"width": 64, "height": 48, "milliseconds": 4.2, "detections": DETECTIONS}
        self.status, self.body = 200, json.dumps(result).encode()

    def detect(self, picture: bytes) -> tuple[int, bytes]:
        self.pictures.append(picture)
        return self.status, self.body


answers = Answers()
files: dict[str, bytes] = {}


@pytest.fixture(scope="module")
def browser() -> Iterator[tuple[Page, str]]:
    """Return the page, and the address of its server. The page is in a folder, as on many servers."""
    config = PageConfig(
        backend="server", name="some cells", class_names=("cat", HOSTILE), score_threshold=0.01, detect_url="detect",
        license="MIT (someone)",
    )  # fmt: skip
    contents = {**read_page_files(), "config.json": encode_page_config(config)}
    files.update({f"folder/{name}": content for name, content in contents.items()})
    with run_browser() as page, run_page_server(files, answers.detect) as address:
        page.set_size(1200, 900)
        yield page, f"{address}folder/"
        foreign = [url for url in page.requests if not url.startswith((address, "blob:", "file:", "about:"))]
        assert foreign == []


@pytest.fixture
def page(browser: tuple[Page, str]) -> Iterator[Page]:
    """Return the page after it was loaded anew. A test fails if there is an error on the console of the browser."""
    page, url = browser
    answers.reset()
    answers.pictures.clear()
    page.problems.clear()
    open_detector_page(page, url)
    yield page
    assert page.problems == []


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "a photo.png"
    Image.new("RGB", (64, 48), (200, 220, 210)).save(file)
    return file


# ---- pixels ----

READ_PIXELS = """(async (name, limit) => {
    const { decodePicture, readPixels } = await import("./picture.js");
    const { reduceToFit } = await import("./reduction.js");
    const bitmap = await decodePicture(await (await fetch(name)).blob(), name);
    const whole = { pixels: readPixels(bitmap), width: bitmap.width, height: bitmap.height };
    const { pixels, width, height } = reduceToFit(whole, limit);
    let text = "";
    for (let i = 0; i < pixels.length; i += 32768) text += String.fromCharCode(...pixels.subarray(i, i + 32768));
    return [width, height, btoa(text)];
})"""


def read_in_page(page: Page, file: Path, limit: int) -> np.ndarray:
    """Return the pixels of a picture as the page gives them to the detector."""
    files[f"folder/{file.name}"] = file.read_bytes()
    width, height, text = page.evaluate(f"{READ_PIXELS}({file.name!r}, {limit})")
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 3)


def make_noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "limit"),
    [
        ((37, 23), 640),  # no reduction
        ((97, 64), 64),  # by less than two
        ((64, 97), 33),
        ((300, 200), 64),  # a little more than four, but no mean of blocks yet
        ((401, 299), 40),  # means of blocks first, with smaller blocks at both edges
        ((733, 120), 45),
        ((130, 65), 65),  # a height of exactly 32.5 is rounded to an even number
        ((700, 5), 100),  # one row remains
    ],
)
def test_page_reduces_pictures_as_pillow_does(page: Page, tmp_path: Path, size: tuple[int, int], limit: int):
    np.testing.assert_array_equal(*reduce_in_both(page, tmp_path / "noise.png", size, limit))


@pytest.mark.parametrize(("size", "limit"), [((5, 700), 100), ((65, 301), 65)])
def test_page_reduces_tall_pictures_as_pillow_does_or_one_level_apart(page, tmp_path, size, limit):
    """Versions of Pillow differ in the order of the axes, and so in the rounding."""
    found, expected = reduce_in_both(page, tmp_path / "noise.png", size, limit)
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1 and difference.mean() < 0.2
    if int(PIL.__version__.split(".")[0]) >= 13:
        assert difference.max() == 0


def reduce_in_both(page: Page, file: Path, size: tuple[int, int], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of random pixels as the page and as Pillow reduces it."""
    make_noise(*size).save(file)
    return read_in_page(page, file, limit), reduce_to_fit(read_image(file), (limit, limit))


def write_pictures(folder: Path) -> list[Path]:
    """Write small pictures of several kinds, without loss."""
    noise = make_noise(45, 31)
    noise.save(folder / "rgb.png")
    noise.save(folder / "rgb.bmp")
    noise.save(folder / "rgb.webp", lossless=True)
    noise.convert("L").save(folder / "grey.png")
    noise.convert("P").save(folder / "palette.png")
    noise.convert("1").save(folder / "bits.png")
    alpha = noise.copy()
    alpha.putalpha(Image.new("L", noise.size, 0))
    alpha.save(folder / "transparent.png")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        noise.save(folder / f"exif{orientation}.png", exif=exif)
    Image.fromarray(np.full((600, 20, 3), 7, np.uint8) + np.arange(600, dtype=np.uint8)[:, None, None]).save(
        folder / "tall.png"  # read in several parts
    )
    return sorted(folder.glob("*.*"))


def test_page_reads_the_same_pixels_as_predict(page: Page, tmp_path: Path):
    written = write_pictures(tmp_path)
    assert len(written) == 16
    for file in written:
        np.testing.assert_array_equal(read_in_page(page, file, 1000), read_image(file), err_msg=file.name)


def test_page_reads_jpeg_files_turned_upright_and_does_not_convert_their_colors(page: Page, tmp_path: Path):
    """Decoders of JPEG may round differently, by a level or two."""
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)).resize((80, 50))
    smooth.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    found, expected = read_in_page(page, tmp_path / "photo.jpg", 640), read_image(tmp_path / "photo.jpg")
    assert found.shape == expected.shape == (80, 50, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


# ---- use ----


def test_page_shows_the_detector_and_its_detections(page: Page, picture: Path, tmp_path: Path):
    assert page.evaluate("document.title").startswith("some cells")
    assert page.evaluate("document.querySelector('h1').textContent") == "some cells"
    assert "MIT (someone)" in page.evaluate("about.textContent")
    status = show_picture(page, picture)
    assert answers.pictures == [picture.read_bytes()], "the file is sent as it is"
    assert status == f"a photo.png: 2 detections: 1 cat, 1 {HOSTILE}", "the lowest score is 0.5"
    assert page.evaluate("milliseconds.textContent") == "4.2"
    assert page.evaluate("canvas.getAttribute('aria-label')").endswith(f"1 cat, 1 {HOSTILE}")
    assert page.evaluate("[...document.querySelectorAll('#rows tr')].map(row => row.textContent)") == [
        "cat0.973 3 40 30",
        f"{HOSTILE}0.6230 10 60 44",
    ]
    assert page.evaluate("document.querySelectorAll('img').length") == 0, "names are no markup"
    # The upper edge of the first box is red, as cats are, and the middle of the picture is not.
    assert page.evaluate("canvas.width") == 480, "small pictures are enlarged"
    color = "[...canvas.getContext('2d').getImageData({} * canvas.width / 64, {} * canvas.height / 48, 1, 1).data]"
    assert page.evaluate(color.format(39, 3))[:3] == [230, 25, 75]
    assert page.evaluate(color.format(15, 20))[:3] == [200, 220, 210]
    set_lowest_score(page, 0.1)
    saved = save_detections(page, tmp_path)
    assert (saved["file"], saved["image"]) == ("a photo_detections.json", "a photo.png")
    assert (saved["detector"], saved["width"], saved["height"]) == ("some cells", 64, 48)
    assert [(d["class_name"], d["score"], d["box"]) for d in saved["detections"]] == [
        (("cat", HOSTILE)[d["class_index"]], d["score"], d["box"]) for d in DETECTIONS
    ]


def test_score_and_classes_choose_what_is_shown(page: Page, picture: Path):
    show_picture(page, picture)
    counts = "[...document.querySelectorAll('#class-list label')].map(label => label.lastChild.textContent)"
    shown = "document.getElementById('status').textContent.split(': ').at(-1)"
    assert page.evaluate(counts) == ["1", "1"]
    set_lowest_score(page, 0.05)
    assert page.evaluate(counts) == ["2", "1"] and page.evaluate(shown) == f"2 cat, 1 {HOSTILE}"
    page.evaluate("document.querySelector('#class-list input').click()")
    assert page.evaluate(counts) == ["2", "1"], "counts also tell what was switched off"
    assert page.evaluate(shown) == f"1 {HOSTILE}"
    page.evaluate("document.getElementById('no-classes').click()")
    assert page.evaluate(shown) == "No detections" and page.evaluate("rows.children.length") == 0
    page.evaluate("document.getElementById('all-classes').click()")
    set_lowest_score(page, 0.98)
    assert page.evaluate(counts) == ["0", "0"]


def write_damaged_files(folder: Path, picture: Path) -> list[Path]:
    """Write files that are no pictures. The JPEG file has a small picture in its header, which is complete."""
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9"
    make_noise(90, 70).save(folder / "whole.jpeg", exif=exif.tobytes() + b"\xff\xd9")
    whole = (folder / "whole.jpeg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.png").write_bytes(picture.read_bytes()[:60])
    (folder / "text.jpg").write_text("not a picture", encoding="utf-8")
    (folder / "empty.png").touch()
    return [folder / name for name in ("cut.jpg", "cut.png", "text.jpg", "empty.png")]


def test_wrong_file_gives_a_message_and_the_picture_before_remains(page: Page, picture: Path, tmp_path: Path):
    show_picture(page, picture)
    for file in write_damaged_files(tmp_path, picture):
        message = show_picture(page, file)
        assert message.startswith(f"{file.name}: "), message
        assert page.evaluate("!message.hidden && message.getAttribute('role')") == "alert"
    assert len(answers.pictures) == 1 and page.evaluate("canvas.getAttribute('aria-label')").startswith("a photo.png")
    assert "2 detections" in show_picture(page, picture), "the page still works"
    assert page.evaluate("message.hidden")


TRANSFER = """(() => {
    const data = new DataTransfer();
    if (%r) data.items.add(new File([Uint8Array.from(atob(%r), c => c.charCodeAt(0))], "given.png"));
    else data.setData("text/plain", "words");
    document.dispatchEvent(new %s(%r, { %s: data, bubbles: true, cancelable: true }));
})()"""


@pytest.mark.parametrize("event", [("DragEvent", "drop", "dataTransfer"), ("ClipboardEvent", "paste", "clipboardData")])
def test_picture_can_be_dropped_and_pasted(page: Page, picture: Path, event: tuple[str, str, str]):
    content = base64.b64encode(picture.read_bytes()).decode()
    for has_file, words in ((1, "given.png: 2 detections"), (0, "no file")):
        start_waiting(page)
        page.evaluate(TRANSFER % (has_file, content, *event))
        assert words in wait_for_result(page)


def test_the_newest_of_several_pictures_is_shown(page: Page, picture: Path, tmp_path: Path):
    """The first one takes longer, as it has more pixels to decode."""
    make_noise(1500, 1500).save(tmp_path / "large.png")
    for file in (tmp_path / "large.png", picture):
        page.choose_file("#file", file)
    page.wait_for("document.getElementById('status').textContent.startsWith('a photo.png: 2')")
    page.evaluate("new Promise(resolve => setTimeout(resolve, 300))")
    assert page.evaluate("document.getElementById('status').textContent").startswith("a photo.png: 2")


def test_camera_is_shown_until_it_is_stopped(page: Page):
    button = "document.getElementById('camera')"
    page.evaluate(f"{button}.click()")
    page.wait_for("!canvas.hidden")
    assert answers.pictures[0].startswith(b"\xff\xd8\xff"), "frames are sent as JPEG files"
    page.wait_for(f"{button}.textContent === 'Stop the camera' && !{button}.disabled")
    page.evaluate(f"{button}.click()")
    assert page.evaluate(f"{button}.textContent") == "Use the camera"
    assert "camera: 2 detections" in page.evaluate("document.getElementById('status').textContent")
    page.evaluate("new Promise(resolve => setTimeout(resolve, 100))")  # a frame may have been on its way
    count = len(answers.pictures)
    page.evaluate("new Promise(resolve => setTimeout(resolve, 200))")
    assert len(answers.pictures) == count


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (413, b'{"detail": "the picture has 20 MB"}', "the picture has 20 MB"),
        (422, b'{"detail": [{"loc": 1}]}', "status 422"),
        (500, b"<html>", "status 500"),
        (200, b"[]", "status 200"),
    ],
)
def test_error_of_the_server_is_shown(page: Page, picture: Path, status: int, body: bytes, words: str):
    answers.status, answers.body = status, body
    assert words in show_picture(page, picture)
    page.problems.clear()  # the browser notes failed requests on its console


def test_address_can_name_a_picture_on_the_same_server(browser: tuple[Page, str], page: Page, picture: Path):
    files["folder/photo.png"] = picture.read_bytes()
    url = browser[1]
    open_detector_page(page, f"{url}?image=photo.png")
    page.wait_for("document.getElementById('status').textContent.startsWith('photo.png: 2 detections')")
    open_detector_page(page, f"{url}?image=http://192.0.2.1/photo.png")
    assert "photo.png" in page.wait_for("!message.hidden && message.textContent")
    assert page.problems, "the policy forbids it"
    page.problems.clear()
    page.requests[:] = [address for address in page.requests if "192.0.2.1" not in address]


def test_page_can_be_used_with_the_keyboard(page: Page, picture: Path):
    show_picture(page, picture)
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(9):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className || 'class'"))
    assert reached == [
        "choose", "camera", "score", "all-classes", "no-classes", "class", "class", "save", "wide rows",
    ]  # fmt: skip
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input:not([hidden]), [role=img], [role=region]')]"
        ".filter(e => !(e.textContent || e.ariaLabel || e.labels?.length || e.hasAttribute('aria-labelledby'))).length"
    )
    assert unnamed == 0


def test_page_fits_a_phone(page: Page, picture: Path):
    try:
        page.set_size(390, 844, scale=2, mobile=True)
        show_picture(page, picture)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.wait_for("canvas.getBoundingClientRect().right <= 390")
    finally:
        page.set_size(1200, 900)


def test_page_says_that_it_needs_a_server(page: Page, tmp_path: Path):
    for name, content in read_page_files().items():
        (tmp_path / name).write_bytes(content)
    page.open((tmp_path / "index.html").as_uri())
    visibility = "getComputedStyle(document.getElementById('not-started')).visibility"
    assert page.evaluate(visibility) == "hidden", "it does not appear while a page is still loading"
    page.evaluate("document.getAnimations().forEach(animation => animation.finish())")
    assert page.evaluate(visibility) == "visible"
    assert "http.server" in page.evaluate("document.body.innerText")
    page.problems.clear()


def test_missing_config_is_named(browser: tuple[Page, str], page: Page):
    config = files.pop("folder/config.json")
    try:
        open_detector_page(page, browser[1])
        assert "config.json" in page.evaluate("message.textContent")
        page.problems.clear()
    finally:
        files["folder/config.json"] = config
