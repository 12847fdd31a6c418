"""The exception for mistakes that a user can correct, and the conversion of other exceptions into it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake that the user can correct: in a file, an annotation or an option.

    The message names the file or option and says what to do. Commands print it without a traceback and exit with
    code 2; in a notebook it is an ordinary exception.
    """


def error_reason(error: BaseException) -> str:
    """Return the cause of an error in one line, e.g. "No space left on device" for an OSError."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextmanager
def user_errors(
    problem: str,
    advice: str = "",
    *,
    catch: type[Exception] | tuple[type[Exception], ...] = Exception,
    reason: Callable[[Exception], str | None] = error_reason,
    error_type: Callable[[str], UserError] = UserError,
) -> Iterator[None]:
    """Convert exceptions of the ``with`` block into a UserError "{problem} ({reason}). {advice}".

    A UserError that is raised in the block passes unchanged.

    Args:
        problem: Names the file or option and says what is wrong with it.
        advice: What the user can do about it, as a sentence.
        catch: Types of exceptions to convert; other types pass unchanged.
        reason: Returns the text in brackets for an exception, or None to let the exception pass unchanged.
        error_type: Class of the error that is raised.

    Raises:
        UserError: In place of an exception of a type in ``catch``, which becomes its cause.
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
