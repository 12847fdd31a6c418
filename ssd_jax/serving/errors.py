"""The exception for requests that are answered with an error status."""

from collections.abc import Mapping

NO_HEADERS: Mapping[str, str] = {}
CLOSE = {"Connection": "close"}
"""Header of an answer to a request whose body was not read to its end."""
RETRY = {"Retry-After": "1"}
"""Header of an answer to a request that may be sent again after a second."""


class RequestError(Exception):
    """Raised for a request, or an image of it, that cannot be answered as asked.

    Args:
        status: HTTP status.
        detail: One line that says what is wrong.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers
