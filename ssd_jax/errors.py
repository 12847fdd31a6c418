r"""The exception `UserError`, for mistakes that a user can correct, and the escape for names in messages.

Names come from other people's files and may contain anything that a file system allows: line breaks, control codes of
terminals, characters that reverse the text after them, and bytes that are not UTF-8, which Python keeps as surrogates.
One rule holds wherever a name is shown, on the screen, in CSV files, on drawings and in the report: `escape_text`.
JSON files need no rule of their own, since JSON itself can escape any character. They hold each name as it is.
"""

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


class UserError(Exception):
    """Raised for a mistake that the user can correct, such as a wrong option or a missing file.

    The message names the file or option and says what to do. Commands print the message without a traceback and exit
    with code 2. In Python code and notebooks, UserError is an ordinary exception.

    Args:
        lines: Lines of the message; most messages have one. `escape_text` is applied to each line, because names from
            the data may contain any character, and must neither begin a new line nor control a terminal.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(map(escape_text, self.args))


def format_error_reason(error: BaseException) -> str:
    """Return the reason of an error in one line, such as "No space left on device" for an OSError."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def call_all(*functions: Callable[[], Any]) -> list[Any]:
    """Call all functions, even if some of them fail, and return their results.

    Raises:
        UserError: If one or more functions raise a UserError. The message has the lines of all of these errors.
    """
    results = []
    lines: list[str] = []
    for function in functions:
        try:
            results.append(function())
        except UserError as error:
            lines += error.args
    if lines:
        raise UserError(*lines)
    return results


@contextmanager
def convert_errors(
    problem: str,
    advice: str = "",
    *,
    catch: type[Exception] | tuple[type[Exception], ...] = Exception,
    reason: Callable[[Exception], str | None] = format_error_reason,
    error_type: Callable[[str], UserError] = UserError,
) -> Iterator[None]:
    """Convert an exception of the ``with`` block into a UserError with the message "{problem} ({reason}). {advice}".

    A UserError that is raised in the block is not converted.

    Args:
        problem: Text that names the file or option and says what is wrong with it.
        advice: Sentence that says what the user can do.
        catch: Type or types of exceptions to convert. Exceptions of other types are not converted.
        reason: Function that returns the reason of an exception, or None if the exception should not be converted.
        error_type: Class of the exception that is raised instead.

    Raises:
        UserError: If the block raises an exception of a type in ``catch``. This exception is the cause of the error.
    """
    try:
        yield
    except UserError:
        raise
    except catch as error:
        text = reason(error)
        if text is None:
            raise
        raise error_type(f"{problem} ({text}){advice and '. '}{advice}") from error
