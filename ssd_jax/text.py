r"""Text for people: names of files and classes with an escape in place of each character that must not be shown as is.

Names come from other people's files and may contain anything that a file system allows: line breaks, control codes of
terminals, characters that reverse the text after them, and bytes that are not UTF-8, which Python keeps as surrogates.
One rule holds wherever a name is shown, on the screen, in CSV files, on drawings and in the report: `escape_text`.
JSON files need no rule of their own, since JSON itself can escape any character. They hold each name as it is.
"""

import unicodedata

_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control codes, format characters, surrogates, and separators of lines and paragraphs."""
_JOINERS = "\u200c\u200d"
"""Format characters that Persian words and compound emoji consist of. They only change the shape of a character."""


def escape_text(text: str) -> str:
    r"""Return a text in one line, with escapes in place of the characters that a terminal may obey or cannot show.

    For example, a line break becomes ``\x0a``, and the byte E9 of a file name that is not UTF-8 becomes ``\xe9``. All
    other characters remain, so that escaping a text twice is the same as escaping it once.
    """
    return text if text.isprintable() else "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN_CATEGORIES or character in _JOINERS:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # the surrogate of a byte
        code -= 0xDC00
    elif code >= 0x80:
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return f"\\x{code:02x}"
