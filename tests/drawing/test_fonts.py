"""Tests of the fonts: scripts that are covered, order of the parts of a text, and fonts of the system."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from ssd_jax.drawing import fonts
from ssd_jax.drawing.boxes import draw_boxes

WORDS = {
    "Arabic": "قطة", "Armenian": "կատու", "Bengali": "বিড়াল", "Chinese": "猫狗車",
    "Cyrillic": "кошка", "Devanagari": "बिल्ली", "Ethiopic": "ድመት", "Georgian": "კატა",
    "Greek": "γάτα", "Gujarati": "બિલાડી", "Gurmukhi": "ਬਿੱਲੀ", "Hangul": "고양이",
    "Hebrew": "חתול", "Kana": "ねこネコ", "Kannada": "ಬೆಕ್ಕು", "Khmer": "ឆ្មា",
    "Lao": "ແມວ", "Malayalam": "പൂച്ച", "Myanmar": "ကြောင်", "Oriya": "ବିଲେଇ",
    "Sinhala": "පූසා", "Tamil": "பூனை", "Telugu": "పిల్లి", "Thai": "แมว",
    "Vietnamese": "mèo ẩn",
}  # fmt: skip


def draw_text(text, size=40):
    """Return the drawing of a text as an array, white on black."""
    font = fonts.choose_font(text, size)
    image = Image.new("L", (600, 100))
    font.draw(ImageDraw.Draw(image), (5, 5), text, 255)
    return np.asarray(image)


def find_columns(drawing):
    """Return the first and the last column with a light pixel."""
    columns = np.flatnonzero(drawing.any(axis=0))
    return columns[0], columns[-1]


@pytest.mark.parametrize("script", WORDS)
def test_bundled_fonts_have_the_letters_of_a_script(script, monkeypatch):
    monkeypatch.setattr(fonts, "_list_system_fonts", lambda: pytest.fail("the fonts of the system are not needed"))
    font = fonts.choose_font(WORDS[script], 40)
    covered = frozenset().union(*map(fonts._read_characters, font.files))
    assert covered >= set(WORDS[script])
    first, last = find_columns(draw_text(WORDS[script]))
    assert first + 3 >= 5 and last <= 5 + font.measure(WORDS[script]) + 3


def test_different_letters_have_different_drawings():
    """A font without the letters would draw the same empty square for each of them."""
    letters = ["猫", "狗", "고", "양", "ბ", "ق", "ห", "ሙ", "क", "က"]
    assert len({draw_text(letter).tobytes() for letter in letters}) == len(letters)


def test_letters_of_a_text_do_not_leave_its_line():
    for word in WORDS.values():
        rows = np.flatnonzero(draw_text(word).any(axis=1))
        assert rows[0] >= 5 and rows[-1] < 5 + fonts.choose_font(word, 40).height


def test_text_of_two_fonts_is_drawn_in_parts_from_left_to_right():
    font = fonts.choose_font("猫 cat 犬", 20)
    assert [part for part, _ in font._split("猫 cat 犬")] == ["猫 ", "cat ", "犬"]
    assert font.measure("猫 cat 犬") == pytest.approx(sum(map(font.measure, ["猫 ", "cat ", "犬"])))


def test_parts_of_a_text_that_begins_in_hebrew_are_ordered_from_right_to_left():
    assert [part for part, _ in fonts.choose_font("חתול 猫", 20)._split("חתול 猫")] == ["猫", "חתול "]


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow found no FriBiDi")
def test_score_is_drawn_left_of_a_hebrew_name_and_right_of_a_latin_one():
    dot = draw_text("חתול .")
    name = draw_text("חתול")
    assert find_columns(dot)[0] < find_columns(name)[0] + 5
    assert np.flatnonzero(dot[:, : find_columns(dot)[0] + 4].any(axis=1)).min() > 30, "the dot is the leftmost"
    dot = draw_text("é חתול .")
    assert np.flatnonzero(dot[:, find_columns(dot)[1] - 3 :].any(axis=1)).min() > 30, "the dot is the rightmost"


def test_font_of_the_system_is_used_for_a_character_that_the_bundled_fonts_lack(monkeypatch, tmp_path):
    """The bundled list is replaced by DejaVu Sans, so that a bundled file can stand for a font of the system."""
    bundled = fonts.list_bundled_fonts()
    broken = tmp_path / "a.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "list_bundled_fonts", lambda: bundled[:1])
    monkeypatch.setattr(fonts, "_list_system_fonts", lambda: [broken, *bundled[1:]])
    fonts._choose_files.cache_clear()
    try:
        assert [file.name for file in fonts.choose_font("แมว", 20).files] == [
            "DejaVuSans.ttf",
            "NotoSansThai-Regular.ttf",
        ]
    finally:
        fonts._choose_files.cache_clear()


def test_ascii_text_has_the_font_of_pillow():
    assert fonts.choose_font("cat 0.93", 20).files == ()


def test_labels_scores_and_line_width_can_be_chosen():
    image = np.full((120, 200, 3), 90, np.uint8)
    boxes, scores = np.array([[50, 50, 150, 100]], np.float32), np.array([0.5], np.float32)
    plain = np.asarray(draw_boxes(image, boxes, ["猫"], scores, show_labels=False, line_width=5))
    assert (plain[:50] == 90).all(), "there is no label"
    changed = (plain != 90).any(axis=2)
    assert changed[75, 50:55].all() and not changed[75, 55:145].any()
    no_scores = np.asarray(draw_boxes(image, boxes, ["猫"], scores, show_scores=False))
    assert np.array_equal(no_scores, np.asarray(draw_boxes(image, boxes, ["猫"])))
