"""Parse forms of files, of the type multipart/form-data, in memory."""

from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ssd_jax.serving.errors import RequestError


class FormFile(NamedTuple):
    """A file in a form."""

    name: str
    """Name that the client gave."""
    data: bytes


def is_form(content_type: str) -> bool:
    """Return whether a body with this content type is a form that may have several files."""
    return parse_options_header(content_type)[0].lower() == b"multipart/form-data"


def parse_form(content_type: str, data: bytes, max_files: int) -> list[FormFile]:
    """Return the files of a form.

    Args:
        content_type: Content type with the boundary of the parts.
        data: The form.
        max_files: Largest number of files.

    Raises:
        RequestError: If it is not such a form, or has no files, too many, or a field that is not a file.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RequestError(422, "the Content-Type of the form has no boundary")
    collector = _Collector(max_files)
    try:
        parser = MultipartParser(boundary, collector.callbacks)  # type: ignore[arg-type]
        parser.write(data)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(422, f"the body is not a form as its Content-Type says ({error})") from error
    if not collector.is_complete:
        raise RequestError(422, "the form is not complete: its last boundary is missing")
    if not collector.files:
        raise RequestError(422, "the form has no files")
    return collector.files


class _Collector:
    def __init__(self, max_files: int) -> None:
        self.files: list[FormFile] = []
        self.is_complete = False
        self._max_files = max_files
        self._header_name = self._header_value = self._disposition = b""
        self._parts: list[bytes] = []
        self.callbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        if len(self.files) == self._max_files:
            raise RequestError(413, f"the form has more files than the limit of {self._max_files}")
        self._disposition = b""
        self._parts = []

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._parts.append(data[start:end])

    def _end_part(self) -> None:
        options = parse_options_header(self._disposition)[1]
        name = options.get(b"filename")
        if name is None:
            field = options.get(b"name", b"").decode("utf-8", "replace")
            raise RequestError(
                422, f"the field '{field}' of the form is not a file. Options belong in the address: /detect?score=0.3"
            )
        self.files.append(FormFile(name.decode("utf-8", "replace"), b"".join(self._parts)))

    def _end(self) -> None:
        self.is_complete = True
