"""Fonts for texts in any script.

A text of ASCII characters has Pillow's font. Other texts have matplotlib's DejaVu Sans, the fonts in ``font_files``
for the characters that it lacks, and fonts of the system for the characters that none of these has. A character that
no font has is drawn as an empty square.

Pillow shapes and reorders letters, as Arabic and the scripts of India need, where it finds the library FriBiDi.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont, features

FONT_FILES = Path(__file__).parent / "font_files"
_JOINERS = "\u200c\u200d"
"""Format characters without a glyph. They change the shapes of the letters beside them."""
_OTHER_STYLES = re.compile(r"bold|italic|oblique|light|thin|black|medium|condensed|serif", re.IGNORECASE)


@dataclass(frozen=True)
class TextFont:
    """The fonts of a text in one size. `choose_font` returns it.

    Attributes:
        size: Size of the letters in pixels.
        files: Font files, the preferred one first. Empty: Pillow's own font.
    """

    size: int
    files: tuple[Path, ...] = ()

    @functools.cached_property
    def height(self) -> int:
        """Height of a line in pixels."""
        return sum(self._metrics)

    @functools.cached_property
    def _metrics(self) -> tuple[int, int]:
        """Pixels above and below the baseline that letters may need."""
        above, below = zip(*(_load(file, self.size).getmetrics() for file in self.files or (None,)), strict=True)
        return max(above), max(below)

    def measure(self, text: str) -> float:
        """Return the width of a text in pixels."""
        options = self._choose_direction(text)
        return sum(_load(file, self.size).getlength(part, **options) for part, file in self._split(text))

    def draw(self, drawing: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: Any) -> None:
        """Draw a text whose line has its upper left corner at a place."""
        x, baseline = place[0], place[1] + self._metrics[0]
        options = self._choose_direction(text)
        for part, file in self._split(text):
            font = _load(file, self.size)
            drawing.text((x, baseline), part, fill=fill, font=font, anchor="ls", **options)
            x += font.getlength(part, **options)

    def _choose_direction(self, text: str) -> dict[str, Any]:
        """Return the arguments of Pillow for the direction of a text; none if Pillow does not know directions."""
        if not self.files or not features.check("raqm"):
            return {}
        return {"direction": "rtl" if is_right_to_left(text) else "ltr"}

    def _split(self, text: str) -> list[tuple[str, Path | None]]:
        """Return the parts of a text that have one font each, from left to right."""
        if not self.files:
            return [(text, None)]
        parts: list[tuple[str, Path | None]] = [*_split_by_font(text, self.files)]
        return parts[::-1] if is_right_to_left(text) else parts


def choose_font(text: str, size: int) -> TextFont:
    """Return fonts of a size in pixels that have all characters of a text, or as many of them as possible."""
    return TextFont(size, () if text.isascii() else _choose_files(frozenset(text) - frozenset(_JOINERS)))


def is_right_to_left(text: str) -> bool:
    """Return whether the first letter of a text is of a script that is written from right to left."""
    directions = (unicodedata.bidirectional(character) for character in text)
    return next((direction for direction in directions if direction in ("L", "R", "AL")), "L") != "L"


def list_bundled_fonts() -> list[Path]:
    """Return the font files that need no search: matplotlib's DejaVu Sans, then those of this package."""
    import matplotlib  # not at the top, because few images need it

    return [Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", *sorted(FONT_FILES.glob("*.ttf"))]


@functools.cache
def register_fonts() -> list[str]:
    """Make the fonts of this package known to matplotlib. Return the names of all bundled fonts."""
    from matplotlib import font_manager

    for file in list_bundled_fonts()[1:]:
        font_manager.fontManager.addfont(file)
    return [font_manager.FontProperties(fname=file).get_name() for file in list_bundled_fonts()]


@functools.lru_cache(maxsize=1 << 12)
def _choose_files(characters: Set[str]) -> tuple[Path, ...]:
    """Return the font files for a set of characters, with DejaVu Sans as the first one."""
    bundled = list_bundled_fonts()
    chosen = bundled[:1]
    missing = characters - _read_characters(bundled[0])
    for file in [*bundled[1:], *(_list_system_fonts() if not _are_bundled(missing) else ())]:
        if missing & _read_characters(file):
            chosen.append(file)
            missing = missing - _read_characters(file)
        if not missing:
            break
    return tuple(chosen)


def _are_bundled(characters: Set[str]) -> bool:
    """Return whether the bundled fonts have all of the characters."""
    return characters <= frozenset().union(*map(_read_characters, list_bundled_fonts()))


@functools.cache
def _list_system_fonts() -> list[Path]:
    """Return the font files of the system, those with an upright and regular style first."""
    from matplotlib import font_manager

    files = sorted(map(Path, font_manager.findSystemFonts()))
    return sorted(files, key=lambda file: bool(_OTHER_STYLES.search(file.name)))


@functools.cache
def _read_characters(file: Path) -> frozenset[str]:
    """Return the characters that a font has; empty if Pillow cannot use the font, for example because it has colors."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(file, 16)
        return frozenset(map(chr, FT2Font(str(file)).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _split_by_font(text: str, files: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the parts of a text with the font file of each. A part goes on as long as its font has the characters."""
    part, current = "", files[0]
    for character in text:
        if character in _JOINERS or character in _read_characters(current):
            part += character
            continue
        file = next((file for file in files if character in _read_characters(file)), current)
        if file != current and part:
            yield part, current
            part = ""
        part, current = part + character, file
    if part:
        yield part, current


@functools.lru_cache
def _load(file: Path | None, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # as a size is given
    return font
