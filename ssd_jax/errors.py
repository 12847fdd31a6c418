"""The exception `UserError`, for mistakes that a user can correct, and conversion of other exceptions into it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ssd_jax.text import escape_text


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
